"""The Qwen-Image-2.1 autoencoder: diffusers' `AutoencoderKLQwenImage21` names to
`flashjax.models.vae_qwen_image_21`."""

from flashjax.convert.convolutions import KERNEL, convolution, qwen_rows, vector
from flashjax.convert.table import Rule, Table, drop

CLASSES = ("AutoencoderKLQwenImage21",)

_BLOCK, _AT = "encoder.down_blocks.{i}.resnets.{j}.", "encoder/down/{i}/resnets/{j}/"

TABLE = Table(
    rules=(
        *qwen_rows(KERNEL),
        *convolution(_BLOCK + "{p:conv1|conv2|conv_shortcut}", _AT + "{p}"),
        Rule(_BLOCK + "{p:norm1|norm2}.gamma", _AT + "{p}/scale", vector(4)),
        *convolution("encoder.down_blocks.{i}.downsampler.resample.1", "encoder/down/{i}/resample"),
        *convolution("decoder.up_blocks.{i}.upsampler.resample.1", "decoder/up/{i}/resample"),
    ),
    drops=(drop(r".*[.]time_conv[.](weight|bias)", "acts between the frames of a video; a picture has one frame"),),
)
