"""``flashjax bench report``: what judges said, as one page, JSON and CSV."""

import argparse
import shlex
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bench", required=True, help="prompts, JSONL")
    parser.add_argument("--pictures", required=True, nargs="+", metavar="NAME=DIR", help="as bench judge has them")
    parser.add_argument("--sources", help="folder of the source pictures of edits, as bench judge has it")
    parser.add_argument("--judged", required=True, help="folder that bench judge wrote (--out there)")
    parser.add_argument(
        "--reference", help="name of the system that all others are compared with (default: that of the pairs)"
    )
    parser.add_argument("--measures", help="measures.json of flashjax bench measure, shown as a table")
    parser.add_argument("--title", default="Judged pictures", help="the heading (default '%(default)s')")
    parser.add_argument("--out", required=True, help="report.html to write; .json and .csv go beside it")


def run(args: argparse.Namespace) -> None:
    from pathlib import Path

    from flashjax.bench import plan, prompts
    from flashjax.bench._measures import read_measures
    from flashjax.bench.scores import read_scores
    from flashjax.commands import needs
    from flashjax.errors import UserError
    from flashjax.workdir import check_out

    needs("judge", "jinja2")
    from flashjax.bench.report import write_report

    if Path(args.out).suffix.lower() != ".html":
        raise UserError(f"--out {args.out} has to end in .html.")
    check_out(Path(args.out), (".json", ".csv"), read=[args.bench, *([args.measures] if args.measures else [])])
    scores = Path(args.judged) / "scores.jsonl"
    if not scores.is_file():
        raise UserError(f"There is no {scores}; run flashjax bench judge first.")
    rows = read_scores(scores)
    points = [row for row in rows if row["kind"] == "point"]
    systems, judged = ({row[name] for row in points} for name in ("system", "prompt"))
    if args.reference and args.reference not in systems:
        raise UserError(f"--reference {args.reference} is none of the judged systems {', '.join(sorted(systems))}.")
    every = prompts.read_bench(args.bench)
    bench = [p for p in every if p.id in judged]
    if unknown := sorted(judged - {p.id for p in bench}):
        raise UserError(f"{scores} judges {unknown[0]}, which is not in {args.bench}; give the bench that was judged.")
    pictures = plan.read_systems(args.pictures, bench)
    if bare := sorted(systems - set(pictures)):
        raise UserError(f"--pictures has no folder of {', '.join(bare)}, which {scores} judges; give it too.")
    for row in points:  # rows of older versions do not tell
        shown = pictures[row["system"]].get(row["prompt"], {}).get(row["seed"])
        if row.get("pictures") and (shown is None or shown.digest != row["pictures"][-1]):
            raise UserError(
                f"{row['prompt']}_{row['seed']}.png of {row['system']} is not the picture that {scores} judges; give "
                "the folder that was judged, or run flashjax bench judge again."
            )
    sources, command = plan.find_sources(bench, args.bench, args.sources), shlex.join(["flashjax", *sys.argv[1:]])
    told = dict(title=args.title, command=command, reference=args.reference)
    measures = read_measures(args.measures, args.bench, every, pictures) if args.measures else None
    write_report(args.out, rows, bench, pictures, sources=sources, measures=measures, **told)
    print(f"Report: {args.out}")
