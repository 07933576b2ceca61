"""The FLUX.2 [klein] denoiser: two streams that meet in attention, then one stream whose attention and MLP run in
parallel.

Source: the released checkpoints and diffusers' ``Flux2Transformer2DModel`` as ``Flux2KleinPipeline`` calls it (time in
[0, 1], velocity eps - x0); tests/models compare against both. The sequence is [text | target | references], everybody
sees everybody, and t modulates all of it by three projections that the blocks share. Nothing but the embeddings of text
and references is therefore independent of t, and that is all ``condition`` can hold. There is no bias anywhere in this
network.

One token of z is 2 x 2 latents of 32 channels, in the order of diffusers' pipelines: channel ``4 c + 2 y + x`` of a
token is channel c of its latent in row y and column x.

The klein-kv checkpoint, whose references see only themselves and are modulated as if t = 0, is another function of the
same class; it is not built.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct

from flashjax.errors import about_settings
from flashjax.models import attention, checks, layers, network, rope

PRESETS = ("klein_4b", "klein_9b", "tiny")  # class methods of Config

REFERENCE_STRIDE = 10  # between the first rotary positions of target, first reference, second reference, ...


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the network. ``axes_dims`` (image, row, column, word) sum to the head width."""

    in_channels: int = 128
    context_dim: int = 7680
    width: int = 3072
    double_layers: int = 5
    single_layers: int = 20
    heads: int = 24
    mlp_ratio: float = 3.0
    axes_dims: tuple[int, int, int, int] = (32, 32, 32, 32)
    theta: float = 2_000.0
    eps: float = 1e-6
    dtype: Any = jnp.bfloat16  # of activations and products; norms, softmax and time stay in float32
    param_dtype: Any = jnp.float32
    products: Any = None  # rounds the factors of the tokens' matrix products, see layers.project; None: not
    scan_layers: bool = True
    remat: str = "full"  # what the backward pass recomputes, see layers.REMAT
    attention: str = "auto"  # the kernel, see attention.KINDS

    def __post_init__(self):
        axes = self.axes_dims
        if self.width % self.heads or len(axes) != 4 or sum(axes) != self.head_dim or any(d % 2 for d in axes):
            raise ValueError(
                f"axes_dims {axes} must be four even numbers that sum to the head width, which is width / heads = "
                f"{self.width} / {self.heads}."
            )
        checks.products(self.products)
        layers.check_remat(self.remat)
        attention.check_kind(self.attention)

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def hidden(self) -> int:
        """Width inside the MLPs."""
        return int(self.width * self.mlp_ratio)

    def to_diffusers(self) -> dict:
        """The ``config.json`` of the diffusers class with these sizes."""
        return dict(
            _class_name="Flux2Transformer2DModel", patch_size=1, in_channels=self.in_channels, out_channels=None,
            num_layers=self.double_layers, num_single_layers=self.single_layers, attention_head_dim=self.head_dim,
            num_attention_heads=self.heads, joint_attention_dim=self.context_dim, timestep_guidance_channels=256,
            mlp_ratio=self.mlp_ratio, axes_dims_rope=list(self.axes_dims), rope_theta=self.theta, eps=self.eps,
            guidance_embeds=False,
        )  # fmt: skip

    @classmethod
    def from_diffusers(cls, config: dict, **overrides) -> "Config":
        """Inverse of ``to_diffusers``; small models (below 100 M parameters) get the small preset's float32, unrolled.
        Raises UserError for a ``config.json`` of another model, and for FLUX.2 [dev]'s, which embeds the guidance."""
        _check_diffusers(config)
        optional = dict(mlp_ratio="mlp_ratio", rope_theta="theta", eps="eps")
        sizes = dict(
            in_channels=config["in_channels"], context_dim=config["joint_attention_dim"],
            width=config["num_attention_heads"] * config["attention_head_dim"], heads=config["num_attention_heads"],
            double_layers=config["num_layers"], single_layers=config["num_single_layers"],
            axes_dims=tuple(config["axes_dims_rope"]),
            **{ours: config[theirs] for theirs, ours in optional.items() if theirs in config},
        )  # fmt: skip
        small = 13 * sizes["width"] ** 2 * (2 * config["num_layers"] + config["num_single_layers"]) < 1e8
        base = cls.tiny if small else cls
        with about_settings():
            return base(**(sizes | overrides))

    @classmethod
    def klein_4b(cls, **overrides) -> "Config":
        """The released 3.9 B model. FLUX.2-klein-base-4B and its 4-step student FLUX.2-klein-4B have the same tensors;
        they differ in their weights."""
        return cls(**overrides)

    @classmethod
    def klein_9b(cls, **overrides) -> "Config":
        """The released 9.1 B model, base and 4-step student."""
        return cls(**(dict(context_dim=12288, width=4096, double_layers=8, single_layers=24, heads=32) | overrides))

    @classmethod
    def tiny(cls, **overrides) -> "Config":
        """For tests."""
        small = dict(
            in_channels=8, context_dim=24, width=32, double_layers=2, single_layers=2, heads=2, axes_dims=(4, 4, 4, 4),
            dtype=jnp.float32, scan_layers=False, remat="none",
        )  # fmt: skip
        return cls(**(small | overrides))


