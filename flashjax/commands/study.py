"""``flashjax study``: a grid of runs times seeds, with intervals."""

import argparse
import re
import shlex
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", help="file of the study, as in configs/studies/")
    parser.add_argument("--out", help="folder of its cells (default: studies/NAME)")
    parser.add_argument("--docs", help="folder of the page, the table and the figures (default: --out)")
    parser.add_argument("--list", action="store_true", help="say which cells are done and which are missing; run none")
    parser.add_argument("--cells", nargs="+", default=(), help="run only these (default: all)")
    parser.add_argument("--accept", nargs="+", default=(), metavar="CODE", help="take cells of this other code too")
    parser.add_argument("--repeat", action="store_true", help="run finished cells once more, elsewhere, and compare")
    parser.add_argument("--part", type=_part, default=(1, 1), help="run one part of the cells, as in 1/2 and 2/2")


def run(args: argparse.Namespace) -> None:
    import json
    import tempfile
    from pathlib import Path

    from flashjax.commands import quiet
    from flashjax.studies import contrasts, grid, kept, page

    quiet()
    study, name = grid.load(args.study), Path(args.study).stem
    out = Path(args.out or f"studies/{name}")
    docs = Path(args.docs or out)
    elsewhere = kept.read(docs / f"{name}.jsonl")
    every = grid.cells(study, out, elsewhere, args.accept)
    kept.check_none_lost(docs / f"{name}.jsonl", elsewhere, every)
    chosen = grid.chosen(every, args.cells, args.part)
    if not args.list:
        from flashjax.studies.measuring import train_and_measure

        if args.repeat:
            with tempfile.TemporaryDirectory() as folder:
                for cell in (cell for cell in chosen if cell.result is not None):
                    print(grid.repeat(cell, study, train_and_measure, Path(folder)), flush=True)
            return
        for line in grid.run(chosen, study, train_and_measure):
            print(line, flush=True)
    print(grid.status(every))
    if any(cell.result for cell in every):
        told = contrasts.summary(study, every)
        command = shlex.join(["flashjax", *(word for word in sys.argv[1:] if word != "--list")])
        docs.mkdir(parents=True, exist_ok=True)
        kept.write(docs / f"{name}.jsonl", every)
        (docs / f"{name}.json").write_text(json.dumps(told, indent=1) + "\n")
        (docs / f"{name}.html").write_text(page.page(told, every, command))
        (docs / f"{name}.md").write_text(contrasts.markdown(told, command))
        print(docs / f"{name}.html")


def _part(text: str) -> tuple[int, int]:
    """An argparse type: 2/3 is the second of three parts."""
    if not re.fullmatch(r"[1-9]\d*/[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a part; write 1/2")
    first, _, of = text.partition("/")
    return int(first), int(of)
