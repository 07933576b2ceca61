"""Check a conversion completely, then carry it out: PyTorch to Flax (`plan`, `execute`) and back
(`export`).

`plan` compares the whole file with the whole model before any weight is read, and reports all that
is wrong at once.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from typing import Any

import numpy as np

from flashjax import paths
from flashjax.convert.arrays import finite, row_ranges, slabs
from flashjax.convert.reader import ConversionError, Reader, Spec
from flashjax.convert.table import Table, Transform, copy


@dataclass(frozen=True)
class Move:
    """One tensor's way: source name, target path, slot of a stacked target (or None)."""

    source: str
    path: str
    slot: int | None
    transform: Transform


@dataclass(frozen=True)
class Plan:
    """A checked conversion: every source tensor is moved or dropped, every slot of the target is
    filled once."""

    moves: tuple[Move, ...]
    dropped: tuple[tuple[str, str], ...]
    target: Mapping[str, Spec]


def _join(problems: list[str], what: str) -> ConversionError:
    lines = "\n".join(f"  - {problem}" for problem in problems[:20])
    lines += f"\n  - and {len(problems) - 20} more" * (len(problems) > 20)
    return ConversionError(f"{what} ({len(problems)} problem{'s' * (len(problems) > 1)}):\n{lines}")


def plan(
    table: Table,
    source: Mapping[str, Spec],
    target_abstract: Mapping[str, Any],
    dtype: Any = None,
    what: str = "The weights",
) -> Plan:
    """Check source against target completely, both ways, without reading data.

    Args:
      table: the architecture's rows.
      source: {PyTorch name: (shape, dtype)}, from `Reader.shapes`.
      target_abstract: nested dict of anything with `.shape` and `.dtype`.
      dtype: floating dtype of all floating parameters; None takes each leaf's own from
        `target_abstract`.
      what: the subject of the message.

    Returns:
      The moves, in the order of `source`.

    Raises:
      ConversionError: listing every problem: unknown names, names that two rows take, targets that
        the model does not have, slots out of range, filled twice or not at all, wrong shapes,
        integers for floats.
    """
    target = {path: _cast(leaf, dtype) for path, leaf in paths.flatten(target_abstract).items()}
    problems: list[str] = []
    moves, dropped = _assign(table, source, target, problems)
    for move in moves:
        problems += _misfits(move, source[move.source], target)
    problems += _coverage(moves, target)
    if problems:
        raise _join(problems, f"{what} do not fit the model")
    return Plan(tuple(moves), tuple(dropped), target)


def _cast(leaf: Any, dtype: Any) -> Spec:
    own = np.dtype(leaf.dtype)
    return Spec(tuple(leaf.shape), np.dtype(dtype) if dtype is not None and is_float(own) else own)


def is_float(dtype: np.dtype) -> bool:
    """Say whether a dtype is floating, the types of ml_dtypes included."""
    # numpy calls bfloat16 and the float8 types "void"
    return dtype.kind == "f" or dtype.name.startswith(("bfloat", "float8"))


def common_dtype(tensors: Mapping[str, Spec]) -> np.dtype:
    """Return the floating dtype of tensors; float32, which holds them all, where there are several."""
    found = {spec.dtype for spec in tensors.values() if is_float(spec.dtype)}
    return found.pop() if len(found) == 1 else np.dtype(np.float32)


def _assign(
    table: Table, source: Mapping[str, Spec], target: Mapping[str, Spec], problems: list[str]
) -> tuple[list[Move], list[tuple[str, str]]]:
    moves, dropped = [], []
    drops = [(re.compile(each.source), each.reason) for each in table.drops]
    for name in source:
        today = table.today(name)
        places = [(rule, place) for rule in table.rules if (place := rule.place(today))]
        reasons = [reason for regex, reason in drops if regex.fullmatch(today)]
        if len(places) + len(reasons) > 1:
            problems.append(f"{name}: more than one row of the table takes it; correct the table.")
        elif places:
            rule, (path, slot) = places[0]
            if rule.surplus and not _has(target, path, slot):
                dropped.append((name, rule.surplus))
            else:
                moves.append(Move(name, path, slot, rule.transform))
        elif reasons:
            dropped.append((name, reasons[0]))
        else:
            problems.append(f"{name}: the table has no row for this tensor of the file.")
    return moves, dropped


def _has(target: Mapping[str, Spec], path: str, slot: int | None) -> bool:
    return path in target and (slot is None or slot < target[path].shape[0])


def _misfits(move: Move, found: Spec, target: Mapping[str, Spec]) -> Iterator[str]:
    """Say what is wrong with one move on its own."""
    where = move.path if move.slot is None else f"{move.path}[{move.slot}]"
    if move.path not in target:
        yield f"{move.source}: belongs at {where}, which the model does not have."
        return
    wanted = target[move.path]
    if move.slot is not None and not (wanted.shape and move.slot < wanted.shape[0]):
        slots = wanted.shape[0] if wanted.shape else 0
        yield f"{move.source}: belongs at {where}, but the model has {slots} slots there."
        return
    shape = wanted.shape if move.slot is None else wanted.shape[1:]
    try:
        got = move.transform.shape(found.shape)
    except ValueError:
        got = None
    if got != shape:
        yield (
            f"{move.source}: its shape {list(found.shape)} does not become {list(shape)} of "
            f"{where} "
            f"by {move.transform.name}."
        )
    if found.dtype != wanted.dtype and not (is_float(found.dtype) and is_float(wanted.dtype)):
        yield f"{move.source}: {found.dtype} in the file cannot be {wanted.dtype} of {where}."


