"""Qwen3: transformers' `Qwen3ForCausalLM` names to `flashjax.models.qwen3`.

`decoder_rules` serves the vision-language models too, whose language layers have the same names.
"""

from flashjax.convert.table import Rule, Table, drop, transpose

CLASSES = ("Qwen3ForCausalLM", "Qwen3Model")

HEAD = drop(r"lm_head[.]weight", "the head that predicts tokens; the encoder's result is its states")
_BEHIND = "behind the last layer whose states are used"


def decoder_rules(source: str, target: str = "", *, qk_norm: bool, qkv_bias: bool) -> tuple[Rule, ...]:
    """The rows of the language model; the prefixes stand before every name."""
    layer, block = source + "layers.{l}.", target + "blocks/"
    rules = [
        Rule(source + "embed_tokens.weight", target + "embed/embedding"),
        Rule(source + "norm.weight", target + "norm/scale", surplus=_BEHIND),
        _stacked(layer + "self_attn.{p:[qkvo]_proj}.weight", block + "attn/{p}/kernel", transpose),
        _stacked(layer + "mlp.{p:gate_proj|up_proj|down_proj}.weight", block + "mlp/{p}/kernel", transpose),
        _stacked(layer + "input_layernorm.weight", block + "attn_norm/scale"),
        _stacked(layer + "post_attention_layernorm.weight", block + "mlp_norm/scale"),
    ]
    if qk_norm:
        rules.append(_stacked(layer + "self_attn.{p:q_norm|k_norm}.weight", block + "attn/{p}/scale"))
    if qkv_bias:
        rules.append(_stacked(layer + "self_attn.{p:[qkv]_proj}.bias", block + "attn/{p}/bias"))
    return tuple(rules)


def _stacked(source: str, target: str, *transform) -> Rule:
    return Rule(source, target + "[{l}]", *transform, surplus=_BEHIND)


TABLE = Table(
    rules=decoder_rules("model.", qk_norm=True, qkv_bias=False),
    drops=(HEAD,),
    renames=((r"(?=(embed_tokens|layers|norm)[.])", "model."),),  # a Qwen3Model saved without its head
)
