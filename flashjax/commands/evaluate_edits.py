"""``flashjax evaluate-edits``: whether edits do what they are told, and nothing else."""

import argparse
import shlex
import sys

from flashjax.commands import non_negative, positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", required=True, nargs="+", help="runs or exported models, to stand side by side")
    parser.add_argument(
        "--data", default="data/heldout/heldout_edits.arrayrecord",
        help="held-out edits, from flashjax prepare --split heldout --edits (default %(default)s)",
    )  # fmt: skip
    parser.add_argument("--classifier", default="weights/postcards_classifier", help="the judge (default %(default)s)")
    parser.add_argument(
        "--out", required=True, help=".json to write, or .html for a page too; .csv and .png go beside it"
    )
    parser.add_argument("--limit", type=positive, default=None, help="use only so many edits (default: all)")
    parser.add_argument(
        "--few-steps", type=positive, default=None,
        help="draw the first of --checkpoint, a teacher, on so many steps of its own grid too, with its guidance and "
        "without",
    )  # fmt: skip
    parser.add_argument("--step", type=non_negative, default=None, help="of the checkpoints (default: the newest)")


def run(args: argparse.Namespace) -> None:
    import json
    from pathlib import Path

    import numpy as np

    from flashjax import pictures, pipeline
    from flashjax.commands import needs, quiet
    from flashjax.errors import UserError

    needs("postcards", "jinja2")
    from flashjax.evaluate import classifier, edits, edits_page, ocr, study
    from flashjax.files import as_csv, write_whole
    from flashjax.models import text
    from flashjax.workdir import check_out

    quiet()
    out = Path(args.out)
    if out.suffix not in (".json", ".html") or not out.absolute().parent.is_dir():
        raise UserError(f"--out {out} has to end in .json or .html and lie in a folder that exists.")
    check_out(out, (".json", ".csv", ".png"), args.checkpoint, read=[args.data])
    ocr.reader()
    records = study.load_cards(args.data, args.limit, "edit_data")
    judge, encoder = classifier.load(args.classifier), text.default_encoder()
    sources, said = np.stack([r["source"] for r in records]), [r["instruction"] for r in records]
    sets, seeds = {}, list(range(1, 1 + len(said)))
    for path in args.checkpoint:
        pipe = pipeline.load(path, step=args.step)
        if args.few_steps and path == args.checkpoint[0]:
            for settings in study.few_steps(pipe, steps=args.few_steps):
                name = f"{path}, {args.few_steps} steps ({study.nfe(pipe, **settings)} NFE)"
                sets[name] = pipe.draw(said, seeds, encoder, images=sources, **settings)
        sets[f"{path}, {study.nfe(pipe)} NFE"] = pipe.draw(said, seeds, encoder, images=sources)
    told = edits.figures(sets, records, judge)
    write_whole(out.with_suffix(".json"), (json.dumps(told, indent=1) + "\n").encode())
    write_whole(out.with_suffix(".csv"), as_csv(study.HEAD, edits.lines(told)).encode())
    if out.suffix == ".html":
        edits_page.write_page(out, told, sets, records, shlex.join(["flashjax", *sys.argv[1:]]))
    shown = range(min(12, len(records)))
    rows = [sources, *sets.values(), np.stack([r["image"] for r in records])]
    sheet = [[row[i] for i in shown] for row in rows]
    pictures.contact_sheet(sheet, labels=["source", *sets, "exact"]).save(out.with_suffix(".png"))
    print(f"{'':<40}{'success':>22}{'rest kept':>22}{'outside error':>22}{'word replaced':>22}")
    for name, row in told.items():
        cells = [_cell(row[key]) for key in ("success", "kept", "outside", "text")]
        print(f"{name[-39:]:<40}" + "".join(f"{cell:>22}" for cell in cells))


def _cell(interval: dict | None) -> str:
    if interval is None:
        return "none"
    ends = "" if interval["low"] is None else " [{low:.3f}, {high:.3f}]".format(**interval)
    return f"{interval['value']:.3f}{ends}"
