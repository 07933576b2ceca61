"""Write safetensors: one tensor in memory at a time, and the file appears whole or not at all."""

import contextlib
import json
import os
import struct
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flashjax.convert.reader import DTYPES, ConversionError, Spec

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write_weights(
    path: str | Path,
    tensors: Mapping[str, Callable[[], np.ndarray]],
    specs: Mapping[str, Spec],
    metadata: Mapping[str, str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write tensors that are made when their turn comes.

    Args:
      path: the file to write; its folder is created. An existing file is replaced at the end, in
        one step.
      tensors: {name: function that returns the tensor}.
      specs: {name: (shape, dtype)} of the same names; what the functions return has to agree.
      metadata: strings for the file's header.
      progress: called with the bytes of every tensor written.

    Returns:
      The size of the file in bytes.

    Raises:
      ConversionError: a dtype has no name in the format, metadata is no string, or a tensor is not
        as announced.
    """
    path = Path(path)
    header = _header(path, specs, metadata or {})
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            for name in sorted(specs, key=lambda name: _order(name, specs)):
                array = np.ascontiguousarray(tensors[name]())
                _check(name, array, specs[name])
                file.write(array.view(np.uint8).data if array.size else b"")
                if progress:
                    progress(array.nbytes)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        os.chmod(temporary, 0o644)  # mkstemp makes it private
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    return size


def write_arrays(path: str | Path, arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> int:
    """Write arrays that exist already (numpy or jax); see `write_weights`."""
    specs = {name: Spec(tuple(a.shape), np.dtype(a.dtype)) for name, a in arrays.items()}
    makers = {name: lambda a=a: np.asarray(a) for name, a in arrays.items()}
    return write_weights(path, makers, specs, metadata)


def _order(name: str, specs: Mapping[str, Spec]) -> tuple[int, str]:
    # Wide dtypes first keeps every tensor aligned to its own item size.
    return -specs[name].dtype.itemsize, name


def _header(path: Path, specs: Mapping[str, Spec], metadata: Mapping[str, str]) -> bytes:
    if wrong := [key for key, value in metadata.items() if not isinstance(value, str)]:
        raise ConversionError(
            f"The metadata {', '.join(wrong)} for {path} is not text; safetensors stores strings, so convert it."
        )
    fields: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name in sorted(specs, key=lambda name: _order(name, specs)):
        shape, dtype = specs[name]
        if dtype not in _NAMES:
            raise ConversionError(f"{name} has the dtype {dtype}, which safetensors cannot store; cast it first.")
        end = offset + int(np.prod(shape)) * dtype.itemsize
        fields[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(fields, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def _check(name: str, array: np.ndarray, spec: Spec) -> None:
    if (array.shape or (1,)) != (spec.shape or (1,)) or array.dtype != spec.dtype:
        raise ConversionError(
            f"{name} was announced as {spec.dtype} {list(spec.shape)} but is {array.dtype} "
            f"{list(array.shape)}; "
            "nothing was written."
        )
