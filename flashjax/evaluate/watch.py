"""Figures of a run's own pictures while it goes on. The losses of distillation say little: a critic that lags and a
student that is done look the same in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from flashjax import pictures
from flashjax.data.records import RecordSource
from flashjax.errors import UserError
from flashjax.evaluate import metrics

# What a run can keep its best checkpoint by, and whether the smaller or the larger value is the better.
FIGURES = {"watch/frechet": min, "watch/adherence": max}


class Watched(NamedTuple):
    """The prompts that are drawn again and again, what they name, features [N, D] of their real pictures, and the
    classifier that they are of."""

    prompts: list[str]
    categories: list[str]
    named: list[dict[str, str]]
    real: np.ndarray
    judge: Any


def load(config: ConfigDict) -> Watched | None:
    """What ``config.watch`` says; None without data. Raises UserError for what cannot be watched."""
    settings = config.watch
    if config.keep_best and config.keep_best not in FIGURES:
        raise UserError(f"config.keep_best is {config.keep_best!r}; choose {' or '.join(FIGURES)}, or '' for none.")
    if config.keep_best and not settings.data:
        raise UserError("config.keep_best needs pictures to compare with; name a held-out set in config.watch.data.")
    if not settings.data:
        return None
    from flashjax.evaluate import classifier  # knows the postcards, whose packages other runs do without

    if config.image_size != classifier.SIDE:
        raise UserError(f"config.watch judges pictures of {classifier.SIDE} px, and the run draws {config.image_size}.")
    if config.autoencoder.architecture != "pixels" and not config.autoencoder.weights:
        raise UserError("config.watch judges pictures, which take a decoder: name its weights in config.autoencoder.")
    source = RecordSource(settings.data)
    if not 2 <= settings.count <= len(source) or "image" not in source[0]:
        raise UserError(
            f"config.watch.count is {settings.count} and {settings.data} holds {len(source)} records; it needs two or "
            "more of them, with pictures."
        )
    records = [source[i] for i in range(settings.count)]
    judge = classifier.load(settings.classifier)
    real = classifier.features(judge, np.stack([record["image"] for record in records]))
    said, kinds, named = ([record[key] for record in records] for key in ("caption", "category", "named"))
    return Watched(said, kinds, named, real, judge)


def make_watcher(
    config: ConfigDict, model, denoiser, encoder, decode: pictures.Decode, watched: Watched, folder: Path
) -> Callable:
    """``draw(params, step)`` draws every prompt once, always from the same noise, and returns FIGURES: the Fréchet
    distance of the pictures to the real ones of these prompts, in the classifier's features, and the share of what the
    prompts name that is right. Of N pictures the distance is larger than of many (metrics.frechet_distance): compare it
    within a run."""
    cond, null = pictures.conditions(model, encoder, watched.prompts, config.max_text_tokens)
    seeds = list(range(1, 1 + len(watched.prompts)))
    drawn = pictures.make_drawn(config, denoiser, cond, null, seeds, decode, folder)

    def draw(params, step: int) -> dict[str, float]:
        images = drawn(params)
        return {} if images is None else figures(watched, images)

    return draw


def figures(watched: Watched, images: np.ndarray) -> dict[str, float]:
    """FIGURES of pictures uint8 [N, 32, 32, 3] of the watched prompts."""
    from flashjax.evaluate import classifier

    seen, _ = classifier.predict(watched.judge, images, watched.categories)
    return {
        "watch/frechet": metrics.frechet_distance(classifier.features(watched.judge, images), watched.real),
        "watch/adherence": float(np.nanmean(metrics.adherence_scores(seen, watched.named))),
    }
