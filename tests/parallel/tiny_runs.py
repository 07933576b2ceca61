"""A DMD run in miniature on a faked pod: the programs that train.py compiles, with any denoiser on any mesh."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from flashjax import flow, models, optim
from flashjax.distill import guidance, schedule, steps
from flashjax.distill.state import TrainState
from flashjax.parallel import mesh as meshes
from flashjax.parallel import sharding
from flashjax.programs import compile_programs, run_row, step_call

ONE = dict(data=1, fsdp=1, context=1, tensor=1)
SIZE, BATCH, TOKENS = 16, 8, 6  # pixels, samples, tokens of text
# Z-Image's hidden width, int(width / 3 * 8), is even for widths that are multiples of 3.
SIZES = dict(qwen_image_21={}, qwen_image={}, flux2={}, z_image=dict(width=48, axes_dims=(8, 8, 8)))
RECIPE = steps.Recipe(
    grid=tuple(flow.time_grid(2, 3.0).tolist()), lambdas=guidance.lambda_table(2, 2),
    guidance_scales=(guidance.Scale(scales=(2.0,)),),
)  # fmt: skip
# Adam's first updates are lr in size wherever the gradient is not 0: what a mesh got wrong would be seen as that.
LR = 2e-4
OPTIM = ConfigDict(
    dict(kind="adamw", lr=LR, warmup=0, schedule="constant", b1=0.5, b2=0.99, weight_decay=0.01, clip=1.0)
    | dict(mu_dtype="float32")
)


def tiny(architecture: str, **changes):
    """(module, configuration): three layers, stacked and recomputed as on an accelerator."""
    model = models.architecture(architecture)
    fixed = dict(in_channels=48, scan_layers=True, remat="full")
    layers = dict(double_layers=3, single_layers=3) if architecture == "flux2" else dict(layers=3)
    return model, model.Config.tiny(**(fixed | layers | SIZES[architecture] | changes))


def table():
    return schedule.distillation_table(3, critic_rows=1, lambdas=RECIPE.lambdas[None], seed=0)


def draw(abstract, seed: int):
    """Weights at which every output is of order 1."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: (rng.normal(size=x.shape) * (x.shape[-2] ** -0.5 if x.ndim > 1 else 0.4)).astype(x.dtype), abstract
    )


def batch_of(config) -> dict:
    rng = np.random.default_rng(5)
    return dict(
        text=rng.normal(size=(BATCH, TOKENS, config.context_dim)).astype(np.float32),
        text_length=np.arange(BATCH, dtype=np.int32) % TOKENS + 1, category=np.arange(BATCH, dtype=np.int32) % 2,
    )  # fmt: skip


class Run:
    """State, teachers, programs of one architecture on one mesh."""

    def __init__(self, architecture: str, mesh_sizes: dict, micro_batches: int = 1, **changes):
        model, config = tiny(architecture, **changes)
        self.mesh, self.table = meshes.make_mesh(ONE | mesh_sizes), table()
        optimizers = [sharding.divided(optim.make_optimizer(OPTIM, 10), self.mesh) for _ in range(2)]
        student, critic, teacher = (draw(model.abstract(config), seed) for seed in range(3))
        state = TrainState.create(student, *optimizers, critic)
        self.state, self.teachers = jax.device_put(
            (state, (teacher,)), sharding.shardings((state, (teacher,)), self.mesh)
        )
        self.shapes = sharding.with_shapes(self.state, self.mesh)
        batch = batch_of(config)
        null = model.Condition(jnp.asarray(batch["text"][:1, :2] / 2), jnp.full((1,), 2, jnp.int32))
        self.batch = meshes.put_batch(batch, self.mesh)
        settings = ConfigDict(dict(seed=0, micro_batches=micro_batches, teacher_memory="device"))
        call = partial(
            step_call, config=settings, model=model, denoiser=model.denoiser(config), recipe=RECIPE, table=self.table,
            nulls=(null,), size=SIZE, student_optimizer=optimizers[0], critic_optimizer=optimizers[1],
        )  # fmt: skip
        begin = next(program for program in self.table.programs() if program.phase == schedule.BEGIN)
        example = self.state, self.teachers, {0: self.batch}
        self.carry = jax.eval_shape(partial(call, program=begin), *example[:2], self.batch, None, np.int32(0))
        self.programs = compile_programs(self.table, call, example, self.mesh)

    def program(self, phase: int):
        return next(compiled for program, compiled in self.programs.items() if program.phase == phase)

    @functools.cached_property
    def finished(self) -> dict[str, np.ndarray]:
        """The state after every row of the table, by path. The first one is used up."""
        state = self.state
        for step in range(len(self.table)):
            state, _ = run_row(self.programs, self.table, step, state, self.teachers, self.batch)
        return {jax.tree_util.keystr(p): np.asarray(x) for p, x in jax.tree_util.tree_leaves_with_path(state)}
