"""A model ready to draw: from an exported folder or straight from a run's checkpoints."""

import contextlib
import dataclasses
import json
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from flashjax import convert, flow, models, pictures
from flashjax.axes import AXES
from flashjax.convert import adapters, detect
from flashjax.distill.sampling import Sampler, make_sampler
from flashjax.errors import UserError
from flashjax.models import editing, latents, pixels, text
from flashjax.parallel import mesh as meshes
from flashjax.weights import load_exported_adapter, load_run

# Raise it whenever the same model, prompt and seed give another picture: what evaluations keep is then drawn anew.
DRAWING_VERSION = 1
SAMPLING = ("steps", "shift", "guidance_scale", "mode")


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """A denoiser with its parameters, and how it is meant to be sampled.

    ``defaults``: what SAMPLING names; ``image_size`` in pixels; ``max_text_tokens`` that training padded to; ``step``:
    of the checkpoint, None for an exported model; ``mesh``: see `spread`.
    """

    model: Any
    model_config: Any
    params: flow.Params
    defaults: dict
    image_size: int
    max_text_tokens: int
    sample: Sampler
    step: int | None = None
    mesh: jax.sharding.Mesh | None = None

    def draw(
        self, prompts: list[str], seeds: list[int], encoder: text.TextEncoder, batch: int = 64,
        images: np.ndarray | Sequence[np.ndarray] | None = None, **settings,
    ) -> np.ndarray:  # fmt: skip
        """uint8 pictures [N, H, W, 3], one a prompt and seed; ``settings`` override the defaults. ``images``: uint8
        [N, H, W, 3], which the prompts edit, or several of these, of sizes of their own. The result for a prompt and a
        seed does not depend on the others beyond float rounding. More than one batch is shown as a bar."""
        s = self.defaults | {k: v for k, v in settings.items() if v is not None}
        grid, out = flow.time_grid(s["steps"], s["shift"]), []
        cond, null = pictures.conditions(self.model, encoder, prompts, self.max_text_tokens)
        wanted, made = self.model_config.context_dim, cond.text.shape[-1]
        if made != wanted:
            raise UserError(
                f"The model reads text states of {wanted} numbers, and the encoder at hand makes {made}: its prompts "
                "were prepared with another one, without which nothing can be drawn."
            )
        if images is not None:
            several = [images] if getattr(images, "ndim", 0) == 4 else images
            given = [pixels.from_uint8(np.asarray(each)) for each in several]
            cond = editing.condition(self.model, cond.text, cond.text_length, given)
        batch = min(batch, len(prompts))
        if self.mesh is not None:
            batch = -(-batch // self.mesh.size) * self.mesh.size
        places = pictures.portions(len(prompts), batch)
        for chosen in tqdm(places, "drawing", unit="batch", leave=False, disable=len(places) == 1):
            some = jax.tree.map(operator.itemgetter(chosen), cond)
            own = [seeds[j] for j in chosen]
            inputs = some, editing.null_condition(self.model, null, some), pictures.noise(own, self.image_size)
            out.append(self._batch(*inputs, grid, s["guidance_scale"], s["mode"], pictures.keys(own)))
        return np.concatenate(out)[: len(prompts)]

    def _batch(self, cond, null, noise, grid, guidance_scale: float, mode: str, keys) -> np.ndarray:
        """uint8 [B, H, W, 3]; B has to divide over the devices of a mesh."""
        with contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh):
            cond, null, noise, keys = self._placed((cond, null, noise, keys), len(noise))
            z = self.sample(self.params, cond, null, noise, grid, guidance_scale, mode, keys)
            return pixels.to_uint8(pixels.decode(z))

    def _placed(self, tree: Any, batch: int) -> Any:
        """Rows of the batch divided over the devices, and what serves all rows on each of them."""
        if self.mesh is None:
            return tree
        rows, whole = meshes.batch_sharded(self.mesh), meshes.replicated(self.mesh)
        return jax.tree.map(lambda x: jax.device_put(x, rows if len(x) == batch else whole), tree)


