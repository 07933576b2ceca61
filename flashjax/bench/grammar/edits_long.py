"""Difficult edits: three to five changes that have to agree with each other, 60 to 150 words."""

from flashjax.bench.grammar import landscape as land
from flashjax.bench.grammar import portrait as person
from flashjax.bench.grammar import text as words
from flashjax.bench.grammar.draft import COLOURS, NUMBERS, Draft, listed, own, the
from flashjax.bench.grammar.edits import STYLES
from flashjax.bench.grammar.planes import HOUSES

# A change of the whole scene: what it is, its fact, and what follows from it, each with its facts.
_SCENES = (
    ("an evening in deep winter after a day of snow", "It is a winter evening with snow.", (
        ("snow lies a hand high on every horizontal surface and on nothing else",
            "Snow lies on horizontal surfaces only."),
        ("a single line of footprints leads from the lower edge towards the building",
            "A single line of footprints leads from the lower edge towards the building."),
        ("icicles of different lengths hang from the eaves of the building",
            "Icicles of different lengths hang from the building."),
        ("one window is lit, and its light falls on the snow in front of it",
            "One window is lit, and its light lies on the snow."),
        ("the sky is clear and violet, with one bright star above the horizon",
            "The sky is violet with one bright star."),
    )),
    ("the morning after a flood", "The ground is under water.", (
        ("brown, quite calm water covers the ground to the height of a person's knee",
            "Calm brown water covers the ground, about knee-high."),
        ("everything that stands in it is reflected upside down", "What stands in the water is reflected in it."),
        ("a wooden door drifts in the foreground, and on it sits a hen",
            "A hen sits on a wooden door that drifts in the foreground."),
        ("a dark line on the wall of the building shows how high the water stood at night",
            "A dark water line runs along the wall of the building."),
        ("the sky has cleared and is a pale yellow", "The sky is clear and pale yellow."),
    )),
    ("the last hour before a thunderstorm in summer", "A thunderstorm is coming up in summer.", (
        ("the sky on the right is nearly black, and that on the left still blue",
            "The sky is nearly black on the right and blue on the left."),
        ("the sun, which is outside the picture on the left, makes the building shine against the dark",
            "The building is brightly lit from the left against a dark sky."),
        ("grass and loose leaves are blown to the right", "Grass and leaves are blown to the right."),
        ("a flock of white birds flees towards the left edge", "A flock of white birds flies to the left."),
        ("a distant curtain of rain hangs under the black cloud", "A curtain of rain hangs under the dark cloud."),
    )),
    ("a foggy morning in late autumn", "It is a foggy morning in late autumn.", (
        ("trees and bushes have lost half of their yellow leaves, which lie on the ground",
            "Yellow leaves hang on the trees and lie on the ground."),
        ("fog swallows everything behind the building, so that no horizon is left",
            "Fog hides everything behind the building; there is no horizon."),
        ("a bonfire smokes in the foreground, and its smoke rises straight up",
            "A bonfire in the foreground smokes straight up."),
        ("cobwebs with drops hang between the nearest things", "Cobwebs with drops hang between the nearest things."),
        ("the light is grey and even, and nothing throws a shadow", "Nothing throws a shadow."),
    )),
    ("a place that people left thirty years ago", "The place looks abandoned for decades.", (
        ("ivy has grown over half of the building, and young birches stand before its door",
            "Ivy covers half of the building.", "Young birches stand before the door."),
        ("paint has peeled, so that its colour can only be made out in patches",
            "The paint has peeled and is left in patches."),
        ("grass grows through every gap in the ground", "Grass grows through gaps in the ground."),
        ("a fox stands in the middle of the picture and looks at the viewer",
            "A fox stands in the middle and looks at the viewer."),
        ("a rusted bicycle without a saddle leans at the left edge", "A rusted bicycle without a saddle leans at the "
            "left edge."),
    )),
    ("a night with a village festival", "It is night.", (
        ("strings of round lamps run from the building to the left and right edges of the picture",
            "Strings of round lamps run from the building to both edges."),
        ("a long table with a white cloth and nine empty chairs stands in front of the building",
            "A long table with a white cloth stands in front of the building.", "There are exactly nine empty chairs."),
        ("one firework has burst in the sky as a green ball", "A green firework has burst in the sky."),
        ("the lamps are the only light, warm and without glare", "The light of the lamps is warm."),
        ("confetti lies on the ground", "Confetti lies on the ground."),
    )),
)  # fmt: skip
# Where a defect is, what it is, how to treat it, what can be checked then.
_DAMAGE = (
    ("the upper left corner is torn off", "complete the torn corner from what adjoins it",
        "The upper left corner is complete and continues its surroundings."),
    ("a brown stain runs down the right third", "take out the brown stain without touching the tones beneath it",
        "There is no brown stain in the right third."),
    ("the lower third is out of focus", "bring the lower third to the sharpness of the rest",
        "The lower third is as sharp as the rest."),
    ("a white crease crosses the picture from side to side", "close the crease, also where it crosses fine patterns",
        "No crease is visible."),
    ("a flash reflection has burnt out the middle", "recover tone in the burnt-out middle and leave it the brightest "
        "part", "The middle shows tone and detail again."),
    ("the left half has a magenta cast", "neutralise the magenta on the left so that both halves match",
        "Left and right half have the same neutral colour."),
    ("coarse grain covers the shadows", "calm the grain in the shadows only", "Shadows are free of coarse grain."),
    ("the whole is tilted by about six degrees", "level the picture and fill the corners that this opens",
        "Verticals are vertical.", ),
    ("JPEG blocks surround every edge", "remove the blocks along the edges", "No compression blocks surround edges."),
    ("moiré stripes lie over the textiles and walls", "remove the moiré and keep the weave",
        "There are no moiré stripes."),
)  # fmt: skip
_TABLES = (
    ("a kitchen table", ("a blue enamel teapot", "a loaf of bread on a board", "a bowl with six eggs", "a jar of honey",
        "a bunch of radishes", "a brass coffee mill", "a checked tea towel", "a half peeled potato")),
    ("a desk", ("a grey typewriter", "a stack of four books", "a green desk lamp", "a round alarm clock",
        "a glass with three pencils", "a folded newspaper", "a white telephone", "a magnifying glass")),
    ("a shelf in a nursery", ("a wooden locomotive", "a bear with one ear", "a stack of seven rings", "a tin drum",
        "a rubber duck", "a spinning top", "a wooden giraffe", "a striped ball")),
    ("a market stall", ("a crate of oranges", "a pyramid of cabbages", "a bucket of sunflowers",
        "a scale with two pans", "a basket of walnuts", "a wheel of cheese", "a tray of figs", "a wicker hen")),
    ("a workbench", ("a red toolbox", "a vice with a piece of pipe", "a can of paint", "a coil of rope", "a hand plane",
        "a row of three screwdrivers", "a birdhouse without a roof", "a yellow folding rule")),
    ("a grand piano's closed lid", ("a metronome", "a vase with one tulip", "a violin bow", "a bust of plaster",
        "a framed photograph of a dog", "a stack of sheet music", "a bronze bell", "a pair of white gloves")),
    ("a garden wall", ("a stone owl", "a straw hat", "a row of three snail shells", "a tin bucket", "a pot of thyme",
        "a garden gnome with a lantern", "a ball of twine", "a green glass float")),
    ("a window sill", ("a cactus in a terracotta pot", "a sleeping tabby cat", "a brass watering can",
        "a pair of binoculars", "a bowl of lemons", "a model sailing ship", "a blue glass bottle",
        "a transistor radio")),
)  # fmt: skip
_NEW = ("a white candle that burns", "an orange with a spiral of peel", "a porcelain elephant",
    "a pair of round spectacles", "a snow globe with a tiny house", "a key on a red ribbon",
    "a green apple with one bite missing")
