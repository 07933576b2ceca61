"""Every setting arrives where it is meant to: recipe, optimizers, and what the compiled programs are given."""

import dataclasses
import types

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flashjax import config as configs
from flashjax import convert, flow, models, paths, pictures, train
from flashjax.data import prepare
from flashjax.distill import guidance, steps
from flashjax.errors import UserError
from flashjax.evaluate import watch
from flashjax.models import qwen_image_21, text

CONFIG = "tests/configs/tiny_postcards.py"


@pytest.fixture(autouse=True)
def at_the_root(request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)


def load(*settings: str, arg: str = "", teachers=None, guidance_table=None):
    """The configuration, with further teachers and their weights."""
    config = configs.load([f"--config={CONFIG}:{arg}", *(f"--config.{setting}" for setting in settings)])
    with config.unlocked():
        if teachers is not None:
            config.distill.teachers.update(teachers)
            config.distill.guidance_table = guidance_table
    return config


def test_the_recipe_field_by_field():
    config = load(
        "distill.nfe=3", "distill.shift=2.0",
        "distill.guidance.times=(0.2,0.6)", "distill.guidance.scales=2.5,1.5",
        "distill.rollout_mode=renoise", "distill.student_times.low=0.3",
        "distill.critic_times.high=0.9", "distill.critic_updates_per_rollout=4", "distill.share_sample=false",
        "distill.ema_decay=0.7", "distill.substeps=6", "distill.teachers.base.weights=a",
        teachers=dict(letters=dict(weights="b", guidance=dict(times=(0.5,), scales=(4.0,)), negative="blurred")),
        guidance_table={"text": {"letters": (0.1, 0.2, 0.3)}},
    )  # fmt: skip
    expected = dict(
        grid=tuple(flow.time_grid(3, 2.0).tolist()), rollout_mode="renoise",
        guidance_scales=(guidance.Scale((0.2, 0.6), (2.5, 1.5)), guidance.Scale((0.5,), (4.0,))),
        student_times=steps.TimeSampler(low=0.3, high=0.98), critic_times=steps.TimeSampler(low=0.02, high=0.9),
        ema_decay=0.7, critic_updates_per_rollout=4, share_sample=False, substeps=6,
        micro_batches=1,  # config.micro_batches, which programs.py puts in
    )  # fmt: skip
    recipe = train.make_recipe(config.distill)
    by_step = np.zeros((3, 4))
    by_step[:, 2] = 0.1, 0.2, 0.3
    np.testing.assert_array_equal(recipe.lambdas, guidance.lambda_table(3, 4, [by_step]))
    names = {field.name for field in dataclasses.fields(recipe)} - {"lambdas"}
    assert {name: getattr(recipe, name) for name in names} == expected


@pytest.mark.parametrize(("share", "critic_updates"), [("true", 5 * 3 + 4), ("false", 5 * 3)])
def test_each_optimizer_has_its_own_settings_and_counts_its_own_updates(monkeypatch, share, critic_updates):
    """Four student rows, and five critic rows (one of warm-up) of three updates each."""
    config = load(
        "student_updates=4", "distill.critic_warmup=1", "distill.critic_updates_per_rollout=3",
        f"distill.share_sample={share}", "student_optim.lr=1.0", "critic_optim.lr=2.0",
    )  # fmt: skip
    table = train.make_table(config, train.make_recipe(config.distill))
    monkeypatch.setattr(train.optim, "make_optimizer", lambda *args: args)
    student, critic = train.make_optimizers(config, table)
    assert student == (config.student_optim, 4)
    assert critic == (config.critic_optim, critic_updates)
    assert student[0].lr != critic[0].lr


def test_a_trajectory_has_one_optimizer(monkeypatch):
    config = load("student_updates=7", arg="trajectory")
    monkeypatch.setattr(train.optim, "make_optimizer", lambda *args: args)
    table = train.make_table(config, train.make_recipe(config.distill))
    assert train.make_optimizers(config, table) == ((config.student_optim, 7), None)


def test_flow_matching_has_one_optimizer(monkeypatch):
    config = load("steps=7", arg="teacher")
    monkeypatch.setattr(train.optim, "make_optimizer", lambda *args: args)
    assert train.make_optimizers(config, train.make_table(config, None)) == ((config.optim, 7), None)


class Encoder:
    """Stands for the text encoder; the empty prompt has its two special tokens."""

    def encode(self, texts, max_tokens=None):
        return [np.full((2 + len(t.split()), 384), 1 + len(t), np.float32) for t in texts]

    def tokens(self, texts, max_tokens=None):
        return [[0, *t.split(), 1] for t in texts]


class Stopped(Exception):
    """Carries what would have been compiled."""


