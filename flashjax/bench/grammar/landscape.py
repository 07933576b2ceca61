"""Landscapes: place, season, light, counted objects, sides, distance, sky, and what must not be there."""

from flashjax.bench.grammar.draft import COLOURS, NUMBERS, Draft, apart

PLACES = (
    "a fjord between sheer granite walls", "a terraced rice valley", "a salt flat after rain",
    "a volcanic black-sand beach",
    "a birch forest beside a peat bog", "a canyon of banded sandstone", "an alpine meadow below a glacier",
    "a mangrove estuary at low tide", "a lavender plateau crossed by a gravel road",
    "a karst river with limestone towers",
    "a tundra plain dotted with ponds", "a vineyard on chalk hills", "a desert of crescent dunes",
    "a cloud forest on a steep ridge", "a harbour village on a rocky cape", "a braided river on a wide gravel plain",
    "a steppe with low grass and loess gullies", "a coral atoll seen from its outer reef", "a moor of purple heather",
    "a tea plantation in rolling hills", "a frozen lake ringed by spruce", "a canal lined with pollard willows",
    "a wheat plain under a long embankment", "an olive grove on dry-stone terraces", "a rocky archipelago of skerries",
    "a bamboo gorge with a rope bridge", "a geyser basin with mineral terraces",
    "an abandoned quarry filled with green water",
)  # fmt: skip
SEASONS = ("early spring", "high summer", "late autumn", "deep winter")
LIGHTS = (
    "low golden sunlight from the left", "low golden sunlight from the right", "flat light under an overcast sky",
    "blue twilight a few minutes after sunset", "hard noon light with short shadows",
    "moonlight with long pale shadows",
    "the first pink light of dawn", "shafts of sun through broken storm clouds",
)  # fmt: skip
COUNTED = (
    ("weathered wooden rowing boat", "weathered wooden rowing boats"), ("standing stone", "standing stones"),
    ("round hay bale", "round hay bales"), ("white beehive", "white beehives"),
    ("iron lantern post", "iron lantern posts"),
    ("cairn of flat stones", "cairns of flat stones"), ("scarecrow", "scarecrows"), ("canvas tent", "canvas tents"),
    ("fallen column drum", "fallen column drums"), ("upturned fishing crate", "upturned fishing crates"),
    ("bicycle without a rider", "bicycles without riders"), ("stone water trough", "stone water troughs"),
)  # fmt: skip
STRUCTURES = (
    "a lighthouse with {} and white bands", "a windmill with {} sails", "a chapel with a {} door",
    "a water tower painted {}",
    "a timber cabin with a {} roof", "a stone bridge hung with {} flags", "a {} cable-car cabin on its wire",
    "a watchtower with {} shutters", "a greenhouse with a {} frame", "a {} railway carriage on a siding",
    "a pagoda with {} eaves", "a dovecote limewashed in {}",
)  # fmt: skip
SIDES = (("left", "right"), ("right", "left"))
FAR = (
    "a line of wind turbines along the horizon", "a single snow-covered cone of a volcano",
    "a town's church spire above the trees",
    "a long freight train crossing from one side to the other", "a waterfall that drops in two steps",
    "a suspension bridge half hidden in mist", "a column of smoke that rises straight up",
    "a chain of three ridges that grow paler",
    "a sailing ship with all sails set", "a dam with open spillways",
)  # fmt: skip
ANIMALS = (
    ("grey heron", "grey herons", "stand in shallow water"), ("red fox", "red foxes", "look towards the viewer"),
    ("wild horse", "wild horses", "graze with lowered heads"), ("crow", "crows", "sit on a bare branch"),
    ("mountain goat", "mountain goats", "balance on a ledge"), ("swan", "swans", "drift in a line"),
    ("black sheep", "black sheep", "lie beside a fence"), ("seagull", "seagulls", "hover over the shore"),
    ("stag", "stags", "stand at the edge of the trees"),
)  # fmt: skip
SKIES = (
    "the sky is clear but for one lens-shaped cloud", "towering cumulus clouds fill the upper third",
    "a double rainbow spans the sky",
    "a thin crescent moon hangs high up", "the Milky Way stretches diagonally over the sky",
    "a flock of birds forms a V",
    "a curtain of rain falls from one dark cloud only", "a hot-air balloon with vertical stripes floats above",
    "green aurora bands ripple across the sky", "fog covers the ground to knee height and the sky above it is bare",
)  # fmt: skip
SURFACES = (
    "the nearest water mirrors the scene without a ripple", "the ground is strewn with wet fallen leaves",
    "cracked mud shows a pattern of hexagons", "fresh footprints lead from the bottom edge into the distance",
    "frost outlines each blade of grass", "a stream crosses from one lower corner to the other",
    "wild poppies grow along the path",
    "tyre tracks curve out of the picture at one side",
)  # fmt: skip
ABSENT = ("people", "cars", "power lines", "fences", "paved roads", "boats with motors")
VIEWS = (
    "a wide-angle photograph, sharp from front to back", "a steep aerial photograph",
    "a large-format film photograph",
    "a telephoto photograph", "a detailed gouache painting", "an ink and watercolour drawing",
    "a photograph from eye level", "a loosely brushed oil painting",
)  # fmt: skip
FRAMES = (
    "the horizon runs exactly through the lower third", "the edges of the picture are darker than its middle",
    "a dark branch frames the top edge",
    "the main subject stands off-centre with empty space beside it",
    "the path leads the eye from the lower left corner to the centre",
)  # fmt: skip


