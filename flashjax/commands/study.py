"""``flashjax study``: a grid of runs times seeds, with intervals."""

import argparse
import re
import shlex
import sys

_PAGES = (".json", ".html", ".md")  # beside the cells


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", help="file of the study, as in configs/studies/")
    parser.add_argument("--out", help="folder of its cells (default: studies/NAME)")
    parser.add_argument("--docs", help="folder of the page, the table and the figures (default: --out)")
    parser.add_argument("--list", action="store_true", help="say which of the cells are done or missing; no more")
    parser.add_argument("--page", action="store_true", help="write the page of what is finished; run none")
    parser.add_argument("--cells", nargs="+", default=(), help="run only these (default: all)")
    parser.add_argument("--accept", nargs="+", default=(), metavar="CODE", help="take cells of this other code too")
    parser.add_argument("--repeat", action="store_true", help="run finished cells once more, elsewhere, and compare")
    parser.add_argument("--part", type=_part, default=(1, 1), help="run one part of the cells, as in 1/2 and 2/2")


def run(args: argparse.Namespace) -> int:
    import tempfile
    from pathlib import Path

    from flashjax.commands import needs, quiet
    from flashjax.errors import UserError
    from flashjax.studies import grid, kept
    from flashjax.workdir import check_folder, check_out

    quiet()
    study, name = grid.load(args.study), Path(args.study).stem
    out = Path(args.out or f"studies/{name}")
    file = Path(args.docs or out, f"{name}.jsonl")
    elsewhere, version = kept.read(file), grid.code_version()  # of what runs: the files may change meanwhile
    every = grid.cells(study, out, elsewhere, args.accept, version)
    chosen, failed = grid.chosen(every, args.cells, args.part), False
    if args.list:
        print(grid.status(chosen))
        return 0
    needs("postcards", "jinja2")
    if not args.repeat:
        check_out(file, _PAGES, flag="--docs" if args.docs else "--out")
        check_folder(out, f"--out {out}")
        kept.check_none_lost(file, elsewhere, every)
    from flashjax.studies.measuring import check_read, train_and_measure

    check_read(every, study.measure)
    if args.repeat:
        finished = [cell for cell in chosen if cell.result is not None]
        if not finished:
            raise UserError("None of these cells is finished, so there is nothing to repeat; --list says which are.")
        with tempfile.TemporaryDirectory() as folder:
            for cell in finished:
                print(line := grid.repeat(cell, study, train_and_measure, Path(folder)), flush=True)
                failed |= " differ: " in line
        return int(failed)
    try:
        for line in grid.run([] if args.page else chosen, study, train_and_measure, version):
            print(line, flush=True)
            failed |= ": FAILED: " in line
    finally:  # what is finished is told, however the rest ended; others may have written meanwhile
        every = grid.cells(study, out, kept.read(file), args.accept, version)
        print(grid.status(every))
        _write(study, every, file)
    return int(failed)


def _write(study, every, file) -> None:
    """The page, its table and figures, and the cells."""
    import json

    from flashjax.files import write_whole
    from flashjax.studies import contrasts, kept, page

    if not any(cell.result for cell in every):
        return
    told = contrasts.summary(study, every)
    command = shlex.join(["flashjax", *(word for word in sys.argv[1:] if word != "--page")])
    file.parent.mkdir(parents=True, exist_ok=True)
    kept.write(file, every)
    texts = json.dumps(told, indent=1) + "\n", page.page(told, every, command), contrasts.markdown(told, command)
    for suffix, written in zip(_PAGES, texts, strict=True):
        write_whole(file.with_suffix(suffix), written.encode())
    print(file.with_suffix(".html"))


def _part(text: str) -> tuple[int, int]:
    """An argparse type: 2/3 is the second of three parts."""
    if not re.fullmatch(r"[1-9]\d*/[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a part; write 1/2")
    first, _, of = text.partition("/")
    return int(first), int(of)
