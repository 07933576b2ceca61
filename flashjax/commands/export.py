"""``flashjax export``: a run's newest checkpoint for other tools."""

import argparse

from flashjax.commands import non_negative


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", required=True, help="folder of the run")
    parser.add_argument("--out", required=True, help="new folder: transformer/, scheduler/, card.json")
    parser.add_argument("--which", default="ema", choices=("ema", "student"), help="which parameters (default ema)")
    parser.add_argument("--step", type=non_negative, default=None, help="of the checkpoint (default: the newest)")
    parser.add_argument(
        "--lora", choices=("diffusers", "comfyui", "flashjax"),
        help="of a LoRA run the adapter alone, with these names (default: merged with its base, a whole network)",
    )  # fmt: skip
    parser.add_argument(
        "--dtype", choices=("bfloat16", "float32"),
        help="of the weights (default: the run's, which is float32 where all parameters were trained)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    from flashjax.commands import quiet
    from flashjax.errors import refuse_options
    from flashjax.export import export, export_lora

    quiet()
    if args.lora:
        refuse_options(args, {"dtype": None}, "with --lora")
        print(export_lora(args.workdir, args.out, args.lora, args.which, args.step))
    else:
        print(export(args.workdir, args.out, args.which, args.step, args.dtype))
