"""Qwen2.5-VL: transformers' `Qwen2_5_VLForConditionalGeneration` names to `flashjax.models.qwen25_vl`."""

from flashjax.convert.qwen3 import HEAD, decoder_rules
from flashjax.convert.qwen3_vl import RENAMES
from flashjax.convert.table import Rule, Table, permute, transpose

CLASSES = ("Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLModel")

_V = "model.visual."
_BLOCK = _V + "blocks.{l}."

TABLE = Table(
    rules=(
        *decoder_rules("model.language_model.", "language/", qk_norm=False, qkv_bias=True),
        Rule(_V + "patch_embed.proj.weight", "vision/patch_embed/kernel", permute(2, 3, 4, 1, 0)),
        Rule(_BLOCK + "attn.{p:qkv|proj}.weight", "vision/blocks/attn/{p}/kernel[{l}]", transpose),
        Rule(_BLOCK + "attn.{p:qkv|proj}.bias", "vision/blocks/attn/{p}/bias[{l}]"),
        Rule(_BLOCK + "mlp.{p:gate_proj|up_proj|down_proj}.weight", "vision/blocks/mlp/{p}/kernel[{l}]", transpose),
        Rule(_BLOCK + "mlp.{p:gate_proj|up_proj|down_proj}.bias", "vision/blocks/mlp/{p}/bias[{l}]"),
        Rule(_BLOCK + "{p:norm1|norm2}.weight", "vision/blocks/{p}/scale[{l}]"),
        Rule(_V + "merger.ln_q.weight", "vision/merger/norm/scale"),
        Rule(_V + "merger.mlp.0.weight", "vision/merger/linear_1/kernel", transpose),
        Rule(_V + "merger.mlp.0.bias", "vision/merger/linear_1/bias"),
        Rule(_V + "merger.mlp.2.weight", "vision/merger/linear_2/kernel", transpose),
        Rule(_V + "merger.mlp.2.bias", "vision/merger/linear_2/bias"),
    ),
    drops=(HEAD,),
    renames=RENAMES,
)
