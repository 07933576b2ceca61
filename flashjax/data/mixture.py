"""What a run reads, in order: sources with weights by category, a task a row, all known before the first row.

Sample n of the run follows from the seed and n alone: row ``n // batch_size`` of the step table gives phase and task;
among that task's (source, category) cells a periodic pattern gives the cell, with every cell's share met to within one
sample in every stretch of the student's rows, and of the critic's; and the cell's own shuffled order gives the record.
Each phase counts for itself, as phases take turns too: of a pattern over all rows the student could always meet the
same place. Nothing is kept between samples, so that a run resumes from a step number, on any number of processes.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flashjax.data.manifest import places, read_manifest
from flashjax.data.records import RecordError, RecordSource
from flashjax.data.records import sources as pictures_to_edit
from flashjax.distill import schedule
from flashjax.errors import UserError, did_you_mean

__all__ = ["Mixture", "Source", "open_sources"]

# Shares are kept to one part in this many: the longest pattern.
PERIOD = 10_000


@dataclasses.dataclass(frozen=True)
class Source:
    """A prepared file and its part in the mixture.

    places: category to the positions of its records. weight: a number, shared among the categories by their counts, or
    a mapping from category to number (others are left out); or pairs (share of the run, weight) of these.
    """

    name: str
    records: Any
    places: Mapping[str, np.ndarray]
    task: int = 0
    weight: Any = 1.0

    def weights(self, weight: Any) -> dict[str, float]:
        """The weight of each category where the source has ``weight``."""
        if not isinstance(weight, Mapping):
            total = sum(map(len, self.places.values()))
            return {category: float(weight) * len(at) / total for category, at in self.places.items()}
        for category in weight:
            if category not in self.places:
                hint = did_you_mean(category, self.places, "it has", "{!r}")
                raise UserError(f"The source {self.name!r} has no category {category!r}; {hint}")
        return {category: float(weight.get(category, 0)) for category in self.places}


def open_sources(settings: Mapping[str, Mapping[str, Any]]) -> tuple[list[Source], dict[str, dict]]:
    """(sources, manifest by name) of ``config.sources``: ``{name: dict(path=…, task="t2i", weight=1.0)}``; ``task`` and
    ``weight`` need not be there. What is said of them settings.check_sources has checked; raises UserError for sets
    that are not what is said."""
    sources, manifests = [], {}
    for name, given in settings.items():
        task, path, where = given.get("task", schedule.TASKS[0]), Path(given["path"]), f"config.sources.{name}"
        manifest = manifests[name] = read_manifest(path)
        found = manifest.get("task", schedule.TASKS[0])
        if found != task:
            raise UserError(f"{path} holds records of the task {found}, but {where} is of the task {task}.")
        weight, records = given.get("weight", 1.0), RecordSource(path)
        if task == "edit" and not pictures_to_edit(records[0]):
            raise UserError(f"{path} holds edit records without a picture to edit; prepare {where} again.")
        sources.append(Source(name, records, places(manifest), schedule.TASKS.index(task), weight))
    return sources, manifests


@dataclasses.dataclass(frozen=True)
class _Stretch:
    """A part of the run with constant weights of a task's cells: from ``row`` on, cells by ``pattern``, of whose first
    r entries ``counts[r]`` are of each cell."""

    row: int
    pattern: np.ndarray
    counts: np.ndarray

    def taken(self, n: np.ndarray) -> np.ndarray:
        """int64 [..., cells]: how many of each cell are among its first n samples."""
        rounds, place = np.divmod(n, len(self.pattern))
        return rounds[..., None] * self.counts[-1] + self.counts[place]


class Mixture:
    """All samples of a run, by number. ``len`` is rows times ``batch_size``; ``mixture[n]`` the record, with the number
    of its class as ``category_id``: the category's place in ``classes``, or the one behind them for edits.

    tasks, phases: of every row (schedule.StepTable)."""

    def __init__(
        self, sources: Sequence[Source], tasks: np.ndarray, phases: np.ndarray, *, batch_size: int, seed: int,
        classes: Sequence[str],
    ) -> None:  # fmt: skip
        self._sources, self._tasks, self._phases = list(sources), np.asarray(tasks), np.asarray(phases)
        self._batch, self._seed, self._classes = batch_size, seed, tuple(classes)
        self.cells = [
            [(s, c) for s in self._sources if s.task == task for c in s.places] for task in range(len(schedule.TASKS))
        ]
        self._stretches = {int(task): self._plan(int(task)) for task in np.unique(self._tasks)}
        # The number of a row among those of its phase and task, and what these have read before each stretch.
        self._ordinal, self._begun = np.zeros(len(self._tasks), np.int64), {}
        for phase, task in dict.fromkeys(zip(self._phases.tolist(), self._tasks.tolist(), strict=True)):
            rows = np.flatnonzero((self._phases == phase) & (self._tasks == task))
            self._ordinal[rows] = np.arange(len(rows))
            self._begun[phase, task] = self._before(self._stretches[task], rows)

    def _plan(self, task: int) -> list[_Stretch]:
        mine = [s for s in self._sources if s.task == task]
        if not mine:
            raise UserError(
                f"The run has rows of the task {schedule.TASKS[task]}, but config.sources has no source of it; add "
                "one, or set config.edit_share."
            )
        over = {s.name: schedule.over_time(s.weight) for s in mine}
        starts = sorted({start for pairs in over.values() for start, _ in pairs})
        firsts = schedule.rows_of(starts, len(self._tasks)).tolist()
        stretches = []
        for start, row, end in zip(starts, firsts, [*firsts[1:], len(self._tasks)], strict=True):
            if not (self._tasks[row:end] == task).any():
                continue  # nobody reads by these weights, which may all be 0
            now = {s.name: s.weights([w for at, w in over[s.name] if at <= start][-1]) for s in mine}
            weights = [now[s.name][category] for s, category in self.cells[task]]
            stretches.append(_stretch(row, weights, [f"{s.name}/{category}" for s, category in self.cells[task]]))
        return stretches

    def _before(self, stretches: Sequence[_Stretch], rows: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """For each stretch (the sample of ``rows`` that it begins with, int64 [cells] that were taken before)."""
        firsts = (np.searchsorted(rows, [stretch.row for stretch in stretches]) * self._batch).tolist()
        begun = [(0, np.zeros_like(stretches[0].counts[0]))]
        for stretch, first, end in zip(stretches, firsts, firsts[1:], strict=False):
            begun.append((end, begun[-1][1] + stretch.taken(np.array(end - first))))
        return begun

    def __len__(self) -> int:
        return len(self._tasks) * self._batch

    def locate(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """(cell, number within the cell), int64 [batch_size] each, of a row's samples; cells as in ``cells[task]``."""
        task = int(self._tasks[row])
        which = max(i for i, stretch in enumerate(self._stretches[task]) if stretch.row <= row)
        stretch, (first, begun) = self._stretches[task][which], self._begun[int(self._phases[row]), task][which]
        n = self._ordinal[row] * self._batch + np.arange(self._batch) - first
        cell = stretch.pattern[n % len(stretch.pattern)]
        return cell, np.take_along_axis(begun + stretch.taken(n), cell[:, None], axis=1)[:, 0]

    def __getitem__(self, n: int) -> dict[str, Any]:
        row, place = divmod(int(n), self._batch)
        cells, numbers = self.locate(row)
        task = int(self._tasks[row])
        source, category = self.cells[task][cells[place]]
        at = source.places[category]
        epoch, position = divmod(int(numbers[place]), len(at))
        order = _order(self._seed, int(self._phases[row]), f"{source.name}|{category}", epoch, len(at))
        label = len(self._classes) if task else self._classes.index(category)
        record = source.records[int(at[order[position]])]
        if (found := record.get("category", category)) != category:
            raise RecordError(
                f"Record {int(at[order[position]])} of the source {source.name!r} is of the category {found!r}, where "
                f"its manifest has {category!r}; prepare the set anew."
            )
        if task and not pictures_to_edit(record):
            raise RecordError(
                f"Record {int(at[order[position]])} of the source {source.name!r} is an edit without a picture to "
                "edit; prepare the set anew."
            )
        return record | {"category_id": label}

    def counts(self, row: int) -> dict[str, tuple[float, float]]:
        """What a row reads, as the log takes it: (samples, batch size) for every cell that is ever read, and whether it
        is of edits where the run has both tasks. It is the plan, to which every record that is read is held."""
        task = int(self._tasks[row])
        found = np.bincount(self.locate(row)[0], minlength=len(self.cells[task]))
        used = sum(s.counts[-1] for s in self._stretches[task]) > 0
        names = [f"data/{source.name}/{category}" for source, category in self.cells[task]]
        out = {name: (float(c), float(self._batch)) for name, c, u in zip(names, found, used, strict=True) if u}
        return out | ({"data/edit_share": (float(task), 1.0)} if len(self._stretches) > 1 else {})

    def describe(self) -> str:
        """The plan, for people: a line a cell and stretch."""
        lines = []
        for task, stretches in self._stretches.items():
            for s in stretches:
                lines.append(f"mixture of {schedule.TASKS[task]}, from row {s.row} on")
                for (source, category), count in zip(self.cells[task], s.counts[-1], strict=True):
                    size, share = len(source.places[category]), count / len(s.pattern)
                    lines.append(f"  {source.name:<14}{category:<14}{share:>7.2%} of {size} records")
        return "\n".join(lines)


