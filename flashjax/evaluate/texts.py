"""How well texts that were asked for were rendered, from the lines that a reader found, in any order and any language.

Characters are compared after NFKC and case folding, without spaces (recognisers lose them) and without punctuation,
except between two digits. Words are what spaces part; of Chinese and Japanese every character is one. A text is
compared with the span of what was read that takes the fewest edits, and no piece of what was read counts twice.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Line", "Spelled", "edit_distance", "fold", "located", "spelled", "words"]

_WIDE = ((0x3040, 0x30FF), (0x3400, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))  # kana and Chinese characters
_MEANT = "%&#@"  # punctuation by its Unicode category that says something
_MISREAD = 1 / 3  # of a text's characters: with more of them wrong, what was read may be another text


@dataclass(frozen=True)
class Line:
    """One line that was read, and its box: left, top, right, bottom in pixels."""

    text: str
    box: tuple[float, float, float, float]


class Spelled(NamedTuple):
    """What became of one text.

    Attributes:
        distance: the fewest edits that make the text of a span of what was read, as a share of the text's characters;
            0 is perfect, 1 is nothing of it.
        right: words of the text that stand in that span letter by letter. words: all of them.
        read: the span, folded; "" where nothing fits.
    """

    distance: float
    right: int
    words: int
    read: str


def fold(text: str) -> str:
    """The characters of a text that are compared."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(c for i, c in enumerate(text) if _counts(text, i))


def _counts(text: str, i: int) -> bool:
    kind = unicodedata.category(text[i])[0]
    if kind == "P" and text[i] not in _MEANT:
        return text[i - 1 : i].isdigit() and text[i + 1 : i + 2].isdigit()
    return kind not in "ZC"


def words(text: str) -> list[str]:
    """The words of a text, folded; of Chinese and Japanese, the characters."""
    found = []
    for part in unicodedata.normalize("NFKC", text).split():
        found += [fold(piece) for piece in _cut(part, lambda a, b: _wide(a) or _wide(b))]
    return [word for word in found if word]


def pieces(text: str) -> list[str]:
    """Where a span may begin and end: the words, and their parts where the kind of character changes or a capital
    follows a small letter, because recognisers join words ("BreadDaily", "Latte4.50")."""
    found = []
    for part in unicodedata.normalize("NFKC", text).split():
        found += [fold(piece) for piece in _cut(part, _parted)]
    return [piece for piece in found if piece]


def _cut(text: str, parted: Callable[[str, str], bool]) -> list[str]:
    found = [text[:1]]
    for before, c in itertools.pairwise(text):
        if parted(before, c):
            found.append(c)
        else:
            found[-1] += c
    return found


def _parted(before: str, after: str) -> bool:
    a, b = _kind(before), _kind(after)
    # Marks stay with digits, because those between two of them count.
    numbers = {a, b} <= {"digit", "mark"}
    return "wide" in (a, b) or (a != b and not numbers and (a, b) != ("upper", "lower"))


def _kind(c: str) -> str:
    if _wide(c):
        return "wide"
    kind = unicodedata.category(c)
    if kind[0] in "LM":
        return "upper" if kind == "Lu" else "lower"
    return "digit" if kind[0] == "N" else "mark"


def _wide(c: str) -> bool:
    return any(low <= ord(c) <= high for low, high in _WIDE)


def edit_distance(a: str, b: str) -> int:
    """Letters to insert, delete or replace to make ``b`` of ``a`` (Levenshtein, 1965)."""
    return _table(a, b)[-1][-1]


def _table(a: str, b: str) -> list[list[int]]:
    rows = [list(range(len(b) + 1))]
    for i, letter in enumerate(a, 1):
        above, row = rows[-1], [i]
        for j, other in enumerate(b, 1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (letter != other)))
        rows.append(row)
    return rows


def spelled(texts: Sequence[str], lines: Sequence[Line]) -> list[Spelled]:
    """How each of the texts was rendered. The best match takes its pieces first, so that a text that is missing takes
    nothing from one that is there, and one that is asked for twice has to be there twice.

    Args:
        texts: what was asked for; each has a character that counts.
        lines: what was read, in any order.
    """
    read, orders = _orders(lines)
    wanted, found, open_ = [fold(text) for text in texts], {}, set(range(len(texts)))
    spans = {i: _best(wanted[i], read, orders) for i in open_}
    while open_:
        best = min(open_, key=lambda i: (spans[i][0] / len(wanted[i]), -len(wanted[i]), i))
        edits, taken = spans[best]
        found[best] = _spelled(texts[best], wanted[best], edits, "".join(read[k] for k in taken))
        open_.remove(best)
        for k in taken:
            read[k] = ""
        spans |= {i: _best(wanted[i], read, orders) for i in open_ if set(taken) & set(spans[i][1])}
    return [found[i] for i in range(len(texts))]


