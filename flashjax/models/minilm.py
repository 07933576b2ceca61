"""MiniLM: the BERT-style sentence encoder that gives text states on a laptop (all-MiniLM-L6-v2,
22.6 M parameters).

Source: `BertModel` of transformers (post-LN, exact GELU, absolute positions), checked against it to
1e-5. The pooler is left out: flashjax conditions on the states of the single tokens.

Letters: B batch, L tokens of the longest prompt, N true tokens of all prompts together, D width, H heads.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from flashjax.errors import UserError
from flashjax.models import network


@dataclass(frozen=True)
class Config:
    """Sizes of the encoder, all-MiniLM-L6-v2's by default."""

    layers: int = 6
    width: int = 384
    heads: int = 12
    intermediate: int = 1536
    vocab: int = 30522
    positions: int = 512
    token_types: int = 2
    eps: float = 1e-12

    @classmethod
    def tiny(cls) -> "Config":
        """Two narrow layers for tests."""
        return cls(layers=2, width=32, heads=4, intermediate=64, vocab=101, positions=40)

    @classmethod
    def from_transformers(cls, config: Mapping[str, Any]) -> "Config":
        """Read the `config.json` of a transformers BertModel.

        Raises:
          UserError: the file describes another kind of model, or lacks a size.
        """
        fixed = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
        for key, wanted in fixed.items():
            if config.get(key, wanted) != wanted:
                raise UserError(
                    f"The text encoder's config.json has {key} = {config[key]!r}; only {wanted!r} is built."
                )
        names = {
            "layers": "num_hidden_layers", "width": "hidden_size", "heads": "num_attention_heads",
            "intermediate": "intermediate_size", "vocab": "vocab_size", "eps": "layer_norm_eps",
            "positions": "max_position_embeddings", "token_types": "type_vocab_size"
        }  # fmt: skip
        if missing := [name for name in names.values() if name not in config]:
            raise UserError(f"The text encoder's config.json lacks {', '.join(missing)}; is it a BertModel's?")
        return cls(**{field: config[name] for field, name in names.items()})


class Layout(NamedTuple):
    """Where the true tokens of a padded batch are: they lie side by side, [N], so that a short prompt costs what it is
    long. Only attention puts them back into rows. (With every prompt padded to the longest, encoding the captions of
    64 pictures took 1.8 times as long.)

    Attributes:
      mask: [B, L] bool, true tokens.
      places: [N] int32, of every token its place in the flat batch, B L; the surplus of N repeats the first place.
      order: [B, L] int32, of every place its token in [N]; of padding, any.
    """

    mask: jax.Array
    places: jax.Array
    order: jax.Array

    @classmethod
    def of(cls, mask: jax.Array, tokens: int) -> "Layout":
        flat = mask.reshape(-1)
        order = jnp.maximum(jnp.cumsum(flat) - 1, 0).reshape(mask.shape)
        return cls(mask, jnp.flatnonzero(flat, size=tokens, fill_value=0), order)

    def rows(self, x: jax.Array) -> jax.Array:
        """[N, ...] to [B, L, ...]."""
        return x[self.order]

    def tokens(self, x: jax.Array) -> jax.Array:
        """[B, L, ...] to [N, ...]."""
        return x.reshape(-1, *x.shape[2:])[self.places]


def _norm(config: Config, rngs: nnx.Rngs) -> nnx.LayerNorm:
    # The fast variance E[x^2] - E[x]^2 loses digits that the parity with PyTorch needs.
    return nnx.LayerNorm(config.width, epsilon=config.eps, use_fast_variance=False, rngs=rngs)


class Attention(nnx.Module):
    """Bidirectional self-attention with biases everywhere."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.heads = config.heads
        self.query = nnx.Linear(config.width, config.width, rngs=rngs)
        self.key = nnx.Linear(config.width, config.width, rngs=rngs)
        self.value = nnx.Linear(config.width, config.width, rngs=rngs)
        self.out = nnx.Linear(config.width, config.width, rngs=rngs)

    def __call__(self, x: jax.Array, layout: Layout) -> jax.Array:
        heads = (len(x), self.heads, x.shape[1] // self.heads)  # [N, H, D/H]
        q, k, v = (layout.rows(layer(x).reshape(heads)) for layer in (self.query, self.key, self.value))
        states = jax.nn.dot_product_attention(q, k, v, mask=layout.mask[:, None, None, :])
        return self.out(layout.tokens(states).reshape(x.shape))


class Block(nnx.Module):
    """One post-LN transformer layer."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.attn = Attention(config, rngs=rngs)
        self.attn_norm = _norm(config, rngs)
        self.mlp_in = nnx.Linear(config.width, config.intermediate, rngs=rngs)
        self.mlp_out = nnx.Linear(config.intermediate, config.width, rngs=rngs)
        self.mlp_norm = _norm(config, rngs)

    def __call__(self, x: jax.Array, layout: Layout) -> jax.Array:
        x = self.attn_norm(x + self.attn(x, layout))
        hidden = jax.nn.gelu(self.mlp_in(x), approximate=False)
        return self.mlp_norm(x + self.mlp_out(hidden))


class MiniLM(nnx.Module):
    """The encoder. Its six blocks have each their own parameters: stacked ones would be taken apart, and copied, in
    every call, which took a fifth of the time of encoding a few prompts."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.config = config
        self.words = nnx.Embed(config.vocab, config.width, rngs=rngs)
        self.positions = nnx.Embed(config.positions, config.width, rngs=rngs)
        self.token_types = nnx.Embed(config.token_types, config.width, rngs=rngs)
        self.norm = _norm(config, rngs)
        self.blocks = nnx.Dict({str(layer): Block(config, rngs=rngs) for layer in range(config.layers)})

    def __call__(self, ids: jax.Array, mask: jax.Array, tokens: int | None = None) -> jax.Array:
        """Encode token ids.

        Args:
          ids: [B, L] int32 in [0, vocab), L <= positions.
          mask: [B, L] bool or 0/1, true at real tokens (padding on the right).
          tokens: static; at least the true tokens of all rows together, as few as are computed. None: B L. Tokens
            beyond it have no states.

        Returns:
          Last hidden states [B, L, D] float32; at padded places the values have no meaning.

        Raises:
          ValueError: L exceeds the learned positions.
        """
        if ids.shape[1] > self.config.positions:
            raise ValueError(f"The text has {ids.shape[1]} tokens, the encoder has {self.config.positions} positions.")
        layout = Layout.of(jnp.asarray(mask, bool), ids.size if tokens is None else tokens)
        words = self.words(layout.tokens(jnp.asarray(ids)))
        x = self.norm(words + self.token_types.embedding[0] + self.positions(layout.places % ids.shape[1]))
        for layer in range(self.config.layers):
            x = self.blocks[str(layer)](x, layout)
        return layout.rows(x)


init = partial(network.init, MiniLM)
abstract = partial(network.abstract, MiniLM)


def encoder(config: Config) -> Callable[..., jax.Array]:
    """Return `encode(params, ids, mask, tokens=None) -> states`, pure and not jitted; see `MiniLM.__call__`."""
    graphdef = network.graphdef(MiniLM, config)

    def encode(params: dict[str, Any], ids: jax.Array, mask: jax.Array, tokens: int | None = None) -> jax.Array:
        return nnx.merge(graphdef, params)(ids, mask, tokens)

    return encode
