"""What a DMD cycle costs (one student update and five of the critic): counted, and timed against plain PyTorch.

    python benchmarks/dmd_cycle.py [--cycles 3] [--batch 24] [--keep-memory] [--json FILE]

At the quickstart's size (configs/postcards.py). Ways to run the cycle: flashjax as configured, flashjax with no
sample shared (each critic update makes a rollout of its own), and benchmarks/plain_torch.py; and flashjax with the
factors of its matrix products rounded (config.model.products). The random weights and texts do not matter to the cost.
``--layers`` cuts the network's depth for a quick look; its times mean nothing then.
"""

import argparse
import copy
import json
import os
import platform
import statistics
import tempfile
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import plain_torch
import torch
from flax import struct
from safetensors.torch import load_file

from flashjax import config as configs
from flashjax import convert, flow, models, programs, train
from flashjax.distill import schedule, steps
from flashjax.distill.state import Role, TrainState
from flashjax.host import keep_memory
from flashjax.models import latents
from flashjax.models import qwen_image_21 as qwen
from flashjax.parallel import mesh as meshes
from flashjax.parallel import sharding

IMAGE, NULL_TOKENS, CRITIC_UPDATES = (8, 8), 2, 5
CONFIG = Path(__file__).parent.parent / "configs" / "postcards.py"


# -- What a network evaluation costs ---------------------------------------------------------------------------------


def block_flops(c: qwen.Config, queries: int, keys: int) -> int:
    """Products of one block on one sample: q, k, v, out (4 d^2), the MLP (3 d hidden), scores and sum (2 keys d)."""
    return 2 * queries * (4 * c.width**2 + 3 * c.width**2 * c.mlp_ratio + 2 * keys * c.width)


def condition_flops(c: qwen.Config, prefix: int) -> int:
    """All blocks over the prefix, but of the last one only k and v: nobody asks for more."""
    text_in = 2 * prefix * (c.context_dim * c.width + c.width**2)
    return text_in + (c.layers - 1) * block_flops(c, prefix, prefix) + 2 * prefix * 2 * c.width**2


def velocity_flops(c: qwen.Config, prefix: int, target: int) -> int:
    """All blocks over the target, its way in and out, and the modulation (once a sample)."""
    ends = 2 * target * 2 * c.in_channels * c.width + 2 * (256 * c.width + (1 + 4 + 1) * c.width**2)
    return ends + c.layers * block_flops(c, target, prefix + target)


# -- Counting: the real steps are traced with a denoiser that keeps a ledger -----------------------------------------


@struct.dataclass
class Named:
    """Parameters that know whose they are."""

    params: dict
    owner: str = struct.field(pytree_node=False)


def counted(denoiser: flow.Denoiser, config: qwen.Config, full: bool, ledger: Counter) -> flow.Denoiser:
    """``denoiser``, entering what it computes in the ledger, in forward-equivalents of a sample, under (owner, passes).

    A forward pass counts 1, with its backward pass 3; a backward pass counts if its cotangent really arrives.
    ``full``: each velocity stands for a whole evaluation with the longest prompt and conditions for nothing, the cost
    of code that shares no contexts.
    """
    whole = condition_flops(config, 28) + velocity_flops(config, 28, 64)

    def mark(out, cost, owner):
        @jax.custom_vjp
        def through(out):
            return out

        def backward(_, cotangent):
            ledger[owner, "forward"] -= cost
            ledger[owner, "forward + backward"] += 3 * cost
            return (cotangent,)

        through.defvjp(lambda out: (out, None), backward)
        ledger[owner, "forward"] += cost
        return through(out)

    def condition(named, cond):
        cost = 0 if full else len(cond.text) * condition_flops(config, cond.text.shape[1]) / whole
        context = denoiser.condition(named.params, cond)
        return context.replace(layers=mark(context.layers, cost, named.owner))

    def velocity(named, context, z, t):
        cost = 1 if full else velocity_flops(config, context.valid.shape[1], z.shape[1] * z.shape[2]) / whole
        return mark(denoiser.velocity(named.params, context, z, t), len(z) * cost, named.owner)

    return flow.Denoiser(condition, velocity)


