"""Write safetensors: one slab of a tensor in memory at a time, and the file appears whole or not at all."""

import contextlib
import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from flashjax.convert.arrays import slabs
from flashjax.convert.reader import DTYPES, ConversionError, Spec

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write_weights(
    path: str | Path,
    tensors: Mapping[str, Callable[[], Iterable[np.ndarray]]],
    specs: Mapping[str, Spec],
    metadata: Mapping[str, str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, str]:
    """Write tensors that are made when their turn comes.

    Args:
      path: the file to write; its folder is created. An existing file is replaced at the end, in
        one step.
      tensors: {name: function that returns the tensor in pieces}, see `arrays.slabs`.
      specs: {name: (shape, dtype)} of the same names; what the functions return has to agree.
      metadata: strings for the file's header.
      progress: called with the bytes of every piece written.

    Returns:
      {name: sha256 of the tensor's bytes, in hexadecimal digits}.

    Raises:
      ConversionError: a dtype has no name in the format, metadata is no string, or a tensor is not
        as announced.
    """
    path = Path(path)
    header = _header(path, specs, metadata or {})
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    hashes = {}
    try:
        with os.fdopen(handle, "wb") as file, ThreadPoolExecutor(1) as hasher:
            file.write(struct.pack("<Q", len(header)) + header)
            for name in ordered(specs):
                hashes[name] = _write(file, name, tensors[name](), specs[name], hasher, progress)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it private
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    return hashes


def _write(file, name, pieces, spec, hasher, progress) -> str:
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        if piece.dtype != spec.dtype:
            raise _not_as_announced(name, spec, f"{piece.dtype}")
        data = np.ascontiguousarray(piece).reshape(-1).view(np.uint8).data
        hashed = hasher.submit(digest.update, data)  # beside the writing: either takes about as long as the other
        file.write(data)
        hashed.result()
        size += len(data)
        if progress:
            progress(len(data))
        del piece, data, hashed  # it may be a view of a whole tensor, and the next one is about to be read
    if size != spec.nbytes:
        raise _not_as_announced(name, spec, f"{size} bytes")
    return digest.hexdigest()


def write_arrays(
    path: str | Path, arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Write arrays that exist already (numpy or jax); see `write_weights`."""
    specs = {name: Spec(tuple(a.shape), np.dtype(a.dtype)) for name, a in arrays.items()}
    tensors = {name: lambda a=a: slabs(np.asarray(a), a.dtype) for name, a in arrays.items()}
    return write_weights(path, tensors, specs, metadata)


def ordered(specs: Mapping[str, Spec]) -> list[str]:
    """The order of the tensors in a file."""
    # Wide dtypes first keeps every tensor aligned to its own item size.
    return sorted(specs, key=lambda name: (-specs[name].dtype.itemsize, name))


def _not_as_announced(name: str, spec: Spec, found: str) -> ConversionError:
    return ConversionError(
        f"{name} was announced as {spec.dtype} {list(spec.shape)} but is of {found}; nothing was written."
    )


def _header(path: Path, specs: Mapping[str, Spec], metadata: Mapping[str, str]) -> bytes:
    if wrong := [key for key, value in metadata.items() if not isinstance(value, str)]:
        raise ConversionError(
            f"The metadata {', '.join(wrong)} for {path} is not text; safetensors stores strings, so convert it."
        )
    fields: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name in ordered(specs):
        shape, dtype = specs[name]
        if dtype not in _NAMES:
            raise ConversionError(f"{name} has the dtype {dtype}, which safetensors cannot store; cast it first.")
        end = offset + specs[name].nbytes
        fields[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(fields, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)
