"""``flashjax export``: a run's newest checkpoint for other tools."""

import argparse

from flashjax.commands import non_negative


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", required=True, help="folder of the run")
    parser.add_argument("--out", required=True, help="new folder: transformer/, scheduler/, card.json")
    parser.add_argument("--which", default="ema", choices=("ema", "student"), help="which parameters (default ema)")
    parser.add_argument("--step", type=non_negative, default=None, help="of the checkpoint (default: the newest)")


def run(args: argparse.Namespace) -> None:
    from flashjax.commands import quiet
    from flashjax.export import export

    quiet()
    print(export(args.workdir, args.out, args.which, args.step))
