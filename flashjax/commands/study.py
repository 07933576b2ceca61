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
    parser.add_argument("--part", type=_part, default=(1, 1), help="run one part of the cells, as in 1/2 and 2/2")


def run(args: argparse.Namespace) -> None:
    import json
    from pathlib import Path

    from flashjax.commands import quiet
    from flashjax.studies import contrasts, grid, page

    quiet()
    study = grid.load(args.study)
    out = Path(args.out or f"studies/{Path(args.study).stem}")
    every = grid.cells(study, out)
    if not args.list:
        from flashjax.studies.measuring import train_and_measure

        for line in grid.run(grid.chosen(every, args.cells, args.part), study, train_and_measure):
            print(line, flush=True)
    print(grid.status(every))
    if any(cell.result for cell in every):
        told = contrasts.summary(study, every)
        command = shlex.join(["flashjax", *(word for word in sys.argv[1:] if word != "--list")])
        folder, name = Path(args.docs or out), Path(args.study).stem
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(told, indent=1) + "\n")
        (folder / f"{name}.html").write_text(page.page(told, every, command))
        (folder / f"{name}.md").write_text(contrasts.markdown(told, command))
        print(folder / f"{name}.html")


def _part(text: str) -> tuple[int, int]:
    """An argparse type: 2/3 is the second of three parts."""
    if not re.fullmatch(r"[1-9]\d*/[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a part; write 1/2")
    first, _, of = text.partition("/")
    return int(first), int(of)
