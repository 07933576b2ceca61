"""Large arrays in pieces that fit a small window of memory."""

from collections.abc import Iterator

import ml_dtypes
import numpy as np

WINDOW = 32 << 20  # bytes of a slab: large enough for the disk, small beside any weight that matters
_TILE = (128, 512)  # of a matrix that is turned: it stays in the processor's cache
_CACHED = 1 << 17  # numbers that are looked at at once, for the same reason
# dtype -> (unsigned integer, mask without the sign, first pattern that is infinite or NaN)
_PATTERNS = {
    np.dtype(np.float64): (np.uint64, (1 << 63) - 1, 0x7FF << 52),
    np.dtype(np.float32): (np.uint32, (1 << 31) - 1, 0x7F800000),
    np.dtype(np.float16): (np.uint16, 0x7FFF, 0x7C00),
    np.dtype(ml_dtypes.bfloat16): (np.uint16, 0x7FFF, 0x7F80),
    np.dtype(ml_dtypes.float8_e5m2): (np.uint8, 0x7F, 0x7C),
    np.dtype(ml_dtypes.float8_e4m3fn): (np.uint8, 0x7F, 0x7F),
}


def slabs(array: np.ndarray, dtype: np.dtype) -> Iterator[np.ndarray]:
    """Contiguous pieces in ``dtype`` of at most about `WINDOW` bytes, which one after the other are the array."""
    array = np.atleast_1d(array)
    row = array[:1].nbytes
    if array.ndim > 1 and row > WINDOW:
        for part in array:
            yield from slabs(part, dtype)
        return
    for first, end in row_ranges(len(array), array.nbytes):
        with np.errstate(over="ignore"):  # what is too large becomes infinite; `finite` tells
            piece = _contiguous(array[first:end]).astype(dtype, copy=False)
        yield piece


def row_ranges(rows: int, nbytes: int) -> Iterator[tuple[int, int]]:
    """[first, end) of pieces of about `WINDOW` bytes, or of one row that is larger, of an array of ``nbytes``."""
    step = max(1, WINDOW * rows // max(nbytes, 1))
    for first in range(0, rows, step):
        yield first, min(first + step, rows)


def _contiguous(view: np.ndarray) -> np.ndarray:
    # numpy copies ml_dtypes one by one, and turns large matrices at a tenth of the speed of memory
    bits = view.view(f"u{view.itemsize}")
    if bits.ndim != 2 or bits.strides[0] >= bits.strides[1]:
        return np.ascontiguousarray(bits).view(view.dtype)
    out = np.empty(bits.shape, bits.dtype)
    rows, columns = _TILE
    for i in range(0, bits.shape[0], rows):
        for j in range(0, bits.shape[1], columns):
            out[i : i + rows, j : j + columns] = np.ascontiguousarray(bits[i : i + rows, j : j + columns].T).T
    return out.view(view.dtype)


def finite(array: np.ndarray) -> bool:
    """Whether nothing in a contiguous array is NaN or infinite; integers always are finite. Looks at the bits: several
    times faster than ``np.isfinite`` for the types of ml_dtypes."""
    if array.dtype not in _PATTERNS:
        return True
    unsigned, mask, first = _PATTERNS[array.dtype]
    bits = array.reshape(-1).view(unsigned)
    return all((bits[i : i + _CACHED] & unsigned(mask)).max() < first for i in range(0, bits.size, _CACHED))
