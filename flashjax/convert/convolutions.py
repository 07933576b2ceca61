"""What the tables of the autoencoders share."""

import numpy as np

from flashjax.convert.table import Rule, Transform, permute, with_bias

SIDE = "{side:encoder|decoder}"
KERNEL = permute(2, 3, 1, 0)  # [O, I, h, w] -> [h, w, I, O]
VIDEO_KERNEL = permute(2, 3, 4, 1, 0)  # [O, I, t, h, w] -> [t, h, w, I, O]
# A linear layer [O, I] as a 1 x 1 convolution [1, 1, I, O].
LINEAR = Transform("linear to 1 x 1", lambda x: permute(1, 0).forward(x)[None, None], lambda x: x[0, 0].T)


def vector(axes: int) -> Transform:
    """[C, 1, ...] with that many axes -> [C]."""

    def forward(x: np.ndarray) -> np.ndarray:
        if x.ndim != axes:
            raise ValueError(f"no vector with {axes} axes")
        return x.reshape(len(x))

    return Transform(f"vector of {axes} axes", forward, lambda x: x.reshape(-1, *[1] * (axes - 1)))


def convolution(source: str, target: str, kernel: Transform = KERNEL) -> tuple[Rule, Rule]:
    """The two rows of a convolution."""
    return with_bias(source, target, kernel)


def qwen_rows(kernel: Transform) -> tuple[Rule, ...]:
    """All that both Qwen-Image autoencoders call by the same name; ``kernel`` is for the convolutions that would span
    frames in a video."""
    norm, mid, up = vector(4), SIDE + ".mid_block.", "decoder.up_blocks.{i}.resnets.{j}."
    at_mid, at_up = "{side}/mid/", "decoder/up/{i}/resnets/{j}/"
    rows = []
    for number, name in ((0, "before"), (1, "after")):
        block = f"{mid}resnets.{number}."
        rows += convolution(block + "{p:conv1|conv2}", f"{at_mid}{name}/{{p}}", kernel)
        rows.append(Rule(block + "{p:norm1|norm2}.gamma", f"{at_mid}{name}/{{p}}/scale", norm))
    return (
        *convolution("{p:quant_conv|post_quant_conv}", "{p}", kernel),
        *convolution(SIDE + ".{p:conv_in|conv_out}", "{side}/{p}", kernel),
        Rule(SIDE + ".norm_out.gamma", "{side}/norm_out/scale", norm),
        *rows,
        Rule(mid + "attentions.0.norm.gamma", at_mid + "attention/norm/scale", vector(3)),
        *convolution(mid + "attentions.0.to_qkv", at_mid + "attention/to_qkv"),
        *convolution(mid + "attentions.0.proj", at_mid + "attention/to_out"),
        *convolution(up + "{p:conv1|conv2|conv_shortcut}", at_up + "{p}", kernel),
        Rule(up + "{p:norm1|norm2}.gamma", at_up + "{p}/scale", norm),
    )
