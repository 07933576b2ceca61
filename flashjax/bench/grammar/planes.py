"""Long landscapes: planes from front to back or back to front, with weather, light, people, a way and its signs."""

from flashjax.bench.grammar.draft import COLOURS, NUMBERS, Draft, apart, the
from flashjax.bench.grammar.landscape import ABSENT, ANIMALS, COUNTED, FAR, PLACES, SIDES, STRUCTURES, VIEWS
from flashjax.bench.grammar.text import TOWNS

_LAND = tuple(p for p in PLACES if not any(w in p for w in ("fjord", "atoll", "mangrove", "skerries", "lake", "river")))
HOUSES = tuple(s for s in STRUCTURES if "bridge" not in s and "cable-car" not in s)
# Each with its light, so that the two agree, and with what can be checked of both.
_WEATHERS = (
    (
        "A shower has just moved off to the right: the ground on the left is already dry, the right half still "
        "glistens, and grey streaks of rain hang from a cloud at the right edge. The sun is low and shines from the "
        "left, so that whatever stands upright throws a long shadow to the right.",
        "Grey streaks of rain hang from a cloud at the right edge only.", "The right half of the ground is wet.",
        "Low sunlight comes from the left.", "Long shadows fall to the right.",
    ),
    (
        "Fog lies on the ground as high as a person's knees. It is thickest on the left and almost gone on the right, "
        "where the sun is a pale disc just above the horizon. Nothing throws a clear shadow.",
        "Fog lies on the ground, at most knee-high.", "The fog is thicker on the left than on the right.",
        "The sun is a pale disc just above the horizon on the right.", "There are no clear shadows.",
    ),
    (
        "A strong wind blows from right to left. Grass, smoke and loose cloth all lean the same way, torn clouds fill "
        "the upper third, and patches of sunlight lie on the ground between the shadows of the clouds.",
        "Grass, smoke and cloth lean to the left.", "Torn clouds fill the upper third.",
        "Patches of sunlight lie on the ground between shadows of clouds.",
    ),
    (
        "It is noon on a hot day. Shadows are short and lie right under the things that throw them, the air shimmers "
        "above the ground in the distance, and the cloudless sky fades from deep blue at the top to almost white at "
        "the horizon.",
        "Shadows are short and lie under the things that throw them.", "The air shimmers in the distance.",
        "The sky is cloudless, deep blue at the top and almost white at the horizon.",
    ),
    (
        "The sun set ten minutes ago on the right, where the horizon still glows orange. The left half of the sky is "
        "dark blue and shows exactly three stars. Lamps have been lit, and their light lies in warm patches on the "
        "ground.",
        "The horizon glows orange on the right.", "The left half of the sky is dark blue.",
        "There are exactly three stars.", "Lamplight lies in warm patches on the ground.",
    ),
    (
        "The first snow of the year is falling in large, slow flakes. It has whitened roofs and the tops of things, "
        "but "
        "the way between them is still dark. The light is grey and even, and comes from no side.",
        "Snow is falling in large flakes.", "Roofs and the tops of things are white.",
        "The way is still dark, without snow.", "The light is grey and even.",
    ),
    (
        "It is night, and a full moon stands at the upper right. Its cold light is strong enough for shadows, which "
        "fall to the lower left. Colours are faint; only the windows of the buildings are a warm yellow.",
        "It is night with a full moon at the upper right.", "Shadows fall to the lower left.",
        "Windows of the buildings are a warm yellow.",
    ),
    (
        "A thunderstorm withdraws to the left. The sky there is slate blue, with a single fork of lightning above the "
        "horizon, while clear evening light falls on the land from the right. Puddles in front repeat both halves of "
        "the sky.",
        "The sky on the left is slate blue with a single fork of lightning.", "Clear light comes from the right.",
        "Puddles in front reflect the sky.",
    ),
    (
        "It is a still and frosty morning. The shaded left side is white with hoarfrost down to the last blade of "
        "grass; "
        "on the right, where the first sun has come, the frost has melted and the grass is wet and green.",
        "The left side is shaded and white with hoarfrost.", "On the right, in the sun, the grass is wet and green.",
        "The sun shines on the right side only.",
    ),
)  # fmt: skip
# What is the matter with two of the counted things; the names of sides are filled in.
_SPECIAL = (
    ("a {colour} coat hangs over the one farthest to the {side}", "A {colour} coat hangs over the {one} farthest to "
        "the {side}."),
    ("a {colour} ribbon is tied round the one farthest to the {side}", "A {colour} ribbon is tied round the {one} "
        "farthest to the {side}."),
    ("a cat with a {colour} collar sits on the one farthest to the {side}",
        "A cat with a {colour} collar sits on the {one} farthest to the {side}."),
    ("a {colour} umbrella, open, leans against the one farthest to the {side}",
        "An open {colour} umbrella leans against the {one} farthest to the {side}."),
    ("somebody has left a {colour} bucket beside the one farthest to the {side}",
        "A {colour} bucket stands beside the {one} farthest to the {side}."),
    ("a {colour} kite has come down on the one farthest to the {side}",
        "A {colour} kite lies on the {one} farthest to the {side}."),
)  # fmt: skip
_ARRANGED = ("stand in a row from left to right", "form a half circle that is open towards the viewer",
    "stand in pairs or alone, at irregular distances")
