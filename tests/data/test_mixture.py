"""What a run reads: shares met in every stretch, every sample known from its number, and mixtures that cannot be."""

import dataclasses
import json

import numpy as np
import pytest

from flashjax.data import records
from flashjax.data.mixture import Mixture, Source, open_sources
from flashjax.data.records import RecordError
from flashjax.errors import UserError

CLASSES = ("landscape", "portrait", "text")


class Records:
    """Record i is its number, and an edit of it."""

    def __init__(self, count):
        self._count = count

    def __len__(self):
        return self._count

    def __getitem__(self, i):
        return dict(i=i, source=i)


def source(name="a", counts=(10, 20, 30), task=0, weight=1.0):
    edges = np.cumsum((0, *counts))
    places = {c: np.arange(*edges[i : i + 2]) for i, c in enumerate(CLASSES[: len(counts)])}
    return Source(name, Records(sum(counts)), places, task, weight)


def mixture(*sources, tasks=(0,) * 200, phases=None, batch_size=6, seed=0, classes=CLASSES):
    phases = np.zeros(len(tasks), int) if phases is None else phases
    return Mixture(sources, np.array(tasks), phases, batch_size=batch_size, seed=seed, classes=classes)


def cells(mix, rows):
    """[rows * batch] cells of rows."""
    return np.concatenate([mix.locate(row)[0] for row in rows])


@pytest.mark.parametrize(
    ("weight", "shares"),
    [
        (1.0, (1 / 6, 1 / 3, 1 / 2)), ({"portrait": 3, "text": 1}, (0, 3 / 4, 1 / 4)),
        ({"portrait": 2**0.5, "landscape": 1}, (1 / (1 + 2**0.5), 2**0.5 / (1 + 2**0.5), 0)),
    ],
)  # fmt: skip
def test_shares_are_met_in_every_stretch(weight, shares):
    found = cells(mixture(source(weight=weight)), range(200))
    counts = np.cumsum(found[:, None] == np.arange(3), axis=0)
    wanted = np.arange(1, len(found) + 1)[:, None] * np.array(shares)
    # One sample by the pattern; a share that is no small fraction is kept to one part in ten thousand.
    assert np.abs(counts - wanted).max() <= 1 + len(found) / 1e4
    for size in (6, 60):
        windows = counts[size:] - counts[:-size]
        assert np.abs(windows - size * np.array(shares)).max() <= 2 + size / 1e4


@pytest.mark.parametrize("weight", [1.0, ((0, 1.0), (0.4, {"landscape": 1, "portrait": 1, "text": 1}))])
@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_the_student_and_the_critic_meet_every_share(batch_size, weight):
    """Three rows a cycle and three categories keep step: of one pattern for all rows the student would always meet the
    same place, and of batches of one only landscapes."""
    phases = np.array([2, *[1, 2, 2] * 60])
    mix = mixture(
        source(counts=(20, 20, 20), weight=weight), tasks=[0] * 181, phases=phases, batch_size=batch_size
    )  # fmt: skip
    for phase in (1, 2):
        counts = np.bincount(cells(mix, np.flatnonzero(phases == phase)), minlength=3)
        assert counts.max() - counts.min() <= 2
        read = [mix[row * batch_size]["i"] for row in np.flatnonzero(phases == phase)[:60]]
        assert batch_size > 1 or len(set(read)) == 60  # each goes through its own epoch


def test_there_may_be_many_categories():
    many = tuple(f"c{i}" for i in range(200))
    one_each = Source("a", Records(200), {name: np.array([i]) for i, name in enumerate(many)})
    mix = mixture(one_each, tasks=[0] * 25, batch_size=8, classes=many)
    assert sorted(mix[n]["category_id"] for n in range(200)) == list(range(200))


def test_every_record_of_a_cell_comes_once_an_epoch_in_another_order():
    mix = mixture(source(counts=(5, 7)), batch_size=12, tasks=[0] * 9)
    seen = [mix[n] for n in range(len(mix))]
    for label, count in ((0, 5), (1, 7)):
        order = [r["i"] for r in seen if r["category_id"] == label]
        epochs = [tuple(order[i : i + count]) for i in range(0, 9 * count, count)]
        assert all(sorted(e) == sorted(epochs[0]) for e in epochs)
        assert len(set(epochs)) > 5


def test_a_sample_follows_from_its_number_alone():
    sources = source(weight=((0, 1.0), (0.3, {"text": 1.0}))), source("b", (9,), task=1)
    tasks = np.arange(200) % 3 == 2
    forwards, backwards = mixture(*sources, tasks=tasks), mixture(*sources, tasks=tasks)
    expected = [forwards[n] for n in range(1200)]
    assert [backwards[n] for n in reversed(range(1200))] == expected[::-1]
    assert all(mixture(*sources, tasks=tasks)[n] == expected[n] for n in range(5, 1200, 311))
    assert [mixture(*sources, tasks=tasks, seed=1)[n] for n in range(60)] != expected[:60]
    # A longer run begins with the rows of a shorter one where nothing changes over it.
    short, long = (mixture(source(), tasks=[0] * rows) for rows in (20, 50))
    assert [short[n] for n in range(120)] == [long[n] for n in range(120)]


