"""Long portraits: a person at work among several things with words on them, clothes, light and a deep background."""

from flashjax.bench.grammar.draft import COLOURS, Draft, apart
from flashjax.bench.grammar.portrait import EXTRAS, FACES, ORIGINS, PEOPLE, SKIN, TOPS, looks, pronoun
from flashjax.bench.grammar.trades import TRADES

_LENSES = (
    "an environmental portrait, sharp to the back wall", "a three-quarter-length photograph with the eyes in the "
    "upper third",
    "a full-length photograph from a low angle", "a square medium-format photograph",
    "a portrait in oils with visible brush strokes", "a photograph taken from the height of the hands",
    "a documentary photograph with a 35 mm lens",
)  # fmt: skip
_BELOW = (
    "wide {} trousers", "a {} skirt to the calf", "{} corduroy trousers", "a long {} work apron", "{} dungarees",
    "{} trousers, the left leg rolled up",
)  # fmt: skip
_WEAR = (
    ("The clothes have been worn for work: one elbow is mended with a patch of another colour.",
        "One elbow is mended with a patch."),
    ("One sleeve is rolled up to the elbow, and the other hangs down to the wrist.",
        "One sleeve is rolled up, the other is down."),
    ("A pencil sticks out of the breast pocket, point up.", "A pencil sticks out of the breast pocket."),
    ("A key on a string hangs round the neck.", "A key on a string hangs round the neck."),
    ("A tape measure is slung round the neck, its ends at different heights.", "A tape measure hangs round the neck."),
    ("A safety pin holds the collar together.", "A safety pin holds the collar together."),
)  # fmt: skip
_LIGHTS = (
    ("Daylight from the left models the face; the right half lies in soft shadow, in which the eye is still clear.",
        "Light comes from the left.", "The right half of the face lies in soft shadow."),
    ("Daylight from the right is cold, a lamp from below on the left is warm, and the two meet along the ridge of the "
        "nose.", "Cold light comes from the right.", "Warm light comes from below on the left."),
    ("A bare bulb hangs in the picture just above the head and is the brightest spot; the corners fall off into brown "
        "darkness.", "A bare bulb hangs above the head.", "The corners of the picture are dark."),
    ("The light comes from behind and draws a bright rim round hair and shoulders, while a pale reflection from below "
        "opens up the face.", "A bright rim of light runs round hair and shoulders.",
        "The face is lit more softly than the rim."),
    ("The light of an overcast day is soft and comes from no side; there are no hard shadows, and the colours of the "
        "clothes are calm and true.", "The light is soft, without hard shadows."),
    ("It is evening, and the last sun comes almost level from the right; it lies as a bright stripe across the eyes "
        "and leaves everything below the chin in shade.", "A bright stripe of sunlight lies across the eyes.",
        "What is below the chin is in shade."),
)  # fmt: skip
_DEPTHS = (
    ("Focus is on the face; the background grows softer with distance but stays readable.",
        "The face is sharp and the background grows softer with distance."),
    ("Everything from the front edge to the far background is in focus.",
        "Foreground, person and background are all sharp."),
    ("The person fills the middle third of the picture, with room on both sides for what surrounds the work.",
        "The person stands in the middle third of the picture."),
    ("The person is placed left of the middle with empty space on the right.",
        "The person is left of the middle of the picture."),
)  # fmt: skip


def portrait_long(d: Draft) -> str:
    """Twelve to fifteen sentences, 22 to 30 facts, three or four texts on different things."""
    (person, whose), trade, lens = d.one(PEOPLE), d.one(TRADES), d.one(_LENSES)
    she, origin = pronoun(whose), d.one(ORIGINS)
    d.say(f"{apart(lens)} of {person} of {origin} descent {trade.place}.",
          f"It is {lens}.", f"The person is {person}.", f"The person is {trade.place}.")  # fmt: skip
    (hair, mark), face = looks(d, person), d.one(FACES)
    d.say(f"{she} has {hair} and {mark}, and is shown {face}.",
          f"The person has {hair}.", f"One can see {mark}.", f"The face is shown {face}.")  # fmt: skip
    _clothes(d, she)
    does = d.one(trade.does)
    d.say(f"{she} {does}; each visible hand has five well-formed fingers.", f"The person {does}.",
          "Each visible hand has five fingers, well formed.")  # fmt: skip
    near = d.some(trade.near, d.rng.randint(3, 4))
    d.say(f"{d.one(('Close by', 'Within reach', 'In the foreground'))}, {_joined(near)}.", *map(_whole, near))
    _signs(d, trade, she)
    back = d.some(trade.back, d.rng.randint(2, 3))
    d.say(f"Behind {'her' if she == 'She' else 'him'}, {_joined(back)}.", *(f"Behind the person, {b}." for b in back))
    for far in d.some(trade.far, d.rng.randint(1, 2)):
        d.say(f"{far}.", _whole(far))
    outdoors = trade.place.startswith(("on ", "under "))
    d.say(*d.one([told for told in _LIGHTS if not (outdoors and "bulb" in told[0])]))
    d.say(*d.one(_DEPTHS))
    if d.rng.random() < 0.5:
        d.say("Skin keeps its pores and fine lines, cloth shows its weave, and nothing looks polished or waxy.",
              SKIN)  # fmt: skip
    return d.prompt()


def _clothes(d: Draft, she: str) -> None:
    first, second, third = d.some(COLOURS, 3)
    top, extra, below = d.one(TOPS).format(first), d.one(EXTRAS).format(second), d.one(_BELOW).format(third)
    d.say(f"{she} wears {top}, {extra} and {below}.",
          f"The person wears {top}.", f"The person wears or carries {extra}.",
          f"The person wears {below}.")  # fmt: skip
    d.say(*d.one([told for told in _WEAR if not ("sleeve" in told[0] and "sleeve" in top)]))


def _signs(d: Draft, trade, she: str) -> None:
    """Three or four things with words on them, and none besides."""
    signs = d.some(trade.signs, d.rng.randint(3, 4))
    told = [f"{where} {d.one(('reads', 'says'))} {d.render(d.one(words), where)}" for where, words in signs]
    number = {3: "Three", 4: "Four"}[len(signs)]
    d.say(f"{number} things in the picture are written on, and all of it can be read: {_joined(told)}.",
          "No other text can be read.")  # fmt: skip


def _joined(parts: list[str]) -> str:
    """ "a; b; and c", as the parts are whole clauses."""
    return "; ".join(parts[:-1]) + f"; and {parts[-1]}" if len(parts) > 2 else ", and ".join(parts)


def _whole(clause: str) -> str:
    return f"{clause[0].upper()}{clause[1:]}."
