"""Errors that a person caused and a person can mend."""

import contextlib
import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: the status of a run that was told to stop; start it again as it was


class UserError(ValueError):
    """A sentence for the reader: what is wrong, where, and what to do. The command line prints it without a traceback
    (``--debug`` shows one) and exits with ``status``."""

    status = 2


class Indivisible(UserError):
    """A run that does not divide over these devices; over others it may."""


def did_you_mean(name: str, known: Iterable[str], has: str, shown: str = "{}") -> str:
    """The end of a sentence on a name that is not ``known``: the nearest one, as ``shown``; or all, behind ``has``, say
    "a teacher has"."""
    known = list(known)
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {shown.format(near[0])}?" if near else f"{has} {', '.join(known) or 'none'}."


def refuse_options(args: Any, unread: Mapping[str, Any], where: str) -> None:
    """Raises UserError for an option of ``args`` that would be passed over. ``unread``: by name what each is where it
    is not given; ``where``: as in "with --verify"."""
    if given := [name for name, default in unread.items() if getattr(args, name) != default]:
        raise UserError(f"--{given[0].replace('_', '-')} does nothing {where}; leave it out.")


@contextlib.contextmanager
def about_settings() -> Iterator[None]:
    """A ValueError of functions that know of no configuration is a setting that the reader has to mend."""
    try:
        yield
    except ValueError as error:
        raise error if isinstance(error, UserError) else UserError(str(error)) from error