@struct.dataclass
class Condition:
    """What a batch is conditioned on.

    text: [B, L, context_dim] encoder states. The family pads every prompt to L = 512 tokens and takes the encoder's
      states at the padding for text like any other: none of the 512 is masked.
    text_length: int32 [B], how many of the L states there are to be seen; what is behind them changes nothing in the
      result. None: all of them, which is what the released weights want.
    references: images [B, h, w, in_channels] as packed latents, in order.
    """

    text: jax.Array
    text_length: jax.Array | None = None
    references: tuple[jax.Array, ...] = ()


@struct.dataclass
class Context:
    """The condition as the blocks take it: embedded ``text`` [B, L, width], of which ``valid`` [B, L] may be seen
    (None: all), and embedded ``references`` [B, h, w, width]."""

    text: jax.Array
    valid: jax.Array | None
    references: tuple[jax.Array, ...]


class HeadNorm(nnx.Module):
    """Norms of queries and keys, head by head."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        self.q, self.k = (layers.Scale(config.head_dim, 1.0, config.param_dtype) for _ in range(2))
        self.head_dim, self.eps = config.head_dim, config.eps

    def __call__(self, qkv: list[jax.Array], cos: jax.Array, sin: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Normalised and rotated queries and keys, and values, [B, S, H, D] each, of the three [B, S, width]; queries
        and keys in split pairs."""
        q, k, v = (y.reshape(*y.shape[:-1], -1, self.head_dim) for y in qkv)
        q, k = (
            rope.rotate(layers.rms_norm(y, rope.split_pairs(norm.scale[...], self.head_dim), self.eps), cos, sin)
            for y, norm in ((q, self.q), (k, self.k))
        )
        return q, k, v