def test_a_row_is_of_its_task_and_edits_are_a_class_of_their_own():
    tasks = np.array([0, 0, 1] * 10)
    mix = mixture(source(), source("edits", (4, 4), task=1), tasks=tasks)
    for row, task in enumerate(tasks):
        labels = {mix[6 * row + i]["category_id"] for i in range(6)}
        assert labels == {3} if task else labels <= {0, 1, 2}


def test_weights_change_at_their_row_and_orders_go_on():
    """Neither does a record come again before its epoch is over, nor does a share lag behind the change."""
    weight = ((0, {"landscape": 1.0}), (0.25, {"landscape": 1.0, "text": 1.0}))
    mix = mixture(source(weight=weight, counts=(500, 20, 300)))
    assert set(cells(mix, range(50)).tolist()) == {0}
    assert np.bincount(cells(mix, range(50, 100))).tolist() == [150, 0, 150]
    landscapes = [r["i"] for n in range(700) if (r := mix[n])["category_id"] == 0]
    assert len(landscapes) == 500
    assert len(set(landscapes)) == 500


def test_the_log_counts_what_is_read():
    mix = mixture(source(weight={"text": 2, "portrait": 1}), source("e", (4,), task=1), tasks=[0, 1] * 100)
    totals: dict = {}
    for row in range(200):
        read = [mix[6 * row + i]["category_id"] for i in range(6)]
        found = mix.counts(row)
        if row % 2 == 0:
            assert found["data/a/text"] == (read.count(2), 6)
        for name, (count, of) in found.items():
            now = totals.setdefault(name, [0, 0])
            now[0], now[1] = now[0] + count, now[1] + of
    assert {name: count / of for name, (count, of) in totals.items()} == pytest.approx(
        {"data/a/portrait": 1 / 3, "data/a/text": 2 / 3, "data/e/landscape": 1, "data/edit_share": 0.5}
    )
    assert "a             text           66.67% of 30 records" in mix.describe()


def test_a_record_is_of_the_category_that_was_planned():
    """A manifest whose ranges are not its file's would train another mixture than the log tells."""
    wrong = dataclasses.replace(source(), records=[dict(category="landscape")] * 60)
    with pytest.raises(RecordError, match="of the source 'a' is of the category 'landscape', where its manifest has"):
        [mixture(wrong)[n] for n in range(6)]
    wrong = dataclasses.replace(source(task=1), records=[{}] * 60)
    with pytest.raises(RecordError, match="of the source 'a' is an edit without a picture to edit"):
        mixture(wrong, tasks=[1])[0]


def test_weights_that_no_row_reads_by_may_be_0():
    """Edits from the second half on: until then their source has no weight, and no rows."""
    late = source("e", (4, 6), task=1, weight=((0, 0.0), (0.5, 1.0)))
    mix = mixture(source(), late, tasks=[0] * 50 + [0, 1] * 25)
    assert "mixture of edit, from row 50 on" in mix.describe() and "of edit, from row 0 on" not in mix.describe()
    always = mixture(source(), dataclasses.replace(late, weight=1.0), tasks=[0] * 50 + [0, 1] * 25)
    assert [mix[n] for n in range(600)] == [always[n] for n in range(600)]
    with pytest.raises(UserError, match="from row 0 on; none may be negative, and not all 0"):
        mixture(source(), late, tasks=[0] * 49 + [1] + [0, 1] * 25)


@pytest.mark.parametrize(
    ("sources", "tasks", "said"),
    [
        ([source(weight={"portrit": 1})], [0], "The source 'a' has no category 'portrit'; did you mean 'portrait'?"),
        ([source(weight=0.0)], [0], "are [0.0, 0.0, 0.0] from row 0 on; none may be negative, and not all 0"),
        ([source(weight={"text": 1, "portrait": -1})], [0], "none may be negative"),
        ([source(weight={"text": 1, "portrait": 1e-6})], [0], "a/portrait (source and category) has a share of 1e-06"),
        ([source()], [0, 1], "has rows of the task edit, but config.sources has no source of it"),
    ],
)
def test_mixtures_that_cannot_be(sources, tasks, said):
    with pytest.raises(UserError) as raised:
        mixture(*sources, tasks=tasks)
    assert said in str(raised.value)


def test_sources_that_cannot_be(tmp_path):
    path = tmp_path / "a.arrayrecord"
    records.write_records(path, [dict(index=0, category="text")])
    path.with_suffix(".json").write_text(json.dumps(dict(task="edit", categories=["text"], count=1)))
    for given, said in (
        (dict(a=dict(path=str(path))), "holds records of the task edit, but config.sources.a is of the task t2i"),
        (dict(a=dict(path=str(path), task="edit")), "a.arrayrecord holds edit records without a picture to edit"),
    ):
        with pytest.raises(UserError) as raised:
            open_sources(given)
        assert said in str(raised.value)
