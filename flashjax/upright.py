"""A picture file as people see it, which is not always as it lies in the file."""

import struct
import zlib

from PIL import Image, ImageOps

# What Pillow raises for a file that is missing, is no picture, or is damaged.
UNREADABLE = (
    OSError, ValueError, SyntaxError, Image.DecompressionBombError, struct.error, zlib.error, EOFError, LookupError,
    OverflowError, RuntimeError, TypeError,
)  # fmt: skip


def upright(image: Image.Image) -> Image.Image:
    """The picture in RGB as browsers show it: turned as its EXIF says, which cameras leave to the reader, and on white
    where it is transparent."""
    image = eight_bits(ImageOps.exif_transpose(image))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def eight_bits(image: Image.Image) -> Image.Image:
    """The picture in a mode that Pillow can convert to any other. Raises ValueError for those without a white."""
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of the mode {image.mode} have no white")
    if image.mode.startswith("I;16"):  # Pillow would cut its 65,536 greys off at 255
        return image.convert("I").point(lambda grey: grey / 257).convert("L")
    return image