_HOUSE_DETAILS = (
    ("a ladder leans against it", "A ladder leans against {}."),
    ("a dog lies in front of it", "A dog lies in front of {}."),
    ("firewood is stacked against its right side", "Firewood is stacked against the right side of {}."),
    ("three barrels stand along its wall", "Three barrels stand along the wall of {}."),
    ("a washing line with five white shirts runs from it to a pole", "A line with five white shirts runs from {} to a "
        "pole."),
    ("an old tractor without wheels rusts beside it", "A tractor without wheels stands beside {}."),
    ("its door stands wide open", "The door of {} stands open."),
    ("ivy has climbed up one half of it", "Ivy covers one half of {}."),
)  # fmt: skip
_GROUPS = (
    ("walkers with {} rucksacks", "climb towards it in single file"),
    ("children in {} jackets", "pull a handcart with a drum on it"),
    ("cyclists in {} jerseys", "have stopped and bend over one map"),
    ("surveyors in {} vests", "stand round a tripod"),
    ("musicians in {} waistcoats", "play, facing each other"),
    ("girls in {} dresses", "hold the string of one box kite"),
    ("farmers in {} hats", "rest on the ground round a white cloth with bread"),
    ("painters in {} smocks", "sit at easels with their backs to the viewer"),
)  # fmt: skip
_WAYS = ("gravel path", "boardwalk", "cart track", "narrow paved lane", "brick path", "row of stepping stones")
_MORE_FAR = ("a radio mast with red lamps", "a white observatory dome", "a castle with one broken tower",
    "a viaduct with nine arches", "a row of seven poplars", "a quarry cut into a hillside like stairs")
_BEASTS = tuple(a for a in ANIMALS if not any(word in a[2] for word in ("water", "drift", "ledge", "shore")))
_FAR = (*(f for f in FAR if "crossing" not in f and "," not in f and "ship" not in f), *_MORE_FAR)
_DEPTH = (
    ("Air lies between the planes: what is near is crisp and strong in colour, the middle ground a little softer, and "
        "the background has almost the tone of the sky.", "Colours grow paler from the foreground to the background."),
    ("Size tells distance: the people are far smaller than what stands in front, and smaller again than the doors "
        "they could walk through.", "The people are smaller than the things in the foreground."),
    ("Everything is drawn to one perspective, with a horizon that is level and lies above the middle of the picture.",
        "The horizon is level and lies above the middle of the picture."),
    ("The horizon is low and level, so that more than half of the picture belongs to the sky.",
        "The horizon is level and lies below the middle of the picture."),
)  # fmt: skip
_WORDS = ("NO THROUGH ROAD", "BEWARE OF THE GOOSE", "FRESH EGGS 300 m", "LAST WATER", "PLEASE SHUT THE GATE",
    "TO THE BELLS", "HONEY FOR SALE", "SLOW: HEDGEHOGS", "ROOMS TO LET", "BOAT HIRE CLOSED")  # fmt: skip


