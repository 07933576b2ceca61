"""``flashjax bench prompts``: writes T2I-Bench and Editing-Bench, or imports a public bench."""

import argparse

from flashjax.commands import positive, seed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, help="folder for t2i.jsonl and edit.jsonl")
    parser.add_argument("--t2i", type=positive, default=600, help="prompts a category, of three (default %(default)s)")
    parser.add_argument("--edits", type=positive, default=250, help="edits a category, of six (default %(default)s)")
    parser.add_argument("--take", nargs=2, metavar=("FORMAT", "PATH"), help="import instead: dpg, longtext or imgedit")
    parser.add_argument("--images", help="the source pictures of imgedit")
    parser.add_argument("--seed", type=seed, default=0, help="another seed, other prompts (default 0)")


def run(args: argparse.Namespace) -> None:
    from pathlib import Path

    from flashjax.bench import grammar, importing, prompts
    from flashjax.errors import UserError

    if args.take:
        kind, path = args.take
        if kind not in importing.FORMATS:
            raise UserError(f"--take {kind}: there are {', '.join(importing.FORMATS)}.")
        made = {kind: importing.take(kind, path, args.out, args.images)}
    else:
        made = {"t2i": grammar.t2i_bench(args.t2i, args.seed), "edit": grammar.editing_bench(args.edits, args.seed)}
    folder = Path(args.out)
    if there := [name for name in made if (folder / f"{name}.jsonl").exists()]:
        raise UserError(f"{folder}/{there[0]}.jsonl exists; give a new --out, nothing is overwritten.")
    folder.mkdir(parents=True, exist_ok=True)
    for name, bench in made.items():
        prompts.write_bench(folder / f"{name}.jsonl", bench)
        print(f"{folder}/{name}.jsonl: {len(bench)} prompts")
        for category, told in grammar.describe(bench).items():
            length = "/".join(str(v) for v in told["length"].values())
            print(
                f"  {category}: {told['prompts']}, {told['chinese']} of them Chinese; length {length} (5, 50, 95 %); "
                f"{told['facts']} facts and {told['letters']} letters to render on average; {told['hard']:.0%} hard"
            )
