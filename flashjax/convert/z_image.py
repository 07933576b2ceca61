"""Z-Image: diffusers' `ZImageTransformer2DModel` names to `flashjax.models.z_image`.

15 tensors outside the blocks, 15 in each of the real 30 + 2 modulated blocks, 13 in each of the 2
context refiners, which have no modulation (521 in all). "2-1" is the patch: 2 x 2 latents of one
frame.
"""

from flashjax.convert.table import Rule, Table, transpose, with_bias

CLASSES = ("ZImageTransformer2DModel",)

_STACKS = (("noise_refiner", "noise_refiner"), ("context_refiner", "context_refiner"), ("layers", "blocks"))
_ANY = "{s:noise_refiner|context_refiner|layers}.{l}."


def _block(source: str, target: str) -> tuple[Rule, ...]:
    source = source + ".{l}."
    return (
        Rule(source + "attention.{p:to_q|to_k|to_v}.weight", target + "/attn/{p}/kernel[{l}]", transpose),
        Rule(source + "attention.to_out.0.weight", target + "/attn/to_out/kernel[{l}]", transpose),
        Rule(source + "attention.{p:norm_q|norm_k}.weight", target + "/attn/{p}/scale[{l}]"),
        Rule(source + "feed_forward.{p:w1|w2|w3}.weight", target + "/mlp/{p}/kernel[{l}]", transpose),
        Rule(source + "{p:attention_norm1|attention_norm2|ffn_norm1|ffn_norm2}.weight", target + "/{p}/scale[{l}]"),
        *with_bias(source + "adaLN_modulation.0", target + "/modulation", slot="[{l}]"),
    )


TABLE = Table(
    rules=(
        Rule("{p:x_pad_token|cap_pad_token}", "{p}"),
        *with_bias("t_embedder.mlp.0", "time_embed/linear_1"),
        *with_bias("t_embedder.mlp.2", "time_embed/linear_2"),
        Rule("cap_embedder.0.weight", "text_norm/scale"),
        *with_bias("cap_embedder.1", "text_in"),
        *with_bias("all_x_embedder.2-1", "img_in"),
        *with_bias("all_final_layer.2-1.adaLN_modulation.1", "norm_out"),
        *with_bias("all_final_layer.2-1.linear", "proj_out"),
        *(rule for stack in _STACKS for rule in _block(*stack)),
    ),
    native=(
        *(Rule(f"{_ANY}attention.to_{p}.weight", "{s}.{l}.attention.qkv") for p in "qkv"),
        Rule(_ANY + "attention.to_out.0.weight", "{s}.{l}.attention.out"),
        Rule("all_x_embedder.2-1.weight", "x_embedder"),
        Rule("all_final_layer.2-1.{p:linear|adaLN_modulation.1}.weight", "final_layer.{p}"),
    ),
)
