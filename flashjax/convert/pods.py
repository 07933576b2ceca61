"""Converted weights as an Orbax checkpoint, written in pieces and read by many devices, each its own part.

Orbax takes arrays that exist as a whole. So each parameter is written here, as Orbax writes a `jax.Array` (zarr, one
folder a parameter), and when all are there Orbax tells what they are: its type handlers are open, and ours writes
nothing. Orbax restores the checkpoint like any other. A chunk is one layer's share of one device: a device reads its
chunks and no more.
"""

import contextlib
import hashlib
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from jax.sharding import AbstractMesh

from flashjax import paths
from flashjax.convert import manifest
from flashjax.convert.manifest import ORBAX
from flashjax.convert.reader import ConversionError, Spec
from flashjax.parallel import hosts, sharding


class Written:
    """Stands for a parameter whose chunks are on the disk."""


def chunks(
    specs: Mapping[str, Spec], stacked: frozenset[str], mesh: Mapping[str, int], ruled: bool
) -> dict[str, tuple[int, ...]]:
    """{path: shape of what is stored together}: what one device of the mesh holds, of a stack one layer of it.

    Args:
      specs: {path: (shape, dtype)} of the whole model.
      stacked: the paths whose leading axis counts layers.
      mesh: {axis: size}.
      ruled: divide by the rules of `parallel.sharding`, which are for denoisers. Otherwise along the first axis of a
        layer that all devices divide, or not at all.

    Raises:
      UserError: a parameter does not divide over the mesh.
    """
    if ruled:
        sizes = {"fsdp": 1, "tensor": 1, **mesh}
        form = {name: jax.ShapeDtypeStruct(*spec) for name, spec in specs.items()}
        placed = sharding.shardings(paths.unflatten(form), AbstractMesh(tuple(sizes.values()), tuple(sizes)))
        shares = {name: where.shard_shape(specs[name].shape) for name, where in paths.flatten(placed).items()}
    else:
        shares = {name: _share(spec.shape, name in stacked, math.prod(mesh.values())) for name, spec in specs.items()}
    return {name: (1, *share[1:]) if name in stacked else share for name, share in shares.items()}


