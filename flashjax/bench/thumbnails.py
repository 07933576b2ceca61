"""Small pictures in a page, as large as all of them together may be."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from flashjax.errors import UserError
from flashjax.upright import upright

__all__ = ["fitting", "thumbnail"]

_SIZES = ((384, 80), (320, 75), (256, 65), (192, 55), (128, 45), (96, 30))  # side in pixels, WebP quality


def fitting(paths: Sequence[Path], most: float) -> tuple[int, int]:
    """Side in pixels and WebP quality of the largest thumbnails that are ``most`` bytes of base64 together, judged by a
    few of the pictures; the smallest where none are."""
    sample = paths[:: max(1, len(paths) // 16)]
    for size in _SIZES:
        if sum(len(thumbnail(p, *size)) for p in sample) / max(1, len(sample)) * len(paths) <= most:
            return size
    return _SIZES[-1]


def thumbnail(path: Path, side: int, quality: int) -> str:
    """base64 of a WebP; pictures of up to 64 px stay as they are, as lossless WebP. Raises UserError for a file that
    cannot be decoded."""
    out = io.BytesIO()
    try:
        with Image.open(path) as opened:
            image = upright(opened)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"The picture {path} cannot be shown ({error}); draw it anew.") from error
    small = max(image.size) <= 64
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    image.save(out, "WEBP", quality=quality, lossless=small, method=0)
    return base64.b64encode(out.getvalue()).decode()
