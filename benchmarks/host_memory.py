"""What the host's memory allocator and rounded products do to a training step on a CPU.

    python benchmarks/host_memory.py [--batch 64] [--repeats 6]

Forward and backward pass of the postcards' denoiser (configs/postcards_teacher.py), each combination in a process of
its own: glibc's defaults or what ``flashjax/host.py`` asks for, products of float32 or of bfloat16 factors.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

import jax
import jax.numpy as jnp

from flashjax import host
from flashjax.models import qwen_image_21 as qwen

TEXT_TOKENS, IMAGE = 32, (8, 8)


def measure(batch: int, repeats: int, products: str) -> dict:
    """Medians over the repeats of wall, user and system milliseconds and page faults; peak memory in GB."""
    config = qwen.Config.postcards(products=products)
    denoiser, params = qwen.denoiser(config), jax.jit(lambda k: qwen.init(config, k))(jax.random.key(0))
    z = jax.random.normal(jax.random.key(1), (batch, *IMAGE, config.in_channels))
    text = jax.random.normal(jax.random.key(2), (batch, TEXT_TOKENS, config.context_dim))
    cond, t = qwen.Condition(text, jnp.full(batch, TEXT_TOKENS // 2)), jnp.full(batch, 0.5)

    @jax.jit
    @jax.grad
    def gradient(params):
        return jnp.square(denoiser.velocity(params, denoiser.condition(params, cond), z, t) - z).mean()

    jax.block_until_ready(gradient(params))
    rows = []
    for _ in range(repeats):
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        jax.block_until_ready(gradient(params))
        after = resource.getrusage(resource.RUSAGE_SELF)
        seconds = time.perf_counter() - start, after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
        rows.append((*(1e3 * s for s in seconds), after.ru_minflt - before.ru_minflt))
    wall, user, system, faults = map(statistics.median, zip(*rows, strict=True))
    return dict(wall=wall, user=user, system=system, faults=faults, peak_gb=after.ru_maxrss / 1e6)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--one", choices=("float32", "bfloat16"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.batch, args.repeats, args.one)))
        return
    print("| memory | factors of products | wall ms | user ms | system ms | page faults | peak GB |")
    print("|---|---|---|---|---|---|---|")
    for memory, tunables in (("glibc's defaults", ""), ("kept", host.tunables())):
        for products in ("float32", "bfloat16"):
            command = [sys.executable, __file__, "--one", products]
            command += ["--batch", str(args.batch), "--repeats", str(args.repeats)]
            done = subprocess.run(
                command, env=os.environ | dict(GLIBC_TUNABLES=tunables), check=True, capture_output=True, text=True
            )
            row = json.loads(done.stdout)
            cells = [f"{row[k]:.0f}" for k in ("wall", "user", "system")] + [f"{row['faults']:,.0f}"]
            print(f"| {memory} | {products} | " + " | ".join(cells) + f" | {row['peak_gb']:.1f} |", flush=True)


if __name__ == "__main__":
    main()
