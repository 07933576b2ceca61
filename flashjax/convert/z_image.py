"""Z-Image: diffusers' `ZImageTransformer2DModel` names to `flashjax.models.z_image`.

15 tensors outside the blocks, 15 in each of the real 30 + 2 modulated blocks, 13 in each of the 2
context refiners, which have no modulation (521 in all). "2-1" is the patch: 2 x 2 latents of one
frame.
"""

from flashjax.convert.table import Rule, Table, transpose

CLASSES = ("ZImageTransformer2DModel",)

_STACKS = (("noise_refiner", "noise_refiner"), ("context_refiner", "context_refiner"), ("layers", "blocks"))


def _linear(source: str, target: str) -> tuple[Rule, Rule]:
    return Rule(f"{source}.weight", f"{target}/kernel", transpose), Rule(f"{source}.bias", f"{target}/bias")


def _block(source: str, target: str) -> tuple[Rule, ...]:
    source = source + ".{l}."
    return (
        Rule(source + "attention.{p:to_q|to_k|to_v}.weight", target + "/attn/{p}/kernel[{l}]", transpose),
        Rule(source + "attention.to_out.0.weight", target + "/attn/to_out/kernel[{l}]", transpose),
        Rule(source + "attention.{p:norm_q|norm_k}.weight", target + "/attn/{p}/scale[{l}]"),
        Rule(source + "feed_forward.{p:w1|w2|w3}.weight", target + "/mlp/{p}/kernel[{l}]", transpose),
        Rule(source + "{p:attention_norm1|attention_norm2|ffn_norm1|ffn_norm2}.weight", target + "/{p}/scale[{l}]"),
        Rule(source + "adaLN_modulation.0.weight", target + "/modulation/kernel[{l}]", transpose),
        Rule(source + "adaLN_modulation.0.bias", target + "/modulation/bias[{l}]"),
    )


TABLE = Table(
    rules=(
        Rule("{p:x_pad_token|cap_pad_token}", "{p}"),
        *_linear("t_embedder.mlp.0", "time_embed/linear_1"),
        *_linear("t_embedder.mlp.2", "time_embed/linear_2"),
        Rule("cap_embedder.0.weight", "text_norm/scale"),
        *_linear("cap_embedder.1", "text_in"),
        *_linear("all_x_embedder.2-1", "img_in"),
        *_linear("all_final_layer.2-1.adaLN_modulation.1", "norm_out"),
        *_linear("all_final_layer.2-1.linear", "proj_out"),
        *(rule for stack in _STACKS for rule in _block(*stack)),
    ),
)
