"""Long text-centric prompts: posters with a programme, mind maps with leaves, tables, comics, notice boards, sheets of
steps. What they are filled with stands in ``contents``."""

from collections.abc import Callable

from flashjax.bench.grammar import contents as has
from flashjax.bench.grammar.draft import COLOURS, DARK, NUMBERS, ORDINALS, Draft, ended, listed
from flashjax.bench.grammar.text import FONTS, MONTHS, NAMES, PLACES, SLOGANS, SURFACES, TOWNS

_CLOCK = ("00", "15", "30", "45")


def programme(d: Draft) -> None:
    """A poster: headline, sub-lines, picture, five to seven lines of a programme, tickets, sponsors, a warning."""
    event = d.one(tuple(has.EVENTS))
    items, pictures = has.EVENTS[event]
    place = d.one(PLACES)
    d.say(f"The headline fills the width of the sheet and reads "
        f"{d.render(f'{place} {event}'.upper(), 'the headline')}.")
    edition = f"The {d.one(ORDINALS[2:])} edition, {d.rng.randint(3, 27)} {d.one(MONTHS)}"
    d.say(f"Right under it, half as high, stands {d.render(edition, 'the line under the headline')}, and then, in "
        f"italics, "
          f"{d.render(d.one(SLOGANS), 'the line in italics')}.", "The second line is half as high as the "
          "headline.")  # fmt: skip
    picture, colour = d.one(pictures), d.one(COLOURS)
    d.say(f"The middle of the poster shows {picture}, drawn in {colour} and black without any shading.",
          f"The middle of the poster shows {picture}.", f"The picture is {colour} and black.")  # fmt: skip
    count, hour = d.rng.randint(5, 7), d.rng.randint(9, 12)
    side = d.one(("left", "right"))
    d.say(f"Below the picture a programme with exactly {NUMBERS[count]} lines is set in two columns, the times in "
        f"bold on the "
          "left and what happens on the right.",
          f"The programme has exactly {NUMBERS[count]} lines.", "The times are bold and stand to the left of the "
          "items.")  # fmt: skip
    chosen = [items[i] for i in sorted(d.some(range(len(items)), count))]
    for i, item in enumerate(chosen):
        line = f"{hour + i}:{d.one(_CLOCK)} {item.format(name=d.one(NAMES))}"
        start = ("It opens with", "Next comes", "The third line is", "It is followed by", "The fifth line says",
            "Then one reads", "The last line says")
        said = "It ends with" if i == count - 1 else start[i]
        d.say(f"{said} {d.render(line, f'line {i + 1} of the programme')}.")
    price = d.rng.randint(3, 19)
    badge = d.render(f"Tickets {price} / {price - 2}", "the round badge")
    d.say(f"A round {d.one(COLOURS)} badge overlaps the {side} edge of the picture, tilted, with {badge}.",
          f"A round, tilted badge overlaps the {side} edge of the picture.")  # fmt: skip
    _sponsors(d)
    d.say(f"At the very bottom, in the smallest letters of all, stands "
        f"{d.render(d.one(has.WARNINGS), 'the last line')}.")


def _sponsors(d: Draft) -> None:
    count = d.rng.randint(3, 4)
    names, marks = d.some(has.FIRMS, count), d.some(has.EMBLEMS, count)
    below = [f"the line below the {mark.split(' ', 1)[1]}" for mark in marks]
    told = [f"{m} above {d.render(n, where)}" for m, n, where in zip(marks, names, below, strict=True)]
    d.say(f"A thin rule divides off {NUMBERS[count]} sponsors, side by side, each a small emblem above a name: from "
        f"left to "
          f"right {listed(told)}.",
          f"There are exactly {NUMBERS[count]} sponsors in one row, in the order {listed(marks)}.")  # fmt: skip


