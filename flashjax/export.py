"""A checkpoint as a diffusers folder: weights, or a LoRA, under their PyTorch names, and a scheduler that reproduces
the grid."""

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from flashjax import convert, flow, models
from flashjax.checkpoint import restore_params
from flashjax.convert import adapters
from flashjax.convert import lora as lora_files
from flashjax.errors import UserError
from flashjax.models import lora
from flashjax.pipeline import describe
from flashjax.weights import base_path, load_run


def export(workdir: str, out: str, which: str = "ema", step: int | None = None, dtype: str | None = None) -> Path:
    """Writes ``out/transformer``, ``out/scheduler`` and ``out/card.json`` from a checkpoint of a run.

    ``which``: "ema" or "student"; ``step``: of the checkpoint, None for the newest; ``dtype``: "bfloat16" or "float32",
    None for that of the run's parameters. Raises UserError if ``out`` holds anything already.
    """
    with _new(out) as target:
        params, meta, step = load_run(Path(workdir), which, step)
        config = ConfigDict(meta["config"])
        model = models.architecture(config.model.architecture)
        model_config = models.make_config(model, config.model)
        if dtype:
            params = jax.tree.map(lambda leaf: np.asarray(leaf).astype(jnp.dtype(dtype)), params)
        write(target, params, model_config, describe(config))
        _write_card(target, meta, step, which)
    return Path(out)


def export_lora(workdir: str, out: str, spelling: str, which: str = "ema", step: int | None = None) -> Path:
    """Writes the adapter alone of a LoRA run, float32, with the names of ``spelling`` ("diffusers", "comfyui" or
    "flashjax"), and ``out/scheduler`` and ``out/card.json`` as ``export`` does. Raises UserError, also for a run that
    trained everything."""
    with _new(out) as target:
        params, meta, step = restore_params(Path(workdir) / "checkpoints", which, step)
        config = ConfigDict(meta["config"])
        if (adapted := lora.of(config)) is None:
            raise UserError(
                f"The run {workdir} trained all parameters (config.lora.rank is 0); export it without --lora."
            )
        adapter = adapters.from_tree(params, adapted.rank, adapted.alpha)
        file, name = target / adapters.FILES[spelling], config.model.architecture
        if spelling == "flashjax":
            adapters.write(file, adapter, name)
        else:
            table = convert.table_of(name)
            lora_files.write(file, adapters.to_pytorch(adapter, table), spelling, np.float32, table.comfyui)
        _write_scheduler(target, describe(config))
        _write_card(target, meta, step, which, base_sha256=meta["sha256"][base_path(config)])
    return Path(out) / file.name


def write(target: Path, params: flow.Params, model_config: Any, described: dict) -> None:
    """Writes ``transformer`` and ``scheduler``, two parts of a diffusers pipeline; ``described``: what
    ``pipeline.describe`` tells of a run."""
    config = model_config.to_diffusers()
    _check_told(model_config, type(model_config).from_diffusers(config))
    (target / "transformer").mkdir(parents=True)
    params = jax.tree.map(np.asarray, params)
    convert.save(described["architecture"], params, target / "transformer" / "diffusion_pytorch_model.safetensors")
    _write(target / "transformer" / "config.json", config)
    _write_scheduler(target, described)


# How a network is computed, which is no part of what is computed.
_HOW = ("dtype", "param_dtype", "products", "scan_layers", "remat", "attention")


def _check_told(ours: Any, read_back: Any) -> None:
    """Raises UserError for a size that diffusers' config.json has no word for: whoever loads the weights would compute
    another function with them."""
    ours, theirs = map(dataclasses.asdict, (ours, read_back))
    for name, value in ours.items():
        if name not in _HOW and theirs[name] != value:
            raise UserError(
                f"config.model.{name} is {value}, which diffusers' class does not have (there it is {theirs[name]}); "
                "models with it cannot be exported."
            )


def _write_scheduler(target: Path, described: dict) -> None:
    (target / "scheduler").mkdir()
    _write(target / "scheduler" / "scheduler_config.json", scheduler_config(described))


def _write_card(target: Path, meta: dict, step: int, which: str, **more: str) -> None:
    """What was exported of which run."""
    _write(target / "card.json", dict(config=meta["config"], table=meta["table"], step=step, weights=which) | more)


@contextlib.contextmanager
def _new(out: str) -> Iterator[Path]:
    """A folder beside ``out`` that takes its name when it is complete, and is removed if it never is."""
    target = Path(out).resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{out} is not an empty folder; give a new one, nothing is overwritten.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{target.name}.", suffix=".partial", dir=target.parent) as made:
        part = Path(made) / target.name
        part.mkdir()
        yield part
        part.replace(target)


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
