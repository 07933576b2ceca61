"""Charts as inline SVG, styled by `STYLE` in the page that holds them, whose colours are the theme's. The lines of one
chart are of class line0, line1 and so on, for colours of their own. Safe in a template: what is text is escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape

STYLE = """\
svg { display: block; width: 100%; height: auto; }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .axis { stroke: var(--soft); stroke-width: 1; }
svg .tick, svg .label { fill: var(--soft); font-size: 11.5px; font-variant-numeric: tabular-nums; }
svg .line { fill: none; stroke: var(--accent); stroke-width: 1.75; stroke-linejoin: round; stroke-linecap: round; }
svg .dot { fill: var(--accent); }
svg .span { stroke: var(--soft); stroke-width: 2; } svg .span.clear { stroke: var(--accent); }
svg .mean { fill: var(--soft); } svg .mean.clear { fill: var(--accent); }
"""
# In pixels: the drawing area leaves room for tick labels at the left and below.
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 460, 230, 58, 24, 12, 40


def lines_svg(lines: Sequence[tuple[np.ndarray, np.ndarray]], horizontal: str = "step") -> Markup:
    """One chart of several lines (x, y), finite float arrays [N] each; "" if there is no point. ``horizontal`` is what
    stands below the axis."""
    lines = [(np.asarray(x, np.float64), np.asarray(y, np.float64)) for x, y in lines]
    if not sum(len(x) for x, _ in lines):
        return Markup("")
    all_x, all_y = (np.concatenate(values) for values in zip(*lines, strict=True))
    ticks_x, ticks_y = _ticks(float(all_x.min()), float(all_x.max())), _ticks(float(all_y.min()), float(all_y.max()))
    low_x, high_x = min(all_x.min(), ticks_x[0]), max(all_x.max(), ticks_x[-1])
    low_y, high_y = min(all_y.min(), ticks_y[0]), max(all_y.max(), ticks_y[-1])
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def at_x(value: float) -> float:
        return _LEFT + (value - low_x) / (high_x - low_x) * (right - _LEFT)

    def at_y(value: float) -> float:
        return bottom - (value - low_y) / (high_y - low_y) * (bottom - _TOP)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">']
    for value, label in zip(ticks_y, _labels(ticks_y), strict=True):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{at_y(value):.1f}" y2="{at_y(value):.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{at_y(value) + 4:.1f}" text-anchor="end">{label}</text>')
    for value, label in zip(ticks_x, _labels(ticks_x), strict=True):
        parts.append(f'<text class="tick" x="{at_x(value):.1f}" y="{bottom + 17}" text-anchor="middle">{label}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    middle = (_LEFT + right) / 2
    foot = f'x="{middle:.0f}" y="{_HEIGHT - 6}"'
    parts.append(f'<text class="tick" {foot} text-anchor="middle">{escape(horizontal)}</text>')
    for i, (x, y) in enumerate(lines):
        points = " ".join(f"{at_x(a):.1f},{at_y(b):.1f}" for a, b in zip(*_thinned(x, y), strict=True))
        parts.append(f'<polyline class="line line{i}" points="{points}"/>')
        if len(x) == 1:
            parts.append(f'<circle class="dot line{i}" cx="{at_x(x[0]):.1f}" cy="{at_y(y[0]):.1f}" r="3"/>')
    return Markup("".join([*parts, "</svg>"]))


def intervals_svg(rows: Sequence[tuple[str, float, float, float, bool]]) -> Markup:
    """A chart of intervals (label, value, low, high, whether it is marked) below each other, with a line at 0; what is
    marked is of class clear."""
    values = [v for _, *three, _ in rows for v in three]
    ticks = _ticks(min(0.0, *values), max(0.0, *values))
    low, high, bottom = min(ticks[0], *values), max(ticks[-1], *values), _TOP + 34 * len(rows)

    def at(value: float) -> float:
        return 16 + (value - low) / (high - low) * (_WIDTH - 40)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {bottom + 24}" role="img">']
    for value, label in zip(ticks, _labels(ticks), strict=True):
        kind = "axis" if abs(value) < 1e-12 else "grid"
        parts.append(f'<line class="{kind}" x1="{at(value):.1f}" x2="{at(value):.1f}" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{at(value):.1f}" y="{bottom + 17}" text-anchor="middle">{label}</text>')
    for i, (label, value, lower, upper, marked) in enumerate(rows):
        y, kind = _TOP + 34 * i + 24, " clear" if marked else ""
        parts.append(f'<text class="label" x="16" y="{y - 10}">{escape(label)}</text>')
        parts.append(f'<line class="span{kind}" x1="{at(lower):.1f}" x2="{at(upper):.1f}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="mean{kind}" cx="{at(value):.1f}" cy="{y}" r="4"/>')
    return Markup("".join([*parts, "</svg>"]))


def _thinned(x: np.ndarray, y: np.ndarray, most: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Fewer points for the page: the smallest and the largest of every stretch, so that no peak is lost."""
    if len(x) <= most:
        return x, y
    kept = []
    for part in np.array_split(np.arange(len(x)), most // 2):
        kept += sorted({int(part[y[part].argmin()]), int(part[y[part].argmax()])})
    return x[kept], y[kept]


def _ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers that span low..high."""
    if high <= low:
        margin = abs(low) / 2 or 1.0
        low, high = low - margin, high + margin
    raw = (high - low) / 4
    unit = 10.0 ** math.floor(math.log10(raw))
    step = unit * next(m for m in (1, 2, 2.5, 5, 10) if m * unit >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * i for i in range(first, last + 1)]


def _labels(ticks: Sequence[float]) -> list[str]:
    """The ticks as text, all with the same number of decimals."""
    step, largest = ticks[1] - ticks[0], max(abs(t) for t in ticks)
    if step < 1e-4 or largest >= 1e6:
        return [f"{t:.3g}" for t in ticks]
    places = next(n for n in range(6) if abs(step * 10**n - round(step * 10**n)) < 1e-6)
    return [f"{t:,.{places}f}" for t in ticks]
