"""Edits: what the source shows, and an instruction of one of the six categories with facts about its result."""

from flashjax.bench.grammar import landscape as land
from flashjax.bench.grammar import portrait as person
from flashjax.bench.grammar import text as words
from flashjax.bench.grammar.draft import COLOURS, NUMBERS, Draft, apart, own, the

SCENES = (
    ("deep winter with fresh snow on every horizontal surface", "There is fresh snow on horizontal surfaces."),
    ("a heavy rainstorm at dusk with wet, reflecting ground", "It rains, and the ground is wet and reflects."),
    ("a clear night with a full moon and lit windows", "It is night with a full moon."),
    (
        "late autumn with red and yellow leaves, half of them fallen",
        "The leaves are red and yellow, some on the ground.",
    ),
    (
        "dense morning fog that swallows everything beyond the middle distance",
        "Fog hides everything beyond the middle distance.",
    ),
    ("high summer at noon with hard, short shadows", "It is noon with hard, short shadows."),
    ("a flood that covers the ground with calm brown water", "The ground is covered with calm brown water."),
    ("a sandstorm with orange light", "The air is full of sand and the light is orange."),
    ("the blue hour with the first street lamps lit", "It is the blue hour and lamps are lit."),
    ("early spring with blossom on all trees and bushes", "Trees and bushes are in blossom."),
)
DEFECTS = (
    ("strong colour noise", "remove the colour noise", "There is no colour noise."),
    ("a motion blur from left to right", "remove the motion blur", "Edges are sharp."),
    ("grey haze that flattens the contrast", "remove the haze", "Contrast and distant colours are restored."),
    ("heavy JPEG blocks", "remove the compression blocks", "No blocks are visible."),
    ("three stops of underexposure", "restore the exposure", "The exposure is normal."),
    ("a strong green colour cast", "neutralise the colour cast", "White and grey areas are neutral."),
    ("dust and two long scratches", "remove dust and scratches", "There are no dust spots or scratches."),
    ("the low resolution of an old web picture", "raise the resolution", "Fine detail is sharp."),
    ("rain drops on the lens", "remove the drops on the lens", "There are no drops on the lens."),
)
STYLES = (
    "a Japanese woodblock print with flat colours and dark outlines",
    "a pencil drawing with cross-hatching on white paper",
    "an impasto oil painting with palette-knife strokes",
    "a stained-glass window with lead lines",
    "a paper collage with visible cut edges and shadows",
    "16-bit pixel art with a palette of sixteen colours",
    "a blue cyanotype print",
    "a clay animation set with fingerprints in the clay",
    "a linocut in two colours",
    "a watercolour with bleeding edges and bare paper",
    "a mosaic of square stone tiles",
    "a technical blueprint with white lines on blue",
    "an embroidered tapestry with visible threads",
    "a fresco with cracks and faded pigment",
    "an ink wash painting on rice paper",
)
PERSONAL = (
    ("change the hair to {} and keep its length", "The hair is {}."),
    ("dress the person in {}", "The person wears {}."),
    ("make the person look thirty years older", "The person looks thirty years older."),
    (
        "turn the head to a three-quarter view towards the left",
        "The head is seen in three-quarter view towards the left.",
    ),
    ("let the person laugh with visible teeth", "The person laughs with visible teeth."),
    ("place the person {}", "The person is {}."),
    ("let the person raise the right hand with an open palm", "The right hand is raised with an open palm."),
    ("give the person round glasses with a {} frame", "The person wears round glasses with a {} frame."),
    ("show the person as a child of six", "The person is a child of six."),
)


def scene(d: Draft) -> str:
    place, count = d.one(land.PLACES), d.rng.randint(2, 6)
    things, house = d.one(land.COUNTED)[1], d.one(land.STRUCTURES).format(d.one(COLOURS))
    target, fact = d.one(SCENES)
    d.say(f"Turn the scene into {target}, with light, shadows and reflections to match.", fact)
    every = "both" if count == 2 else f"all {NUMBERS[count]}"
    d.say(
        f"Keep the viewpoint, {the(house)} and {every} {things} exactly where they are.",
        f"There is still {house}.",
        f"There are still exactly {NUMBERS[count]} {things}, where they were.",
    )
    return f"A photograph of {place} on a mild, overcast day: {NUMBERS[count]} {things} in front, {house} behind."


def enhance(d: Draft) -> str:
    (first, do, fact), (second, also, more) = d.some(DEFECTS, 2)
    d.say(f"{do[0].upper()}{do[1:]} and {also}, without inventing detail.", fact, more)
    d.say(
        "Keep composition, colours of objects and every small structure; do not smooth surfaces.",
        "No object was added, removed or moved.",
        "Texture is kept and does not look like plastic.",
    )
    if d.rng.random() < 0.5:
        who, top = d.one(person.PEOPLE)[0], d.one(person.TOPS).format(d.one(COLOURS))
        looks = " and ".join(person.looks(d, who))
        what = f"{who} with {looks}, in {top}, who {d.one(person.HANDS)}, {d.one(person.PLACES)}"
    else:
        house = d.one(land.STRUCTURES).format(d.one(COLOURS))
        what = (
            f"{d.one(land.PLACES)} with {house}, {d.one(land.FAR)} and {d.one(land.COUNTED)[1]}, {d.one(land.LIGHTS)}"
        )
    return f"A photograph of {what}; it is spoilt by {first} and {second}."


