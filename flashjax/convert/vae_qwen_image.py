"""The Qwen-Image autoencoder: diffusers' `AutoencoderKLQwenImage` names to `flashjax.models.vae_qwen_image`.

PyTorch's kernels span three frames, the third being the one that is computed. A picture has no frames before it, so
only that slice is kept, and the way back writes zeros into the other two: not the same weights, but the same function
on pictures (a video would see each frame on its own).
"""

from flashjax.convert.convolutions import LAST_SLICE, convolution, qwen_rows, vector
from flashjax.convert.table import Rule, Table, drop

CLASSES = ("AutoencoderKLQwenImage",)

TABLE = Table(
    rules=(
        *qwen_rows(LAST_SLICE),
        *convolution("encoder.down_blocks.{i}.{p:conv1|conv2|conv_shortcut}", "encoder/down/{i}/{p}", LAST_SLICE),
        Rule("encoder.down_blocks.{i}.{p:norm1|norm2}.gamma", "encoder/down/{i}/{p}/scale", vector(4)),
        *convolution("encoder.down_blocks.{i}.resample.1", "encoder/down/{i}"),
        *convolution("decoder.up_blocks.{i}.upsamplers.0.resample.1", "decoder/up/{i}/resample"),
    ),
    drops=(drop(r".*[.]time_conv[.](weight|bias)", "acts between the frames of a video; a picture has one frame"),),
)
