"""The Qwen-Image-2.1 denoiser: one stream, block-causal, with scale-only modulation shared by all blocks.

Source: the released checkpoint and diffusers' ``QwenImage21Transformer2DModel``; tests/models compare against the
latter. The sequence is [text and reference images | target]. Text is causal, every image is bidirectional within
itself, and the prefix never sees the target and is modulated as if t = 0. Its keys and values therefore depend
neither on t nor on the noisy image: ``condition`` computes them once, ``velocity`` attends from the target to
[prefix, target] without a causal mask. There is no bias anywhere in this network.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct

from flashjax import axes
from flashjax.errors import about_settings
from flashjax.models import attention, checks, layers, network, rope

PRESETS = ("qwen_image_21", "postcards", "tiny")  # class methods of Config


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the network. ``axes_dims`` (frame, height, width) sum to the head width."""

    in_channels: int = 64
    context_dim: int = 4096
    width: int = 4096
    layers: int = 32
    heads: int = 32
    mlp_ratio: int = 3
    axes_dims: tuple[int, int, int] = (16, 56, 56)
    theta: float = 10_000.0
    eps: float = 1e-6
    dtype: Any = jnp.bfloat16  # of activations and products; norms, softmax and time stay in float32
    param_dtype: Any = jnp.float32
    products: Any = None  # rounds the factors of the tokens' matrix products, see layers.project; None: not
    scan_layers: bool = True
    remat: str = "full"  # what the backward pass recomputes, see layers.REMAT
    attention: str = "auto"  # the kernel, see attention.KINDS
    padded_positions: bool = False  # count padding into the target's rotary position, as diffusers does in a batch

    def __post_init__(self):
        checks.even_axes(self.axes_dims, self.width, self.heads)
        if self.mlp_ratio != int(self.mlp_ratio) or self.mlp_ratio < 1:
            raise ValueError(f"mlp_ratio is {self.mlp_ratio}; it has to be a whole number of 1 or more.")
        checks.products(self.products)
        layers.check_remat(self.remat)
        attention.check_kind(self.attention)

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    def to_diffusers(self) -> dict:
        """The ``config.json`` of the diffusers class with these sizes."""
        return dict(
            _class_name="QwenImage21Transformer2DModel", patch_size=1, in_channels=self.in_channels,
            out_channels=self.in_channels, num_layers=self.layers, attention_head_dim=self.head_dim,
            num_attention_heads=self.heads, context_in_dim=self.context_dim, mlp_ratio=self.mlp_ratio,
            axes_dims_rope=list(self.axes_dims), eps=self.eps, causal_condition=True,
        )  # fmt: skip

    @classmethod
    def from_diffusers(cls, config: dict, **overrides) -> "Config":
        """Inverse of ``to_diffusers``; small models (below 100 M parameters) get the small presets' float32,
        unrolled. Raises UserError for a ``config.json`` of another model."""
        _check_diffusers(config)
        heads, layers_ = config["num_attention_heads"], config["num_layers"]
        width = heads * config["attention_head_dim"]
        sizes = dict(
            in_channels=config["in_channels"], context_dim=config["context_in_dim"], width=width, layers=layers_,
            heads=heads, axes_dims=tuple(config["axes_dims_rope"]),
            **{name: config[name] for name in ("mlp_ratio", "eps") if config.get(name) is not None},
        )  # fmt: skip
        small = 13 * width**2 * layers_ < 1e8
        base = cls.postcards if small else cls
        with about_settings():
            return base(**(sizes | overrides))

    @classmethod
    def qwen_image_21(cls, **overrides) -> "Config":
        """The released 7.1 B model (and its Turbo student: same tensors)."""
        return cls(**overrides)

    @classmethod
    def postcards(cls, **overrides) -> "Config":
        """A small model for 32 px pictures in patches of 4, text states of width 384; made for two CPU cores."""
        small = dict(
            in_channels=48, context_dim=384, width=160, layers=7, heads=5, axes_dims=(8, 12, 12),
            dtype=jnp.float32, scan_layers=False, remat="none",
        )  # fmt: skip
        return cls(**(small | overrides))

    @classmethod
    def tiny(cls, **overrides) -> "Config":
        """For tests."""
        small = dict(
            in_channels=8, context_dim=24, width=32, layers=2, heads=2, axes_dims=(4, 6, 6),
            dtype=jnp.float32, scan_layers=False, remat="none",
        )  # fmt: skip
        return cls(**(small | overrides))