def manipulate(d: Draft) -> str:
    (one, many), (other, _) = d.some(land.COUNTED, 2)
    count, (left, right), colour = d.rng.randint(3, 6), d.one(land.SIDES), d.one(COLOURS)
    place = d.one(land.PLACES)
    kind = d.rng.randrange(5)
    still = f"There are exactly {NUMBERS[count - 1]} {many} left." if count > 2 else ""
    told = (
        (
            f"Remove the {one} that stands farthest to the {left}.",
            still,
            "Its place shows plausible ground, without a trace.",
        ),
        (
            f"Replace the {one} farthest to the {right} by a {other}.",
            f"Farthest to the {right} there is a {other}.",
            still,
        ),
        (
            f"Paint the {one} farthest to the {left} {colour} and leave the others as they are.",
            f"The {one} farthest to the {left} is {colour}.",
            "The other ones keep their colour.",
        ),
        (
            f"Add one more {one} between the two that stand farthest to the {right}.",
            f"There are exactly {NUMBERS[count + 1]} {many}.",
            "The new one casts a shadow like the others.",
        ),
        (
            f"Move the {one} farthest to the {left} to the far {right}, a little closer to the viewer.",
            f"There are still exactly {NUMBERS[count]} {many}.",
            f"The nearest one is on the {right}, and larger.",
        ),
    )[kind]
    d.say(*told)
    d.say("Shadows and what lies behind have to fit.", "Everything that was not named is unchanged.")
    view, light = d.one(land.VIEWS), d.one(land.LIGHTS)
    row = f"{NUMBERS[count]} {many} in a row from left to right, {d.one(land.FAR)} behind"
    return f"{view[0].upper()}{apart(view)[1:]} of {place} with {row}, {light}."


def reword(d: Draft) -> str:
    place, event = d.one(words.PLACES), d.one(words.EVENTS)
    old, slogan = f"{place} {event}".upper(), d.one(words.SLOGANS)
    chinese, kind = d.rng.random() < 0.4, d.rng.randrange(3)
    new = (
        d.one(words.ZH_NAMES) + d.one(words.ZH_EVENTS)
        if chinese
        else f"{d.one(words.PLACES)} {d.one(words.EVENTS)}".upper()
    )
    if kind == 0:
        d.say(
            f'Replace "{old}" by {d.render(new, "the title")}, in the same place, typeface and colour.',
            "The title keeps its place and colour.",
        )
    elif kind == 1:
        d.say(
            f"Add {d.render(new, 'the new second line')} as a second line under the title, half its size.",
            "The new line is half as high as the title.",
        )
    else:
        colour = d.one(COLOURS)
        d.say(
            f'Delete "{slogan}", and set the title as {d.render(new, "the title")} in {colour}.',
            f"The title is {colour}.",
            f'"{slogan}" is gone without a trace.',
        )
    d.changes(old, *([slogan] if kind == 2 else []))  # a new line below the title counts as the title's place
    d.say(
        "All other text and the picture stay.",
        *([f'The line "{slogan}" is unchanged.'] if kind != 2 else []),
        "The rest of the picture is unchanged.",
    )
    surface, font = d.one(words.SURFACES), d.one(words.FONTS)
    picture = (
        f"{d.one(land.STRUCTURES).format(d.one(COLOURS))} and {d.one(land.FAR)} as a drawing on {d.one(COLOURS)} paper"
    )
    lines = f'the title "{old}" in {font} at the top, "{slogan}" in small letters at the bottom'
    return f"A poster {surface}: {lines}, between them {picture}."


def identity(d: Draft) -> str:
    (who, _), origin = d.one(person.PEOPLE), d.one(person.ORIGINS)
    changes = sorted(d.some(range(len(PERSONAL)), 2))
    hair, mark = person.looks(d, who)
    while (0 in changes and "shaved" in hair) or (7 in changes and "glasses" in mark):
        hair, mark = person.looks(d, who)
    place, start = d.some(person.PLACES, 2)
    fill = {0: d.one(COLOURS), 1: d.one(person.TOPS).format(d.one(COLOURS)), 5: place, 7: d.one(COLOURS)}
    for i in changes:
        say, fact = PERSONAL[i]
        d.say(say.format(fill.get(i)) + ".", fact.format(fill.get(i)))
    d.say(
        f"It has to remain the same person; keep {own(mark)} and the shape of the face.",
        "It is recognisably the same person.",
        f"{mark[0].upper()}{mark[1:]} can still be seen.",
    )
    looks = f"{who} of {origin} descent with {hair} and {mark}"
    return f"In {d.one(person.LENSES)}: {looks}, {start}."


def style(d: Draft) -> str:
    look, place, house = d.one(STYLES), d.one(land.PLACES), d.one(land.STRUCTURES).format(d.one(COLOURS))
    d.say(f"Redo the whole picture as {look}.", f"The whole picture is {look}.")
    far = d.one(land.FAR)
    d.say(
        f"Composition and content stay: {house} and {far} have to be recognisable at their places.",
        f"There is still {house}.",
        f"There is still {far}.",
        "The style holds from edge to edge, and no part is photographic.",
    )
    return f"A photograph of {place} with {house} in the middle distance and {far}, {d.one(land.LIGHTS)}."


WRITERS = dict(scene=scene, enhance=enhance, object=manipulate, text=reword, identity=identity, style=style)
