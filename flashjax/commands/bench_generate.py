"""``flashjax bench generate``: a model's pictures of a bench; resumable, and divided over processes."""

import argparse

from flashjax.commands import finite, in_pixels, non_negative, positive, seed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", help="a run's work directory or an exported model")
    source.add_argument("--weights", help="a released model: the folder of a diffusers pipeline")
    parser.add_argument("--bench", required=True, help="prompts, JSONL")
    parser.add_argument("--out", required=True, help="folder for <id>_<seed>.png")
    parser.add_argument("--steps", type=positive, help="sampling steps (default: the model's own)")
    parser.add_argument("--guidance", type=finite, help="guidance scale, 1 is none (default: the model's)")
    parser.add_argument("--seeds", type=seed, nargs="+", default=[0], help="a picture each (default 0)")
    parser.add_argument("--limit", type=positive, help="use only so many prompts (default: all)")
    parser.add_argument(
        "--batch", type=positive,
        help="pictures at once, divided over the devices, with --checkpoint (default 16)",
    )  # fmt: skip
    parser.add_argument(
        "--share", metavar="I/N",
        help="this process draws every N-th picture (default: as FLASHJAX_PROCESS and _PROCESSES say, else all)",
    )  # fmt: skip
    parser.add_argument("--which", choices=("ema", "student"), help="parameters of a run (default ema)")
    parser.add_argument("--step", type=non_negative, help="of a run's checkpoint (default: the newest)")
    parser.add_argument("--size", type=in_pixels, help="side of the picture, with --weights (default: the model's)")
    edits = parser.add_mutually_exclusive_group()
    edits.add_argument("--sources", help="folder of the pictures to edit, for those that the bench does not name")
    edits.add_argument("--draw-sources", action="store_true", help="draw what the edits start from")
    parser.add_argument(
        "--source-size", type=in_pixels,
        help="side of pictures to edit in the run's data, with --checkpoint (default: as drawn)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    import hashlib
    from pathlib import Path

    from tqdm import tqdm

    from flashjax import __version__
    from flashjax.bench import generate, plan, prompts
    from flashjax.commands import quiet
    from flashjax.errors import UserError

    quiet()
    _fits(args)
    bench, sources = prompts.read_bench(args.bench, args.limit), {}
    if not args.draw_sources:
        sources = plan.find_sources(bench, args.bench, args.sources)
    elif not (bench := plan.drawn_sources(bench)):
        raise UserError(f"No prompt of {args.bench} is an edit whose source is drawn; leave out --draw-sources.")
    share = _share(args.share)
    _check_alone()
    draw, facts = (_of_run if args.checkpoint else _of_released)(args, bench, sources)
    written = hashlib.sha256(Path(args.bench).read_bytes()).hexdigest()[:16]
    facts |= dict(flashjax=__version__, bench_sha256=written)
    # Each by itself, as a larger --limit adds to what was drawn.
    edited = {p.id: plan.source(p, sources).digest for p in bench if sources}
    folder = Path(args.out)
    generate.settle(folder, facts)
    generate.check_sources(bench, args.seeds, folder, edited)
    todo = generate.pending(bench, args.seeds, folder, share)
    with tqdm(total=len(todo), desc="drawing", unit="picture") as bar:
        for count in generate.generate(todo, folder, draw, facts, args.batch or 1, edited):
            bar.update(count)
    left = len(generate.pending(bench, args.seeds, folder))
    has = f"has those of {len(bench)} prompts" if not left else f"lacks {left}, which other shares draw"
    print(f"{len(todo)} pictures drawn; {folder} {has}.")


def _fits(args: argparse.Namespace) -> None:
    """Settles what a run's options are by default. Raises UserError where an option would have no effect."""
    from flashjax.errors import refuse_options

    if not args.checkpoint:
        refuse_options(args, dict.fromkeys(("batch", "which", "step", "source_size")), "with --weights")
    else:
        refuse_options(args, dict(size=None), "with --checkpoint")
        args.batch, args.which = args.batch or 16, args.which or "ema"


def _of_run(args: argparse.Namespace, bench, sources):
    import numpy as np

    from flashjax import checkpoint, pipeline
    from flashjax.data.prompts import read_square
    from flashjax.errors import UserError
    from flashjax.models import text

    pipe = pipeline.spread(pipeline.load(args.checkpoint, args.which, args.step))
    if sources and "references" not in pipe.model.Condition.__annotations__:
        raise UserError(f"{args.checkpoint} is of an architecture that edits no pictures; give another one.")
    encoder = text.default_encoder()
    encoder.tokens([p.prompt for p in bench], pipe.max_text_tokens)  # names a prompt that is too long
    settings, side = dict(steps=args.steps, guidance_scale=args.guidance), args.source_size or pipe.image_size

    def draw(some, seeds):
        given = [read_square(_source(sources, p), side) for p in some if sources]
        images = np.stack(given) if given else None
        return pipe.draw([p.prompt for p in some], list(seeds), encoder, args.batch, images, **settings)

    # Step and content, as the newest checkpoint of a run that goes on is another one the next time.
    facts = dict(model=args.checkpoint, which=args.which, step=pipe.step, params=checkpoint.digest(pipe.params))
    facts |= dict(sources=args.sources, source_size=side) if sources else {}
    return draw, facts | pipe.defaults | {k: v for k, v in settings.items() if v is not None}


def _of_released(args: argparse.Namespace, bench, sources):
    from pathlib import Path

    from flashjax import released
    from flashjax.files import looks

    model = released.load(args.weights, keep=True)
    settings = dict(height=args.size, width=args.size, steps=args.steps, guidance_scale=args.guidance)

    def draw(some, seeds):
        (prompt,) = some
        images = [released.read_picture(_source(sources, prompt))] if sources else []
        return model.draw([prompt.prompt], list(seeds), images, **settings)

    # A student may have been exported into the folder since.
    facts = dict(model=f"{model.name} {args.weights}", transformer=looks(Path(args.weights, "transformer")))
    facts |= dict(sources=args.sources)
    return draw, facts | {k: v for k, v in (model.defaults | settings).items() if v is not None}


def _source(sources, prompt):
    """The path of the picture that a prompt edits."""
    found = sources[prompt.id]
    return found[min(found)].path


def _check_alone() -> None:
    """Raises UserError on a TPU slice of several hosts, which its driver joins whether JAX is asked to or not."""
    import jax

    from flashjax.errors import UserError

    if jax.process_count() > 1:
        raise UserError(
            f"The {jax.process_count()} hosts of this TPU slice compute together or not at all, and bench generate has "
            "each machine draw by itself; start it on slices of one host, of which any number share the work (--share)."
        )


def _share(text: str | None) -> tuple[int, int]:
    """Without --share that of the launch scripts. Processes need nothing of each other, so JAX does not join them: one
    that ends, sooner or badly, takes none along."""
    import os

    from flashjax.errors import UserError
    from flashjax.parallel import rollcall

    if text is None:
        place = rollcall.place(os.environ)
        return (place.process, place.processes) if place else (0, 1)
    first, _, count = text.partition("/")
    if not (first.isdigit() and count.isdigit() and int(first) < int(count)):
        raise UserError(f"--share {text} has to be I/N with I from 0 to N - 1, as in 3/8.")
    return int(first), int(count)