@struct.dataclass
class Condition:
    """What a batch is conditioned on.

    text: [B, L, context_dim] encoder states, right-padded, without the encoder's image slots.
    text_length: int32 [B], how many of the L states are real. Padding changes nothing in the result, unless
      ``Config.padded_positions`` asks for diffusers' habit.
    references: images [B, h, w, in_channels] as packed latents, in the order in which the text mentions them.
    reference_at: how many text tokens stand before each reference; nondecreasing; padding only after the last one.
    """

    text: jax.Array
    text_length: jax.Array
    references: tuple[jax.Array, ...] = ()
    reference_at: tuple[int, ...] = struct.field(pytree_node=False, default=())


@struct.dataclass
class Context:
    """The prefix as the target sees it: ``layers`` holds keys and values [B, P, H, D] of every block (a tuple of
    pairs, or one pair stacked over blocks), ``valid`` [B, P] marks real tokens, ``frame`` [B] is the target's
    position."""

    layers: Any
    valid: jax.Array
    frame: jax.Array


class TextIn(nnx.Module):
    def __init__(self, config: Config, rngs: nnx.Rngs):
        self.in_layer = _linear(config, config.context_dim, config.width, rngs)
        self.out_layer = _linear(config, config.width, config.width, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out_layer(jax.nn.gelu(self.in_layer(x), approximate=True))


class Attention(nnx.Module):
    def __init__(self, config: Config, rngs: nnx.Rngs):
        d = config.width
        self.to_q, self.to_k, self.to_v, self.to_out = (_linear(config, d, d, rngs) for _ in range(4))
        self.norm_q, self.norm_k = (layers.Scale(config.head_dim, 1.0, config.param_dtype) for _ in range(2))
        self.head_dim, self.eps, self.products = config.head_dim, config.eps, config.products

    def qkv(self, x: jax.Array, cos: jax.Array, sin: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Normalised and rotated queries and keys, and values: [B, S, H, D] each. One product for all three."""
        q_kernel, k_kernel = (rope.split_pairs(p.kernel[...], self.head_dim) for p in (self.to_q, self.to_k))
        qkv = layers.project_together(x, [q_kernel, k_kernel, self.to_v.kernel[...]], self.products)
        q, k, v = (y.reshape(*y.shape[:-1], -1, self.head_dim) for y in qkv)
        q, k = (
            rope.rotate(layers.rms_norm(y, rope.split_pairs(norm.scale[...], self.head_dim), self.eps), cos, sin)
            for y, norm in ((q, self.norm_q), (k, self.norm_k))
        )
        return q, k, v

    def out(self, o: jax.Array) -> jax.Array:
        return self.to_out(o.reshape(*o.shape[:-2], -1))


class MLP(nnx.Module):
    def __init__(self, config: Config, rngs: nnx.Rngs):
        d, hidden = config.width, config.width * int(config.mlp_ratio)
        self.proj, self.gate = (_linear(config, d, hidden, rngs) for _ in range(2))
        self.out = _linear(config, hidden, d, rngs)
        self.products = config.products

    def __call__(self, x: jax.Array) -> jax.Array:
        gate, value = layers.project_together(x, [self.gate.kernel[...], self.proj.kernel[...]], self.products)
        return self.out(layers.silu(gate) * value)


class Block(nnx.Module):
    def __init__(self, config: Config, rngs: nnx.Rngs):
        self.attn, self.mlp, self.eps = Attention(config, rngs), MLP(config, rngs), config.eps

    def __call__(self, h, modulation, cos, sin, prefix, attend):
        """h [B, S, width] -> the same, and its keys and values. ``prefix``: keys and values in front of h's own, or
        None. ``attend``: attention with its masks."""
        scale1, gate1, scale2, gate2 = modulation
        q, own_k, own_v = self.attn.qkv(_scaled(h, scale1, self.eps), cos, sin)
        k, v = own_k, own_v
        if prefix is not None:
            front = (jnp.broadcast_to(p, (len(h), *p.shape[1:])) for p in prefix)
            k, v = (jnp.concatenate(pair, axis=1) for pair in zip(front, (k, v), strict=True))
        h = h + gate1 * self.attn.out(attend(q, k, v))
        h = h + gate2 * self.mlp(_scaled(h, scale2, self.eps))
        return h, (axes.keys(own_k), axes.keys(own_v))


class QwenImage21(nnx.Module):
    """The network; parameter paths mirror the checkpoint's names, blocks are stacked on a leading axis."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        d, c = config.width, config
        self.config = config
        self.time_embed = layers.TimeEmbed(d, rngs, c.param_dtype)
        self.text_norm = layers.Scale(c.context_dim, 0.0, c.param_dtype)  # zero-centred, unlike every other norm
        self.text_in = TextIn(c, rngs)
        self.img_in = _linear(c, c.in_channels, d, rngs)
        self.modulation = _exact_linear(c, d, 4 * d, rngs)
        self.blocks = layers.stack(lambda r: Block(c, r), c.layers, rngs)
        self.norm_out = _exact_linear(c, d, d, rngs)
        self.proj_out = _linear(c, d, c.in_channels, rngs, init=nnx.initializers.zeros)

    def condition(self, cond: Condition) -> Context:
        """Keys and values of the prefix: text [B, L] and references, P tokens in all."""
        c = self.config
        text = layers.rms_norm(cond.text.astype(c.dtype), 1 + self.text_norm.scale[...].astype(jnp.float32), c.eps)
        plan = prefix_plan(text.shape[1], tuple(r.shape[1:3] for r in cond.references), cond.reference_at)
        images = [self.img_in(r.reshape(r.shape[0], -1, r.shape[-1]).astype(c.dtype)) for r in cond.references]
        h = jnp.concatenate([self.text_in(text), *images], axis=1)[:, plan.order]
        padding = text.shape[1] - cond.text_length
        valid = jnp.arange(h.shape[1]) < (h.shape[1] - padding)[:, None]
        attend = self._attend(valid, allowed=plan.allowed)
        cos, sin = self._rotation(plan.positions)
        modulation = self._modulation(jnp.zeros((1,)))[0]

        def body(block, h, _):
            return block(h, modulation, cos, sin, None, attend)

        _, kv = layers.run_stack(self.blocks, c.layers, body, h, None, scan=c.scan_layers, remat=c.remat)
        return Context(kv, valid, plan.end - padding * (not c.padded_positions))

    def velocity(self, context: Context, z: jax.Array, t: jax.Array) -> jax.Array:
        """Velocity, float32, like z [B, h, w, in_channels], at t [B] in [0, 1] (fp32; 1 is noise).

        A context of batch 1 (the null condition of guidance) serves every sample."""
        c, (batch, height, width, _) = self.config, z.shape
        h = self.img_in(z.reshape(batch, height * width, -1).astype(c.dtype))
        cos, sin = self._target_rotation(context.frame, height, width)
        own = jnp.ones((len(context.valid), height * width), bool)
        attend = self._attend(jnp.concatenate([context.valid, own], axis=1))
        modulation, silu_temb = self._modulation(t)

        def body(block, h, prefix):
            return block(h, modulation, cos, sin, prefix, attend)[0], None

        h, _ = layers.run_stack(self.blocks, c.layers, body, h, context.layers, scan=c.scan_layers, remat=c.remat)
        scale = (1 + layers.by_output(self.norm_out, silu_temb))[:, None]
        h = _scaled(h, scale.astype(c.dtype), c.eps)
        return self.proj_out(h).astype(jnp.float32).reshape(z.shape)

    def _attend(self, valid, allowed=None):
        return partial(attention.attend, mask=valid[:, None, None, :], allowed=allowed, kind=self.config.attention)

    def _modulation(self, t):
        """((scale1, gate1, scale2, gate2) [B, 1, width] with 1 and tanh already applied, SiLU(temb)) of t [B]."""
        silu_temb = self.time_embed(t)
        scale1, gate1, scale2, gate2 = jnp.split(layers.by_output(self.modulation, silu_temb)[:, None], 4, axis=-1)
        rows = (1 + scale1, jnp.tanh(gate1), 1 + scale2, jnp.tanh(gate2))
        return tuple(r.astype(self.config.dtype) for r in rows), silu_temb

    def _target_rotation(self, frame, height, width):
        """cos, sin [B, S, 1, head_dim / 2] of an image's tokens at the frame positions [B]. Only the frame's angles
        differ from sample to sample: those of height and width are constants of the program."""
        c, grid = self.config, rope.image_positions(height, width)
        angles = (
            rope.angles(frame[:, None, None], c.axes_dims[:1], c.theta),
            rope.angles(grid[None], c.axes_dims[1:], c.theta),
        )
        size = (len(frame), len(grid))

        def joined(f):
            return jnp.concatenate([jnp.broadcast_to(f(a), (*size, a.shape[-1])) for a in angles], -1)[..., None, :]

        return joined(jnp.cos), joined(jnp.sin)

    def _rotation(self, positions):
        """cos, sin [..., S, 1, head_dim / 2] of positions [..., S, 3]."""
        angle = rope.angles(positions, self.config.axes_dims, self.config.theta)[..., None, :]
        return jnp.cos(angle), jnp.sin(angle)


@dataclasses.dataclass(frozen=True)
class PrefixPlan:
    """Static layout of a prefix of P tokens: ``order`` takes [text, images] to sequence order, ``positions`` [P, 3],
    ``allowed`` [P, P] who may look at whom, ``end`` the rotary position after an unpadded prefix."""

    order: np.ndarray
    positions: np.ndarray
    allowed: np.ndarray
    end: int


def prefix_plan(text_tokens: int, images: tuple[tuple[int, int], ...], image_at: tuple[int, ...]) -> PrefixPlan:
    """Positions run on by one a text token; an image of (h, w) tokens holds one frame position, is centred in
    height and width, and moves the text after it on by max(h, w)."""
    if len(image_at) != len(images) or list(image_at) != sorted(image_at) or any(a > text_tokens for a in image_at):
        raise ValueError(
            f"reference_at {image_at} must give, in order, a place within the {text_tokens} text tokens "
            f"for each of the {len(images)} references."
        )
    order, positions, block, pos, text = [], [], [], 0, 0
    offset = text_tokens
    for i, at in enumerate((*image_at, text_tokens)):
        for j in range(text, at):
            order.append([j])
            positions.append(np.full((1, 3), pos + j - text))
            block.append([-1])
        pos, text = pos + at - text, at
        if i < len(images):
            h, w = images[i]
            order.append(np.arange(offset, offset + h * w))
            positions.append(np.concatenate([np.full((h * w, 1), pos), rope.image_positions(h, w)], axis=-1))
            block.append([i] * (h * w))
            offset, pos = offset + h * w, pos + max(h, w)
    ids, index = np.concatenate(block), np.arange(offset)
    same_image = (ids[:, None] == ids[None, :]) & (ids[:, None] >= 0)
    allowed = (index[:, None] >= index[None, :]) | same_image
    return PrefixPlan(np.concatenate(order), np.concatenate(positions), allowed, pos)


init = partial(network.init, QwenImage21)
abstract = partial(network.abstract, QwenImage21)
denoiser = partial(network.denoiser, QwenImage21)


def _check_diffusers(config: dict) -> None:
    sizes = (
        "in_channels", "context_in_dim", "num_layers", "num_attention_heads", "attention_head_dim", "axes_dims_rope",
    )  # fmt: skip
    checks.needed(config, sizes, "QwenImage21Transformer2DModel")
    fixed = dict(patch_size=1, causal_condition=True, out_channels=config["in_channels"])
    fixed["_class_name"] = "QwenImage21Transformer2DModel"
    checks.fixed(checks.without_nulls(config), fixed)


def _linear(config: Config, n_in: int, n_out: int, rngs: nnx.Rngs, **kwargs) -> layers.Linear:
    return layers.Linear(n_in, n_out, rngs, config.param_dtype, products=config.products, **kwargs)


def _exact_linear(config: Config, n_in: int, n_out: int, rngs: nnx.Rngs) -> layers.Linear:
    """For what follows from t alone: it runs once a sample, so that rounding its factors would gain no time."""
    return layers.Linear(n_in, n_out, rngs, config.param_dtype)


def _scaled(h: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """LN(h) times a modulation row [B, 1, width] that already includes the 1."""
    return layers.layer_norm(h, eps) * scale
