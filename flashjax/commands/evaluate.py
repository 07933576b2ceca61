"""``flashjax evaluate``: a student against its teacher, in figures and pictures."""

import argparse
import shlex
import sys

from flashjax.commands import non_negative, positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", required=True, help="the student's run")
    parser.add_argument("--step", type=non_negative, default=None, help="of the checkpoint (default: the newest)")
    parser.add_argument(
        "--teacher", default="weights/postcards_teacher", help="exported teacher (default %(default)s)"
    )
    parser.add_argument(
        "--data", default="data/heldout/heldout.arrayrecord",
        help="held-out postcards with pictures (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--classifier", default="weights/postcards_classifier",
        help="the judge, from python -m flashjax.evaluate.classifier (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--out", required=True, help="report.html to write; figures and a picture go beside it as .json, .csv and .png"
    )
    parser.add_argument("--limit", type=positive, default=None, help="use only so many prompts (default: all)")
    parser.add_argument(
        "--keep", default=".cache/pictures", help="where drawn pictures stay for the next time (default %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    from flashjax.commands import needs, quiet

    needs("postcards", "jinja2")
    from flashjax.evaluate.study import study

    quiet()
    figures = study(
        args.workdir, args.teacher, args.data, args.out, classifier_path=args.classifier,
        command=shlex.join(["flashjax", *sys.argv[1:]]), limit=args.limit, keep=args.keep,
        step=args.step,
    )  # fmt: skip
    ms, ratio = figures["ms_per_image"], figures["speedup"]
    print("\n".join(figures["verdict"]))
    print(f"A picture takes {ms['student']:.1f} ms, the teacher's {ms['teacher']:.1f} ms: {ratio:.1f} times faster.")
    print(f"Report: {args.out}")
