"""FLUX.2 [klein]: diffusers' `Flux2Transformer2DModel` names to `flashjax.models.flux2`.

The model has no bias anywhere: 9 tensors outside the blocks, 16 in each double block and 4 in each
single one (169 for klein 4B). FLUX.2 [dev]'s guidance embedder has no row, as it is not built.
"""

from flashjax.convert.table import Rule, Table, transpose

CLASSES = ("Flux2Transformer2DModel",)

_DOUBLE, _SINGLE = "transformer_blocks.{l}.", "single_transformer_blocks.{l}."
_TXT, _IMG = "blocks/double/txt/", "blocks/double/img/"

# Black Forest Labs' names. Not among them is final_layer.adaLN_modulation.1, whose two halves are exchanged.
_THEIR_DOUBLE, _THEIR_SINGLE = "double_blocks.{l}.", "single_blocks.{l}."
_NATIVE = (
    *(Rule(f"{_DOUBLE}attn.to_{p}.weight", _THEIR_DOUBLE + "img_attn.qkv") for p in "qkv"),
    *(Rule(f"{_DOUBLE}attn.add_{p}_proj.weight", _THEIR_DOUBLE + "txt_attn.qkv") for p in "qkv"),
    Rule(_DOUBLE + "attn.to_out.0.weight", _THEIR_DOUBLE + "img_attn.proj"),
    Rule(_DOUBLE + "attn.to_add_out.weight", _THEIR_DOUBLE + "txt_attn.proj"),
    Rule(_DOUBLE + "ff.linear_in.weight", _THEIR_DOUBLE + "img_mlp.0"),
    Rule(_DOUBLE + "ff.linear_out.weight", _THEIR_DOUBLE + "img_mlp.2"),
    Rule(_DOUBLE + "ff_context.linear_in.weight", _THEIR_DOUBLE + "txt_mlp.0"),
    Rule(_DOUBLE + "ff_context.linear_out.weight", _THEIR_DOUBLE + "txt_mlp.2"),
    Rule(_SINGLE + "attn.to_qkv_mlp_proj.weight", _THEIR_SINGLE + "linear1"),
    Rule(_SINGLE + "attn.to_out.weight", _THEIR_SINGLE + "linear2"),
    Rule("x_embedder.weight", "img_in"),
    Rule("context_embedder.weight", "txt_in"),
    Rule("time_guidance_embed.timestep_embedder.linear_1.weight", "time_in.in_layer"),
    Rule("time_guidance_embed.timestep_embedder.linear_2.weight", "time_in.out_layer"),
    Rule("double_stream_modulation_{p:txt|img}.linear.weight", "double_stream_modulation_{p}.lin"),
    Rule("single_stream_modulation.linear.weight", "single_stream_modulation.lin"),
    Rule("proj_out.weight", "final_layer.linear"),
)

TABLE = Table(
    rules=(
        Rule(
            "time_guidance_embed.timestep_embedder.{p:linear_1|linear_2}.weight",
            "time_embed/{p}/kernel",
            transpose,
        ),
        Rule("context_embedder.weight", "txt_in/kernel", transpose),
        Rule("x_embedder.weight", "img_in/kernel", transpose),
        Rule("double_stream_modulation_{p:txt|img}.linear.weight", "modulation_{p}/kernel", transpose),
        Rule("single_stream_modulation.linear.weight", "modulation_single/kernel", transpose),
        Rule("norm_out.linear.weight", "norm_out/kernel", transpose),
        Rule("proj_out.weight", "proj_out/kernel", transpose),
        Rule(_DOUBLE + "attn.to_{p:q|k|v}.weight", _IMG + "to_{p}/kernel[{l}]", transpose),
        Rule(_DOUBLE + "attn.to_out.0.weight", _IMG + "to_out/kernel[{l}]", transpose),
        Rule(_DOUBLE + "attn.norm_{p:q|k}.weight", _IMG + "norm/{p}/scale[{l}]"),
        Rule(_DOUBLE + "ff.linear_{p:in|out}.weight", _IMG + "mlp_{p}/kernel[{l}]", transpose),
        Rule(_DOUBLE + "attn.add_{p:q|k|v}_proj.weight", _TXT + "to_{p}/kernel[{l}]", transpose),
        Rule(_DOUBLE + "attn.to_add_out.weight", _TXT + "to_out/kernel[{l}]", transpose),
        Rule(_DOUBLE + "attn.norm_added_{p:q|k}.weight", _TXT + "norm/{p}/scale[{l}]"),
        Rule(_DOUBLE + "ff_context.linear_{p:in|out}.weight", _TXT + "mlp_{p}/kernel[{l}]", transpose),
        Rule(_SINGLE + "attn.to_qkv_mlp_proj.weight", "blocks/single/proj_in/kernel[{l}]", transpose),
        Rule(_SINGLE + "attn.to_out.weight", "blocks/single/proj_out/kernel[{l}]", transpose),
        Rule(_SINGLE + "attn.norm_{p:q|k}.weight", "blocks/single/norm/{p}/scale[{l}]"),
    ),
    native=_NATIVE,
    comfyui="",  # diffusion_model. is for Black Forest Labs' names
)