_WEAR = ("a {} raincoat with wooden toggles", "a {} velvet waistcoat over a white shirt", "a {} boiler suit with a zip",
    "a {} knitted jumper with a rolled collar", "a {} dress uniform with brass buttons")
_GAZE = (("looks out of the picture to the left", "The person looks out of the picture to the left."),
    ("laughs with visible teeth", "The person laughs with visible teeth."), ("has closed both eyes",
    "Both eyes are closed."), ("looks straight into the lens", "The person looks straight into the lens."))
_HOLD = (("holds an umbrella over the left shoulder", "The person holds an umbrella over the left shoulder."),
    ("holds a lantern in the raised right hand", "The person holds a lantern in the raised right hand."),
    ("carries a sleeping cat on the left arm", "The person carries a sleeping cat on the left arm."),
    ("keeps both hands on the handle of a walking stick", "Both hands rest on the handle of a walking stick."))
_LIT = (("one candle from below", "The face is lit from below."), ("low evening sun from the right",
    "Warm light falls on the face from the right."), ("a cold window on the left",
    "Cold light falls on the face from the left."), ("a street lamp from above", "The face is lit from above."))
_PARTS = (
    ("the sky becomes an even field of the lightest tone", "The sky is an even field of the lightest tone."),
    ("the sky is filled with parallel curved lines", "The sky is filled with parallel curved lines."),
    ("the farthest plane is left as a mere outline", "The farthest plane is a mere outline."),
    ("shadows are built from one repeated mark, not from grey", "Shadows are built from one repeated mark."),
    ("the building is worked out in more detail than anything else", "The building has the most detail."),
    ("an unworked border of a finger's width runs round the whole", "An unworked border runs round the picture."),
)  # fmt: skip


