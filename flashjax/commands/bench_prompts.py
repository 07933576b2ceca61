"""``flashjax bench prompts``: T2I-Bench and Editing-Bench, new prompts from a language model, or a public bench."""

import argparse
from pathlib import Path

from flashjax.commands import a_category, seed
from flashjax.commands.bench_judge import dollars, estimate

_T2I, _EDITS = 600, 250  # prompts a category, as the paper has them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, help="folder for t2i.jsonl and edit.jsonl")
    parser.add_argument("--t2i", type=a_category, help=f"prompts a category, of three (default {_T2I})")
    parser.add_argument("--edits", type=a_category, help=f"edits a category, of six (default {_EDITS})")
    parser.add_argument(
        "--take", nargs=2, metavar=("FORMAT", "PATH"),
        help="import instead: dpg, longtext, imgedit, gedit, or prompts of one's own as jsonl or parquet",
    )  # fmt: skip
    parser.add_argument("--images", help="the source pictures of imgedit")
    parser.add_argument("--seed", type=seed, help="another seed, other prompts (default 0)")
    parser.add_argument(
        "--endpoint", metavar="FILE", help="have new prompts written: a file as judges.json, whose models write in turn"
    )
    parser.add_argument("--prices", help="with --endpoint, as bench judge has it")
    parser.add_argument("--budget", type=dollars, help="US dollars that everything in --out may cost in all")
    parser.add_argument("--dry-run", action="store_true", help="with --endpoint: print calls and cost, ask nothing")


def run(args: argparse.Namespace) -> int | None:
    from flashjax.bench import grammar
    from flashjax.errors import UserError

    _fits(args)
    folder, names = Path(args.out), [args.take[0]] if args.take else ["t2i", "edit"]
    if there := [name for name in names if (folder / f"{name}.jsonl").exists()]:
        raise UserError(f"{folder}/{there[0]}.jsonl exists; give a new --out, nothing is overwritten.")
    if args.endpoint:
        return _written(args, folder)
    if args.take:
        made = _taken(args, folder)
    else:
        made = {"t2i": grammar.t2i_bench(args.t2i, args.seed), "edit": grammar.editing_bench(args.edits, args.seed)}
    _save(folder, made)
    return None


def _fits(args: argparse.Namespace) -> None:
    """Settles the numbers by default. Raises UserError where an option would have no effect."""
    from flashjax.errors import UserError, refuse_options

    if args.take and args.endpoint:
        raise UserError("--take imports a bench and --endpoint has one written; give one of them.")
    if args.images and not (args.take and args.take[0] == "imgedit"):
        raise UserError("--images names the source pictures of --take imgedit, and of nothing else.")
    if not args.endpoint:
        refuse_options(args, dict(prices=None, budget=None, dry_run=False), "without --endpoint")
    if args.take:
        refuse_options(args, dict.fromkeys(("t2i", "edits", "seed")), "with --take, which imports all that there is")
    for name, number in (("t2i", _T2I), ("edits", _EDITS), ("seed", 0)):
        setattr(args, name, number if getattr(args, name) is None else getattr(args, name))


def _taken(args: argparse.Namespace, folder: Path) -> dict:
    from flashjax.bench import importing
    from flashjax.errors import UserError

    kind, path = args.take
    if kind not in importing.FORMATS:
        raise UserError(f"--take {kind}: there are {', '.join(importing.FORMATS)}.")
    made = importing.take(kind, path, folder, args.images)
    if len({p.is_edit for p in made}) > 1:
        raise UserError(f"{path} mixes edits, which name a source, with text to image; make two files of them.")
    return {kind: made}


def _written(args: argparse.Namespace, folder: Path) -> int | None:
    """New prompts of all categories; what was paid for stays in the journal of the folder if this has to stop."""
    from tqdm import tqdm

    from flashjax.bench import config, grammar, writing
    from flashjax.bench.journal import Journal
    from flashjax.bench.rubrics import EDITS
    from flashjax.commands import needs, quiet
    from flashjax.errors import UserError

    needs("judge", "aiohttp")
    quiet()
    writers = config.read_judges(args.endpoint, args.prices, most_tokens=4096)
    kinds = {"t2i": ("landscape", "portrait", "text"), "edit": tuple(EDITS)}
    counts = {"t2i": args.t2i, "edit": args.edits}
    wanted = [(kind, category) for kind in kinds for category in kinds[kind]]
    if args.dry_run:
        plans = (writing.plan(writers, category, k == "edit", counts[k], args.seed) for k, category in wanted)
        print(estimate([call for calls in plans for call in calls], args.out, args.budget))
        return None
    known = {"t2i": grammar.t2i_bench(), "edit": grammar.editing_bench()}
    found = {}
    with Journal(folder) as journal, tqdm(desc="writing", unit="call") as bar:
        for kind, category in wanted:
            found[kind, category] = new = writing.write(
                writers, category, kind == "edit", counts[kind], known[kind], journal,
                seed=args.seed, budget=args.budget, tick=bar.update,
            )  # fmt: skip
            if new.unasked:
                break
    _tell(found, counts)
    if new.unasked:
        print(f"{len(new.unasked)} calls have no reply: {next(iter(new.unasked.values()))}")
        print(f"Nothing is written; what came so far is kept in {folder}, and the same command goes on from there.")
        return 1
    made = {kind: [p for (k, _), new in found.items() if k == kind for p in new.prompts] for kind in kinds}
    if not any(made.values()):
        raise UserError(f"No reply held a prompt that passes; give {args.endpoint} another model.")
    _save(folder, {kind: bench for kind, bench in made.items() if bench})
    return None


def _tell(found: dict, counts: dict) -> None:
    """Prints what was thrown away, and where fewer came than were asked for."""
    for (kind, category), new in found.items():
        for reason, count in new.thrown.items():
            print(f"{kind} {category}: {count} left out, {reason}")
        if not new.unasked and len(new.prompts) < counts[kind]:
            print(f"{kind} {category}: only {len(new.prompts)} of {counts[kind]} came; another --seed asks for others.")


def _save(folder: Path, made: dict) -> None:
    from flashjax.bench import grammar, prompts

    folder.mkdir(parents=True, exist_ok=True)
    for name, bench in made.items():
        prompts.write_bench(folder / f"{name}.jsonl", bench)
        print(f"{folder}/{name}.jsonl: {len(bench)} prompts")
        for category, told_ in grammar.describe(bench).items():
            shares = {k: f"{told_[k]:.0%}" for k in ("over_100", "over_200", "over_300", "medium", "hard")}
            length = "/".join(str(v) for v in told_["words"].values())
            print(
                f"  {category}: {told_['prompts']}, {told_['chinese']} of them Chinese; "
                f"words {length} (5, 50, 95, 100 %), {shares['over_100']} over 100, "
                f"{shares['over_200']} over 200, {shares['over_300']} over 300; {told_['facts']} facts and "
                f"{told_['letters']} letters to render on average; {shares['medium']} medium, {shares['hard']} hard"
            )
