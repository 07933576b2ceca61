"""Small checkpoints of the Qwen-Image-2.1 denoiser, as the tests of the converter need them."""

import json
from pathlib import Path

import jax
import numpy as np

from flashjax import cli, convert, paths
from flashjax.convert import writer
from flashjax.models import qwen_image_21

CONFIG = qwen_image_21.Config.tiny()
ABSTRACT = qwen_image_21.abstract(CONFIG)


def params(seed: int = 0, dtype=np.float32) -> dict:
    """Random parameters as a nested dict of numpy arrays, kernels of the size that keeps activations: with larger ones
    attention is a choice of one, and roundings that differ between processors decide it."""
    rng = np.random.default_rng(seed)

    def random(leaf):
        scale = leaf.shape[-2] ** -0.5 if len(leaf.shape) > 1 else 1.0
        return (scale * rng.normal(size=leaf.shape)).astype(dtype)

    return jax.tree.map(random, ABSTRACT)


def tensors(folder: Path) -> dict[str, np.ndarray]:
    """{PyTorch name: array} of a folder."""
    reader = convert.open_weights(folder)
    return {name: reader.read(name) for name in reader}


def checkpoint(folder: Path, shards: int = 1, index: bool = True, seed: int = 0, dtype=np.float32) -> Path:
    """A diffusers folder of one file, or of shards with their index or without it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG.to_diffusers()))
    single = folder / "diffusion_pytorch_model.safetensors"
    convert.save("qwen_image_21", params(seed, dtype), single)
    if shards > 1:
        arrays = tensors(single)
        single.unlink()
        weight_map = {}
        for i in range(shards):
            name = f"diffusion_pytorch_model-{i + 1:05}-of-{shards:05}.safetensors"
            names = sorted(arrays)[i::shards]
            writer.write_arrays(folder / name, {key: arrays[key] for key in names})
            weight_map |= dict.fromkeys(names, name)
        if index:
            text = json.dumps({"metadata": {}, "weight_map": weight_map})
            (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(text)
    return folder


def rewrite(folder: Path, **arrays: np.ndarray | None) -> None:
    """Change, add or (None) remove tensors of a folder with a single file; "__" in a name stands for "."."""
    file = folder / "diffusion_pytorch_model.safetensors"
    changed = tensors(file) | {name.replace("__", "."): array for name, array in arrays.items()}
    writer.write_arrays(file, {name: array for name, array in changed.items() if array is not None})


def flat(folder: Path) -> dict[str, np.ndarray]:
    """{path: array} of a folder in the form of the model."""
    return paths.flatten(convert.load("qwen_image_21", folder, ABSTRACT))


def run(*options) -> int:
    """`flashjax convert`, in this process."""
    return cli.main(["convert", *map(str, options)])


def written(monkeypatch, module, name: str, stop_at: str = "", error: BaseException | None = None) -> list[str]:
    """Note what a writer of ``module`` writes, a function of a path first and of progress last; raise ``error`` in the
    middle of the one of ``stop_at``."""
    names, write = [], getattr(module, name)

    def noting(path, *args):
        names.append(path.name)

        def stop(_):
            if path.name == stop_at:
                raise error

        return write(path, *args[:-1], stop)

    monkeypatch.setattr(module, name, noting)
    return names
