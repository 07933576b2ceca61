"""The weights that a configuration names: converted or PyTorch's, a run's, an adapter's; and what a LoRA run is
together with its base."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from flashjax import convert, flow, models, paths, workdir
from flashjax.checkpoint import digest, restore_params
from flashjax.checkpoint import form as checkpoint_form
from flashjax.config import weights_of
from flashjax.convert import adapters, manifest, pods
from flashjax.convert.sources import open_weights
from flashjax.errors import UserError
from flashjax.models import held, latents, lora, pixels
from flashjax.parallel import hosts, sharding

RANDOM = "random"  # in place of a path: a configuration can be tried out before its weights are there


def check_there(config: ConfigDict) -> None:
    """Raises UserError for weights that ``config`` names and that are not there: in seconds, and not when all programs
    are compiled, as the decoder's would be."""
    for path in (*weights_of(config), config.get("autoencoder", {}).get("weights", "")):
        if path not in ("", RANDOM):
            workdir.existing(path, "weights")


def load_weights(config: ConfigDict, form: flow.Params, path: str, mesh: Mesh | None = None) -> flow.Params:
    """A parameter tree of ``form``: from PyTorch-named weights, from the average of a run's newest checkpoint, from an
    adapter file, which is merged with the base teacher; or, where ``form`` is an adapter's, a LoRA run's adapter. For
    "random" they are numbers.

    What ``convert --to orbax`` wrote is read onto ``mesh``, if there is one: global arrays, divided as training divides
    them, of which each process has read its devices' part. All else is whole on every host, which may have a disk of
    its own: all of them call this, and what is wrong on one is told on all.
    """
    if mesh is not None and not lora.is_adapter(form) and path != RANDOM and manifest.is_orbax(Path(path)):
        return pods.load(Path(path), sharding.with_shapes(form, mesh))
    with hosts.together():
        return _load_whole(config, form, path)


def _load_whole(config: ConfigDict, form: flow.Params, path: str) -> flow.Params:
    """On this host, whatever the others do."""
    if path == RANDOM and not lora.is_adapter(form):
        return random(form)
    folder = workdir.existing(path, "weights")
    if lora.is_adapter(form):
        return _load_adapter(config, form, path)
    if (file := _adapter_file(path)) is not None:
        return _merge_file(config, form, file, path)
    if not (folder / "checkpoints").is_dir():
        return convert.load(config.model.architecture, folder, form)
    params, _, _ = load_run(folder)
    _check_sizes(params, form, path)
    return params


def content(path: str, tree: flow.Params) -> str:
    """What the meta of a run calls the weights ``tree`` that were read from ``path``: their digest; of what ``convert
    --to orbax`` wrote, which no host has to hold, its manifest's."""
    return manifest.content(Path(path)) if path != RANDOM and manifest.is_orbax(Path(path)) else digest(tree)


def load_specialist(config: ConfigDict, base: flow.Params, path: str, mesh: Mesh | None = None) -> flow.Params:
    """A teacher beside the base, as the run holds it: of an adapter file, or of a LoRA run over ``base``, the factors
    alone, for the run's scale (`scale_of`), so that a specialist costs no second network; else as `load_weights`. All
    hosts call it."""
    with hosts.together():
        factors = _load_factors(config, base, path)
    return load_weights(config, base, path, mesh) if factors is None else factors


def _load_factors(config: ConfigDict, base: flow.Params, path: str) -> flow.Params | None:
    if (file := _adapter_file(path)) is not None:
        adapter = adapters.read(file, config.model.architecture, base)
        return _rescaled(paths.unflatten(adapter.factors), adapter.alpha / adapter.rank / scale_of(config))
    if (run := _lora_run(path)) is not None and run.base_sha256 == content(base_path(config), base):
        params, _, _ = restore_params(Path(path) / "checkpoints")
        _check_sizes(params, lora.form(lora.of(run.config), base), path)
        return _rescaled(params, lora.of(run.config).scale / scale_of(config))
    return None


def specialist_form(config: ConfigDict, base: flow.Params, path: str) -> flow.Params:
    """Shapes of what `load_specialist` gives, from those of the base; of what is not there yet the whole network's. A
    LoRA run over what lies where the base does is taken for one over the same weights."""
    if (file := _adapter_file(path)) is not None:
        factors = paths.unflatten(adapters.read(file, config.model.architecture, base).factors)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32), factors)
    if (run := _lora_run(path)) is None:
        return base
    over, here = (Path(base_path(each)).resolve() for each in (run.config, config))
    return run.form if over == here else base


