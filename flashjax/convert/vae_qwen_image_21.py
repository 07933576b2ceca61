"""The Qwen-Image-2.1 autoencoder: diffusers' `AutoencoderKLQwenImage21` names to
`flashjax.models.vae_qwen_image_21`."""

from flashjax.convert.convolutions import KERNEL, convolution, qwen_rows, vector
from flashjax.convert.table import Rule, Table

CLASSES = ("AutoencoderKLQwenImage21",)

_BLOCK, _AT = "encoder.down_blocks.{i}.resnets.{j}.", "encoder/down/{i}/resnets/{j}/"

TABLE = Table(
    rules=(
        *qwen_rows(KERNEL),
        *convolution(_BLOCK + "{p:conv1|conv2|conv_shortcut}", _AT + "{p}"),
        Rule(_BLOCK + "{p:norm1|norm2}.gamma", _AT + "{p}/scale", vector(4)),
        *convolution("encoder.down_blocks.{i}.downsampler.resample.1", "encoder/down/{i}/resample"),
        *convolution("encoder.down_blocks.{i}.downsampler.time_conv", "encoder/down/{i}/resample/time_conv"),
        *convolution("decoder.up_blocks.{i}.upsampler.resample.1", "decoder/up/{i}/resample"),
        *convolution("decoder.up_blocks.{i}.upsampler.time_conv", "decoder/up/{i}/resample/time_conv"),
    ),
)
