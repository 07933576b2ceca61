"""The Qwen-Image autoencoder: diffusers' `AutoencoderKLQwenImage` names to `flashjax.models.vae_qwen_image`."""

from flashjax.convert.convolutions import VIDEO_KERNEL, convolution, qwen_rows, vector
from flashjax.convert.table import Rule, Table

CLASSES = ("AutoencoderKLQwenImage",)

TABLE = Table(
    rules=(
        *qwen_rows(VIDEO_KERNEL),
        *convolution("encoder.down_blocks.{i}.{p:conv1|conv2|conv_shortcut}", "encoder/down/{i}/{p}", VIDEO_KERNEL),
        Rule("encoder.down_blocks.{i}.{p:norm1|norm2}.gamma", "encoder/down/{i}/{p}/scale", vector(4)),
        *convolution("encoder.down_blocks.{i}.resample.1", "encoder/down/{i}"),
        *convolution("encoder.down_blocks.{i}.time_conv", "encoder/down/{i}/time_conv", VIDEO_KERNEL),
        *convolution("decoder.up_blocks.{i}.upsamplers.0.resample.1", "decoder/up/{i}/resample"),
        *convolution("decoder.up_blocks.{i}.upsamplers.0.time_conv", "decoder/up/{i}/resample/time_conv", VIDEO_KERNEL),
    ),
)
