"""The Z-Image denoiser: image and caption as one bidirectional stream, every block modulated by t (text to image only).

Source: the released checkpoint and diffusers' ``ZImageTransformer2DModel``; tests/models compare against the latter.
Refiner blocks prepare the two sides on their own, two for the image (modulated by t), two for the caption (not), then
30 blocks run over [image | caption]. The caption's tokens are modulated by t too, so that only their refined states,
no keys and values, can be computed once: ``condition`` does, ``velocity`` is the rest.

Three habits of this network. It fills image and caption each up to a multiple of 32 tokens with a learned token that
is looked at like any other, and the image's rotary frame is the filled caption's length + 1. A bucket of captions may
be longer than that; what lies behind a caption's own multiple is masked, so that a batch of unequal captions equals
each caption alone. Its time is 1 - t and its output points from noise to image, -v; ``velocity`` undoes both.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct

from flashjax.errors import UserError, about_settings
from flashjax.models import attention, checks, layers, network, rope

PRESETS = ("z_image", "tiny")  # class methods of Config

PATCH = 2  # latents a side of a token
MULTIPLE = 32  # to which both lengths are filled up
HEAD_EPS = 1e-5  # of queries' and keys' norms, whatever Config.eps is
FINAL_EPS = 1e-6  # of the last LayerNorm, likewise


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the network. ``in_channels`` counts packed latents, 2 x 2 x the autoencoder's channels; ``axes_dims``
    (frame, height, width) are even and sum to the head width."""

    in_channels: int = 64
    context_dim: int = 2560
    width: int = 3840
    layers: int = 30
    refiner_layers: int = 2
    heads: int = 30
    axes_dims: tuple[int, int, int] = (32, 48, 48)
    theta: float = 256.0
    eps: float = 1e-5
    dtype: Any = jnp.bfloat16  # of activations and products; norms, softmax and time stay in float32
    param_dtype: Any = jnp.float32
    scan_layers: bool = True
    remat: str = "full"  # what the backward pass recomputes, see layers.REMAT
    attention: str = "auto"  # the kernel, see attention.KINDS

    def __post_init__(self):
        checks.even_axes(self.axes_dims, self.width, self.heads)
        if self.in_channels % PATCH**2:
            raise ValueError(f"in_channels is {self.in_channels}; packed latents have a multiple of {PATCH**2}.")
        layers.check_remat(self.remat)
        attention.check_kind(self.attention)

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def mlp_width(self) -> int:
        return int(self.width / 3 * 8)

    @property
    def time_width(self) -> int:
        return min(self.width, 256)

    def to_diffusers(self) -> dict:
        """The ``config.json`` of the diffusers class with these sizes."""
        return dict(
            _class_name="ZImageTransformer2DModel", all_patch_size=[PATCH], all_f_patch_size=[1],
            in_channels=self.in_channels // PATCH**2, dim=self.width, n_layers=self.layers,
            n_refiner_layers=self.refiner_layers, n_heads=self.heads, n_kv_heads=self.heads, norm_eps=self.eps,
            qk_norm=True, cap_feat_dim=self.context_dim, siglip_feat_dim=None, rope_theta=self.theta, t_scale=1000.0,
            axes_dims=list(self.axes_dims), axes_lens=[1024, 512, 512],
        )  # fmt: skip

    @classmethod
    def from_diffusers(cls, config: dict, **overrides) -> "Config":
        """Inverse of ``to_diffusers``; small models (below 100 M parameters) get the small preset's float32,
        unrolled. ``axes_lens``, the sizes of diffusers' tables, limits nothing here. Raises UserError for a
        ``config.json`` of another model."""
        _check_diffusers(config)
        names = dict(
            context_dim="cap_feat_dim", width="dim", layers="n_layers", refiner_layers="n_refiner_layers",
            heads="n_heads", theta="rope_theta", eps="norm_eps",
        )  # fmt: skip
        sizes = {field: config[name] for field, name in names.items() if name in config}
        sizes |= dict(in_channels=config["in_channels"] * PATCH**2, axes_dims=tuple(config["axes_dims"]))
        small = 12 * config["dim"] ** 2 * config["n_layers"] < 1e8
        base = cls.tiny if small else cls
        with about_settings():
            return base(**(sizes | overrides))

    @classmethod
    def z_image(cls, **overrides) -> "Config":
        """The released 6.2 B base model. Z-Image-Turbo, its few-step student, has the same tensors."""
        return cls(**overrides)

    @classmethod
    def tiny(cls, **overrides) -> "Config":
        """For tests."""
        small = dict(
            in_channels=8, context_dim=24, width=32, layers=2, refiner_layers=1, heads=2, axes_dims=(4, 6, 6),
            dtype=jnp.float32, scan_layers=False, remat="none",
        )  # fmt: skip
        return cls(**(small | overrides))


