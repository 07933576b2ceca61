"""What a run needs of a pod, before there is one: its programs compiled for a TPU topology, on any machine.

No weights, no data, no TPU: shapes and libtpu's compiler. Programs are those that ``train`` would compile.
"""

import collections
import contextlib
import dataclasses
import math
import os
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh
from ml_collections import ConfigDict

from flashjax import cost, hlo, models, optim, settings
from flashjax.axes import AXES
from flashjax.data.manifest import read_manifest
from flashjax.data.records import source_key
from flashjax.distill import schedule
from flashjax.distill.state import TrainState
from flashjax.errors import Indivisible, UserError, about_settings
from flashjax.models import latents, lora
from flashjax.parallel import chips, memory, sharding
from flashjax.parallel import mesh as meshes
from flashjax.programs import compile_programs, step_call
from flashjax.recipe import make_recipe, make_table, teacher_names
from flashjax.train import make_optimizers
from flashjax.weights import frozen_forms

EMPTY_PROMPT = 2  # tokens of text of a teacher without a negative prompt: the encoder's first and last
# How hard the compiler tries. "least" takes a third of the time of "usual", which is how ``train`` compiles, and leaves
# a program that is slower and keeps more temporaries: docs/plan.md.
EFFORTS = dict(least=dict(exec_time_optimization_effort=-1.0), usual=None)
BOUNDS = ("operations", "memory", "links", "host")
DIMENSIONS = dict(v5e=2, v6e=2, v5p=3, tpu7x=3)  # of a topology's name


@dataclasses.dataclass(frozen=True)
class Target:
    """Where the run would be. ``chip`` is None for CPUs; ``devices``: what JAX would see, None if not compiled for;
    ``taken``: how many of them the run's mesh takes, all where None."""

    name: str
    chip: chips.Chip | None
    chips: int
    devices: Any = None
    taken: int | None = None

    @property
    def count(self) -> int:
        """Devices as JAX counts them."""
        return self.chips * (self.chip.devices if self.chip else 1)

    @property
    def working(self) -> float:
        """Chips that compute; the others are there, and paid for, all the same."""
        return self.chips * (self.taken or self.count) / self.count


def topology(name: str) -> Target:
    """The target of a TPU topology as in "v5p:2x2x2". Raises UserError where there is none such, and without libtpu."""
    generation, _, sides = name.partition(":")
    chip = chips.named(generation)
    if chip.name not in DIMENSIONS:
        raise UserError(f"{chip.name} is no TPU; write --devices gpu:8x{chip.name} for eight of them.")
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", sides) or sides.count("x") + 1 != DIMENSIONS[chip.name]:
        raise UserError(
            f"{name!r} is no topology: {chip.name} is laid out in {DIMENSIONS[chip.name]} dimensions, as in "
            f"{_small(chip.name)}."
        )
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # else libtpu asks a metadata server for the TPU that is not here
    # Else a second plan on a machine is refused: libtpu keeps others from the TPU that is not here.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    # Else it tells in nine lines that it does not know where it is.
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v6e-4")
    from jax.experimental import topologies

    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=f"{chip.name}:{sides}")
    except (RuntimeError, NotImplementedError) as error:
        if "TPU support not installed" in str(error):
            raise UserError(
                "Planning for TPUs needs libtpu's compiler (no TPU): pip install 'flashjax[plan]'."
            ) from error
        raise UserError(f"The compiler knows no topology {name}: {str(error).splitlines()[0]}") from error
    count = math.prod(map(int, sides.split("x")))
    return Target(f"{chip.name}:{sides}", chip, count, found.devices)


def devices(name: str) -> Target:
    """The target of "gpu:8xh200" or "cpu:8", which is counted and not compiled for. Raises UserError."""
    kind, _, rest = name.partition(":")
    many, _, chip = rest.partition("x")
    if kind not in ("gpu", "cpu") or not many.isdigit() or not int(many) or (kind == "gpu") != bool(chip):
        raise UserError(f"--devices {name} is not understood; write gpu:8xh200 or cpu:8.")
    named = chips.named(chip) if chip else None
    if named and named.name in DIMENSIONS:
        raise UserError(
            f"{named.name} is no GPU; write --topology {_small(named.name)} or larger, for which programs are compiled."
        )
    return Target(name, named, int(many))


def _small(generation: str) -> str:
    """A topology of a generation of TPUs, as one writes it."""
    return f"{generation}:{'x'.join('2' * DIMENSIONS[generation])}"


@dataclasses.dataclass(frozen=True)
class Laid:
    """A run on a target before anything is compiled: what ``train`` would call, its shapes with their shardings (state,
    teachers, a batch of each task), and what its programs compute."""

    target: Target
    mesh: Any
    table: schedule.StepTable
    call: Callable
    example: tuple
    counted: cost.Cost


