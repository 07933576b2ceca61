"""Signs: one word in a real font, as large as the picture allows."""

from __future__ import annotations

import functools
import importlib.resources
import itertools

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from flashjax.data.postcards import _phrases
from flashjax.errors import UserError

__all__ = [
    "ATTRIBUTES",
    "EDIT_BOX",
    "HELDOUT_WORDS",
    "TRAINING_WORDS",
    "caption",
    "edit",
    "readable",
    "render",
    "sample",
]

TRAINING_WORDS: tuple[str, ...] = (
    "GO", "UP", "NO", "HI", "JAX", "TPU", "RUN", "SKY", "ZOO", "TEA", "ICE", "SUN", "ART", "BUS",
    "CAT", "HOT", "SALE", "OPEN", "CAFE", "LOVE", "NEWS", "STOP", "BLUE", "GOLD", "KING", "MOON",
    "STAR", "LUCK", "FAST", "HELLO", "FLASH", "PIZZA", "MUSIC", "HOTEL", "DREAM", "SHARK",
)  # fmt: skip
HELDOUT_WORDS: tuple[str, ...] = ("ON", "FUN", "CAR", "LAKE", "TIME", "HOUSE")

_INK = {
    "black": (22, 22, 26),
    "red": (204, 26, 34),
    "blue": (24, 52, 190),
    "green": (10, 104, 44),
    "white": (252, 252, 252),
    "yellow": (255, 218, 40),
}
_PAPER = {
    "white": (250, 250, 246),
    "yellow": (252, 222, 84),
    "pink": (252, 190, 208),
    "light green": (184, 240, 196),
    "navy": (18, 28, 88),
    "black": (24, 24, 28),
    "orange": (250, 158, 56),
}

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "word": TRAINING_WORDS + HELDOUT_WORDS,
    "ink": tuple(_INK),
    "paper": tuple(_PAPER),
    "position": ("top", "center", "bottom"),
    "border": ("none", "border"),
    "font": ("plain", "bold", "serif"),
}
# Empty: an edit of the word spares what is above and below it, one of the border spares
# what is inside it, and neither is the outside of one box.
EDIT_BOX: dict[str, tuple[float, float, float, float]] = {}

_CENTER = {"top": 0.3, "center": 0.5, "bottom": 0.7}
_TEXT_WIDTH = 0.84
_TEXT_HEIGHT = (0.33, 0.38)
_FONT_FILES = {
    "bold": ("font_source_sans_pro", "SourceSansPro-Black.ttf"),
    "serif": ("font_caladea", "Caladea-Bold.ttf"),
}


def _luminance(color: tuple[int, int, int]) -> float:
    c = np.array(color) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))


@functools.cache
def readable(ink: str, paper: str) -> bool:
    """Whether letters of this ink can be read on this paper (contrast ratio of 3.4 or more)."""
    low, high = sorted((_luminance(_INK[ink]), _luminance(_PAPER[paper])))
    return (high + 0.05) / (low + 0.05) >= 3.4


_PAIRS = tuple(p for p in itertools.product(_INK, _PAPER) if readable(*p))


def sample(rng: np.random.Generator) -> dict[str, str]:
    """A random readable description, over training and held-out words alike."""
    spec = {k: v[int(rng.integers(len(v)))] for k, v in ATTRIBUTES.items()}
    spec["ink"], spec["paper"] = _phrases.pick(rng, _PAIRS)
    return spec


@functools.lru_cache(maxsize=8)
def _font(name: str) -> ImageFont.FreeTypeFont:
    if name == "plain":
        return ImageFont.load_default(size=160)
    package, file = _FONT_FILES[name]
    try:
        folder = importlib.resources.files(package)
    except ModuleNotFoundError as error:
        raise UserError(
            f"The '{name}' font of the postcards comes from the package {package.replace('_', '-')}, which is not "
            "installed; run `pip install 'flashjax[postcards]'`."
        ) from error
    with importlib.resources.as_file(folder / "files" / file) as path:
        return ImageFont.truetype(str(path), 160)


