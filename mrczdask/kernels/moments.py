"""Mean and deviation of the pixels of a bin, by the models of the paper ([K], equations 2 to 6).

The pixels are the first n of `value`, corrected, `weight`, their norms, and `variance`, that of their counts.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit

POISSON: Final = 0
AZIMUTHAL: Final = 1
HYBRID: Final = 2
COUNT: Final = 3

LEAST_PIXELS: Final = 3
"""Chauvenet's criterion is used as if a bin had at least this many pixels."""


@njit(nogil=True, cache=True)
def chauvenet(n: int, cutoff: float) -> float:
    """Deviations from the mean beyond which one of n pixels is dropped: the cutoff, and Chauvenet's criterion at least.

    n are the pixels that are valid and left, however the others are marked: as in pyFAI's CSR engines of Cython and
    Python. Its OpenCL kernel counts pixels that hold the dummy value too, and so clips a frame with dummies less than
    the same frame with a mask.
    """
    floor: float = np.sqrt(2.0 * np.log(max(LEAST_PIXELS, n) / np.sqrt(2.0 * np.pi)))
    return max(cutoff, floor)


@njit(nogil=True, cache=True)
def moments(
    value: NDArray[np.float32], weight: NDArray[np.float32], variance: NDArray[np.float32], n: int, model: int
) -> tuple[float, float]:
    if model == POISSON:
        return poisson_moments(value, weight, variance, n)
    return azimuthal_moments(value, weight, variance, n)


@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"})
def poisson_moments(
    value: NDArray[np.float32], weight: NDArray[np.float32], variance: NDArray[np.float32], n: int
) -> tuple[float, float]:
    """Weighted mean, and the deviation of one pixel by the variances of the counts (eqs. 3 to 5)."""
    omega, total, spread, squares = 0.0, 0.0, 0.0, 0.0
    for k in range(n):
        w = np.float64(weight[k])
        omega += w
        total += np.float64(value[k]) * w
        spread += variance[k]
        squares += w * w
    return (total / omega, np.sqrt(spread / squares)) if n else (np.nan, np.nan)


@njit(nogil=True, cache=True, error_model="numpy")
def azimuthal_moments(
    value: NDArray[np.float32], weight: NDArray[np.float32], variance: NDArray[np.float32], n: int
) -> tuple[float, float]:
    """Weighted mean, and the deviation of one pixel by the spread of the bin: the one-pass form (eqs. 6, 17).

    The running mean is that of running sums, so that no pixel waits for the division of the one before it.
    """
    if n == 0:
        return np.nan, np.nan
    omega, mean = np.float64(weight[0]), np.float64(value[0])
    total, squares, spread = omega * mean, omega * omega, 0.0
    for k in range(1, n):
        w, pixel = np.float64(weight[k]), np.float64(value[k])
        omega += w
        total += w * pixel
        squares += w * w
        after = total / omega
        spread += w * w * (pixel - mean) * (pixel - after)
        mean = after
    return mean, np.sqrt(max(spread, 0.0) / squares)
