"""Which pickles a source consists of, and the folder of safetensors that stands in for them during a conversion."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from flashjax.convert import unpickle
from flashjax.convert.reader import PICKLES, ConversionError, unique
from flashjax.files import held

_INDEX = ".bin.index.json"
_LOCK = ".lock"
_NAMES = ("pytorch_model.bin", "diffusion_pytorch_model.bin", "model.pt", "model.pth")  # beside optimizers and the like


@contextlib.contextmanager
def readable(source: Path, out: Path, allow: bool) -> Iterator[Path]:
    """``source``, or if it is pickles that may be read, a folder beside ``out`` with their weights, for a while.

    Raises:
      ConversionError: a pickle of the set is missing, or cannot be read, or it is not clear which one is meant.
    """
    files = _pickles(source) if allow else []
    if not files:
        yield source
        return
    folder = out.with_name(out.name + ".unpickled")
    with _held(folder, sum(file.stat().st_size for file in files)):
        try:
            unpickle.convert(files, folder)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _held(folder: Path, size: int) -> Iterator[None]:
    """An empty folder for ``size`` bytes that no other conversion has; what a stopped one left there is removed."""
    lock = folder / _LOCK
    if folder.exists() and any(folder.iterdir()) and not lock.is_file():
        raise ConversionError(f"{folder} is in the way, and no conversion made it; move it, or change --out.")
    folder.mkdir(parents=True, exist_ok=True)
    with held(lock) as free:
        if not free:
            raise ConversionError(f"Another conversion is writing {folder}; wait or change --out.")
        for left in folder.iterdir():
            if left != lock:
                left.unlink()
        if size > (room := shutil.disk_usage(folder).free):
            shutil.rmtree(folder)
            raise ConversionError(
                f"The pickles' weights take {size / 1e9:.2f} GB beside the result while they are converted, the disk "
                f"of {folder.parent} has {room / 1e9:.2f} GB; make room, or choose another --out."
            )
        yield


def _pickles(source: Path) -> list[Path]:
    if source.is_file():
        return [source] if source.suffix in PICKLES else []
    present = {file.name for file in source.iterdir() if file.is_file()}
    if any(name.endswith(".safetensors") for name in present):
        return []
    if indexes := sorted(name for name in present if name.endswith(_INDEX)):
        if len(indexes) > 1:
            raise ConversionError(f"{source} holds several indexes ({', '.join(indexes[:5])}); keep the one to read.")
        return _indexed(source / indexes[0], present)
    found = sorted(name for name in present if Path(name).suffix in PICKLES)
    usual = [name for name in found if name in _NAMES]
    if len(found) > 1 and len(usual) != 1:
        raise ConversionError(f"{source} holds several pickles ({', '.join(found[:5])}); name the one to read.")
    return [source / name for name in usual or found]


def _indexed(index: Path, present: set[str]) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_bytes(), object_pairs_hook=unique)["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConversionError(f"The index {index} has no readable 'weight_map'; fetch it again.") from error
    if missing := [name for name in names if name not in present]:
        raise ConversionError(f"The index {index} names {str(missing[0])[:100]!r}, which is not in the folder.")
    return [index.parent / name for name in names]
