"""Metrics on arrays: distance, sharpness, saturation, diversity, adherence. Everything is numpy in float64 and knows no
model. How sure such figures are: `intervals`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flashjax.errors import UserError

__all__ = [
    "adherence",
    "adherence_scores",
    "contrast",
    "contrast_drift",
    "diversity",
    "diversity_ratio",
    "frechet_distance",
    "frechet_from_moments",
    "proportion_shift",
    "saturation",
    "saturation_drift",
    "sharpness",
]

_LUMA = np.array([0.299, 0.587, 0.114])


def frechet_distance(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """The squared Fréchet (2-Wasserstein) distance of two Gaussians fitted to features (Heusel et al., 2017).

    Args:
        features_a: [N, D], any float dtype, N >= 2.
        features_b: [M, D]. N and M need not agree, but the figure is biased upwards by about 1/N + 1/M; compare
            only figures of equal numbers.

    Raises:
        UserError: shapes do not fit, or there are values that are not finite.
    """
    a, b = _features(features_a), _features(features_b)
    if a.shape[1] != b.shape[1]:
        raise UserError(f"The features have {a.shape[1]} and {b.shape[1]} dimensions; take both from one network.")
    return frechet_from_moments(a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False))


def frechet_from_moments(mean_a, covariance_a, mean_b, covariance_b) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2), from means [D] and covariances [D, D].

    The symmetric form has real eigenvalues >= 0, which a square root of C_a C_b has only up to rounding.
    """
    covariance_a, covariance_b = np.atleast_2d(covariance_a), np.atleast_2d(covariance_b)
    values, vectors = np.linalg.eigh(covariance_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.linalg.eigvalsh(root @ covariance_b @ root)
    shift = np.square(np.asarray(mean_a, np.float64) - mean_b).sum()
    spread = np.trace(covariance_a) + np.trace(covariance_b) - 2 * np.sqrt(np.maximum(cross, 0)).sum()
    # The spread is >= 0 in exact arithmetic.
    return float(shift + max(spread, 0.0))


def _features(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or len(features) < 2:
        raise UserError(f"Features have to be [N, D] with N of at least 2, not {list(features.shape)}.")
    if not np.isfinite(features).all():
        raise UserError("Some features are not finite; look at the pictures that they were taken from.")
    return features


def sharpness(images: np.ndarray) -> np.ndarray:
    """Mean absolute Laplacian (four neighbours, inner pixels) of the luma in 0..1: float64 [N].

    Args:
        images: uint8 [N, H, W, 3], H and W of at least 3. Blur lowers the figure, noise and grid artefacts raise it.
    """
    x = _pictures(images) @ _LUMA
    laplacian = x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:] - 4 * x[:, 1:-1, 1:-1]
    return np.abs(laplacian).mean((1, 2))


def saturation(images: np.ndarray) -> np.ndarray:
    """Mean chroma, the largest minus the smallest channel in 0..1, of pictures uint8 [N, H, W, 3]: float64 [N]."""
    x = _pictures(images)
    return (x.max(-1) - x.min(-1)).mean((1, 2))


def saturation_drift(student: np.ndarray, teacher: np.ndarray) -> float:
    """How much more saturated the student's pictures are than the teacher's, relative: 0.1 is 10 % more.

    Raises:
        UserError: the teacher's pictures have no colour at all; or not pictures.
    """
    return _drift(saturation(student), saturation(teacher), "all gray", "saturation")


def contrast(images: np.ndarray) -> np.ndarray:
    """Standard deviation of the luma in 0..1 within each of the pictures uint8 [N, H, W, 3]: float64 [N]."""
    return (_pictures(images) @ _LUMA).std((1, 2))


def contrast_drift(student: np.ndarray, teacher: np.ndarray) -> float:
    """How much more contrast the student's pictures have than the teacher's, relative: 0.1 is 10 % more.

    Raises:
        UserError: each of the teacher's pictures is of one brightness; or not pictures.
    """
    return _drift(contrast(student), contrast(teacher), "all of one brightness", "contrast")


def _drift(student: np.ndarray, teacher: np.ndarray, kind: str, what: str) -> float:
    if teacher.mean() == 0:
        raise UserError(f"The teacher's pictures are {kind}, so there is no {what} to compare with.")
    return float(student.mean() / teacher.mean() - 1)


def _pictures(images: np.ndarray) -> np.ndarray:
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or min(images.shape[:3], default=0) < 1:
        raise UserError(f"Pictures have to be uint8 [N, H, W, 3], not {images.dtype} {list(images.shape)}.")
    return images.astype(np.float64) / 255


def diversity(features: np.ndarray) -> np.ndarray:
    """Mean Euclidean distance of all pairs of seeds of the same prompt.

    Args:
        features: [P, S, D], S >= 2 seeds.

    Returns:
        float64 [P]; 0 where all seeds gave the same picture.
    """
    x = np.asarray(features, np.float64)
    if x.ndim != 3 or x.shape[1] < 2:
        raise UserError(f"Diversity needs features [prompts, seeds, D] with at least two seeds, not {list(x.shape)}.")
    first, second = np.triu_indices(x.shape[1], 1)
    return np.linalg.norm(x[:, first] - x[:, second], axis=-1).mean(-1)


def diversity_ratio(student: np.ndarray, teacher: np.ndarray) -> float:
    """Mean diversity of the student's features [P, S, D] over that of the teacher's; 1 keeps it, 0 is collapse."""
    base = diversity(teacher).mean()
    if base == 0:
        raise UserError("The teacher gives the same picture for all seeds, so there is no diversity to compare with.")
    return float(diversity(student).mean() / base)


def adherence_scores(predictions: Sequence[Mapping[str, str]], named: Sequence[Mapping[str, str]]) -> np.ndarray:
    """The share of named attributes (`word` left out) that each picture shows: float64 [N], NaN if none is named.

    Args:
        predictions: attribute to value as seen in the picture, N of them.
        named: attribute to value as the caption says it, N of them.

    Raises:
        UserError: the numbers differ, or a named attribute has no prediction.
    """
    if len(predictions) != len(named):
        raise UserError(f"There are {len(predictions)} predictions for {len(named)} captions; give one for each.")
    scores = np.full(len(named), np.nan)
    for i, (seen, wanted) in enumerate(zip(predictions, named, strict=True)):
        if missing := [k for k in wanted if k != "word" and k not in seen]:
            raise UserError(f"Picture {i} has no prediction of {', '.join(missing)}; judge it as its own category.")
        right = [seen[k] == v for k, v in wanted.items() if k != "word"]
        scores[i] = np.mean(right) if right else np.nan
    return scores


def adherence(predictions, named, categories: Sequence[str]) -> dict[str, Any]:
    """`adherence_scores` averaged over the prompts that name something: {"mean", "prompts", "per_category"}."""
    scores, kinds = adherence_scores(predictions, named), np.asarray(categories)
    kept = np.isfinite(scores)
    if not kept.any():
        raise UserError("No caption names an attribute, so adherence has no meaning; take other prompts.")
    groups = {str(k): float(scores[kept & (kinds == k)].mean()) for k in dict.fromkeys(kinds[kept])}
    return {"mean": float(scores[kept].mean()), "prompts": int(kept.sum()), "per_category": groups}


def proportion_shift(
    seen: Sequence[Mapping[str, str]], reference: Sequence[Mapping[str, str]], categories: Sequence[str]
) -> float:
    """How differently two sets fill in what their prompts leave open: the total variation between the shares of an
    attribute's values, averaged over the attributes (`word` left out) of all categories.

    Distribution matching seeks modes: blue skies become more, yellow backgrounds fewer, while every single picture
    looks right. 0 is the same shares, 1 none in common. Two sets of one model differ too, the more the fewer pictures
    there are: compare with the teacher's own figure.

    Args:
        seen, reference: attribute to value as seen in the pictures, for the same prompts.
        categories: of the prompts; attributes of different categories are kept apart.
    """
    shifts = []
    for category in dict.fromkeys(categories):
        rows = [i for i, c in enumerate(categories) if c == category]
        for attribute in (k for k in reference[rows[0]] if k != "word"):
            ours, theirs = (Counter(s[i][attribute] for i in rows) for s in (seen, reference))
            shifts.append(sum(abs(ours[v] - theirs[v]) for v in ours | theirs) / (2 * len(rows)))
    return float(np.mean(shifts))
