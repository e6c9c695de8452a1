"""The gain as a ratio of sums, and its scatter: one pass over an image each, nothing the size of it in between."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(nogil=True, cache=True)
def ratio_of_sums(
    recorded: NDArray[np.float64],
    ideal: NDArray[np.float64],
    mask: NDArray[np.bool_],
    gain: NDArray[np.float64],
    defect: NDArray[np.bool_],
) -> int:
    """Fill gain = recorded / ideal, mean 1 over good pixels, and 1 where one is not above 0; number of good pixels."""
    total, n = 0.0, 0
    for y in range(recorded.shape[0]):
        for x in range(recorded.shape[1]):
            counts = recorded[y, x] > 0 and ideal[y, x] > 0
            defect[y, x] = not counts
            gain[y, x] = recorded[y, x] / ideal[y, x] if counts else 1.0
            if counts and not mask[y, x]:
                total += gain[y, x]
                n += 1
    scale = n / total if n else 1.0
    for y in range(recorded.shape[0]):
        for x in range(recorded.shape[1]):
            if not defect[y, x]:
                gain[y, x] *= scale
    return n


@njit(nogil=True, cache=True)
def line_moments(
    image: NDArray[np.float64], gain: NDArray[np.float64], good: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of rows and of columns: (count, sum of image / gain, of its square, of the gain) over good pixels."""
    ny, nx = image.shape
    rows, columns = np.zeros((ny, 4)), np.zeros((nx, 4))
    for y in range(ny):
        for x in range(nx):
            if good[y, x]:
                flat = image[y, x] / gain[y, x]
                for line in (rows[y], columns[x]):
                    line[0] += 1
                    line[1] += flat
                    line[2] += flat * flat
                    line[3] += gain[y, x]
    return rows, columns


@njit(nogil=True, cache=True)
def scatter_about_lines(
    gain: NDArray[np.float64], row: NDArray[np.float64], column: NDArray[np.float64], good: NDArray[np.bool_]
) -> float:
    """Mean square of gain - row - column + 1 over good pixels."""
    total, n = 0.0, 0
    for y in range(gain.shape[0]):
        for x in range(gain.shape[1]):
            if good[y, x]:
                total += (gain[y, x] - row[y] - column[x] + 1) ** 2
                n += 1
    return total / n if n else 0.0


@njit(nogil=True, cache=True)
def relative_error(
    gain: NDArray[np.float64], row: NDArray[np.float64], column: NDArray[np.float64], pixel: float
) -> NDArray[np.float64]:
    """gain * sqrt(row variance + column variance + pixel variance)."""
    out = np.empty_like(gain)
    for y in range(gain.shape[0]):
        for x in range(gain.shape[1]):
            out[y, x] = gain[y, x] * np.sqrt(row[y] + column[x] + pixel)
    return out
