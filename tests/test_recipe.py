"""From a configuration to tables: what teachers, guidance and shares cannot be, and what is said in vain."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from flashjax import config as configs
from flashjax import recipe
from flashjax.errors import UserError


def joint(**changes) -> ConfigDict:
    """configs/postcards_joint.py with changes by path, "distill.nfe" as distill__nfe."""
    config = configs.load(["--config=configs/postcards_joint.py"])
    for key, value in changes.items():
        *groups, last = key.split("__")
        at = config
        for group in groups:
            at = at[group]
        with config.unlocked(), config.ignore_type():
            at[last] = value
    return config


@pytest.fixture(autouse=True)
def at_the_root(request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)


def made(config: ConfigDict):
    return recipe.make_table(config, recipe.make_recipe(config.distill))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(distill__teachers__faces={}), "The teacher 'faces' has no weights; name the folder of its weights as"),
        (dict(distill__teachers__faces=dict(weights="")), "The teacher 'faces' has no weights"),
        (dict(distill__teachers__faces="runs/faces"), "config.distill.teachers.faces is 'runs/faces'; a teacher is"),
        (dict(distill__teachers="runs/base"), "config.distill.teachers has no teacher 'base'"),
        (dict(distill__teachers__base__negative=3), "config.distill.teachers.base.negative is 3; it is a prompt."),
        (dict(distill__teachers__base__guidance=2.0), "config.distill.teachers.base.guidance is 2.0; guidance has"),
        (dict(distill__guidance__scales=2.0), "config.distill.guidance.scales is 2.0; it is a number for each knot"),
        (dict(distill__guidance__scales=("x",)), "config.distill.guidance.scales is ('x',); it is a number for each"),
        (dict(distill__guidance__scales=(1.0, 2.0)), "config.distill.guidance: Guidance has 5 times and 2 scales"),
        (dict(distill__guidance_table=None), "config.distill.guidance_table: A table names classes, as in"),
        (dict(distill__guidance_table=(0, 0, 0.5, 1)), "config.distill.guidance_table: A setting that changes over"),
        (
            dict(distill__guidance_table=((0, {}), (0.5, {"text": {"pictures": 0.5}}))),
            "config.distill.guidance_table, from 0.5 of the run on: The weights of 'pictures' for 'text' are 0.5;",
        ),
        (dict(edit_share="x"), "config.edit_share is 'x'; the share of edits is a number in [0, 1]"),
        (dict(edit_share=((0, 0.5), (0.5, None))), "config.edit_share is None; the share"),
        (dict(edit_share=((0.1, 0.5),)), "config.edit_share: The phases of a run begin at 0"),
        (dict(distill__critic_rows=0, distill__share_sample=False), "The critic would never follow the student; set"),
        (dict(distill__classes=(("a", "b"), "c")), "config.distill.classes is (('a', 'b'), 'c'); it names the categ"),
        (dict(distill__classes=3), "config.distill.classes is 3; it names the categories of the prompts, each once"),
        (dict(objective="trajectory", distill__step_rows=(2, 1)), "step_rows is (2, 1); it says for each of the 4"),
        (dict(objective="trajectory", distill__step_rows=(2, 1, 1, 0)), "step_rows is (2, 1, 1, 0); it says"),
        (dict(objective="trajectory", distill__step_rows=(125, 1, 1, 1)), "rows of a block, of 127 at the most, train"),
        (dict(objective="trajectory", distill__step_rows=3), "config.distill.step_rows is 3; it says for each of"),
        (dict(objective="trajectory", distill__rollout_mode="renoise"), "a trajectory is followed from state to state"),
    ],
)
def test_what_cannot_be_is_named(changes, said):
    with pytest.raises(UserError) as raised:
        made(joint(**changes))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_trajectory_gives_each_step_the_rows_it_is_told_to():
    counts = {}
    for rows in ((), (2, 1, 1, 1)):
        table = made(joint(objective="trajectory", student_updates=100, edit_share=0.0, distill__step_rows=rows))
        counts[rows] = np.bincount(table.k).tolist()
    assert counts == {(): [25] * 4, (2, 1, 1, 1): [40, 20, 20, 20]}


def test_what_is_said_in_vain():
    config = joint()
    assert recipe.in_vain(config, made(config)) == []
    faces, table = dict(weights="runs/faces"), {"edit": {"faces": "linear"}, "text": {"pictures": "constant:1"}}
    config = joint(edit_share=0.0, distill__teachers__faces=faces, distill__guidance_table=table)
    assert recipe.in_vain(config, made(config)) == [
        "config.sources.edits is never read, as config.edit_share leaves no row to the task edit.",
        "the weights for 'edit' in config.distill.guidance_table, as config.edit_share leaves it no row.",
        "the teacher 'faces' is never heard, and its weights are loaded all the same; take it out.",
    ]
    assert "without effect: config.sources.edits is never read" in recipe.describe(config, made(config))
    config = joint(sources__prompts__weight={"text": 1.0, "portrait": 0}, distill__guidance_table={
        "portrait": {"pictures": "linear"}, "text": {}})
    assert recipe.in_vain(config, made(config)) == [
        "the teacher 'pictures' is never heard, and its weights are loaded all the same; take it out."
    ]
    assert {p.active for p in made(config).programs() if p.active} == {(0,)}  # so it is never run
    config = joint(keep_best="watch/frechet", sample_every=60, checkpoint_every=300)
    assert "config.keep_best for drawings that no checkpoint follows, all but one in 5;" in recipe.in_vain(
        config, made(config)
    )[0]
    config = joint(distill__student_times__kind="logit_normal")
    said = "config.distill.student_times.{}, as times of the kind logit_normal have none."
    assert recipe.in_vain(config, made(config)) == [said.format("low"), said.format("high")]
    config = configs.load(["--config=configs/postcards.py"])
    with config.unlocked():
        config.ema_decay, config.profile = 0.5, (5000, 5010)
        config.distill.update(substeps=9, step_rows=(2, 1, 1, 1))
    assert recipe.in_vain(config, made(config)) == [
        "config.ema_decay, which the objective dmd does not read.",
        "config.distill.step_rows, which the objective dmd does not read.",
        "config.distill.substeps, which the objective dmd does not read.",
        "config.profile, as the run ends before its row 5000.",
    ]
    for nothing in (0.0, {"text": 0}, ((0, 0.0), (0.5, {"text": 0.0, "portrait": 0}))):
        config = joint(sources__more=dict(path="more", weight=nothing))
        assert recipe.in_vain(config, made(config)) == ["config.sources.more is never read, as its weight is 0."]
    late = {"text": 1.0, "portrait": 1.0, "landscape": 1.0}
    config = joint(sources__prompts__weight=((0, 0.0), (0.5, late)))
    assert recipe.in_vain(config, made(config)) == []
    off, own = dict(times=(0.0, 0.9), scales=(1.0, 1.0)), dict(times=(0.0,), scales=(3.0,))
    base, faces = (dict(weights="x", negative="blurred"), dict(weights="runs/faces", negative="blurred", guidance=own))
    heard = dict(distill__teachers__faces=faces, distill__guidance_table={"portrait": {"faces": "linear"}})
    config = joint(distill__guidance=off, distill__teachers__base=base, **heard)
    told = [line for line in recipe.in_vain(config, made(config)) if "negative" in line]
    assert told == ["the negative prompt of the teacher 'base', whose guidance is 1 at every t."]


def test_weights_for_prompts_that_no_source_has():
    """Also where their teacher is heard elsewhere, which hid it."""
    table = ((0, {"text": {"pictures": "linear"}}), (0.5, {"portrait": {"pictures": "linear"}, "landscape": {}}))
    config = joint(sources__prompts__weight={"text": 1.0}, distill__guidance_table=table)
    assert recipe.in_vain(config, made(config)) == [
        "the weights for 'portrait' in config.distill.guidance_table, as the weights of config.sources leave it out."
    ]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (dict(lora__alpha=8.0, lora__rules=((".*", True),)), ["lora.alpha, as config.lora.rank is 0.",
                                                              "lora.rules, as config.lora.rank is 0."]),
        (dict(lora__alpha=8.0, lora__rank=2), []),
        (dict(autoencoder__preset="tiny", autoencoder__weights="random"), [
            "autoencoder.preset, as pixels have none.", "autoencoder.weights, as pixels have none."]),
        (dict(watch__count=9), ["watch.count, as neither config.watch.data nor edit_data names a set."]),
        (dict(watch__count=9, watch__edit_data="x"), []),
        (dict(student_optim__warmup=60), [
            "student_optim.lr, which is never reached: its warmup takes 60 updates, and the run has 60."]),
        (dict(student_optim__warmup=59, critic_optim__warmup=359), []),
        (dict(critic_optim__warmup=1000), [
            "critic_optim.lr, which is never reached: its warmup takes 1000 updates, and the run has 360."]),
        (dict(objective="trajectory", student_optim__warmup=70), [
            "student_optim.lr, which is never reached: its warmup takes 70 updates, and the run has 60."]),
    ],
)  # fmt: skip
def test_settings_that_others_leave_without_effect(changes, told):
    config = joint(student_updates=60, **changes)
    assert [line for line in recipe.in_vain(config, made(config)) if "does not read" not in line] == [
        f"config.{line}" for line in told
    ]
