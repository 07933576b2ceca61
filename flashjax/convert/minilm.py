"""all-MiniLM-L6-v2: transformers' `BertModel` names to `flashjax.models.minilm`."""

from flashjax.convert.table import Rule, Table, drop, transpose

CLASSES = ("BertModel",)
_LAYER = "encoder.layer.{l}."

TABLE = Table(
    rules=(
        Rule("embeddings.word_embeddings.weight", "words/embedding"),
        Rule("embeddings.position_embeddings.weight", "positions/embedding"),
        Rule("embeddings.token_type_embeddings.weight", "token_types/embedding"),
        Rule("embeddings.LayerNorm.weight", "norm/scale"),
        Rule("embeddings.LayerNorm.bias", "norm/bias"),
        Rule(
            _LAYER + "attention.self.{p:query|key|value}.weight",
            "blocks/attn/{p}/kernel[{l}]",
            transpose,
        ),
        Rule(_LAYER + "attention.self.{p:query|key|value}.bias", "blocks/attn/{p}/bias[{l}]"),
        Rule(_LAYER + "attention.output.dense.weight", "blocks/attn/out/kernel[{l}]", transpose),
        Rule(_LAYER + "attention.output.dense.bias", "blocks/attn/out/bias[{l}]"),
        Rule(_LAYER + "attention.output.LayerNorm.weight", "blocks/attn_norm/scale[{l}]"),
        Rule(_LAYER + "attention.output.LayerNorm.bias", "blocks/attn_norm/bias[{l}]"),
        Rule(_LAYER + "intermediate.dense.weight", "blocks/mlp_in/kernel[{l}]", transpose),
        Rule(_LAYER + "intermediate.dense.bias", "blocks/mlp_in/bias[{l}]"),
        Rule(_LAYER + "output.dense.weight", "blocks/mlp_out/kernel[{l}]", transpose),
        Rule(_LAYER + "output.dense.bias", "blocks/mlp_out/bias[{l}]"),
        Rule(_LAYER + "output.LayerNorm.weight", "blocks/mlp_norm/scale[{l}]"),
        Rule(_LAYER + "output.LayerNorm.bias", "blocks/mlp_norm/bias[{l}]"),
    ),
    drops=(
        drop(r"embeddings[.]position_ids", "a constant 0..511, no weight"),
        drop(r"pooler[.].*", "the sentence pooler; flashjax uses the states of the tokens"),
    ),
)