def mind_map_with_leaves(d: Draft) -> None:
    topic = d.one(tuple(has.MAPS))
    count = d.rng.randint(5, len(has.MAPS[topic]))
    branches, colours = d.some(tuple(has.MAPS[topic]), count), d.some(COLOURS, count)
    hours = {5: (1, 3, 6, 9, 11), 6: (1, 3, 5, 7, 9, 11), 7: (1, 2, 4, 6, 8, 10, 11), 8: (1, 2, 4, 5, 7, 8, 10,
        11)}[count]
    hub = d.one(has.HUBS)
    d.say(f"{d.render(topic, 'the centre')} stands in its centre, inside {hub}.", f"The centre is inside {hub}.")
    d.say(f"From there exactly {NUMBERS[count]} curved branches go out, each in a colour of its own, thick at the "
        f"centre and "
          f"thin at the end; no two of them cross. Their places are given as on the face of a clock.",
          f"Exactly {NUMBERS[count]} branches leave the centre.", "No branches cross.",
          "Branches are thicker at the centre.")  # fmt: skip
    for branch, colour, hour in zip(branches, colours, hours, strict=True):
        leaves = has.MAPS[topic][branch]
        leaves = d.some(leaves, d.rng.randint(2, len(leaves)))
        label = d.render(branch, f"the {colour} branch")
        quoted = listed(d.quote(*leaves))
        ways = (
            f"The {colour} branch points to {hour} o'clock, is labelled {label}, and splits into "
            f"{NUMBERS[len(leaves)]} twigs: {quoted}.",
            f"At {hour} o'clock one finds {label} on a {colour} branch; its {NUMBERS[len(leaves)]} twigs are called "
            f"{quoted}.",
            f"{label} belongs to the {colour} branch at {hour} o'clock, with {quoted} at the ends of its "
            f"{NUMBERS[len(leaves)]} twigs.",
        )
        d.say(d.one(ways), f"The {colour} branch has exactly {NUMBERS[len(leaves)]} twigs, which read {quoted}.")
    branch, drawn = d.one(branches), d.one(has.DOODLES)
    d.say("Words on branches follow their curve, and those on twigs are level.", "The words on twigs are level.")
    d.say(f"Beside \"{branch}\" there is {drawn}, and the empty corner at the lower right has, in small letters, "
          f"{d.render(d.one(has.NOTES), 'the lower right corner')}.", f"Beside \"{branch}\" there is "
          f"{drawn}.")  # fmt: skip


def ruled_table(d: Draft) -> None:
    """Three or four columns of figures beside a column of names, six to eight rows, a total, and what was marked."""
    title, first, columns = d.one(has.TABLES)
    columns = d.some(columns, d.rng.randint(3, 4))
    names, heads = d.some(TOWNS, d.rng.randint(6, 8)), [first, *(c[0] for c in columns)]
    d.say(f"Its title, centred above it, is {d.render(title, 'the title above the table')}.")
    d.say(f"There are {NUMBERS[len(heads)]} columns, headed from left to right {listed(d.quote(*heads))}; the heads "
        f"are white on a "
          f"{(colour := d.one(DARK))} band.",
          f"The column heads read, from left to right, {listed(_q(heads))}.",
          f"The heads are white on a {colour} band.")  # fmt: skip
    cells = {name: [str(d.rng.randint(low, high)) for _, low, high in columns] for name in names}
    start = ("The first row begins with {} and goes on with {}", "In the row of {} one reads {}", "{} has {}",
        "The row {} holds {}")
    for i, (name, row) in enumerate(cells.items()):
        quoted = d.quote(name, *row)
        said = start[0] if i == 0 else start[1 + i % 3]
        d.say(said.format(quoted[0], listed(quoted[1:])) + ".",
              f"The {ORDINALS[i]} row reads, from left to right, {listed(quoted)}.")  # fmt: skip
    sums = [str(sum(int(row[i]) for row in cells.values())) for i in range(len(columns))]
    quoted = d.quote("Total", *sums)
    d.say(f"A double line sets off the last row, which is bold and adds everything up: {listed(quoted)}.",
          f"The last row is bold and reads, from left to right, {listed(quoted)}.",
          f"There are exactly {NUMBERS[len(names)]} rows between the heads and the total.")  # fmt: skip
    name, shaded = d.some(names, 2)
    colour, other = d.one(COLOURS), d.one(("red", "blue", "green"))
    at = d.rng.randrange(len(columns))
    d.say(f"Figures are aligned at the right of their columns and names at the left. The row \"{shaded}\" is shaded "
        f"in {colour}. "
          f"Somebody has circled the \"{cells[name][at]}\" of \"{name}\" in {other} pencil and written "
          f"{d.render(d.one(has.REMARKS), 'the pencil note')} beside it.",
          "Figures are aligned at the right, names at the left.", f"The row \"{shaded}\" is shaded in {colour}.",
          f"The \"{cells[name][at]}\" of \"{name}\" is circled in {other}.")  # fmt: skip
    d.say(f"Under the table a line in small italics says {d.render(d.one(has.SOURCES), 'the line under the table')}.")


