"""Qwen3-VL as the condition encoder of Qwen-Image-2.1: text and images in, states of chosen language layers out.

Source: transformers' ``Qwen3VLForConditionalGeneration``; tests/models compare with it. A vision tower turns an image
into slots that stand among the tokens; what three of its middle layers see is added at the same slots after the
first three language layers (DeepStack). Rotary frequencies take turns between time, row and column.
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

PRESETS = ("qwen_image_21", "qwen3_vl_4b", "tiny")  # class methods of Config
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)  # of pixels in [0, 1]
EPS = 1e-6
_VISION = {  # fields of Vision and their names in config.json, where the number of positions stands for the side
    "depth": "depth", "width": "hidden_size", "heads": "num_heads", "intermediate": "intermediate_size",
    "patch": "patch_size", "merge": "spatial_merge_size", "side": "num_position_embeddings",
    "deepstack": "deepstack_visual_indexes",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Vision:
    """Sizes of the vision tower. ``side`` x ``side`` learned positions; ``deepstack``: the layers, counted from 0,
    whose output goes to the language model's first layers."""

    depth: int = 27
    width: int = 1152
    heads: int = 16
    intermediate: int = 4304
    patch: int = 16
    merge: int = 2
    side: int = 48
    deepstack: tuple[int, ...] = (8, 16, 24)

    def __post_init__(self):
        qwen_vision.check_heads(self.width, self.heads)
        if not self.deepstack or sorted(set(self.deepstack) & {*range(self.depth)}) != list(self.deepstack):
            raise ValueError(f"deepstack {self.deepstack} must be layers from 0 to {self.depth - 1}, ascending.")


@dataclasses.dataclass(frozen=True)
class Config(qwen_decoder.Config):
    """The language model's sizes (see ``qwen_decoder.Config``), Qwen3-VL-8B's by default, and the vision tower's.
    ``mrope_section``: how many rotary frequencies turn with time, row and column."""

    width: int = 4096
    intermediate: int = 12_288
    theta: float = 5e6
    mrope_section: tuple[int, int, int] = (24, 20, 20)
    vision: Vision = Vision()

    def __post_init__(self):
        super().__post_init__()
        qwen_decoder.check_sections(self.mrope_section, self.head_dim)
        if self.features[0] <= len(self.vision.deepstack):  # transformers records these without what is added to them
            raise ValueError(
                f"features {self.features} must lie behind the first {len(self.vision.deepstack)} layers, which "
                "deepstack adds to."
            )

    @classmethod
    def from_transformers(cls, config: Mapping[str, Any], **overrides) -> "Config":
        """Sizes from the ``config.json`` of a Qwen3-VL model; ``features`` and whatever else is wanted are overrides
        (the states of the last layer before the norm otherwise). Raises UserError for another model's."""
        qwen_decoder.check_kind(config, "qwen3_vl", "Qwen3-VL")
        text = config.get("text_config") or {}
        sizes = qwen_decoder.read_sizes(text, attention_bias=False)
        sizes["mrope_section"] = tuple(qwen_decoder.read_rotary(text)["mrope_section"] or cls.mrope_section)
        fixed = dict(hidden_act="gelu_pytorch_tanh", out_hidden_size=sizes["width"])
        tower = qwen_vision.read_sizes(config, _VISION, **fixed)
        with about_settings():
            vision = Vision(**(tower | {"side": round(tower["side"] ** 0.5)}))
            return cls(**(sizes | {"vision": vision} | overrides))

    @classmethod
    def qwen_image_21(cls, **overrides) -> "Config":
        """Qwen3-VL-8B, the last layer before the norm."""
        return cls(**overrides)

    @classmethod
    def qwen3_vl_4b(cls, **overrides) -> "Config":
        """Qwen3-VL-4B, the last layer before the norm."""
        vision = Vision(depth=24, width=1024, intermediate=4096, deepstack=(5, 11, 17))
        return cls(**(dict(width=2560, intermediate=9728, vision=vision) | overrides))

    @classmethod
    def tiny(cls, **overrides) -> "Config":
        """For tests."""
        vision = Vision(depth=3, width=24, heads=2, intermediate=40, patch=4, side=5, deepstack=(0, 1))
        small = dict(
            layers=3, width=32, heads=4, kv_heads=2, head_dim=16, intermediate=48, vocab=97, features=(3,),
            mrope_section=(4, 2, 2), vision=vision, dtype=jnp.float32, param_dtype=jnp.float32, scan_layers=False,
        )  # fmt: skip
        return cls(**(small | overrides))


