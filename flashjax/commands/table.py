"""``flashjax table``: what every step of a run will do."""

import argparse

from flashjax.commands import non_negative


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "flashjax table --config=FILE[:ARGS] [--rows N] [--parameters] [--config.KEY=VALUE ...]"
    parser.add_argument("--config", required=True, help="configuration file, with its arguments after a colon")
    parser.add_argument("--rows", type=non_negative, default=12, help="how many rows to print (default 12)")
    parser.add_argument("--parameters", action="store_true", help="print where every parameter lies, instead")
    parser.set_defaults(takes_settings=True)


def run(args: argparse.Namespace) -> None:
    from flashjax import config as configs
    from flashjax.errors import about_settings

    config = configs.load([f"--config={args.config}", *args.settings])
    if args.parameters:
        print(parameters(config))
        return
    # Slow to import: a misspelt setting is told before.
    from flashjax.recipe import describe, make_recipe, make_table
    from flashjax.settings import check_settings

    with about_settings():
        check_settings(config)
        table = make_table(config, make_recipe(config.distill) if config.objective != "flow_matching" else None)
    print(describe(config, table))
    for program in table.programs():
        print(f"  program: {program}")
    for step in range(min(args.rows, len(table))):
        print(f"  step {step:>5}  {table.program(step)} k={table.k[step]}")


def parameters(config) -> str:
    """Path, shape, rule and division of every parameter of ``config.model``."""
    from flashjax import models
    from flashjax.parallel import sharding

    model = models.architecture(config.model.architecture)
    return sharding.explain(model.abstract(models.make_config(model, config.model)))
