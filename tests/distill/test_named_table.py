"""The lambda table as a configuration names it, over the steps of the student and over the run."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussians import DENOISER, gaussian
from toys import CLASSES, COND, KEY, LINEAR, linear, linear_state, recipe, student_step

from flashjax import flow
from flashjax.distill import dmd, figures, guidance, schedule, steps

NAMES = dict(steps=4, classes=("landscape", "portrait", "edit"), teachers=("base", "editor", "faces"))


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("base_then_specialist", (0, 0, 0.5, 1)), ("specialist_then_base", (1, 0.5, 0, 0)),
        ("linear", (0, 1 / 3, 2 / 3, 1)), ("last_step", (0, 0, 0, 1)), ("constant:0.25", (0.25,) * 4),
    ],
)  # fmt: skip
def test_shapes(name, weights):
    np.testing.assert_allclose(guidance.shape(name, 4), weights)
    assert all(0 <= w <= 1 for n in range(1, 9) for w in guidance.shape(name, n))
    assert [len(guidance.shape(name, n)) for n in range(1, 9)] == list(range(1, 9))


@pytest.mark.parametrize("name", ["base_then_specialist", "linear", "last_step"])
def test_a_single_step_is_the_last_one(name):
    assert guidance.shape(name, 1) == (1.0,)


def test_a_table_of_names_is_the_table_of_numbers():
    table = {"portrait": {"faces": (0, 0, 0.5, 1)}, "edit": {"editor": "constant:0.6", "faces": (0.4, 0.4, 0, 0)}}
    expected = np.zeros((4, 3, 3), np.float32)
    expected[:, 0] = 1, 0, 0
    expected[:, 1] = [(1, 0, 0), (1, 0, 0), (0.5, 0, 0.5), (0, 0, 1)]
    expected[:, 2] = [(0, 0.6, 0.4)] * 2 + [(0.4, 0.6, 0)] * 2
    np.testing.assert_array_equal(guidance.named_table(table, **NAMES), expected)
    told = guidance.describe(expected, NAMES["classes"], NAMES["teachers"]).splitlines()
    assert [line.split() for line in told][:3] == [
        ["landscape", "base", "1", "1", "1", "1"], ["portrait", "base", "1", "1", "0.5", "0"],
        ["portrait", "faces", "0", "0", "0.5", "1"],
    ]  # fmt: skip
    assert len(told) == 6  # the editor is never heard in portraits, nor any specialist in landscapes


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"portrait": {"faces": (0, 0, 1.5, 0)}}, "'faces' for 'portrait' at step 2 is 1.5; weights lie in [0, 1]"),
        ({"portrait": {"faces": (0, float("nan"), 0, 0)}}, "at step 1 is nan; weights lie in [0, 1]"),
        ({"edit": {"faces": "constant:0.7", "editor": (0, 0, 0, 0.6)}}, "for 'edit' at step 3 sum to 1.3; the base"),
        ({"portrait": {"face": "linear"}}, "There is no teacher 'face' for 'portrait'; did you mean 'faces'?"),
        ({"portrit": {"faces": "linear"}}, "There is no class 'portrit' to speak of; did you mean 'portrait'?"),
        ({"sea": {}}, "no class 'sea' to speak of; there are landscape, portrait, edit."),
        ({"portrait": {"faces": (0, 1)}}, "2 weights are given to 'faces' for 'portrait'; the student takes 4 steps."),
        ({"portrait": {"faces": "base_then"}}, "of 'faces' for 'portrait' are 'base_then'. There is no shape"),
        ({"portrait": {"faces": "constant"}}, "of 'faces' for 'portrait' are 'constant'. The shape 'constant' needs a"),
        ({"portrait": {"faces": "constant:x"}}, "needs a number, the weight of every step: 'constant:0.5'."),
        ({"portrait": {"base": "linear"}}, "'base' is given a weight for 'portrait'; it takes what the others leave."),
        ({"portrait": {"faces": 0.5}}, "The weights of 'faces' for 'portrait' are 0.5; write one for each of the stud"),
        ({"portrait": {"faces": None}}, "The weights of 'faces' for 'portrait' are None; write one for each"),
        ({"portrait": {"faces": (0, "half", 0, 1)}}, "of 'faces' for 'portrait' at step 1 is 'half'; weights are"),
        ({"portrait": (0, 0, 0.5, 1)}, "A class names its teachers, as in {'portrait': {'portrait_teacher': (0, 0, 0."),
        ({3: {}}, "There is no class 3 to speak of; there are landscape, portrait, edit."),
        (None, "not None."), ("linear", "not 'linear'."),
    ],
)
def test_a_table_that_cannot_be_is_named(table, said):
    with pytest.raises(ValueError) as raised:
        guidance.named_table(table, **NAMES)
    assert said in str(raised.value)


# -- over the run -------------------------------------------------------------------------------------------------


def test_phases():
    assert schedule.over_time({"a": 1}) == ((0.0, {"a": 1}),)
    assert schedule.over_time(((0, 1.0), (0.5, 2.0))) == ((0.0, 1.0), (0.5, 2.0))
    unknown = ((0, 1.0), (float("nan"), 2.0))
    for bad in ((), ((0.1, 1.0),), ((0, 1.0), (0, 2.0)), ((0, 1.0), (1, 2.0)), (0.5, 0.5), unknown):
        with pytest.raises(ValueError, match="over the run is written|begin at 0 and rise"):
            schedule.over_time(bad)


def two_phases(**changes):
    early, late = guidance.lambda_table(4, 2, [0.0]), guidance.lambda_table(4, 2, [[[0.0, 0.5]]])
    return schedule.distillation_table(
        20, critic_rows=1, lambdas=np.stack([early, late]), starts=(0.0, 0.5), seed=0, **changes
    )


def test_a_table_over_the_run_changes_at_its_row_and_compiles_what_it_needs():
    table = two_phases()
    students = np.flatnonzero(table.phase == schedule.STUDENT)
    assert [table.program(int(i)).active for i in students] == [(0,)] * 10 + [(0, 1)] * 10
    assert sum(p.phase == schedule.STUDENT for p in table.programs()) == 2
    rows = jnp.arange(len(table))
    traced = jax.jit(jax.vmap(table.lambdas_at))(rows)
    np.testing.assert_array_equal(traced, [table.lambdas_at(int(i)) for i in rows])
    assert two_phases().digest() == table.digest()
    assert dataclasses.replace(table, starts=np.array([0, 8])).digest() != table.digest()


def test_a_teacher_of_edits_does_not_run_for_t2i():
    """Task t2i has class 0, edits have class 1."""
    table = two_phases(task_ratios=(1, 1), classes=((0,), (1,)))
    late = [i for i in range(20, 40) if table.phase[i] == schedule.STUDENT]
    assert {(int(table.task[i]), table.program(i).active) for i in late} == {(0, (0,)), (1, (0, 1))}


CHANGING = dict(lambdas=guidance.lambda_table(4, 1)[None], seed=0, task_starts=(0.0, 0.4))


@pytest.mark.parametrize("late", [0.5, 0.3, 0.7])
@pytest.mark.parametrize("make", [schedule.trajectory_table, partial(schedule.distillation_table, critic_rows=3)])
def test_the_task_ratio_changes_at_its_row_and_is_met_on_both_sides(make, late):
    """In the rows of every phase: any ten in a row hold their share of edits to within one."""
    table = make(100, task_ratios=((0.9, 0.1), (1 - late, late)), **CHANGING)
    before = np.arange(len(table)) < 0.4 * len(table)
    for phase in set(table.phase.tolist()):
        for stretch, share in ((before, 0.1), (~before, late)):
            task = table.task[(table.phase == phase) & stretch]
            assert task.sum() == round(share * len(task))
            windows = np.lib.stride_tricks.sliding_window_view(task, 10).sum(axis=1)
            assert np.abs(windows - 10 * share).max() <= 1


# -- mixing -------------------------------------------------------------------------------------------------------


def test_mixing_scores_is_mixing_velocities_is_mixing_clean_predictions():
    with jax.enable_x64():
        key = jax.random.split(jax.random.key(0), 4)
        x_t, *v = (jax.random.normal(k, (5, 3), jnp.float64) for k in key)
        t = jnp.array([0.05, 0.3, 0.5, 0.9, 0.99])
        weights = jnp.array([[0.2, 0.5, 0.3], [1, 0, 0], [0, 0.4, 0.6], [0, 1, 0], [0.1, 0.1, 0.8]])
        mixed = guidance.mix(v, weights)
        by_score = guidance.mix([flow.score_from_velocity(x_t, each, t) for each in v], weights)
        by_x0 = guidance.mix([flow.x0_from_velocity(x_t, each, t) for each in v], weights)
        np.testing.assert_allclose(flow.velocity_from_score(x_t, by_score, t), mixed, rtol=1e-11)
        np.testing.assert_allclose((x_t - by_x0) / t[:, None], mixed, rtol=1e-11)


def test_the_normaliser_uses_the_mixed_clean_prediction():
    """Two teachers on either side of the sample: each is far from it, their mixture is not."""
    teachers = tuple(gaussian([[mean, 0.0]], 1e-3 * np.eye(2)) for mean in (3.0, -1.0))
    critic, x = gaussian([[0.5, 0.5]], np.eye(2)), jnp.zeros((1, 2))
    rule = steps.Recipe(grid=(1.0, 0.0), lambdas=guidance.lambda_table(1, 1, [0.75]))
    classes = jnp.zeros(1, jnp.int32)
    t, noise = drawn = steps.draw(KEY, rule.student_times, x.shape)
    grad, _ = steps.dmd_gradient(
        x, critic, teachers, classes, (None, None), classes, drawn, k=0, active=(0, 1), recipe=rule, denoiser=DENOISER
    )
    x_t = flow.interpolate(x, noise, t)
    clean = [flow.x0_from_velocity(x_t, DENOISER.velocity(p, classes, x_t, t), t) for p in (critic, *teachers)]
    mixed = 0.25 * clean[1] + 0.75 * clean[2]
    np.testing.assert_allclose(grad, dmd.gradient(x, clean[0], mixed), rtol=2e-4, atol=1e-5)  # x0 = x_t - t v cancels
    assert np.abs(mixed).mean() < 0.2 * np.abs(clean[1]).mean()


def test_every_teacher_has_its_own_scale_and_negative_condition():
    """Of a linear denoiser the guided velocity is known: a z + b t + c (n + s (1 - n)) for a negative condition n."""
    scales, negatives = (guidance.Scale(scales=(2.0,)), guidance.Scale(scales=(3.0,))), (0.0, -1.0)
    lambdas = guidance.lambda_table(4, 2, [[[0.25, 1.0]]])
    velocity = steps.teacher_velocity(
        (linear(0.0, 0.0, 1.0), linear(0.0, 0.0, 10.0)), COND, tuple(n * COND[:1] for n in negatives), CLASSES, k=0,
        active=(0, 1), recipe=recipe(lambdas=lambdas, guidance_scales=scales), denoiser=LINEAR,
    )  # fmt: skip
    v = velocity(jnp.zeros((2, 1, 1, 1)), jnp.full(2, 0.5)).ravel()
    first, second = 0 + 2 * (1 - 0), 10 * (-1 + 3 * (1 + 1))
    np.testing.assert_allclose(v, [0.75 * first + 0.25 * second, second], rtol=1e-6)


def test_a_teachers_share_in_the_log_is_lambda():
    """Row by row, and so over a run's rows: where a teacher is not heard its share is 0, not missing."""
    lambdas = guidance.lambda_table(4, 2, [[[0, 0], [0, 0.5], [0.25, 0.75], [1, 1]]])
    rows = []
    for k in range(4):
        heard = figures.shares(lambdas, CLASSES, k)
        rows.append([float(heard[f"share_{m}"]) for m in range(2)])
        np.testing.assert_allclose(rows[-1], lambdas[k].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(np.mean(rows, axis=0), lambdas.mean(axis=(0, 1)), rtol=1e-6)


def test_a_share_is_logged_by_its_teachers_name_and_step():
    """What a student's row tells, as the log writes it: the lambda of its step, under the task where there are two."""
    lambdas, names = guidance.lambda_table(2, 2, [[[0, 0.5], [0.25, 1]]]), ("base", "faces")
    rule, teachers = recipe(grid=(1.0, 0.5, 0.0), lambdas=lambdas), (linear(0.9), linear(0.4))
    told = student_step(linear_state(), k=1, teachers=teachers, recipe=rule)[1]
    for tasks in ((1,), (1, 1)):
        table = schedule.distillation_table(4, critic_rows=0, lambdas=lambdas[None], seed=0, task_ratios=tasks)
        for row in np.flatnonzero(table.k == 1):
            task = f"{schedule.TASKS[table.task[row]]}/" * (len(tasks) - 1)
            logged = table.labelled(row, told, names)
            for name, share in zip(names, lambdas[1].mean(axis=0), strict=True):
                for end in ("", "/k1"):
                    total, count = logged[f"{task}share/{name}{end}"]
                    np.testing.assert_allclose(total / count, share, rtol=1e-6)


def test_one_scale_serves_all_teachers_or_there_is_one_for_each():
    with pytest.raises(ValueError, match="2 guidance scales for 1 teachers"):
        recipe(guidance_scales=(guidance.UNGUIDED,) * 2)
