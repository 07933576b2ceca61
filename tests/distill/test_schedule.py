"""The step table: ratios met by counting, and everything about a run known before it starts."""

import dataclasses
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashjax.distill import guidance, schedule
from flashjax.distill.schedule import CRITIC, FLOW_MATCHING, STUDENT

LAMBDAS = guidance.lambda_table(4, 2, [np.array([[0.0], [0.0], [0.5], [1.0]])])[None]


def table(student_updates=24, **changes):
    arguments = dict(critic_rows=4, lambdas=LAMBDAS, seed=0, critic_warmup=3, task_ratios=(2, 1)) | changes
    return schedule.distillation_table(student_updates, **arguments)


def deviations(ratios, rows):
    """[len(rows) + 1, choices]: how far each prefix's counts are from their shares."""
    shares = np.asarray(ratios) / np.sum(ratios)
    counts = np.cumsum(rows[:, None] == np.arange(len(shares)), axis=0)
    return np.concatenate([np.zeros((1, len(shares))), counts - np.arange(1, len(rows) + 1)[:, None] * shares])


RATIO = st.integers(0, 100) | st.floats(0, 1, allow_subnormal=False)


@given(st.lists(RATIO, min_size=1, max_size=6).filter(lambda r: sum(r) > 1e-6), st.integers(0, 200))
def test_diffuse_stays_within_one_row_in_every_prefix(ratios, count):
    rows = schedule.diffuse(ratios, count)
    assert rows.shape == (count,)
    assert np.abs(deviations(ratios, rows)).max() <= 1 + 1e-6


def test_diffuse_with_many_uneven_choices_stays_within_one_row():
    ratios = [0.35083186, 0.08305453, 0.544035, 0.00424981, 0.00415166, 0.01367714]
    assert np.abs(deviations(ratios, schedule.diffuse(ratios, 150))).max() <= 1 + 1e-6


@given(RATIO, RATIO, st.integers(1, 200))
def test_two_tasks_stay_within_one_row_in_every_window(a, b, count):
    """A window is the difference of two prefixes; with two choices each prefix strays by half a row at the most."""
    if a + b > 1e-6:
        prefix = deviations((a, b), schedule.diffuse((a, b), count))
        assert (prefix.max(axis=0) - prefix.min(axis=0)).max() <= 1 + 1e-6


def test_diffuse_meets_simple_ratios_exactly_and_never_takes_a_zero():
    assert np.bincount(schedule.diffuse((3, 1), 400)).tolist() == [300, 100]
    assert set(schedule.diffuse((0, 1, 0), 50).tolist()) == {1}
    windows = np.lib.stride_tricks.sliding_window_view(schedule.diffuse((0.5, 0.25, 0.25), 80), 4)
    assert {tuple(np.bincount(w, minlength=3)) for w in windows[::4]} == {(2, 1, 1)}


def test_diffuse_takes_each_of_many_choices_once_a_round():
    """As many (source, category) cells as prompts of one's own may have; a byte counts to 127."""
    assert np.bincount(schedule.diffuse([1] * 300, 600)).tolist() == [2] * 300


@pytest.mark.parametrize("ratios", [(), (0, 0), (1, -1, 3)])
def test_impossible_ratios_are_named(ratios):
    with pytest.raises(ValueError, match="non-negative with a positive sum"):
        schedule.diffuse(ratios, 3)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=8), st.integers(0, 60), st.integers(0, 5))
def test_balanced_takes_every_value_its_times_a_block(times, count, seed):
    rows = schedule.balanced(times, count, np.random.default_rng(seed))
    assert rows.shape == (count,)
    for start in range(0, count, sum(times)):
        block = np.bincount(rows[start : start + sum(times)], minlength=len(times))
        assert (block <= times).all() and len(block) == len(times)


def test_distillation_rows():
    t = table()
    assert len(t) == 3 + 24 * 5
    assert (t.phase[:3] == CRITIC).all()
    assert t.phase[3:].reshape(24, 5).tolist() == [[STUDENT] + [CRITIC] * 4] * 24
    for phase, count in ((STUDENT, 24), (CRITIC, 99)):
        rows = t.phase == phase
        assert rows.sum() == count
        assert np.abs(deviations((2, 1), t.task[rows])).max() <= 1
        # Within every task, lest one task meets only some of the steps by an accident of their periods.
        for task in (0, 1):
            k = np.bincount(t.k[rows & (t.task == task)], minlength=4)
            assert k.max() - k.min() <= 1


def test_a_longer_run_begins_with_the_rows_of_a_shorter_one():
    short, long = table(), table(student_updates=60)
    for column in ("phase", "task", "k"):
        np.testing.assert_array_equal(getattr(short, column), getattr(long, column)[: len(short)])


def test_no_critic_rows_is_a_table_of_student_rows():
    assert (table(critic_rows=0, critic_warmup=0).phase == STUDENT).all()


