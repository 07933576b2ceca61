"""What benchmarks compare is the same algorithm."""

import importlib.util
import json
import re
import shlex
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from parity import carry_over, close, randomise

from flashjax import flow
from flashjax.models import qwen_image_21


def load(request, name: str):
    spec = importlib.util.spec_from_file_location(name, request.config.rootpath / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def cycle(request):
    """A plain cycle without a network, which notes the times that every one of its networks is asked at."""
    module = load(request, "plain_torch")
    times = dict(
        student_times=SimpleNamespace(low=0.2, high=0.3, shift=1.0),
        critic_times=SimpleNamespace(low=0.7, high=0.8, shift=1.0),
    )
    guidance, weights = SimpleNamespace(times=(0.0,), scales=(2.0,)), {"w": torch.ones(())}

    def velocity(w, text, length, z, t):
        made.asked.append(t)
        return w["w"] * z

    made = module.Cycle(
        weights, velocity, (8, 8, 3), SimpleNamespace(nfe=2, guidance=guidance, ema_decay=0.9, **times),
        torch.zeros(4, 1, 1), None, (None, None), student_lr=0.0, critic_lr=0.0,
    )  # fmt: skip
    made.asked = []
    return made


@pytest.mark.parametrize(("update", "low", "high"), [("student_update", 0.2, 0.3), ("critic_update", 0.7, 0.8)])
def test_the_plain_cycle_noises_each_network_at_its_own_times(cycle, update, low, high):
    getattr(cycle, update)(0)
    assert (cycle.asked[0] == 1).all()  # the student's own step
    assert len(cycle.asked) > 1
    assert all(low <= t.min() and t.max() <= high for t in cycle.asked[1:])


def test_the_plain_cycle_shifts_its_times(cycle):
    cycle.d.student_times.shift = 3.0
    cycle.student_update(0)
    low, high = (3 * t / (1 + 2 * t) for t in (0.2, 0.3))
    assert all(low <= t.min() and t.max() <= high for t in cycle.asked[1:])


def test_an_edit_with_the_cached_prefix_is_the_edit_without(request):
    edit_prefix = load(request, "edit_prefix")
    config = qwen_image_21.Config.tiny()
    params, cond, noise = edit_prefix.inputs(config, references=2, side=3, batch=2)
    cached, recomputed = (
        np.asarray(sample(params, cond, None, noise, flow.time_grid(4)))
        for sample in edit_prefix.samplers(config).values()
    )
    assert np.abs(cached - noise).max() > 0.1
    np.testing.assert_allclose(cached, recomputed, rtol=0, atol=1e-6)


def test_the_module_of_diffusers_computes_the_same_cycle(request, tmp_path):
    """Its weights as a role's, from the released names to ours."""
    wide = load(request, "wide_cycle")
    config = qwen_image_21.Config.tiny()
    module = randomise(wide.diffusers_module(config, "cpu"), 0, centred=("text_norm",))
    params = carry_over("qwen_image_21", module, qwen_image_21.abstract(config), tmp_path)
    rng = np.random.default_rng(0)
    text, z = rng.normal(size=(2, 5, 24)).astype(np.float32), rng.normal(size=(2, 4, 4, 8)).astype(np.float32)
    t = np.array([0.3, 0.8], np.float32)
    network = wide.diffusers_velocity(module, lambda f: f)
    weights = {name: w.detach() for name, w in module.named_parameters()}
    theirs = network(weights, torch.tensor(text), None, torch.tensor(z), torch.tensor(t)).detach().numpy()
    denoiser = qwen_image_21.denoiser(config)
    cond = qwen_image_21.Condition(text, np.full(2, 5, np.int32))
    close(denoiser.velocity(params, denoiser.condition(params, cond), z, t), theirs)


def test_the_page_of_plans_is_what_the_plans_say(request):
    """docs/plan.md is made from docs/plans, and a command in it is one that can be given."""
    plan_matrix, docs = load(request, "plan_matrix"), request.config.rootpath / "docs"
    assert plan_matrix.page_of(docs) == (docs / "plan.md").read_text()
    for path in (docs / "plans").glob("*.json"):
        for made in json.loads(path.read_text()):
            words = shlex.split(made["command"])
            config = next(word for word in words if word.startswith("--config=")).removeprefix("--config=")
            assert words[:2] == ["flashjax", "plan"] and (docs.parent / config.partition(":")[0]).exists()


def test_configurations_say_of_memory_what_the_plans_say(request):
    """"43.8 of 88.5 GiB" in the docstring of a configuration is the total of one of its plans, and the chip's limit."""
    planned, told = {}, {}
    for path in (request.config.rootpath / "docs" / "plans").glob("[!s]*.json"):
        for made in json.loads(path.read_text()):
            name = made["command"].partition("--config=")[2].partition(".py")[0]
            figures = tuple(f"{made[part] / 2**30:.1f}" for part in ("total_bytes", "limit_bytes"))
            planned.setdefault(name, set()).add(figures)
    for name, plans in planned.items():
        text = (request.config.rootpath / f"{name}.py").read_text().split('"""')[1]
        told[name] = set(re.findall(r"([\d.]+)\s+of\s+(\d+\.\d)", text))
        assert told[name] and told[name] <= plans, name
    assert sorted(told) == [f"configs/{name}" for name in ("klein", "qwen_image", "qwen_image_21", "z_image")]


def test_a_matrix_of_plans(request):
    plan_matrix, gib = load(request, "plan_matrix"), 2**30
    program = dict(largest=[dict(bytes=gib, shape="f32[8]", knob="remat")], seconds=7.4, temporaries_bytes=2 * gib)
    program["links_bytes"] = {"all-gather": 3 * 2**20}
    calls = dict(student=dict(operations=0.1, memory=0.25, links=0.2))
    plan = dict(
        target="v6e:2x2", chips=4, mesh=dict(data=1, fsdp=4), fits=True, headroom=0.104, resident_bytes=26 * gib,
        temporaries_bytes=2 * gib, limit_bytes=31.25 * gib, total_bytes=28 * gib, refused={}, date="2026-01-02",
        command="flashjax plan --config=a.py --topology v6e:2x2", largest_program="student",
        programs=dict(student=program),
        seconds_of_a_call=calls,
    )  # fmt: skip
    refused = dict(student="40G wanted of 31G, 9G too much")
    too_much = plan | dict(fits=False, refused=refused, programs=dict(student={}))
    table = plan_matrix.matrix([plan, too_much])
    left = "fits, 10.4% of the memory left | 26.00 | 2.00 | 31.25 | 0.25 a call, memory | 7 s, student |"
    assert f"| 1 a | v6e:2x2 | fsdp 4 | {left}" in table and "1. student: 1.00 GiB f32[8] (remat); all-gather" in table
    assert "| 2 a | v6e:2x2 | fsdp 4 | does not fit |" in table and f"2. student: {refused['student']}" in table
    wide = plan | dict(target="v6e:4x4", chips=16)
    rows = plan_matrix.scaling([wide, plan]).splitlines()
    problem = dict(target="v6e:4x4", chips=16, fits=False, problem="A batch of 24 does not divide.\nA trace.")
    problem |= dict(command="flashjax plan --config=a.py --devices cpu:16 --config.mesh.fsdp=3", date="2026-01-02")
    table = plan_matrix.matrix([problem])
    assert "| 1 a | v6e:4x4 |  | does not fit: A batch of 24 does not divide. |  |" in table
    assert "\n1. A batch of 24 does not divide.\n" in table
    assert plan_matrix.scaling([wide, problem, plan]).splitlines()[:4] == rows[:4]
    assert plan_matrix.planned(problem | dict(command=problem["command"].replace("a.py", "configs/postcards.py"))) == [
        problem | dict(command=problem["command"].replace("a.py", "configs/postcards.py"))
    ]
    assert rows[0].endswith("all-gather, MiB |") and rows[2] == "| student | v6e:2x2 | fsdp 4 | 2048.000 | 3.000 |"
    both = [p | dict(programs=dict(critic=program, student=program)) for p in (wide, plan)] + [too_much]
    rows = plan_matrix.scaling(both).splitlines()[2:6]
    critic, student = ([f"| {name} | v6e:{size} |" for size in ("2x2", "4x4")] for name in ("critic", "student"))
    assert [row[: len(begins)] for row, begins in zip(rows, critic + student, strict=True)] == critic + student
