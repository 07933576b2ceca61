"""``flashjax plan``: does a run fit on a TPU slice, and what would it cost, before there is one."""

import argparse
import datetime
import json
import shlex
import sys
from functools import partial
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "flashjax plan --config=FILE[:ARGS] [--topology v5p:2x2x2 ...] [--devices gpu:8xh200 ...] [--programs REGEX] "
        "[--effort least|usual] [--json] [--config.KEY=VALUE ...]"
    )
    parser.add_argument("--config", required=True, help="configuration file, with its arguments after a colon")
    parser.add_argument("--topology", nargs="+", default=[], help="TPU slices to compile for, as v6e:2x2 v5p:2x2x2")
    parser.add_argument("--devices", nargs="+", default=[], help="other devices, counted and not compiled: gpu:8xh200")
    parser.add_argument(
        "--effort", choices=("least", "usual"), default="least",
        help="of the compiler; usual: as train compiles, in three times the time, for slightly fewer temporaries",
    )  # fmt: skip
    parser.add_argument(
        "--programs", default="", metavar="REGEX",
        help="compile only those that it finds by name, and the rollout's beginning: '^(student|critic)' need the most",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print numbers for programs")
    parser.set_defaults(takes_settings=True)


def run(args: argparse.Namespace) -> None:
    from flashjax import config as configs
    from flashjax.errors import UserError

    if not args.topology and not args.devices:
        raise UserError("Nothing to plan for: give --topology v5p:2x2x2 (one or more), or --devices gpu:8xh200.")
    config = configs.load([f"--config={args.config}", *args.settings])
    from flashjax import plan as plans

    targets = [*map(plans.topology, args.topology), *map(plans.devices, args.devices)]
    tell = partial(print, file=sys.stderr, flush=True)
    planned = plans.plan_all(config, targets, args.effort, args.programs, tell)
    found = [
        dict(command=command(args, target), date=f"{datetime.date.today()}") | plan
        for target, plan in zip(targets, planned, strict=True)
    ]
    if len(found) > 1:
        best = cheapest(found)
        found = [plan | dict(fewest_chip_hours=plan is best) for plan in found]
    print(json.dumps(found, indent=1) if args.json else "\n\n".join(map(describe, found)))
    if len(found) > 1 and not args.json:
        print(f"\n{told_cheapest(found)}")


def command(args: argparse.Namespace, target: Any) -> str:
    """What plans for this target alone."""
    options = ["--topology" if target.devices is not None else "--devices", target.name]
    options += [] if args.effort == "least" else ["--effort", args.effort]
    options += ["--programs", shlex.quote(args.programs)] if args.programs else []
    return " ".join(["flashjax plan", f"--config={args.config}", *options, *map(shlex.quote, args.settings)])


def describe(found: dict) -> str:
    """A plan for people."""
    if "problem" in found:
        return f"{found['target']}: {found['chips']} chips\n  {verdict(found)}"
    mesh = " ".join(f"{axis} {size}" for axis, size in found["mesh"].items())
    lines = [f"{found['target']}: {found['chips']} chips as {mesh}; {found['parameters']:,} parameters, "
             f"{found['teachers']} teachers"]  # fmt: skip
    lines.append(f"  {verdict(found)}")
    if found["left_out"]:
        lines.append(f"  not compiled, so that nothing is known of them: {', '.join(found['left_out'])}")
    for name, size in (("state, teachers, batches", "resident"), ("largest temporaries", "temporaries"),
                       ("total", "total"), ("limit", "limit")):  # fmt: skip
        value = found[f"{size}_bytes"]
        told = f"{value / 2**30:>9.3f} GiB a device" if value is not None else "  not known"
        lines.append(f"    {name:<26}{told}")
    for name, program in found["programs"].items():
        if "refused" not in program:
            lines.append(f"    program {name:<24}{program['temporaries_bytes'] / 2**30:>9.3f} GiB of temporaries")
    lines += [f"    program {name}: {words}" for name, words in found["refused"].items()]
    lines += memory_makers(found)
    cycle = found["flops_of_a_cycle"]
    lines.append(f"  {sum(cycle.values()) / 1e12:.4g} TFLOP a cycle ({found['cycles']} cycles, {found['rows']} rows)")
    lines += [f"    {role:<12}{value / sum(cycle.values()):>6.1%}" for role, value in cycle.items()]
    if "chip_hours_at_peak" in found:
        hours = found["chip_hours_at_peak"]
        lines.append(f"  at the chips' peak {found['cycle_seconds_at_peak']:.4g} s a cycle")
        lines.append(f"  {hours:.4g} chip-hours for the whole run at the peak, {hours / 0.4:.4g} at 40 % of it")
    return "\n".join(lines + bounds(found))


def memory_makers(found: dict) -> list[str]:
    """The largest arrays of the program that needs the most, and what would shrink them."""
    name = found["largest_program"]
    if name is None:
        return []
    lines = [f"  largest results in {name}"]
    for array in found["programs"][name]["largest"]:
        lines.append(f"    {array['bytes'] / 2**30:>9.3f} GiB {array['shape']:<24} {array['knob']}")
    return lines


def bounds(found: dict) -> list[str]:
    """The least time of a cycle, or of calls where not all programs are compiled, and what it is made of."""
    if "least_cycle_seconds" not in found:
        lines = []
        for name, c in found["seconds_of_a_call"].items():
            program = found["programs"][name]
            lines.append(f"  at least {max(c.values()):.4g} s a call of {name}, bound by {max(c, key=c.get)}")
            lines += moves(program["links_bytes"], program["host_bytes"], "a call")
        return lines
    parts = found["cycle_seconds_by_bound"]
    lines = [f"  at least {found['least_cycle_seconds']:.4g} s a cycle, bound by {max(parts, key=parts.get)}; "
             f"{found['least_chip_hours']:.4g} chip-hours"]  # fmt: skip
    lines += [f"    {what:<12}{seconds:>9.4g} s if nothing else took time" for what, seconds in parts.items()]
    return lines + moves(found["links_bytes_of_a_cycle"], found["host_bytes_of_a_cycle"], "a cycle")


def moves(links: dict[str, float], host: dict[str, float], of: str) -> list[str]:
    """What each collective brings over a device's links, and what comes from and goes to the host's memory."""
    collectives = sorted(links.items(), key=lambda pair: -pair[1])
    lines = [f"    {kind:<20}{moved / 1e9:>9.3f} GB {of} over a device's links" for kind, moved in collectives]
    ways = [(way, moved) for way, moved in host.items() if moved]
    return lines + [f"    {way:<20}{moved / 1e9:>9.3f} GB {of} {way} the host's memory" for way, moved in ways]


def verdict(found: dict) -> str:
    if "problem" in found:
        return f"{'fit not known' if found['fits'] is None else 'does not fit'}: {found['problem'].splitlines()[0]}"
    if found["fits"]:
        return f"fits, {found['headroom']:.1%} of the memory left"
    if found["fits"] is None and found["largest_program"]:
        return f"what was compiled fits, {found['headroom']:.1%} of the memory left"
    if found["fits"] is None:
        return "fit not known: temporaries are known only where the compiler is asked (--topology)"
    over = found["total_bytes"] - found["limit_bytes"]
    return "does not fit" + (f" by {over / 2**30:.3f} GiB a device" if over > 0 else "")


def by_hours(found: list[dict]) -> tuple[str, str]:
    """What several targets are compared by, and how it is called: what bounds each, where all programs are compiled for
    all on which the run fits, else operations alone."""
    whole = all("least_chip_hours" in plan for plan in found if plan["fits"])
    return ("least_chip_hours", "at the least") if whole else ("chip_hours_at_peak", "at the chips' peak")


def cheapest(found: list[dict]) -> dict | None:
    """Of the targets on which the run fits the one that takes the fewest chip-hours, None where it fits on none."""
    hours, _ = by_hours(found)
    return min((p for p in found if p["fits"]), key=lambda plan: (plan[hours], plan["chips"]), default=None)


def told_cheapest(found: list[dict]) -> str:
    best, (hours, told) = cheapest(found), by_hours(found)
    if best is None:
        return "It is not known to fit on any of these."
    return f"Fewest chip-hours where it fits: {best['target']}, {best[hours]:.4g} {told}."
