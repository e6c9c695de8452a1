"""The gain as a ratio of sums, and its scatter: one pass over an image each, nothing the size of it in between."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit


@njit(nogil=True, cache=True)
def ratio_of_sums(
    recorded: NDArray[np.floating],
    ideal: NDArray[np.floating],
    mask: NDArray[np.bool_],
    gain: NDArray[np.floating],
    defect: NDArray[np.bool_],
) -> tuple[int, float]:
    """Put recorded / ideal, mean 1 over good pixels, into gain, and 1 where one of both is not above 0.

    Returns the number of good pixels and the root mean square change of the gain.
    """
    total, n = 0.0, 0
    for y in range(recorded.shape[0]):
        for x in range(recorded.shape[1]):
            if recorded[y, x] > 0 and ideal[y, x] > 0:
                defect[y, x] = False
                if not mask[y, x]:
                    total += recorded[y, x] / ideal[y, x]
                    n += 1
            else:
                defect[y, x] = True
    scale, change = n / total if n else 1.0, 0.0
    for y in range(recorded.shape[0]):
        for x in range(recorded.shape[1]):
            new = 1.0 if defect[y, x] else recorded[y, x] / ideal[y, x] * scale
            change += (new - gain[y, x]) ** 2
            gain[y, x] = new
    return n, np.sqrt(change / gain.size)


@njit(nogil=True, cache=True)
def in_convention(
    gain: NDArray[np.floating],
    error: NDArray[np.floating],
    defect: NDArray[np.bool_],
    mask: NDArray[np.bool_],
    multiply: bool,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Gain and standard error to multiply or divide by, mean 1 over good pixels; 1 and NaN in defects."""
    out, out_error = np.empty(gain.shape, np.float32), np.empty(gain.shape, np.float32)
    total, n = 0.0, 0
    for y in range(gain.shape[0]):
        for x in range(gain.shape[1]):
            if not (defect[y, x] or mask[y, x]):
                total += 1 / gain[y, x] if multiply else gain[y, x]
                n += 1
    scale = n / total if n else 1.0
    for y in range(gain.shape[0]):
        for x in range(gain.shape[1]):
            if defect[y, x]:
                out[y, x], out_error[y, x] = 1, np.nan
            else:
                value = (1 / gain[y, x] if multiply else gain[y, x]) * scale
                out[y, x], out_error[y, x] = value, value * error[y, x] / gain[y, x]
    return out, out_error


@njit(nogil=True, cache=True)
def line_moments(
    image: NDArray[np.floating], gain: NDArray[np.floating], good: NDArray[np.bool_]
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
    gain: NDArray[np.floating], row: NDArray[np.float64], column: NDArray[np.float64], good: NDArray[np.bool_]
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
    gain: NDArray[np.floating], row: NDArray[np.float64], column: NDArray[np.float64], pixel: float
) -> NDArray[np.floating]:
    """gain * sqrt(row variance + column variance + pixel variance)."""
    out = np.empty_like(gain)
    for y in range(gain.shape[0]):
        for x in range(gain.shape[1]):
            out[y, x] = gain[y, x] * np.sqrt(row[y] + column[x] + pixel)
    return out