def comic(d: Draft) -> None:
    """Four or six panels of equal size with two animals, one thing, bubbles and a sound."""
    (one, other), thing, place = d.some(has.ANIMALS, 2), d.one(has.THINGS), d.one(has.STREETS)
    colours = d.some(COLOURS, 2)
    garments = [g.format(c) for g, c in zip(d.some(has.GARMENTS, 2), colours, strict=True)]
    rows = d.rng.randint(2, 3)
    d.say(f"It is drawn in ink and flat colours, with {NUMBERS[2 * rows]} panels of equal size in {NUMBERS[rows]} "
        f"rows, "
          "to be read from left to right and from top to bottom.",
          f"There are exactly {NUMBERS[2 * rows]} panels in {NUMBERS[rows]} rows of two.")  # fmt: skip
    title = f"{one} & {other} and the {thing}"
    d.say(f"Above the first row stands the title "
        f"{d.render(title.title().replace(' And The ', ' and the '), 'the title above the panels')}.")
    d.say(f"The {one} wears {garments[0]} and the {other} {garments[1]} in every panel, and both walk upright.",
          f"The {one} wears {garments[0]} in every panel.", f"The {other} wears {garments[1]} in every "
          f"panel.")  # fmt: skip
    beats = has.BEATS if rows == 3 else (*has.BEATS[:1], d.one(has.BEATS[1:3]), d.one(has.BEATS[3:5]), has.BEATS[5])
    for i, beat in enumerate(beats):
        seen, where, line = d.one(beat)
        fill = dict(a=one, b=other, thing=thing, place=place)
        where, seen = where.format(**fill), seen.format(**fill)
        spoken = d.render(line.format(**fill), f"{where} in panel {i + 1}")
        d.say(ended(f"Panel {i + 1}: {seen}; {where} {'says' if 'bubble' in where else 'is'} {spoken}"),
              f"In panel {i + 1} {seen}.")  # fmt: skip
    d.say(f"The gutters between panels are white and of one width, and in the lower right corner of the last panel "
        f"stands "
          f"{d.render(d.one(('THE END', 'To be continued', 'FIN')), 'the lower right corner of the last panel')}.",
          "The gutters are white and of equal width.")  # fmt: skip


def notice_board(d: Draft) -> None:
    """Four to six slips on cork, each in its place and colour."""
    places = ("upper left", "upper middle", "upper right", "lower left", "lower middle", "lower right")
    count = d.rng.randint(4, 6)
    used = sorted(d.some(range(6), count))
    d.say(f"It shows a cork board in a wooden frame with exactly {NUMBERS[count]} slips of paper on it, none of which "
        f"covers another.",
          f"There are exactly {NUMBERS[count]} slips of paper, none covering another.")  # fmt: skip
    for at, (head, details, drawn), colour in zip(used, d.some(has.SLIPS, count), d.some(COLOURS, count), strict=True):
        slip = f"{colour} slip"
        body = d.render(d.one(details), f"the second line of the {slip}")
        number = f"{d.rng.randint(200, 999)} {d.rng.randint(1000, 9999)}"
        where = f"At the {places[at]}" if d.rng.random() < 0.5 else f"In the {places[at]} of the board"
        head, number = d.render(head, f"the heading of the {slip}"), d.render(number, f"the number on the {slip}")
        d.say(d.one((
            f"{where} hangs a {slip} headed {head}; under it stands {body} and, larger, {number}. It also has {drawn}.",
            f"{where} there is a {slip} with {drawn}. Its heading is {head}, followed by {body} and, at the foot, "
            f"{number}.",
        )), f"The {slip} hangs at the {places[at]}.", f"The {slip} has {drawn}.")  # fmt: skip
    key, pin = d.one(has.HANGING), d.one(COLOURS)
    d.say(f"All slips are held by {pin} pins, one each, and {key}.", f"The pins are {pin}.",
        f"{key[0].upper()}{key[1:]}.")


