"""What is said of a configuration by itself: names that it lacks or has in vain, what is no number, and sources, before
any is opened."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from flashjax import config as configs
from flashjax import workdir
from flashjax.errors import UserError
from flashjax.settings import check_data, check_names, check_settings, check_sources

MINE = dict(path="mine.arrayrecord")


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ({}, "config.sources is empty; name at least one prepared set"), (None, "config.sources is None; name"),
        (dict(a="mine.arrayrecord"), "config.sources.a is 'mine.arrayrecord'; a source has path, task, weight."),
        (dict(a=dict(task="t2i")), "The source 'a' has no path; name the file of a prepared set as config.sources.a.p"),
        (dict(a=dict(path="")), "The source 'a' has no path"),
        (dict(a=MINE | dict(wieght=1)), "There is no setting config.sources.a.wieght; a source has path, task"),
        (dict(a=MINE | dict(task="video")), "config.sources.a.task is 'video'; tasks are t2i, edit."),
        (dict(a=MINE | dict(weight="x")), "config.sources.a.weight is 'x'; a weight is a number from 0 on, or one by"),
        (dict(a=MINE | dict(weight=-1)), "config.sources.a.weight is -1; a weight"),
        (dict(a=MINE | dict(weight=float("nan"))), "config.sources.a.weight is nan; a weight"),
        (dict(a=MINE | dict(weight={"text": "x"})), "config.sources.a.weight of 'text' is 'x'; a weight"),
        (dict(a=MINE | dict(weight=((0, 1.0), (0.5, None)))), "config.sources.a.weight is None; a weight"),
        (dict(a=MINE | dict(weight=((0.5, 1.0),))), "config.sources.a.weight: The phases of a run begin at 0"),
    ],
)  # fmt: skip
def test_sources_that_cannot_be(sources, said):
    with pytest.raises(UserError) as raised:
        check_sources(ConfigDict(sources) if isinstance(sources, dict) else sources)
    assert said in str(raised.value)


def test_sources_that_can_be():
    for weight in (0, 1.0, {"text": 2}, ((0, 1.0), (0.5, {"text": 2.0, "portrait": 0}))):
        check_sources(ConfigDict(dict(a=MINE | dict(weight=weight), b=MINE | dict(task="edit"))))


@pytest.mark.parametrize(
    ("arg", "group", "changes", "said"),
    [
        ("", "", dict(bacth_size=8), "There is no setting config.bacth_size; did you mean config.batch_size?"),
        ("", "", dict(batch_size=None), "The run needs config.batch_size, which this configuration does not have; tak"),
        ("", "", dict(objective=None), "The run needs config.objective, which this"),
        ("", "", dict(objective="flow_matching"), "The run needs config.steps, which this configuration"),
        ("", "distill", dict(critic_row=3), "There is no setting config.distill.critic_row; did you mean config."),
        ("", "distill", dict(critic_rows=None), "The run needs config.distill.critic_rows, which this"),
        ("", "distill.student_times", dict(lo=0.1), "There is no setting config.distill.student_times.lo; did"),
        ("", "critic_optim", dict(clip=None), "The run needs config.critic_optim.clip, which this configuration"),
        ("", "student_optim", dict(beta1=0.5), "There is no setting config.student_optim.beta1; config.student_opt"),
        ("", "", dict(critic_optim=3e-4), "config.critic_optim is 0.0003; it is a group of settings: kind, schedule, "),
        ("", "model", dict(architecture=None), "The run needs config.model.architecture, which this configuration"),
        ("", "model", dict(preset=None), "The run needs config.model.preset, which this configuration"),
        ("", "", dict(model="tiny"), "config.model is 'tiny'; it is a group of settings: architecture, preset."),
        ("", "", dict(autoencoder="vae_kl"), "config.autoencoder is 'vae_kl'; it is a group of settings: architectur"),
        ("", "autoencoder", dict(weights=None), "The run needs config.autoencoder.weights, which this configuration"),
        ("", "mesh", dict(data=None), "The run needs config.mesh.data, which"),
        ("", "watch", dict(cuont=9), "There is no setting config.watch.cuont; did you mean config.watch.count?"),
        ("teacher", "sample", dict(step=9), "There is no setting config.sample.step; did you mean config.sample.s"),
        ("teacher", "times", dict(sdt=9), "There is no setting config.times.sdt; did you mean config.times.std?"),
    ],
)
def test_names_that_a_file_misspells_or_leaves_out(request, arg, group, changes, said):
    """On the command line they are errors of their own; a file is free to write what nothing reads."""
    file = request.config.rootpath / "tests" / "configs" / "tiny_postcards.py"
    config = configs.load([f"--config={file}:{arg}"]).unlock()
    check_names(config)
    found = config
    for name in filter(None, group.split(".")):
        found = found[name]
    for name, value in changes.items():
        if name in found:
            del found[name]
        if value is not None:
            found[name] = value
    with pytest.raises(UserError) as raised:
        check_names(config)
    assert said in str(raised.value)


def test_what_another_objective_needs_may_be_left_out_or_lie_about(request):
    file = request.config.rootpath / "tests" / "configs" / "tiny_postcards.py"
    config = configs.load([f"--config={file}:trajectory"]).unlock()
    del config.critic_optim
    config.critic_optim = ConfigDict(dict(left="over"))
    del config.distill["critic_rows"]
    check_names(config)


def tiny(request, arg: str = "", **changes):
    """The tiny configuration as a file may write it; __ stands for the dot of a path."""
    config = configs.load([f"--config={request.config.rootpath}/tests/configs/tiny_postcards.py:{arg}"]).unlock()
    for path, value in changes.items():
        *groups, name = path.split("__")
        group = config
        for each in groups:
            group = group[each]
        with group.ignore_type():
            group[name] = value
    return config


@pytest.mark.parametrize(
    ("arg", "path", "value"),
    [
        ("", "student_updates", 1e4), ("", "seed", 1.5), ("", "batch_size", "8"), ("", "log_every", 2.5),
        ("", "distill__nfe", 4.0), ("", "distill__critic_updates_per_rollout", 1.5), ("", "distill__substeps", None),
        ("", "lora__rank", 2.5), ("", "mesh__data", 2.0), ("", "watch__count", 3e2), ("", "keep_checkpoints", True),
        ("", "max_text_tokens", 28.0), ("teacher", "steps", 8.0), ("teacher", "sample__steps", "4"),
    ],
)  # fmt: skip
def test_counts_that_are_no_whole_numbers(request, arg, path, value):
    with pytest.raises(UserError) as raised:
        check_settings(tiny(request, arg, **{path: value}))
    assert str(raised.value) == f"config.{path.replace('__', '.')} is {value!r}; it has to be a whole number."


@pytest.mark.parametrize(
    ("arg", "path", "value"),
    [
        ("", "watchdog_minutes", "30"), ("", "distill__shift", "3"), ("", "distill__ema_decay", "0.9"),
        ("", "distill__student_times__low", None), ("", "lora__alpha", (1, 2)), ("teacher", "drop_rate", "0.1"),
        ("teacher", "times__std", "1.2"), ("teacher", "sample__guidance_scale", "2"),
    ],
)  # fmt: skip
def test_rates_that_are_no_numbers(request, arg, path, value):
    with pytest.raises(UserError) as raised:
        check_settings(tiny(request, arg, **{path: value}))
    assert str(raised.value) == f"config.{path.replace('__', '.')} is {value!r}; it has to be a number."


@pytest.mark.parametrize(
    "path", ["init", "keep_best", "compile_cache", "autoencoder__weights", "watch__classifier", "model__preset"]
)
def test_words_that_are_no_texts(request, path):
    with pytest.raises(UserError) as raised:
        check_settings(tiny(request, **{path: 3}))
    assert str(raised.value) == f"config.{path.replace('__', '.')} is 3; it has to be a text."


def test_none_is_the_empty_text(request):
    """``config.init = None`` was a traceback when all weights had been read."""
    named = ("init", "keep_best", "compile_cache", "autoencoder__weights", "watch__data")
    config = tiny(request, **dict.fromkeys(named))
    check_settings(config.lock())
    assert [config.init, config.keep_best, config.compile_cache, config.autoencoder.weights] == [""] * 4
    assert workdir.identity(config) == workdir.identity(tiny(request))


def test_pixels_of_a_misspelt_autoencoder(request):
    """The run read pixels, and said nothing."""
    config = tiny(request)
    config.autoencoder.architectur = "vae_kl"
    with pytest.raises(UserError, match=r"config.autoencoder.architectur\); did you mean architecture\?"):
        check_settings(config)


@pytest.mark.parametrize("rows", [3, (1.5, 3), (0, True), ("0", "3"), (3, 1), (1, 2, 3)])
def test_rows_to_trace_that_are_no_two_rows(request, rows):
    with pytest.raises(UserError, match=r"write \(first row, last row\), or \(0, 0\) for none"):
        check_settings(tiny(request, profile=rows))


def test_a_watchdog_of_no_time(request):
    """Less than nothing is not true of nan either."""
    with pytest.raises(UserError, match="config.watchdog_minutes is nan; it has to be 0 or more"):
        check_settings(tiny(request, watchdog_minutes=float("nan")))


def test_numpys_numbers_are_numbers(request):
    check_settings(tiny(request, batch_size=np.int64(8), distill__nfe=np.int32(4), distill__shift=np.float32(3)))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.dtype(jnp.bfloat16)])
def test_a_run_keeps_what_it_was_told_in_numpys_words(request, dtype):
    """They were kept as 'unserializable object: 8', and the finished run could not be sampled."""
    scales, weight = (np.float32(1.5), 2.0), ((0, np.float64(1)), (np.float32(0.5), {"text": np.int64(2)}))
    told = dict(image_size=np.int64(8), distill__shift=np.float32(1), distill__share_sample=np.True_)
    told |= dict(distill__guidance__times=(0.0, 0.5), distill__guidance__scales=scales, sources__cards__weight=weight)
    config = tiny(request, model__dtype=dtype, **told)
    check_settings(config.lock())
    plain = dict(image_size=8, distill__shift=1.0, distill__share_sample=True, model__dtype="bfloat16")
    plain |= dict(distill__guidance__times=(0.0, 0.5), distill__guidance__scales=(1.5, 2.0))
    plain = tiny(request, **plain, sources__cards__weight=((0, 1.0), (0.5, {"text": 2})))
    assert workdir.identity(config) == workdir.identity(plain)
    assert type(config.image_size) is int
    assert {type(scale) for scale in config.distill.guidance.scales} == {float}


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("distill__guidance__scales", np.ones(2), "config.distill.guidance.scales is array([1., 1.]), which"),
        ("compile_cache", Path("x"), "config.compile_cache is PosixPath('x'), which the folder of a run cannot keep;"),
        ("model__dtype", dict, "config.model.dtype is <class 'dict'>, which"),
        ("sources__cards__weight", ((0, {"text": {1}}),), "config.sources.cards.weight.text is {1}, which"),
    ],
)
def test_what_the_folder_of_a_run_cannot_keep(request, path, value, said):
    with pytest.raises(UserError) as raised:
        check_settings(tiny(request, **{path: value}))
    assert str(raised.value).startswith(said)


def test_a_set_that_is_smaller_than_a_batch_may_stand_beside_another(request):
    """Of its task: alone, every batch would have records twice."""
    manifest = dict(max_text_tokens=9, count=40, size=None, categories={"text": 40})
    config = tiny(request, batch_size=64)
    config.sources.edits = dict(path="edits", task="edit")
    with pytest.raises(UserError, match="few holds 40 records, no batch of 64; lower config.batch_size."):
        check_data(manifest, "few", config)
    config.sources.more = dict(path="more")
    check_data(manifest, "few", config)
    with pytest.raises(UserError, match="few holds 40 records, no batch of 64"):
        check_data(manifest | dict(task="edit"), "few", config)


def test_what_another_objective_counts_is_not_looked_at(request):
    check_settings(tiny(request, "teacher", distill="left over"))
    check_settings(tiny(request, "teacher", lora__alpha=16, student_updates="left over"))