@struct.dataclass
class Condition:
    """What a batch is conditioned on.

    text: [B, L, context_dim] encoder states of the captions, right-padded to any L.
    text_length: int32 [B], how many of the L states are real. Padding changes nothing in the result.
    """

    text: jax.Array
    text_length: jax.Array


@struct.dataclass
class Context:
    """The caption as the blocks see it. ``text`` [B, L, width] are its refined states, L a multiple of 32; ``valid``
    [B, L] marks what a token may look at: the caption and its own filling; ``frame`` int32 [B] is the image's rotary
    position. The rotary positions of the caption are constants of L."""

    text: jax.Array
    valid: jax.Array
    frame: jax.Array


class TimeEmbed(nnx.Module):
    def __init__(self, config: Config, rngs: nnx.Rngs):
        self.linear_1 = _linear(config, 256, 1024, rngs)
        self.linear_2 = _linear(config, 1024, config.time_width, rngs)

    def __call__(self, t: jax.Array) -> jax.Array:
        """Embedding [B, time_width] of t [B] in our convention, float32."""
        return layers.by_output(self.linear_2, layers.silu(layers.by_output(self.linear_1, layers.sinusoid(1 - t))))


class Attention(nnx.Module):
    def __init__(self, config: Config, rngs: nnx.Rngs):
        d = config.width
        self.to_q, self.to_k, self.to_v, self.to_out = (_linear(config, d, d, rngs, bias=False) for _ in range(4))
        self.norm_q, self.norm_k = (layers.Scale(config.head_dim, 1.0, config.param_dtype) for _ in range(2))
        self.head_dim = config.head_dim

    def __call__(self, x: jax.Array, cos: jax.Array, sin: jax.Array, attend: Callable) -> jax.Array:
        """x [B, S, width] -> the same. One product for queries, keys and values."""
        q_kernel, k_kernel = (rope.split_pairs(p.kernel[...], self.head_dim) for p in (self.to_q, self.to_k))
        qkv = layers.project_together(x, [q_kernel, k_kernel, self.to_v.kernel[...]])
        q, k, v = (y.reshape(*y.shape[:-1], -1, self.head_dim) for y in qkv)
        q, k = (
            rope.rotate(layers.rms_norm(y, rope.split_pairs(norm.scale[...], self.head_dim), HEAD_EPS), cos, sin)
            for y, norm in ((q, self.norm_q), (k, self.norm_k))
        )
        return self.to_out(attend(q, k, v).reshape(x.shape))


class MLP(nnx.Module):
    def __init__(self, config: Config, rngs: nnx.Rngs):
        d, hidden = config.width, config.mlp_width
        self.w1, self.w3 = (_linear(config, d, hidden, rngs, bias=False) for _ in range(2))
        self.w2 = _linear(config, hidden, d, rngs, bias=False)

    def __call__(self, x: jax.Array) -> jax.Array:
        gate, value = layers.project_together(x, [self.w1.kernel[...], self.w3.kernel[...]])
        return self.w2(layers.silu(gate) * value)


