"""Minimum, maximum, sum and sum of squares of pixels in one pass."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(nogil=True, cache=True)
def integer_statistics(pixels: NDArray[np.integer]) -> tuple[np.int64, np.int64, np.int64, float]:
    """(minimum, maximum, sum, sum of squares) of flat integers; the sum is exact. Zeros for none."""
    if pixels.size == 0:
        return np.int64(0), np.int64(0), np.int64(0), 0.0
    low = high = np.int64(pixels[0])
    total, squares = np.int64(0), 0.0
    step = 1 << 16
    for start in range(0, pixels.size, step):  # squares of a run fit into int64, and the loop vectorises
        run = np.int64(0)
        for k in range(start, min(start + step, pixels.size)):
            value = np.int64(pixels[k])
            low, high = min(low, value), max(high, value)
            total += value
            run += value * value if -(1 << 23) < value < 1 << 23 else 0
        squares += run
        if low <= -(1 << 23) or high >= 1 << 23:
            for k in range(start, min(start + step, pixels.size)):
                value = np.int64(pixels[k])
                squares += 0.0 if -(1 << 23) < value < 1 << 23 else float(value) * float(value)
    return low, high, total, squares


@njit(nogil=True, cache=True)
def float_statistics(pixels: NDArray[np.floating]) -> tuple[float, float, float, float]:
    """(minimum, maximum, sum, sum of squares) of flat floats that are finite; infinities where none is."""
    low, high, total, squares = np.inf, -np.inf, 0.0, 0.0
    for k in range(pixels.size):
        value = float(pixels[k])
        if np.isfinite(value):
            low, high = min(low, value), max(high, value)
            total += value
            squares += value * value
    return low, high, total, squares