def scene(d: Draft) -> str:
    place, count, colour = d.one(land.PLACES), d.rng.randint(2, 6), d.one(COLOURS)
    many, house = d.one(land.COUNTED)[1], d.one(HOUSES).format(colour)
    whole, fact, follows = d.one(_SCENES)
    chosen = [follows[i] for i in sorted(d.some(range(len(follows)), 4))]
    d.say(f"Turn this mild, overcast day into {whole}.", fact)
    d.say(f"{chosen[0][0]}; {chosen[1][0]}.", *chosen[0][1:], *chosen[1][1:])
    d.say(f"Besides, {chosen[2][0]}, and {chosen[3][0]}.", *chosen[2][1:], *chosen[3][1:])
    d.say(f"The viewpoint stays: {the(house)} has to remain where it is, of the same size, and so do the "
        f"{NUMBERS[count]} {many} in front of it; "
          "they only change as the weather, the hour or the years would change them.",
          f"There is still {house}, in the same place.", f"There are still exactly {NUMBERS[count]} {many}, where "
          f"they were.")  # fmt: skip
    return f"A photograph of {place} on a mild, overcast day: {NUMBERS[count]} {many} in front, {house} behind."


def enhance(d: Draft) -> str:
    chosen = d.some(_DAMAGE, 4)
    orders = [order for _, order, _ in chosen]
    d.say(f"Restore this picture in four steps. First {orders[0]}, then {orders[1]}.", chosen[0][2], chosen[1][2])
    d.say(f"After that {orders[2]}, and finally {orders[3]}.", chosen[2][2], chosen[3][2])
    if d.rng.random() < 0.5:
        whose = d.one(person.PEOPLE)[0]
        mark, top, place = person.looks(d, whose)[1], d.one(person.TOPS).format(d.one(COLOURS)), d.one(person.PLACES)
        what = f"{whose} with {mark}, in {top}, {place}"
        d.say(f"The face has to stay the one that it is: do not make it younger or smoother, and keep {own(mark)}.",
              f"{mark[0].upper()}{mark[1:]} can still be seen.", "The face is not smoothed or changed.")  # fmt: skip
    else:
        house, far = d.one(land.STRUCTURES).format(d.one(COLOURS)), d.one(land.FAR)
        what = f"{d.one(land.PLACES)} with {house} and {far}"
        d.say(f"{house} and {far} are to be as they were: add no window, no leaf and no figure that is not there.",
              f"There is still {house}.", f"There is still {far}.", "No detail was invented.")  # fmt: skip
    d.say("Leave some of the fine grain, so that the result looks like a careful print and not like plastic.",
          "Fine grain is left, and no surface looks like plastic.")  # fmt: skip
    return f"A scan of an old colour photograph of {what}. It is damaged: {listed([where for where, _, _ in chosen])}."


