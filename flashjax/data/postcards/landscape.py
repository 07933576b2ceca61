"""Landscapes: a sky, a kind of land, and large bold things placed on them.

Every element is drawn from its own random stream of the seed, so that changing one
attribute of a description never moves or recolours another.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from flashjax.data.postcards import _phrases
from flashjax.data.postcards._terrain import (
    LAND_PAINTERS,
    Color,
    disc,
    fill_below,
    lit,
    poly,
    ridge,
    stream,
)

__all__ = ["ATTRIBUTES", "EDIT_BOX", "caption", "edit", "render", "sample"]

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "sky": ("blue", "sunset", "night", "gray", "pink"),
    "land": ("green hills", "snowy mountains", "desert dunes", "red canyon", "flower field"),
    "orb": ("none", "left", "middle", "right"),
    "water": ("none", "lake", "lake with a boat"),
    "trees": ("none", "one", "two", "three"),
    "house": ("none", "red", "white", "blue"),
    "clouds": ("none", "one", "two"),
    "rainbow": ("none", "rainbow"),
}

# The unit box (left, top, right, bottom) outside which an edit of the attribute leaves
# every pixel as it was (at 32 px and more); attributes that are absent change the whole picture.
EDIT_BOX: dict[str, tuple[float, float, float, float]] = {
    "orb": (0.0, 0.0, 1.0, 0.44),
    "water": (0.0, 0.66, 1.0, 1.0),
    "trees": (0.0, 0.28, 0.75, 0.97),
    "house": (0.47, 0.31, 1.0, 0.94),
    "clouds": (0.0, 0.09, 1.0, 0.56),
    "rainbow": (0.0, 0.0, 1.0, 0.75),
}

_SKY = {
    "blue": ((66, 150, 245), (190, 226, 255)),
    "sunset": ((232, 92, 50), (255, 214, 110)),
    "night": ((8, 10, 44), (40, 46, 110)),
    "gray": ((112, 120, 130), (196, 202, 208)),
    "pink": ((236, 120, 190), (255, 214, 226)),
}
# How the light of the sky tints what stands below it.
_LIGHT = {
    "blue": (1.0, 1.0, 1.0),
    "sunset": (1.0, 0.84, 0.72),
    "night": (0.52, 0.56, 0.78),
    "gray": (0.84, 0.86, 0.88),
    "pink": (1.0, 0.88, 0.94),
}
_HOUSE = {"red": (214, 48, 42), "white": (250, 250, 246), "blue": (40, 96, 210)}
_ORB_X = {"left": 0.19, "middle": 0.5, "right": 0.81}
_TREE_X = {"none": (), "one": (0.3,), "two": (0.15, 0.42), "three": (0.11, 0.31, 0.51)}
_CLOUD_X = {"none": (), "one": (0.36,), "two": (0.24, 0.74)}
_BANDS = ((226, 60, 50), (250, 160, 40), (252, 226, 70), (70, 180, 80), (60, 110, 220))


def sample(rng: np.random.Generator) -> dict[str, str]:
    """A random description: one value for every attribute in `ATTRIBUTES`."""
    return {k: v[int(rng.integers(len(v)))] for k, v in ATTRIBUTES.items()}


def render(spec: dict[str, str], size: int, seed: int) -> np.ndarray:
    """Draw a description.

    Args:
        spec: a full description, as `sample` gives it.
        size: side of the square picture in pixels.
        seed: chooses what the description leaves open (ridges, stars, small shifts).

    Returns:
        uint8 array [size, size, 3], the same for the same arguments.
    """
    big = size * (4 if size <= 48 else 3)
    image = _sky(spec["sky"], big, seed)
    draw = ImageDraw.Draw(image)
    light = _LIGHT[spec["sky"]]
    if spec["rainbow"] != "none":
        _rainbow(draw, big, seed, light)
    if spec["orb"] != "none":
        _orb(draw, big, seed, _ORB_X[spec["orb"]], spec["sky"] == "night")
    for i, x in enumerate(_CLOUD_X[spec["clouds"]]):
        _cloud(draw, big, seed + i, x, spec["sky"])
    LAND_PAINTERS[spec["land"]](draw, big, seed, light)
    if spec["water"] != "none":
        _lake(draw, big, seed, light, boat="boat" in spec["water"])
    for i, x in enumerate(_TREE_X[spec["trees"]]):
        _tree(draw, big, seed + i, x, light)
    if spec["house"] != "none":
        _house(draw, big, seed, _HOUSE[spec["house"]], spec["sky"])
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))


def _sky(sky: str, big: int, seed: int) -> Image.Image:
    rng = stream(seed, 1)
    top, bottom = (np.array(c) + rng.uniform(-7, 7, 3) for c in _SKY[sky])
    t = np.clip(np.linspace(0, 1.5, big), 0, 1)[:, None]
    column = np.clip(top * (1 - t) + bottom * t, 0, 255).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(np.broadcast_to(column[:, None], (big, big, 3))))
    if sky == "night":
        draw = ImageDraw.Draw(image)
        for x, y, r in zip(rng.random(16), rng.random(16), rng.random(16), strict=True):
            disc(draw, big, x, 0.5 * y, 0.009 + 0.008 * r, 0.009 + 0.008 * r, (255, 252, 220))
    return image


def _rainbow(draw: ImageDraw.ImageDraw, big: int, seed: int, light) -> None:
    x = 0.5 + stream(seed, 2).uniform(-0.04, 0.04)
    for i, color in enumerate(_BANDS):
        r = (0.56 - 0.036 * i) * big
        box = [x * big - r, 0.66 * big - r, x * big + r, 0.66 * big + r]
        draw.arc(box, 180, 360, fill=lit(color, light, 0.5), width=round(0.04 * big))


def _orb(draw: ImageDraw.ImageDraw, big: int, seed: int, x: float, moon: bool) -> None:
    dx, dy = stream(seed, 3).uniform(-0.02, 0.02, 2)
    x, y = x + dx, 0.16 + dy
    rim, core = ((150, 154, 190), (252, 250, 232)) if moon else ((255, 176, 44), (255, 236, 84))
    disc(draw, big, x, y, 0.14, 0.14, rim)
    disc(draw, big, x, y, 0.112, 0.112, core)
    if moon:
        disc(draw, big, x - 0.03, y - 0.02, 0.03, 0.03, (206, 204, 196))
        disc(draw, big, x + 0.045, y + 0.04, 0.022, 0.022, (206, 204, 196))


def _cloud(draw: ImageDraw.ImageDraw, big: int, seed: int, x: float, sky: str) -> None:
    dx, dy, s = stream(seed, 4).uniform(-1, 1, 3)
    color = {"night": (122, 130, 176), "gray": (240, 242, 245)}.get(sky, (255, 255, 255))
    x, y, s = x + 0.05 * dx, 0.345 + 0.02 * dy, 1 + 0.08 * s
    for px, py, r in ((-0.11, 0.01, 0.055), (-0.03, -0.03, 0.08), (0.07, -0.01, 0.07)):
        disc(draw, big, x + px * s, y + py * s, r * s, r * s, color)
    box = [(x - 0.16 * s) * big, y * big, (x + 0.16 * s) * big, (y + 0.07 * s) * big]
    draw.rounded_rectangle(box, radius=0.034 * big, fill=color)


def _lake(draw, big: int, seed: int, light, boat: bool) -> None:
    rng = stream(seed, 6)
    shore = ridge(rng, 0.825, 0.008, 1.5)
    fill_below(draw, big, shore, lit((34, 104, 206), light, 0.25))
    for y in (0.88, 0.95):
        x, w = rng.uniform(0.0, 0.7), rng.uniform(0.2, 0.3)
        poly(draw, big, [(x, y), (x + w, y), (x + w, y + 0.02), (x, y + 0.02)], (112, 178, 244))
    if boat:
        x = 0.5 + rng.uniform(-0.08, 0.08)
        hull = [(x - 0.17, 0.885), (x + 0.17, 0.885), (x + 0.1, 0.965), (x - 0.1, 0.965)]
        poly(draw, big, hull, (122, 62, 26))
        poly(draw, big, [(x - 0.01, 0.79), (x - 0.01, 0.875), (x + 0.14, 0.875)], (255, 255, 255))
        poly(draw, big, [(x - 0.03, 0.79), (x - 0.03, 0.875), (x - 0.12, 0.875)], (255, 220, 90))


def _tree(draw, big: int, seed: int, x: float, light) -> None:
    dx, dy, s = stream(seed, 7).uniform(-0.015, 0.015, 3)
    x, y, h = x + dx, 0.78 + dy, 0.36 + s
    trunk = [
        (x - 0.025, y - 0.1),
        (x + 0.025, y - 0.1),
        (x + 0.025, y + 0.04),
        (x - 0.025, y + 0.04),
    ]
    poly(draw, big, trunk, lit((96, 60, 30), light, 0.2))
    for k, w in ((0.0, 0.1), (0.32, 0.08)):
        base = y - 0.05 - k * h * 0.8
        top = max(base - 0.62 * h, y - h)
        color = (18, 92, 46) if k == 0 else (28, 118, 58)
        poly(draw, big, [(x - w, base), (x, top), (x + w, base)], lit(color, light, 0.2))


def _house(draw, big: int, seed: int, color: Color, sky: str) -> None:
    dx, dy = stream(seed, 8).uniform(-0.015, 0.015, 2)
    x, y, light = 0.79 + dx, 0.79 + dy, _LIGHT[sky]
    wall, roof = lit(color, light, 0.55), lit((84, 46, 40), light, 0.4)
    poly(draw, big, [(x - 0.14, y - 0.2), (x + 0.14, y - 0.2), (x + 0.14, y), (x - 0.14, y)], wall)
    poly(draw, big, [(x - 0.19, y - 0.19), (x, y - 0.35), (x + 0.19, y - 0.19)], roof)
    pane = (255, 224, 96) if sky == "night" else (70, 66, 84)
    for px, top, w, h in ((-0.1, -0.15, 0.075, 0.075), (0.02, -0.13, 0.08, 0.13)):
        corners = [(px, top), (px + w, top), (px + w, top + h), (px, top + h)]
        poly(draw, big, [(x + a, y + b) for a, b in corners], pane)


def _phrase(attribute: str, value: str, spec: dict[str, str]) -> str:
    """What a caption says for one named attribute."""
    disc = "moon" if spec["sky"] == "night" else "sun"
    match attribute, value:
        case "sky", _:
            return f"a {value} sky"
        case "land", "red canyon" | "flower field":
            return f"a {value}"
        case "land", _:
            return value
        case "orb", "none":
            return "no sun or moon"
        case "orb", _:
            return f"the {disc} {'in' if value == 'middle' else 'on'} the {value}"
        case ("water", "none") | ("clouds", "none") | ("rainbow", "none"):
            return {"water": "no water", "clouds": "no clouds", "rainbow": "no rainbow"}[attribute]
        case ("water", _) | ("rainbow", _):
            return f"a {value}"
        case "trees", _:
            return {"none": "no trees", "one": "one tree"}.get(value, f"{value} trees")
        case "clouds", _:
            return {"one": "one cloud"}.get(value, f"{value} clouds")
        case _:
            return "no house" if value == "none" else f"a {value} house"


def caption(spec: dict[str, str], named: tuple[str, ...], rng: np.random.Generator) -> str:
    """An English caption naming exactly the attributes in `named`, phrased at random."""
    if not named:
        return _phrases.pick(rng, ("a landscape", "a postcard of a landscape", "a view outdoors"))
    said = {a: _phrase(a, spec[a], spec) for a in _phrases.shuffled(rng, named)}
    style = int(rng.integers(4))
    if style == 0 and "sky" in said:
        sky = said.pop("sky")
        scene = said.pop("land", "a landscape")
        tail = f" with {_phrases.join(rng, list(said.values()))}" if said else ""
        return f"{scene} under {sky}{tail}"
    everything = _phrases.join(rng, list(said.values()))
    if style == 1 and "land" in said and len(said) > 1:
        scene = said.pop("land")
        return f"{scene} with {_phrases.join(rng, list(said.values()))}"
    if style == 2:
        return f"a postcard showing {everything}"
    return everything if style == 3 else f"a landscape with {everything}"


def edit(spec: dict[str, str], rng: np.random.Generator) -> tuple[dict[str, str], str, str]:
    """Change one attribute.

    Returns:
        The new description, an instruction in words, and the attribute changed.
    """
    attribute = _phrases.pick(rng, tuple(ATTRIBUTES))
    old = spec[attribute]
    new = _phrases.pick(rng, tuple(v for v in ATTRIBUTES[attribute] if v != old))
    target = {**spec, attribute: new}
    return target, _instruction(attribute, old, new, target), attribute


def _instruction(attribute: str, old: str, new: str, target: dict[str, str]) -> str:
    disc = "moon" if target["sky"] == "night" else "sun"
    if attribute == "sky":
        return f"change the sky to a {new} sky"
    if attribute == "land":
        return f"turn the land into {_phrase('land', new, target)}"
    thing = {"orb": disc, "water": "water"}.get(attribute, attribute)
    if new == "none":
        return f"remove the {thing}"
    if attribute == "orb":
        place = f"{'in' if new == 'middle' else 'on'} the {new}"
        return f"add the {disc} {place}" if old == "none" else f"move the {disc} to the {new}"
    if old == "none":
        return f"add {_phrase(attribute, new, target)}"
    if attribute == "water":
        return "add a boat to the lake" if "boat" in new else "remove the boat"
    return f"make it {_phrase(attribute, new, target)}"
