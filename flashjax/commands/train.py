"""``flashjax train``: run a configuration."""

import argparse
import contextlib
import os
import signal
from collections.abc import Iterator

from absl import logging

from flashjax.commands import quiet
from flashjax.errors import TRY_AGAIN


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
    with stopping_at_once():
        config = configs.load([f"--config={args.config}", *args.settings])
        from flashjax.train import train  # slow to import: a misspelt setting is told before

        train(config, args.workdir, args.change_mixture)


@contextlib.contextmanager
def stopping_at_once() -> Iterator[None]:
    """SIGTERM ends the process with TRY_AGAIN while it imports, for seconds, what then hears it itself
    (parallel.stopping): its default status says to clusters that the run is not to be started again."""
    before = signal.signal(signal.SIGTERM, lambda *_: os._exit(TRY_AGAIN))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
