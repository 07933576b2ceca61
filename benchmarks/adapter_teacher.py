"""What a specialist costs: a student's row with the base alone, with a whole network beside it, with an adapter.

    python benchmarks/adapter_teacher.py [--repeats 5]

At the quickstart's size, the specialist in rows of portraits at the last step, the adapter of rank 8. Operations are
XLA's own count (layers are unrolled on CPU), bytes what the specialist takes beside the base, milliseconds the fastest
of some calls.
"""

import argparse
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from flashjax import config as configs
from flashjax import models
from flashjax.convert import adapters
from flashjax.models import lora
from flashjax.parallel import mesh as meshes
from flashjax.plan import programs_of
from flashjax.programs import compile_programs
from flashjax.recipe import make_recipe, make_table

EVERY = ((r".*/kernel", True), (r".*", False))


def adapter_file(folder: Path, config) -> Path:
    model = models.architecture(config.model.architecture)
    whole = model.abstract(models.make_config(model, config.model))
    tree = lora.init(lora.Lora(8, 8.0, EVERY), whole, jax.random.key(0))
    adapters.write(folder / "adapter.safetensors", adapters.from_tree(tree, 8, 8.0), config.model.architecture)
    return folder / "adapter.safetensors"


def measure(config, specialist: str, repeats: int) -> dict[str, tuple[float, float]]:
    """Student program to (operations, milliseconds) of a call, and "bytes" of the specialist."""
    with config.unlocked():
        config.distill.teachers.specialist = dict(weights=specialist)
        config.distill.guidance_table = {"portrait": {"specialist": "last_step"}}
    recipe, mesh = make_recipe(config.distill), meshes.make_mesh(config.mesh, jax.devices()[:1])
    table, model = make_table(config, recipe), models.architecture(config.model.architecture)
    call, example = programs_of(config, mesh, model, models.make_config(model, config.model), recipe, table)
    programs = compile_programs(table, call, example, mesh)
    numbers = jax.tree.map(lambda x: jax.numpy.full(x.shape, 0.01, x.dtype, device=x.sharding), example)
    state, teachers, batches = numbers
    begin = next(run for program, run in programs.items() if str(program).startswith("begin"))
    found = {"bytes": (sum(x.nbytes for x in jax.tree.leaves(teachers[1])), 0.0)}
    for program, run in programs.items():
        if not str(program).startswith("student"):
            continue
        times = []
        for _ in range(repeats):
            given = jax.tree.map(jax.numpy.copy, state)  # the call takes it for itself
            carry = jax.block_until_ready(begin(state, teachers, batches[0], None, np.int32(0)))
            start = time.perf_counter()
            jax.block_until_ready(run(given, teachers, batches[0], carry, np.int32(3)))
            times.append((time.perf_counter() - start) * 1e3)
        found[str(program)] = run.cost_analysis()["flops"], min(times)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5, help="calls that are timed (default %(default)s)")
    args = parser.parse_args()

    def config():
        return configs.load(["--config=configs/postcards.py:quick", "--config.init="])

    with tempfile.TemporaryDirectory() as folder:
        for name, path in (("whole", "random"), ("adapter", str(adapter_file(Path(folder), config())))):
            for program, (operations, ms) in measure(config(), path, args.repeats).items():
                if program == "bytes":
                    print(f"{name:<8} {operations / 1e6:.2f} MB beside the base")
                else:
                    print(f"{name:<8} {program:<28} {operations / 1e9:8.2f} GFLOP {ms:8.0f} ms")


if __name__ == "__main__":
    main()
