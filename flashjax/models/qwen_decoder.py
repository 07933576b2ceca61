"""The language model that Qwen3, Qwen3-VL and Qwen2.5-VL share, read as an encoder: the states of chosen layers.

Source: the text models of transformers' ``qwen3``, ``qwen3_vl`` and ``qwen2_5_vl``; tests/models compare with each.
Attention is causal, with fewer heads for keys and values than for queries; tokens are padded on the right, so that
real tokens never see padding and their positions are those of the prompt alone.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flashjax.errors import UserError
from flashjax.models import layers, rope
from flashjax.models.attention import attend


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes, Qwen3-4B's by default, and which states are wanted.

    ``features`` counts layers: k is what the k-th of ``layers`` layers hands on, before the final norm (transformers'
    ``hidden_states[k]``, but for the last one). Layers after the last feature are neither stored nor run.
    ``final_norm`` applies the final norm, which only the last layer's states go through.
    """

    layers: int = 36
    width: int = 2560
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128
    intermediate: int = 9728
    vocab: int = 151_936
    theta: float = 1e6
    eps: float = 1e-6
    qk_norm: bool = True
    qkv_bias: bool = False
    features: tuple[int, ...] = (36,)
    final_norm: bool = False
    dtype: Any = jnp.bfloat16  # of activations and products; norms, softmax and rotation stay in float32
    param_dtype: Any = jnp.bfloat16  # as released: nobody trains an encoder
    scan_layers: bool = True

    def __post_init__(self):
        if not self.features or sorted(set(self.features) & {*range(1, self.layers + 1)}) != list(self.features):
            raise ValueError(f"features {self.features} must be layers from 1 to {self.layers}, in ascending order.")
        if self.final_norm and self.features != (self.layers,):
            raise ValueError(
                f"final_norm goes with the states of the last layer, {self.layers}, not with features {self.features}."
            )
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads {self.kv_heads} must divide heads {self.heads}.")

    @property
    def depth(self) -> int:
        """Layers that are stored and run."""
        return self.features[-1]


