"""Sample grids: the same held-out prompts and the same noise, drawn again and again while a run goes on."""

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict
from PIL import Image, ImageDraw, ImageFont

from flashjax import flow
from flashjax.axes import BATCH
from flashjax.data.records import sources
from flashjax.distill.sampling import make_sampler
from flashjax.errors import UserError
from flashjax.models import editing, latents, pixels, text

Decode = Callable[[jax.Array], np.ndarray]  # latents [B, h, w, D] to uint8 [B, H, W, 3]
PROMPTS = (
    "a landscape", "a landscape with a night sky and a lake", "snowy mountains with a red house",
    "desert dunes, the sun on the left, a rainbow", "a portrait", "a person with a pink mohawk",
    "a smiling person with sunglasses and a blue background", "someone with long blonde hair and a hoodie",
    'a sign that says "OPEN"', '"JAX" in bold letters on a sign', 'the word "MOON" in white letters',
    'a yellow sign reading "TEA" in red letters',
)  # fmt: skip


def prompts_of(config: ConfigDict) -> list[str]:
    """What a run draws while it goes on: ``config.sample_prompts``, or PROMPTS."""
    return list(config.sample_prompts) or list(PROMPTS)


def conditions(model, encoder: text.TextEncoder, prompts: list[str], max_tokens: int):
    """(condition of the prompts, null condition of batch 1). The length is the longest prompt's, in eights: few lengths
    are compiled, and short prompts stay cheap. Raises UserError for a prompt of more than ``max_tokens``."""
    *states, empty = encoder.encode([*prompts, ""], max_tokens=max_tokens)
    return model.Condition(*text.pack(states, text.bucket(states))), model.Condition(*text.pack([empty]))


def keys(seeds: list[int]) -> jax.Array:
    """One key a seed, [B]."""
    return jax.vmap(jax.random.key)(np.array(seeds, np.uint32))


def noise(seeds: list[int], size: int, autoencoder: latents.Latents = latents.PIXELS) -> jax.Array:
    """One noise image a seed, in the latents' layout [B, h, w, c]: picture i depends on seeds[i] alone."""
    shape = autoencoder.record_shape(size)
    return autoencoder.encode(jax.vmap(lambda k: jax.random.normal(k, shape))(keys(seeds)))


