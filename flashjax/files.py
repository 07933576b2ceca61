"""Files that are whole or not there, files that one process has, and tables that spreadsheets open."""

import codecs
import contextlib
import csv
import fcntl
import hashlib
import io
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from flashjax.errors import UserError


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A name for what is not complete yet, of this process alone; nothing is left there, however it ends. Drawn:
    process numbers are equal in containers, whose hosts may share the folder."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write a file that appears at ``path`` when it is complete: all of it, or what was there before."""
    with _beside(path) as partial:
        yield partial
        os.replace(partial, path)


def write_whole(path: Path, content: bytes) -> None:
    """The content at the path, all of it or what was there before: a full disk must not leave half a file over a good
    one. Raises OSError."""
    with whole(path) as partial:
        partial.write_bytes(content)


def write_first(path: Path, content: bytes) -> None:
    """The content at the path, whole, unless something is there already: of several processes that write at once, one
    does. (Where the disk knows no links, as a mounted bucket, the last one.) Raises OSError."""
    with _beside(path) as partial:
        partial.write_bytes(content)
        try:
            os.link(partial, path)
        except FileExistsError:
            pass
        except OSError:
            os.replace(partial, path)


def read_object(path: str | Path, then: str) -> dict[str, Any]:
    """The JSON object in a file. Raises UserError with ``then``, what to do where it is missing or damaged."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {then}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); {then}.") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is not a JSON object; {then}.")
    return found


def json_lines(path: str | Path) -> Iterator[tuple[int, Any]]:
    """(line number, value) of all lines that are not empty. Lines end with line feeds alone, as a text may hold what
    else Unicode calls an end of line; editors put a BOM before the first. Raises UserError."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    for number, line in enumerate(data.removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line.decode("utf-8"))
            except (ValueError, RecursionError) as error:
                raise UserError(f"Line {number} of {path} is not JSON in UTF-8 ({error}).") from error


def sha256_of(path: Path) -> str:
    """Of a file's content, which may be larger than memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def looks(folder: Path) -> str:
    """A short hash of a folder of weights, which may be of tens of gigabytes: its files' names, lengths, and what
    stands in their first and last megabyte."""
    digest, end = hashlib.sha256(), 1 << 20
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder)} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(end))
            file.seek(max(0, size - end))
            digest.update(file.read(end))
    return digest.hexdigest()[:16]


def as_csv(head: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table with its head. A text that a spreadsheet would take for a formula gets an apostrophe in front."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(head)
    for row in rows:
        writer.writerow([f"'{c}" if isinstance(c, str) and c.startswith(tuple("=+-@\t")) else c for c in row])
    return out.getvalue()


@contextlib.contextmanager
def held(file: Path) -> Iterator[bool]:
    """Whether this process, and no other, has the file, which is made; the system lets it go with the process, however
    that ends."""
    with file.open("a") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