def count(config: qwen.Config, recipe: steps.Recipe, critic_rows: int, batch: int, full: bool) -> dict[str, float]:
    """Forward-equivalents of a cycle, averaged over the student's steps, by part."""
    shallow = replace(config, layers=1)  # depth changes the cost of a call, not the calls
    params, optimizer, key = qwen.abstract(shallow), optax.sgd(0.1), jax.eval_shape(lambda: jax.random.key(0))
    cond, null = (abstract_condition(config, *s) for s in ((batch, 28), (1, NULL_TOKENS)))
    noise = jax.ShapeDtypeStruct((batch, *IMAGE, config.in_channels), jnp.float32)
    classes, nfe = jax.ShapeDtypeStruct((batch,), jnp.int32), len(recipe.grid) - 1

    def role(owner):
        return Role(Named(params, owner), jax.eval_shape(optimizer.init, Named(params, owner)))

    state = TrainState(jax.ShapeDtypeStruct((), jnp.int32), role("student"), role("critic"), Named(params, "student"))
    parts = Counter()
    for k in range(nfe):
        for phase, rows in (("student", 1), ("critic", critic_rows)):
            ledger = Counter()
            denoiser = counted(qwen.denoiser(shallow), config, full, ledger)
            common = dict(recipe=recipe, denoiser=denoiser)

            def row(state, teachers, cond, null, classes, key, common=common, phase=phase, k=k):
                """As train.py runs a row. A student row at k = 0 needs no context from "begin", but gets one."""
                student = state.student.params
                context, z = steps.begin(student, state.step, noise, cond, key, denoiser=common["denoiser"])
                for i in range(k):
                    z = steps.advance(student, state.step, context, z, i, key, **common)
                if phase == "critic":
                    return steps.critic_step(state, context, z, k, cond, key, critic_optimizer=optimizer, **common)
                return steps.student_step(
                    state, teachers, z, k, cond, (null,), classes, key, active=(0,), student_optimizer=optimizer,
                    critic_optimizer=optimizer, **common,
                )  # fmt: skip

            jax.eval_shape(row, state, (Named(params, "teacher"),), cond, null, classes, key)
            for (owner, passes), amount in ledger.items():
                if abs(amount) < 1e-9 * batch:
                    continue  # what was entered as forward only, and moved when its backward pass came
                parts[PARTS[phase, owner, passes]] += rows * amount / batch / nfe
    return {name: parts[name] for name in dict.fromkeys(PARTS.values())}


PARTS = {
    ("student", "student", "forward"): "student update: rollout",
    ("student", "student", "forward + backward"): "student update: last step, forward + backward",
    ("student", "critic", "forward"): "student update: critic's score",
    ("student", "teacher", "forward"): "student update: teacher's score, guided",
    ("critic", "student", "forward"): "critic updates: rollouts",
    ("student", "critic", "forward + backward"): "critic updates: forward + backward",
    ("critic", "critic", "forward + backward"): "critic updates: forward + backward",
}


def abstract_condition(config, batch, tokens) -> qwen.Condition:
    shape = jax.ShapeDtypeStruct((batch, tokens, config.context_dim), jnp.float32)
    return qwen.Condition(shape, jax.ShapeDtypeStruct((batch,), jnp.int32))


# -- Timing ----------------------------------------------------------------------------------------------------------


