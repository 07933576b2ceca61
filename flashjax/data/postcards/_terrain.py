"""The ground of the landscapes, and the few drawing steps that everything there uses."""

from __future__ import annotations

import numpy as np
from PIL import ImageDraw

Color = tuple[int, int, int]

_LAND = {
    "green hills": ((48, 142, 62), (112, 196, 76)),
    "snowy mountains": ((96, 110, 140), (238, 244, 252)),
    "desert dunes": ((212, 156, 72), (242, 202, 120)),
    "red canyon": ((168, 66, 40), (214, 116, 70)),
    "flower field": ((72, 150, 60), (96, 180, 70)),
}
_FLOWERS = ((232, 66, 110), (252, 214, 60), (170, 80, 200), (250, 130, 60))


def stream(seed: int, number: int) -> np.random.Generator:
    """The random stream of one kind of element."""
    return np.random.default_rng([seed, number])


def lit(color: Color, light: tuple[float, float, float], keep: float = 0.0) -> Color:
    """Tint a colour by the light; `keep` holds back that share of the tint."""
    r, g, b = (round(c * (f + (1 - f) * keep)) for c, f in zip(color, light, strict=True))
    return r, g, b


def poly(draw: ImageDraw.ImageDraw, big: int, points, fill: Color) -> None:
    """Fill a polygon given in unit coordinates."""
    draw.polygon([(x * big, y * big) for x, y in points], fill=fill)


def disc(draw: ImageDraw.ImageDraw, big: int, x: float, y: float, rx, ry, fill: Color) -> None:
    """Fill an ellipse given by its centre and radii in unit coordinates."""
    draw.ellipse(
        [(x - rx) * big, (y - ry) * big, (x + rx) * big, (y + ry) * big],
        fill=fill,
    )


def ridge(rng: np.random.Generator, base: float, amp: float, waves: float) -> list:
    """A wavy skyline: points from the left edge to the right one."""
    xs = np.linspace(0, 1, 33)
    f, phase = waves * rng.uniform(0.8, 1.25), rng.uniform(0, 2 * np.pi)
    ys = base - amp * np.sin(2 * np.pi * f * xs + phase)
    return list(zip(xs, ys, strict=True))


def fill_below(draw, big: int, points: list, color: Color) -> None:
    """Fill everything below a skyline."""
    poly(draw, big, [*points, (1, 1), (0, 1)], color)


def _hills(draw, big: int, seed: int, light) -> None:
    rng, (dark, pale) = stream(seed, 5), _LAND["green hills"]
    fill_below(draw, big, ridge(rng, 0.55, 0.07, 1.3), lit(dark, light))
    fill_below(draw, big, ridge(rng, 0.7, 0.04, 0.9), lit(pale, light))


def _dunes(draw, big: int, seed: int, light) -> None:
    rng, (dark, pale) = stream(seed, 5), _LAND["desert dunes"]
    fill_below(draw, big, [(0, 0.58), (1, 0.58)], lit(pale, light))
    for x in (rng.uniform(0.1, 0.35), rng.uniform(0.65, 0.95)):
        top, half = rng.uniform(0.44, 0.5), rng.uniform(0.36, 0.44)
        poly(draw, big, [(x - half, 0.75), (x, top), (x + half, 0.75)], lit(pale, light))
        shade = [(x, top), (x + half, 0.75), (x + 0.06, 0.75), (x - 0.05, 0.62)]
        poly(draw, big, shade, lit(dark, light))
    fill_below(draw, big, ridge(rng, 0.73, 0.025, 1.0), lit((232, 184, 98), light))


def _mountains(draw, big: int, seed: int, light) -> None:
    rng, (rock, snow) = stream(seed, 5), _LAND["snowy mountains"]
    for x in (rng.uniform(-0.02, 0.1), rng.uniform(0.86, 1.0), rng.uniform(0.4, 0.6)):
        top, half = rng.uniform(0.33, 0.4), rng.uniform(0.36, 0.42)
        poly(draw, big, [(x - half, 0.78), (x, top), (x + half, 0.78)], lit(rock, light))
        poly(draw, big, [(x, top), (x + half, 0.78), (x + 0.1, 0.78)], lit((72, 84, 112), light))
        w = half * 0.4
        cap = [(x - w, top + 0.16), (x, top), (x + w, top + 0.16), (x + w / 3, top + 0.12)]
        poly(draw, big, [*cap, (x, top + 0.18), (x - w / 3, top + 0.12)], lit(snow, light, 0.3))
    fill_below(draw, big, ridge(rng, 0.72, 0.02, 1.0), lit(snow, light, 0.15))


def _canyon(draw, big: int, seed: int, light) -> None:
    rng, (dark, pale) = stream(seed, 5), _LAND["red canyon"]
    fill_below(draw, big, [(0, 0.62), (1, 0.62)], lit(dark, light))
    for x in (rng.uniform(0.08, 0.22), rng.uniform(0.48, 0.6), rng.uniform(0.84, 0.98)):
        top, w = rng.uniform(0.38, 0.46), rng.uniform(0.1, 0.14)
        for i, color in enumerate((dark, pale, dark, pale)):
            y0, y1 = (top + (0.74 - top) * k / 4 for k in (i, i + 1))
            a, b = w + 0.022 * i, w + 0.022 * (i + 1)
            edge = [(x - a, y0), (x + a, y0), (x + b, y1), (x - b, y1)]
            poly(draw, big, edge, lit(color, light))
    fill_below(draw, big, ridge(rng, 0.73, 0.015, 1.2), lit((226, 140, 88), light))


def _flowers(draw, big: int, seed: int, light) -> None:
    rng, (dark, _) = stream(seed, 5), _LAND["flower field"]
    fill_below(draw, big, ridge(rng, 0.56, 0.015, 1.0), lit(dark, light))
    first, vanish = int(rng.integers(4)), rng.uniform(0.44, 0.56)
    for i in range(8):
        color = lit(_FLOWERS[(first + i) % 4], light, 0.25)
        x0, x1 = ((k - 4) * 0.42 for k in (i, i + 0.62))
        points = [(vanish + x0 * 0.24, 0.6), (vanish + x1 * 0.24, 0.6)]
        poly(draw, big, [*points, (vanish + x1, 1.0), (vanish + x0, 1.0)], color)


LAND_PAINTERS = {
    "green hills": _hills,
    "snowy mountains": _mountains,
    "desert dunes": _dunes,
    "red canyon": _canyon,
    "flower field": _flowers,
}
