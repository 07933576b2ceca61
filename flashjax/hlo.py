"""What a compiled program moves: read from its own text, loops counted as often as they run.

XLA's cost analysis counts a loop's body once, so that a scan over layers is one layer, and knows nothing of what goes
over the links between chips. All figures are of one device.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator
from functools import partial

SIZES = dict(pred=1, s4=0.5, u4=0.5, s8=1, u8=1, s16=2, u16=2, bf16=2, f16=2, s32=4, u32=4, f32=4, s64=8, u64=8, f64=8)
ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# What computes nothing, or only goes on to a computation that is read for itself.
MOVES_NOTHING = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all",
    "partition-id", "replica-id", "opt-barrier", "iota",
}  # fmt: skip
# Of a large result the words in its name that tell what it is, and the settings that make it smaller.
FEWER = "fewer samples a device"
KNOBS = (
    (r"bhqk|bhqd|_where", f"attention's scores: mesh.context or mesh.tensor, {FEWER}"),
    (r"^all-gather", "a layer's whole kernel: mesh.tensor"),
    (r"while", f"of one layer: model.remat, mesh.context or mesh.tensor, {FEWER}"),
)
STACKED = f"of all layers: model.remat where it is the stream, mesh.fsdp where it is kernels or gradients, {FEWER}"
ELSE = f"mesh.fsdp or mesh.tensor, {FEWER}"


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A line of a computation. ``type``: its result as written; ``rest``: all behind its operands."""

    name: str
    type: str
    kind: str
    operands: tuple[str, ...]
    rest: str
    root: bool

    def called(self, *words: str) -> list[str]:
        """The computations that it names behind one of the words."""
        return re.findall(rf"(?:{'|'.join(words)})=%?([\w.\-]+)", self.rest)


Computations = dict[str, dict[str, Instruction]]


def parse(text: str) -> tuple[Computations, str]:
    """The computations of a program by name, and the name of the one that is its beginning."""
    computations, entry, own = {}, "", {}
    for line in text.splitlines():
        if line.endswith("{") and (head := re.match(r"(ENTRY )?%?([\w.\-]+) ?\(", line)):
            own = computations[head[2]] = {}
            entry = head[2] if head[1] else entry
        elif found := re.match(r"\s+(ROOT )?%?([\w.\-]+) = ", line):
            type_, rest = _type(line[found.end() :])
            kind, _, rest = rest.partition("(")
            operands, _, rest = rest.partition(")")
            names = tuple(re.findall(r"%([\w.\-]+)", operands))
            constant = operands if kind == "constant" else ""
            own[found[2]] = Instruction(found[2], type_, kind, names, constant + rest, bool(found[1]))
    return computations, entry


def _type(text: str) -> tuple[str, str]:
    """A result's type, which may be a tuple with brackets and spaces in it, and what follows."""
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if letter == " " and not depth:
            return text[:i], text[i + 1 :]
    return text, ""


def arrays(type_: str) -> list[float]:
    """Bytes of every array of a result that lies in the device's main memory (elsewhere S(1) and on is written)."""
    return [
        SIZES.get(kind, 1) * math.prod(map(int, filter(None, dims.split(","))))
        for kind, dims, layout in ARRAY.findall(type_)
        if "S(" not in layout
    ]


def on_host(type_: str) -> bool:
    """Whether a result lies in the host's memory."""
    return "S(5)" in type_


def executed(computations: Computations, name: str, times: int = 1) -> Iterator[tuple[Instruction, str, int]]:
    """Every instruction that runs outside of fusions: it, its computation, and how often. Of a conditional the branch
    that moves most: which one is taken is not known before it runs."""
    for one in computations[name].values():
        yield one, name, times
        if one.kind == "while":
            often = times * trips(computations[one.called("condition")[0]])
            yield from executed(computations, one.called("body")[0], often)
        elif one.kind == "conditional":
            yield from executed(computations, max(_branches(one), key=partial(traffic, computations)), times)
        elif one.kind == "call" or one.kind.endswith("async-start"):
            for inner in one.called("to_apply", "calls"):
                yield from executed(computations, inner, times)


