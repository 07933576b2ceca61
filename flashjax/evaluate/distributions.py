"""How far two sets of pictures lie apart as distributions, on the features of any network.

A feature extractor is a function from pictures uint8 [N, H, W, 3] to float [N, D], as those of ``extractors`` are. The
Fréchet distance is in ``metrics``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from flashjax.errors import UserError

__all__ = ["PrecisionRecall", "cmmd", "high_frequency", "patches", "precision_recall", "spectrum"]

_CHUNK = 1024  # rows of a kernel matrix at a time


def cmmd(
    a: np.ndarray, b: np.ndarray, sigma: float = 10.0, scale: float = 1000.0,
    groups: tuple[Sequence, Sequence] | None = None,
) -> float:  # fmt: skip
    """The squared maximum mean discrepancy with a Gaussian kernel exp(-|x - y|^2 / 2 sigma^2), times ``scale``.

    CMMD of Jayasumana et al. (2024) where features are CLIP's, each of length 1; sigma and scale are theirs. This is
    the unbiased estimator: 0 on average for two samples of one distribution, so below 0 at times.

    Args:
        a, b: [N, D] and [M, D], N and M at least 2.
        groups: the prompt of each row of a and of b, where both sets are drawn from the same prompts. Pictures of one
            prompt are alike, and with one seed a prompt such pairs are between the sets alone, which would look nearer
            than they are: they are left out everywhere. Without groups, all rows are taken for independent.
    """
    a, b = _pair(a, b)
    of_a, of_b = _numbers(a, b, groups)
    within = _kernel_mean(a, a, of_a, of_a, sigma) + _kernel_mean(b, b, of_b, of_b, sigma)
    return float(scale * (within - 2 * _kernel_mean(a, b, of_a, of_b, sigma)))


def _numbers(a: np.ndarray, b: np.ndarray, groups: tuple[Sequence, Sequence] | None) -> tuple[np.ndarray, np.ndarray]:
    """The group of each row of both as a number; without groups, each row is one of its own."""
    if groups is None:
        return np.arange(len(a)), len(a) + np.arange(len(b))
    if [len(a), len(b)] != [len(g) for g in groups]:
        raise UserError(f"Groups of {[len(g) for g in groups]} rows do not fit features of {[len(a), len(b)]}.")
    numbers = np.unique(np.concatenate([np.asarray(g) for g in groups]), return_inverse=True)[1]
    return numbers[: len(a)], numbers[len(a) :]


def _kernel_mean(a: np.ndarray, b: np.ndarray, of_a: np.ndarray, of_b: np.ndarray, sigma: float) -> float:
    """Over the pairs of different groups."""
    total, count = 0.0, 0
    for i in range(0, len(a), _CHUNK):
        apart = of_a[i : i + _CHUNK, None] != of_b
        total += float(np.exp(-_squared(a[i : i + _CHUNK], b) / (2 * sigma**2)).sum(where=apart))
        count += int(apart.sum())
    if not count:
        raise UserError("CMMD needs pictures of two prompts or more in each set.")
    return total / count


class PrecisionRecall(NamedTuple):
    """precision: the share of generated samples among the real ones; recall: the share of real ones among them."""

    precision: float
    recall: float


def precision_recall(real: np.ndarray, generated: np.ndarray, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall (Kynkäänniemi et al., 2019): a sample is among a set if it lies within the distance
    of one of its members to that member's k-th nearest neighbour.

    Args:
        real, generated: [N, D] and [M, D], both with more than k rows.
    """
    real, generated = _pair(real, generated)
    if min(len(real), len(generated)) <= k:
        raise UserError(f"Neighbour {k} needs more than {k} samples in each set, not {len(real)} and {len(generated)}.")
    return PrecisionRecall(_among(generated, real, k), _among(real, generated, k))


def _among(samples: np.ndarray, members: np.ndarray, k: int) -> float:
    # A sample's own distance of 0 comes first, so that the k-th neighbour is at position k.
    radii = np.concatenate(
        [np.partition(_squared(members[i : i + _CHUNK], members), k, 1)[:, k] for i in range(0, len(members), _CHUNK)]
    )
    inside = [(_squared(samples[i : i + _CHUNK], members) <= radii).any(1) for i in range(0, len(samples), _CHUNK)]
    return float(np.concatenate(inside).mean())


def patches(images: np.ndarray, side: int, per_image: int = 1, seed: int = 0) -> np.ndarray:
    """Square cut-outs at full resolution, where resizing would hide grids and noise (patch FID of DMD2).

    Args:
        images: uint8 [N, H, W, 3]. side: of a patch. The first patch of an image is its centre, more are at random.

    Returns:
        uint8 [N * per_image, side, side, 3]: input for any extractor.
    """
    images = np.asarray(images)
    if images.ndim != 4 or min(images.shape[1:3]) < side:
        raise UserError(f"Patches of {side} pixels do not fit into pictures {list(images.shape)}.")
    rng, room = np.random.default_rng(seed), np.array(images.shape[1:3]) - side
    cut = []
    for image in images:
        corners = [room // 2, *rng.integers(0, room + 1, (per_image - 1, 2))]
        cut += [image[y : y + side, x : x + side] for y, x in corners]
    return np.stack(cut)


def spectrum(images: np.ndarray, bands: int = 8) -> np.ndarray:
    """Share of a picture's luma variance in each of ``bands`` rings of frequency, from low to high, averaged over
    pictures uint8 [N, H, W, 3]: float64 [bands]. Grid artefacts and noise raise the last ones, blur lowers them."""
    luma = np.asarray(images, np.float64) @ np.array([0.299, 0.587, 0.114])
    power = np.abs(np.fft.fft2(luma - luma.mean((1, 2), keepdims=True))) ** 2
    rows, columns = (np.abs(np.fft.fftfreq(n)) for n in luma.shape[1:])
    ring = np.minimum((np.hypot.outer(rows, columns) / np.sqrt(0.5) * bands).astype(int), bands - 1)
    sums = np.stack([power[:, ring == i].sum(1) for i in range(bands)], 1)
    total = sums.sum(1, keepdims=True)
    return (sums / np.where(total == 0, 1, total)).mean(0)


def high_frequency(images: np.ndarray, side: int = 16, per_image: int = 4) -> float:
    """Share of the luma variance above three quarters of the highest frequency, in patches of full resolution: of
    pictures uint8 [N, H, W, 3]. Edges of patches leak into it, alike in all sets; compare it with a teacher's."""
    return float(spectrum(patches(images, side, per_image))[6:].sum())


def _squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances [N, M]; exactly 0 at least, which the expanded form is only up to rounding."""
    return np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0)


def _pair(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        shapes = f"{list(a.shape)} and {list(b.shape)}"
        raise UserError(f"Features have to be [N, D] and [M, D] of one network, not {shapes}.")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise UserError("Some features are not finite; look at the pictures that they were taken from.")
    return a, b