@pytest.fixture
def compiled(monkeypatch, tmp_path):
    """What a real run gives to ``compile_programs``: the call's arguments, and (state, teachers, batch)."""
    data = prepare.prepare(
        tmp_path, split="train", count_per_category=3, size=8, seed=0, encode=Encoder().encode, progress=False
    )
    rng, flat = np.random.default_rng(0), paths.flatten(
        qwen_image_21.abstract(models.make_config(qwen_image_21, load().model))
    )
    for name in "ab":
        params = {path: rng.normal(0, 0.1, x.shape).astype(np.float32) for path, x in flat.items()}
        convert.save("qwen_image_21", paths.unflatten(params), tmp_path / f"{name}.safetensors")

    def stop(table, call, example, *_):
        raise Stopped(call.keywords, example)

    monkeypatch.setattr(text, "default_encoder", lambda: Encoder())
    monkeypatch.setattr(pictures, "make_drawer", lambda *_: None)
    monkeypatch.setattr(train, "compile_programs", stop)
    monkeypatch.setattr(train, "make_optimizers", lambda *_: (optax.sgd(0.1), optax.adam(0.1)))

    def run(*settings: str, arg: str, **changes):
        with pytest.raises(Stopped) as stopped:
            train.train(load(*settings, arg=f"{arg}data={data}", **changes), str(tmp_path / "run"))
        return stopped.value.args

    return run


def test_a_distillation_gets_its_teachers_in_order_and_a_short_null(compiled, tmp_path):
    teachers = [str(tmp_path / f"{name}.safetensors") for name in "ab"]
    given, (state, trees, _) = compiled(
        f"distill.teachers.base.weights={teachers[0]}", arg="",
        teachers=dict(a_second=dict(weights=teachers[1], negative="dull and grey")),
        guidance_table={"text": {"a_second": "linear"}},
    )  # fmt: skip
    # The empty prompt of the one, the negative prompt of the other: each as long as it is.
    assert [null.text.shape for null in given["nulls"]] == [(1, 2, 384), (1, 5, 384)]
    assert [float(null.text[0, 0, 0]) for null in given["nulls"]] == [1.0, 14.0]
    assert given["size"] == 8
    abstract = qwen_image_21.abstract(models.make_config(qwen_image_21, load().model))
    for tree, path in zip(trees, teachers, strict=True):
        expected = paths.flatten(convert.load("qwen_image_21", path, abstract))
        assert all(np.array_equal(x, expected[name]) for name, x in paths.flatten(tree).items())
    # Each role has its own optimizer: sgd keeps nothing, adam keeps moments.
    assert given["student_optimizer"].init(state.student.params) == state.student.opt_state
    assert "ScaleByAdamState" in str(type(state.critic.opt_state[0]))
    assert "ScaleByAdamState" in str(type(given["critic_optimizer"].init(state.critic.params)[0]))


def test_a_student_begins_where_it_is_told_and_its_critic_as_the_base_teacher(compiled, tmp_path):
    a, b = (str(tmp_path / f"{name}.safetensors") for name in "ab")
    abstract = qwen_image_21.abstract(models.make_config(qwen_image_21, load().model))
    _, (state, trees, _) = compiled(f"distill.teachers.base.weights={a}", f"init={b}", arg="")
    assert len(trees) == 1
    for tree, path in ((state.student.params, b), (state.ema, b), (state.critic.params, a), (trees[0], a)):
        expected = paths.flatten(convert.load("qwen_image_21", path, abstract))
        assert all(np.array_equal(x, expected[name]) for name, x in paths.flatten(tree).items())


def test_teachers_are_kept_as_told_and_what_trains_is_not(compiled, tmp_path):
    a = str(tmp_path / "a.safetensors")
    _, (state, (teacher,), _) = compiled(f"distill.teachers.base.weights={a}", "teacher_dtype=bfloat16", arg="")
    abstract = qwen_image_21.abstract(models.make_config(qwen_image_21, load().model))
    expected = paths.flatten(convert.load("qwen_image_21", a, abstract))
    for name, x in paths.flatten(teacher).items():
        np.testing.assert_array_equal(x, expected[name].astype(jnp.bfloat16))
    for tree in (state.student.params, state.critic.params):
        assert all(np.array_equal(x, expected[name]) for name, x in paths.flatten(tree).items())


def test_flow_matching_gets_a_null_as_long_as_its_captions(compiled):
    given, (_, trees, batch) = compiled(arg="teacher,")
    (null,) = given["nulls"]
    assert null.text.shape == (1, 28, 384)
    assert null.text_length.tolist() == [2]
    assert batch[0]["text"].shape[1:] == (28, 384)
    assert np.asarray(null.text[0, :2] == 1).all()
    assert trees == ()


EDITS = watch.Edits([dict(instruction="make it red at once")], None)


@pytest.mark.parametrize(
    ("tasks", "watched", "longest"),
    [([0, 1], watch.Watched(), 11), ([1], watch.Watched(edits=EDITS), 7), ([1], watch.Watched(), None)],
)
def test_prompts_that_a_run_draws_on_its_way_have_to_fit(tasks, watched, longest):
    """Those of samples where it makes pictures from prompts, those of watched edits too."""
    table = types.SimpleNamespace(task=np.array(tasks))
    watch.check_texts(load("max_text_tokens=11"), bool((table.task == 0).any()), watched, Encoder())
    if longest:
        with pytest.raises(UserError, match=f"have up to {longest} tokens; raise config.max_text_tokens from 4"):
            watch.check_texts(load("max_text_tokens=4"), bool((table.task == 0).any()), watched, Encoder())
    else:
        watch.check_texts(load("max_text_tokens=4"), bool((table.task == 0).any()), watched, Encoder())