def _branches(one: Instruction) -> list[str]:
    """Of a conditional: true_computation=%a, false_computation=%b, or branch_computations={%a, %b}."""
    several = re.search(r"branch_computations=\{([^}]*)\}", one.rest)
    return re.findall(r"[\w.\-]+", several[1]) if several else one.called("true_computation", "false_computation")


def trips(condition: dict[str, Instruction]) -> int:
    """How often a scan's loop runs: the number that its counter is compared with."""
    found = [one for one in condition.values() if one.kind == "constant" and re.match(r"[su]32\[\]", one.type)]
    return max((int(re.match(r"-?\d+", one.rest)[0]) for one in found), default=1)


def links(computations: Computations, entry: str, devices: int) -> dict[str, float]:
    """Bytes that each of the devices gets from others in a call of the program, by kind of collective. What TPUs have
    as a fusion called all-reduce-scatter, inside of it an all-reduce of the whole, is sent as a reduce-scatter."""
    moved = collections.Counter()
    for one, where, times in executed(computations, entry):
        inside = one.called("calls") if one.kind == "fusion" else []
        scatters = any("all-reduce-scatter" in name for name in inside)
        own = [(one, where), *((inner, name) for name in inside for inner in computations[name].values())]
        for each, there in own:
            kind = each.kind.removesuffix("-start")
            if kind in COLLECTIVES:
                kind = "reduce-scatter" if scatters and kind == "all-reduce" else kind
                moved[kind] += times * _received(_finished(each, computations[there]), kind, devices)
    return dict(moved)


def _received(one: Instruction, kind: str, devices: int) -> float:
    """Of a collective that is finished. A result that stays on the chip has come over the links too."""
    whole = sum(_anywhere(one.type))
    if kind == "collective-permute":
        return whole
    group = _group(one.rest, devices)
    if one.kind == "reduce-scatter":
        return whole * (group - 1)  # its result is a part
    return whole * (group - 1) / group * (2 if kind == "all-reduce" else 1)


def _group(rest: str, devices: int) -> int:
    """How many devices take part: replica_groups={{0,1},..}, =[2,4]<=[8], or =mesh['x'=2,'y'=4] {'y'}, on large slices
    with the order of the devices between the two; all of them where it is {}. Raises ValueError for what is written
    otherwise: taken for one device, such collectives would move nothing."""
    if "replica_groups={}" in rest:
        return devices
    if found := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):
        return found[1].count(",") + 1
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):
        return int(found[1])
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", rest):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", found[1])}
        return math.prod(sizes[name] for name in re.findall(r"'(\w+)'", found[2]))
    raise ValueError(f"These devices of a collective are written in a way that hlo.py does not know: {rest[:200]}")


def traffic(computations: Computations, entry: str) -> float:
    """Bytes that a call of the program reads from and writes to the device's memory, each operand and result once: of a
    slice the slice, and of a buffer that is updated in place the update. Tiles that are read twice are not seen."""
    return sum(
        times * _touched(one, computations, where)
        for one, where, times in executed(computations, entry)
        # What is started asynchronously is read for itself.
        if one.kind not in MOVES_NOTHING and not one.kind.endswith(("-done", "async-start"))
    )


def _finished(one: Instruction, own: dict[str, Instruction]) -> Instruction:
    """An instruction as if it were not asynchronous: what is called ...-start names its operands among its results, and
    what it gives is its ...-done's."""
    if not one.kind.endswith("-start"):
        return one
    done = (i for i in own.values() if i.kind.endswith("-done") and one.name in i.operands[:1])
    return dataclasses.replace(one, kind=one.kind.removesuffix("-start"), type=next(done, one).type)


