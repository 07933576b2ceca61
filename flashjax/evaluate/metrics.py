"""Metrics on arrays: distance, sharpness, saturation, diversity, adherence, and the uncertainty of all of them.

Everything is numpy in float64 and knows no model; prompts are the unit that is resampled, because pictures of one
prompt are not independent (Miller, "Adding Error Bars to Evals", 2024).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from flashjax.errors import UserError

__all__ = [
    "Interval",
    "adherence",
    "adherence_scores",
    "bootstrap",
    "contrast",
    "contrast_drift",
    "diversity",
    "diversity_ratio",
    "frechet_distance",
    "frechet_from_moments",
    "gap_closed",
    "gap_of_distances",
    "proportion_shift",
    "rate_interval",
    "saturation",
    "saturation_drift",
    "sharpness",
]

# One value for each prompt, or a function from the positions of prompts to a figure.
Figure = Callable[[np.ndarray], float]
Statistic = np.ndarray | Sequence[float] | Figure
_LUMA = np.array([0.299, 0.587, 0.114])


class Interval(NamedTuple):
    """A figure and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


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


def _statistic(values: Statistic) -> tuple[Callable[[np.ndarray], float], int | None]:
    if callable(values):
        return values, None
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise UserError(
            f"A bootstrap needs one finite value for each prompt, not an array {list(array.shape)} with "
            f"{int((~np.isfinite(array)).sum())} values that are not finite."
        )
    return lambda rows: float(array[rows].mean()), len(array)


def _count(given: int | None, lengths: Sequence[int | None]) -> int:
    found = {n for n in (given, *lengths) if n is not None}
    if len(found) != 1:
        raise UserError(
            f"The number of prompts has to be one and the same, but is {sorted(found) or 'not given'}; "
            "give arrays of one length, or `count` with functions."
        )
    return found.pop()


def bootstrap(values: Statistic, *, count: int | None = None, draws: int = 1000, seed: int = 0) -> Interval:
    """A figure and its percentile 95 % interval, resampling prompts with replacement.

    Args:
        values: float [P], whose mean is the figure, or a function from positions int64 [P] to the figure. Work on
            several sets inside one function stays paired.
        count: P, needed with a function only.
        draws: how many resamples.
        seed: of the resampling.

    Raises:
        UserError: values are missing or not finite.
    """
    figure, length = _statistic(values)
    n = _count(count, [length])
    rng = np.random.default_rng(seed)
    found = [figure(rng.integers(0, n, n)) for _ in range(draws)]
    return Interval(figure(np.arange(n)), *(float(x) for x in np.percentile(found, [2.5, 97.5])))


def rate_interval(scores: Sequence[float]) -> Interval:
    """A rate, of wins or of things done, and its 95 % interval. ``scores``: one of 0 to 1 a prompt, where 1 is won, or
    done, and a tie 0.5.

    Wilson's score interval (1927), as where nearly all prompts end alike so do resamples of them: a bootstrap of 20
    with 92 % wins covers in 77 % of tries. Wilson's is of coins; ties make scores vary less, as if there were more
    prompts, so that their number is taken times the ratio of a coin's variance to that seen, with one coin more among
    the prompts lest a few equal ones claim to be certain. In simulations of 10 to 80 prompts it covers in 92 to 100 %
    of tries, most where nearly all tie. Of a single prompt there is none, and the ends are NaN.

    Raises:
        UserError: no scores, or some are not from 0 to 1.
    """
    x, z = np.asarray(scores, np.float64), 1.959964  # 97.5 % of a normal law lie below
    if x.ndim != 1 or not len(x) or not ((x >= 0) & (x <= 1)).all():
        raise UserError("A rate needs scores from 0 to 1, one a prompt.")
    rate = float(x.mean())
    if len(x) < 2:
        return Interval(rate, math.nan, math.nan)
    coin = rate * (1 - rate)
    seen = (len(x) * x.var() + coin) / (len(x) + 1)
    n = len(x) * coin / seen if coin else len(x)
    middle, half = rate + z * z / (2 * n), z * math.sqrt(coin / n + (z / (2 * n)) ** 2)
    low, high = ((middle + side * half) / (1 + z * z / n) for side in (-1, 1))
    return Interval(rate, max(low, 0.0), min(high, 1.0))


