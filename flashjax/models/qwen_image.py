"""The denoiser of the first Qwen-Image generation: two streams, text and image, that meet in every block's attention.

Source: the released checkpoints and diffusers' ``QwenImageTransformer2DModel``; tests/models compare against the
latter. The image stream is [target | references]; attention runs over [text | image stream] without a mask between
them. Every block modulates both streams by t, so that references and text have to be computed anew at every t:
``condition`` holds no more than their embeddings, unlike Qwen-Image-2.1's keys and values.

One token of z is 2 x 2 latents of 16 channels, in the order of diffusers' pipelines: channel ``4 c + 2 y + x`` of a
token is channel c of its latent in row y and column x.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct

from flashjax.errors import UserError, about_settings
from flashjax.models import attention, checks, layers, network, rope

PRESETS = ("qwen_image", "qwen_image_edit_2511", "tiny")  # class methods of Config

EPS = 1e-6  # of every norm
MLP_RATIO = 4
PATCH = 2  # latents on a token's side
THETA = 10_000.0  # of the rotary positions


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the network. ``axes_dims`` (frame, height, width) sum to the head width. ``zero_cond_t`` modulates the
    references' tokens as if t = 0: they are clean images at any t."""

    in_channels: int = 64
    context_dim: int = 3584
    width: int = 3072
    layers: int = 60
    heads: int = 24
    axes_dims: tuple[int, int, int] = (16, 56, 56)
    zero_cond_t: bool = False
    dtype: Any = jnp.bfloat16  # of activations and products; norms, softmax and time stay in float32
    param_dtype: Any = jnp.float32
    products: Any = None  # rounds the factors of the tokens' matrix products, see layers.project; None: not
    scan_layers: bool = True
    remat: str = "full"  # what the backward pass recomputes, see layers.REMAT
    attention: str = "auto"  # the kernel, see attention.KINDS

    def __post_init__(self):
        checks.even_axes(self.axes_dims, self.width, self.heads)
        if self.in_channels % PATCH**2:
            raise ValueError(f"in_channels is {self.in_channels}; a token is {PATCH} x {PATCH} latents of equal size.")
        checks.products(self.products)
        layers.check_remat(self.remat)
        attention.check_kind(self.attention)

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    def to_diffusers(self) -> dict:
        """The ``config.json`` of the diffusers class with these sizes."""
        return dict(
            _class_name="QwenImageTransformer2DModel", patch_size=PATCH, in_channels=self.in_channels,
            out_channels=self.in_channels // PATCH**2, num_layers=self.layers, attention_head_dim=self.head_dim,
            num_attention_heads=self.heads, joint_attention_dim=self.context_dim, guidance_embeds=False,
            axes_dims_rope=list(self.axes_dims), zero_cond_t=self.zero_cond_t, use_additional_t_cond=False,
            use_layer3d_rope=False,
        )  # fmt: skip

    @classmethod
    def from_diffusers(cls, config: dict, **overrides) -> "Config":
        """Inverse of ``to_diffusers``; small models (below 100 M parameters) get the small preset's float32, unrolled.
        Raises UserError for a ``config.json`` of another model, and for Qwen-Image-Layered's."""
        _check_diffusers(config)
        heads, layers_ = config["num_attention_heads"], config["num_layers"]
        width = heads * config["attention_head_dim"]
        sizes = dict(
            in_channels=config["in_channels"], context_dim=config["joint_attention_dim"], width=width, layers=layers_,
            heads=heads, axes_dims=tuple(config["axes_dims_rope"]), zero_cond_t=config.get("zero_cond_t", False),
        )  # fmt: skip
        small = 36 * width**2 * layers_ < 1e8
        base = cls.tiny if small else cls
        with about_settings():
            return base(**(sizes | overrides))

    @classmethod
    def qwen_image(cls, **overrides) -> "Config":
        """The released 20.4 B model: Qwen-Image, Qwen-Image-2512, Qwen-Image-Edit and Edit-2509 have these tensors and
        settings; they differ in their weights."""
        return cls(**overrides)

    @classmethod
    def qwen_image_edit_2511(cls, **overrides) -> "Config":
        """Qwen-Image-Edit-2511: the same tensors, references modulated as if t = 0."""
        return cls(**(dict(zero_cond_t=True) | overrides))

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

    text: [B, L, context_dim] encoder states, right-padded.
    text_length: int32 [B], how many of the L states are real. Padding changes nothing in the result.
    references: images [B, h, w, in_channels] as packed latents, in the order in which the text counts them.
    """

    text: jax.Array
    text_length: jax.Array
    references: tuple[jax.Array, ...] = ()


@struct.dataclass
class Context:
    """The condition as the blocks take it: embedded ``text`` [B, L, width], of which ``valid`` [B, L] is real, and
    embedded ``references`` [B, h, w, width]."""

    text: jax.Array
    valid: jax.Array
    references: tuple[jax.Array, ...]


class Attention(nnx.Module):
    """One stream's part of the joint attention."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        d = config.width
        self.to_q, self.to_k, self.to_v, self.to_out = (_linear(config, d, d, rngs) for _ in range(4))
        self.norm_q, self.norm_k = (layers.Scale(config.head_dim, 1.0, config.param_dtype) for _ in range(2))
        self.head_dim, self.products = config.head_dim, config.products

    def qkv(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Normalised queries and keys, in split pairs, and values: [B, S, H, D] each. One product for all three."""
        qkv = layers.project_together(x, self._three("kernel"), self.products)
        qkv = [y + bias.astype(y.dtype) for y, bias in zip(qkv, self._three("bias"), strict=True)]
        q, k, v = (y.reshape(*y.shape[:-1], -1, self.head_dim) for y in qkv)
        q, k = (
            layers.rms_norm(y, rope.split_pairs(norm.scale[...], self.head_dim), EPS)
            for y, norm in ((q, self.norm_q), (k, self.norm_k))
        )
        return q, k, v

    def out(self, o: jax.Array) -> jax.Array:
        return self.to_out(o.reshape(*o.shape[:-2], -1))

    def _three(self, name: str) -> list[jax.Array]:
        """The kernels or the biases of queries, keys and values."""
        q, k, v = (getattr(linear, name)[...] for linear in (self.to_q, self.to_k, self.to_v))
        return [*(rope.split_pairs(w, self.head_dim) for w in (q, k)), v]


class MLP(nnx.Module):
    def __init__(self, config: Config, rngs: nnx.Rngs):
        d, hidden = config.width, config.width * MLP_RATIO
        self.hidden, self.out = _linear(config, d, hidden, rngs), _linear(config, hidden, d, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(jax.nn.gelu(self.hidden(x), approximate=True))


class Stream(nnx.Module):
    """What a block holds for the text, and once more for the images. ``rows`` are six of [B, 1 or S, width]: shift,
    scale and gate around attention, then around the MLP."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        self.mod = _exact_linear(config, config.width, 6 * config.width, rngs)
        self.attn, self.mlp = Attention(config, rngs), MLP(config, rngs)

    def rows(self, silu_temb: jax.Array, dtype: Any) -> list[jax.Array]:
        return [row.astype(dtype) for row in jnp.split(layers.by_output(self.mod, silu_temb)[:, None], 6, axis=-1)]

    def qkv(self, h: jax.Array, rows: list[jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        return self.attn.qkv(layers.modulated(h, rows[0], rows[1], EPS))

    def update(self, h: jax.Array, o: jax.Array, rows: list[jax.Array]) -> jax.Array:
        """The stream h [B, S, width] after attention gave o [B, S, H, D]."""
        _, _, gate1, shift2, scale2, gate2 = rows
        h = h + gate1 * self.attn.out(o)
        return h + gate2 * self.mlp(layers.modulated(h, shift2, scale2, EPS))


class Block(nnx.Module):
    def __init__(self, config: Config, rngs: nnx.Rngs):
        self.txt, self.img = Stream(config, rngs), Stream(config, rngs)

    def __call__(self, txt, img, silu_temb, clean, cos, sin, attend):
        """txt [B, L, width], img [B, N, width] -> the same. ``clean``: None, or [N, 1], True at the tokens of img that
        are modulated by the last row of ``silu_temb`` [B + 1, width], of t = 0, which has no sample of its own."""
        rows_txt = self.txt.rows(silu_temb[: len(txt)], txt.dtype)
        rows_img = self.img.rows(silu_temb, img.dtype)
        if clean is not None:
            rows_img = [jnp.where(clean, row[-1:], row[:-1]) for row in rows_img]
        both = zip(self.txt.qkv(txt, rows_txt), self.img.qkv(img, rows_img), strict=True)
        q, k, v = (jnp.concatenate(pair, axis=1) for pair in both)
        o = attend(rope.rotate(q, cos, sin), rope.rotate(k, cos, sin), v)
        o_txt, o_img = jnp.split(o, [txt.shape[1]], axis=1)
        return self.txt.update(txt, o_txt, rows_txt), self.img.update(img, o_img, rows_img)


class QwenImage(nnx.Module):
    """The network; blocks are stacked on a leading axis."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        d, c = config.width, config
        self.config = config
        self.time_embed = layers.TimeEmbed(d, rngs, c.param_dtype, bias=True)
        self.txt_norm = layers.Scale(c.context_dim, 1.0, c.param_dtype)
        self.txt_in = _linear(c, c.context_dim, d, rngs)
        self.img_in = _linear(c, c.in_channels, d, rngs)
        self.blocks = layers.stack(lambda r: Block(c, r), c.layers, rngs)
        self.norm_out = _exact_linear(c, d, 2 * d, rngs)
        self.proj_out = _linear(c, d, c.in_channels, rngs, init=nnx.initializers.zeros)

    def condition(self, cond: Condition) -> Context:
        """The embeddings of text and references. No rotary table is among them: the text's positions begin where the
        largest image ends, the target included, so that all tables are constants of ``velocity``'s program."""
        dtype = self.config.dtype
        text = layers.rms_norm(cond.text.astype(dtype), self.txt_norm.scale[...], EPS)
        valid = jnp.arange(text.shape[1]) < cond.text_length[:, None]
        return Context(self.txt_in(text), valid, tuple(self.img_in(r.astype(dtype)) for r in cond.references))

    def velocity(self, context: Context, z: jax.Array, t: jax.Array) -> jax.Array:
        """Velocity, float32, like z [B, h, w, in_channels], at t [B] in [0, 1] (fp32; 1 is noise).

        A context of batch 1 (the null condition of guidance) serves every sample."""
        c, batch = self.config, len(z)
        images = (self.img_in(z.astype(c.dtype)), *context.references)
        img = jnp.concatenate([layers.repeat(x.reshape(len(x), -1, c.width), batch) for x in images], axis=1)
        txt, tokens = layers.repeat(context.text, batch), z.shape[1] * z.shape[2]
        mask = jnp.pad(context.valid, ((0, 0), (0, img.shape[1])), constant_values=True)[:, None, None, :]
        attend = partial(attention.attend, mask=mask, kind=c.attention)
        angle = rope.angles(positions(txt.shape[1], tuple(x.shape[1:3] for x in images)), c.axes_dims, THETA)
        cos, sin = jnp.cos(angle)[:, None], jnp.sin(angle)[:, None]
        clean = np.arange(img.shape[1])[:, None] >= tokens if c.zero_cond_t and context.references else None
        silu_temb = self.time_embed(t if clean is None else jnp.append(t, 0.0))

        def body(block, streams, _):
            return block(*streams, silu_temb, clean, cos, sin, attend), None

        streams = txt, img
        (_, img), _ = layers.run_stack(self.blocks, c.layers, body, streams, None, scan=c.scan_layers, remat=c.remat)
        rows = layers.by_output(self.norm_out, silu_temb[:batch])[:, None].astype(c.dtype)
        scale, shift = jnp.split(rows, 2, axis=-1)
        return self.proj_out(layers.modulated(img[:, :tokens], shift, scale, EPS)).astype(jnp.float32).reshape(z.shape)


def positions(text_tokens: int, images: tuple[tuple[int, int], ...]) -> np.ndarray:
    """Rotary positions [S, 3] (frame, height, width) of the text and of images of (h, w) tokens, the target first.

    The i-th image has frame i and is centred in height and width. Text runs diagonally from half the largest side on;
    it thereby depends on the images' sizes alone, and padding behind it moves nothing.
    """
    start = max(side // 2 for size in images for side in size)
    text = np.repeat(start + np.arange(text_tokens)[:, None], 3, axis=1)
    grids = [rope.image_positions(h, w) for h, w in images]
    return np.concatenate([text, *(np.insert(grid, 0, frame, axis=1) for frame, grid in enumerate(grids))])


init = partial(network.init, QwenImage)
abstract = partial(network.abstract, QwenImage)
denoiser = partial(network.denoiser, QwenImage)


def _check_diffusers(config: dict) -> None:
    sizes = (
        "in_channels", "joint_attention_dim", "num_layers", "num_attention_heads", "attention_head_dim",
        "axes_dims_rope",
    )  # fmt: skip
    checks.needed(config, sizes, "QwenImageTransformer2DModel")
    layered = [name for name in ("use_additional_t_cond", "use_layer3d_rope") if config.get(name)]
    if layered:
        raise UserError(f"config.json sets {' and '.join(layered)}, as Qwen-Image-Layered does; it is not built here.")
    fixed = dict(
        _class_name="QwenImageTransformer2DModel", patch_size=PATCH, out_channels=config["in_channels"] // PATCH**2,
        guidance_embeds=False,
    )  # fmt: skip
    checks.fixed(config, fixed)


def _linear(config: Config, n_in: int, n_out: int, rngs: nnx.Rngs, **kwargs) -> layers.Linear:
    return layers.Linear(n_in, n_out, rngs, config.param_dtype, products=config.products, bias=True, **kwargs)


def _exact_linear(config: Config, n_in: int, n_out: int, rngs: nnx.Rngs) -> layers.Linear:
    """For what follows from t alone: it runs once a sample, so that rounding its factors would gain no time."""
    return layers.Linear(n_in, n_out, rngs, config.param_dtype, bias=True)
