"""A study: a grid of runs times seeds, cell by cell. A finished cell is kept under the hash of its configuration, of
the weights it begins with and of the code, so that an interrupted study goes on, and on several machines (`kept`).
"""

from __future__ import annotations

import ast
import base64
import dataclasses
import functools
import hashlib
import json
import os
import re
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

import flashjax
from flashjax import config as configs
from flashjax.errors import UserError
from flashjax.files import held, write_whole
from flashjax.host import machine
from flashjax.workdir import existing, identity

# What a cell's numbers do not depend on: rooms, and files of others.
OTHER_ROOMS = ("bench", "commands", "released")
OTHER_FILES = (
    *(f"{name}.py" for name in ("cli", "cost", "export", "hlo", "plan")),
    *(f"convert/{name}.py" for name in ("command", "manifest", "oracles", "output", "pods", "verify", "writer")),
    *(f"evaluate/{name}.py" for name in ("_page", "charts", "edits_page", "extractors", "report", "theme", "zoom")),
    *(f"studies/{name}.py" for name in ("contrasts", "kept", "page")),
)


@dataclasses.dataclass(frozen=True)
class Study:
    """What a file in configs/studies describes.

    base: the configuration of every cell. settings: changes common to all, {"distill.nfe": 4}. cells: name to the
    changes that make it; values are whole settings. seeds: of every cell. measure: arguments of ``measuring.measure``.
    drawn: name to the path of a model that is there already, a teacher for instance: cells without training, measured
    once; a study may have these alone. contrasts: pairs of cells or of what is drawn, (a, b) asks for a minus b.
    """

    title: str
    question: str
    base: str = ""
    cells: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seeds: Sequence[int] = (0, 1, 2)
    contrasts: Sequence[tuple[str, str]] = ()
    measure: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    drawn: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        named = [*self.cells, *self.drawn, *(name for pair in self.contrasts for name in pair)]
        pairs = all(len(pair) == 2 and not isinstance(pair, str) for pair in self.contrasts)
        if not pairs or not all(isinstance(name, str) for name in named):
            raise UserError("A study's cells and drawn models are called by texts, and a contrast is of two of these.")
        if odd := [name for name, changes in self.cells.items() if not isinstance(changes, Mapping)]:
            raise UserError(f"The cell {odd[0]!r} has to be a dict of settings, as in {{'distill.nfe': 4}}.")
        for pair in self.contrasts:
            for name in pair:
                if name not in (known := {**self.cells, **self.drawn}):
                    raise UserError(f"A contrast names the cell {name!r}; there are {', '.join(known)}.")
        if not (self.cells or self.drawn) or len(set(self.seeds)) < len(self.seeds) or not self.seeds:
            raise UserError("A study needs at least one cell or model to draw, and one seed, each seed once.")
        if self.cells and not self.base:
            raise UserError("A study's cells change a configuration; name it as the study's base.")
        if both := sorted(self.cells.keys() & self.drawn.keys()):
            raise UserError(f"The study has {both[0]!r} twice, as a cell and as a model that is drawn.")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a study, or (then ``config`` is None) the ``model`` at a path. ``folder`` holds the run's work
    directory and, when the cell is finished here, result.json; ``elsewhere`` is the result of one finished elsewhere.
    ``keys``: its own, and what it is called under the other versions of the code that are accepted. ``again``: it is
    run to be compared with what it gave before, and takes no pictures that were kept of it.
    """

    name: str
    seed: int
    config: ConfigDict | None
    folder: Path
    model: str = ""
    elsewhere: Mapping[str, Any] | None = None
    keys: Sequence[str] = ()
    again: bool = False

    @property
    def key(self) -> str:
        return self.folder.name

    @property
    def result(self) -> Mapping[str, Any] | None:
        """What was measured; None before the cell is finished."""
        path = self.folder / "result.json"
        try:
            return json.loads(path.read_text()) if path.is_file() else self.elsewhere
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}); delete it, and the cell is measured anew.") from error

    @property
    def sheet(self) -> str:
        """Some of its pictures, a PNG in base64; "" where there are none."""
        path = self.folder / "pictures.png"
        if path.is_file():
            return base64.b64encode(path.read_bytes()).decode()
        return (self.elsewhere or {}).get("sheet", "")


Execute = Callable[[Cell, Mapping[str, Any]], dict[str, Any]]


def load(file: str) -> Study:
    """The ``study`` of a Python file. Raises UserError where it has none."""
    path = existing(file, "study")
    holding = "a `study` in it, as in configs/studies"
    study = configs.from_file(path, "study", holding, lambda module: module.study)
    if not isinstance(study, Study):
        kind = type(study).__name__
        raise UserError(f"The study of {path} is of the type {kind}; it has to be a flashjax.studies.grid.Study.")
    return study


def cells(
    study: Study, out: Path, elsewhere: Mapping[str, Mapping] = types.MappingProxyType({}),
    accepted: Sequence[str] = (), version: str = "",
) -> list[Cell]:  # fmt: skip
    """All cells, what is drawn first, then seed by seed, so that a study that is cut short has every cell once before
    any twice. ``elsewhere``: results by key of cells that other machines finished. ``version``: of the code (default:
    that of today). ``accepted``: others, the best first, whose finished cells are taken where this one has none."""
    versions, first = (version or code_version(), *accepted), study.seeds[0]
    known = functools.cache(content)  # every cell and seed names the same weights

    def cell(name: str, seed: int, asked: Any, **given: Any) -> Cell:
        candidates = []
        for version in versions:
            text = json.dumps([asked, dict(study.measure), version], sort_keys=True, default=_plain)
            digest = hashlib.sha256(text.encode()).hexdigest()[:12]
            folder = out / f"{re.sub('[^a-zA-Z0-9.]+', '_', name)}_{seed}_{digest}"
            candidates.append(Cell(name, seed, folder=folder, elsewhere=elsewhere.get(folder.name), **given))
        best = next((each for each in candidates if each.result is not None), candidates[0])
        return dataclasses.replace(best, keys=[each.key for each in candidates])

    made = [
        cell(name, first, [path, known(path)], config=None, model=path) for name, path in study.drawn.items()
    ]
    for seed in study.seeds:
        for name, changes in study.cells.items():
            config = configured(study, changes, seed)
            made.append(cell(name, seed, [identity(config), begun_with(config, known)], config=config))
    return made


def _plain(value: Any) -> Any:
    """What JSON has no word for: a path, numpy's numbers and arrays, and what else is a sequence."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else list(value)