def test_flow_matching_table():
    t = schedule.flow_matching_table(12, (1, 3))
    assert (t.phase == FLOW_MATCHING).all()
    assert np.bincount(t.task).tolist() == [3, 9]
    assert t.programs() == [schedule.Program(FLOW_MATCHING, task) for task in (1, 0)]


def test_trajectory_table():
    t = schedule.trajectory_table(20, lambdas=LAMBDAS, seed=0, task_ratios=(3, 1))
    assert (t.phase == schedule.TRAJECTORY).all()
    assert np.bincount(t.task).tolist() == [15, 5]
    counts = np.bincount(t.k, minlength=4)
    assert counts.max() - counts.min() <= 2  # one a task
    assert {int(t.k[i]): t.program(i).active for i in range(20)} == {0: (0,), 1: (0,), 2: (0, 1), 3: (1,)}
    assert [len(t.rollout(i)) for i in range(20)] == (1 + t.k).tolist()
    with pytest.raises(ValueError, match="student_updates \\(0\\) has to be positive"):
        schedule.trajectory_table(0, lambdas=LAMBDAS, seed=0)


def test_a_step_may_have_more_rows_than_others():
    """In every window of whole blocks, and for each task; the rows of one task are an order of their own."""
    t = schedule.trajectory_table(56, lambdas=LAMBDAS, seed=0, step_rows=(3, 1, 1, 2))
    assert (np.sort(t.k.reshape(8, 7)) == [0, 0, 0, 1, 2, 3, 3]).all()
    assert len({tuple(block) for block in t.k.reshape(8, 7).tolist()}) > 1
    edits = schedule.trajectory_table(100, lambdas=LAMBDAS, seed=0, task_ratios=(3, 1), step_rows=(2, 1, 1, 1))
    for task, count in enumerate((75, 25)):
        assert np.bincount(edits.k[edits.task == task]).tolist() == [count * 2 // 5] + [count // 5] * 3


@pytest.mark.parametrize("bad", [dict(student_updates=0), dict(critic_rows=-1), dict(critic_warmup=-1)])
def test_impossible_counts_are_named(bad):
    with pytest.raises(ValueError, match="has to be positive"):
        table(**bad)


def test_a_student_of_more_steps_than_a_column_counts_is_refused():
    longest = table(critic_rows=0, critic_warmup=0, student_updates=256, lambdas=guidance.lambda_table(128, 1)[None])
    assert (longest.k.min(), longest.k.max()) == (0, 127)
    with pytest.raises(ValueError, match="A student takes 128 steps at the most, not 129"):
        table(lambdas=guidance.lambda_table(129, 1)[None])


def test_digest_is_of_the_contents_and_changes_with_any_input():
    assert table().digest() == table().digest()
    other = LAMBDAS.copy()
    other[0, 2, 0] = [0.4, 0.6]
    changes = [
        dict(student_updates=25), dict(critic_rows=3), dict(critic_warmup=4), dict(seed=1), dict(task_ratios=(1, 1)),
        dict(lambdas=other), dict(lambdas=guidance.lambda_table(4, 1)[None]), dict(lambdas=LAMBDAS.astype(np.float64)),
    ]  # fmt: skip
    assert len({t.digest() for t in [table(), *(table(**change) for change in changes)]}) == len(changes) + 1


def test_digest_tells_columns_apart():
    t = table()
    assert dataclasses.replace(t, task=t.k, k=t.task).digest() != t.digest()


def test_programs_are_exactly_the_distinct_ones_in_order_of_first_use():
    t = table()
    by_row = [p for i in range(len(t)) for p in (*t.rollout(i), t.program(i))]
    assert t.programs() == list(dict.fromkeys(by_row))
    assert {p.active for p in by_row if p.phase == CRITIC} == {()}
    student = np.flatnonzero(t.phase == STUDENT)
    assert {int(t.k[i]): t.program(i).active for i in student} == {0: (0,), 1: (0,), 2: (0, 1), 3: (1,)}
    assert [len(t.rollout(i)) for i in range(len(t))] == (1 + t.k).tolist()
    assert len({str(p) for p in t.programs()}) == len(t.programs())


def test_a_row_does_not_depend_on_the_order_of_reading():
    """A resumed run reads from the middle: neither the rows before nor the global random state play a part."""
    order = list(range(len(table())))
    random.Random(0).shuffle(order)
    np.random.seed(1)
    resumed = table()
    assert {i: resumed.program(i) for i in order} == {i: table().program(i) for i in range(len(order))}


def test_describe_counts_rows():
    t = table()
    text = t.describe()
    assert f"step table {t.digest()[:12]}: 123 steps, {len(t.programs())} programs" in text
    assert [line.split() for line in text.splitlines()[1:]] == [
        ["student", "24", "rows"], ["task", "edit:", "8", "t2i:", "16"],
        ["k", "0:", "6", "1:", "6", "2:", "6", "3:", "6"],
        ["critic", "99", "rows"], ["task", "edit:", "33", "t2i:", "66"],
        ["k", *np.ravel([[f"{v}:", str(c)] for v, c in enumerate(np.bincount(t.k[t.phase == CRITIC]))])],
    ]  # fmt: skip
