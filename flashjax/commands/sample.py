"""``flashjax sample``: pictures from prompts, and edits of pictures."""

import argparse
import os

from flashjax.commands import SEEDS, enlargement, finite, in_pixels, non_negative, seed

# what goes with one source of a model only
_OF_CHECKPOINT, _OF_WEIGHTS = ("which", "step", "scale", "source_size"), ("model", "negative", "size")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", help="a run's work directory or an exported model")
    source.add_argument("--weights", help="a released model: the folder of a diffusers pipeline")
    parser.add_argument("--prompt", required=True, nargs="+", help="one prompt or several")
    parser.add_argument(
        "--image", nargs="+",
        help="pictures to edit: with --weights, in the order in which prompts count them; with --checkpoint, one for "
        "each prompt, or one for all, where a.png,b.png are several of one prompt",
    )  # fmt: skip
    parser.add_argument("--out", required=True, help="PNG to write; several pictures are put in a row")
    parser.add_argument("--steps", type=int, default=None, help="sampling steps (default: the model's own)")
    parser.add_argument(
        "--guidance", type=finite, default=None,
        help="guidance scale, 1 is none; Z-Image's pipeline calls our 6 a 5 (default: the model's)",
    )  # fmt: skip
    parser.add_argument("--seed", type=seed, default=0, help="of the first picture; the next ones count on (default 0)")
    of_run = parser.add_argument_group("with --checkpoint")
    of_run.add_argument("--which", choices=("ema", "student"), help="parameters of a run (default ema)")
    of_run.add_argument("--step", type=non_negative, help="of a run's checkpoint (default: the newest)")
    of_run.add_argument("--source-size", type=in_pixels, help="side of --image in the run's data (default: as drawn)")
    of_run.add_argument("--scale", type=enlargement, help="enlargement of the PNG (default 4)")
    released = parser.add_argument_group("with --weights")
    released.add_argument("--model", help="family of the model (default: what its model_index.json says)")
    released.add_argument("--negative", help="prompt that guidance leads away from (default: the model's own)")
    released.add_argument(
        "--size", type=_size, help="1024, or width x height as in 1664x928 (default: the picture's to edit, or 1024)"
    )


def run(args: argparse.Namespace) -> None:
    from flashjax.commands import quiet
    from flashjax.errors import refuse_options

    quiet()
    _check_out(args.out)
    mine, others = ("checkpoint", _OF_WEIGHTS) if args.checkpoint else ("weights", _OF_CHECKPOINT)
    refuse_options(args, dict.fromkeys(others), f"with --{mine}")
    seeds = [(args.seed + i) % SEEDS for i in range(len(args.prompt))]
    image, facts = (_of_run if args.checkpoint else _of_released)(args, seeds)
    _save(image, args.out, dict(prompt=" | ".join(args.prompt), seed=args.seed) | facts)
    print(args.out)


def _of_run(args: argparse.Namespace, seeds: list[int]):
    import numpy as np

    from flashjax import flow, pictures, pipeline
    from flashjax.data.prompts import read_square
    from flashjax.errors import UserError, about_settings
    from flashjax.models import text

    pipe = pipeline.load(args.checkpoint, args.which or "ema", args.step)
    encoder = text.default_encoder()
    paths = args.image or []
    if len(paths) == 1:
        paths = paths * len(args.prompt)
    several = [[path] if os.path.exists(path) else path.split(",") for path in paths]
    if paths and (len(paths) != len(args.prompt) or len({len(each) for each in several}) > 1):
        raise UserError(
            f"--image names {len(paths)} pictures for {len(args.prompt)} prompts; give one for each, or as many for "
            "each, as in a.png,b.png."
        )
    slots = zip(*several, strict=True)  # the first pictures of all prompts, their second ones
    side = args.source_size or pipe.image_size
    images = [np.stack([read_square(path, side) for path in slot]) for slot in slots] or None
    encoder.tokens(args.prompt, pipe.max_text_tokens)  # names a prompt that is too long
    with about_settings():
        flow.time_grid(1 if args.steps is None else args.steps, 1.0)
    drawn = pipe.draw(args.prompt, seeds, encoder, images=images, steps=args.steps, guidance_scale=args.guidance)
    given = {name: value for name in ("steps", "guidance") if (value := getattr(args, name)) is not None}
    facts = dict(steps=pipe.defaults["steps"], guidance=pipe.defaults["guidance_scale"]) | given
    rows = [*(images if images and side == pipe.image_size else ()), drawn]
    given = dict(image=" | ".join(paths)) if paths else {}
    return pictures.contact_sheet(rows, args.scale or 4), facts | dict(model=args.checkpoint) | given


def _of_released(args: argparse.Namespace, seeds: list[int]):
    import numpy as np
    from PIL import Image

    from flashjax import released

    images = [released.read_picture(path) for path in args.image or ()]
    model = released.load(args.weights, args.model)
    width, height = args.size or (None, None)
    plan = model.plan(
        args.prompt, images, height=height, width=width, steps=args.steps, guidance_scale=args.guidance,
        negative_prompt=args.negative,
    )  # fmt: skip
    drawn = model.render(plan, seeds)
    facts = dict(steps=len(plan.grid) - 1, guidance=plan.guidance_scale, model=f"{model.name} {args.weights}")
    given = dict(negative=args.negative, image=args.image and " | ".join(args.image))
    return Image.fromarray(np.concatenate(drawn, axis=1)), facts | {k: v for k, v in given.items() if v}


def _check_out(out: str) -> None:
    from pathlib import Path

    from flashjax.errors import UserError
    from flashjax.workdir import check_out

    if Path(out).exists():
        raise UserError(f"{out} exists; give a new --out, nothing is overwritten.")
    if Path(out).suffix.lower() != ".png":
        raise UserError(f"--out {out} has to end in .png.")
    if not Path(out).absolute().parent.is_dir():
        raise UserError(f"There is no folder {Path(out).absolute().parent} to write {out} to.")
    check_out(Path(out))


def _save(image, out: str, facts: dict) -> None:
    """With what made it in the PNG's text chunks; whole or not at all, as a picture that is there is not drawn over."""
    from pathlib import Path

    from PIL import PngImagePlugin

    from flashjax.files import whole

    info = PngImagePlugin.PngInfo()
    for name, value in facts.items():
        info.add_text(name, str(value).encode(errors="backslashreplace").decode())  # a file's name may be no UTF-8
    with whole(Path(out)) as partial:
        image.save(partial, "PNG", pnginfo=info)


def _size(text: str) -> tuple[int, int]:
    """An argparse type: width and height in pixels, one number for both."""
    sides = text.lower().split("x")
    if len(sides) > 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write 1024, or 1664x928")
    width, height = map(in_pixels, (sides * 2)[:2])
    return width, height