class Timed:
    """flashjax's cycle: the programs that ``train.py`` compiles for ``config``, called as it calls them."""

    def __init__(self, config, params, batch, null):
        recipe = train.make_recipe(config.distill)
        table = train.make_table(config, recipe)
        autoencoder = latents.of(config)
        model_config = models.make_config(qwen, config.model)
        optimizers = train.make_optimizers(config, table)
        mesh = meshes.make_mesh(config.mesh)
        where = sharding.shardings((state := TrainState.create(params, *optimizers), (params,)), mesh)
        self.state, self.teachers = jax.device_put((state, (params,)), where)
        self.batch = meshes.put_batch(batch, mesh)
        call = partial(
            programs.step_call, config=config, model=qwen, denoiser=qwen.denoiser(model_config), recipe=recipe,
            table=table, nulls=(null,), size=config.image_size, student_optimizer=optimizers[0],
            critic_optimizer=optimizers[1], autoencoder=autoencoder,
        )  # fmt: skip
        self.programs = programs.compile_programs(
            table, call, (self.state, self.teachers, {0: self.batch}), mesh
        )
        self.table = table
        # One student row and its critic rows at every k, taken from the table by phase and k.
        self.rows = {
            (phase, k): int(np.flatnonzero((table.phase == phase) & (table.k == k))[0])
            for phase in (schedule.STUDENT, schedule.CRITIC)
            for k in range(config.distill.nfe)
        }
        self.critic_rows = config.distill.critic_rows

    def __call__(self, k: int):
        for phase in [schedule.STUDENT] + [schedule.CRITIC] * self.critic_rows:
            row = self.rows[phase, k]
            self.state, metrics = programs.run_row(
                self.programs, self.table, row, self.state, self.teachers, self.batch
            )
        jax.block_until_ready((self.state, metrics))


def measure(cycles: dict, rounds: int, nfe: int) -> dict:
    """Median over the rounds of wall and processor milliseconds a cycle, a mean over k; they take turns within k."""
    for run in cycles.values():
        run(0)  # buffers, threads
    times = {name: [] for name in cycles}
    for _ in range(rounds):
        total = {name: np.zeros(2) for name in cycles}
        for k in range(nfe):
            for name, run in cycles.items():
                start = np.array([time.perf_counter(), time.process_time()])
                run(k)
                total[name] += np.array([time.perf_counter(), time.process_time()]) - start
        for name in cycles:
            times[name].append(total[name] / nfe * 1e3)
    return {
        name: dict(wall_ms=statistics.median(t[:, 0]), cpu_ms=statistics.median(t[:, 1]), wall_ms_all=t[:, 0].tolist())
        for name, t in ((name, np.stack(t)) for name, t in times.items())
    }