class Attention(nnx.Module):
    def __init__(self, config: Config, rngs: nnx.Rngs):
        c, q, kv = config, config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q_proj, self.k_proj, self.v_proj = (
            layers.Linear(c.width, n, rngs, c.param_dtype, bias=c.qkv_bias) for n in (q, kv, kv)
        )
        self.o_proj = layers.Linear(q, c.width, rngs, c.param_dtype)
        if c.qk_norm:
            self.q_norm, self.k_norm = (layers.Scale(c.head_dim, 1.0, c.param_dtype) for _ in range(2))
        self.config = c

    def __call__(self, x: jax.Array, cos: jax.Array, sin: jax.Array, mask: jax.Array) -> jax.Array:
        c = self.config
        q, k, v = (p(x).reshape(*x.shape[:-1], -1, c.head_dim) for p in (self.q_proj, self.k_proj, self.v_proj))
        if c.qk_norm:
            q, k = (layers.rms_norm(y, n.scale[...], c.eps) for y, n in ((q, self.q_norm), (k, self.k_norm)))
        q, k = (rope.rotate(y, cos, sin) for y in (q, k))
        k, v = (jnp.repeat(y, c.heads // c.kv_heads, axis=-2) for y in (k, v))
        return self.o_proj(attend(q, k, v, mask).reshape(*x.shape[:-1], -1))


class MLP(nnx.Module):
    def __init__(self, config: Config, rngs: nnx.Rngs):
        d, hidden, dtype = config.width, config.intermediate, config.param_dtype
        self.gate_proj, self.up_proj = (layers.Linear(d, hidden, rngs, dtype) for _ in range(2))
        self.down_proj = layers.Linear(hidden, d, rngs, dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down_proj(layers.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nnx.Module):
    def __init__(self, config: Config, rngs: nnx.Rngs):
        self.attn, self.mlp, self.eps = Attention(config, rngs), MLP(config, rngs), config.eps
        self.attn_norm, self.mlp_norm = (layers.Scale(config.width, 1.0, config.param_dtype) for _ in range(2))

    def __call__(self, h: jax.Array, cos: jax.Array, sin: jax.Array, mask: jax.Array) -> jax.Array:
        h = h + self.attn(layers.rms_norm(h, self.attn_norm.scale[...], self.eps), cos, sin, mask)
        return h + self.mlp(layers.rms_norm(h, self.mlp_norm.scale[...], self.eps))


class Decoder(nnx.Module):
    """Embedding and layers; the blocks are stacked on a leading axis."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        self.config = config
        self.embed = nnx.Embed(config.vocab, config.width, param_dtype=config.param_dtype, rngs=rngs)
        self.blocks = layers.stack(lambda r: Block(config, r), config.depth, rngs)
        if config.final_norm:
            self.norm = layers.Scale(config.width, 1.0, config.param_dtype)

    def embedded(self, tokens: jax.Array) -> jax.Array:
        """Embeddings [B, L, width] of token ids [B, L]."""
        return self.embed.embedding[...][tokens].astype(self.config.dtype)

    def __call__(self, h: jax.Array, token_length: jax.Array, angles: jax.Array, visual=None) -> jax.Array:
        """States [B, L, len(features) * width], float32.

        h [B, L, width]: what the first layer reads, of which ``token_length`` int32 [B] are real. angles [L, head_dim
        / 2]: rotary angles. visual: (slots int [S], values [n, B, S, width]), added at these places to what the first
        n layers hand on, or None.
        """
        c, index = self.config, jnp.arange(h.shape[1])
        mask = (index[:, None] >= index) & (index < token_length[:, None])[:, None, None, :]
        cos, sin = jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]
        wanted = np.reshape(c.features, (-1, 1, 1, 1))

        def body(block, carry, layer):
            h, features = carry
            h = block(h, cos, sin, mask)
            features = jnp.where(wanted == layer + 1, h, features)
            return (_add_visual(h, layer, visual), features), None

        start = h, jnp.zeros((len(c.features), *h.shape), h.dtype)
        numbers = np.arange(c.depth)
        how = dict(scan=c.scan_layers, remat="none")
        (_, features), _ = layers.run_stack(self.blocks, c.depth, body, start, numbers, **how)
        if c.final_norm:
            features = layers.rms_norm(features, self.norm.scale[...], c.eps)
        return jnp.moveaxis(features, 0, 2).reshape(*h.shape[:2], -1).astype(jnp.float32)


def _add_visual(h, layer, visual):
    if visual is None:
        return h
    slots, values = visual
    own = values[jnp.minimum(layer, len(values) - 1)]
    return h.at[:, slots].add(jnp.where(layer < len(values), own, 0).astype(h.dtype))


def rotary_angles(config: Config, positions: np.ndarray, axis_of: np.ndarray | None = None) -> jax.Array:
    """Angles [L, head_dim / 2] of positions [L, axes]. ``axis_of`` [head_dim / 2]: which axis each frequency turns
    with; None: all with the first."""
    axis_of = np.zeros(config.head_dim // 2, int) if axis_of is None else axis_of
    (frequencies,) = rope.frequencies((config.head_dim,), config.theta)
    return jnp.asarray(positions[:, axis_of], jnp.float32) * frequencies


def check_sections(mrope_section: tuple[int, ...], head_dim: int) -> None:
    """Raises ValueError unless the rotary frequencies of time, row and column make up a head."""
    if 2 * sum(mrope_section) != head_dim:
        raise ValueError(f"mrope_section {mrope_section} must sum to half of head_dim {head_dim}.")


def check_kind(config: Mapping[str, Any], kind: str, name: str) -> None:
    """Raises UserError unless ``config`` is the ``config.json`` of the ``kind`` of model that people call ``name``."""
    if config.get("model_type") != kind:
        raise UserError(f"config.json has model_type = {config.get('model_type')!r}; a {name} model's has {kind!r}.")


def read_sizes(config: Mapping[str, Any], **extra: Any) -> dict[str, Any]:
    """The sizes in a ``config.json`` of one of these text models, of transformers 4 or 5. Raises UserError for a
    setting that is not built, and for a size that is missing."""
    names = {
        "layers": "num_hidden_layers", "width": "hidden_size", "heads": "num_attention_heads",
        "kv_heads": "num_key_value_heads", "intermediate": "intermediate_size", "vocab": "vocab_size",
        "eps": "rms_norm_eps",
    }  # fmt: skip
    if missing := [name for name in names.values() if config.get(name) is None]:
        raise UserError(f"The text encoder's config.json lacks {', '.join(missing)}.")
    rotary = read_rotary(config)
    found = {
        "hidden_act": config.get("hidden_act", "silu"),
        "use_sliding_window": config.get("use_sliding_window") or False,
        "rope_type": "default" if rotary["type"] == "mrope" else rotary["type"],
        **{name: config.get(name, wanted) for name, wanted in extra.items()},
    }
    wanted = {"hidden_act": "silu", "use_sliding_window": False, "rope_type": "default", **extra}
    for name, value in found.items():
        if value != wanted[name]:
            raise UserError(f"The text encoder's config.json has {name} = {value!r}; only {wanted[name]!r} is built.")
    sizes = {field: config[name] for field, name in names.items()}
    head_dim = config.get("head_dim") or sizes["width"] // sizes["heads"]
    return {**sizes, "head_dim": head_dim, "theta": float(rotary["theta"]), "features": (sizes["layers"],)}


def read_rotary(config: Mapping[str, Any]) -> dict[str, Any]:
    """``theta``, ``type`` and (where there is one) ``mrope_section`` of a ``config.json``: transformers 5 keeps them
    in one place, 4 in two."""
    rotary = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = rotary.get("rope_theta", config.get("rope_theta"))
    if theta is None:
        raise UserError("The text encoder's config.json lacks rope_theta.")
    kind = rotary.get("rope_type", rotary.get("type", "default"))
    return {"theta": theta, "type": kind, "mrope_section": rotary.get("mrope_section")}
