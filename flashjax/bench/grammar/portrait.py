# ruff: noqa: RUF001 (Chinese punctuation)
"""Portraits: a person of any kind, dressed piece by piece, doing something with the hands, often beside a sign."""

from flashjax.bench.grammar.draft import COLOURS, Draft, apart

PEOPLE = (
    ("a woman", "her"), ("a man", "his"), ("an elderly woman", "her"), ("an elderly man", "his"),
    ("a young woman", "her"),
    ("a young man", "his"), ("a girl of about eight", "her"), ("a boy of about ten", "his"),
    ("a middle-aged woman", "her"),
    ("a middle-aged man", "his"),
)  # fmt: skip
ORIGINS = (
    "East Asian", "West African", "Northern European", "South Asian", "Andean", "Arab", "Polynesian", "Mediterranean",
    "East African",
    "Central Asian", "Southeast Asian", "Caribbean",
)  # fmt: skip
HAIR = (
    "short curly black hair", "a long silver braid over one shoulder", "a shaved head",
    "chin-length straight auburn hair", "loose grey curls",
    "two tight buns", "cropped white hair", "a high ponytail tied with a ribbon", "shoulder-length dreadlocks",
    "a bob with a blunt fringe",
)  # fmt: skip
MARKS = (
    "freckles across the nose", "a small scar through the left eyebrow", "deep laughter lines", "round wire glasses",
    "a gap between the front teeth",
    "a smear of flour on one cheek", "a single pearl earring", "tortoiseshell glasses pushed up on the forehead",
    "a plaster on the chin",
)  # fmt: skip
TOPS = (
    "a {} knitted jumper with a rolled collar", "a {} raincoat with wooden toggles",
    "a {} linen shirt with rolled-up sleeves", "a {} velvet waistcoat",
    "a {} boiler suit with a zip", "a {} silk blouse with a bow", "a {} denim jacket with patches", "a {} quilted coat",
    "a {} apron over a white shirt",
)  # fmt: skip
EXTRAS = (
    "a {} woollen scarf", "a {} beret", "a {} bow tie", "a broad {} belt", "a {} headscarf",
    "a {} backpack on one shoulder", "fingerless {} gloves",
    "a {} carnation in the buttonhole",
)  # fmt: skip
HANDS = (
    "holds a cracked blue teacup with both hands", "threads a needle, thumb and forefinger touching",
    "holds up four fingers of the right hand",
    "peels an orange in one long spiral", "plays an accordion, all ten fingers visible", "folds a paper crane",
    "rests the chin on the back of the left hand",
    "winds an old alarm clock", "holds a hen under one arm", "ties the laces of a red boot",
    "writes with the left hand in a ruled notebook",
    "balances a stack of three plates on the right palm", "holds a magnifying glass before one eye",
    "shuffles a deck of cards",
)  # fmt: skip
FACES = (
    "laughing with closed eyes", "looking straight into the lens without a smile",
    "glancing over the shoulder at something outside the picture",
    "with raised eyebrows and pursed lips", "with a faint, tired smile", "mid-sentence, the mouth half open",
    "squinting against the light",
)  # fmt: skip
PLACES = (
    "in a repair shop for radios", "at a night market stall", "in a tiled swimming hall without water",
    "on the platform of a country station",
    "in a greenhouse full of orchids", "in the doorway of a bakery", "in a library with a spiral staircase",
    "on a ferry's upper deck",
    "in a laundrette with eight round doors", "at a potter's wheel", "under the awning of a flower stand",
    "in a school corridor with lockers",
)  # fmt: skip
SIGNS = (
    "a hand-painted wooden sign above {} head", "an enamel plate on the wall behind", "a neon sign in the window",
    "a chalkboard leaning against {} knee",
    "a name badge on {} chest", "a paper banner strung across the background",
    "a cardboard sign in the lower right corner",
)  # fmt: skip
WORDS = (
    "OPEN UNTIL DAWN", "REPAIRS WHILE YOU WAIT", "PLATFORM 7", "NO. 42 ORCHARD LANE", "FRESH RYE 4.80",
    "PLEASE RING TWICE", "LOST & FOUND", "QUIET, PLEASE",
    "LAST FERRY 23:15", "MIND THE STEP", "TODAY: PEAR SOUP", "CLASS OF 1987", "BACK IN TEN MINUTES", "MEMBERS ONLY",
    "SECOND HAND, FIRST RATE",
    "营业至天明", "修表配钥匙", "今日特价：梨汤", "请勿喧哗", "末班渡轮 23:15", "桂花巷 42 号", "小心台阶", "旧书新价",
)  # fmt: skip
LIGHTS = (
    "soft window light from the left leaves the right half of the face in shadow",
    "a single bare bulb lights the face from above",
    "a ring-shaped reflection is visible in both eyes", "warm lamplight and cold daylight meet on the face",
    "backlight makes a bright rim around the hair",
    "overcast daylight falls on the face without hard shadows", "a red glow from a sign colours one cheek",
)  # fmt: skip
LENSES = (
    "a head-and-shoulders photograph with a blurred background", "a half-length photograph with the eyes in the upper "
    "third",
    "a full-length photograph from a low angle",
    "an environmental portrait, sharp to the back wall", "a square medium-format photograph",
    "a tightly cropped close-up",
)  # fmt: skip


SKIN = "Skin shows pores and fine lines."


def pronoun(whose: str) -> str:
    return {"her": "She", "his": "He"}[whose]


def looks(d: Draft, person: str) -> tuple[str, str]:
    """Hair and a mark; a child has neither grey hair nor lines of age."""
    child = "girl" in person or "boy" in person
    old = ("silver", "grey", "white", "laughter")
    hair, marks = ([t for t in all_ if not (child and any(w in t for w in old))] for all_ in (HAIR, MARKS))
    return d.one(hair), d.one(marks)


def portrait(d: Draft) -> str:
    """Seven sentences, nine to eleven facts; two of three have a sign."""
    (person, whose), origin, lens, place = d.one(PEOPLE), d.one(ORIGINS), d.one(LENSES), d.one(PLACES)
    d.say(
        f"{apart(lens)} of {person} of {origin} descent {place}.",
        f"The person is {person}.", f"The person is {place}.", f"It is {lens}.",
    )  # fmt: skip
    hair, mark = looks(d, person)
    she = pronoun(whose)
    d.say(f"{she} has {hair} and {mark}.", f"The person has {hair}.", f"One can see {mark}.")
    colours = d.some(COLOURS, 2)
    top, extra = d.one(TOPS).format(colours[0]), d.one(EXTRAS).format(colours[1])
    d.say(f"{she} wears {top} and {extra}.", f"The person wears {top}.", f"The person wears or carries {extra}.")
    hands, face = d.one(HANDS), d.one(FACES)
    d.say(f"{she} {hands}, {face}.", f"The person {hands}.", f"The face is shown {face}.",
          "Each visible hand has five fingers, well formed.")  # fmt: skip
    if d.rng.random() < 2 / 3:
        close = "close-up" in lens or "shoulders" in lens
        sign = d.one([s for s in SIGNS if not (close and "knee" in s)]).format(whose)
        d.say(f"On {sign} one reads {d.render(d.one(WORDS), sign)}; no other text is legible.")
    light = d.one(LIGHTS)
    d.say(f"{light}.", f"{light[0].upper()}{light[1:]}.")
    d.say("Skin keeps its pores and fine lines, and nothing is sharper than the face.", SKIN)
    return d.prompt()
