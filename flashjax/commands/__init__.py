"""The sub-commands: each module has ``add_arguments(parser)`` and ``run(args)``."""

import argparse
import logging as std_logging

from absl import logging

SEEDS = 2**32  # jax takes its seeds from 32 bits
LARGE = 3e38  # the end of float32: a guidance beyond it drew black pictures


def needs(extra: str, *modules: str) -> None:
    """Raises UserError where a module of an extra is not installed: first of all, and not in the middle of the work."""
    import importlib.util

    from flashjax.errors import UserError

    if missing := [name for name in modules if importlib.util.find_spec(name) is None]:
        raise UserError(f"This needs {', '.join(missing)}; run `pip install 'flashjax[{extra}]'`.")


def quiet() -> None:
    """absl's log on stderr in short lines; libraries only from warnings on (Orbax writes thirty lines a checkpoint)."""
    logging.use_absl_handler()
    handler = logging.get_absl_handler()
    handler.setFormatter(std_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    handler.addFilter(lambda record: record.levelno >= std_logging.WARNING or "NOTE" in record.getMessage())
    # Its background threads log the traceback of what is raised later anyway, several times over.
    handler.addFilter(lambda record: not (record.exc_info and "orbax" in record.pathname))


def positive(text: str) -> int:
    """An argparse type: 1, 2, 3, ..."""
    return _whole(text, 1)


def in_pixels(text: str) -> int:
    """An argparse type: the side of a picture in pixels."""
    return _whole(text, 1, 2**14 + 1)


def enlargement(text: str) -> int:
    """An argparse type: how many pixels a pixel becomes, each way."""
    return _whole(text, 1, 65)


def a_category(text: str) -> int:
    """An argparse type: prompts of a category; more than all benches have is a slip that takes days."""
    return _whole(text, 1, 10**6 + 1)


def non_negative(text: str) -> int:
    """An argparse type: 0, 1, 2, ..."""
    return _whole(text, 0)


def seed(text: str) -> int:
    """An argparse type: a seed of 32 bits."""
    return _whole(text, 0, SEEDS)


def finite(text: str) -> float:
    """An argparse type: a number, neither infinite nor nan, in float32 neither."""
    try:
        value = float(text)
    except ValueError:
        value = LARGE
    if not abs(value) < LARGE:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value


def _whole(text: str, low: int, end: int | None = None) -> int:
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or value < low or (end is not None and value >= end):
        upwards = f"from {low} on" if end is None else f"from {low} to {end - 1}"
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {upwards}")
    return value
