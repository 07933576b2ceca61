"""The network of the postcards' judge: one trunk, one head for every (category, attribute), one for the category."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from flax import nnx

from flashjax.data.postcards import CATEGORIES
from flashjax.errors import UserError

__all__ = ["HEADS", "LOGITS", "Config", "Head", "Network", "abstract", "apply", "init"]

_CELLS = 16  # patches along a picture's side


class Head(NamedTuple):
    """Where the logits of one attribute stand, and what they mean."""

    category: str
    attribute: str
    values: tuple[str, ...]
    start: int


def _heads() -> tuple[Head, ...]:
    found, start = [], len(CATEGORIES)
    for category, module in CATEGORIES.items():
        for attribute, values in module.ATTRIBUTES.items():
            found.append(Head(category, attribute, values, start))
            start += len(values)
    return tuple(found)


# The first logits are those of the category.
HEADS: tuple[Head, ...] = _heads()
LOGITS = HEADS[-1].start + len(HEADS[-1].values)


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the network and of its training. ``side``: pixels of the pictures that it reads. Raises UserError for
    one that is no multiple of 16."""

    side: int = 32
    widths: tuple[int, int, int, int] = (48, 64, 96, 96)
    features: int = 128
    steps: int = 2600
    batch: int = 128
    learning_rate: float = 2e-3
    shift: int = 2
    noise: float = 0.1
    gain: float = 0.06

    def __post_init__(self):
        if self.side < _CELLS or self.side % _CELLS:
            raise UserError(f"A classifier reads pictures of 16, 32, 48, ... px a side, not of {self.side}.")


class Network(nnx.Module):
    """float32 [N, side, side, 3] in -1..1 to logits [N, all values] and features [N, config.features]."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        # As many patches whatever the side, so that a judge of larger pictures is no slower: 2 x 2 pixels of 32.
        a, b, c, d = config.widths
        self.patch = config.side // _CELLS
        self.conv1 = _conv(3 * self.patch**2, a, rngs)
        self.conv2 = _conv(a, b, rngs, 2)
        self.conv3 = _conv(b, c, rngs)
        self.conv4 = _conv(c, d, rngs, 2)
        self.dense = nnx.Linear(16 * d, config.features, rngs=rngs)
        self.heads = nnx.Linear(config.features, LOGITS, rngs=rngs)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        n, p = len(x), self.patch
        x = x.reshape(n, _CELLS, p, _CELLS, p, 3).transpose(0, 1, 3, 2, 4, 5).reshape(n, _CELLS, _CELLS, 3 * p * p)
        # Strides, not max pooling, whose gradient takes as long as the rest of the network on a CPU.
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = nnx.relu(conv(x))
        x = nnx.gelu(self.dense(x.reshape(n, -1)))
        return self.heads(x), x


def _conv(width_in: int, width_out: int, rngs: nnx.Rngs, stride: int = 1) -> nnx.Conv:
    init = nnx.initializers.he_normal()
    return nnx.Conv(width_in, width_out, (3, 3), strides=stride, kernel_init=init, rngs=rngs)


@functools.cache
def _graph(config: Config) -> nnx.GraphDef:
    return nnx.split(nnx.eval_shape(lambda: Network(config, rngs=nnx.Rngs(0))))[0]


def init(config: Config, seed: int) -> dict[str, Any]:
    """Fresh parameters, a nested dict of float32 arrays."""
    return nnx.to_pure_dict(nnx.split(Network(config, rngs=nnx.Rngs(seed)))[1])


@functools.partial(jax.jit, static_argnums=0)
def apply(config: Config, params: Mapping[str, Any], images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits float32 [N, all values] and features float32 [N, config.features] of images float32 [N, side, side, 3]
    in -1..1."""
    return nnx.merge(_graph(config), nnx.State(params))(images)


def abstract(config: Config) -> dict[str, Any]:
    """The form of the parameters (`jax.ShapeDtypeStruct`), allocating nothing."""
    return jax.eval_shape(lambda: init(config, 0))
