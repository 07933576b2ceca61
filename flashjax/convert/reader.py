"""Read safetensors, one tensor at a time.

The format (https://github.com/huggingface/safetensors): 8 bytes little-endian header length, a JSON
header {name: {dtype, shape, data_offsets}}, then the data. Shapes come from the header alone; a
tensor is mapped from disk only when it is asked for, so a 40 GB model is converted in the memory of
its largest tensor.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

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
_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
_MAX_HEADER = 100_000_000  # the format's own limit


class ConversionError(UserError):
    """Weights cannot be read, or do not fit the model; the message lists everything that is
    wrong."""


class Spec(NamedTuple):
    """Shape and dtype of a tensor that has not been read."""

    shape: tuple[int, ...]
    dtype: np.dtype


@dataclass(frozen=True)
class _Entry:
    spec: Spec
    file: Path
    start: int  # absolute, in bytes


class Reader:
    """The tensors of one safetensors file or of a sharded folder, by name, read when asked for."""

    def __init__(self, entries: Mapping[str, _Entry], metadata: Mapping[str, str]):
        self._entries = dict(entries)
        self.metadata = dict(metadata)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def shapes(self) -> dict[str, Spec]:
        """Return {name: (shape, dtype)} of all tensors; no data is read."""
        return {name: entry.spec for name, entry in self._entries.items()}

    def read(self, name: str) -> np.ndarray:
        """Return one tensor as a read-only view of the file, in the file's dtype (bfloat16 through
        ml_dtypes).

        Raises:
          KeyError: there is no such tensor.
        """
        entry = self._entries[name]
        if 0 in entry.spec.shape:
            return np.empty(entry.spec.shape, entry.spec.dtype)
        size = int(np.prod(entry.spec.shape)) * entry.spec.dtype.itemsize
        raw = np.memmap(entry.file, np.uint8, "r", offset=entry.start, shape=(size,))
        return raw.view(entry.spec.dtype).reshape(entry.spec.shape)


def open_weights(path: str | Path) -> Reader:
    """Open a `.safetensors` file, or a folder with one such file or with shards and their
    `*.index.json`.

    Only headers are read here.

    Raises:
      ConversionError: the path is missing, is a pickle, is truncated or is not a safetensors file,
        or the shards do not agree with their index.
    """
    path = Path(path)
    if not path.exists():
        raise ConversionError(f"There are no weights at {path}; give a .safetensors file or a folder of them.")
    if path.is_file():
        entries, metadata = _read_header(path)
        return Reader(entries, metadata)
    indexes = sorted(path.glob("*.safetensors.index.json"))
    if len(indexes) == 1:
        return _open_shards(path, indexes[0])
    files = sorted(path.glob("*.safetensors"))
    if not indexes and len(files) == 1:
        entries, metadata = _read_header(files[0])
        return Reader(entries, metadata)
    raise ConversionError(_why_no_file(path, indexes or files))


def _why_no_file(folder: Path, candidates: list[Path]) -> str:
    if candidates:
        names = ", ".join(file.name for file in candidates)
        return f"The folder {folder} offers more than one choice ({names}); name the one file to read."
    if pickles := sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLES):
        return _refuse_pickle(folder / pickles[0])
    return f"The folder {folder} holds no .safetensors file; give the folder of the model's weights."


def _refuse_pickle(path: Path) -> str:
    return (
        f"{path} is a pickle, and unpickling runs whatever code it carries, so flashjax does not "
        "read it; "
        "save it as .safetensors first (safetensors.torch.save_file)."
    )


def _open_shards(folder: Path, index: Path) -> Reader:
    try:
        weight_map = json.loads(index.read_text())["weight_map"]
        shards = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConversionError(f"The index {index} has no readable 'weight_map'; fetch it again.") from error
    if missing := [name for name in shards if not (folder / name).is_file()]:
        raise ConversionError(
            f"The index {index} names {len(shards)} shards, but {', '.join(missing)} is not in the "
            "folder; "
            "complete the download."
        )
    headers = {name: _read_header(folder / name) for name in shards}
    if absent := [key for key, shard in weight_map.items() if key not in headers[shard][0]]:
        raise ConversionError(
            f"The index {index} places {', '.join(absent[:10])} in shards that do not hold them; "
            "index and shards are of different versions."
        )
    entries = {key: headers[shard][0][key] for key, shard in weight_map.items()}
    return Reader(entries, headers[shards[0]][1])


def _read_header(path: Path) -> tuple[dict[str, _Entry], dict[str, str]]:
    if path.suffix in _PICKLES:
        raise ConversionError(_refuse_pickle(path))
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else _MAX_HEADER + 1
        if length > _MAX_HEADER:
            raise ConversionError(f"{path} is not a safetensors file (no header at its start); check what it is.")
        if 8 + length > size:
            raise ConversionError(
                f"{path} is truncated or no safetensors file: the header wants {8 + length} bytes, "
                f"the file has {size}; fetch it again."
            )
        header = file.read(length)
    return _parse_header(path, header, 8 + length, size)


def _parse_header(path: Path, header: bytes, data_start: int, size: int) -> tuple[dict[str, _Entry], dict[str, str]]:
    try:
        fields = json.loads(header)
        metadata = fields.pop("__metadata__", None) or {}
        raw = {k: (v["dtype"], tuple(v["shape"]), *v["data_offsets"]) for k, v in fields.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConversionError(
            f"{path} is not a safetensors file (its header is no valid JSON); check what it is."
        ) from error
    entries = {}
    for name, (dtype, shape, begin, end) in raw.items():
        if dtype not in DTYPES:
            raise ConversionError(f"The tensor {name} in {path} has the dtype {dtype}, which is not supported here.")
        spec = Spec(shape, DTYPES[dtype])
        if end - begin != int(np.prod(shape)) * spec.dtype.itemsize or begin < 0:
            raise ConversionError(f"The header of {path} is damaged: the extent of {name} is not that of its shape.")
        if data_start + end > size:
            raise ConversionError(
                f"{path} is truncated: {name} ends at byte {data_start + end}, the file has {size}; fetch it again."
            )
        entries[name] = _Entry(spec, path, data_start + begin)
    return entries, metadata
