"""Batches of a run, resumable at any of them to the bit.

The state of the iterator is a small dict: save it with a checkpoint, and `set_state` goes
on with exactly the batches that would have come.
"""

from __future__ import annotations

import functools
from typing import Any

import grain
import numpy as np

from flashjax.data.mixture import Mixture
from flashjax.data.records import RecordError

__all__ = ["make_loader"]


def make_loader(
    mixture: Mixture,
    *,
    batch_size: int,
    max_text_tokens: int,
    shard: tuple[int, int] = (0, 1),
) -> grain.DatasetIterator:
    """Read the batches of a run, in the order of its mixture.

    A batch is a dict of arrays, B being `batch_size`:
    text float32 [B, max_text_tokens, width], zero after each text's end (if the records have
    text); text_length int32 [B] (likewise); image float32 [B, H, W, 3] in [-1, 1] (if they
    have images), the picture that the text asks for; source float32 [B, h, w, 3] in [-1, 1],
    the picture to edit (rows of edits only); category int32 [B], the class in the lambda table;
    index int64 [B].

    Args:
        mixture: all samples of the run, see `flashjax.data.mixture`.
        batch_size: records in a batch of this shard.
        max_text_tokens: the length that texts are padded to.
        shard: (index, count): this process reads every count-th sample.

    Returns:
        An iterator with `get_state()` and `set_state(state)`.

    Raises:
        ValueError: settings that do not fit, or (while reading) a text longer than
            `max_text_tokens`.
    """
    index, count = shard
    if not 0 <= index < count:
        raise ValueError(f"shard is {shard}; it has to be (index, count) with 0 <= index < count.")
    dataset = grain.MapDataset.source(mixture)[index::count]
    dataset = dataset.map(functools.partial(_example, max_text_tokens=max_text_tokens))
    return iter(dataset.batch(batch_size, drop_remainder=True).to_iter_dataset())


def _example(record: dict[str, Any], *, max_text_tokens: int) -> dict[str, np.ndarray]:
    """What training uses of one record, with fixed shapes."""
    try:
        example = {
            "category": np.int32(record["category_id"]),
            "index": np.int64(record["index"]),
        }
    except KeyError as error:
        raise RecordError(f"A record has no field {error}; the loader reads files that `prepare` wrote.") from error
    for name in ("image", "source"):
        if name in record:
            example[name] = record[name].astype(np.float32) / np.float32(127.5) - np.float32(1)
    if "text" in record:
        text = record["text"]
        if len(text) > max_text_tokens:
            raise ValueError(
                f"The text of record {record['index']} has {len(text)} tokens, more than "
                f"max_text_tokens = {max_text_tokens}; raise it to the max_text_tokens of the "
                "set's manifest."
            )
        example["text"] = np.zeros((max_text_tokens, text.shape[1]), np.float32)
        example["text"][: len(text)] = text
        example["text_length"] = np.int32(len(text))
    return example