def plan_all(
    config: ConfigDict, targets: Sequence[Target], effort: str, only: str, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """The ``plan`` of each target; all are laid out before the first is compiled. Of several, one over which the run
    does not divide, or for which the compiler fails, is an answer like the others, with its ``problem`` (``failed``)
    in place of figures. One alone raises as ``lay_out`` and ``plan`` do."""
    if len(targets) == 1:
        return [plan(lay_out(config, targets[0], only), effort, only, tell)]
    laid = [attempt(target, lay_out, config, target, only) for target in targets]
    return [
        attempt(target, plan, there, effort, only, tell) if isinstance(there, Laid) else there
        for target, there in zip(targets, laid, strict=True)
    ]


def attempt(target: Target, work: Callable, *args: Any) -> Any:
    """What the work gives, or what there is to say of a target on which it fails."""
    try:
        return work(*args)
    except Indivisible as error:
        return failed(target, False, str(error))
    except jax.errors.JaxRuntimeError as error:  # what does not fit is no error of ``plan``: whether it would is open
        return failed(target, None, f"The compiler fails: {error}")


def failed(target: Target, fits: bool | None, problem: str) -> dict[str, Any]:
    return dict(target=target.name, chips=target.chips, fits=fits, problem=problem)


def lay_out(config: ConfigDict, target: Target, only: str = "") -> Laid:
    """The run on the target. Raises UserError for settings that no run can have, and for an ``only`` that finds none of
    its programs; Indivisible for settings that it cannot have on this target."""
    with about_settings():
        settings.check_settings(config)
        recipe = make_recipe(config.distill) if config.objective != "flow_matching" else None
        table = make_table(config, recipe)
        check_only(only, table)
        if target.devices is None:
            mesh = AbstractMesh(meshes.mesh_sizes(config.mesh, target.count), AXES)
        else:
            mesh = meshes.make_mesh(config.mesh, target.devices)
    model = models.architecture(config.model.architecture)
    model_config = models.make_config(model, config.model)
    latents.check(config, model_config.in_channels)
    tokens = latents.of(config).tokens(config.image_size)
    fits = dict(batch=config.batch_size, parts=config.micro_batches, heads=model_config.heads, tokens=tokens)
    meshes.check_fits(mesh, **fits)
    call, example = programs_of(config, mesh, model, model_config, recipe, table)
    counted = cost.Cost(
        config.model.architecture, model_config, recipe, batch=config.batch_size,
        sizes=cost.sizes_of(config, example[2]), nulls=null_tokens(config), own_nulls=cost.own_nulls(example[2]),
    )  # fmt: skip
    return Laid(dataclasses.replace(target, taken=mesh.size), mesh, table, call, example, counted)


def plan(laid: Laid, effort: str, only: str, tell: Callable[[str], None]) -> dict[str, Any]:
    """What the run needs on its target, as numbers with their units in the names. ``effort``: one of ``EFFORTS``;
    ``only``: a regex that finds the names of the programs to compile; ``tell`` hears of every one that is. Raises
    JaxRuntimeError where the compiler fails, which is not where it refuses what does not fit."""
    target, mesh, table, example = laid.target, laid.mesh, laid.table, laid.example
    resident = sum(map(memory.bytes_on_device, jax.tree.leaves(example)))
    compiled = compile_all(table, laid.call, example, mesh, effort, only, tell) if target.devices is not None else {}
    left_out = [program for program in table.programs() if compiled and str(program) not in compiled]
    # What rolls the student out needs less than what trains.
    decides = all(program.phase in (schedule.BEGIN, schedule.ADVANCE) for program in left_out)
    return dict(
        target=target.name, chips=target.chips, mesh=dict(mesh.shape),
        parameters=optim.parameter_count(example[0].student.params), teachers=len(example[1]),
        left_out=[str(program) for program in left_out], **fit(target, resident, compiled, decides),
        **speed(target, table, laid.counted, compiled),
    )  # fmt: skip


def check_only(only: str, table: schedule.StepTable) -> None:
    """Raises UserError for a regex that is none, or finds no program."""
    names = [str(program) for program in table.programs()]
    try:
        found = any(re.search(only, name) for name in names)
    except re.error as error:
        raise UserError(f"--programs {only!r} is no regular expression: {error}.") from error
    if not found:
        raise UserError(f"--programs {only!r} finds none of this run's programs, which are {'; '.join(names)}.")


def programs_of(config: ConfigDict, mesh: Any, model: Any, model_config: Any, recipe: Any, table: Any):
    """(what ``train`` calls, its shapes with their shardings: state, teachers, a batch of each task)."""
    names = teacher_names(config.distill) if recipe else ()
    whole, adapted = model.abstract(model_config), lora.of(config)
    params = lora.form(adapted, whole) if adapted else whole  # what is trained
    student, critic = (sharding.divided(o, mesh) if o else None for o in make_optimizers(config, table))
    state = jax.eval_shape(partial(TrainState.create, student_optimizer=student, critic_optimizer=critic), params)
    teachers = frozen_forms(config, whole, mesh, [config.distill.teachers[name].get("weights", "") for name in names])
    pictures = settings.edited(config, manifests_there(config))
    nulls = tuple(
        model.Condition(np.zeros((1, n, model_config.context_dim), np.float32), np.full((1,), n, np.int32))
        for n in null_tokens(config)
    )
    call = partial(
        step_call, config=config, model=model, denoiser=model.denoiser(model_config), recipe=recipe, table=table,
        nulls=nulls, size=config.image_size, student_optimizer=student, critic_optimizer=critic,
        adapted=adapted, autoencoder=latents.of(config), reference_at=pictures.reference_at,
    )  # fmt: skip
    width, rows = model_config.context_dim, meshes.batch_sharded(mesh)
    batches = {task: batch_shapes(config, task, width, pictures, rows) for task in sorted(set(table.task.tolist()))}
    return call, (sharding.with_shapes(state, mesh), teachers, batches)


def batch_shapes(config: ConfigDict, task: int, width: int, pictures: settings.Edited, rows: Any) -> dict[str, Any]:
    """What the loader gives of a task. Edits that a released encoder read, which are latents, bring their own null."""
    autoencoder, tokens = latents.of(config), config.max_text_tokens
    shapes = dict(text=(tokens, width), text_length=(), category=())
    if config.objective == "flow_matching":
        shapes["image"] = autoencoder.record_shape(config.image_size)
    if task:
        source = autoencoder.record_shape(pictures.size)
        shapes |= {source_key(n): source for n in range(1, 1 + pictures.sources)}
        shapes |= dict(null=(tokens, width), null_length=()) if autoencoder.module else {}
    types = dict(text_length=jnp.int32, null_length=jnp.int32, category=jnp.int32)
    return {
        name: jax.ShapeDtypeStruct((config.batch_size, *shape), types.get(name, jnp.float32), sharding=rows)
        for name, shape in shapes.items()
    }


def manifests_there(config: ConfigDict) -> dict[str, dict]:
    """Of the sources that are there already: a plan needs none."""
    paths = {name: Path(source.path) for name, source in config.sources.items()}
    return {name: read_manifest(path) for name, path in paths.items() if path.is_file()}


def null_tokens(config: ConfigDict) -> tuple[int, ...]:
    """Text tokens of each teacher's negative condition: a written one may be as long as any text, and all of FLUX.2's
    are, whose padding the denoiser reads."""
    if config.objective == "flow_matching":
        return (config.max_text_tokens,)
    named = (config.distill.teachers[name] for name in teacher_names(config.distill))
    padded = config.model.architecture == "flux2"
    return tuple(
        config.max_text_tokens if padded or teacher.get("negative", "") else EMPTY_PROMPT for teacher in named
    )


def compile_all(
    table: schedule.StepTable, call: Any, example: Any, mesh: Any, effort: str, only: str, tell: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """For each program, by name: what ``measured`` gives, and the ``seconds`` of its compilation; what does not fit has
    ``refused``, the compiler's own words. One at a time: each takes gigabytes, and this is seldom a large machine."""

    def finish(lowered, program):
        begun = time.monotonic()
        try:
            done = lowered.compile(compiler_options=EFFORTS[effort])
        except jax.errors.JaxRuntimeError as error:
            if not memory.is_refusal(error):
                raise
            done = Refused(str(error))
        seconds = time.monotonic() - begun
        tell(f"{program}: {'refused' if isinstance(done, Refused) else 'compiled'} in {seconds:.0f} s")
        found[str(program)] = measured(done, mesh.size) | dict(seconds=seconds)
        return done

    found = {}
    with contextlib.suppress(BeginRefused):
        compile_programs(
            table, call, example, mesh, finish, at_once=1, only=lambda program: re.search(only, str(program))
        )
    return found


class BeginRefused(Exception):
    """The student's beginning does not fit: where it leaves its context is not known, so nothing else can compile."""


class Refused:
    """What stands in a program's place that does not fit."""

    def __init__(self, words: str):
        self.words = words

    @property
    def output_shardings(self):
        raise BeginRefused


def measured(done: Any, devices: int) -> dict[str, Any]:
    """Of one of the devices and one call: memory beside the arguments, bytes over links, to and from the device's
    memory, from and to the host's."""
    if isinstance(done, Refused):
        return dict(refused=done.words)
    m, program = done.memory_analysis(), hlo.parse(done.as_text())
    # What is donated becomes a result; other results come on top.
    return dict(
        arguments_bytes=m.argument_size_in_bytes, code_bytes=m.generated_code_size_in_bytes,
        temporaries_bytes=m.temp_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes,
        links_bytes=hlo.links(*program, devices), traffic_bytes=hlo.traffic(*program), host_bytes=hlo.host(*program),
        largest=hlo.largest(*program),
    )  # fmt: skip


def fit(target: Target, resident: int, compiled: dict[str, dict[str, Any]], decides: bool = True) -> dict[str, Any]:
    """Of the program that needs most: what is there all along, its temporaries, and what is left of a device.
    ``decides``: whether what needs most is among what is compiled. ``fits`` is None where it is not, or where nothing
    is compiled, and what is known does not decide."""
    limit = target.chip.hbm / target.chip.devices if target.chip else None
    refused = {name: memory.how_much(found["refused"]) for name, found in compiled.items() if "refused" in found}
    done = {name: found for name, found in compiled.items() if "refused" not in found}
    # A program's own arguments have its student's context and the padding of tiles, and lack the teachers that others
    # use; the larger of the two has nearly all.
    needs = {
        name: (max(resident, f["arguments_bytes"]), f["temporaries_bytes"] + f["code_bytes"])
        for name, f in done.items()
    }
    largest = max(needs, key=lambda name: sum(needs[name]), default=None)
    resident, extra = needs.get(largest, (resident, None))
    total = resident + (extra or 0)
    fits = None
    if limit is not None and (refused or total > limit):
        fits = False
    elif limit is not None and compiled and decides:
        fits = True
    return dict(
        fits=fits, largest_program=largest, resident_bytes=resident, temporaries_bytes=extra, total_bytes=total,
        limit_bytes=limit, headroom=1 - total / limit if limit else None, refused=refused, programs=compiled,
    )  # fmt: skip


def speed(target: Target, table: schedule.StepTable, counted: cost.Cost, compiled: dict[str, Any]) -> dict[str, Any]:
    """Operations by role of the run and of a cycle (what belongs to one update of the student), the time that they take
    at the chips' peak, and the least time of programs that are compiled, of a cycle where all are: each takes as long
    as the slowest of its operations, its memory and its links, if these overlap perfectly."""
    calls = collections.Counter(p for i in range(len(table)) for p in (*table.rollout(i), table.program(i)))
    run = cost.total({role: n * value for role, value in counted.program(p).items()} for p, n in calls.items())
    cycles = int((table.phase != schedule.CRITIC).sum())
    out = dict(rows=len(table), cycles=cycles, flops_of_a_cycle={role: value / cycles for role, value in run.items()})
    if target.chip:
        seconds = sum(run.values()) / target.chip.flops / target.working
        out |= dict(cycle_seconds_at_peak=seconds / cycles, chip_hours_at_peak=seconds * target.chips / 3600)
    bounds = {
        str(p): roofline(target, sum(counted.program(p).values()), compiled[str(p)])
        for p in calls
        if "refused" not in compiled.get(str(p), dict(refused=""))
    }
    out |= dict(seconds_of_a_call=bounds)
    if len(bounds) == len(calls):
        seconds = sum(n * max(bounds[str(p)].values()) for p, n in calls.items())
        moved = {of: collections.Counter() for of in ("links_bytes", "host_bytes")}
        for of, counted_bytes in moved.items():
            for p, n in calls.items():
                counted_bytes.update({kind: n * bytes_ / cycles for kind, bytes_ in compiled[str(p)][of].items()})
        out |= dict(
            least_cycle_seconds=seconds / cycles, **{f"{of}_of_a_cycle": dict(counts) for of, counts in moved.items()},
            least_chip_hours=seconds * target.chips / 3600, cycle_seconds_by_bound={
                what: sum(n * bounds[str(p)][what] for p, n in calls.items()) / cycles for what in BOUNDS
            },
        )  # fmt: skip
    return out


def roofline(target: Target, flops: float, program: dict[str, Any]) -> dict[str, float]:
    """Seconds that a call needs for its operations, its memory, its links and its host, each alone. What comes from the
    host and what goes there share nothing; of a chip whose speed to its host is not known it is left out."""
    chip, part = target.chip, 1 / target.chip.devices
    return dict(
        operations=flops / target.working / chip.flops, memory=program["traffic_bytes"] / (chip.bandwidth * part),
        links=sum(program["links_bytes"].values()) / (chip.links * part),
        host=max(program["host_bytes"].values()) / (chip.host * part) if chip.host else 0.0,
    )  # fmt: skip
