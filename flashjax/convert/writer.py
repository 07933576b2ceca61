"""Write safetensors: a few slabs of a tensor in memory at a time, and the file appears whole or not at all.

Making and writing take about as long as one another, so each has a thread of its own; so has the disk, which is told to
keep up. Hashing has two, for tensors in turns: where the processor has no instructions for it, it takes as long as all
else together. What waits between them is bounded.
"""

import contextlib
import hashlib
import io
import json
import os
import struct
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from flashjax.convert.arrays import slabs
from flashjax.convert.reader import DTYPES, ConversionError, Spec

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_WAITING = 8  # slabs that may be in memory, made and not yet hashed and written: of two of the tensors that most are
_HASHERS = 2
_DIRTY = 256 << 20  # bytes after which the disk begins with what is written, rather than with all of it at the end


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
    digests = {}
    try:
        with os.fdopen(handle, "wb", buffering=0) as file, _Stages(file) as stages:
            stages.write(struct.pack("<Q", len(header)) + header)
            for name in ordered(specs):
                digests[name] = _stream(stages, name, tensors[name](), specs[name], progress)
        os.chmod(temporary, 0o644)  # mkstemp makes it private
        os.replace(temporary, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # what a full disk says knows no file
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    return {name: digest.hexdigest() for name, digest in digests.items()}


def _stream(stages: "_Stages", name, pieces, spec, progress) -> Any:
    """Hand a tensor to the threads; returns what has its hash when they are done."""
    digest, size = hashlib.sha256(), 0
    stages.next_tensor()
    for piece in pieces:
        if piece.dtype != spec.dtype:
            raise _not_as_announced(name, spec, f"{piece.dtype}")
        data = np.ascontiguousarray(piece).reshape(-1).view(np.uint8).data
        stages.write(data, digest)
        size += len(data)
        if progress:
            progress(len(data))
    if size != spec.nbytes:
        raise _not_as_announced(name, spec, f"{size} bytes")
    return digest


class _Stages:
    """A file whose bytes are hashed and written in the order in which they come, by threads, as a context: at its end
    everything is on the disk. What fails in a thread is raised by a later call, or there."""

    def __init__(self, file: io.RawIOBase):
        self._file = file
        self._writer, self._disk, *self._hashers = self._threads = [ThreadPoolExecutor(1) for _ in range(2 + _HASHERS)]
        self._waiting: deque[tuple[Future, ...]] = deque()
        self._dirty, self._syncing = 0, self._disk.submit(lambda: None)

    def __enter__(self) -> "_Stages":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            while self._waiting and kind is None:
                self._finish_one()
            if kind is None:
                self._syncing.result()
                os.fsync(self._file.fileno())
        finally:
            for thread in self._threads:
                thread.shutdown(cancel_futures=True)

    def next_tensor(self) -> None:
        """What is hashed from here on is another tensor, and another thread's."""
        self._hashers.append(self._hashers.pop(0))

    def write(self, data: bytes | memoryview, digest: Any = None) -> None:
        """Take ``data``, which must not change from here on; waits while `_WAITING` pieces are under way."""
        while len(self._waiting) >= _WAITING:
            self._finish_one()
        hashed = [self._hashers[0].submit(digest.update, data)] if digest is not None else []
        self._waiting.append((*hashed, self._writer.submit(self._write_all, data)))

    def _finish_one(self) -> None:
        for future in self._waiting.popleft():
            future.result()

    def _write_all(self, data: bytes | memoryview) -> None:
        left = memoryview(data)
        while left:  # a raw file may take less than it is given
            left = left[self._file.write(left) :]
        self._dirty += len(data)
        if self._dirty >= _DIRTY and self._syncing.done():
            self._syncing.result()
            self._dirty = 0
            self._syncing = self._disk.submit(os.fdatasync, self._file.fileno())


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
