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
            "blocks/{l}/attn/{p}/kernel",
            transpose,
        ),
        Rule(_LAYER + "attention.self.{p:query|key|value}.bias", "blocks/{l}/attn/{p}/bias"),
        Rule(_LAYER + "attention.output.dense.weight", "blocks/{l}/attn/out/kernel", transpose),
        Rule(_LAYER + "attention.output.dense.bias", "blocks/{l}/attn/out/bias"),
        Rule(_LAYER + "attention.output.LayerNorm.weight", "blocks/{l}/attn_norm/scale"),
        Rule(_LAYER + "attention.output.LayerNorm.bias", "blocks/{l}/attn_norm/bias"),
        Rule(_LAYER + "intermediate.dense.weight", "blocks/{l}/mlp_in/kernel", transpose),
        Rule(_LAYER + "intermediate.dense.bias", "blocks/{l}/mlp_in/bias"),
        Rule(_LAYER + "output.dense.weight", "blocks/{l}/mlp_out/kernel", transpose),
        Rule(_LAYER + "output.dense.bias", "blocks/{l}/mlp_out/bias"),
        Rule(_LAYER + "output.LayerNorm.weight", "blocks/{l}/mlp_norm/scale"),
        Rule(_LAYER + "output.LayerNorm.bias", "blocks/{l}/mlp_norm/bias"),
    ),
    drops=(
        drop(r"embeddings[.]position_ids", "a constant 0..511, no weight"),
        drop(r"pooler[.].*", "the sentence pooler; flashjax uses the states of the tokens"),
    ),
)
