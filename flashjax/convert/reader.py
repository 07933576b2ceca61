"""Read safetensors, one tensor at a time.

The format (https://github.com/huggingface/safetensors): 8 bytes little-endian header length, a JSON header {name:
{dtype, shape, data_offsets}}, then the data, without gaps or overlaps. Shapes come from the header alone; a tensor is
read when it is asked for, so a 40 GB model is converted in the memory of its largest tensor. What the header says is
checked before it is used: a file may be wrong in any way, but it cannot make this module read outside of it.
"""

import json
import math
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from flashjax.convert.arrays import WINDOW
from flashjax.errors import UserError

DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
MAX_HEADER = 100_000_000  # the format's own limit
_MAX_RANK, _MAX_SIZE = 32, 2**62  # well above any weight, and small enough for numpy


class ConversionError(UserError):
    """Weights cannot be read, or do not fit the model; the message lists everything that is
    wrong."""


class Spec(NamedTuple):
    """Shape and dtype of a tensor that has not been read."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: ``start`` is absolute, in bytes."""

    spec: Spec
    file: Path
    start: int


class Reader:
    """The tensors of one safetensors file or of a sharded folder, by name, read when asked for.

    ``place`` is what messages call it, ``metadata`` the strings of the (first) header.
    """

    def __init__(self, entries: Mapping[str, Entry], metadata: Mapping[str, str], place: Path):
        self._entries = dict(entries)
        self.metadata, self.place = dict(metadata), place

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def shapes(self) -> dict[str, Spec]:
        """Return {name: (shape, dtype)} of all tensors; no data is read."""
        return {name: entry.spec for name, entry in self._entries.items()}

    def entry(self, name: str) -> Entry:
        """Where a tensor lies."""
        return self._entries[name]

    def file(self, name: str) -> Path:
        """The file that holds a tensor."""
        return self._entries[name].file

    def files(self) -> list[Path]:
        """All files, sorted."""
        return sorted({entry.file for entry in self._entries.values()})

    def read(self, name: str, rows: tuple[int, int] | None = None) -> np.ndarray:
        """Return one tensor in the file's dtype (bfloat16 through ml_dtypes), or its ``rows`` [first, end) of the
        leading axis.

        Raises:
          KeyError: there is no such tensor.
          ConversionError: the file has become shorter since it was opened.
        """
        entry = self._entries[name]
        (shape, dtype), start = entry.spec, entry.start
        if rows is not None:
            row = Spec(shape[1:], dtype).nbytes
            shape, start = (rows[1] - rows[0], *shape[1:]), start + rows[0] * row
        out = np.empty(shape, dtype)
        if out.size:
            with entry.file.open("rb") as file:
                file.seek(start)
                if file.readinto(out.reshape(-1).view(np.uint8)) < out.nbytes:
                    raise ConversionError(f"{entry.file} ends inside of {name}: it has changed since it was opened.")
        return out

    def expect(self, name: str) -> None:
        """Let the system fetch a tensor from the disk, where it can, while something else is computed."""
        entry = self._entries[name]
        if hasattr(os, "posix_fadvise"):
            with entry.file.open("rb") as file:
                os.posix_fadvise(file.fileno(), entry.start, entry.spec.nbytes, os.POSIX_FADV_WILLNEED)

    def stream(self, name: str, window: int = WINDOW) -> Iterator[np.ndarray]:
        """Yield the bytes of one tensor in pieces of at most ``window``."""
        entry = self._entries[name]
        left = entry.spec.nbytes
        with entry.file.open("rb") as file:
            file.seek(entry.start)
            while left:
                piece = np.fromfile(file, np.uint8, min(window, left))
                if not piece.size:
                    raise ConversionError(f"{entry.file} ends inside of {name}: it has changed since it was opened.")
                left -= piece.size
                yield piece


def read_file(path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """Return ({name: entry}, metadata) of one safetensors file.

    Raises:
      ConversionError: it is a pickle, truncated, damaged or no safetensors file.
    """
    if path.suffix in PICKLES:
        raise ConversionError(refuse_pickle(path))
    if not path.is_file():
        raise ConversionError(f"{path} is no regular file; give a .safetensors file or a folder of them.")
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else MAX_HEADER + 1
        if prefix == b"version ":  # of https://git-lfs.github.com/spec/v1
            raise ConversionError(f"{path} is the pointer of Git LFS alone; fetch the file itself: git lfs pull")
        if length > MAX_HEADER:
            raise ConversionError(f"{path} is not a safetensors file (no header at its start); check what it is.")
        if 8 + length > size:
            raise ConversionError(
                f"{path} is truncated or no safetensors file: the header wants {8 + length} bytes, "
                f"the file has {size}; fetch it again."
            )
        header = file.read(length)
    return _parse(path, header, 8 + length, size)


def refuse_pickle(path: Path) -> str:
    """Why a pickle is not read, and the two ways out."""
    return (
        f"{path} is a pickle, which is a program rather than data, so flashjax does not read it; save it as "
        ".safetensors (safetensors.torch.save_file), or if you trust it let `flashjax convert --allow-pickle` do so."
    )


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For json's ``object_pairs_hook``: a key that is there twice is an error, not whichever came last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _parse(path: Path, header: bytes, data_start: int, size: int) -> tuple[dict[str, Entry], dict[str, str]]:
    try:
        fields = json.loads(header, object_pairs_hook=unique)
        metadata = fields.pop("__metadata__", None)
        metadata = {} if metadata is None else dict(metadata.items())
        "".join((*metadata.keys(), *metadata.values())).encode()  # raises for what is no text
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ConversionError(
            f"{path} is not a safetensors file (its header is no valid JSON object of tensors); check what it is."
        ) from error
    found = [_entry(path, name, field, data_start) for name, field in fields.items()]
    end = data_start
    for name, entry in sorted(found, key=lambda item: (item[1].start, item[1].spec.nbytes)):
        if entry.start != end:
            raise ConversionError(
                f"The header of {path} is damaged: {name} {'overlaps' if entry.start < end else 'leaves a gap after'} "
                "the tensor before it; fetch the file again."
            )
        end = entry.start + entry.spec.nbytes
        if end > size:
            raise ConversionError(
                f"{path} is truncated: {name} ends at byte {end}, the file has {size}; fetch it again."
            )
    if end < size:
        raise ConversionError(f"{path} has {size - end} bytes after its last tensor: it is damaged; fetch it again.")
    return dict(found), metadata


def _entry(path: Path, name: str, field: Any, data_start: int) -> tuple[str, Entry]:
    """A checked entry of the header, but for its neighbours."""
    if not name.isprintable() or len(name) > 1000:
        raise ConversionError(f"{path} has a tensor whose name is no readable text; check what it is.")
    damaged = ConversionError(f"The header of {path} is damaged: the extent of {name} is not that of its shape.")
    if not isinstance(field, dict) or field.keys() != {"dtype", "shape", "data_offsets"}:
        raise damaged
    dtype, shape, offsets = field["dtype"], field["shape"], field["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ConversionError(f"{name} in {path} has the dtype {str(dtype)[:40]!r}, which is not supported here.")
    if not (_naturals(shape) and _naturals(offsets) and len(offsets) == 2 and len(shape) <= _MAX_RANK):
        raise damaged
    spec = Spec(tuple(shape), DTYPES[dtype])
    if math.prod(max(n, 1) for n in shape) > _MAX_SIZE or offsets[1] - offsets[0] != spec.nbytes:
        raise damaged
    return name, Entry(spec, path, data_start + offsets[0])


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n <= _MAX_SIZE for n in value)