def begun_with(config: ConfigDict, known: Callable[[str], str]) -> dict[str, str]:
    """The content of the weights that a run is given, by path: a path says nothing of a teacher that was trained anew.
    (Of prompts it does: text states differ in their last bits from machine to machine.) ``known``: path to `content`.
    """
    return {path: known(path) for path in configs.weights_of(config)}


def content(path: str) -> str:
    """A hash of a model: of an exported one its files, of an adapter's file that, of a run its configuration and its
    figures, which another run does not have; of what is not there yet of nothing."""
    root, digest = Path(path), hashlib.sha256()
    if root.is_file():
        return hashlib.sha256(root.read_bytes()).hexdigest()[:16]
    run = [root / "config.json", root / "metrics.jsonl"]
    for file in run if run[1].is_file() else sorted(file for file in root.rglob("*") if file.is_file()):
        digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def configured(study: Study, changes: Mapping[str, Any], seed: int) -> ConfigDict:
    """The configuration of a cell. Raises UserError for a setting that the base does not have, or no run can keep."""
    config = configs.load([f"--config={study.base}"])
    for key, value in {**study.settings, **changes, "seed": seed}.items():
        *groups, last = key.split(".")
        at = config
        for group in groups:
            at = at[group] if isinstance(at, ConfigDict) and group in at else None
        if not isinstance(at, ConfigDict) or last not in at:
            raise UserError(f"The study sets config.{key}, which {study.base} does not have.")
        with config.unlocked(), config.ignore_type():
            del at[last]
            at[last] = value
    configs.settle(config)
    return config.lock()