@functools.lru_cache(maxsize=1024)
def _mask(word: str, font: str, big: int) -> Image.Image:
    """Coverage of the word, scaled to fill its box; long words are stretched upwards."""
    face, stroke = _font(font), 3 if font == "plain" else 0
    left, top, right, bottom = face.getbbox(word, stroke_width=stroke)
    glyphs = Image.new("L", (round(right - left), round(bottom - top)), 0)
    ImageDraw.Draw(glyphs).text((-left, -top), word, fill=255, font=face, stroke_width=stroke)
    low, high = (h * big for h in _TEXT_HEIGHT)
    scale = min(_TEXT_WIDTH * big / glyphs.width, high / glyphs.height)
    height = max(glyphs.height * scale, min(low, glyphs.height * scale * 2.0))
    size = (round(glyphs.width * scale), round(height))
    return glyphs.resize(size, Image.Resampling.LANCZOS)


def render(spec: dict[str, str], size: int, seed: int) -> np.ndarray:
    """Draw a sign.

    Args:
        spec: a full description, as `sample` gives it.
        size: side of the square picture in pixels.
        seed: shifts the word by up to a pixel and jitters the colours slightly.

    Returns:
        uint8 array [size, size, 3], the same for the same arguments.
    """
    big, rng = size * (4 if size <= 48 else 3), np.random.default_rng([seed, 21])
    ink, paper = (
        tuple(int(c) for c in np.clip(np.array(base) + rng.uniform(-6, 6, 3), 0, 255))
        for base in (_INK[spec["ink"]], _PAPER[spec["paper"]])
    )
    dx, dy = rng.uniform(-0.012, 0.012, 2)
    image = Image.new("RGB", (big, big), paper)
    if spec["border"] != "none":
        edge = ImageDraw.Draw(image)
        edge.rectangle([0, 0, big - 1, big - 1], outline=ink, width=round(0.055 * big))
    mask = _mask(spec["word"], spec["font"], big)
    x = round((0.5 + dx) * big - mask.width / 2)
    y = round((_CENTER[spec["position"]] + dy) * big - mask.height / 2)
    image.paste(ink, (x, y), mask)
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))


def _letters(spec: dict[str, str], named: tuple[str, ...]) -> str:
    """'red serif letters', or '' where neither ink nor font is named."""
    words = [spec[a] for a in ("ink", "font") if a in named]
    return " ".join([*words, "letters"]) if words else ""


def caption(spec: dict[str, str], named: tuple[str, ...], rng: np.random.Generator) -> str:
    """An English caption naming exactly the attributes in `named`, phrased at random."""
    paper = f"a {spec['paper']} " if "paper" in named else "a "
    letters, word = _letters(spec, named), "word" in named
    place = {
        "top": "at the top",
        "center": "in the center",
        "bottom": "at the bottom",
    }[spec["position"]]
    extra = [place] if "position" in named else []
    rim = "without a border" if spec["border"] == "none" else "with a border"
    rim = f" {rim}" if "border" in named else ""
    style = int(rng.integers(4))
    text = f'"{spec["word"]}"' if word else "a word"
    if style == 0:
        says = f"that says {text}" if word else "with a word"
        tail = [f"in {letters}"] * bool(letters) + extra
        return " ".join([f"{paper}sign{rim}", says, *_phrases.shuffled(rng, tail)])
    inside = " ".join([text, *([f"in {letters}"] if letters else []), *extra])
    if style == 1:
        return f"{inside} on {paper}sign{rim}"
    if style == 2:
        lead = "the word " if word else ""
        return f"{lead}{inside}, {paper}postcard{rim}"
    return f"{paper}card{rim} reading {inside}" if word else f"{paper}card{rim} with {inside}"


def edit(spec: dict[str, str], rng: np.random.Generator) -> tuple[dict[str, str], str, str]:
    """Change one attribute (the word most often) to another readable value.

    Returns:
        The new description, an instruction in words, and the attribute changed.
    """
    attribute = _phrases.pick(rng, ("word", "word", *ATTRIBUTES))
    options = [v for v in ATTRIBUTES[attribute] if v != spec[attribute]]
    specs = [{**spec, attribute: v} for v in options]
    specs = [s for s in specs if readable(s["ink"], s["paper"])]
    if not specs:
        return edit(spec, rng)
    target = _phrases.pick(rng, specs)
    new = target[attribute]
    instruction = {
        "word": f'change the word to "{new}"',
        "ink": f"make the letters {new}",
        "paper": f"make the sign {new}",
        "position": f"move the word to the {new}",
        "border": "remove the border" if new == "none" else "add a border",
        "font": f"write the word in {new} letters",
    }[attribute]
    return target, instruction, attribute