class Block(nnx.Module):
    """Norms in front of and behind attention and MLP; ``modulated`` by t, or not (the caption's refiner)."""

    def __init__(self, config: Config, modulated: bool, rngs: nnx.Rngs):
        d = config.width
        self.attn, self.mlp, self.eps = Attention(config, rngs), MLP(config, rngs), config.eps
        self.attention_norm1, self.attention_norm2, self.ffn_norm1, self.ffn_norm2 = (
            layers.Scale(d, 1.0, config.param_dtype) for _ in range(4)
        )
        self.modulation = _linear(config, config.time_width, 4 * d, rngs) if modulated else None

    def __call__(self, h, temb, cos, sin, attend):
        """h [B, S, width] -> the same. temb [B, time_width] of a modulated block, else None."""
        scale1, gate1, scale2, gate2 = self._rows(temb, h.dtype)
        y = self.attn(self._norm(h, self.attention_norm1) * scale1, cos, sin, attend)
        h = h + gate1 * self._norm(y, self.attention_norm2)
        y = self.mlp(self._norm(h, self.ffn_norm1) * scale2)
        return h + gate2 * self._norm(y, self.ffn_norm2)

    def _rows(self, temb, dtype):
        """Scales and gates [B, 1, width] with 1 and tanh already applied."""
        if self.modulation is None:
            return 1, 1, 1, 1
        scale1, gate1, scale2, gate2 = jnp.split(layers.by_output(self.modulation, temb)[:, None], 4, axis=-1)
        return tuple(r.astype(dtype) for r in (1 + scale1, jnp.tanh(gate1), 1 + scale2, jnp.tanh(gate2)))

    def _norm(self, x, norm):
        return layers.rms_norm(x, norm.scale[...], self.eps)


class ZImage(nnx.Module):
    """The network; parameter paths mirror the checkpoint's names, blocks are stacked on a leading axis."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        d, c = config.width, config
        self.config = config
        self.time_embed = TimeEmbed(c, rngs)
        self.text_norm = layers.Scale(c.context_dim, 1.0, c.param_dtype)
        self.text_in = _linear(c, c.context_dim, d, rngs)
        self.img_in = _linear(c, c.in_channels, d, rngs)
        self.x_pad_token, self.cap_pad_token = (nnx.Param(jnp.zeros((1, d), c.param_dtype)) for _ in range(2))
        self.noise_refiner = layers.stack(lambda r: Block(c, True, r), c.refiner_layers, rngs)
        self.context_refiner = layers.stack(lambda r: Block(c, False, r), c.refiner_layers, rngs)
        self.blocks = layers.stack(lambda r: Block(c, True, r), c.layers, rngs)
        self.norm_out = _linear(c, c.time_width, d, rngs)
        self.proj_out = _linear(c, d, c.in_channels, rngs, init=nnx.initializers.zeros)

    def condition(self, cond: Condition) -> Context:
        """Refined states of the captions [B, L, context_dim]."""
        c, tokens = self.config, cond.text.shape[1] + _filling(cond.text.shape[1])
        h = self.text_in(layers.rms_norm(cond.text.astype(c.dtype), self.text_norm.scale[...], c.eps))
        h = jnp.pad(h, ((0, 0), (0, tokens - h.shape[1]), (0, 0)))
        index, length = jnp.arange(tokens), cond.text_length[:, None]
        h = jnp.where((index < length)[..., None], h, self.cap_pad_token[...].astype(c.dtype))
        filled = length + _filling(length)
        valid = index < filled
        cos, sin = self._rotation(text_positions(tokens)[None])
        h = self._run(self.context_refiner, c.refiner_layers, h, None, cos, sin, valid[:, None, None, :])
        return Context(h, valid, filled[:, 0] + 1)

    def velocity(self, context: Context, z: jax.Array, t: jax.Array) -> jax.Array:
        """Velocity, float32, like z, at t [B] in [0, 1] (fp32; 1 is noise).

        z [B, h, w, in_channels] holds latents in patches of 2 x 2, each as (row, column, channel): the order in which
        the network reads them, and ``pixels.encode`` packs. A context of batch 1 (the null condition of guidance)
        serves every sample."""
        c, (batch, height, width, _), size = self.config, z.shape, z.shape[1] * z.shape[2]
        temb = self.time_embed(t)
        h = self.img_in(z.reshape(batch, size, -1).astype(c.dtype))
        fill = jnp.broadcast_to(self.x_pad_token[...].astype(c.dtype), (batch, _filling(size), c.width))
        h = jnp.concatenate([h, fill], axis=1)
        tokens, text = h.shape[1], jnp.broadcast_to(context.text, (batch, *context.text.shape[1:]))
        cos, sin = self._rotation(joint_positions(context.frame, height, width, text.shape[1]))
        h = self._run(self.noise_refiner, c.refiner_layers, h, temb, cos[:, :tokens], sin[:, :tokens], None)
        mask = jnp.pad(context.valid, ((0, 0), (tokens, 0)), constant_values=True)[:, None, None, :]
        h = self._run(self.blocks, c.layers, jnp.concatenate([h, text], axis=1), temb, cos, sin, mask)
        scale = (1 + layers.by_output(self.norm_out, layers.silu(temb)))[:, None]
        h = layers.layer_norm(h[:, :size], FINAL_EPS) * scale.astype(c.dtype)
        return -self.proj_out(h).astype(jnp.float32).reshape(z.shape)

    def _run(self, blocks, count, h, temb, cos, sin, mask):
        c = self.config
        attend = partial(attention.attend, mask=mask, kind=c.attention)

        def body(block, h, _):
            return block(h, temb, cos, sin, attend), None

        return layers.run_stack(blocks, count, body, h, None, scan=c.scan_layers, remat=c.remat)[0]

    def _rotation(self, positions):
        """cos, sin [..., S, 1, head_dim / 2] of positions [..., S, 3]."""
        angle = rope.angles(positions, self.config.axes_dims, self.config.theta)[..., None, :]
        return jnp.cos(angle), jnp.sin(angle)


def text_positions(tokens: int) -> np.ndarray:
    """Positions [tokens, 3] of a caption: the frame axis counts from 1, the filling's tokens included."""
    return np.stack([1 + np.arange(tokens), np.zeros(tokens, int), np.zeros(tokens, int)], axis=-1)


