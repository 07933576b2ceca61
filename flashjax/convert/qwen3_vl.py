"""Qwen3-VL: transformers' `Qwen3VLForConditionalGeneration` names to `flashjax.models.qwen3_vl`."""

from flashjax.convert.qwen3 import HEAD, decoder_rules
from flashjax.convert.table import Rule, Table, permute, transpose, with_bias

CLASSES = ("Qwen3VLForConditionalGeneration", "Qwen3VLModel")

_V = "model.visual."
_BLOCK = _V + "blocks.{l}."
_DEEP = _V + "deepstack_merger_list.{l}."

RENAMES = (  # without "model." the model was saved without its head; older files have no "language_model."
    (r"(?=(visual|language_model)[.])", "model."),
    (r"model[.](?!(visual|language_model)[.])", "model.language_model."),
)

TABLE = Table(
    rules=(
        *decoder_rules("model.language_model.", "language/", qk_norm=True, qkv_bias=False),
        Rule(_V + "patch_embed.proj.weight", "vision/patch_embed/kernel", permute(2, 3, 4, 1, 0)),
        Rule(_V + "patch_embed.proj.bias", "vision/patch_embed/bias"),
        Rule(_V + "pos_embed.weight", "vision/pos_embed/embedding"),
        *with_bias(_BLOCK + "attn.{p:qkv|proj}", "vision/blocks/attn/{p}", slot="[{l}]"),
        *with_bias(_BLOCK + "mlp.{p:linear_fc1|linear_fc2}", "vision/blocks/mlp/{p}", slot="[{l}]"),
        Rule(_BLOCK + "{p:norm1|norm2}.weight", "vision/blocks/{p}/scale[{l}]"),
        Rule(_BLOCK + "{p:norm1|norm2}.bias", "vision/blocks/{p}/bias[{l}]"),
        Rule(_V + "merger.{p:linear_fc1|linear_fc2}.weight", "vision/merger/{p}/kernel", transpose),
        Rule(_V + "merger.{p:linear_fc1|linear_fc2|norm}.bias", "vision/merger/{p}/bias"),
        Rule(_V + "merger.norm.weight", "vision/merger/norm/scale"),
        Rule(_DEEP + "{p:linear_fc1|linear_fc2}.weight", "vision/deepstack/{p}/kernel[{l}]", transpose),
        Rule(_DEEP + "{p:linear_fc1|linear_fc2|norm}.bias", "vision/deepstack/{p}/bias[{l}]"),
        Rule(_DEEP + "norm.weight", "vision/deepstack/norm/scale[{l}]"),
    ),
    drops=(HEAD,),
    renames=RENAMES,
)
