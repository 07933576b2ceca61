"""``flashjax train``: run a configuration."""

import argparse

from absl import logging

from flashjax.commands import quiet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "flashjax train --config=FILE[:ARGS] --workdir=DIR [--config.KEY=VALUE ...]"
    parser.add_argument("--workdir", required=True, help="folder of the run; an interrupted run in it goes on")
    parser.add_argument("--config", required=True, help="configuration file, with its arguments after a colon")
    parser.add_argument(
        "--change-mixture", action="store_true",
        help="go on with other config.sources or config.edit_share than the run began with; refused otherwise",
    )  # fmt: skip
    parser.set_defaults(takes_settings=True)


def run(args: argparse.Namespace) -> None:
    from flashjax import config as configs

    quiet()
    logging.set_verbosity(logging.INFO)
    config = configs.load([f"--config={args.config}", *args.settings])
    from flashjax.train import train  # slow to import: a misspelt setting is told before

    train(config, args.workdir, args.change_mixture)
