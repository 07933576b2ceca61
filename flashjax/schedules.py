"""The time grids that released models are sampled on, as their diffusers pipelines compute them.

A grid is float32 [steps + 1], from 1 (noise) down to exactly 0 (image): the scheduler's sigmas, which are our times.
Every shift here is ``flow.shift_time``; the "exponential" one of diffusers by mu is the shift ``exp(mu)``. A static
shift therefore needs no function of its own: Z-Image is ``flow.time_grid(steps, 6.0)``, its Turbo
``flow.time_grid(steps, 3.0)``. Tests compare all of them with ``FlowMatchEulerDiscreteScheduler``.

``tokens`` counts the target's tokens alone; references and text do not shift the grid.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flashjax import flow

# of diffusers' scheduler, where its configuration leaves them out; in the order of linear_mu
_LINE = {"base_image_seq_len": 256, "max_image_seq_len": 4096, "base_shift": 0.5, "max_shift": 1.15}


def linear_mu(tokens: int, base_tokens: int, max_tokens: int, base_shift: float, max_shift: float) -> float:
    """The line through (base_tokens, base_shift) and (max_tokens, max_shift), which goes on beyond both. Raises
    ValueError where these are one point."""
    if max_tokens == base_tokens:
        raise ValueError(f"The scheduler's base_image_seq_len and max_image_seq_len are both {base_tokens}: no line.")
    return base_shift + (max_shift - base_shift) / (max_tokens - base_tokens) * (tokens - base_tokens)


def klein_mu(steps: int, tokens: int) -> float:
    """FLUX.2's shift, fitted by its authors: linear in ``tokens`` at 10 and at 200 steps, linear in ``steps`` between
    and beyond. More than 4300 tokens take the line of 200 steps at any number of steps."""
    at_10 = 8.73809524e-05 * tokens + 1.89833333
    at_200 = 0.00016927 * tokens + 0.45666666
    if tokens > 4300:
        return at_200
    return at_200 + (at_200 - at_10) * (steps - 200) / 190


def explicit_sigmas(sigmas: Sequence[float]) -> np.ndarray:
    """The grid of a model that was distilled for given times, such as Qwen-Image-2.1-Turbo; the final 0 is appended.

    Raises ValueError unless the times fall, from 1 or less, and stay above 0.
    """
    grid = np.append(np.asarray(sigmas, np.float64), 0)
    if not (len(sigmas) and grid[0] <= 1 and np.all(np.diff(grid) < 0)):
        raise ValueError(f"Times have to fall, from 1 or less, and stay above 0 (which is appended); got {sigmas}.")
    return grid.astype(np.float32)


def scheduler_sigmas(
    config: Mapping[str, Any], steps: int, tokens: int, klein: bool = False, sigmas: Sequence[float] | None = None
) -> np.ndarray:
    """The grid on which a diffusers pipeline with this ``scheduler_config.json`` draws pictures of ``tokens`` tokens.

    ``klein``: a dynamic shift is FLUX.2's, else it is linear in ``tokens``. ``sigmas``: times that the scheduler starts
    from, in place of ``steps`` even ones. Raises ValueError for times and settings that make no grid, and for one step
    that has to begin at two times.

    A grid of few steps that is stretched to ``shift_terminal``, as every Qwen-Image's is, wastes its last one: 4 steps
    and 4096 tokens give 1, .767, .456, .02, 0.
    """
    base = None if sigmas is None else explicit_sigmas(sigmas)
    steps, shift = steps if base is None else len(sigmas), config.get("shift", 1.0)
    if config.get("use_dynamic_shifting"):
        line = [config.get(name, default) for name, default in _LINE.items()]
        mu = klein_mu(steps, tokens) if klein else linear_mu(tokens, *line)
        shift = mu if config.get("time_shift_type") == "linear" else math.exp(mu)
    with np.errstate(divide="ignore", invalid="ignore"):  # of a shift that float64 takes for 0; see below
        grid = flow.time_grid(steps, shift) if base is None else flow.shift_time(base, shift)
        grid = _stretched(grid, config.get("shift_terminal"))
    if not (np.isfinite(grid).all() and np.all(np.diff(grid) < 0)):
        raise ValueError(f"The scheduler's settings make no grid of falling times at {tokens} tokens: {grid}.")
    return grid


def _stretched(grid: np.ndarray, terminal: float | None) -> np.ndarray:
    """The grid with the distances from 1 multiplied so that its last step begins at ``terminal``; None or 0: as is."""
    if not terminal:
        return grid
    if len(grid) == 2:
        raise ValueError(f"A grid of one step cannot end at {terminal}; take two steps or more.")
    away = 1 - grid[:-1].astype(np.float64)
    return np.append(1 - away * (1 - terminal) / away[-1], 0).astype(np.float32)