def contact_sheet(rows: Sequence[Sequence[np.ndarray]], scale: int = 3, labels: Sequence[str] = ()) -> Image.Image:
    """Pictures uint8 [H, W, 3] of one size in rows, enlarged sharp-edged; ``labels`` stand in front of the rows. One
    alone has no frame, so that it can be edited.

    Raises UserError if there are no pictures or their sizes differ.
    """
    shapes = {np.asarray(image).shape for row in rows for image in row}
    if len(shapes) != 1:
        raise UserError(f"A contact sheet needs pictures of one size; there are {sorted(shapes) or 'none'}.")
    (height, width, _), font = shapes.pop(), ImageFont.load_default(size=5 * scale)
    gap = scale if labels or sum(map(len, rows)) > 1 else 0
    left = gap + max((math.ceil(font.getlength(label)) + 3 * gap for label in labels), default=0)
    across = max(len(row) for row in rows)
    size = (left + across * (width * scale + gap), len(rows) * (height * scale + gap) + gap)
    sheet = Image.new("RGB", size, (255, 255, 255) if labels else (128, 128, 128))
    for i, row in enumerate(rows):
        top = gap + i * (height * scale + gap)
        if labels:
            ImageDraw.Draw(sheet).text((gap, top + height * scale // 2), labels[i], (40, 40, 40), font, anchor="lm")
        for j, image in enumerate(row):
            large = Image.fromarray(image).resize((width * scale, height * scale), Image.Resampling.NEAREST)
            sheet.paste(large, (left + j * (width * scale + gap), top))
    return sheet


def portions(count: int, size: int) -> list[np.ndarray]:
    """Places 0 to ``count`` - 1 in portions of ``size``, of which the last is filled up with the last place: one batch
    size is compiled."""
    return [np.minimum(np.arange(i, i + size), count - 1) for i in range(0, count, size)]


def sampling(config: ConfigDict) -> dict:
    """How a run's model is meant to be sampled: steps, shift, guidance_scale, mode. A student is a student of its grid,
    so its configuration says it once, in ``distill``; a teacher's says it in ``sample``."""
    if config.objective != "flow_matching":
        d = config.distill
        return dict(steps=d.nfe, shift=d.shift, guidance_scale=1.0, mode=d.rollout_mode)
    return config.sample.to_dict()


def make_drawer(
    config: ConfigDict, model, denoiser: flow.Denoiser, encoder: text.TextEncoder, decode: Decode, folder: Path,
    mesh: Mesh,
) -> Callable:  # fmt: skip
    """``draw(params, step)`` writes ``folder/samples/step_XXXXXX.png``, two seeds of each of ``prompts_of(config)``,
    and returns figures of them for the log: ``drift``. ``decode``: latents [B, h, w, D] to uint8 pictures."""
    prompts = prompts_of(config)
    cond, null = conditions(model, encoder, prompts * 2, config.max_text_tokens)
    drawn = make_drawn(config, denoiser, cond, null, [1] * len(prompts) + [2] * len(prompts), decode, folder, mesh)

    def draw(params, step: int) -> dict[str, float]:
        images = drawn(params)
        if images is None:
            return {}
        rows = [images[: len(prompts)], images[len(prompts) :]]
        contact_sheet(rows).save(folder / "samples" / f"step_{step:06d}.png")
        return drift(np.stack(rows))

    return draw


def make_drawn(
    config: ConfigDict, denoiser: flow.Denoiser, cond, null, seeds: list[int], decode: Decode, folder: Path, mesh: Mesh
) -> Callable:
    """``drawn(params)`` is uint8 pictures, one a seed, as the run's model is meant to be sampled, by all devices of the
    run's ``mesh``; None on all processes but the first, which take part. At most as many are drawn at once as a batch
    of the run has, for which there is memory. ``folder/samples`` is made."""
    # On the host: arrays of one process's device would not go together with parameters that live on all.
    inputs = jax.device_get((cond, null, noise(seeds, config.image_size, latents.of(config))))
    count, rows = len(seeds), math.prod(mesh.shape[name] for name in BATCH)
    parts = -(-count // config.batch_size)
    at_once = -(-count // (parts * rows)) * rows  # equal, so that little is filled up
    batches = [
        jax.tree.map(lambda x, at=at: x[at] if len(x) == count else x, inputs) for at in portions(count, at_once)
    ]
    settings = sampling(config)
    sample, grid = make_sampler(denoiser), flow.time_grid(settings["steps"], settings["shift"])
    gather = jax.jit(lambda z: z, out_shardings=NamedSharding(mesh, PartitionSpec()))
    (folder / "samples").mkdir(exist_ok=True)

    def drawn(params) -> np.ndarray | None:
        images = []
        for batch in batches:
            with jax.set_mesh(mesh):  # as in training: attention's kernels for TPU cannot be divided without it
                z = gather(sample(params, *batch, grid, settings["guidance_scale"], settings["mode"]))
            # The decoder is the first process's own: it gets numbers of the host, no array that lives on all devices.
            if jax.process_index() == 0:
                images.append(decode(np.asarray(z)))
        return np.concatenate(images)[:count] if images else None

    return drawn


def drift(images: np.ndarray, of: str = "samples/") -> dict[str, float]:
    """What collapses first where distillation goes wrong, of fixed prompts and noise, uint8 [seeds, prompts, H, W, 3]:
    saturation (the mean distance of a pixel's strongest from its weakest colour), contrast (the mean standard deviation
    of a picture) and spread (the mean absolute difference of two seeds of a prompt); 1 is black against white. ``of``
    is what their names begin with."""
    x = images.astype(np.float64) / 255
    return {
        f"{of}saturation": float((x.max(axis=-1) - x.min(axis=-1)).mean()),
        f"{of}contrast": float(x.std(axis=(2, 3, 4)).mean()),
        f"{of}spread": float(np.abs(x[0] - x[1]).mean()),
    }


def make_edit_drawer(
    config: ConfigDict, model, denoiser: flow.Denoiser, encoder: text.TextEncoder, decode: Decode,
    records: Sequence[dict], folder: Path, mesh: Mesh, reference_at: tuple[int, ...] = (),
) -> Callable:  # fmt: skip
    """``draw(params, step)`` writes ``folder/samples/step_XXXXXX_edits.png``: the first sources of edit ``records``,
    and under them, of two seeds, what their instructions make of them. It returns ``drift`` of these for the log.
    ``reference_at``: see editing.condition."""
    autoencoder, count, twice = latents.of(config), len(records), [*records, *records]
    several = [np.stack(pictures) for pictures in zip(*map(sources, twice), strict=True)]
    states = text.pack([record["text"].astype(np.float32) for record in twice])
    given = [x.astype(np.float32) if autoencoder.module else pixels.from_uint8(x) for x in several]
    cond = editing.condition(model, *states, given, autoencoder, reference_at)
    own = [record["null"].astype(np.float32) for record in twice if "null" in record]
    null = editing.null_condition(model, model.Condition(*text.pack(own or encoder.encode([""]))), cond)
    drawn = make_drawn(config, denoiser, cond, null, [1] * count + [2] * count, decode, folder, mesh)
    side = (config.image_size, config.image_size)  # a source may be of another

    @functools.cache
    def shown() -> np.ndarray:
        first = decode(several[0][:count]) if autoencoder.module else several[0][:count]
        return np.stack([np.asarray(Image.fromarray(x).resize(side, Image.Resampling.NEAREST)) for x in first])

    def draw(params, step: int) -> dict[str, float]:
        images = drawn(params)
        if images is None:
            return {}
        rows = [images[:count], images[count:]]
        contact_sheet([shown(), *rows]).save(folder / "samples" / f"step_{step:06d}_edits.png")
        return drift(np.stack(rows), "samples/edit_")

    return draw