def spread(pipe: Pipeline) -> Pipeline:
    """The same pipeline over all devices of this process: each holds the parameters and draws its part of a batch."""
    mesh = meshes.make_mesh(dict.fromkeys(AXES, 1) | dict(data=-1), jax.local_devices())
    return dataclasses.replace(pipe, params=jax.device_put(pipe.params, meshes.replicated(mesh)), mesh=mesh)


def load(path: str, which: str = "ema", step: int | None = None) -> Pipeline:
    """A pipeline from an exported folder (``transformer/``, ``scheduler/``, or an adapter in flashjax's spelling) or a
    run's work directory, of which ``which`` names the parameters, "ema" or "student", and ``step`` the checkpoint
    (None: the newest). Raises UserError."""
    folder = Path(path)
    adapted = (folder / adapters.FILES["flashjax"]).is_file()
    if adapted or (folder / "transformer").is_dir():
        if which != "ema" or step is not None:
            raise UserError(
                f"{folder} is an exported model and holds one set of weights, chosen when it was exported; leave out "
                "--which and --step, or give the run's work directory."
            )
        return _load_adapted(folder) if adapted else _load_exported(folder)
    if (folder / "config.json").is_file():
        return _load_run(folder, which, step)
    raise UserError(
        f"{folder} is neither a run's work directory nor an exported model (a folder with transformer/ in it, or "
        f"{adapters.FILES['flashjax']})."
    )


def _load_exported(folder: Path) -> Pipeline:
    file = folder / "transformer" / "config.json"
    try:
        written = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())["flashjax"]
        described = {name: written[name] for name in ("architecture", "sampling", "image_size", "max_text_tokens")}
        described["sampling"] = {name: written["sampling"][name] for name in SAMPLING}
        flow.time_grid(described["sampling"]["steps"], described["sampling"]["shift"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"lacks {error}" if isinstance(error, KeyError) else getattr(error, "strerror", None) or error
        raise UserError(
            f"{folder} is not a complete exported model (scheduler/scheduler_config.json: {why}); export it again with "
            "flashjax export."
        ) from error
    model = models.architecture(described["architecture"])
    sizes = detect.read_config(file)
    with detect.about(file):
        config = detect.sizes(described["architecture"], sizes)
    params = convert.load(described["architecture"], folder / "transformer", model.abstract(config))
    return _pipeline(model, config, params, described, folder)


def _load_adapted(folder: Path) -> Pipeline:
    params, config = load_exported_adapter(folder)
    return _trained(config, params, folder)


def _load_run(folder: Path, which: str, step: int | None) -> Pipeline:
    params, meta, step = load_run(folder, which, step)
    return _trained(ConfigDict(meta["config"]), params, folder, step)


def _trained(config: ConfigDict, params: flow.Params, path: Path, step: int | None = None) -> Pipeline:
    """The model of a run's configuration with its parameters, whole."""
    model = models.architecture(config.model.architecture)
    return _pipeline(model, models.make_config(model, config.model), params, describe(config), path, step)


def describe(config: ConfigDict) -> dict:
    """How a run's model is meant to be sampled: what an export writes down and ``load`` reads."""
    sampling = pictures.sampling(config)
    return dict(
        architecture=config.model.architecture, sampling=sampling, image_size=config.image_size,
        max_text_tokens=config.max_text_tokens, sigmas=flow.time_grid(sampling["steps"], sampling["shift"]).tolist(),
    )  # fmt: skip


def _pipeline(model, config, params, described: dict, path: Path, step: int | None = None) -> Pipeline:
    if config.in_channels != latents.PIXELS.channels:
        raise UserError(
            f"{path} makes latents of {config.in_channels} channels, which take an autoencoder: put transformer/ and "
            "scheduler/ of its export in place of those of the released pipeline's folder, and draw with --weights."
        )
    params = jax.device_put(params)
    sampler = make_sampler(model.denoiser(config))
    return Pipeline(
        model, config, params, described["sampling"], described["image_size"], described["max_text_tokens"], sampler,
        step,
    )  # fmt: skip