def frozen_forms(config: ConfigDict, whole: flow.Params, mesh: Mesh, named: Sequence[str]) -> tuple[flow.Params, ...]:
    """Shapes and places of what a run holds beside its state: the base, and the teachers beside it. ``whole`` is the
    network's shapes, ``named`` what the teachers' weights are called, the base's first."""
    forms = [whole] * (bool(named) or lora.of(config) is not None)
    forms += [specialist_form(config, whole, path) for path in named[1:]]
    forms = [jax.eval_shape(partial(kept, dtype=config.teacher_dtype), form) for form in forms]
    places = (held.placed(sharding.shardings(form, mesh), config.teacher_memory) for form in forms)
    return tuple(map(sharding.with_places, forms, places))


class _LoraRun(NamedTuple):
    """Shapes of a LoRA run's factors, its configuration, and what its base was."""

    form: flow.Params
    config: ConfigDict
    base_sha256: str


def _lora_run(path: str) -> _LoraRun | None:
    """What the newest checkpoint tells of itself, of which no parameter is read; None for what is no LoRA run."""
    if path in ("", RANDOM) or not (folder := Path(path) / "checkpoints").is_dir():
        return None
    factors, meta, _ = checkpoint_form(folder)
    config = ConfigDict(meta["config"])
    return _LoraRun(factors, config, meta["sha256"][base_path(config)]) if lora.of(config) else None


def begun_from(config: ConfigDict, begun_with: Mapping[str, str]) -> str:
    """What a run that config.init names has come to, in a sentence; "" for anything else. Raises UserError for a LoRA
    run over other weights than this one's base, wherever either lies. ``begun_with``: path to content of all weights of
    this run."""
    if config.init in ("", RANDOM) or not (folder := Path(config.init) / "checkpoints").is_dir():
        return ""
    _, meta, step = checkpoint_form(folder)
    base, over = base_path(config), base_path(ConfigDict(meta["config"]))
    if lora.of(config) and base != config.init and meta["sha256"][over] != begun_with[base]:
        raise UserError(
            f"The weights in {base} are not those that {config.init} adapts; bring them back, or give another run as "
            "config.init."
        )
    return f"begins with step {step} of {config.init}, its newest"


def scale_of(config: ConfigDict) -> float:
    """What products of factors are multiplied by in a run: its own adapters', or 1."""
    return adapted.scale if (adapted := lora.of(config)) else 1.0


def _rescaled(adapter: flow.Params, factor: float) -> flow.Params:
    leaves = {name: np.asarray(x, np.float32) for name, x in paths.flatten(adapter).items()}
    return paths.unflatten({n: x * np.float32(factor) if n.endswith("/b") else x for n, x in leaves.items()})


def kept(tree: flow.Params, dtype: str) -> flow.Params:
    """A teacher as `held.keep` keeps it; the factors of an adapter, which are small, as they are."""
    return tree if lora.is_adapter(tree) else held.keep(tree, dtype)


def random(form: flow.Params) -> flow.Params:
    """Numbers from a fixed seed, at which outputs are of the size of inputs: the last layer too, which a network begins
    with as 0, so that there is something to distil."""
    rng, made = np.random.default_rng(0), {}
    for path, leaf in paths.flatten(form).items():
        value = np.full(leaf.shape, path.endswith(("/scale", "/var")))
        if path.endswith("/kernel"):
            value = rng.normal(0, leaf.shape[-2] ** -0.5, leaf.shape)
        made[path] = value.astype(leaf.dtype)
    return paths.unflatten(made)


def load_decoder(autoencoder: latents.Latents, config: ConfigDict) -> Callable[[jax.Array], np.ndarray] | None:
    """Latents [B, h, w, D] to uint8 pictures [B, H, W, 3], on white where they are transparent. None for an autoencoder
    without weights in ``config.autoencoder``: such a run is not drawn. The first process alone has these weights, and
    is to decode; the others only draw with it."""
    if autoencoder.module is None:
        return lambda z: pixels.to_uint8(pixels.decode(z))
    if not (path := config.autoencoder.weights):
        return None
    module, sizes = autoencoder.module, autoencoder.config
    if not hosts.first():
        params = None  # gigabytes of a device that nothing would use
    elif path == RANDOM:
        params = random(module.abstract(sizes))
    else:
        params = convert.load(autoencoder.name, workdir.existing(path, "weights"), module.abstract(sizes))
    params, one = jax.device_put(params), jax.jit(module.autoencoder(sizes).decode)

    def decode(z: jax.Array) -> np.ndarray:
        # One at a time: a decoder's memory at 1024 px is gigabytes a picture.
        images = np.concatenate([np.asarray(one(params, z[i][None])) for i in range(len(z))])
        colour, alpha = images[..., :3], (images[..., 3:] + 1) / 2
        return pixels.to_uint8(colour * alpha + 1 - alpha if alpha.size else colour)

    return decode


