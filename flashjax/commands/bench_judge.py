"""``flashjax bench judge``: pictures of systems to judges behind OpenAI-compatible endpoints."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from flashjax.commands import non_negative, positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bench", required=True, help="prompts, JSONL of flashjax bench prompts")
    parser.add_argument(
        "--pictures", required=True, nargs="+", metavar="NAME=DIR", help="systems and the folders of their pictures"
    )
    parser.add_argument("--reference", help="name of the system that all others are compared with, in both orders")
    parser.add_argument("--sources", help="folder of the source pictures of edits")
    parser.add_argument("--judges", required=True, help="judges.json: name, url, model, key_env or key_file, ...")
    parser.add_argument("--prices", help="prices.json: model to input, output (dollars a million tokens), image_tokens")
    parser.add_argument("--budget", type=dollars, help="US dollars that everything in --out may cost in all")
    parser.add_argument("--out", required=True, help="folder of journal.jsonl (all replies) and scores.jsonl")
    parser.add_argument("--limit", type=positive, help="use only so many prompts (default: all)")
    parser.add_argument("--probes", type=non_negative, default=20, help="pictures a probe (default %(default)s)")
    parser.add_argument("--drift", metavar="RUN", help="score a frozen set anew under this name, a date for instance")
    parser.add_argument("--dry-run", action="store_true", help="print the number of calls and their cost, ask nothing")


def run(args: argparse.Namespace) -> int | None:
    from flashjax.bench import config, judging, prompts
    from flashjax.bench.journal import Journal
    from flashjax.commands import quiet

    quiet()
    judges = config.read_judges(args.judges, args.prices)
    bench = prompts.read_bench(args.bench, args.limit)
    calls = _plan(args, judges, bench)
    if args.dry_run:
        print(estimate(calls, args.out, args.budget))
        return None
    with Journal(args.out) as journal:
        if doubtful := sum(key not in journal.replies for key in journal.doubtful):
            print(f"{doubtful} calls were under way when a run was killed and may be charged twice.")
        todo = sum(row["to_ask"] for row in judging.dry_run(calls, journal.replies))
        unasked = _judged(judging, calls, journal, args.budget, todo)
        rows = judging.results(calls, journal, unasked)
        judging.write_rows(Path(args.out) / "scores.jsonl", rows)
        dollars = journal.spent
    for name, kinds in judging.counts(rows).items():
        print(f"{name}: " + ", ".join(f"{count} {kind}" for kind, count in kinds.items()))
    for reason in dict.fromkeys(unasked.values()):
        print(f"{sum(r == reason for r in unasked.values())} calls: {reason}")
    print(f"Spent so far: {dollars:.2f} US dollars. Results: {args.out}/scores.jsonl")
    return 1 if unasked or not any(row["outcome"] == "scored" for row in rows) else None


def _judged(judging, calls, journal, budget, todo: int) -> dict[str, str]:
    from tqdm import tqdm

    with tqdm(total=todo, desc="judging", unit="call") as bar:
        return judging.judge(calls, journal, budget, bar.update)


def _plan(args: argparse.Namespace, judges: Sequence, bench: Sequence) -> list:
    from flashjax.bench import plan
    from flashjax.errors import UserError

    systems = plan.read_systems(args.pictures, bench)
    if args.reference and args.reference not in systems:
        raise UserError(f"--reference {args.reference} is none of the systems {', '.join(systems)}.")
    sources, calls = plan.find_sources(bench, args.bench, args.sources), []
    for name, pictures in systems.items():
        calls += plan.points(bench, name, pictures, judges, sources)
        if args.reference and name != args.reference:
            reference = args.reference, systems[args.reference]
            calls += plan.pairs(bench, name, pictures, *reference, judges, sources)
    first = next(iter(systems))
    probed = bench, first, systems[first], judges, sources, args.probes
    calls += plan.injections(*probed, Path(args.out) / "probes")
    return calls + (plan.drift(*probed, args.drift) if args.drift else [])


def estimate(calls: Sequence, out: str, budget: float | None) -> str:
    """What is to be asked and what that costs, beyond what the journal of ``out`` has. Raises UserError: a budget for
    calls without prices."""
    from flashjax.bench import judging
    from flashjax.bench.journal import Journal

    judging.check_budget(calls, budget)
    journal = Journal(out).read()
    rows, lines = judging.dry_run(calls, journal.replies), []
    for row in rows:
        price = "no price" if row["most"] is None else f"about {row['about']:.2f}, at most {row['most']:.2f} US dollars"
        known = f"{row['calls']} calls, {row['answered']} answered, {row['to_ask']} to ask"
        lines.append(f"{row['judge']}: {known}, {price}")
    if all(row["most"] is not None for row in rows):
        about, most = (sum(row[name] for row in rows) for name in ("about", "most"))
        lines.append(f"In all about {about:.2f}, at most {most:.2f} US dollars, if no answer is lost on its way")
        if budget is not None:
            lines.append(_suffices(budget, journal.spent, about, most))
    return "\n".join(lines)


def _suffices(budget: float, spent: float, about: float, most: float) -> str:
    left = max(0.0, budget - spent)
    fits = "suffices" if most <= left else "may not suffice" if about <= left else "will not suffice"
    return f"The budget of {budget:.2f} {fits}: {spent:.2f} are spent, {left:.2f} are left"


def dollars(text: str) -> float:
    """An argparse type: an amount above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount of US dollars above 0")
    return value
