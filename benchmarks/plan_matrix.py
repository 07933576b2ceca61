"""The matrix of docs/plan.md from what ``flashjax plan --json`` printed.

    flashjax plan --config=configs/qwen_image_21.py:lora --topology v6e:2x2 --json > docs/plans/21_lora_v6e4.json
    python benchmarks/plan_matrix.py                      # writes the page
    python benchmarks/plan_matrix.py --again 21_lora_v6e4 # plans anew with the commands of these files first, or of all

What stands between the marks of docs/plan.md is made from all files in docs/plans, each one or more plans; those called
scaling_... are of one run on slices of several sizes, with the same work for every chip.
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

from flashjax.commands.plan import verdict

MARK = "<!-- {}: made by benchmarks/plan_matrix.py -->\n", "<!-- end of {} -->"
HEAD = (
    "run", "slice", "mesh", "fits", "GiB a device: there all along", "temporaries", "limit",
    "least s, bound by", "compiled in, programs",
)  # fmt: skip


def matrix(plans: list[dict]) -> str:
    """A table with a row for each plan, the collectives of each, and the commands."""
    lines = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    lines += [f"| {' | '.join(row(i, plan))} |" for i, plan in enumerate(plans, 1)]
    lines += ["", "Largest results of the program that needs most, and what its call brings over a device's links:", ""]
    lines += [f"{i}. {details(plan)}" for i, plan in enumerate(plans, 1)]
    commands = "\n".join(f"    {i:>2}  {plan['date']}  {plan['command']}" for i, plan in enumerate(plans, 1))
    return "\n".join([*lines, "", "Day and command:", "", commands])


def row(number: int, plan: dict) -> list[str]:
    def gib(name):
        return f"{plan[name] / 2**30:.2f}" if plan[name] is not None else "?"

    if "problem" in plan:
        return [f"{number} {run_of(plan)}", plan["target"], "", verdict(plan), *[""] * 5]
    programs = plan["programs"]
    seconds = sum(program.get("seconds", 0) for program in programs.values())
    return [
        f"{number} {run_of(plan)}", plan["target"], mesh_of(plan), verdict(plan), gib("resident_bytes"),
        gib("temporaries_bytes"), gib("limit_bytes"), least(plan), f"{seconds:.0f} s, {', '.join(programs)}",
    ]  # fmt: skip


def run_of(plan: dict) -> str:
    file = re.search(r"--config=(\S+)", plan["command"])[1]
    held = re.findall(r"--config\.teacher_\w+=(\S+)", plan["command"])
    return " ".join([file.rpartition("/")[2].replace(".py", ""), *held])


def mesh_of(plan: dict) -> str:
    return " ".join(f"{axis} {size}" for axis, size in plan["mesh"].items() if size > 1)


def least(plan: dict) -> str:
    """Seconds of a cycle, or of a call of the program that needs most where others are not compiled."""
    if "cycle_seconds_by_bound" in plan:
        parts = plan["cycle_seconds_by_bound"]
        return f"{plan['least_cycle_seconds']:.3g} a cycle, {max(parts, key=parts.get)}"
    parts = plan["seconds_of_a_call"].get(plan["largest_program"])
    return f"{max(parts.values()):.3g} a call, {max(parts, key=parts.get)}" if parts else "?"


def details(plan: dict) -> str:
    if "problem" in plan:
        return plan["problem"].splitlines()[0]
    if plan["refused"]:
        return "; ".join(f"{name}: {words}" for name, words in plan["refused"].items())
    program = plan["programs"][plan["largest_program"]]
    told = [f"{array['bytes'] / 2**30:.2f} GiB {array['shape']} ({array['knob']})" for array in program["largest"]]
    moved = program["links_bytes"].items()
    told += [f"{kind} {bytes_ / 1e9:.3g} GB" for kind, bytes_ in moved if bytes_ > 1e6]
    return f"{plan['largest_program']}: {'; '.join(dict.fromkeys(told))}"


def scaling(plans: list[dict]) -> str:
    """A table of what each program takes of a chip and moves in a call, the slices below one another."""
    compiled = [
        (name, plan, program)
        for plan in sorted(plans, key=lambda plan: plan["chips"])
        for name, program in plan.get("programs", {}).items()
        if "links_bytes" in program  # others were refused
    ]
    names = list(dict.fromkeys(name for name, _, _ in compiled))
    kinds = sorted({kind for _, _, program in compiled for kind in program["links_bytes"]})
    lines = ["| program | slice | mesh | temporaries, MiB |" + "".join(f" {kind}, MiB |" for kind in kinds)]
    lines.append("|---|---|---|---|" + "---|" * len(kinds))
    for name, plan, program in sorted(compiled, key=lambda row: names.index(row[0])):
        moved = (program["links_bytes"].get(kind, 0) for kind in kinds)
        figures = (f" {bytes_ / 2**20:.3f} |" for bytes_ in (program["temporaries_bytes"], *moved))
        lines.append(f"| {name} | {plan['target']} | {mesh_of(plan)} |{''.join(figures)}")
    return "\n".join([*lines, "", *(f"    {plan['date']}  {plan['command']}" for plan in plans)])


def written(page: str, name: str, table: str) -> str:
    """The page with the table between its marks. Raises ValueError where the page has none."""
    begin, end = (mark.format(name) for mark in MARK)
    start = page.index(begin) + len(begin)
    return f"{page[:start]}{table}\n{page[page.index(end) :]}"


def page_of(docs: Path) -> str:
    """docs/plan.md as the plans have it."""
    files = {path.stem: json.loads(path.read_text()) for path in sorted((docs / "plans").glob("*.json"))}
    scaled, others = ([p for name, ps in files.items() if name.startswith("scaling") == s for p in ps] for s in (1, 0))
    return written(written((docs / "plan.md").read_text(), "plans", matrix(others)), "scaling", scaling(scaled))


def again(path: Path) -> None:
    """Plans with the commands that a file's plans were made by, and keeps what they say now."""
    plans = [new for plan in json.loads(path.read_text()) for new in planned(plan)]
    path.write_text(json.dumps(plans, indent=1) + "\n")


def planned(plan: dict) -> list[dict]:
    """What the plan's command says now. Of several slices the command had one with a problem as an answer, which alone
    is an error: it stays as it was."""
    words = [sys.executable, "-m", "flashjax.cli", *shlex.split(plan["command"])[1:], "--json"]
    done = subprocess.run(words, check="problem" not in plan, stdout=subprocess.PIPE, text=True)
    return [plan] if done.returncode else json.loads(done.stdout)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--again", nargs="*", metavar="NAME")
    names = parser.parse_args().again
    docs = Path(__file__).parent.parent / "docs"
    for path in sorted((docs / "plans").glob("*.json")) if names is not None else ():
        if path.stem in names or not names:
            again(path)
    (docs / "plan.md").write_text(page_of(docs))
