"""Plans: operations by role in units of a forward pass, memory of compiled programs, and what cannot be planned."""

import functools
import json
import re

import jax
import jax.numpy as jnp
import pytest

from flashjax import cli, cost, flow, models, optim, plan, programs, settings
from flashjax import config as configs
from flashjax.commands import plan as command
from flashjax.distill import guidance, schedule, steps
from flashjax.errors import UserError
from flashjax.models import flops, held
from flashjax.parallel import chips, memory, sharding
from flashjax.parallel import mesh as meshes
from flashjax.recipe import make_recipe, make_table

CONFIG = "configs/postcards.py"


def test_edits_bring_their_own_nulls_and_all_their_pictures():
    """A teacher's negative condition is as long as the texts where samples have their own, and every source counts."""
    config = configs.load(["--config=configs/qwen_image.py:edit"])
    rows = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    batch = plan.batch_shapes(config, 1, 3584, settings.Edited(2, 512, (0, 0)), rows)
    assert batch["null"].shape == batch["text"].shape == (64, 512, 3584)
    assert batch["source_2"].shape == batch["source"].shape == (64, 32, 32, 64)
    sizes = cost.sizes_of(config, {1: batch})
    assert (sizes[1].image, sizes[1].references) == (64 * 64, 2 * 32 * 32)
    assert cost.own_nulls({0: {}, 1: batch}) == {1: 512}
    recipe = make_recipe(config.distill)
    table, model = make_table(config, recipe), models.architecture("qwen_image")
    given = dict(batch=64, sizes=sizes, nulls=(2,))
    student = next(program for program in table.programs() if str(program).startswith("student"))
    short, own = (
        cost.Cost("qwen_image", models.make_config(model, config.model), recipe, **given, own_nulls=nulls)
        .program(student)["teachers"] for nulls in ({}, {1: 512})
    )  # fmt: skip
    assert 1.02 < own / short < 1.2