def landscape(d: Draft) -> str:
    """Seven to nine sentences, nine to twelve facts."""
    place, season, light, view = d.one(PLACES), d.one(SEASONS), d.one(LIGHTS), d.one(VIEWS)
    d.say(
        f"{apart(view)} of {place} in {season}, in {light}.",
        f"The scene is {place}.", f"The season is {season}.", f"There is {light}.", f"It looks like {view}.",
    )  # fmt: skip
    (single, plural), count = d.one(COUNTED), d.rng.randint(1, 6)
    things = single if count == 1 else plural
    rows = ("stand in a row", "are scattered irregularly", "form a half circle")
    arranged = "stands alone" if count == 1 else d.one(rows[:count])  # two make no half circle
    d.say(
        f"In the foreground {NUMBERS[count]} {things} {arranged}.",
        f"There {'is' if count == 1 else 'are'} exactly {NUMBERS[count]} {things} in the foreground.",
        *([f"The {things} {arranged}."] if count > 1 else []),
    )
    (first, second), colours = d.one(SIDES), d.some(COLOURS, 2)
    here, there = (s.format(c) for s, c in zip(d.some(STRUCTURES, 2), colours, strict=True))
    d.say(f"On the {first} there is {here}; farther back on the {second}, {there}.",
          f"On the {first} there is {here}.", f"On the {second}, farther back, there is {there}.")  # fmt: skip
    far = d.one(FAR)
    d.say(f"In the distance one sees {far}.", f"In the distance there is {far}.")
    many, doing = d.one(ANIMALS)[1:]
    count = d.rng.randint(2, 5)
    d.say(f"{NUMBERS[count]} {many} {doing}.", f"There are exactly {NUMBERS[count]} {many}, which {doing}.")
    sky, ground = d.one(SKIES), d.one(SURFACES)
    d.say(f"{sky}, and {ground}.", f"{sky[0].upper()}{sky[1:]}.", f"{ground[0].upper()}{ground[1:]}.")
    said = " ".join(d.sentences)  # what is named is not denied: sheep beside a fence, a gravel road
    absent = d.one([a for a in ABSENT if a.split()[-1].rstrip("s") not in said])
    d.say(f"{d.one(FRAMES)}; there are no {absent} anywhere.", f"There are no {absent} in the picture.")
    return d.prompt()
