"""The rows of a Parquet file, a few at a time: files with pictures in them are larger than memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flashjax.errors import UserError

__all__ = ["read_parquet"]


def read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    """Every row as column to value. Raises UserError: pyarrow is not installed, or the file is no Parquet."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError('Parquet needs pyarrow; run `pip install "flashjax[parquet]"`.') from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=16):
                yield from batch.to_pylist()
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} cannot be read as Parquet ({error}).") from error