def test_what_is_on_the_host_takes_nothing_of_a_device():
    mesh = meshes.make_mesh(dict(data=1, fsdp=2, context=1, tensor=1), jax.devices()[:2])
    form = {"blocks": {"to_q": {"kernel": jax.ShapeDtypeStruct((4, 64, 64), jnp.bfloat16)}}}
    for where, taken in (("device", 4 * 64 * 64 * 2 // 2), ("pinned_host", 0)):
        places = held.placed(sharding.shardings(form, mesh), where)
        (leaf,) = jax.tree.leaves(sharding.with_places(form, places))
        assert memory.bytes_on_device(leaf) == taken


def counted_run(make_table, **changes):
    """Work of a run of Qwen-Image at 1024 px, its cost, and one forward pass of its batch."""
    config, size = models.architecture("qwen_image").Config(), flops.Sizes(4096, 256)
    lambdas = guidance.lambda_table(4, 1)
    recipe = steps.Recipe(
        grid=tuple(flow.time_grid(4, 1.0).tolist()), lambdas=lambdas,
        guidance_scales=(guidance.Scale(scales=(4.0,)),), **changes,
    )  # fmt: skip
    table = make_table(lambdas=lambdas[None], seed=0)
    counted = cost.Cost("qwen_image", config, recipe, batch=2, sizes={0: size}, nulls=(256,))
    run = cost.total(counted.row(table, i) for i in range(len(table)))
    return run, counted, table, 2 * flops.evaluation("qwen_image", config, size).both


def test_a_cycle_in_forward_passes():
    """Four student steps, five critic rows a student row, a guided teacher, all recomputed: 41 forward passes."""
    table = functools.partial(schedule.distillation_table, 8, critic_rows=5)
    run, counted, table, one = counted_run(table, share_sample=False)
    assert sum(run.values()) / one / 8 == pytest.approx(41, rel=1e-3)
    in_passes = {role: value / one / 8 for role, value in run.items()}
    expected = dict(rollout=14, student=3, critic=16, teachers=2, recomputed=6)
    assert in_passes == pytest.approx(expected, rel=2e-3)
    assert cost.of_model(run) / one / 8 == pytest.approx(35, rel=1e-3)
    # A chip of two devices has half of its peak in each.
    seconds = cost.at_peak(counted, table, "TPU7x", 8)(0)
    assert seconds == pytest.approx(cost.of_model(counted.row(table, 0)) / (4 * chips.named("tpu7x").flops))
    assert cost.at_peak(counted, table, "cpu", 8) is None


def test_a_trajectory_in_forward_passes():
    """Of four student steps, within each of which its teacher takes five guided steps."""
    run, _, _, one = counted_run(functools.partial(schedule.trajectory_table, 4), substeps=5)
    in_passes = {role: value / one / 4 for role, value in run.items()}
    # 1.5: the mean of what comes before a step.
    assert in_passes == pytest.approx(dict(rollout=1.5, student=3, teachers=10, recomputed=1), rel=2e-3)


def test_counted_devices(capsys):
    assert cli.main(["plan", f"--config={CONFIG}", "--devices", "gpu:8xh200", "cpu:8", "--json"]) == 0
    gpu, cpu = json.loads(capsys.readouterr().out)
    assert gpu["fits"] is None and cpu["limit_bytes"] is None and gpu["mesh"]["data"] == 8
    hours = sum(gpu["flops_of_a_cycle"].values()) * gpu["cycles"] / chips.named("h200").flops / 3600
    assert gpu["chip_hours_at_peak"] == pytest.approx(hours)
    assert gpu["left_out"] == []  # nothing is compiled for a GPU
    # Four float32 networks of the run, two moments each of student and critic, whole on every device.
    assert gpu["resident_bytes"] == pytest.approx(8 * 4 * gpu["parameters"], rel=0.01)


def test_one_that_does_not_divide_is_an_answer_among_others(capsys):
    """By its batch, by its mesh; what no slice serves is still an error."""
    words = ["plan", f"--config={CONFIG}", "--devices", "cpu:8", "cpu:10", "cpu:3", "--config.mesh.fsdp=2"]
    assert cli.main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(plan["target"], plan["fits"], "problem" in plan) for plan in found] == [
        ("cpu:8", None, False), ("cpu:10", False, True), ("cpu:3", False, True),
    ]  # fmt: skip
    assert found[1]["problem"].startswith("A batch of 24 does not divide over 10 devices; change config.batch_size")
    assert found[2]["command"].startswith(f"flashjax plan --config={CONFIG} --devices cpu:3 --config.mesh")
    assert command.describe(found[1]) == f"cpu:10: 10 chips\n  does not fit: {found[1]['problem']}"
    hours = dict(chip_hours_at_peak=1.0)
    assert "cpu:8, 1 at" in command.told_cheapest([*found[1:], found[0] | hours | dict(fits=True)])
    assert not any(plan["fewest_chip_hours"] for plan in found)
    assert cli.main([*words, "--programs", "("]) == 2
    assert "no regular expression" in capsys.readouterr().err


def test_a_compiler_that_fails_takes_no_other_answer_along(monkeypatch):
    config, done = configs.load([f"--config={CONFIG}"]), []
    lay_out = plan.lay_out

    def crash(table, call, example, mesh, *_):
        done.append("compiled")
        if mesh.size == 2:
            raise jax.errors.JaxRuntimeError("INTERNAL: a crash\nin many lines")
        return {}

    monkeypatch.setattr(plan, "compile_all", crash)
    monkeypatch.setattr(plan, "lay_out", lambda *args: (done.append("laid out"), lay_out(*args))[1])
    targets = [plan.Target(str(n), chips.named("v6e"), n, jax.devices()[:n]) for n in (2, 4, 5)]
    found = plan.plan_all(config, targets, "least", "", print)
    assert done == ["laid out"] * 3 + ["compiled"] * 2
    assert [each["target"] for each in found] == ["2", "4", "5"]
    assert [each.get("problem", "").partition(";")[0] for each in found] == [
        "The compiler fails: INTERNAL: a crash\nin many lines", "", "A batch of 24 does not divide over 5 devices"
    ]  # fmt: skip
    assert command.verdict(found[0]) == "fit not known: The compiler fails: INTERNAL: a crash"
    assert command.told_cheapest(found) == "It is not known to fit on any of these."
    with pytest.raises(jax.errors.JaxRuntimeError):
        plan.plan_all(config, targets[:1], "least", "", print)


def test_chips_that_the_mesh_leaves_out_are_paid_for_and_compute_nothing(capsys):
    words = ["plan", f"--config={CONFIG}", "--json", "--config.mesh.data=4", "--devices", "cpu:8", "gpu:8xh200"]
    assert cli.main([*words, "gpu:4xh200"]) == 0
    _, eight, four = json.loads(capsys.readouterr().out)
    assert eight["cycle_seconds_at_peak"] == pytest.approx(four["cycle_seconds_at_peak"])
    assert eight["chip_hours_at_peak"] == pytest.approx(2 * four["chip_hours_at_peak"])
    half = plan.Target("tpu7x:2x2x1", chips.named("tpu7x"), 4, taken=4)
    assert plan.roofline(half, 2 * 2307e12, compiled(0))["operations"] == pytest.approx(1)


def test_what_is_refused_keeps_its_name_and_what_is_compiled_its_figures(monkeypatch):
    config = configs.load([f"--config={CONFIG}"])
    table, told = make_table(config, make_recipe(config.distill)), []

    def compile_programs(table, call, example, mesh, finish, **_):
        class Lowered:
            def compile(self, **_):
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Used 29.33G of 15.75G hbm. Over by 13.58G.")

        finish(Lowered(), table.programs()[0]).output_shardings  # noqa: B018

    monkeypatch.setattr(plan, "compile_programs", compile_programs)
    target = plan.Target("v6e:1x1", chips.named("v6e"), 1, jax.devices()[:1])
    laid = plan.lay_out(config, target)
    found = plan.plan(laid, "least", "", told.append)
    assert found["refused"] == {"begin t2i": "29.33G wanted of 15.75G, 13.58G too much"} and found["fits"] is False
    assert "begin t2i" not in found["left_out"] and "critic t2i" in found["left_out"]
    assert told == ["begin t2i: refused in 0 s"]
    assert table.programs()[0] == schedule.Program(schedule.BEGIN, 0)


def test_a_plan_knows_its_command(capsys):
    words = [f"--config={CONFIG}", "--devices", "cpu:4", "cpu:2", "--programs", "^s|b", "--config.batch_size=8"]
    assert cli.main(["plan", *words, "--json"]) == 0
    told = [found["command"] for found in json.loads(capsys.readouterr().out)]
    line = f"flashjax plan --config={CONFIG} --devices cpu:{{}} --programs '^s|b' --config.batch_size=8"
    assert told == [line.format(4), line.format(2)]


def test_adapters_are_what_is_trained(capsys):
    words = ["--devices", "cpu:1", "--json", "--config.lora.rank=4"]
    assert cli.main(["plan", f"--config={CONFIG}", *words]) == 0
    found = json.loads(capsys.readouterr().out)[0]
    config = models.architecture("qwen_image_21").Config.postcards()
    base = optim.parameter_count(models.architecture("qwen_image_21").abstract(config))
    # Seven kernels a block (four of attention, three of the MLP), each with two factors of rank 4.
    factors = 4 * config.layers * (4 * 2 * config.width + 3 * (1 + config.mlp_ratio) * config.width)
    assert (found["parameters"], found["teachers"]) == (factors, 1)
    # The base once, and of the factors student, average, critic and two moments each; a batch of 24 beside them.
    batch = 24 * (28 * config.context_dim + 2) * 4
    assert found["resident_bytes"] == pytest.approx(4 * (base + 7 * factors) + batch, abs=100)


def test_a_missing_compiler_is_told(monkeypatch, capsys):
    def none(**_):
        raise RuntimeError("Unable to initialize backend 'tpu': INTERNAL: TPU support not installed.")

    monkeypatch.setattr("jax.experimental.topologies.get_topology_desc", none)
    assert cli.main(["plan", f"--config={CONFIG}", "--topology", "v6e:2x2"]) == 2
    assert "pip install 'flashjax[plan]'" in capsys.readouterr().err


def test_a_topology_that_the_compiler_does_not_know_is_told(monkeypatch, capsys):
    def none(**_):
        raise RuntimeError('INVALID_ARGUMENT: Topology layout "v6e:3x3" is not divisible\nby much')

    monkeypatch.setattr("jax.experimental.topologies.get_topology_desc", none)
    assert cli.main(["plan", f"--config={CONFIG}", "--topology", "v6e:3x3"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("flashjax plan: The compiler knows no topology v6e:3x3: INVALID_ARGUMENT: Topology layout")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "words, told",
    [
        (["--topology", "v6p:2x2"], "did you mean v6e?"), (["--topology", "v5p:2x2"], "3 dimensions, as in v5p:2x2x2"),
        (["--topology", "h200:8"], "--devices gpu:8xh200"), (["--devices", "gpu:8xh20"], "did you mean h200?"),
        (["--devices", "8"], "write gpu:8xh200 or cpu:8"), ([], "Nothing to plan for"),
        (["--devices", "gpu:8xv5p"], "v5p is no GPU; write --topology v5p:2x2x2"),
        (["--devices", "cpu:8", "--config.mesh.fsdp=3"], "do not divide"),
        (["--devices", "cpu:8", "--programs", "teacher t2i"], "which are begin t2i; advance t2i; critic t2i; student"),
        (["--devices", "cpu:8", "--programs", "("], "no regular expression"),
    ],
)  # fmt: skip
def test_what_cannot_be_planned(words, told, capsys):
    assert cli.main(["plan", f"--config={CONFIG}", *words]) == 2
    assert told in capsys.readouterr().err


def test_the_compilers_refusal_is_an_answer():
    words = "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 29.33G " \
        "of 15.75G hbm. Exceeded hbm capacity by 13.58G."  # fmt: skip
    target = plan.Target("v5e:2x2", chips.named("v5e"), 4)
    found = plan.fit(target, 2**30, {"student t2i": dict(refused=words)})
    assert found["fits"] is False
    assert found["refused"] == {"student t2i": "29.33G wanted of 15.75G, 13.58G too much"}


def test_what_the_compiler_refuses_a_run_is_a_sentence():
    class Lowered:
        def __init__(self, words: str):
            self.words = words

        def compile(self):
            raise jax.errors.JaxRuntimeError(self.words)

    words = "RESOURCE_EXHAUSTED: Ran out of memory.\nUsed 29.33G of 15.75G hbm. Exceeded hbm capacity by 13.58G."
    with pytest.raises(UserError, match="student t2i does not fit: 29.33G wanted of 15.75G, 13.58G too much;") as told:
        programs.compile_one(Lowered(words), "student t2i")
    assert "\n" not in str(told.value)
    advice = str(told.value).partition("too much; ")[2]
    assert advice.startswith("raise config.micro_batches (its parts of a batch follow one another), let the backward")
    assert "lora" not in advice  # which is another run
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        programs.compile_one(Lowered("INTERNAL: a crash"), "student t2i")


def compiled(
    temporaries: float, arguments: float = 0, moved: float = 0, traffic: float = 0, host: float = 0
) -> dict:
    return dict(
        temporaries_bytes=temporaries, arguments_bytes=arguments, code_bytes=0, links_bytes={"all-gather": moved},
        traffic_bytes=traffic, host_bytes={"from": host, "to": host / 2},
        largest=[dict(bytes=2**30, shape="f32[2]", what="copy", knob="mesh.fsdp")], seconds=1.0,
    )  # fmt: skip


def test_the_program_that_needs_most_decides():
    target = plan.Target("v6e:2x2", chips.named("v6e"), 4)
    found = plan.fit(target, 20 * 2**30, {"a": compiled(10 * 2**30), "b": compiled(8 * 2**30, arguments=23 * 2**30)})
    assert (found["largest_program"], found["total_bytes"], found["fits"]) == ("b", 31 * 2**30, True)
    assert found["headroom"] == pytest.approx(0.25 / 31.25)
    assert plan.fit(target, 24 * 2**30, {"a": compiled(10 * 2**30)})["fits"] is False


@pytest.mark.parametrize(
    ("only", "left_out", "fits"),
    [("", [], True), ("^(student|critic)", ["advance"], True), ("student", ["advance", "critic"], None)],
)
def test_a_run_fits_where_what_needs_most_is_compiled(only, left_out, fits, monkeypatch):
    """With the critic left out, which may need more than all others, a plan said that the run fits."""
    config, done = configs.load([f"--config={CONFIG}"]), compiled(2**30)

    def compile_all(table, call, example, mesh, effort, only, tell):
        names = map(str, table.programs())
        return {name: done for name in names if name.startswith("begin") or re.search(only, name)}

    monkeypatch.setattr(plan, "compile_all", compile_all)
    laid = plan.lay_out(config, plan.Target("v6e:2x2", chips.named("v6e"), 4, jax.devices()[:4]))
    found = plan.plan(laid, "least", only, print)
    assert [name.split()[0] for name in found["left_out"]] == left_out and found["fits"] is fits
    told = f"fits, {found['headroom']:.1%} of the memory left"
    assert command.verdict(found) == (told if fits else f"what was compiled {told}")
    assert (command.cheapest([found]) is found) == bool(fits)
    done["temporaries_bytes"] = 2**35
    assert plan.plan(laid, "least", only, print)["fits"] is False


def test_the_least_time_is_that_of_the_slowest_part():
    """tpu7x has two devices a chip, each with half of its bandwidth: what a device moves takes twice as long."""
    target = plan.Target("tpu7x:2x2x1", chips.named("tpu7x"), 4)
    parts = plan.roofline(target, 4 * 2307e12, compiled(0, moved=600e9, traffic=7380e9))
    assert parts == pytest.approx(dict(operations=1, memory=2, links=2, host=0))
    slow = plan.roofline(plan.Target("v6e:2x2", chips.named("v6e"), 4), 0, compiled(0, host=64e9))
    assert slow == dict(operations=0, memory=0, links=0, host=2)  # each way has its own
    table = schedule.flow_matching_table(3)
    config = models.architecture("qwen_image").Config()
    counted = cost.Cost("qwen_image", config, None, batch=1, sizes={0: flops.Sizes(64, 8)}, nulls=(8,))
    moves = compiled(0, moved=300e9, traffic=7380e9, host=8e9)
    found = plan.speed(target, table, counted, {"flow_matching t2i": moves})
    assert found["host_bytes_of_a_cycle"] == {"from": 8e9, "to": 4e9}
    assert found["least_cycle_seconds"] == pytest.approx(2) and found["links_bytes_of_a_cycle"] == {"all-gather": 300e9}
    assert found["least_chip_hours"] == pytest.approx(3 * 2 * 4 / 3600)
    assert max(found["cycle_seconds_by_bound"], key=found["cycle_seconds_by_bound"].get) == "memory"
    told = command.describe(
        dict(target="t", chips=4, mesh=dict(data=4), parameters=1, teachers=0, left_out=["critic t2i"])
        | plan.fit(target, 0, {"flow_matching t2i": compiled(2**30)}) | found
    )  # fmt: skip
    assert "not compiled, so that nothing is known of them: critic t2i" in told
    assert "from                    8.000 GB a cycle from the host's memory" in told
    assert "bound by memory" in told and "1.000 GiB f32[2]" in told
    assert "all-gather            300.000 GB a cycle over a device's links" in told
    # Where a program is left out or refused there is no cycle: collectives are told of each call.
    part = {name: value for name, value in found.items() if name != "least_cycle_seconds"}
    told = command.bounds(part | dict(programs={"flow_matching t2i": moves}))
    assert told[0] == "  at least 2 s a call of flow_matching t2i, bound by memory"
    assert told[1] == "    all-gather            300.000 GB a call over a device's links"
    assert told[2] == "    from                    8.000 GB a call from the host's memory"


def test_the_cheapest_is_by_what_bounds_it():
    """By operations alone the faster chip would always win; of plans in part nothing else is known."""
    fits = [dict(target=name, fits=True, chips=4) for name in ("v5e", "v6e")]
    peak, least = [dict(chip_hours_at_peak=hours) for hours in (5.0, 1.0)], [6.0, 7.0]
    whole = [a | b | dict(least_chip_hours=hours) for a, b, hours in zip(fits, peak, least, strict=True)]
    assert command.told_cheapest(whole) == "Fewest chip-hours where it fits: v5e, 6 at the least."
    assert "v6e, 1 at the chips' peak" in command.told_cheapest([whole[0], fits[1] | peak[1]])
    assert command.told_cheapest([whole[0] | dict(fits=False), whole[1]]).endswith("v6e, 7 at the least.")
    assert command.told_cheapest([fits[0] | dict(fits=None)]) == "It is not known to fit on any of these."
    assert command.cheapest(whole) is whole[0] and command.cheapest([whole[0], fits[1] | peak[1]])["target"] == "v6e"
    assert command.cheapest([dict(target="v5e", fits=False, problem="It does not divide.")]) is None
