"""Shuffled batches from a record file, resumable at any batch to the bit.

The state of the iterator is a small dict: save it with a checkpoint, and `set_state` goes
on with exactly the batches that would have come.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import grain
import numpy as np

from flashjax.data.records import RecordError, RecordSource

__all__ = ["make_loader"]


def make_loader(
    source_path: str | os.PathLike[str],
    *,
    batch_size: int,
    seed: int,
    max_text_tokens: int,
    shard: tuple[int, int] = (0, 1),
    epochs: int | None = None,
) -> grain.DatasetIterator:
    """Read batches of a record file in an order that the seed alone decides.

    A batch is a dict of arrays, B being `batch_size`:
    text float32 [B, max_text_tokens, width], zero after each text's end (if the records have
    text); text_length int32 [B] (likewise); image float32 [B, H, W, 3] in [-1, 1] (if they
    have images); category int32 [B]; index int64 [B].

    Args:
        source_path: a file that `prepare` wrote.
        batch_size: records in a batch of this shard; all batches are full.
        seed: decides the order of every epoch.
        max_text_tokens: the length that texts are padded to.
        shard: (index, count): this process reads every count-th record of the common order.
            Where the count does not divide the records, an epoch leaves out the rest.
        epochs: how many times to go through; without end where None. A batch may straddle
            two epochs.

    Returns:
        An iterator with `get_state()` and `set_state(state)`.

    Raises:
        ValueError: settings that do not fit the file, or (while reading) a text longer than
            `max_text_tokens`.
    """
    source, (index, count) = RecordSource(source_path), shard
    if not 0 <= index < count:
        raise ValueError(f"shard is {shard}; it has to be (index, count) with 0 <= index < count.")
    usable = len(source) // count * count
    if not 1 <= batch_size <= max(usable // count, 1) or usable == 0:
        raise ValueError(
            f"{source_path} holds {len(source)} records, {usable // count} a shard; that makes "
            f"no batch of {batch_size}. Use smaller batches or prepare more records."
        )
    dataset = grain.MapDataset.source(source).seed(seed).shuffle()
    dataset = dataset[index:usable:count].repeat(epochs)
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
    if "image" in record:
        example["image"] = record["image"].astype(np.float32) / np.float32(127.5) - np.float32(1)
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