def _share(shape: tuple[int, ...], stacked: bool, devices: int) -> tuple[int, ...]:
    axis = next((i for i in range(stacked, len(shape)) if shape[i] and shape[i] % devices == 0), None)
    return tuple(size // devices if i == axis else size for i, size in enumerate(shape))


def regions(shape: tuple[int, ...], part: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """An array of this shape in pieces that follow each other in memory: chunks, or rows of chunks side by side."""
    steps = [n if math.prod(part[:axis]) > 1 else part[axis] for axis, n in enumerate(shape)]
    for start in np.ndindex(*(-(-n // step) for n, step in zip(shape, steps, strict=True))):
        yield tuple(slice(i * step, min((i + 1) * step, n)) for i, step, n in zip(start, steps, shape, strict=True))


def write(
    folder: Path, spec: Spec, part: tuple[int, ...], pieces: Iterable[np.ndarray], progress: Callable[[int], None]
) -> str:  # fmt: skip
    """Write one parameter into a folder that must not be there, as Orbax would.

    Args:
      spec: (shape, dtype).
      part: shape of a chunk, from `chunks`.
      pieces: the parameter's numbers in their order, in pieces of any size; see `planning.makers`.
      progress: called with the bytes of what is written.

    Returns:
      sha256 of the parameter's bytes.
    """
    digest, layout = hashlib.sha256(), ts.ChunkLayout(chunk_shape=part)
    with _system_errors(folder):
        store = ts.open(
            _zarr(folder), create=True, dtype=spec.dtype.name, shape=spec.shape, chunk_layout=layout
        ).result()  # fmt: skip
        for region, array in _filled(spec, part, pieces):
            writing = store[region].write(array)
            try:
                digest.update(array.reshape(-1).view(np.uint8))  # beside it
                progress(array.nbytes)
            finally:
                writing.result()  # also where it is interrupted: what goes on would meet files that come and go
    return digest.hexdigest()


def finish(folder: Path, names: Iterable[str]) -> None:
    """Make an Orbax checkpoint of the folder in which `write` wrote parameters, each in its `place`: Orbax's own files,
    of a checkpoint that holds nothing else, are put there. Once more does no harm."""
    registry = ocp.type_handlers.create_type_handler_registry((Written, _Handler()))
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False, type_handler_registry=registry)
    empty = folder.absolute().with_name(folder.name + ".told")
    with ocp.Checkpointer(handler) as checkpointer, _system_errors(folder):
        checkpointer.save(empty, paths.unflatten({name: Written() for name in names}), force=True)
    for file in empty.iterdir():
        if file.is_file():
            file.replace(folder / file.name)
    shutil.rmtree(empty)


def place(name: str) -> str:
    """The folder of a parameter in a checkpoint."""
    return name.replace("/", ".")


class _Handler(ocp.type_handlers.TypeHandler):
    """Calls what is written an array."""

    def typestr(self) -> str:
        return "jax.Array"

    async def metadata(self, infos: Sequence[Any]) -> Sequence[Any]:
        raise NotImplementedError("what is written is not read by this handler")

    async def deserialize(self, infos: Sequence[Any], args: Any = None) -> Sequence[Any]:
        raise NotImplementedError("what is written is not read by this handler")

    async def serialize(self, values: Sequence[Written], infos: Sequence[Any], args: Any = None) -> Sequence[Any]:
        for info in infos:
            await info.await_path_creation()
        return []


def _zarr(path: Any) -> dict[str, Any]:
    place = {"driver": "file", "path": f"{path}/"}
    plain = {"metadata": {"compressor": None}, "store_data_equal_to_fill_value": True}
    return {"driver": "zarr", "kvstore": place, **plain}


def _filled(
    spec: Spec, part: tuple[int, ...], pieces: Iterable[np.ndarray]
) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:  # fmt: skip
    """Regions with their numbers, from pieces that end anywhere."""
    pieces, left = iter(pieces), np.empty(0, spec.dtype)
    for region in regions(spec.shape, part):
        array = np.empty([at.stop - at.start for at in region], spec.dtype)
        flat, filled = array.reshape(-1), 0
        while filled < flat.size:
            left = left if left.size else next(pieces).reshape(-1)
            taken = min(left.size, flat.size - filled)
            flat[filled : filled + taken], left = left[:taken], left[taken:]
            filled += taken
        yield region, array
        del array, flat  # the next one is made while nothing of this one is held


@contextlib.contextmanager
def _system_errors(folder: Path) -> Iterator[None]:
    """What the system refused as an OSError: the storage layer hides it in the text of a ValueError."""
    try:
        yield
    except ValueError as error:
        if not (code := re.search(r"os_error_code='(\d+)'", str(error))):
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(folder)) from error


def load(path: str | Path, target: Mapping[str, Any]) -> dict[str, Any]:
    """Read a converted folder onto devices.

    Args:
      path: what `flashjax convert --to orbax` wrote, for this mesh or another.
      target: nested dict of `jax.ShapeDtypeStruct` with shardings: the parameters of the model. Every process reads the
        chunks that its own devices hold, and all have to call this.

    Returns:
      Nested dict of global arrays with the form, shapes, dtypes and shardings of ``target``.

    Raises:
      ConversionError: there is no such checkpoint, it is not whole, or it is of another model.
      UserError: the same, of what another process reads.
    """
    with hosts.together():  # behind it all processes wait for each other
        stored = {name: spec.shape for name, spec in Stored(Path(path)).shapes().items()}
        wanted = {name: tuple(leaf.shape) for name, leaf in paths.flatten(target).items()}
        if odd := sorted(name for name in wanted.keys() | stored.keys() if wanted.get(name) != stored.get(name)):
            raise ConversionError(f"{path} does not fit the model: {', '.join(odd[:5])} differ; convert it again.")
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(Path(path).absolute() / ORBAX, target)


class Stored:
    """The parameters of a converted folder, read one region at a time; stands in for a `Reader` in the manifest."""

    def __init__(self, folder: Path):
        self._folder = folder.absolute() / ORBAX
        if not self._folder.is_dir():
            raise ConversionError(f"{folder} holds no Orbax checkpoint; write one with flashjax convert --to orbax.")
        manifest.check_size(folder, ORBAX)  # a chunk that is missing would read as zeros
        with ocp.StandardCheckpointer() as checkpointer:
            told = checkpointer.metadata(self._folder).item_metadata
        if told is None:
            raise ConversionError(f"{self._folder} is not whole: Orbax does not find all parameters; convert it again.")
        found = paths.flatten(told.tree)
        self._specs = {name: Spec(tuple(leaf.shape), np.dtype(leaf.dtype)) for name, leaf in found.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def shapes(self) -> dict[str, Spec]:
        """{path: (shape, dtype)}."""
        return dict(self._specs)

    def file(self, name: str) -> Path:
        """The folder of a parameter's chunks."""
        return self._folder / place(name)

    def read(self, name: str, rows: tuple[int, int] | None = None) -> np.ndarray:
        """A parameter, or the ``rows`` [first, end) of its leading axis."""
        store = ts.open(_zarr(self.file(name))).result()
        return (store if rows is None else store[rows[0] : rows[1]]).read().result()

    def stream(self, name: str) -> Iterator[np.ndarray]:
        """The bytes of a parameter."""
        store = ts.open(_zarr(self.file(name))).result()
        for region in regions(store.shape, store.chunk_layout.read_chunk.shape):
            yield np.ascontiguousarray(store[region].read().result()).reshape(-1).view(np.uint8)