def manipulate(d: Draft) -> str:
    table, things = d.one(_TABLES)
    things = d.some(things, 5)
    bare = [t.split(" ", 1)[1] for t in things]
    first, second, third, fourth, fifth = bare
    colour, new = d.one(COLOURS), d.one(_NEW)
    changes = d.some(
        (
            (f"Take the {first} away", f"The {first} is gone without a trace."),
            (f"exchange the {second} and the {third}, so that each stands where the other stood",
                f"The {second} and the {third} have changed places."),
            (f"paint the wall behind the {table.split(' ', 1)[1]} {colour}, with the same shadows on it",
                f"The wall is {colour}, with shadows on it."),
            (f"put {new} in front of the {fourth}", f"In front of the {fourth} there is {new}."),
            (f"make the {fifth} twice as large, still standing on the same spot",
                f"The {fifth} is about twice as large, on the same spot."),
            (f"hang a round mirror on the wall above the {fourth}, so that one sees the top of it twice",
                f"A round mirror above the {fourth} reflects the top of it."),
        ),
        4,
    )  # fmt: skip
    orders = [order[0].lower() + order[1:] for order, _ in changes]
    d.say(f"Make four changes that have to fit together. {orders[0][0].upper()}{orders[0][1:]}; {orders[1]}; "
        f"{orders[2]}; and {orders[3]}.",
          *(fact for _, fact in changes))  # fmt: skip
    touched = " ".join(fact for _, fact in changes)
    rest = [thing for thing in bare if thing not in touched]
    kept, are = listed([f"the {thing}" for thing in rest] or ["everything else"]), "are" if len(rest) > 1 else "is"
    d.say(f"{kept} must not change at all, neither in place nor in colour, size or sharpness.",
          f"{kept[0].upper()}{kept[1:]} {are} unchanged.")  # fmt: skip
    d.say("The light keeps coming from the left: whatever is new or moved throws its shadow to the right, and what "
        "comes to light behind "
          "a thing that has gone continues the surface it stood on.",
          "Shadows of new and moved things fall to the right.", "Surfaces behind what was moved continue without a "
          "seam.")  # fmt: skip
    row = listed(things)
    return f"A photograph of {table} before a plain wall, lit from the left. On it, from left to right: {row}."


def reword(d: Draft) -> str:
    surface, font = d.one(words.SURFACES), d.one(words.FONTS)
    old, new = (f"{a} {b}".upper() for a, b in zip(d.some(words.PLACES, 2), d.some(words.EVENTS, 2), strict=True))
    dates = [f"{d.rng.randint(2, 28)} {month}, {d.rng.randint(9, 20)}:30" for month in d.some(words.MONTHS, 2)]
    slogan, added = d.some(words.SLOGANS, 2)
    price, name, colour = d.rng.randint(3, 18), d.one(words.NAMES), d.one(COLOURS)
    ground = d.one([c for c in COLOURS if c != colour])
    d.say(f'Update the poster for its next edition. The title "{old}" becomes {d.render(new, "the title")} in the '
        f'same typeface and size, '
          f"but in {colour}.", f"The title is {colour}, in its old typeface and place.")  # fmt: skip
    d.say(f'Replace the date "{dates[0]}" by {d.render(dates[1], "the date below the title")}.',
        f'"{dates[0]}" is gone.')
    d.say(f'Delete "{slogan}" at the bottom and set {d.render(added, "the line at the bottom")} in its place, in '
        f'italics this time.',
          f'"{slogan}" is gone without a trace.', "The line at the bottom is in italics.")  # fmt: skip
    if d.rng.random() < 0.5:
        sticker = d.render("SOLD OUT", "the sticker")
        d.say(f"Over the lower right corner comes a round, slightly tilted {d.one(COLOURS)} sticker that says "
            f"{sticker}.",
              "A round, tilted sticker lies over the lower right corner.")  # fmt: skip
    else:
        chinese = d.one(words.ZH_NAMES) + d.one(words.ZH_EVENTS)
        d.changes(old, dates[0], slogan)
        d.say(f"Between title and date add a smaller line in Chinese, {d.render(chinese, 'the Chinese line')}.",
              "The Chinese line is smaller than the title.")  # fmt: skip
    d.say(f'Leave "with {name} & Friends" and "Tickets {price}" as they are; paper, picture and lighting do not '
        f'change, and the new words '
          "lie on the surface and in its light like the old ones.",
          f'The line "with {name} & Friends" is unchanged.', f'The line "Tickets {price}" is unchanged.',
          "The picture on the poster is unchanged.")  # fmt: skip
    picture = f"{d.one(land.STRUCTURES).format(d.one(COLOURS))} on {ground} ground"
    lines = f'at the top the title "{old}" in {font}, below it the date "{dates[0]}" and "with {name} & Friends"'
    foot = f'at the bottom "Tickets {price}" and "{slogan}"'
    return f"A poster {surface}: {lines}; in the middle a drawing of {picture}; {foot}."


