"""Figures of a run's own pictures while it goes on. The losses of distillation say little: a critic that lags and a
student that is done look the same in them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from flashjax import pictures
from flashjax.data import said
from flashjax.data.records import RecordSource
from flashjax.errors import UserError
from flashjax.evaluate import metrics
from flashjax.models import editing, latents, pixels
from flashjax.workdir import existing

# What a run can keep its best checkpoint by, and whether the smaller or the larger value is the better.
EDIT_FIGURES = {"watch/edit_success": max, "watch/edit_kept": max, "watch/edit_outside": min}
FIGURES = {"watch/frechet": min, "watch/adherence": max} | EDIT_FIGURES
# What the records of a held-out set have to hold, by its setting in config.watch, and the command that makes one.
HELD_OUT = dict(
    data=({"caption", "category", "named", "image"}, "flashjax prepare --split heldout"),
    edit_data=(
        {"instruction", "category", "changed", "edit_spec", "source", "image"},
        "flashjax prepare --split heldout --edits",
    ),
)


class Prompts(NamedTuple):
    """The prompts that are drawn again and again, what they name, features [N, D] of their real pictures, and the
    classifier that they are of."""

    prompts: list[str]
    categories: list[str]
    named: list[dict[str, str]]
    real: np.ndarray
    judge: Any


class Edits(NamedTuple):
    """The edits that are made again and again, with what ``edits.scores`` takes of each, and the classifier."""

    records: list[dict[str, Any]]
    judge: Any


class Watched(NamedTuple):
    """What a run looks at; None is not looked at."""

    prompts: Prompts | None = None
    edits: Edits | None = None


def check_texts(config: ConfigDict, draws_prompts: bool, watched: Watched, encoder: Any) -> None:
    """Raises UserError where what a run draws on its way, which is no part of its sources, is longer than their texts
    may be, or was not encoded with them. ``draws_prompts``: whether it has rows of prompts, and so samples of them."""
    shows = config.autoencoder.architecture == latents.PIXELS.name or config.autoencoder.weights
    texts = pictures.prompts_of(config) if shows and draws_prompts else []
    texts += watched.prompts.prompts if watched.prompts else []
    texts += [record["instruction"] for record in watched.edits.records] if watched.edits else []
    if isinstance(encoder, said.Said):
        encoder.encode(texts)  # names what it lacks; how long the others are is in the manifest
    elif (longest := max(map(len, encoder.tokens(texts)), default=0)) > config.max_text_tokens:
        raise UserError(
            f"The prompts that this run draws while it goes on have up to {longest} tokens; raise "
            f"config.max_text_tokens from {config.max_text_tokens}."
        )


def load(config: ConfigDict) -> Watched:
    """What ``config.watch`` says. Raises UserError for what cannot be watched."""
    settings = config.watch
    check(config)
    if not settings.data and not settings.edit_data:
        return Watched()
    from flashjax.evaluate import classifier  # knows the postcards, whose packages other runs do without

    judge = classifier.load(settings.classifier)
    if config.image_size != (side := judge.config.side):
        raise UserError(
            f"The classifier of config.watch ({settings.classifier}) judges pictures of {side} px, and the run draws "
            f"{config.image_size}."
        )
    return Watched(
        load_prompts(settings, judge) if settings.data else None,
        load_edits(settings, judge) if settings.edit_data else None,
    )


def check(config: ConfigDict) -> None:
    """Raises UserError for settings that do not go together, whatever the data are."""
    settings, latent = config.watch, config.autoencoder.architecture != latents.PIXELS.name
    if config.keep_best and config.keep_best not in FIGURES:
        known = ", ".join(FIGURES)
        raise UserError(f"config.keep_best is {config.keep_best!r}; choose one of {known}, or '' for none.")
    needed = "edit_data" if config.keep_best in EDIT_FIGURES else "data"
    if config.keep_best and not settings[needed]:
        raise UserError(f"config.keep_best={config.keep_best} needs a held-out set; name it in config.watch.{needed}.")
    if settings.edit_data and all(source.get("task") != "edit" for source in config.sources.values()):
        raise UserError(
            "config.watch.edit_data names held-out edits, and none of config.sources is of edits (task='edit'); add "
            "one, or leave config.watch.edit_data out."
        )
    if settings.edit_data and latent:
        raise UserError("config.watch.edit_data is for runs that read pixels; this one reads latents, so leave it out.")
    if settings.data and latent and not config.autoencoder.weights:
        raise UserError("config.watch judges pictures, which take a decoder: name its weights in config.autoencoder.")


def read(settings: ConfigDict, name: str) -> list[dict[str, Any]]:
    """The first ``count`` records of the held-out set that config.watch.``name`` names."""
    path, (keys, command) = settings[name], HELD_OUT[name]
    source = RecordSource(existing(path, f"held-out set (config.watch.{name})"))
    first = source[0]
    # An edit has a caption and a picture too, but its picture is not what the caption says.
    if not keys <= first.keys() or (name == "data" and "source" in first):
        raise UserError(f"config.watch.{name} names {path}, whose records are of another kind; `{command}` makes them.")
    if not 2 <= settings.count <= len(source):
        raise UserError(
            f"config.watch.count is {settings.count} and {path} holds {len(source)} records; it needs two or more of "
            "them."
        )
    return [source[i] for i in range(settings.count)]


def load_prompts(settings: ConfigDict, judge: Any) -> Prompts:
    from flashjax.evaluate import classifier

    records = read(settings, "data")
    real = classifier.features(judge, np.stack([record["image"] for record in records]))
    said, kinds, named = ([record[key] for record in records] for key in ("caption", "category", "named"))
    return Prompts(said, kinds, named, real, judge)


def load_edits(settings: ConfigDict, judge: Any) -> Edits:
    watched = Edits(read(settings, "edit_data"), judge)
    # The exact edits are judged once, so that a reader of words that is not installed, or pictures of a size that is
    # not the classifier's, are told of before the run and not at its first drawing.
    exact = edit_figures(watched, np.stack([record["image"] for record in watched.records]))
    if absent := [name for name in EDIT_FIGURES if name not in exact]:
        raise UserError(f"None of the {settings.count} watched edits has {absent[0]}; raise config.watch.count.")
    return watched


def make_watchers(
    config: ConfigDict, model, denoiser, encoder, decode: pictures.Decode, watched: Watched, folder: Path, mesh
) -> list[Callable]:
    """For prompts and for edits, as far as they are watched, ``draw(params, step)``: it draws every one once, always
    from the same noise, and returns their FIGURES."""
    texts, tokens, made = partial(pictures.conditions, model, encoder), config.max_text_tokens, []
    if watched.prompts is not None:
        made.append((*texts(watched.prompts.prompts, tokens), partial(figures, watched.prompts)))
    if watched.edits is not None:
        records = watched.edits.records
        said, null = texts([record["instruction"] for record in records], tokens)
        given = pixels.from_uint8(np.stack([record["source"] for record in records]))
        cond = editing.condition(model, said.text, said.text_length, [given])
        made.append((cond, editing.null_condition(model, null, cond), partial(edit_figures, watched.edits)))

    def watcher(cond, null, judged: Callable) -> Callable:
        seeds = list(range(1, 1 + len(cond.text)))
        drawn = pictures.make_drawn(config, denoiser, cond, null, seeds, decode, folder, mesh)

        def draw(params, step: int) -> dict[str, float]:
            images = drawn(params)
            return {} if images is None else judged(images)

        return draw

    return [watcher(*each) for each in made]


def figures(watched: Prompts, images: np.ndarray) -> dict[str, float]:
    """Of pictures uint8 [N, H, W, 3] of the watched prompts: the Fréchet distance to the real ones of these prompts,
    in the classifier's features, and the share of what the prompts name that is right. Of N pictures the distance is
    larger than of many (metrics.frechet_distance): compare it within a run."""
    from flashjax.evaluate import classifier

    seen, _ = classifier.predict(watched.judge, images, watched.categories)
    return {
        "watch/frechet": metrics.frechet_distance(classifier.features(watched.judge, images), watched.real),
        "watch/adherence": float(np.nanmean(metrics.adherence_scores(seen, watched.named))),
    }


def edit_figures(watched: Edits, images: np.ndarray) -> dict[str, float]:
    """EDIT_FIGURES of pictures uint8 [N, H, W, 3] that were made of the sources: means of what ``edits.scores`` tells
    of each edit, without those that no edit has."""
    from flashjax.evaluate import edits

    found = edits.scores(images, watched.records, watched.judge)
    values = {name: found[name.removeprefix("watch/edit_")] for name in EDIT_FIGURES}
    return {name: float(np.nanmean(each)) for name, each in values.items() if np.isfinite(each).any()}
