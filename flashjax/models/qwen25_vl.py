"""Qwen2.5-VL as the condition encoder of Qwen-Image, its edit models included: text and images in, states out.

Source: transformers' ``Qwen2_5_VLForConditionalGeneration``; tests/models compare with it. Unlike Qwen3-VL, most layers
of the vision tower look within windows only, nothing of it reaches the language model but the last layer, and rotary
frequencies belong to time, row and column in three runs.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flashjax.errors import about_settings
from flashjax.models import layers, network, qwen_decoder, qwen_vision
from flashjax.models.qwen_decoder import Decoder, rotary_angles

PRESETS = ("qwen_image", "tiny")  # class methods of Config
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of pixels in [0, 1]: CLIP's
EPS = 1e-6
_VISION = {  # fields of Vision and their names in config.json
    "depth": "depth", "width": "hidden_size", "heads": "num_heads", "intermediate": "intermediate_size",
    "patch": "patch_size", "merge": "spatial_merge_size", "window": "window_size", "full": "fullatt_block_indexes",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Vision:
    """Sizes of the vision tower. ``window``: pixels, a multiple of patch * merge; ``full``: the layers, counted from 0,
    that look at the whole image."""

    depth: int = 32
    width: int = 1280
    heads: int = 16
    intermediate: int = 3420
    patch: int = 14
    merge: int = 2
    window: int = 112
    full: tuple[int, ...] = (7, 15, 23, 31)

    def __post_init__(self):
        qwen_vision.check_heads(self.width, self.heads)
        if self.window % (self.patch * self.merge):
            raise ValueError(f"window {self.window} must be a multiple of {self.patch * self.merge} pixels.")


@dataclasses.dataclass(frozen=True)
class Config(qwen_decoder.Config):
    """The language model's sizes (see ``qwen_decoder.Config``), Qwen2.5-VL-7B's by default, and the vision tower's.
    ``mrope_section``: how many rotary frequencies turn with time, row and column."""

    layers: int = 28
    width: int = 3584
    heads: int = 28
    kv_heads: int = 4
    intermediate: int = 18_944
    vocab: int = 152_064
    qk_norm: bool = False
    qkv_bias: bool = True
    features: tuple[int, ...] = (28,)
    final_norm: bool = True
    mrope_section: tuple[int, int, int] = (16, 24, 24)
    vision: Vision = Vision()

    def __post_init__(self):
        super().__post_init__()
        qwen_decoder.check_sections(self.mrope_section, self.head_dim)

    @classmethod
    def from_transformers(cls, config: Mapping[str, Any], **overrides) -> "Config":
        """Sizes from the ``config.json`` of a Qwen2.5-VL model, the text's in a part of its own or (older) at the top;
        whatever else is wanted are overrides (the last layer's states after the norm otherwise). Raises UserError for
        another model's."""
        qwen_decoder.check_kind(config, "qwen2_5_vl", "Qwen2.5-VL")
        text = config.get("text_config") or config
        sizes = qwen_decoder.read_sizes(text)
        sizes["mrope_section"] = tuple(qwen_decoder.read_rotary(text)["mrope_section"] or cls.mrope_section)
        tower = qwen_vision.read_sizes(config, _VISION, hidden_act="silu", out_hidden_size=sizes["width"])
        with about_settings():
            return cls(**(sizes | {"vision": Vision(**tower)} | overrides))

    @classmethod
    def qwen_image(cls, **overrides) -> "Config":
        """Qwen2.5-VL-7B, the last layer after the norm."""
        return cls(**overrides)

    @classmethod
    def tiny(cls, **overrides) -> "Config":
        """For tests."""
        vision = Vision(depth=3, width=24, heads=2, intermediate=40, patch=2, window=8, full=(1,))
        small = dict(
            layers=2, width=32, heads=2, kv_heads=1, head_dim=16, intermediate=48, vocab=97, features=(2,),
            mrope_section=(2, 3, 3), vision=vision, dtype=jnp.float32, param_dtype=jnp.float32, scan_layers=False,
        )  # fmt: skip
        return cls(**(small | overrides))


class MLP(nnx.Module):
    def __init__(self, config: Config, rngs: nnx.Rngs):
        d, hidden = config.vision.width, config.vision.intermediate
        self.gate_proj, self.up_proj = (_linear(config, d, hidden, rngs) for _ in range(2))
        self.down_proj = _linear(config, hidden, d, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down_proj(layers.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nnx.Module):
    def __init__(self, config: Config, rngs: nnx.Rngs):
        v = config.vision
        self.attn = qwen_vision.Attention(v.width, v.heads, rngs, config.param_dtype)
        self.mlp = MLP(config, rngs)
        self.norm1, self.norm2 = (layers.Scale(v.width, 1.0, config.param_dtype) for _ in range(2))

    def __call__(self, h: jax.Array, cos: jax.Array, sin: jax.Array, mask: jax.Array) -> jax.Array:
        h = h + self.attn(layers.rms_norm(h, self.norm1.scale[...], EPS), cos, sin, mask)
        return h + self.mlp(layers.rms_norm(h, self.norm2.scale[...], EPS))


class Merger(nnx.Module):
    """Patches [B, N, vision width] to slots [B, N / merge^2, width]."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        self.slot = config.vision.width * config.vision.merge**2
        self.norm = layers.Scale(config.vision.width, 1.0, config.param_dtype)
        self.linear_1 = _linear(config, self.slot, self.slot, rngs)
        self.linear_2 = _linear(config, self.slot, config.width, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = layers.rms_norm(x, self.norm.scale[...], EPS).reshape(len(x), -1, self.slot)
        return self.linear_2(jax.nn.gelu(self.linear_1(x), approximate=False))


class Tower(nnx.Module):
    """The vision tower."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        v, self.config = config.vision, config
        self.patch_embed = qwen_vision.PatchEmbed(v.patch, v.width, rngs, config.param_dtype, bias=False)
        self.blocks = layers.stack(lambda r: Block(config, r), v.depth, rngs)
        self.merger = Merger(config, rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Slots [B, S, width] of images [B, H, W, 3]."""
        v = self.config.vision
        rows, columns = qwen_vision.grid(images, v.patch, v.merge)
        h = self.patch_embed(qwen_vision.patches(images, v.patch, v.merge, MEAN, STD).astype(self.config.dtype))
        angles = qwen_vision.patch_angles(rows, columns, v.merge, v.width // v.heads)
        cos, sin = jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]
        window = jnp.asarray(_windows(rows, columns, v))
        same_window = window[:, None] == window
        full = np.isin(np.arange(v.depth), v.full)

        def body(block, h, full):
            return block(h, cos, sin, same_window | full), None

        return self.merger(
            layers.run_stack(self.blocks, v.depth, body, h, full, scan=self.config.scan_layers, remat="none")[0]
        )


class Qwen25VL(nnx.Module):
    """Vision tower and language model."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        self.config, self.language, self.vision = config, Decoder(config, rngs), Tower(config, rngs)

    def __call__(self, tokens, token_length, images, image_at) -> jax.Array:
        c = self.config
        sizes = tuple(qwen_vision.grid(x, c.vision.patch * c.vision.merge, 1) for x in images)
        positions, slots = qwen_vision.layout(tokens.shape[1], tuple(image_at), sizes)
        h = self.language.embedded(tokens)
        if images:
            h = h.at[:, slots].set(jnp.concatenate([self.vision(x) for x in images], axis=1))
        return self.language(h, token_length, rotary_angles(c, positions, np.repeat(np.arange(3), c.mrope_section)))


init = partial(network.init, Qwen25VL)
abstract = partial(network.abstract, Qwen25VL)


def encoder(config: Config) -> Callable[..., jax.Array]:
    """``encode(params, tokens, token_length, images=(), image_at=()) -> states``, as ``qwen3_vl.encoder``."""
    graphdef = network.graphdef(Qwen25VL, config)

    def encode(params, tokens, token_length, images=(), image_at=()) -> jax.Array:
        return nnx.merge(graphdef, params)(tokens, token_length, images, image_at)

    return encode


def _linear(config: Config, n_in: int, n_out: int, rngs: nnx.Rngs) -> layers.Linear:
    return layers.Linear(n_in, n_out, rngs, config.param_dtype, bias=True)


def _windows(rows: int, columns: int, vision: Vision) -> np.ndarray:
    """The number [N] of each patch's window; windows start at the upper left, those at the other edges are cut."""
    row, column = np.indices((rows, columns)) // (vision.window // vision.patch)
    return qwen_vision.block_order((row * columns + column)[..., None], vision.merge)[:, 0]

