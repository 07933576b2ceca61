"""Portraits: vector avatars drawn in cached layers, cropped to the face."""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image

from flashjax.data.postcards import _phrases
from flashjax.errors import UserError

try:
    import python_avatars as pa
    import resvg_py
except ModuleNotFoundError as error:
    raise UserError(
        f"The portraits of the postcards need {error.name}, which is not installed; run "
        "`pip install 'flashjax[postcards]'`."
    ) from error

__all__ = ["ATTRIBUTES", "EDIT_BOX", "caption", "edit", "render", "sample"]

_HAIR = {
    "short": pa.HairType.SHORT_FLAT,
    "long": pa.HairType.STRAIGHT_STRAND,
    "bob": pa.HairType.BOB,
    "curly": pa.HairType.CURLY,
    "bun": pa.HairType.BUN,
    "afro": pa.HairType.FRO,
    "wavy": pa.HairType.BIG_HAIR,
    "messy": pa.HairType.WILD,
    "mohawk": pa.HairType.MOHAWK,
    "dreadlocks": pa.HairType.DREADS,
}
_HAIR_COLOR = {
    "black": "#231815",
    "brown": "#7A4528",
    "blonde": "#E8C25A",
    "red": "#D8390A",
    "gray": "#C9CBD2",
    "pink": "#F06FB4",
}
_SKIN = {"light": "#FFDBB4", "tan": "#D08B5B", "dark": "#6B4630"}
_FACE = {
    "smiling": (pa.MouthType.SMILE, pa.EyeType.DEFAULT, pa.EyebrowType.DEFAULT),
    "serious": (pa.MouthType.SERIOUS, pa.EyeType.DEFAULT, pa.EyebrowType.FLAT_NATURAL),
    "sad": (pa.MouthType.SAD, pa.EyeType.DEFAULT, pa.EyebrowType.SAD_CONCERNED),
    "surprised": (pa.MouthType.SCREAM_OPEN, pa.EyeType.SURPRISED, pa.EyebrowType.RAISED_EXCITED),
    "silly": (pa.MouthType.TONGUE, pa.EyeType.HAPPY, pa.EyebrowType.DEFAULT),
}
_EYEWEAR = {
    "none": pa.AccessoryType.NONE,
    "glasses": pa.AccessoryType.PRESCRIPTION_2,
    "sunglasses": pa.AccessoryType.WAYFARERS,
    "eyepatch": pa.AccessoryType.EYEPATCH,
}
_BEARD = {
    "none": pa.FacialHairType.NONE,
    "beard": pa.FacialHairType.BEARD_MEDIUM,
    "mustache": pa.FacialHairType.MOUSTACHE_MAGNUM,
}
_CLOTHES = {
    "hoodie": pa.ClothingType.HOODIE,
    "t-shirt": pa.ClothingType.SHIRT_CREW_NECK,
    "overalls": pa.ClothingType.OVERALL,
    "sweater": pa.ClothingType.COLLAR_SWEATER,
}
_CLOTHES_COLOR = {
    "red": "#E0343A",
    "blue": "#2F6FD0",
    "white": "#F6F6F6",
    "black": "#2A2A30",
    "green": "#2E9E58",
}
_BACKGROUND = {
    "blue": (120, 180, 248),
    "pink": (252, 176, 204),
    "yellow": (252, 228, 110),
    "green": (150, 220, 150),
    "gray": (170, 172, 180),
    "purple": (176, 140, 230),
}

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "hair": tuple(_HAIR),
    "hair color": tuple(_HAIR_COLOR),
    "skin": tuple(_SKIN),
    "mood": tuple(_FACE),
    "eyewear": tuple(_EYEWEAR),
    "beard": tuple(_BEARD),
    "clothes": tuple(_CLOTHES),
    "clothes color": tuple(_CLOTHES_COLOR),
    "background": tuple(_BACKGROUND),
}
# The unit box (left, top, right, bottom) outside which an edit of the attribute leaves
# every pixel as it was (at 32 px and more); attributes that are absent may change pixels anywhere.
EDIT_BOX: dict[str, tuple[float, float, float, float]] = {
    "eyewear": (0.06, 0.03, 0.94, 0.75),
    "mood": (0.12, 0.25, 0.88, 0.97),
    "beard": (0.06, 0.34, 0.94, 1.0),
    "clothes": (0.0, 0.71, 1.0, 1.0),
    "clothes color": (0.0, 0.71, 1.0, 1.0),
}

