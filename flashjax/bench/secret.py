"""Keys of endpoints: read from the environment or a file, shown nowhere."""

from __future__ import annotations

import os
import re
from pathlib import Path

from flashjax.errors import UserError

__all__ = ["Secret", "read_secret"]

HIDDEN = "***"
_SHORTEST = 8  # hiding a shorter text would black out ordinary words


class Header(str):
    """A header's value that holds a secret: sent as it is, but ``***`` among the locals of a traceback."""

    __slots__ = ()

    def __repr__(self) -> str:
        return HIDDEN


class Secret:
    """A text that prints as ``***``: by str, repr and format, in a log line, a dataclass or a traceback. It cannot be
    pickled or copied. Whoever sends it calls ``bearer``, and lets what comes back through ``hide``."""

    __slots__ = ("__spelt", "__text")

    def __init__(self, text: str) -> None:
        self.__text, self.__spelt = text, re.compile(_spelt(text))

    def bearer(self) -> Header:
        return Header(f"Bearer {self.__text}")

    def hide(self, text: str) -> str:
        """``text`` with the secret replaced, also where JSON's escapes spell it: endpoints quote what they refuse.
        To be called before a text is cut, or a part of the secret is left, and before JSON in it is read."""
        return self.__spelt.sub(HIDDEN, text) if self.__text else text

    def __repr__(self) -> str:
        return HIDDEN

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(HIDDEN, spec)

    def __bool__(self) -> bool:
        return bool(self.__text)

    def __reduce__(self):
        raise TypeError("A secret is not written anywhere.")


def _spelt(text: str) -> str:
    """A pattern of all that JSON can write for an ASCII text: "-" is \\u002d as well, and JSON within JSON escapes the
    backslash again."""

    def one(c: str) -> str:
        digits = "".join(f"[{d}{d.upper()}]" for d in f"{ord(c):02x}")
        return rf"(?:\\*{re.escape(c)}|\\+u00{digits})"

    # A run of backslashes is looked at once, from its first.
    return r"(?<!\\)" + "".join(map(one, text))


def read_secret(variable: str | None, file: str | None) -> Secret:
    """The key in an environment variable or in a file of one line; neither is no key, as local servers want it.

    Raises:
        UserError: both are given, nothing is there, or it is no key. The sentence names the place, never the content.
    """
    if variable and file:
        raise UserError(f"A judge's key is either in key_env ({variable}) or in key_file ({file}); give one of them.")
    if not variable and not file:
        return Secret("")
    where = f"The environment variable {variable}" if variable else f"The key file {file}"
    text = (os.environ.get(variable, "") if variable else _content(Path(file))).strip()
    if not text:
        raise UserError(f"{where} is empty; put the judge's key there.")
    if len(text) < _SHORTEST or not text.isascii() or any(c.isspace() or not c.isprintable() for c in text):
        raise UserError(f"{where} holds no key: one line of at least {_SHORTEST} printable ASCII characters.")
    return Secret(text)


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"The key file {file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UserError(f"The key file {file} is not text.") from None