def _stretch(row: int, weights: Sequence[float], names: Sequence[str]) -> _Stretch:
    if not np.isfinite(weights).all() or min(weights) < 0 or sum(weights) <= 0:
        raise UserError(
            f"The weights of {', '.join(names)} (source and category) are {[float(w) for w in weights]} from row {row} "
            "on; none may be negative, and not all 0."
        )
    whole = _whole(np.asarray(weights, np.float64), names)
    pattern = schedule.diffuse(whole, sum(whole))
    taken = np.cumsum(pattern[:, None] == np.arange(len(weights)), axis=0)
    return _Stretch(row, pattern, np.concatenate([np.zeros((1, len(weights)), np.int64), taken]))


def _whole(weights: np.ndarray, names: Sequence[str]) -> list[int]:
    """The smallest whole numbers in the proportion of the weights, with a sum of PERIOD at the most."""
    scaled = np.arange(1, PERIOD + 1)[:, None] * (weights / weights.sum())
    rounded = np.round(scaled)
    fits = (np.abs(scaled - rounded).max(axis=1) < 1e-6) & ((rounded > 0) | (weights == 0)).all(axis=1)
    exact = np.flatnonzero(fits)
    if len(exact):
        return rounded[exact[0]].astype(int).tolist()
    whole = np.floor(scaled[-1])
    largest = np.argsort(whole - scaled[-1], kind="stable")[: PERIOD - int(whole.sum())]
    whole[largest] += 1
    if (lost := (whole == 0) & (weights > 0)).any():
        first = lost.argmax()
        raise UserError(
            f"{names[first]} (source and category) has a share of {weights[first] / weights.sum():.1g}, below one part "
            f"in {PERIOD}; give its category a larger weight in the source's, as in "
            "weight={'a': 1.0, 'b': 0.1}, or none."
        )
    return whole.astype(int).tolist()


@functools.lru_cache(maxsize=256)
def _order(seed: int, phase: int, name: str, epoch: int, size: int) -> np.ndarray:
    """The shuffled order of a cell's records in one of its epochs, of a phase's rows."""
    return np.random.default_rng([seed, phase, zlib.crc32(name.encode()), epoch]).permutation(size)