class Stream(nnx.Module):
    """What a double block holds for the text, and once more for the images. ``rows`` are six of [B, 1, width]: shift,
    scale and gate around attention, then around the MLP."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        d, self.config = config.width, config
        self.to_q, self.to_k, self.to_v, self.to_out = (_linear(config, d, d, rngs) for _ in range(4))
        self.norm = HeadNorm(config, rngs)
        self.mlp_in, self.mlp_out = _linear(config, d, 2 * config.hidden, rngs), _linear(config, config.hidden, d, rngs)

    def qkv(self, h: jax.Array, rows: tuple, cos: jax.Array, sin: jax.Array):
        shift, scale = rows[:2]
        q, k = (rope.split_pairs(linear.kernel[...], self.config.head_dim) for linear in (self.to_q, self.to_k))
        h = layers.modulated(h, shift, scale, self.config.eps)
        return self.norm(layers.project_together(h, [q, k, self.to_v.kernel[...]], self.config.products), cos, sin)

    def update(self, h: jax.Array, o: jax.Array, rows: tuple) -> jax.Array:
        """The stream h [B, S, width] after attention gave o [B, S, H, D]."""
        _, _, gate1, shift2, scale2, gate2 = rows
        h = h + gate1 * self.to_out(_flat(o))
        return h + gate2 * self.mlp_out(_swiglu(self.mlp_in(layers.modulated(h, shift2, scale2, self.config.eps))))


class DoubleBlock(nnx.Module):
    def __init__(self, config: Config, rngs: nnx.Rngs):
        self.txt, self.img = Stream(config, rngs), Stream(config, rngs)

    def __call__(self, txt, img, rows_txt, rows_img, cos, sin, attend):
        """txt [B, L, width], img [B, N, width] -> the same."""
        tokens = txt.shape[1]
        own_txt = self.txt.qkv(txt, rows_txt, cos[:tokens], sin[:tokens])
        own_img = self.img.qkv(img, rows_img, cos[tokens:], sin[tokens:])
        o = attend(*(jnp.concatenate(pair, axis=1) for pair in zip(own_txt, own_img, strict=True)))
        return self.txt.update(txt, o[:, :tokens], rows_txt), self.img.update(img, o[:, tokens:], rows_img)


class SingleBlock(nnx.Module):
    """Queries, keys, values and both halves of the MLP's input come from one product; attention's and the MLP's results
    go into one."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        d, hidden, self.config = config.width, config.hidden, config
        self.proj_in = _linear(config, d, 3 * d + 2 * hidden, rngs)
        self.proj_out = _linear(config, d + hidden, d, rngs)
        self.norm = HeadNorm(config, rngs)

    def __call__(self, h, rows, cos, sin, attend):
        """h [B, S, width] -> the same. ``rows``: shift, scale and gate."""
        c, (shift, scale, gate) = self.config, rows
        kernel = _split_pairs(self.proj_in.kernel[...], c)
        both = layers.project(layers.modulated(h, shift, scale, c.eps), kernel, c.products)
        qkv, mlp = jnp.split(both, [3 * c.width], axis=-1)
        o = attend(*self.norm(jnp.split(qkv, 3, axis=-1), cos, sin))
        return h + gate * self.proj_out(jnp.concatenate([_flat(o), _swiglu(mlp)], axis=-1))


class Flux2(nnx.Module):
    """The network; both kinds of blocks are stacked on a leading axis."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        d, c = config.width, config
        self.config = config
        self.time_embed = layers.TimeEmbed(d, rngs, c.param_dtype)
        self.txt_in, self.img_in = _linear(c, c.context_dim, d, rngs), _linear(c, c.in_channels, d, rngs)
        self.modulation_txt, self.modulation_img = (_exact_linear(c, d, 6 * d, rngs) for _ in range(2))
        self.modulation_single = _exact_linear(c, d, 3 * d, rngs)
        self.blocks = nnx.Dict(
            double=layers.stack(lambda r: DoubleBlock(c, r), c.double_layers, rngs),
            single=layers.stack(lambda r: SingleBlock(c, r), c.single_layers, rngs),
        )
        self.norm_out = _exact_linear(c, d, 2 * d, rngs)
        self.proj_out = _linear(c, d, c.in_channels, rngs, init=nnx.initializers.zeros)

    def condition(self, cond: Condition) -> Context:
        """The embeddings of text and references. Their rotary tables are constants of ``velocity``'s program."""
        dtype, valid = self.config.dtype, None
        if cond.text_length is not None:
            valid = jnp.arange(cond.text.shape[1]) < cond.text_length[:, None]
        references = tuple(self.img_in(r.astype(dtype)) for r in cond.references)
        return Context(self.txt_in(cond.text.astype(dtype)), valid, references)

    def velocity(self, context: Context, z: jax.Array, t: jax.Array) -> jax.Array:
        """Velocity, float32, like z [B, h, w, in_channels] (packed latents), at t [B] in [0, 1] (fp32; 1 is noise).

        A context of batch 1 (the null condition of guidance) serves every sample."""
        c, batch, tokens = self.config, len(z), z.shape[1] * z.shape[2]
        images = (self.img_in(z.astype(c.dtype)), *context.references)
        img = jnp.concatenate([layers.repeat(x.reshape(len(x), -1, c.width), batch) for x in images], axis=1)
        txt = layers.repeat(context.text, batch)
        mask = None
        if context.valid is not None:
            mask = jnp.pad(context.valid, ((0, 0), (0, img.shape[1])), constant_values=True)[:, None, None, :]
        angle = rope.angles(positions(txt.shape[1], tuple(x.shape[1:3] for x in images)), c.axes_dims, c.theta)
        cos, sin = jnp.cos(angle)[:, None], jnp.sin(angle)[:, None]
        silu_temb = self.time_embed(t)
        h = self._blocks(txt, img, silu_temb, cos, sin, mask)[:, txt.shape[1] : txt.shape[1] + tokens]
        scale, shift = _rows(self.norm_out, silu_temb, 2, c.dtype)
        return self.proj_out(layers.modulated(h, shift, scale, c.eps)).astype(jnp.float32).reshape(z.shape)

    def _blocks(self, txt, img, silu_temb, cos, sin, mask):
        """What both stacks make of txt [B, L, width] and img [B, N, width]: [B, L + N, width]."""
        c = self.config
        rows_txt, rows_img = (_rows(m, silu_temb, 6, c.dtype) for m in (self.modulation_txt, self.modulation_img))
        rows = _rows(self.modulation_single, silu_temb, 3, c.dtype)
        how = dict(scan=c.scan_layers, remat=c.remat)
        attend = partial(attention.attend, mask=mask, kind=c.attention)

        def double(block, streams, _):
            return block(*streams, rows_txt, rows_img, cos, sin, attend), None

        def single(block, h, _):
            return block(h, rows, cos, sin, attend), None

        streams, _ = layers.run_stack(self.blocks["double"], c.double_layers, double, (txt, img), None, **how)
        h = jnp.concatenate(streams, axis=1)
        return layers.run_stack(self.blocks["single"], c.single_layers, single, h, None, **how)[0]


