"""A pod computes what one device does, and no device holds more than its part."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import LR, ONE, Run, batch_of, draw, tiny

from flashjax import models, paths
from flashjax.distill import schedule
from flashjax.parallel import mesh as meshes
from flashjax.parallel import sharding

ALL = dict(fsdp=2, context=2, tensor=2)
MESHES = dict(data=dict(data=8), fsdp=dict(fsdp=8), all=ALL, parts=dict(fsdp=2, context=2))
PARTS = dict(parts=4)  # micro-batches: of its four rows, a device takes one at a time


@functools.cache
def run(name: str, architecture: str = "qwen_image_21") -> Run:
    return Run(architecture, MESHES.get(name, {}), PARTS.get(name, 1))


@pytest.mark.parametrize(
    "name", ["all", *(pytest.param(name, marks=pytest.mark.long) for name in ("data", "fsdp", "parts"))]
)
def test_three_cycles_are_those_of_one_device(name):
    """Three student and three critic rows, with the shared updates: sums are taken in another order, and no more."""
    expected, found = run("one").finished, run(name).finished
    worst = {path: float(np.abs(found[path] - x).max()) for path, x in expected.items()}
    assert max(worst.values()) < 1e-5 < LR / 10, max(worst.items(), key=lambda item: item[1])


@pytest.mark.parametrize("phase", [schedule.STUDENT, schedule.CRITIC])
@pytest.mark.parametrize("name", ["all", "fsdp", pytest.param("parts", marks=pytest.mark.long)])
def test_a_state_is_updated_where_it_is(name, phase):
    """The next state takes the place of the last one, to the byte, and lies as it did."""
    made = run(name)
    compiled = made.program(phase)
    local = [math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(made.shapes)]
    assert compiled.memory_analysis().alias_size_in_bytes == sum(local)
    for shape, where in zip(
        jax.tree.leaves(made.shapes), jax.tree.leaves(compiled.output_shardings[0]), strict=True
    ):
        assert where.is_equivalent_to(shape.sharding, shape.ndim)


OTHERS = [name for name in models.ARCHITECTURES if name != "qwen_image_21"]


@pytest.mark.parametrize(
    ("name", "architecture"),
    [("fsdp", "qwen_image_21"), ("all", "qwen_image_21")]
    + [pytest.param("fsdp", other, marks=pytest.mark.long) for other in OTHERS],  # programs of their own
)
def test_nothing_whole_is_in_the_programs(name, architecture):
    """Neither a stack of layers (gathered, or its gradient, or a moment) nor a modulation matrix, even of one layer,
    appears in its full size in a device's program; a single layer's other matrices do, when they are used."""
    model, config = tiny(architecture)
    kernels = {path: x.shape for path, x in paths.flatten(model.abstract(config)).items() if path.endswith("/kernel")}
    by_t = {path for path in kernels if re.fullmatch(r"(.*/)?(mod|modulation\w*)/kernel", path)}
    whole = {shape for shape in kernels.values() if len(shape) == 3 and shape[0] > 1}
    layers = {shape[1:] for path, shape in kernels.items() if shape in whole and path not in by_t}
    together = {(rows, 3 * rows) for rows, columns in layers if rows == columns}  # query, key and value
    # Of FLUX.2 in miniature nothing is left of them: all are of another matrix's size.
    whole |= {kernels[path][-2:] for path in by_t} - layers - together
    used = set()
    for phase in (schedule.STUDENT, schedule.CRITIC, schedule.BEGIN, schedule.ADVANCE):
        text = run(name, architecture).program(phase).as_text()
        found = {tuple(map(int, dims.split(","))) for dims in re.findall(r"f32\[([\d,]+)\]", text)}
        assert not found & whole, phase
        used |= found & layers
    assert used or name != "fsdp", "a kernel, gathered for one layer"


@pytest.mark.long
@pytest.mark.parametrize("phase", [schedule.STUDENT, schedule.CRITIC])
def test_micro_batches_sum_gradients_up_where_they_lie(phase):
    """In no device's program is there a whole stack of layers, nor the sum of its gradients."""
    made = run("parts")
    text = made.program(phase).as_text()
    stacks = {x.shape for x in jax.tree.leaves(made.shapes.student.params["blocks"]) if x.ndim == 3}
    assert not {tuple(map(int, dims.split(","))) for dims in re.findall(r"f32\[([\d,]+)\]", text)} & stacks


def test_the_rollout_is_divided():
    """The student's context (keys and values) and its state: no device has them whole."""
    made = run("all")
    context, z = made.program(schedule.ADVANCE).output_shardings
    shapes = made.carry
    for shape, where in zip(jax.tree.leaves(shapes), jax.tree.leaves((context, z)), strict=True):
        if shape.ndim > 2:
            assert math.prod(where.shard_shape(shape.shape)) * 2 <= shape.size, (shape, where)


@pytest.mark.long  # eight programs, half of them for eight devices; the whole runs above cover qwen_image_21
@pytest.mark.parametrize("architecture", models.ARCHITECTURES)
def test_every_denoiser_on_all_axes(architecture):
    """Velocity and gradients of every denoiser, with a batch, which has two pictures to edit where there is such a
    thing, and a null condition of one."""
    model, config = tiny(architecture)
    denoiser, batch = model.denoiser(config), batch_of(config)
    params = draw(model.abstract(config), 0)
    rng, has = np.random.default_rng(1), model.Condition.__annotations__
    z, *pictures = (rng.normal(size=(8, *size, 48)).astype(np.float32) for size in ((4, 4), (4, 2), (3, 2)))
    placed = (dict(reference_at=(2, 5)) if "reference_at" in has else {}) if "references" in has else None

    def loss(params, text, z, *pictures):
        edited = {} if placed is None else dict(references=pictures, **placed)
        cond = model.Condition(text, batch["text_length"], **edited)
        null = model.Condition(jnp.asarray(batch["text"][:1, :2]), jnp.full((1,), 2, jnp.int32))
        t = jnp.linspace(0.1, 0.9, 8)
        v = [denoiser.velocity(params, denoiser.condition(params, c), z, t) for c in (cond, null)]
        return jnp.mean((v[0] - 0.3 * v[1]) ** 2), v

    results = []
    for sizes in ({}, ALL):
        mesh = meshes.make_mesh(ONE | sizes)
        where, by_batch = sharding.shardings(params, mesh), meshes.batch_sharded(mesh)
        with jax.set_mesh(mesh):
            f = jax.jit(jax.value_and_grad(loss, has_aux=True), in_shardings=(where, *(by_batch,) * 4))
            results.append(jax.tree.map(np.asarray, f(params, batch["text"], z, *pictures)))
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(np.abs(a).max(), 1))