def identity(d: Draft) -> str:
    (who, whose), origin = d.one(person.PEOPLE), d.one(person.ORIGINS)
    hair, mark = person.looks(d, who)
    she, her = person.pronoun(whose), whose
    place, start = d.some(person.PLACES, 2)
    wear, gaze, hold, lit = d.one(_WEAR).format(d.one(COLOURS)), d.one(_GAZE), d.one(_HOLD), d.one(_LIT)
    d.say(f"Show the same person {place}, by the light of {lit[0]}.", f"The person is {place}.", lit[1])
    d.say(f"{she} now wears {wear} and {hold[0]}; {she.lower()} {gaze[0]}.", f"The person wears {wear}.", hold[1],
        gaze[1])
    if d.rng.random() < 0.5:
        sign = d.render(d.one(person.WORDS), "the sign at the right edge")
        d.say(f"At the right edge a small sign says {sign}.")
    else:
        d.say("At the right edge a white goose looks up at the face.", "A white goose at the right edge looks up at "
            "the face.")
    d.say(f"For all that {'she' if she == 'She' else 'he'} must be known at once: keep {own(hair)}, {own(mark)} "
          f"and the shape of {her} face and ears, and do not make {'her' if she == 'She' else 'him'} younger, slimmer "
          f"or smoother.",
          "It is recognisably the same person.", f"The person still has {hair}.",
          f"{mark[0].upper()}{mark[1:]} can still be seen.")  # fmt: skip
    d.say("The frame and the distance stay those of the source, and both hands have five fingers where they are seen.",
          "Framing and distance are those of the source.", "Each visible hand has five fingers.")  # fmt: skip
    kind = d.one(("A photograph", "A colour portrait", "A half-length photograph"))
    return f"{kind} of {who} of {origin} descent with {hair} and {mark}, {start}, eyes open, hands empty."


def style(d: Draft) -> str:
    look, place, far = d.one(STYLES), d.one(land.PLACES), d.one(land.FAR)
    house = d.one(HOUSES).format(d.one(COLOURS))
    count, many = d.rng.randint(2, 5), d.one(land.COUNTED)[1]
    first, second, third = d.some(_PARTS[:2], 1) + d.some(_PARTS[2:], 2)
    d.say(f"Make the whole picture into {look}, as somebody would who works with that material and not with a filter.",
          f"The whole picture is {look}.")  # fmt: skip
    d.say(f"In detail, {first[0]}; {second[0]}; and {third[0]}.", first[1], second[1], third[1])
    d.say(f"Composition and content do not change: {house}, {far} and the {NUMBERS[count]} {many} have to be found "
        f"where they were, in the same "
          "number and size, even if they are only a few marks.",
          f"There is still {house}.", f"There is still {far}.", f"There are still exactly {NUMBERS[count]} "
          f"{many}.")  # fmt: skip
    d.say("No part may stay photographic, and the marks must be of one scale from edge to edge.",
          "No part is photographic.", "The marks are of one scale from edge to edge.")  # fmt: skip
    depth = f"{NUMBERS[count]} {many} in the foreground, {house} in the middle distance and {far}"
    return f"A photograph of {place}: {depth}, {d.one(land.LIGHTS)}."


LONG_WRITERS = dict(scene=scene, enhance=enhance, object=manipulate, text=reword, identity=identity, style=style)