def gap_closed(
    student: Sequence[float], few_step: Sequence[float], many_step: Sequence[float], *, draws: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """The share of the way from the few-step to the many-step teacher that the student goes: 0 nothing, 1 all of it.

    The same formula serves figures where higher is better and where lower is. Resamples of prompts are paired over
    the three.

    Args:
        student, few_step, many_step: float [P], one value a prompt, whose means are compared.
        draws: how many resamples.
        seed: of the resampling.

    Returns:
        closed and its low and high; gap (many - few) and its gap_low and gap_high; resolved, whether the gap's
        interval leaves out 0. closed is None where the gap is exactly 0, low and high where it is in over 5 % of draws.
    """
    parts = [_statistic(x) for x in (student, few_step, many_step)]
    n, rng = _count(None, [length for _, length in parts]), np.random.default_rng(seed)
    rows = [np.arange(n), *(rng.integers(0, n, n) for _ in range(draws))]
    ours, few, many = (np.array([figure(r) for r in rows]) for figure, _ in parts)
    gap, way = many - few, ours - few
    usable = gap != 0
    ratios = np.where(usable, way / np.where(usable, gap, 1), math.nan)
    steady = usable[0] and usable[1:].mean() > 0.95
    low, high = _centred(ratios[0], ratios[1:][usable[1:]]) if steady else (math.nan, math.nan)
    return _gap(ratios[0], low, high, gap[0], *_centred(gap[0], gap[1:]))


def gap_of_distances(
    student: Figure, few_step: Figure, many_step: Figure, count: int, *, splits: int = 50, seed: int = 0
) -> dict[str, Any]:
    """`gap_closed` of distances between distributions, each a function from positions int64 [P] to the distance.

    How far two halves of the prompts, drawn at random, are apart says how sure the figure of all is: a half's variance
    is twice that of the whole, their difference's four times. The share's interval is linear in the two distances'. In
    simulations these cover in 92 to 99 % of tries. Resampling with replacement will not do: where two sets are of one
    distribution all their distance is noise, to which repeated prompts add as much again, so that intervals of the
    share were twice as wide as they should be.

    Args:
        student, few_step, many_step: work on several sets inside a function stays paired.
        count: P.
        splits: how many times the prompts are split.
        seed: of the splits.

    Returns:
        As `gap_closed`. Of fewer than 8 prompts there are no intervals, and no gap is resolved.
    """
    rng, half = np.random.default_rng(seed), count // 2

    def figures(rows: np.ndarray) -> np.ndarray:
        ours, few, many = (figure(rows) for figure in (student, few_step, many_step))
        return np.array([ours - few, many - few])

    way, gap = figures(np.arange(count))
    closed = way / gap if gap else math.nan
    orders = [rng.permutation(count) for _ in range(splits)] if half >= 4 else []
    apart = np.array([figures(rows[:half]) - figures(rows[half : 2 * half]) for rows in orders]).reshape(-1, 2)

    def reach(difference: np.ndarray) -> float:
        return 1.959964 * math.sqrt(np.square(difference).mean() / 4) if orders else math.nan

    of_gap, of_share = reach(apart[:, 1]), reach((apart[:, 0] - closed * apart[:, 1]) / gap) if gap else math.nan
    return _gap(closed, closed - of_share, closed + of_share, gap, gap - of_gap, gap + of_gap)


def _gap(*figures: float) -> dict[str, Any]:
    names = ("closed", "low", "high", "gap", "gap_low", "gap_high")
    told = {k: float(v) if np.isfinite(v) else None for k, v in zip(names, figures, strict=True)}
    low, high = figures[-2:]
    return {**told, "resolved": bool(low > 0 or high < 0)}


def _centred(figure: float, draws: np.ndarray) -> tuple[float, float]:
    low, middle, high = np.percentile(draws, [2.5, 50, 97.5])
    return figure + low - middle, figure + high - middle