def planes(d: Draft) -> str:
    """Nine to thirteen sentences of 15 to 50 words, 18 to 27 facts; two of three have a signpost."""
    place, view = d.one(_LAND), d.one([v for v in VIEWS if "aerial" not in v])
    backwards = d.rng.random() < 0.5
    order = "from the background forwards" if backwards else "from front to back"
    d.say(f"{apart(view)} of {place}, composed in three planes that are described {order}.", f"It looks like {view}.",
          f"The scene is {place}.")  # fmt: skip
    d.say(*d.one(_WEATHERS))
    (first, second), colours = d.one(SIDES), d.some(COLOURS, 2)
    here, there = (s.format(c) for s, c in zip(d.some(HOUSES, 2), colours, strict=True))
    single, plural = d.one([c for c in COUNTED if "lantern" not in c[0]])
    parts = [
        lambda: _front(d, single, plural),
        lambda: _middle(d, first, here, second, there),
        lambda: _far(d),
    ]
    for part in reversed(parts) if backwards else parts:
        part()
    _way(d, plural, here, there, first, second)
    if d.rng.random() < 0.6:
        many, doing = d.one(_BEASTS)[1:]
        count = d.rng.randint(2, 5)
        d.say(f"Not far from it {NUMBERS[count]} {many} {doing}.", f"There are exactly {NUMBERS[count]} {many}, which "
            f"{doing}.")
    depth, fact = d.one(_DEPTH)
    said = " ".join(d.sentences)
    absent = d.one([a for a in ABSENT if a != "people" and a.split()[-1].rstrip("s") not in said])
    d.say(f"{depth} There are no {absent}.", fact, f"There are no {absent} in the picture.")
    return d.prompt()


def _front(d: Draft, single: str, plural: str) -> None:
    count, arranged = d.rng.randint(3, 6), d.one(_ARRANGED)
    d.say(f"In the foreground {NUMBERS[count]} {plural} {arranged}.",
          f"There are exactly {NUMBERS[count]} {plural} in the foreground.", f"The {plural} {arranged}.")  # fmt: skip
    colours, told = d.some(COLOURS, 2), d.some(_SPECIAL, 2)
    details = [
        [text.format(colour=c, side=side, one=single) for text in pair]
        for pair, c, side in zip(told, colours, ("left", "right"), strict=True)
    ]
    d.say(f"All are alike but for two: {details[0][0]}, and {details[1][0]}.", details[0][1], details[1][1])


def _middle(d: Draft, first: str, here: str, second: str, there: str) -> None:
    (one, fact), (other, more) = d.some(_HOUSE_DETAILS, 2)
    bare = the(here)
    d.say(f"On the {first} of the middle ground stands {here}; {one}.",
          f"On the {first} there is {here}.", fact.format(bare))  # fmt: skip
    who, doing = d.one(_GROUPS)
    count, who = d.rng.randint(2, 5), who.format(d.one(COLOURS))
    d.say(f"In front of it one sees {NUMBERS[count]} {who}, small but complete, who {doing}.",
          f"There are exactly {NUMBERS[count]} {who}.", f"The {who} "
          f"{doing.replace('towards it', 'towards ' + bare)}.")  # fmt: skip
    d.say(f"Across from it, on the {second} and a little farther back, there is {there}; {other}.",
          f"On the {second}, farther back, there is {there}.", more.format(the(there)))  # fmt: skip


def _far(d: Draft) -> None:
    left, right = d.some(_FAR, 2)
    d.say(f"The background closes with {left} on the left and {right} on the right, both pale and without detail.",
          f"In the background on the left there is {left}.", f"In the background on the right there is "
          f"{right}.")  # fmt: skip


def _way(d: Draft, plural: str, here: str, there: str, first: str, second: str) -> None:
    way, corner = d.one(_WAYS), d.one(("left", "right"))
    d.say(
        f"A {way} begins in the lower {corner} corner, passes behind the {plural} and forks in the middle of the "
        f"picture: "
        f"one arm leads to {the(here)}, the other to {the(there)}.",
        f"A {way} begins in the lower {corner} corner.", f"The {way} passes behind the {plural}.",
        f"The {way} forks and leads to both buildings.",
    )  # fmt: skip
    if d.rng.random() < 2 / 3:
        towns = [f"{town} {d.rng.randint(2, 19)} km" for town in d.some(TOWNS, 2)]
        one = d.render(towns[0], f"the arm of the signpost that points {first}")
        other = d.render(towns[1], f"the arm that points {second}")
        d.say(f"At the fork stands a wooden signpost. Its upper arm points {first} and reads {one}; the lower arm "
            f"points "
              f"{second} and reads {other}.", "A wooden signpost stands at the fork.")  # fmt: skip
        if d.rng.random() < 0.5:
            colour, words = d.one(COLOURS), d.one(_WORDS)
            d.say(f"Somebody has nailed a {colour} board below them, with {d.render(words, f'the {colour} board')} in "
                f"white capitals.")