def located(text: str, lines: Sequence[Line]) -> list[Line]:
    """The lines on which a text stands, one after another in any order; none where it is not found, or with more than a
    third of its characters wrong."""
    read, orders = _orders(lines)
    wanted = fold(text)
    edits, taken = _best(wanted, read, orders)
    if not taken or edits > _MISREAD * len(wanted):
        return []
    owners = [i for i, line in enumerate(lines) for _ in pieces(line.text)]
    return [lines[i] for i in sorted({owners[k] for k in taken})]


def _spelled(text: str, wanted: str, edits: int, read: str) -> Spelled:
    at, start, right = _aligned(wanted, read), 0, 0
    own = words(text)
    for word in own:
        where = at[start : start + len(word)]
        right += None not in where and where == list(range(where[0], where[0] + len(word)))
        start += len(word)
    return Spelled(edits / len(wanted), right, len(own), read)


def _aligned(wanted: str, read: str) -> list[int | None]:
    """For each character the position in ``read`` of the same one, by an alignment of the fewest edits."""
    rows, i, j = _table(wanted, read), len(wanted), len(read)
    at: list[int | None] = [None] * len(wanted)
    while i and j:
        if rows[i][j] == rows[i - 1][j - 1] + (wanted[i - 1] != read[j - 1]):
            i, j = i - 1, j - 1
            at[i] = j if wanted[i] == read[j] else None
        elif rows[i][j] == rows[i - 1][j] + 1:
            i -= 1
        else:
            j -= 1
    return at


def _orders(lines: Sequence[Line]) -> tuple[list[str], list[list[int]]]:
    """All pieces, and their numbers in the orders in which people read: by rows, and down one column after another."""
    read, of_line = [], []
    for line in lines:
        own = pieces(line.text)
        of_line.append(range(len(read), len(read) + len(own)))
        read += own
    found = []
    for order in (_rows(lines), _columns(lines)):
        numbers = [k for i in order for k in of_line[i]]
        found += [numbers] if numbers not in found else []
    return read, found


def _rows(lines: Sequence[Line]) -> list[int]:
    return [i for row in _groups(lines, 1) for i in sorted(row, key=lambda i: lines[i].box[0])]


def _columns(lines: Sequence[Line]) -> list[int]:
    return [i for column in _groups(lines, 0) for i in sorted(column, key=lambda i: lines[i].box[1])]


def _groups(lines: Sequence[Line], axis: int) -> Iterable[list[int]]:
    """Lines whose extents along an axis (0 across, 1 down) share half of the smaller one with those of a group."""
    groups: list[tuple[list[int], float, float]] = []
    for i in sorted(range(len(lines)), key=lambda i: lines[i].box[axis]):
        low, high = lines[i].box[axis], lines[i].box[axis + 2]
        for n, (members, first, last) in enumerate(groups):
            if min(high, last) - max(low, first) >= 0.5 * min(high - low, last - first):
                groups[n] = ([*members, i], min(low, first), max(high, last))
                break
        else:
            groups.append(([i], low, high))
    return [members for members, _, _ in groups]


def _best(wanted: str, read: Sequence[str], orders: Sequence[Sequence[int]]) -> tuple[int, list[int]]:
    """(edits, numbers of the pieces) of the span that takes the fewest; no piece where none saves an edit."""
    found = (len(wanted), [])
    for order in orders:
        edits, start, stop = _span(wanted, [read[k] for k in order])
        if edits < found[0]:
            found = (edits, [order[k] for k in range(start, stop)])
    return found


def _span(wanted: str, read: Sequence[str]) -> tuple[int, int, int]:
    """(edits, start, stop) of the run of pieces that is nearest to ``wanted``; "" is a piece that is taken.

    The algorithm of Sellers (1980), where a match begins and ends at pieces only: cell i is (edits from the run so far
    to the first i characters, where the run began).
    """
    size = len(wanted)
    best, nothing = (size, 0, 0), [(i, -1) for i in range(size + 1)]
    row = nothing
    for k, piece in enumerate(read):
        if not piece:
            row = nothing
            continue
        row = [min((i, k), cell if cell[1] >= 0 else (i, k)) for i, cell in enumerate(row)]
        for c in piece:
            above, row = row, [(row[0][0] + 1, row[0][1])]
            for i, own in enumerate(wanted, 1):
                edits, began = min((above[i][0] + 1, above[i][1]), (row[i - 1][0] + 1, row[i - 1][1]))
                row.append(min((edits, began), (above[i - 1][0] + (c != own), above[i - 1][1])))
        if row[size][0] < best[0]:
            best = (row[size][0], row[size][1], k + 1)
    return best
