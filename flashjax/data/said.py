"""Texts that training itself says, the empty prompt, negative prompts, those of its samples, as ``prepare`` encoded
them: the condition encoders of large models are no part of training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flashjax.data.records import RecordSource
from flashjax.errors import UserError


class Said:
    """Stands where training has a text encoder, over a set that holds such texts (its manifest has "said"). A set of
    edits that were encoded with their pictures holds none: each has its own null."""

    def __init__(self, path: str | Path, manifest: Mapping[str, Any]):
        first = manifest["count"]  # they stand behind the prompts
        self._places = {name: first + i for i, name in enumerate(manifest.get("said", ()))}
        self._path, self._records = path, RecordSource(path)

    def encode(self, texts: Sequence[str], max_tokens: int | None = None) -> list[np.ndarray]:
        """The states float32 [n_i, width] of every text. ``max_tokens`` is the manifest's business. Raises UserError
        for a text that was not encoded."""
        if missing := [text for text in texts if text not in self._places]:
            raise UserError(
                f"{self._path} was prepared without the text {missing[0]!r}, which this run says; prepare it again "
                f"with --also {missing[0]!r}."
            )
        return [self._records[self._places[text]]["text"].astype(np.float32) for text in texts]


def of(sources: Mapping[str, Mapping[str, Any]], manifests: Mapping[str, Mapping[str, Any]]) -> Said | None:
    """What stands for the encoder of a run's sources; None where they are small enough to have theirs beside training.
    Raises UserError for sources of different encoders."""
    if len(named := {str(manifest["encoder"]) for manifest in manifests.values()}) > 1:
        raise UserError(f"The sources were prepared with different text encoders, {' and '.join(sorted(named))}.")
    holding = [name for name, manifest in manifests.items() if "said" in manifest]
    holding += [name for name, manifest in manifests.items() if manifest.get("own_nulls")]
    return Said(sources[holding[0]]["path"], manifests[holding[0]]) if holding else None