def joint_positions(frame: jax.Array, height: int, width: int, text_tokens: int) -> jax.Array:
    """Positions [B, S, 3] of [image in raster order | its filling, all at the origin | caption], of images at the
    frames [B]."""
    grid = np.stack(np.meshgrid(0, np.arange(height), np.arange(width), indexing="ij"), axis=-1).reshape(-1, 3)
    fill = np.zeros((_filling(len(grid)), 3), int)
    fixed = np.concatenate([grid, fill, text_positions(text_tokens)])
    in_image = np.zeros_like(fixed)
    in_image[: len(grid), 0] = 1
    return jnp.asarray(fixed) + jnp.asarray(in_image) * frame[:, None, None]


init = partial(network.init, ZImage)
abstract = partial(network.abstract, ZImage)
denoiser = partial(network.denoiser, ZImage)


def _check_diffusers(config: dict) -> None:
    sizes = ("in_channels", "cap_feat_dim", "dim", "n_layers", "n_refiner_layers", "n_heads", "axes_dims")
    checks.needed(config, sizes, "ZImageTransformer2DModel")
    if config.get("siglip_feat_dim") is not None:
        raise UserError(
            f"config.json has siglip_feat_dim = {config['siglip_feat_dim']!r}: this is the omni variant, which takes "
            "reference images; only text to image is built here, so use the weights of Z-Image or Z-Image-Turbo."
        )
    fixed = dict(all_patch_size=[PATCH], all_f_patch_size=[1], n_kv_heads=config["n_heads"], qk_norm=True, t_scale=1e3)
    checks.fixed(config, fixed | dict(_class_name="ZImageTransformer2DModel"))


def _linear(config: Config, n_in: int, n_out: int, rngs: nnx.Rngs, bias: bool = True, **kwargs) -> layers.Linear:
    return layers.Linear(n_in, n_out, rngs, config.param_dtype, bias=bias, **kwargs)


def _filling(length):
    """How many tokens are missing to the next multiple (of an int, or of an array of lengths)."""
    return -length % MULTIPLE