def random_params(config: qwen.Config) -> dict:
    """Weights at which all outputs are of order 1; a fresh network would give zeros, and hide a difference."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        noise = rng.normal(size=leaf.shape).astype(np.float32)
        return 1 + 0.2 * noise if path[-1].key == "scale" else noise * leaf.shape[-2] ** -0.5

    return jax.tree.map_with_path(draw, qwen.abstract(config))


def machine() -> dict:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return dict(
        cpu=models[0] if models else platform.machine(), cores=len(os.sched_getaffinity(0)), load=os.getloadavg()[0],
        device=jax.devices()[0].device_kind, python=platform.python_version(), jax=jax.__version__,
        torch=torch.__version__,
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cycles", type=int, default=3, help="timed cycles for every student step; 0 only counts")
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--layers", type=int, default=7, help="fewer for a quick look")
    parser.add_argument("--keep-memory", action="store_true", help="see docs/performance.md; for PyTorch too")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    if args.keep_memory:
        keep_memory()

    config = configs.load([f"--config={CONFIG}"]).unlock()
    config.batch_size, config.model.layers, config.model.products = args.batch, args.layers, "float32"
    config.student_updates, config.distill.critic_warmup = config.distill.nfe, 0  # a short table, with every k in it
    plain = copy.deepcopy(config)
    plain.distill.update(share_sample=False, critic_updates_per_rollout=1, critic_rows=CRITIC_UPDATES)
    model_config = models.make_config(qwen, config.model)
    result = dict(machine=machine(), batch=args.batch, layers=args.layers, keep_memory=args.keep_memory)
    print("  ".join(f"{k} {v}" for k, v in result["machine"].items()), end="\n\n")

    ############################ 1. Counted
    def forward_equivalents(distill, full):
        return count(model_config, train.make_recipe(distill), distill.critic_rows, args.batch, full)

    columns = {
        "plain": forward_equivalents(plain.distill, full=True),
        "plain, contexts shared": forward_equivalents(plain.distill, full=False),
        "flashjax": forward_equivalents(config.distill, full=False),
    }
    for column in columns.values():
        column["**cycle**"] = sum(column.values())
    result["forward_equivalents"] = columns
    shapes = condition_flops(model_config, 28), velocity_flops(model_config, 28, 64)
    condition, velocity = (s / sum(shapes) for s in shapes)
    print(f"F = {sum(shapes) / 1e6:.1f} MFLOP a sample: condition {condition:.3f} F, velocity {velocity:.3f} F\n")
    print("| forward-equivalents a cycle, mean over k | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for part in columns["plain"]:
        print(f"| {part} | " + " | ".join(f"{column[part]:.2f}" for column in columns.values()) + " |")

    ############################ 2. The same network in torch
    torch.set_num_threads(result["machine"]["cores"])
    torch.manual_seed(0)
    params, rng = random_params(model_config), np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        convert.save("qwen_image_21", params, Path(folder) / "model.safetensors")
        weights = load_file(Path(folder) / "model.safetensors")
    text = rng.normal(size=(args.batch, 28, model_config.context_dim)).astype(np.float32)
    length = rng.integers(8, 29, args.batch).astype(np.int32)
    null = text[:1, :NULL_TOKENS], np.array([NULL_TOKENS], np.int32)
    z = rng.normal(size=(args.batch, *IMAGE, model_config.in_channels)).astype(np.float32)
    t = rng.uniform(0.02, 0.98, args.batch).astype(np.float32)
    denoiser = qwen.denoiser(model_config)
    ours = jax.jit(lambda p, cond, z, t: denoiser.velocity(p, denoiser.condition(p, cond), z, t))
    ours = ours(params, qwen.Condition(text, length), z, t)
    text_t, length_t, z_t, t_t, *null_t = map(torch.tensor, (text, length, z, t, *null))
    with torch.no_grad():
        theirs = plain_torch.velocity(weights, model_config, text_t, length_t, z_t, t_t).numpy()
    difference = result["torch_max_abs_difference"] = float(np.abs(ours - theirs).max())
    print(f"\nPyTorch and flashjax: max |difference| {difference:.1e} at a standard deviation of {theirs.std():.2f}\n")
    assert difference < 1e-4 * theirs.std()

    ############################ 3. Timed
    if args.cycles:
        batch = dict(text=text, text_length=length, category=np.arange(args.batch, dtype=np.int32) % 3)
        null = qwen.Condition(*map(jnp.asarray, null))
        rounded = copy.deepcopy(config)
        rounded.model.products = "bfloat16"
        cycles = {
            "flashjax": Timed(config, params, batch, null),
            "flashjax, factors of products in bfloat16": Timed(rounded, params, batch, null),
            "flashjax, plain cycle": Timed(plain, params, batch, null),
            "PyTorch, plain cycle": plain_torch.Cycle(
                weights, lambda w, *rest: plain_torch.velocity(w, model_config, *rest),
                (*IMAGE, model_config.in_channels), config.distill, text_t, length_t, null_t,
                student_lr=config.student_optim.lr, critic_lr=config.critic_optim.lr,
            ),
        }  # fmt: skip
        result["times"] = measure(cycles, args.cycles, config.distill.nfe)
        result["machine"]["load_after"] = os.getloadavg()[0]
        base = result["times"]["PyTorch, plain cycle"]
        if result["machine"]["load"] > 1:
            print("The machine was not idle: these times compare nothing. (PyTorch suffers most: OpenMP spins.)\n")
        print("| | ms a cycle | against PyTorch | processor ms | against PyTorch |\n|---|---|---|---|---|")
        for name, row in result["times"].items():
            cells = [f"{row[unit]:.0f} | {row[unit] / base[unit]:.2f}" for unit in ("wall_ms", "cpu_ms")]
            print(f"| {name} | " + " | ".join(cells) + " |")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
