"""Qwen-Image-2.1: diffusers' `QwenImage21Transformer2DModel` names to
`flashjax.models.qwen_image_21`.

The model has no bias anywhere: 9 tensors outside the blocks and 9 in each (297 for the real 32
layers).
"""

from flashjax.convert.table import Rule, Table, transpose

CLASSES = ("QwenImage21Transformer2DModel",)
_BLOCK = "transformer_blocks.{l}."

TABLE = Table(
    rules=(
        Rule(
            "time_text_embed.timestep_embedder.{p:linear_1|linear_2}.weight",
            "time_embed/{p}/kernel",
            transpose,
        ),
        Rule("txt_in.text_norm.weight", "text_norm/scale"),
        Rule("txt_in.{p:in_layer|out_layer}.weight", "text_in/{p}/kernel", transpose),
        Rule("img_in.weight", "img_in/kernel", transpose),
        Rule("modulation.1.weight", "modulation/kernel", transpose),
        Rule("norm_out.linear.weight", "norm_out/kernel", transpose),
        Rule("proj_out.weight", "proj_out/kernel", transpose),
        Rule(_BLOCK + "attn.{p:to_q|to_k|to_v}.weight", "blocks/attn/{p}/kernel[{l}]", transpose),
        Rule(_BLOCK + "attn.to_out.0.weight", "blocks/attn/to_out/kernel[{l}]", transpose),
        Rule(_BLOCK + "attn.{p:norm_q|norm_k}.weight", "blocks/attn/{p}/scale[{l}]"),
        Rule(_BLOCK + "img_mlp.{p:proj|out}.weight", "blocks/mlp/{p}/kernel[{l}]", transpose),
        Rule(_BLOCK + "img_mlp.gate_layer.weight", "blocks/mlp/gate/kernel[{l}]", transpose),
    ),
    # ComfyUI joins these two when it loads the model, and knows them by themselves only without diffusion_model.
    native=tuple(Rule(f"{_BLOCK}img_mlp.{p}.weight", _BLOCK + "img_mlp.gate_up") for p in ("gate_layer", "proj")),
    comfyui="",
)