def _coverage(moves: list[Move], target: Mapping[str, Spec]) -> Iterator[str]:
    """Say which slots of the target are filled never, or more than once."""
    counts = Counter((move.path, move.slot) for move in moves)
    stacked = {move.path for move in moves if move.slot is not None}
    for path, spec in target.items():
        slots = range(spec.shape[0]) if path in stacked else [None]
        missing = [slot for slot in slots if not counts[path, slot]]
        if missing == [None]:
            yield f"{path}: no tensor of the file fills this parameter of the model."
        elif missing:
            shown = ", ".join(map(str, missing[:10]))
            more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
            yield f"{path}: no tensor of the file fills layers {shown}{more}."
    for (path, slot), count in counts.items():
        if count > 1:
            where = path if slot is None else f"{path}[{slot}]"
            yield f"{where}: {count} tensors of the file fill it."


def keep_dtypes(todo: Plan, source: Mapping[str, Spec]) -> Plan:
    """Return the plan with every floating parameter in the dtype of what fills it (float32 if layers differ)."""
    found: dict[str, set[np.dtype]] = {path: set() for path in todo.target}
    for move in todo.moves:
        found[move.path].add(source[move.source].dtype)
    target = {
        path: Spec(spec.shape, found[path].pop() if len(found[path]) == 1 else np.dtype(np.float32))
        if is_float(spec.dtype)
        else spec
        for path, spec in todo.target.items()
    }
    return replace(todo, target=target)


def makers(todo: Plan, reader: Reader, allow_nonfinite: bool = False) -> dict[str, Callable[[], Iterator[np.ndarray]]]:
    """Return {target path: function that reads and makes that parameter in pieces}: one tensor of the source is in
    memory at a time, or a slab of it where rows stay rows, however many layers are stacked.

    Args:
      todo: from `plan`.
      reader: whose tensors were planned.
      allow_nonfinite: take NaN and infinite weights as they are.

    The functions raise ConversionError where a weight is not finite.
    """
    moves = _by_path(todo)

    def pieces(move: Move, dtype: np.dtype) -> Iterator[np.ndarray]:
        for tensor in _parts(reader, move):
            for slab in slabs(move.transform.forward(tensor), dtype):
                if not allow_nonfinite and not finite(slab):
                    cast = f", or too large for {dtype}" if tensor.dtype != dtype else ""
                    raise ConversionError(
                        f"{move.source} in {reader.file(move.source)} holds NaN or infinite values{cast}: the file is "
                        "damaged or its training diverged; --allow-nonfinite converts it as it is."
                    )
                yield slab

    def make(path: str) -> Iterator[np.ndarray]:
        for move, following in zip_longest(moves[path], moves[path][1:]):
            if following:
                reader.expect(following.source)
            yield from pieces(move, todo.target[path].dtype)

    return {path: partial(make, path) for path in todo.target}


def _parts(reader: Reader, move: Move) -> Iterator[np.ndarray]:
    """A tensor of the source, in slabs if its rows are those of the target. Then nothing that waits to be written is
    part of a whole tensor, which would be in memory beside the next one."""
    spec = reader.entry(move.source).spec
    if move.transform is not copy or not spec.shape:
        yield reader.read(move.source)
        return
    for rows in row_ranges(spec.shape[0], spec.nbytes):
        yield reader.read(move.source, rows)


def execute(todo: Plan, read: Callable[[str], np.ndarray]) -> dict[str, np.ndarray]:
    """Carry out a plan in memory: {target path: numpy array} in the plan's shapes and dtypes. ``read`` returns a source
    tensor by name, for instance `Reader.read`."""
    out = {}
    for path, moves in _by_path(todo).items():
        out[path] = np.empty(*todo.target[path])
        for move in moves:
            out[path][... if move.slot is None else move.slot] = move.transform.forward(read(move.source))
    return out


def _by_path(todo: Plan) -> dict[str, list[Move]]:
    moves: dict[str, list[Move]] = {path: [] for path in todo.target}
    for move in todo.moves:
        moves[move.path].append(move)
    return {path: sorted(some, key=lambda move: move.slot or 0) for path, some in moves.items()}


def export(table: Table, params: Mapping[str, Any]) -> tuple[dict[str, Callable[[], np.ndarray]], dict[str, Spec]]:
    """Read the table backwards: give every tensor its PyTorch name.

    Args:
      table: the architecture's rows.
      params: nested dict of arrays (numpy or jax).

    Returns:
      {PyTorch name: function that makes the tensor}, so that a writer holds one tensor at a time,
      and {PyTorch name: (shape, dtype)}.

    Raises:
      ConversionError: listing every path that no row, or more than one, names, and names that two
        paths would get.
    """
    problems: list[str] = []
    out: dict[str, Callable[[], np.ndarray]] = {}
    specs: dict[str, Spec] = {}
    for path, leaf in paths.flatten(params).items():
        slots = leaf.shape[0] if leaf.shape else 0
        found = [(rule, names) for rule in table.rules if (names := rule.sources(path, slots)) is not None]
        if len(found) != 1:
            problems.append(f"{path}: {'no row' if not found else 'more than one row'} of the table names it.")
            continue
        rule, names = found[0]
        for slot, name in enumerate(names):
            if name in out:
                problems.append(f"{path}: another parameter is already written as {name}.")
            out[name] = _maker(leaf, slot if rule.stack else None, rule.transform)
            shape = leaf.shape[1:] if rule.stack else leaf.shape
            specs[name] = Spec(rule.transform.inverse_shape(shape), np.dtype(leaf.dtype))
    if problems:
        raise _join(problems, "The parameters cannot be written in PyTorch's naming")
    return out, specs


def _maker(leaf: Any, slot: int | None, transform: Transform) -> Callable[[], np.ndarray]:
    def make() -> np.ndarray:
        array = np.asarray(leaf if slot is None else leaf[slot])
        return np.asarray(transform.inverse(array), order="C")

    return make
