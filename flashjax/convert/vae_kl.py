"""FLUX.2's and Z-Image's autoencoders: diffusers' `AutoencoderKLFlux2` and `AutoencoderKL` names to
`flashjax.models.vae_kl`."""

from flashjax.convert.convolutions import LINEAR, SIDE, convolution
from flashjax.convert.table import Rule, Table, drop

CLASSES = ("AutoencoderKL", "AutoencoderKLFlux2")


def _norm(source: str, target: str) -> tuple[Rule, Rule]:
    return Rule(source + ".weight", target + "/scale"), Rule(source + ".bias", target + "/bias")


def _block(source: str, target: str) -> tuple[Rule, ...]:
    return (
        *convolution(source + ".{p:conv1|conv2|conv_shortcut}", target + "/{p}"),
        *_norm(source + ".{p:norm1|norm2}", target + "/{p}"),
    )


_MID, _AT_MID = SIDE + ".mid_block.", "{side}/mid/"

TABLE = Table(
    rules=(
        *convolution("{p:quant_conv|post_quant_conv}", "{p}"),
        *convolution(SIDE + ".{p:conv_in|conv_out}", "{side}/{p}"),
        *_norm(SIDE + ".conv_norm_out", "{side}/norm_out"),
        *_block(_MID + "resnets.0", _AT_MID + "before"),
        *_block(_MID + "resnets.1", _AT_MID + "after"),
        *_norm(_MID + "attentions.0.group_norm", _AT_MID + "attention/norm"),
        *convolution(_MID + "attentions.0.{p:to_q|to_k|to_v}", _AT_MID + "attention/{p}", LINEAR),
        *convolution(_MID + "attentions.0.to_out.0", _AT_MID + "attention/to_out", LINEAR),
        *_block(SIDE + ".{w:down|up}_blocks.{i}.resnets.{j}", "{side}/{w}/{i}/resnets/{j}"),
        *convolution(SIDE + ".{w:down|up}_blocks.{i}.{w:down|up}samplers.0.conv", "{side}/{w}/{i}/resample"),
        Rule("bn.running_{p:mean|var}", "bn/{p}"),
    ),
    drops=(drop(r"bn[.]num_batches_tracked", "counts training steps; the statistics no longer move"),),
)