def positions(text_tokens: int, images: tuple[tuple[int, int], ...]) -> np.ndarray:
    """Rotary positions [S, 4] (image, row, column, word) of the text and of images of (h, w) tokens, the target first.

    Nothing is centred: rows, columns and words count from 0. The text shares image 0 with the target; references
    follow at 10, 20, ...
    """
    axes = [([0], [0], [0], range(text_tokens))]
    axes += [([REFERENCE_STRIDE * i], range(h), range(w), [0]) for i, (h, w) in enumerate(images)]
    return np.concatenate([np.stack(np.meshgrid(*a, indexing="ij"), axis=-1).reshape(-1, 4) for a in axes])


init = partial(network.init, Flux2)
abstract = partial(network.abstract, Flux2)
denoiser = partial(network.denoiser, Flux2)


def _check_diffusers(config: dict) -> None:
    needed = (
        "in_channels", "joint_attention_dim", "num_layers", "num_single_layers", "num_attention_heads",
        "attention_head_dim", "axes_dims_rope", "guidance_embeds",
    )  # fmt: skip
    checks.needed(config, needed, "Flux2Transformer2DModel")
    fixed = dict(
        _class_name="Flux2Transformer2DModel", patch_size=1, out_channels=config["in_channels"],
        timestep_guidance_channels=256, guidance_embeds=False,
    )  # fmt: skip
    checks.fixed(checks.without_nulls(config), fixed)


def _linear(config: Config, n_in: int, n_out: int, rngs: nnx.Rngs, **kwargs) -> layers.Linear:
    return layers.Linear(n_in, n_out, rngs, config.param_dtype, products=config.products, **kwargs)


def _exact_linear(config: Config, n_in: int, n_out: int, rngs: nnx.Rngs) -> layers.Linear:
    """For what follows from t alone: it runs once a sample, so that rounding its factors would gain no time."""
    return layers.Linear(n_in, n_out, rngs, config.param_dtype)


def _rows(linear: layers.Linear, silu_temb: jax.Array, count: int, dtype: Any) -> tuple[jax.Array, ...]:
    """``count`` modulation rows [B, 1, width]."""
    return tuple(row.astype(dtype) for row in jnp.split(layers.by_output(linear, silu_temb)[:, None], count, axis=-1))


def _split_pairs(kernel: jax.Array, config: Config) -> jax.Array:
    """A kernel whose first columns are those of queries, then of keys, with these in split pairs."""
    qk, rest = jnp.split(kernel, [2 * config.width], axis=-1)
    return jnp.concatenate([rope.split_pairs(qk, config.head_dim), rest], axis=-1)


def _swiglu(x: jax.Array) -> jax.Array:
    gate, value = jnp.split(x, 2, axis=-1)
    return layers.silu(gate) * value


def _flat(o: jax.Array) -> jax.Array:
    return o.reshape(*o.shape[:-2], -1)