# The square of the avatar's 264 x 280 canvas that is shown.
_CROP = (25.0, 4.0, 214.0)
_EYES = ('fill="#000000" cx="{}" cy="22" r="6"', 'fill="#000000" cx="{}" cy="22" r="10"')
_MOUTH = ('"translate(2.000000, 52.000000)"', '"translate(-16.0, 42.0) scale(1.33)"')


def sample(rng: np.random.Generator) -> dict[str, str]:
    """A random description; bare eyes and bare chins are drawn more often than the rest."""
    spec = {k: v[int(rng.integers(len(v)))] for k, v in ATTRIBUTES.items()}
    if rng.random() < 0.3:
        spec["eyewear"] = "none"
    if rng.random() < 0.4:
        spec["beard"] = "none"
    return spec


def _raster(avatar: dict, hidden: tuple[str, ...], big: int) -> Image.Image:
    """One layer of the avatar as RGBA [big, big], with the hidden groups left out."""
    base = {
        "style": pa.AvatarStyle.TRANSPARENT,
        "top": pa.HairType.NONE,
        "clothing": pa.ClothingType.NONE,
        "accessory": pa.AccessoryType.NONE,
        "facial_hair": pa.FacialHairType.NONE,
    }
    svg = pa.Avatar(**(base | avatar)).render().replace(*_MOUTH)
    for x in (30, 82):
        svg = svg.replace(_EYES[0].format(x), _EYES[1].format(x))
    svg = svg.replace('fill-opacity="0.599999964"', 'fill-opacity="0.85"')
    left, top, side = _CROP
    window = f'width="{big}px" height="{big}px" viewBox="{left} {top} {side} {side}"'
    svg = svg.replace('width="264px" height="280px" viewBox="0 0 264 280"', window)
    style = "".join(f"#transparent_{name}{{display:none}}" for name in hidden)
    png = resvg_py.svg_to_bytes(svg_string=svg, style_sheet=style, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


@functools.lru_cache(maxsize=256)
def _body(skin: str, clothes: str, color: str, big: int) -> Image.Image:
    avatar = {
        "skin_color": _SKIN[skin],
        "clothing": _CLOTHES[clothes],
        "clothing_color": _CLOTHES_COLOR[color],
    }
    return _raster(avatar, ("Face", "Top"), big)


@functools.lru_cache(maxsize=64)
def _features(mood: str, big: int) -> Image.Image:
    mouth, eyes, eyebrows = _FACE[mood]
    avatar = {"mouth": mouth, "eyes": eyes, "eyebrows": eyebrows}
    return _raster(avatar, ("Body", "Clothing", "Top"), big)


@functools.lru_cache(maxsize=256)
def _top(hair: str, beard: str, color: str, eyewear: str, big: int) -> Image.Image:
    avatar = {
        "top": _HAIR.get(hair, pa.HairType.NONE),
        "hair_color": _HAIR_COLOR[color],
        "facial_hair": _BEARD[beard],
        "facial_hair_color": _HAIR_COLOR[color],
        "accessory": _EYEWEAR[eyewear],
    }
    return _raster(avatar, ("Body", "Clothing", "Face"), big)


def _layers(spec: dict[str, str], big: int) -> list[Image.Image]:
    color = spec["hair color"]
    return [
        _body(spec["skin"], spec["clothes"], spec["clothes color"], big),
        _features(spec["mood"], big),
        _top(spec["hair"], "none", color, "none", big),
        _top("", spec["beard"], color, "none", big),
        _top("", "none", "black", spec["eyewear"], big),
    ]


def _backdrop(name: str, big: int, rng: np.random.Generator) -> Image.Image:
    """A plain colour, a little lighter around a point behind the head."""
    color = np.array(_BACKGROUND[name]) + rng.uniform(-8, 8, 3)
    axis = np.linspace(-1, 1, big, dtype=np.float32)
    x, y = rng.uniform(-0.3, 0.3, 2)
    glow = np.exp(-((axis - x) ** 2)[None, :] - ((axis - y) ** 2)[:, None])
    shaded = np.clip(color * (0.9 + 0.14 * glow[..., None]), 0, 255)
    return Image.fromarray(shaded.astype(np.uint8)).convert("RGBA")


def render(spec: dict[str, str], size: int, seed: int) -> np.ndarray:
    """Draw a portrait.

    Args:
        spec: a full description, as `sample` gives it.
        size: side of the square picture in pixels.
        seed: mirrors and shifts the figure and jitters the colours slightly.

    Returns:
        uint8 array [size, size, 3], the same for the same arguments.
    """
    big, rng = size * (4 if size <= 48 else 3), np.random.default_rng([seed, 31])
    dx = int(rng.integers(-big // 40, big // 40 + 1))
    dy = int(rng.integers(0, big // 32 + 1))
    mirrored = rng.random() < 0.5
    image = _backdrop(spec["background"], big, rng)
    figure = Image.new("RGBA", (big, big))
    for layer in _layers(spec, big):
        figure.alpha_composite(layer)
    if mirrored:
        figure = figure.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image.paste(figure, (dx, dy), figure)
    return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.LANCZOS))


def _hair_phrase(spec: dict[str, str], named: tuple[str, ...]) -> str:
    hair = spec["hair"] if "hair" in named else ""
    color = spec["hair color"] if "hair color" in named else ""
    patterns = {
        "": "{}hair",
        "bob": "a {}bob haircut",
        "bun": "{}hair in a bun",
        "afro": "a {}afro" if color else "an {}afro",
        "mohawk": "a {}mohawk",
        "dreadlocks": "{}dreadlocks",
    }
    pattern = patterns.get(hair, f"{hair} {{}}hair")
    return pattern.format(f"{color} " if color else "")


def _clothes_phrase(spec: dict[str, str], named: tuple[str, ...]) -> str:
    color = f"{spec['clothes color']} " if "clothes color" in named else ""
    if "clothes" not in named:
        return f"{color}clothes"
    return f"{color}overalls" if spec["clothes"] == "overalls" else f"a {color}{spec['clothes']}"


def _say(attribute: str, spec: dict[str, str], named: tuple[str, ...]) -> str:
    value = spec[attribute]
    if attribute.startswith("hair"):
        return _hair_phrase(spec, named)
    if attribute.startswith("clothes"):
        return _clothes_phrase(spec, named)
    if attribute == "eyewear":
        return {"none": "no glasses", "eyepatch": "an eyepatch"}.get(value, value)
    if attribute == "beard":
        return "no beard" if value == "none" else f"a {value}"
    if attribute == "background":
        return f"a {value} background"
    return f"{value} skin" if attribute == "skin" else f"a {value} face"


def caption(spec: dict[str, str], named: tuple[str, ...], rng: np.random.Generator) -> str:
    """An English caption naming exactly the attributes in `named`, phrased at random."""
    if not named:
        return _phrases.pick(rng, ("a portrait", "a portrait of a person", "a drawing of a face"))
    style = int(rng.integers(5))
    order = _phrases.shuffled(rng, named)
    mood = f"{spec['mood']} " if "mood" in named and style in (0, 1) else ""
    rest = [a for a in order if not (a == "mood" and mood)]
    # Hair and its colour are one phrase, and so are clothes and theirs.
    parts = list(dict.fromkeys(_say(a, spec, named) for a in rest))
    person = f"a {mood}person" if style == 0 else f"a portrait of a {mood}person"
    if style in (0, 1):
        return f"{person} with {_phrases.join(rng, parts)}" if parts else person
    listed = _phrases.join(rng, parts)
    return {2: f"a portrait with {listed}", 3: f"someone with {listed}"}.get(style, listed)


def edit(spec: dict[str, str], rng: np.random.Generator) -> tuple[dict[str, str], str, str]:
    """Change one attribute.

    Returns:
        The new description, an instruction in words, and the attribute changed.
    """
    attribute = _phrases.pick(rng, tuple(ATTRIBUTES))
    new = _phrases.pick(rng, tuple(v for v in ATTRIBUTES[attribute] if v != spec[attribute]))
    target = {**spec, attribute: new}
    return target, _instruction(attribute, spec[attribute], target), attribute


def _instruction(attribute: str, old: str, target: dict[str, str]) -> str:
    new, phrase = target[attribute], _say(attribute, target, (attribute,))
    if attribute in ("eyewear", "beard"):
        if new == "none":
            return f"remove the {old}"
        return f"add {phrase}" if old == "none" else f"change the {old} to {phrase}"
    return {
        "hair": f"change the hair to {phrase}",
        "hair color": f"dye the hair {new}",
        "skin": f"make the skin {new}",
        "mood": f"make the person look {new}",
        "clothes": f"change the clothes to {phrase}",
        "clothes color": f"make the clothes {new}",
        "background": f"make the background {new}",
    }[attribute]
