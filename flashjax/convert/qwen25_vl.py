"""Qwen2.5-VL: transformers' `Qwen2_5_VLForConditionalGeneration` names to `flashjax.models.qwen25_vl`."""

from flashjax.convert.qwen3 import HEAD, decoder_rules
from flashjax.convert.qwen3_vl import RENAMES
from flashjax.convert.table import Rule, Table, permute, with_bias

CLASSES = ("Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLModel")

_V = "model.visual."
_BLOCK = _V + "blocks.{l}."

TABLE = Table(
    rules=(
        *decoder_rules("model.language_model.", "language/", qk_norm=False, qkv_bias=True),
        Rule(_V + "patch_embed.proj.weight", "vision/patch_embed/kernel", permute(2, 3, 4, 1, 0)),
        *with_bias(_BLOCK + "attn.{p:qkv|proj}", "vision/blocks/attn/{p}", slot="[{l}]"),
        *with_bias(_BLOCK + "mlp.{p:gate_proj|up_proj|down_proj}", "vision/blocks/mlp/{p}", slot="[{l}]"),
        Rule(_BLOCK + "{p:norm1|norm2}.weight", "vision/blocks/{p}/scale[{l}]"),
        Rule(_V + "merger.ln_q.weight", "vision/merger/norm/scale"),
        *with_bias(_V + "merger.mlp.0", "vision/merger/linear_1"),
        *with_bias(_V + "merger.mlp.2", "vision/merger/linear_2"),
    ),
    drops=(HEAD,),
    renames=RENAMES,
)