def _touched(one: Instruction, computations: Computations, where: str) -> float:
    own = computations[where]
    one = _finished(one, own)
    if one.kind in ("dynamic-slice", "slice", "gather"):
        there = one.operands[0] in own and any(arrays(own[one.operands[0]].type))
        return sum(arrays(one.type)) + there * sum(_anywhere(one.type))
    if one.kind == "dynamic-update-slice":
        update = own[one.operands[1]].type
        return sum(arrays(update)) + any(arrays(one.type)) * sum(_anywhere(update))
    inside = computations.get(next(iter(one.called("calls")), ""), {}) if one.kind == "fusion" else {}
    parts = [i for i in inside.values() if i.kind == "parameter"]
    parts = {int(re.match(r"\d+", i.rest)[0]) if re.match(r"\d+", i.rest) else n: i for n, i in enumerate(parts)}
    reads = sum(
        _read(parts[n], inside, sum(arrays(own[name].type))) if n in parts else sum(arrays(own[name].type))
        for n, name in enumerate(one.operands)
        if name in own
    )
    return reads + _written(one, inside)


def _read(parameter: Instruction, inside: dict[str, Instruction], whole: float) -> float:
    """What of a fusion's operand is read: all, or the slices that are all it is used for."""
    read, names = 0.0, [parameter.name]
    while names:
        name = names.pop()
        for user in (i for i in inside.values() if name in i.operands):
            if user.kind == "bitcast":
                names.append(user.name)
            elif user.kind in ("dynamic-slice", "slice", "gather") and user.operands[0] == name:
                read += sum(arrays(user.type))
            elif user.kind != "dynamic-update-slice" or user.operands[0] != name:
                return whole
    return min(read, whole)


def _written(one: Instruction, inside: dict[str, Instruction]) -> float:
    root = next((i for i in inside.values() if i.root), None)
    outs = [inside[n] for n in root.operands if n in inside] if root and root.kind == "tuple" else [root]
    while any(out and out.kind == "bitcast" for out in outs):
        outs = [inside.get(o.operands[0]) if o and o.kind == "bitcast" else o for o in outs]
    if not any(out and out.kind == "dynamic-update-slice" for out in outs):
        return sum(arrays(one.type))
    return sum(
        sum(arrays(inside[out.operands[1]].type if out.kind == "dynamic-update-slice" else out.type))
        for out in outs
        if out
    )


def host(computations: Computations, entry: str) -> dict[str, float]:
    """Bytes that a call of the program brings ``from`` the host's memory to the device, and ``to`` it: slices and
    copies, as teachers that are held there (config.teacher_memory) and what remat "offload" keeps there move."""
    moved = dict.fromkeys(("from", "to"), 0.0)
    for one, where, times in executed(computations, entry):
        own = computations[where]
        one = _finished(one, own)
        if one.kind not in ("copy", "slice", "dynamic-slice", "dynamic-update-slice") or one.operands[0] not in own:
            continue
        there, ends_there = (on_host(type_) for type_ in (own[one.operands[0]].type, one.type))
        if one.kind == "dynamic-update-slice":
            moved["to"] += times * there * sum(_anywhere(own[one.operands[1]].type))
        elif there != ends_there:
            moved["from" if there else "to"] += times * sum(_anywhere(one.type))
    return moved


def _anywhere(type_: str) -> list[float]:
    """Bytes of every array of a result, in whatever memory it lies."""
    return arrays(re.sub(r"S\(\d+\)", "", type_))


def largest(computations: Computations, entry: str, count: int = 4) -> list[dict]:
    """The largest arrays that the program makes: ``bytes``, ``shape``, ``what`` and the settings that would shrink
    them. Not all of them are there at once."""
    seen, stacks = {}, {times for *_, times in executed(computations, entry) if times > 1}
    for one, _, _ in executed(computations, entry):
        if one.kind in MOVES_NOTHING or not (sizes := arrays(one.type)):
            continue
        size, shape = max(zip(sizes, ARRAY.findall(one.type), strict=False), key=lambda pair: pair[0])
        name = re.search(r'op_name="([^"]*)"', one.rest)
        what = f"{one.kind} {name[1] if name else one.name}"
        stacked = int(shape[1].partition(",")[0] or 0) in stacks
        knob = STACKED if stacked else next((knob for words, knob in KNOBS if re.search(words, what)), ELSE)
        seen.setdefault((shape[:2], knob), dict(bytes=size, shape="{}[{}]".format(*shape[:2]), what=what, knob=knob))
    return sorted(seen.values(), key=lambda entry: -entry["bytes"])[:count]
