"""Minimum, maximum, sum and sum of squares of pixels in one pass; sums of frames."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit

RUN = 1 << 14
"""Squares of 2**14 bytes add up to less than 2**31: sums of a run stay in int32, 16 lanes of AVX2 wide."""
SMALL = 1 << 23
"""Squares of 2**14 values below this add up to less than 2**60."""


@njit(nogil=True, cache=True)
def byte_statistics(pixels: NDArray[np.integer]) -> tuple[np.int64, np.int64, np.int64, float]:
    """As `integer_statistics`, for int8 and uint8."""
    if pixels.size == 0:
        return np.int64(0), np.int64(0), np.int64(0), 0.0
    low = high = pixels[0]
    total, squares = np.int64(0), np.int64(0)
    for start in range(0, pixels.size, RUN):
        end = min(start + RUN, pixels.size)
        run_total, run_squares = np.int32(0), np.int32(0)
        for k in range(start, end):
            value = np.int32(pixels[k])
            run_total += value
            run_squares += value * value
        for k in range(start, end):  # a loop of its own is 32 lanes wide, and the run is in the cache
            low, high = min(low, pixels[k]), max(high, pixels[k])
        total += run_total
        squares += run_squares
    return np.int64(low), np.int64(high), total, float(squares)


@njit(nogil=True, cache=True)
def integer_statistics(pixels: NDArray[np.integer]) -> tuple[np.int64, np.int64, np.int64, float]:
    """(minimum, maximum, sum, sum of squares) of flat integers; the sum is exact. Zeros for none."""
    if pixels.size == 0:
        return np.int64(0), np.int64(0), np.int64(0), 0.0
    low = high = np.int64(pixels[0])
    total, squares = np.int64(0), 0.0
    for start in range(0, pixels.size, RUN):
        run_low = run_high = np.int64(pixels[start])
        run_squares = np.int64(0)
        for pixel in pixels[start : start + RUN]:
            value = np.int64(pixel)
            run_low, run_high = min(run_low, value), max(run_high, value)
            total += value
            run_squares += value * value  # wraps for large values, and is not used then
        low, high = min(low, run_low), max(high, run_high)
        if run_low > -SMALL and run_high < SMALL:
            squares += float(run_squares)
        else:
            for pixel in pixels[start : start + RUN]:
                squares += float(pixel) * float(pixel)
    return low, high, total, squares


@njit(nogil=True, cache=True)
def float_statistics(pixels: NDArray[np.floating]) -> tuple[float, float, float, float, int]:
    """(minimum, maximum, sum, sum of squares, number) of flat floats that are finite; infinities where none is."""
    low, high, total, squares, n = np.inf, -np.inf, 0.0, 0.0, 0
    for k in range(pixels.size):
        value = float(pixels[k])
        if np.isfinite(value):
            low, high = min(low, value), max(high, value)
            total += value
            squares += value * value
            n += 1
    return low, high, total, squares, n


@njit(nogil=True, cache=True)
def add_frames(frames: NDArray[np.integer], total: NDArray[np.int64]) -> None:
    """Add frames (n, y, x) to their sum (y, x), a row of all of them after the other: the row stays in the cache."""
    for y in range(total.shape[0]):
        for f in range(frames.shape[0]):
            for x in range(total.shape[1]):
                total[y, x] += frames[f, y, x]
