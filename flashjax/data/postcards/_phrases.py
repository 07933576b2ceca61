"""Small helpers that the caption writers share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of the options, uniformly."""
    return options[int(rng.integers(len(options)))]


def shuffled(rng: np.random.Generator, items: Sequence[str]) -> list[str]:
    """The items in random order."""
    return [items[int(i)] for i in rng.permutation(len(items))]


def join(rng: np.random.Generator, parts: Sequence[str]) -> str:
    """'a, b and c' or 'a, b, c'; an empty string for no parts."""
    if len(parts) < 2 or rng.random() < 0.4:
        return ", ".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