def code_version() -> str:
    """A hash of the code that decides a cell's numbers: its statements, whatever is said of them and however they are
    laid out."""
    root, digest = Path(flashjax.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if name.split("/")[0] not in OTHER_ROOMS and name not in OTHER_FILES:
            digest.update(f"{name}\n{_statements(path.read_text())}\n".encode())
    return digest.hexdigest()[:16]


def _statements(source: str) -> str:
    """Python without comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def chosen(every: Sequence[Cell], only: Sequence[str] = (), part: tuple[int, int] = (1, 1)) -> list[Cell]:
    """The cells that are called ``only`` (all, if empty), of these the part i of n, counted from 1."""
    names = {cell.name for cell in every}
    if wrong := [name for name in only if name not in names]:
        raise UserError(f"There is no cell {wrong[0]!r}; there are {', '.join(sorted(names))}.")
    if not 1 <= part[0] <= part[1]:
        raise UserError(f"--part {part[0]}/{part[1]} is none; write 1/2 and 2/2 for two halves.")
    return [cell for cell in every if not only or cell.name in only][part[0] - 1 :: part[1]]


def run(todo: Sequence[Cell], study: Study, execute: Execute, version: str = "") -> Iterator[str]:
    """Runs the cells that have no result, and says after each how long the rest will take. A cell that is interrupted
    goes on from its own checkpoint; those that are finished stay. One that another process is running is left to it.
    One that cannot be run (its rate makes it diverge, its teacher is not there) is told and keeps no other from it."""
    missing, began, ran = [cell for cell in todo if cell.result is None], time.monotonic(), 0
    version = version or code_version()
    for done, cell in enumerate(missing, 1):
        cell.folder.mkdir(parents=True, exist_ok=True)
        with held(cell.folder / ".running") as free:
            if not free:
                told = "another process is running it"
            elif cell.result is not None:
                told = "finished meanwhile"
            else:
                told, ran = _finish(cell, study, execute, version), ran + 1
        left = (time.monotonic() - began) / max(ran, 1) * (len(missing) - done)  # by those that this process ran
        to_go = f"{len(missing) - done} cells to go, about {left / 60:.0f} min"
        yield f"{cell.name}, seed {cell.seed}: {told}; {to_go}"


def _finish(cell: Cell, study: Study, execute: Execute, version: str) -> str:
    started = time.monotonic()
    try:
        result = execute(cell, study.measure)
    except (UserError, FloatingPointError, FileNotFoundError) as error:
        return f"FAILED: {error}"
    seconds = time.monotonic() - started
    told = dict(cell=cell.name, seed=cell.seed, seconds=round(seconds), code=version, machine=machine(), **result)
    told |= dict(model=cell.model) if cell.config is None else dict(config=identity(cell.config))
    write_whole(cell.folder / "result.json", (json.dumps(told, default=_plain) + "\n").encode())
    return f"{seconds:.0f} s"


def repeat(cell: Cell, study: Study, execute: Execute, folder: Path) -> str:
    """Runs a finished cell once more, in an empty folder, and says in a line how its figures and curves compare: on the
    machine that made them they are the same to the last digit."""
    before, again = cell.result, dataclasses.replace(cell, folder=folder / cell.key, elsewhere=None, again=True)
    again.folder.mkdir(parents=True)
    after = json.loads(json.dumps(execute(again, study.measure), default=_plain))
    told = {
        name: after.get(group, {}).get(name) == before.get(group, {}).get(name)
        for group in ("values", "curves")
        for name in {**before.get(group, {}), **after.get(group, {})}
    }
    other = [name for name, same in told.items() if not same]
    where = f"{cell.name}, seed {cell.seed}, of code {before['code']} on {before['machine']}"
    if not other:
        return f"{where}: all {len(told)} figures and curves are the same to the last digit"
    return f"{where}: {len(other)} of {len(told)} figures and curves differ: {', '.join(other)}"


def status(every: Sequence[Cell]) -> str:
    """A line a cell: done or missing."""
    lines = [f"  {'done' if cell.result else 'missing':<8} {cell.name}, seed {cell.seed}" for cell in every]
    count = sum(cell.result is None for cell in every)
    return "\n".join([f"{len(every)} cells, {count} missing", *lines])
