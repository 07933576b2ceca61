"""Low-rank adapters (LoRA, arXiv 2106.09685): small trained factors beside the kernels of a base that stays as it is.

    blocks/attn/to_q/kernel/a    [..., in, rank]
    blocks/attn/to_q/kernel/b    [..., rank, out]

A kernel W becomes W + (alpha / rank) a b; the axis of stacked layers stays in front. ``convert.adapters`` writes and
reads the same tree. In a LoRA run student, critic and EMA are such trees over one base, so that gradients, optimizer
states and checkpoints are of the factors alone.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from flashjax import flow, paths
from flashjax.errors import UserError

SIDES = ("a", "b")


@dataclasses.dataclass(frozen=True)
class Lora:
    """``rules``: (regex over paths, whether the leaf has an adapter); first match wins. Raises ValueError for a rank
    below 1 and an alpha that is not positive."""

    rank: int
    alpha: float
    rules: paths.Rules

    def __post_init__(self):
        if self.rank < 1:
            raise ValueError(f"config.lora.rank is {self.rank}; it has to be 1 or more, or 0 to train everything.")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ValueError(f"config.lora.alpha is {self.alpha}; it has to be positive.")

    @property
    def scale(self) -> float:
        """What the product of the factors is multiplied by."""
        return self.alpha / self.rank


def of(config: Mapping[str, Any]) -> Lora | None:
    """The adapters of a run's configuration; None where all parameters are trained."""
    settings = config.get("lora")
    if not settings or not settings["rank"]:
        return None
    rules, several = settings["rules"], list | tuple
    if not isinstance(rules, several) or not all(isinstance(rule, several) and len(rule) == 2 for rule in rules):
        raise ValueError(f"config.lora.rules is {rules!r}; it has to be pairs, as in (('blocks/.*/kernel', True),).")
    return Lora(settings["rank"], settings["alpha"], tuple(map(tuple, rules)))


def form(lora: Lora, base: flow.Params) -> flow.Params:
    """Shapes (float32) of an adapter of ``base``, arrays or their shapes. Raises UserError for rules that choose
    nothing, or what is no kernel [..., in, out]."""
    chosen = paths.flatten(paths.map_paths(lora.rules, base))
    factors = {}
    for path, leaf in paths.flatten(base).items():
        if not chosen[path]:
            continue
        if not path.endswith("/kernel"):
            raise UserError(f"config.lora.rules choose {path}, which is no kernel; adapters are for kernels only.")
        *layers, width, out = leaf.shape
        factors[f"{path}/a"] = jax.ShapeDtypeStruct((*layers, width, lora.rank), jnp.float32)
        factors[f"{path}/b"] = jax.ShapeDtypeStruct((*layers, lora.rank, out), jnp.float32)
    if not factors:
        raise UserError("config.lora.rules choose no kernel; name some, for instance ('blocks/.*/kernel', True).")
    return paths.unflatten(factors)


def init(lora: Lora, base: flow.Params, key: jax.Array) -> flow.Params:
    """A first adapter of ``base``: a is normal with variance 1 / in, so that x a is of the size of x, and b is 0, so
    that nothing is changed yet."""
    leaves = paths.flatten(form(lora, base))
    keys = dict(zip(leaves, jax.random.split(key, len(leaves)), strict=True))

    def draw(path, leaf):
        if path.endswith("/b"):
            return jnp.zeros(leaf.shape, leaf.dtype)
        return jax.random.normal(keys[path], leaf.shape, leaf.dtype) * leaf.shape[-2] ** -0.5

    return paths.unflatten({path: draw(path, leaf) for path, leaf in leaves.items()})


def is_adapter(tree: flow.Params) -> bool:
    """Whether a tree (of arrays or shapes) is an adapter and not a whole network's parameters."""
    return all(path.endswith(tuple(f"/kernel/{side}" for side in SIDES)) for path in paths.flatten(tree))


@partial(jax.tree_util.register_dataclass, data_fields=["base", *SIDES], meta_fields=["scale"])
@dataclasses.dataclass(frozen=True)
class Adapted:
    """A kernel with its factors beside it, in the kernel's place in a tree. A network reads its parameters as
    ``kernel[...]``, which merges here: where it is used, a layer of a stack at a time.

    The sum is rounded to the base's dtype, as that of a merged export is. Of a bfloat16 base changes of less than half
    a step of a weight (a 256th to a 512th of it) are so lost, where tools that apply the factors to activations, as
    diffusers does with an exported LoRA, keep them.
    """

    base: Any
    a: jax.Array
    b: jax.Array
    scale: float

    def __getitem__(self, index: Any) -> jax.Array:
        base = self.base[...]  # it may be held.Quantized, or the host's
        with jax.default_matmul_precision("highest"):  # a TPU would round float32 factors to bfloat16
            return (base.astype(jnp.float32) + self.a @ self.b * self.scale).astype(base.dtype)[index]


def beside(base: flow.Params, adapter: flow.Params, scale: float) -> flow.Params:
    """The network's tree with `Adapted` kernels where there are factors: nothing is computed yet."""
    leaves, factors = paths.flatten(base), paths.flatten(adapter)
    for path in {path.rpartition("/")[0] for path in factors}:
        leaves[path] = Adapted(leaves[path], *(factors[f"{path}/{side}"] for side in SIDES), scale)
    return paths.unflatten(leaves)


def merge(base: flow.Params, adapter: flow.Params, scale: float) -> flow.Params:
    """The whole network: ``W + scale a b`` where there are factors, summed in float32, in the base's dtype. Of numpy
    arrays it is computed by numpy, on the host."""

    def adapted(leaf):
        return isinstance(leaf, Adapted)

    tree = beside(base, adapter, scale)
    return jax.tree.map(lambda leaf: leaf[...] if adapted(leaf) else leaf, tree, is_leaf=adapted)


def denoiser(inner: flow.Denoiser, base: flow.Params, scale: float) -> flow.Denoiser:
    """A denoiser whose parameters are an adapter of ``base``, or a whole tree, which is taken as it is (a teacher's).

    It merges at every call, in the program that calls, and in a scanned stack one layer at a time, forwards and, where
    the layer is rematerialised, backwards: the device holds the base, the factors and one merged layer with its
    gradient. (Merged as a whole, a copy of all adapted kernels and their gradient were most of what a run needed.)
    ``base`` has to be an argument of the program: a constant would be compiled into it.
    """

    def whole(params):
        return beside(base, params, scale) if is_adapter(params) else params

    def condition(params, cond):
        return inner.condition(whole(params), cond)

    def velocity(params, context, z, t):
        return inner.velocity(whole(params), context, z, t)

    return flow.Denoiser(condition, velocity)


def paired(inner: flow.Denoiser, scale: float, read: Callable[[flow.Params], flow.Params]) -> flow.Denoiser:
    """`denoiser` with its base among the parameters, which are the pair (base, adapter of it): for a sampler, whose
    programs know nothing else. ``read``: of the base, how it is kept (held.readable). Nothing is merged as a whole."""

    def condition(params, cond):
        base, adapter = params
        return denoiser(inner, read(base), scale).condition(adapter, cond)

    def velocity(params, context, z, t):
        base, adapter = params
        return denoiser(inner, read(base), scale).velocity(adapter, context, z, t)

    return flow.Denoiser(condition, velocity)
