"""A picture file as people see it, which is not always as it lies in the file."""

from PIL import Image, ImageOps


def upright(image: Image.Image) -> Image.Image:
    """The picture in RGB as browsers show it: turned as its EXIF says, which cameras leave to the reader, and on white
    where it is transparent."""
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of the mode {image.mode} have no white")
    if image.mode.startswith("I;16"):  # Pillow would cut its 65,536 greys off at 255
        image = image.convert("I").point(lambda grey: grey / 257).convert("L")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")
