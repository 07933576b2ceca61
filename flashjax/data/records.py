"""Records in ArrayRecord files: plain values and arrays, written whole or not at all.

A record is a dict of numbers, strings, lists, dicts and numpy arrays. It is stored as
msgpack, an array as a map of its dtype, shape and bytes, so reading runs no code.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import msgpack
import numpy as np
from array_record.python import array_record_module

from flashjax.errors import UserError
from flashjax.files import whole

__all__ = ["RecordError", "RecordSource", "pack", "source_key", "sources", "unpack", "write_records"]

# One record a group, so that a shuffled read decompresses nothing it does not need.
_WRITER_OPTIONS = "group_size:1,zstd:1"
_ARRAY_KEYS = {"dtype", "shape", "bytes"}
_EXTENDED = {"bfloat16": ml_dtypes.bfloat16}
_KINDS = frozenset("biuf")


class RecordError(UserError):
    """A record or a file of records that cannot be written or read."""


def source_key(number: int) -> str:
    """The name of a picture to edit in a record and in a batch, counted from 1: source, source_2, source_3."""
    return "source" if number == 1 else f"source_{number}"


def sources(given: Mapping[str, Any]) -> list[Any]:
    """The pictures to edit of a record or a batch, in their order; [] where there is none."""
    found: list[Any] = []
    while (key := source_key(len(found) + 1)) in given:
        found.append(given[key])
    return found


def pack(record: Mapping[str, Any]) -> bytes:
    """Encode one record.

    Args:
        record: numbers, strings, bytes, None, lists, dicts and arrays of booleans, integers,
            floats or bfloat16.

    Raises:
        RecordError: the record holds something else.
    """
    try:
        return msgpack.packb(dict(record), default=_encode, use_bin_type=True)
    except TypeError as error:
        raise RecordError(
            f"A record can hold plain values and numeric arrays only: {error}. Convert the value before writing it."
        ) from error


def unpack(payload: bytes) -> dict[str, Any]:
    """Decode one record; its arrays are read-only views of the payload."""
    try:
        return msgpack.unpackb(payload, object_hook=_decode, raw=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise RecordError(
            f"A record could not be decoded ({error}); the file was not written by flashjax "
            "or is damaged. Write it again."
        ) from error


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        name = value.dtype.name
        if value.dtype.kind not in _KINDS and name not in _EXTENDED:
            raise TypeError(f"an array of dtype {value.dtype} is not numeric")
        data = np.ascontiguousarray(value).tobytes()
        return {"dtype": name, "shape": list(value.shape), "bytes": data}
    if isinstance(value, np.generic) and value.dtype.kind in _KINDS:
        return value.item()
    raise TypeError(f"a value of type {type(value).__name__} has no encoding")


def _decode(value: dict[str, Any]) -> Any:
    if value.keys() != _ARRAY_KEYS:
        return value
    dtype = np.dtype(_EXTENDED.get(value["dtype"], value["dtype"]))
    if dtype.kind not in _KINDS and value["dtype"] not in _EXTENDED:
        raise ValueError(f"an array of dtype {dtype} is not numeric")
    return np.frombuffer(value["bytes"], dtype).reshape(value["shape"])


def write_records(path: str | os.PathLike[str], records: Iterable[Mapping[str, Any]]) -> int:
    """Write records to a new file, which appears under its name only when it is complete.

    Args:
        path: the file to write; an older one is replaced at the end.
        records: what to write, see `pack`; read lazily.

    Returns:
        How many records were written.

    Raises:
        RecordError: a record cannot be encoded, there are none, or the disk has no room for them.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as partial:
        count = _write_all(partial, path, records)
        if count == 0:
            raise RecordError(f"There are no records to write to {path}.")
    return count


def _write_all(partial: Path, path: Path, records: Iterable[Mapping[str, Any]]) -> int:
    with _writing(path):
        writer = array_record_module.ArrayRecordWriter(str(partial), _WRITER_OPTIONS)
    count = 0
    try:
        for record in records:
            packed = pack(record)
            with _writing(path):
                writer.write(packed)
            count += 1
    finally:
        with _writing(path):
            writer.close()
    return count


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Says what the system refused, as on a full disk: ArrayRecord has it in the text of a RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        said = f"{path.name} cannot be written to {path.parent} ({str(error).partition(';')[0]})"
        raise RecordError(f"{said}; make room and start again.") from error


class RecordSource:
    """A file of records with random access, as grain reads it.

    `len(source)` counts the records and `source[i]` decodes one as a dict. It can be
    copied, which opens the file anew, and read from several threads.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open a file.

        Args:
            path: a file that `write_records` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            RecordError: it is truncated or no ArrayRecord file.
        """
        self._path = Path(path)
        self._lock = threading.Lock()
        self._open()

    def _open(self) -> None:
        if not self._path.is_file():
            raise FileNotFoundError(
                f"There is no record file {self._path}; write it first, for instance with "
                "`flashjax prepare`."
            )
        try:
            self._reader = array_record_module.ArrayRecordReader(str(self._path))
            self._count = self._reader.num_records()
        except (RuntimeError, ValueError, IndexError) as error:
            raise RecordError(self._damaged(error)) from error
        if self._count == 0:
            raise RecordError(self._damaged("no records found"))

    def _damaged(self, why: object) -> str:
        return (
            f"{self._path} cannot be read as ArrayRecord ({why}); it is truncated or of "
            "another kind. Delete it and write it again."
        )

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Decode record `index` (from 0; negative counts from the end)."""
        position = int(index)
        if not -self._count <= position < self._count:
            raise IndexError(f"{self._path} holds {self._count} records; there is no {index}.")
        with self._lock:
            try:
                (payload,) = self._reader.read([position % self._count])
            except (RuntimeError, ValueError, IndexError) as error:
                raise RecordError(self._damaged(error)) from error
        return unpack(payload)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self._path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])

    def __repr__(self) -> str:
        return f"RecordSource({str(self._path)!r}, records={self._count})"