def steps(d: Draft) -> None:
    """A sheet of instructions: five to seven numbered steps, each with its little picture."""
    title, made, needed = d.one(has.SHEETS)
    count = d.rng.randint(5, len(made))
    chosen = [made[i] for i in sorted(d.some(range(len(made)), count))]
    d.say(f"The heading says {d.render(title, 'the heading')}.")
    colour = d.one(COLOURS)
    d.say(f"A {colour} box in the upper right corner holds a list, one line each: {listed(d.quote(*needed))}.",
          f"A {colour} box in the upper right corner holds the lines {listed(_q(needed))}.")  # fmt: skip
    d.say(f"Then follow exactly {NUMBERS[count]} steps. Each has a large figure in a circle at the left, a line of "
        f"text, and a "
          "small line drawing at the right.",
          f"There are exactly {NUMBERS[count]} steps.", "Each step has a figure in a circle at the left and a drawing "
          "at the right.")  # fmt: skip
    for i, (text, drawing) in enumerate(chosen, 1):
        d.say(f"Step {d.quote(str(i))[0]} reads {d.render(text, f'step {i}')}, and its drawing shows {drawing}.",
              f"The drawing of step \"{i}\" shows {drawing}.")  # fmt: skip
    marked = d.rng.randint(2, count)
    d.say(f"A {(red := d.one(COLOURS))} triangle with an exclamation mark stands beside step {marked}, and the foot "
        f"of the sheet "
          f"carries {d.render(f'Sheet {d.rng.randint(2, 90)} of 96', 'the foot of the sheet')} and "
          f"{d.render(d.one(has.WARNINGS), 'the line beside it')}.",
          f"A {red} triangle with an exclamation mark stands beside step {marked}.")  # fmt: skip


LONG_FORMS = {
    programme: "poster", mind_map_with_leaves: "mind map", ruled_table: "ruled table", comic: "comic page",
    notice_board: "notice board", steps: "sheet of instructions",
}  # fmt: skip


def layout(d: Draft) -> str:
    """One of the forms on a surface, or two of them side by side, which makes 350 to 500 words."""
    form = d.one(tuple(LONG_FORMS))
    if form is notice_board:
        place = d.one(has.WALLS)
        d.say(f"A photograph taken straight on {place}.", f"The picture is taken {place}.")
        form(d)
    elif d.rng.random() < 0.3:
        _side_by_side(d, form, d.one([f for f in LONG_FORMS if f not in (form, notice_board)]))
    else:
        kind, surface, font = LONG_FORMS[form], d.one(SURFACES), d.one(FONTS)
        d.say(f"A {kind}, {surface}, seen straight on. Its headings are set in {font}.",
              f"The picture shows a {kind} {surface}.", f"The headings are in {font}.")  # fmt: skip
        form(d)
    d.say(d.one(has.CLOSINGS), "There is no text besides what was asked for.")
    return d.prompt()


def _side_by_side(d: Draft, *forms: Callable[[Draft], None]) -> None:
    place, (left, right) = d.one(has.WALLS), (LONG_FORMS[form] for form in forms)
    d.say(f"Two large sheets of the same size hang side by side on a white wall {place}: a {left} on the left and a "
        f"{right} "
          "on the right.", f"A {left} hangs on the left and a {right} on the right.",
          f"The picture is taken {place}.")  # fmt: skip
    for side, kind, form, font in zip(("left", "right"), (left, right), forms, d.some(FONTS, 2), strict=True):
        d.say(f"On the {side}, the headings of the {kind} are set in {font}.",
            f"The headings of the {kind} are in {font}.")
        form(d)


def _q(texts) -> list[str]:
    return [f'"{text}"' for text in texts]
