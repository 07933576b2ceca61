"""``flashjax guidance``: the guidance inside the loss that reproduces a guided teacher's pictures."""

import argparse

from flashjax.commands import positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--teacher", default="weights/postcards_teacher", help="exported teacher (default %(default)s)")
    parser.add_argument(
        "--data", default="data/heldout/heldout.arrayrecord", help="prompts, with pictures (default %(default)s)"
    )
    parser.add_argument(
        "--real", action="store_true", help="measure on the real pictures, where a calibrated teacher has 1 everywhere"
    )
    parser.add_argument("--limit", type=positive, default=None, help="use only so many prompts (default: all)")
    parser.add_argument(
        "--times", type=float, nargs="+", default=(0.05, 0.2, 0.4, 0.6, 0.8, 0.95), help="default %(default)s"
    )
    parser.add_argument(
        "--keep", default=".cache/pictures", help="where drawn pictures stay for the next time (default %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    from pathlib import Path

    import numpy as np

    from flashjax import pipeline
    from flashjax.commands import quiet
    from flashjax.errors import UserError
    from flashjax.evaluate import picture_guidance, study
    from flashjax.models import text

    quiet()
    if wrong := [t for t in args.times if not 0 < t < 1]:
        raise UserError(f"--times has {wrong[0]}; times lie between 0 (picture) and 1 (noise).")
    if len(set(args.times)) < len(args.times):
        raise UserError("--times has a time twice, of which a run's guidance takes one.")
    records = study.load_cards(args.data, args.limit, "pictures")
    encoder, teacher = text.default_encoder(), pipeline.load(args.teacher)
    prompts, seeds = [r["caption"] for r in records], range(1, 1 + len(records))
    if args.real:
        images = np.stack([r["image"] for r in records])
    else:
        images = study.draw_kept(teacher, prompts, seeds, encoder, Path(args.keep))
    points = picture_guidance.measure(teacher, images, prompts, encoder, sorted(args.times))
    print("    t   scale   95 % interval")
    for p in points:
        print(f"{p.t:5.2f}  {p.scale:6.2f}   {p.low:.2f} to {p.high:.2f}")
    # Times as they were given: two that round alike are refused by train.
    times, scales = ",".join(f"{p.t:g}" for p in points), ",".join(f"{p.scale:.2f}" for p in points)
    print(f"--config.distill.guidance.times={times} --config.distill.guidance.scales={scales}")
