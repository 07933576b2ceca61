"""``flashjax sample``: pictures from prompts."""

import argparse

from flashjax.commands import SEEDS, non_negative, positive, seed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", required=True, help="a run's work directory or an exported model")
    parser.add_argument("--prompt", required=True, nargs="+", help="one prompt or several")
    parser.add_argument("--out", required=True, help="PNG to write; several pictures are put in a row")
    parser.add_argument("--steps", type=int, default=None, help="sampling steps (default: the model's own)")
    parser.add_argument("--guidance", type=float, default=None, help="guidance scale (1: none; default: the model's)")
    parser.add_argument("--seed", type=seed, default=0, help="of the first picture; the next ones count on (default 0)")
    parser.add_argument("--weights", default="ema", choices=("ema", "student"), help="of a run (default ema)")
    parser.add_argument(
        "--step", type=non_negative, default=None, help="of a run's checkpoint (default: the newest)"
    )
    parser.add_argument("--scale", type=positive, default=4, help="enlargement of the PNG (default 4)")


def run(args: argparse.Namespace) -> None:
    from pathlib import Path

    from flashjax import flow, pictures, pipeline
    from flashjax.commands import quiet
    from flashjax.errors import UserError, about_settings
    from flashjax.models import text

    quiet()
    if Path(args.out).exists():
        raise UserError(f"{args.out} exists; give a new --out, nothing is overwritten.")
    if Path(args.out).suffix.lower() != ".png":
        raise UserError(f"--out {args.out} has to end in .png.")
    if not Path(args.out).absolute().parent.is_dir():
        raise UserError(f"There is no folder {Path(args.out).absolute().parent} to write {args.out} to.")
    pipe = pipeline.load(args.checkpoint, args.weights, args.step)
    encoder = text.load_text_encoder(text.default_minilm_source())
    with about_settings():
        encoder.tokens(args.prompt, pipe.max_text_tokens)  # names a prompt that is too long
        flow.time_grid(1 if args.steps is None else args.steps, 1.0)
    seeds = [(args.seed + i) % SEEDS for i in range(len(args.prompt))]
    images = pipe.draw(args.prompt, seeds, encoder, steps=args.steps, guidance_scale=args.guidance)
    pictures.contact_sheet([images], args.scale).save(args.out)
    print(args.out)