class MLP(nnx.Module):
    def __init__(self, config: Config, rngs: nnx.Rngs):
        d, hidden = config.vision.width, config.vision.intermediate
        self.linear_fc1 = _linear(config, d, hidden, rngs)
        self.linear_fc2 = _linear(config, hidden, d, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.linear_fc2(jax.nn.gelu(self.linear_fc1(x), approximate=True))


class Block(nnx.Module):
    def __init__(self, config: Config, rngs: nnx.Rngs):
        v = config.vision
        self.attn = qwen_vision.Attention(v.width, v.heads, rngs, config.param_dtype)
        self.mlp = MLP(config, rngs)
        self.norm1, self.norm2 = (_norm(config, v.width, rngs) for _ in range(2))

    def __call__(self, h: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
        h = h + self.attn(self.norm1(h), cos, sin)
        return h + self.mlp(self.norm2(h))


class Merger(nnx.Module):
    """Patches [B, N, vision width] to slots [B, N / merge^2, width]; ``joint`` normalises a slot's patches together."""

    def __init__(self, config: Config, rngs: nnx.Rngs, joint: bool):
        slot = config.vision.width * config.vision.merge**2
        self.norm = _norm(config, slot if joint else config.vision.width, rngs)
        self.linear_fc1 = _linear(config, slot, slot, rngs)
        self.linear_fc2 = _linear(config, slot, config.width, rngs)
        self.joint, self.slot = joint, slot

    def __call__(self, x: jax.Array) -> jax.Array:
        grouped = (len(x), -1, self.slot)
        x = self.norm(x.reshape(grouped)) if self.joint else self.norm(x).reshape(grouped)
        return self.linear_fc2(jax.nn.gelu(self.linear_fc1(x), approximate=False))


class Tower(nnx.Module):
    """The vision tower."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        v, self.config = config.vision, config
        self.patch_embed = qwen_vision.PatchEmbed(v.patch, v.width, rngs, config.param_dtype, bias=True)
        self.pos_embed = nnx.Embed(v.side**2, v.width, param_dtype=config.param_dtype, rngs=rngs)
        self.blocks = layers.stack(lambda r: Block(config, r), v.depth, rngs)
        self.merger = Merger(config, rngs, joint=False)
        self.deepstack = layers.stack(lambda r: Merger(config, r, joint=True), len(v.deepstack), rngs)

    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Slots [B, S, width] of images [B, H, W, 3], and the deepstack's [n, B, S, width]."""
        v = self.config.vision
        rows, columns = qwen_vision.grid(images, v.patch, v.merge)
        x = qwen_vision.patches(images, v.patch, v.merge, MEAN, STD).astype(self.config.dtype)
        h = self.patch_embed(x) + self._positions(rows, columns).astype(x.dtype)
        angles = qwen_vision.patch_angles(rows, columns, v.merge, v.width // v.heads)
        cos, sin = jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]
        wanted = np.reshape(v.deepstack, (-1, 1, 1, 1))

        def body(block, carry, layer):
            h, taps = carry
            h = block(h, cos, sin)
            return (h, jnp.where(wanted == layer, h, taps)), None

        start, scan = (h, jnp.zeros((len(v.deepstack), *h.shape), h.dtype)), self.config.scan_layers
        (h, taps), _ = layers.run_stack(self.blocks, v.depth, body, start, np.arange(v.depth), scan=scan, remat="none")
        return self.merger(h), jax.vmap(lambda merger, x: merger(x))(self.deepstack, taps)

    def _positions(self, rows: int, columns: int) -> jax.Array:
        """The learned grid at the places of rows x columns patches, corners on corners: [N, vision width], float32."""
        v = self.config.vision
        table = self.pos_embed.embedding[...].astype(jnp.float32).reshape(v.side, v.side, v.width)
        down, across = (_interpolation(n, v.side) for n in (rows, columns))
        return qwen_vision.block_order(jnp.einsum("ri,cj,ijd->rcd", down, across, table, precision="highest"), v.merge)


class Qwen3VL(nnx.Module):
    """Vision tower and language model."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        self.config, self.language, self.vision = config, Decoder(config, rngs), Tower(config, rngs)

    def __call__(self, tokens, token_length, images, image_at) -> jax.Array:
        c = self.config
        sizes = tuple(qwen_vision.grid(x, c.vision.patch * c.vision.merge, 1) for x in images)
        positions, slots = qwen_vision.layout(tokens.shape[1], tuple(image_at), sizes)
        h, visual = self.language.embedded(tokens), None
        if images:
            merged, deep = zip(*(self.vision(x) for x in images), strict=True)
            h = h.at[:, slots].set(jnp.concatenate(merged, axis=1))
            visual = slots, jnp.concatenate(deep, axis=2)
        return self.language(h, token_length, rotary_angles(c, positions, _interleaved(c.mrope_section)), visual)


init = partial(network.init, Qwen3VL)
abstract = partial(network.abstract, Qwen3VL)


def encoder(config: Config) -> Callable[..., jax.Array]:
    """``encode(params, tokens, token_length, images=(), image_at=()) -> states``.

    tokens int32 [B, L], padded on the right; token_length int32 [B], at least 1. images: arrays [B, H, W, 3], uint8 or
    float in [-1, 1], already of the size that the tower is to see (multiples of patch * merge pixels). image_at: for
    each image the index of its first slot in ``tokens``, the same for the whole batch; plain integers, static under
    jit. The ids at the slots do not matter. States float32 [B, L, len(features) * width]; at padding they mean nothing.
    Raises ValueError where images do not fit.
    """
    graphdef = network.graphdef(Qwen3VL, config)

    def encode(params, tokens, token_length, images=(), image_at=()) -> jax.Array:
        return nnx.merge(graphdef, params)(tokens, token_length, images, image_at)

    return encode


def _linear(config: Config, n_in: int, n_out: int, rngs: nnx.Rngs) -> layers.Linear:
    return layers.Linear(n_in, n_out, rngs, config.param_dtype, bias=True)


def _norm(config: Config, width: int, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(
        width, epsilon=EPS, use_fast_variance=False, dtype=config.dtype, param_dtype=config.param_dtype, rngs=rngs
    )


def _interpolation(count: int, side: int) -> np.ndarray:
    """Weights [count, side] that read a row of ``side`` values at ``count`` even steps from end to end."""
    at = np.arange(count) * (side - 1) / max(count - 1, 1)
    return np.maximum(1 - np.abs(at[:, None] - np.arange(side)), 0).astype(np.float32)


def _interleaved(section: tuple[int, int, int]) -> np.ndarray:
    """The axis of each rotary frequency: time, row, column in turns for as long as each has some left, then time."""
    axis = np.zeros(sum(section), int)
    for k in (1, 2):
        axis[k : 3 * section[k] : 3] = k
    return axis

