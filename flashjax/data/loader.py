"""Batches of a run, resumable at any of them to the bit.

The state of the iterator is a small dict: save it with a checkpoint, and `set_state` goes
on with exactly the batches that would have come. It counts batches of the whole run, whatever
number of processes reads them: each reads its rows of every batch, so that neither the order
of the samples nor the state depends on how many there are.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np

from flashjax.data.mixture import Mixture
from flashjax.data.records import RecordError, source_key, sources

__all__ = ["make_loader"]


def make_loader(
    mixture: Mixture,
    *,
    batch_size: int,
    max_text_tokens: int,
    rows: Sequence[int] | None = None,
    images: bool = True,
) -> grain.DatasetIterator:
    """Read the batches of a run, in the order of its mixture.

    A batch is a dict of arrays, B being `batch_size`, or the number of `rows`:
    text float32 [B, max_text_tokens, width], zero after each text's end (if the records have
    text); text_length int32 [B] (likewise); image float32 [B, H, W, 3] in [-1, 1] (if they
    have images), the picture that the text asks for; source float32 [B, h, w, 3] in [-1, 1],
    the picture to edit (rows of edits only), and source_2 and on where there are several; all
    are latents, as they are, where the records hold such; null and null_length (rows of edits
    that a released encoder read), of the empty prompt beside them, as text; category int32 [B],
    the class in the lambda table; index int64 [B].

    Args:
        mixture: all samples of the run, see `flashjax.data.mixture`.
        batch_size: samples in a batch, of all processes together.
        max_text_tokens: the length that texts are padded to.
        rows: the rows of each batch that this process reads, in the order in which it wants
            them; all where None.
        images: whether the pictures that texts ask for are read, which distillation does without.

    Returns:
        An iterator with `get_state()` and `set_state(state)`.

    Raises:
        ValueError: settings that do not fit.
        RecordError: (while reading) a text longer than `max_text_tokens`, a picture that is none.
    """
    rows = range(batch_size) if rows is None else rows
    if len(rows) == 0 or not all(0 <= row < batch_size for row in rows):
        raise ValueError(f"rows are {list(rows)}; they have to lie in a batch of {batch_size}.")
    dataset = grain.MapDataset.source(mixture)
    dataset = dataset.map(functools.partial(_example, max_text_tokens=max_text_tokens, images=images))
    own = grain.MapDataset.source(_Rows(dataset, batch_size, rows))
    # Grain's own 500 batches ahead would be gigabytes of text states, on every host.
    ahead = grain.ReadOptions(num_threads=8, prefetch_buffer_size=16)
    return iter(own.batch(len(rows), drop_remainder=True).to_iter_dataset(ahead))


class _Rows:
    """A source of what one process reads of a dataset in the common order: some rows of each of its batches."""

    def __init__(self, dataset: grain.MapDataset, batch_size: int, rows: Sequence[int]):
        self._dataset, self._batch_size, self._rows = dataset, batch_size, [int(row) for row in rows]

    def __len__(self) -> int:
        return len(self._dataset) // self._batch_size * len(self._rows)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        batch, row = divmod(index, len(self._rows))
        return self._dataset[batch * self._batch_size + self._rows[row]]


def _example(record: dict[str, Any], *, max_text_tokens: int, images: bool) -> dict[str, np.ndarray]:
    """What training uses of one record, with fixed shapes."""
    try:
        example = {
            "category": np.int32(record["category_id"]),
            "index": np.int64(record["index"]),
        }
    except KeyError as error:
        raise RecordError(f"A record has no field {error}; the loader reads files that `prepare` wrote.") from error
    pictures = {source_key(n): source for n, source in enumerate(sources(record), 1)}
    pictures |= {"image": record["image"]} if images and "image" in record else {}
    for name, stored in pictures.items():
        if not isinstance(stored, np.ndarray):
            raise RecordError(
                f"Record {record['index']} of the category {record.get('category')!r} has no picture as its {name!r} "
                f"but {stored!r}; prepare its set again."
            )
        values = stored.astype(np.float32)
        example[name] = values / np.float32(127.5) - np.float32(1) if stored.dtype == np.uint8 else values
    for name in ("text", "null"):
        if name not in record:
            continue
        text = record[name]
        if len(text) > max_text_tokens:
            raise RecordError(
                f"The text of record {record['index']} has {len(text)} tokens, more than "
                f"max_text_tokens = {max_text_tokens}; raise it to the max_text_tokens of the "
                "set's manifest."
            )
        example[name] = np.zeros((max_text_tokens, text.shape[1]), np.float32)
        example[name][: len(text)] = text
        example[f"{name}_length"] = np.int32(len(text))
    return example
