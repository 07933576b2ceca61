"""Qwen3, the text encoder of Z-Image (4B) and FLUX.2-klein (4B and 9B; the latter's encoder has 8B parameters).

Source: transformers' ``Qwen3Model``; tests/models compare with it. ``qwen_decoder`` holds the network.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flashjax import flow
from flashjax.errors import about_settings
from flashjax.models import network, qwen_decoder
from flashjax.models.qwen_decoder import Decoder, rotary_angles

PRESETS = ("z_image", "flux2_klein_4b", "flux2_klein_9b", "tiny")  # class methods of Config


@dataclasses.dataclass(frozen=True)
class Config(qwen_decoder.Config):
    """See ``qwen_decoder.Config``."""

    @classmethod
    def from_transformers(cls, config: Mapping[str, Any], **overrides) -> "Config":
        """Sizes from the ``config.json`` of a Qwen3 model; ``features`` and whatever else is wanted are overrides (the
        states of the last layer before the norm otherwise). Raises UserError for another model's."""
        qwen_decoder.check_kind(config, "qwen3", "Qwen3")
        with about_settings():
            return cls(**(qwen_decoder.read_sizes(config, attention_bias=False) | overrides))

    @classmethod
    def z_image(cls, **overrides) -> "Config":
        """Qwen3-4B, the last layer but one."""
        return cls(**(dict(features=(35,)) | overrides))

    @classmethod
    def flux2_klein_4b(cls, **overrides) -> "Config":
        """Qwen3-4B, three layers side by side: 7680 channels."""
        return cls(**(dict(features=(9, 18, 27)) | overrides))

    @classmethod
    def flux2_klein_9b(cls, **overrides) -> "Config":
        """Qwen3-8B, three layers side by side: 12288 channels."""
        return cls(**(dict(width=4096, intermediate=12_288, features=(9, 18, 27)) | overrides))

    @classmethod
    def tiny(cls, **overrides) -> "Config":
        """For tests."""
        small = dict(
            layers=3, width=32, heads=4, kv_heads=2, head_dim=8, intermediate=48, vocab=97, features=(3,),
            dtype=jnp.float32, param_dtype=jnp.float32, scan_layers=False,
        )  # fmt: skip
        return cls(**(small | overrides))


init = partial(network.init, Decoder)
abstract = partial(network.abstract, Decoder)


def encoder(config: Config) -> Callable[[flow.Params, jax.Array, jax.Array], jax.Array]:
    """``encode(params, tokens, token_length) -> states``.

    tokens int32 [B, L], padded on the right; token_length int32 [B], at least 1. States float32 [B, L, len(features) *
    width]. A padding token looks at all real tokens and at no padding, as in transformers: FLUX.2-klein reads its
    states.
    """
    graphdef = network.graphdef(Decoder, config)

    def encode(params, tokens: jax.Array, token_length: jax.Array) -> jax.Array:
        decoder = nnx.merge(graphdef, params)
        angles = rotary_angles(config, np.arange(tokens.shape[1])[:, None])
        return decoder(decoder.embedded(tokens), token_length, angles)

    return encode
