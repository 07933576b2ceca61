"""Qwen-Image, first generation: diffusers' `QwenImageTransformer2DModel` names to
`flashjax.models.qwen_image`.

Every linear layer has a bias: 13 tensors outside the blocks and 32 in each (1933 for the real 60
layers). diffusers keeps both streams' projections in one attention module and calls the text's
`add_*`; here each stream (`img`, `txt`) is one subtree of the same form.
"""

from flashjax.convert.table import Rule, Table, with_bias

CLASSES = ("QwenImageTransformer2DModel",)

_BLOCK = "transformer_blocks.{l}."


def _block_linear(source: str, target: str) -> tuple[Rule, Rule]:
    return with_bias(_BLOCK + source, f"blocks/{target}", slot="[{l}]")


TABLE = Table(
    rules=(
        *with_bias("time_text_embed.timestep_embedder.{p:linear_1|linear_2}", "time_embed/{p}"),
        Rule("txt_norm.weight", "txt_norm/scale"),
        *with_bias("{p:img_in|txt_in|proj_out}", "{p}"),
        *with_bias("norm_out.linear", "norm_out"),
        *_block_linear("{s:img|txt}_mod.1", "{s}/mod"),
        *_block_linear("attn.to_{p:q|k|v}", "img/attn/to_{p}"),
        *_block_linear("attn.add_{p:q|k|v}_proj", "txt/attn/to_{p}"),
        *_block_linear("attn.to_out.0", "img/attn/to_out"),
        *_block_linear("attn.to_add_out", "txt/attn/to_out"),
        Rule(_BLOCK + "attn.norm_{p:q|k}.weight", "blocks/img/attn/norm_{p}/scale[{l}]"),
        Rule(_BLOCK + "attn.norm_added_{p:q|k}.weight", "blocks/txt/attn/norm_{p}/scale[{l}]"),
        *_block_linear("{s:img|txt}_mlp.net.0.proj", "{s}/mlp/hidden"),
        *_block_linear("{s:img|txt}_mlp.net.2", "{s}/mlp/out"),
    ),
)
