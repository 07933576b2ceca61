"""Errors that a person caused and a person can mend."""

import contextlib
from collections.abc import Iterator


class UserError(ValueError):
    """A sentence for the reader: what is wrong, where, and what to do. The command line prints it without a traceback
    (``--debug`` shows one) and exits with ``status``."""

    status = 2


@contextlib.contextmanager
def about_settings() -> Iterator[None]:
    """A ValueError of functions that know of no configuration is a setting that the reader has to mend."""
    try:
        yield
    except ValueError as error:
        raise error if isinstance(error, UserError) else UserError(str(error)) from error
