"""all-MiniLM-L6-v2: transformers' `BertModel` names to `flashjax.models.minilm`."""

from flashjax.convert.table import Rule, Table, drop, with_bias

CLASSES = ("BertModel",)
_LAYER = "encoder.layer.{l}."

TABLE = Table(
    rules=(
        Rule("embeddings.word_embeddings.weight", "words/embedding"),
        Rule("embeddings.position_embeddings.weight", "positions/embedding"),
        Rule("embeddings.token_type_embeddings.weight", "token_types/embedding"),
        Rule("embeddings.LayerNorm.weight", "norm/scale"),
        Rule("embeddings.LayerNorm.bias", "norm/bias"),
        *with_bias(_LAYER + "attention.self.{p:query|key|value}", "blocks/{l}/attn/{p}"),
        *with_bias(_LAYER + "attention.output.dense", "blocks/{l}/attn/out"),
        Rule(_LAYER + "attention.output.LayerNorm.weight", "blocks/{l}/attn_norm/scale"),
        Rule(_LAYER + "attention.output.LayerNorm.bias", "blocks/{l}/attn_norm/bias"),
        *with_bias(_LAYER + "intermediate.dense", "blocks/{l}/mlp_in"),
        *with_bias(_LAYER + "output.dense", "blocks/{l}/mlp_out"),
        Rule(_LAYER + "output.LayerNorm.weight", "blocks/{l}/mlp_norm/scale"),
        Rule(_LAYER + "output.LayerNorm.bias", "blocks/{l}/mlp_norm/bias"),
    ),
    drops=(
        drop(r"embeddings[.]position_ids", "a constant 0..511, no weight"),
        drop(r"pooler[.].*", "the sentence pooler; flashjax uses the states of the tokens"),
    ),
)
