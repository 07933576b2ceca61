"""``flashjax bench``: prompts, pictures, judges, measures and the report, each a sub-command of its own."""

import argparse
import importlib
import warnings
from pathlib import Path

_ACTIONS = {
    "prompts": ("flashjax.commands.bench_prompts", "write T2I-Bench and Editing-Bench"),
    "generate": ("flashjax.commands.bench_generate", "draw the pictures of a bench; resumable"),
    "judge": ("flashjax.commands.bench_judge", "ask judges about pictures; resumable, nothing is paid for twice"),
    "measure": ("flashjax.commands.bench_measure", "measure pictures against a reference, without a judge"),
    "report": ("flashjax.commands.bench_report", "write what judges said as one page, JSON and CSV"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    subs = parser.add_subparsers(dest="action", metavar="ACTION", required=True, help="what to do")
    for name, (module, summary) in _ACTIONS.items():
        description = summary[0].upper() + summary[1:] + "."
        sub = subs.add_parser(name, help=summary, description=description, allow_abbrev=False)
        importlib.import_module(module).add_arguments(sub)
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show an error's traceback")


def run(args: argparse.Namespace) -> int | None:
    from PIL import Image

    from flashjax.workdir import check_folder

    # What Pillow warns of, and refuses from twice the size on, is refused here in a sentence.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    if args.action != "report":  # whose --out is a file
        check_folder(Path(args.out), f"--out {args.out}")
    return importlib.import_module(_ACTIONS[args.action][0]).run(args)