def load_run(folder: Path, which: str = "ema", step: int | None = None) -> tuple[flow.Params, dict, int]:
    """(whole parameters of "ema" or "student", meta, step) of a run's checkpoint: a LoRA run's are merged with its
    base, which is read from where the run had it. Raises UserError if that is gone or was replaced."""
    params, meta, step = restore_params(Path(folder) / "checkpoints", which, step)
    config = ConfigDict(meta["config"])
    if (adapted := lora.of(config)) is None:
        return params, meta, step
    base = _adapted_base(config, meta["sha256"][base_path(config)], folder)
    return _merged(base, params, adapted.scale), meta, step


def load_exported_adapter(folder: Path) -> tuple[flow.Params, ConfigDict]:
    """(whole parameters, the run's configuration) of an adapter that ``flashjax export --lora flashjax`` wrote: merged
    with its base, which is read from where the run had it. Raises UserError if that is gone or was replaced."""
    try:
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        config, wanted = ConfigDict(card["config"]), str(card["base_sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder} holds an adapter without the card.json that names its base ({error!r}); export it again with "
            "flashjax export --lora flashjax."
        ) from error
    base = _adapted_base(config, wanted, folder)
    adapter = adapters.read(folder / adapters.FILES["flashjax"], config.model.architecture, base)
    return _merged(base, paths.unflatten(adapter.factors), adapter.alpha / adapter.rank), config


def _adapted_base(config: ConfigDict, sha256: str, folder: str | Path) -> flow.Params:
    model, path = models.architecture(config.model.architecture), base_path(config)
    base = _load_whole(config, model.abstract(models.make_config(model, config.model)), path)
    if content(path, base) != sha256:
        raise UserError(f"The weights in {path} are not those that {folder} adapts; bring them back.")
    return base


def _merged(base: flow.Params, factors: flow.Params, scale: float) -> flow.Params:
    return lora.merge(*(jax.tree.map(np.asarray, tree) for tree in (base, factors)), scale)


def base_path(config: ConfigDict) -> str:
    """Where the base of a LoRA run is: the base teacher, or what flow matching begins with."""
    return config.init if config.objective == "flow_matching" else config.distill.teachers.base.weights


def _load_adapter(config: ConfigDict, form: flow.Params, path: str) -> flow.Params:
    """The adapter of a LoRA run, for this run's own scale; `begun_from` compares their bases."""
    if not (Path(path) / "checkpoints").is_dir():
        raise UserError(f"config.init is {path}, which is no run; a LoRA student begins as its base or as a LoRA run.")
    params, meta, _ = restore_params(Path(path) / "checkpoints")
    if (adapted := lora.of(ConfigDict(meta["config"]))) is None:
        raise UserError(
            f"The run {path} trained no adapter, as a LoRA student's beginning has to be; give another one as "
            "config.init."
        )
    if _shapes(params) != _shapes(form):
        raise UserError(
            f"The run {path} trained an adapter of rank {adapted.rank} over other matrices or of another rank than "
            "config.lora says; give its rank and rules, or another run as config.init."
        )
    return _rescaled(params, adapted.scale / scale_of(config))


def _adapter_file(path: str) -> Path | None:
    """The adapter's file that ``path`` is, or has in it; None for anything else, and for what is not there."""
    if path in ("", RANDOM):
        return None
    file = Path(path) / adapters.FILES["flashjax"] if Path(path).is_dir() else Path(path)
    return file if file.is_file() and adapters.is_adapter(open_weights(file)) else None


def _merge_file(config: ConfigDict, form: flow.Params, file: Path, path: str) -> flow.Params:
    if path == base_path(config):
        raise UserError(f"{path} is an adapter, which has no base of its own; give the base's weights there.")
    adapter = adapters.read(file, config.model.architecture, form)
    base = _load_whole(config, form, base_path(config))
    return lora.merge(base, paths.unflatten(adapter.factors), adapter.alpha / adapter.rank)


def _check_sizes(params: Any, form: flow.Params, path: str) -> None:
    if _shapes(params) != _shapes(form):
        raise UserError(f"The run {path} trained a network of other sizes than config.model has; give another one.")


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.shape, tree)
