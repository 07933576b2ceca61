"""What the cached prefix saves when Qwen-Image-2.1 edits: text and references computed once, or at every step.

    python benchmarks/edit_prefix.py [--references 1] [--steps 4] [--side 16] [--repeats 5]

A small network of the same kind. The sampler is the same in both; only the line between ``condition`` and ``velocity``
moves. An edit with one reference of the target's size has as many tokens in front of the target as in it.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp

from flashjax import flow
from flashjax.distill.sampling import make_sampler
from flashjax.models import qwen_image_21 as qwen

TEXT_TOKENS = 32


def samplers(config: qwen.Config) -> dict:
    """``cached`` computes the prefix once, ``recomputed`` at every step; both as ``sampling.make_sampler`` has it."""
    denoiser = qwen.denoiser(config)

    def velocity(params, cond, z, t):
        return denoiser.velocity(params, denoiser.condition(params, cond), z, t)

    recomputed = flow.Denoiser(condition=lambda params, cond: cond, velocity=velocity)
    return dict(cached=make_sampler(denoiser), recomputed=make_sampler(recomputed))


def inputs(config: qwen.Config, references: int, side: int, batch: int = 1):
    """(params, cond, noise) of an edit of side x side tokens; the network's last layer is not left at zero."""
    keys = iter(jax.random.split(jax.random.key(0), 4 + references))
    params, shape = qwen.init(config, next(keys)), (batch, side, side, config.in_channels)
    params["proj_out"]["kernel"] = 0.1 * jax.random.normal(next(keys), params["proj_out"]["kernel"].shape)
    text = jax.random.normal(next(keys), (batch, TEXT_TOKENS, config.context_dim))
    noise, *images = (jax.random.normal(key, shape) for key in keys)
    at = tuple(range(1, 1 + references))
    return params, qwen.Condition(text, jnp.full(batch, TEXT_TOKENS), tuple(images), at), noise


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--references", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--side", type=int, default=16, help="of target and references, in tokens")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    config = qwen.Config.postcards(width=256, layers=8, heads=4, axes_dims=(16, 24, 24))
    params, cond, noise = inputs(config, args.references, args.side)
    grid, made = flow.time_grid(args.steps), samplers(config)
    times = {name: [] for name in made}
    for _ in range(args.repeats + 1):  # in turns, so that a busy machine is unfair to neither
        for name, sample in made.items():
            start = time.perf_counter()
            jax.block_until_ready(sample(params, cond, None, noise, grid))
            times[name].append(time.perf_counter() - start)
    took = {name: statistics.median(values[1:]) for name, values in times.items()}  # the first ones compile
    for name, seconds in took.items():
        print(f"{name:<12}{1e3 * seconds:8.1f} ms a rollout of {args.steps} steps")
    print(f"The cached prefix takes {took['cached'] / took['recomputed']:.2f} of the time.")


if __name__ == "__main__":
    main()
