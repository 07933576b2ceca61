"""A checkpoint as a diffusers folder: weights under their PyTorch names, and a scheduler that reproduces the grid."""

import json
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from flashjax import convert, models
from flashjax.errors import UserError
from flashjax.pipeline import describe
from flashjax.weights import load_run


def export(workdir: str, out: str, which: str = "ema", step: int | None = None) -> Path:
    """Writes ``out/transformer``, ``out/scheduler`` and ``out/card.json`` from a checkpoint of a run.

    ``which``: "ema" or "student"; ``step``: of the checkpoint, None for the newest. Raises UserError if
    ``out`` holds anything already.
    """
    target = Path(out)
    if target.exists() and any(target.iterdir()):
        raise UserError(f"{target} is not empty; give a new folder, nothing is overwritten.")
    params, meta, step = load_run(Path(workdir), which, step)
    config = ConfigDict(meta["config"])
    model = models.architecture(config.model.architecture)
    model_config = models.make_config(model, config.model)
    described = describe(config)
    for name in ("transformer", "scheduler"):
        (target / name).mkdir(parents=True)
    params = jax.tree.map(np.asarray, params)
    convert.save(config.model.architecture, params, target / "transformer" / "diffusion_pytorch_model.safetensors")
    _write(target / "transformer" / "config.json", model_config.to_diffusers())
    _write(target / "scheduler" / "scheduler_config.json", scheduler_config(described))
    _write(target / "card.json", dict(config=meta["config"], table=meta["table"], step=step, weights=which))
    return target


def scheduler_config(described: dict) -> dict:
    """diffusers' flow-matching Euler scheduler with the static shift of the grid. With
    ``sigmas = linspace(1, 1 / n, n)``, which diffusers' pipelines pass, it visits exactly the grid that was trained,
    and it steps as the student does: ``stochastic_sampling`` is its name for "renoise"."""
    sampling = described["sampling"]
    return dict(
        _class_name="FlowMatchEulerDiscreteScheduler", num_train_timesteps=1000, shift=sampling["shift"],
        use_dynamic_shifting=False, shift_terminal=None, stochastic_sampling=sampling["mode"] == "renoise",
        flashjax=described,
    )  # fmt: skip


def _write(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")
