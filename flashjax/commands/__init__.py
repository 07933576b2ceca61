"""The sub-commands: each module has ``add_arguments(parser)`` and ``run(args)``."""

import logging as std_logging

from absl import logging


def quiet() -> None:
    """absl's log on stderr in short lines; libraries only from warnings on (Orbax writes thirty lines a checkpoint)."""
    logging.use_absl_handler()
    handler = logging.get_absl_handler()
    handler.setFormatter(std_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    handler.addFilter(lambda record: record.levelno >= std_logging.WARNING or "NOTE" in record.getMessage())
    # Its background threads log the traceback of what is raised later anyway, several times over.
    handler.addFilter(lambda record: not (record.exc_info and "orbax" in record.pathname))
