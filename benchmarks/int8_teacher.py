"""What a teacher of fewer bits does to the DMD gradient: its cosine with that of the float32 teacher, by time.

    python benchmarks/int8_teacher.py --workdir runs/postcards

At the end of a DMD run: its student's pictures of held-out prompts, its critic, its base teacher with the run's
guidance, kept in bfloat16 and in int8. The gradient is the weighted difference of both networks' clean predictions; it
is small where the student is done, so that this is where a teacher's rounding shows most.
"""

import argparse
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from flashjax import convert, flow, models, pictures, pipeline
from flashjax.checkpoint import restore_params
from flashjax.distill import dmd
from flashjax.distill.steps import guided_velocity
from flashjax.evaluate import study
from flashjax.models import held, pixels, text
from flashjax.recipe import make_recipe

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)


@partial(jax.jit, static_argnums=(0, 1))
def gradient(denoiser, scale, teacher, critic, cond, null, x, eps, t):
    """float32 like x: what a student's sample x moves against, at one t for all."""
    t, teacher = jnp.full(len(x), t), held.readable(teacher, "device")
    z, contexts = flow.interpolate(x, eps, t), [denoiser.condition(teacher, c) for c in (cond, null)]
    real = guided_velocity(denoiser, teacher, *contexts, scale(t), z, t)
    fake = denoiser.velocity(critic, denoiser.condition(critic, cond), z, t)
    return dmd.gradient(x, flow.x0_from_velocity(z, fake, t), flow.x0_from_velocity(z, real, t))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workdir", default="runs/postcards", help="a DMD run (default %(default)s)")
    parser.add_argument("--data", default="data/heldout/heldout.arrayrecord", help="prompts (default %(default)s)")
    parser.add_argument("--count", type=int, default=48, help="pictures (default %(default)s)")
    args = parser.parse_args()
    pipe, encoder = pipeline.load(args.workdir), text.default_encoder()
    critic, meta, _ = restore_params(Path(args.workdir) / "checkpoints", "critic")
    config = ConfigDict(meta["config"])
    model = models.architecture(config.model.architecture)
    sizes = models.make_config(model, config.model)
    base = convert.load(config.model.architecture, config.distill.teachers.base.weights, model.abstract(sizes))
    prompts = [record["caption"] for record in study.load_cards(args.data, args.count)]
    images = pipe.draw(prompts, list(range(1, 1 + len(prompts))), encoder)
    x = pixels.encode(pixels.from_uint8(images))
    cond, null = pictures.conditions(model, encoder, prompts, config.max_text_tokens)
    scale = make_recipe(config.distill).guidance_scales[0]
    find = partial(gradient, model.denoiser(sizes), scale)
    eps = jax.random.normal(jax.random.key(0), x.shape)
    heads = (f"{dtype}: cosine (lowest), length" for dtype in ("bfloat16", "int8"))
    print("      t" + "".join(f"{head:>40}" for head in heads))
    for t in TIMES:
        exact, *others = (
            np.asarray(find(held.keep(base, dtype), critic, cond, null, x, eps, t), np.float64).reshape(len(x), -1)
            for dtype in ("", "bfloat16", "int8")
        )
        cells = []
        for other in others:
            lengths = [np.linalg.norm(g, axis=1) for g in (exact, other)]
            cosine = (exact * other).sum(axis=1) / lengths[0] / lengths[1]
            cells.append(f"{cosine.mean():.5f} ({cosine.min():.4f}), {np.mean(lengths[1] / lengths[0]):.4f}")
        print(f"{t:7.2f}" + "".join(f"{cell:>40}" for cell in cells))


if __name__ == "__main__":
    main()
