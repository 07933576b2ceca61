"""``flashjax bench judge``: pictures of systems to judges behind OpenAI-compatible endpoints."""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
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
    parser.add_argument(
        "--drift", metavar="DIR", help="a frozen set to score anew in this and every later run; made if it is not there"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the number of calls and their cost, ask nothing")


def run(args: argparse.Namespace) -> int | None:
    import tempfile

    from flashjax.bench import config, drift, judging, prompts
    from flashjax.bench.journal import Journal
    from flashjax.commands import needs, quiet

    needs("judge", "aiohttp")
    quiet()
    judges = config.read_judges(args.judges, args.prices)
    bench = prompts.read_bench(args.bench, args.limit)
    if args.dry_run:
        with tempfile.TemporaryDirectory() as probes:
            print(estimate(_plan(args, judges, bench, Path(probes)), args.out, args.budget))
        return None
    with Journal(args.out) as journal:  # before the probes are drawn: another run may be sending its own
        calls = _plan(args, judges, bench, Path(args.out) / "probes")
        if doubtful := sum(key not in journal.replies for key in journal.doubtful):
            print(f"{doubtful} calls were under way when a run was killed and may be charged twice.")
        todo = sum(row["to_ask"] for row in judging.dry_run(calls, journal.replies))
        unasked = _judged(judging, calls, journal, args.budget, todo)
        rows = judging.results(calls, journal, unasked)
        if frozen := drift.chosen(args.out, None):
            rows = drift.compared(rows, frozen)
        judging.write_rows(Path(args.out) / "scores.jsonl", rows)
        spent = journal.spent
    _tell(rows, unasked)
    print(f"Spent so far: {spent:.2f} US dollars. Results: {args.out}/scores.jsonl")
    again = unasked or any(row["outcome"] in ("failed", "rejected") for row in rows)
    return 1 if again or not any(row["outcome"] == "scored" for row in rows) else None


def _tell(rows: Sequence[dict], unasked: Mapping[str, str]) -> None:
    """Prints what came of the calls, and why some were not made."""
    from flashjax.bench import judging

    for name, kinds in judging.counts(rows).items():
        print(f"{name}: " + ", ".join(f"{count} {kind}" for kind, count in kinds.items()))
    lost = Counter((r["judge"], r["reason"]) for r in rows if r["outcome"] in ("failed", "rejected"))
    for (name, reason), count in lost.most_common(3):
        print(f"{name}: {count} without an answer: {reason}")
    for reason in dict.fromkeys(unasked.values()):
        print(f"{sum(r == reason for r in unasked.values())} calls: {reason}")
    for line in _moves(rows):
        print(line)


def _moves(rows: Sequence[dict]) -> list[str]:
    """What the frozen set says, a line a judge."""
    from flashjax.bench.summary import drift_of

    lines = []
    for d in drift_of(rows):
        if d["since"] is None:
            told = f"{d['scored']} of {d['asked']} pictures scored for the first time on {d['day']}"
        elif d["low"] is None:
            told = f"too few answers since {d['since']} ({d['n']} of {d['asked']})"
        else:
            told = f"{d['value']:+.2f} ({d['low']:.2f} to {d['high']:.2f}) since {d['since']}, n = {d['n']}"
        lines.append(f"{d['judge']}, frozen set: {told}" + ("; this judge moves" if d["moved"] else ""))
    return lines


def _judged(judging, calls, journal, budget, todo: int) -> dict[str, str]:
    from tqdm import tqdm

    with tqdm(total=todo, desc="judging", unit="call") as bar:
        return judging.judge(calls, journal, budget, bar.update)


def _plan(args: argparse.Namespace, judges: Sequence, bench: Sequence, probes: Path) -> list:
    """All calls; the pictures of the injection probe are drawn into the folder ``probes``."""
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
    calls += plan.injections(bench, first, systems[first], judges, sources, args.probes, probes)
    return calls + _drift(args, judges, (bench, systems[first], sources, args.probes))


def _drift(args: argparse.Namespace, judges: Sequence, pickable: tuple) -> list:
    """The calls of the frozen set, which is made where it is named for the first time."""
    from flashjax.bench import drift

    folder = drift.chosen(args.out, args.drift)
    if folder is None:
        return []
    frozen = drift.read(folder) if folder.exists() else drift.pick(*pickable)
    if not args.dry_run:
        if not folder.exists():
            drift.freeze(frozen, folder)
            print(f"{len(frozen.prompts)} pictures are frozen in {folder}; give it to other runs to compare with them.")
        drift.remember(args.out, folder)
    return drift.calls(frozen, judges, drift.today())


def estimate(calls: Sequence, out: str, budget: float | None) -> str:
    """What is to be asked and what that costs, beyond what the journal of ``out`` has. Raises UserError: a budget for
    calls without prices."""
    from flashjax.bench import judging
    from flashjax.bench.journal import Journal

    judging.check_budget(calls, budget)
    journal = Journal(out).read()
    rows, lines = judging.dry_run(calls, journal.replies), []
    for row in rows:
        known = f"{row['calls']} calls, {row['answered']} answered, {row['to_ask']} to ask"
        lines.append(f"{row['judge']}: {known}, {_price(row)}")
    if all(row["most"] is not None for row in rows):
        about, most = (sum(row[name] for row in rows) for name in ("about", "most"))
        lines.append(f"In all about {about:.2f}, at most {most:.2f} US dollars, if no answer is lost on its way")
        if budget is not None:
            lines.append(_suffices(budget, journal.spent, about, most))
    return "\n".join(lines)


def _price(row: dict) -> str:
    if row["about"] is None:
        return "no price"
    if row["most"] is None:
        return f"about {row['about']:.2f} US dollars, and no highest price, as its params have no max_tokens"
    return f"about {row['about']:.2f}, at most {row['most']:.2f} US dollars"


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
