"""The programs of a step table: what each one computes, how they are compiled, and how a row of the table runs."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from flashjax import axes
from flashjax.data import records
from flashjax.distill import schedule, steps
from flashjax.distill.trajectory import trajectory_step
from flashjax.errors import UserError
from flashjax.models import editing, held, latents, lora
from flashjax.parallel import memory
from flashjax.parallel import mesh as meshes


def step_call(
    state, teachers, batch, carry, k, *, program, config, model, denoiser, recipe, table, nulls, size,
    student_optimizer, critic_optimizer, adapted=None, autoencoder=latents.PIXELS, reference_at=(),
):  # fmt: skip
    """A program of the table on a loader's batch: unpacks the batch and calls the pure step of the program's phase.

    ``carry`` is the student's (context, z): made by "begin", moved by "advance", used up by "student" and "critic".
    ``adapted``: how the roles of the state adapt ``teachers[0]`` (lora.Lora), or None where they are whole. Teachers
    behind the first may be adapters of it, of the same scale, or of 1.
    ``size``: pixels a side of the pictures, which ``autoencoder`` (latents.Latents) turns into tokens.
    ``reference_at``: where the text of an edit mentions its pictures (editing.condition).
    """
    teachers = tuple(held.readable(teacher, config.teacher_memory) for teacher in teachers)
    if adapted is not None or any(map(lora.is_adapter, teachers)):
        denoiser = lora.denoiser(denoiser, teachers[0], adapted.scale if adapted else 1.0)
    key = jax.random.key(config.seed)
    sources = records.sources(batch)
    cond = editing.condition(model, batch["text"], batch["text_length"], sources, autoencoder, reference_at)
    if "null" in batch:  # of edits that a released encoder read: every sample has its own
        nulls = (model.Condition(batch["null"], batch["null_length"]),) * max(len(teachers), 1)
    nulls = tuple(editing.null_condition(model, null, cond) for null in nulls)
    optimizers = dict(critic_optimizer=critic_optimizer)
    if recipe is not None:
        recipe = dataclasses.replace(
            recipe, lambdas=table.lambdas_at(state.step), micro_batches=config.micro_batches
        )
    match program.phase:
        case schedule.FLOW_MATCHING:
            return steps.flow_matching_step(
                state, autoencoder.encode(batch["image"]), cond, nulls[0], key, denoiser=denoiser,
                optimizer=student_optimizer, times=steps.TimeSampler(**config.times), drop_rate=config.drop_rate,
                ema_decay=config.ema_decay, parts=config.micro_batches,
            )  # fmt: skip
        case schedule.BEGIN:
            noise_like = jax.ShapeDtypeStruct((len(batch["text"]), *autoencoder.shape(size)), jnp.float32)
            context, z = steps.begin(state.student.params, state.step, noise_like, cond, key, denoiser=denoiser)
            return context, axes.tokens(z)  # else every device would draw and keep the whole batch's noise
        case schedule.ADVANCE:
            context, z = carry
            z = steps.advance(
                state.student.params, state.step, context, z, k, key, recipe=recipe, denoiser=denoiser
            )
            return context, z
        case schedule.CRITIC:
            return steps.critic_step(state, *carry, k, cond, key, recipe=recipe, denoiser=denoiser, **optimizers)
        case schedule.TRAJECTORY:
            return trajectory_step(
                state, teachers, carry[1], k, cond, nulls, batch["category"], active=program.active, recipe=recipe,
                denoiser=denoiser, student_optimizer=student_optimizer,
            )  # fmt: skip
        case schedule.STUDENT:
            return steps.student_step(
                state, teachers, carry[1], k, cond, nulls, batch["category"], key, active=program.active,
                recipe=recipe, denoiser=denoiser, student_optimizer=student_optimizer, **optimizers,
            )  # fmt: skip


def compile_one(lowered, program: schedule.Program):
    """Raises UserError for a program that the compiler refuses, as its devices have too little memory."""
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if not memory.is_refusal(error):
            raise
        wanted = memory.how_much(str(error))
        raise UserError(f"The program {program} does not fit: {wanted}; {memory.MEND_PROGRAM}") from error


def compile_programs(
    table: schedule.StepTable, call, example, mesh: Mesh, finish=compile_one, at_once=2, only=lambda program: True
) -> dict:
    """Every program of the table, compiled ahead of the loop; two at once, as XLA compiles outside Python's lock.

    ``example``: state, teachers, and for each task a batch; arrays or shapes with shardings. A program finds them so
    and leaves the next state so. The rollout's beginnings come first: where they put the student's context is where the
    other programs find it. ``finish`` compiles what was lowered; a plan keeps what the compiler refuses, and may want
    beginnings and ``only`` some of the others.
    """
    (state, teachers, batches), k, replicated = example, np.int32(0), meshes.replicated(mesh)
    state_at, teachers_at, batches_at = jax.tree.map(lambda leaf: leaf.sharding, example)

    def build(program, carry=None, carry_sharding=None):
        rolls = program.phase in (schedule.BEGIN, schedule.ADVANCE)
        jitted = jax.jit(
            partial(call, program=program),
            donate_argnums={schedule.BEGIN: (), schedule.ADVANCE: 3}.get(program.phase, 0),
            in_shardings=(state_at, teachers_at, batches_at[program.task], carry_sharding, replicated),
            out_shardings=carry_sharding if rolls else (state_at, replicated),
        )
        with jax.set_mesh(mesh):  # in the thread that traces: flashjax.axes asks for it
            return finish(jitted.lower(state, teachers, batches[program.task], carry, k), program)

    wanted = [p for p in table.programs() if p.phase == schedule.BEGIN or only(p)]
    begins = [p for p in wanted if p.phase == schedule.BEGIN]
    programs = {p: build(p) for p in begins}
    carries = {
        p.task: (
            jax.eval_shape(partial(call, program=p), state, teachers, batches[p.task], None, k),
            programs[p].output_shardings,
        )
        for p in begins
    }
    with ThreadPoolExecutor(at_once) as pool:
        others = [p for p in wanted if p not in programs]
        built = pool.map(lambda p: build(p, *carries.get(p.task, ())), others)
        programs |= dict(zip(others, built, strict=True))
    return {program: programs[program] for program in wanted}


def run_row(programs: dict, table: schedule.StepTable, step: int, state, teachers, batch):
    """One row of the table: the student rolls out to its step k, then the row's program updates the state."""
    carry = None
    for i, program in enumerate(table.rollout(step)):
        carry = programs[program](state, teachers, batch, carry, np.int32(i - 1))
    return programs[table.program(step)](state, teachers, batch, carry, np.int32(table.k[step]))
