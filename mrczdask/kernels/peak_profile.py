"""The profile of a Bragg peak: where it is, and what it has where pixels are masked."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit

_ROUNDS: Final = 3
"""Of a weighted centroid: it moves by less than 0.01 pixel then."""
_STEP: Final = 2.0
"""By which it follows: under a Gaussian as wide as the peak, the mean moves by half of what the centre is off."""
_LEAST_FITTED: Final = 6
"""Pixels from which the four parameters of a profile are fitted."""
_FLATTEST: Final = -0.02
"""Curvature -1 / (2 s^2) of a profile of a deviation of 5 pixels: a flatter one says nothing of what lies in a gap."""


@njit(nogil=True, cache=True)
def fill_gaps(values: NDArray[np.float32], half: int, change: NDArray[np.float64]) -> None:
    """Give the masked pixels of a patch what a round Gaussian through the others has there, its maximum at most.

    Fitted to the logarithms, weighted by their squares: Guo, IEEE Signal Process. Mag. 28 (2011) 134, in 2-D. `change`
    gets by how much the sum of what is filled in grows with each value: the noise of the others is in it.
    """
    middle = values.size // 2
    change[:] = 0.0
    normal, right, used = np.zeros((4, 4)), np.zeros(4), 0
    basis = np.empty(4)
    for k in range(values.size):
        if values[k] > 0:
            _basis(k, half, basis)
            weight = np.float64(values[k]) * values[k]
            log = np.log(np.float64(values[k]))
            for a in range(4):
                right[a] += weight * basis[a] * log
                for b in range(4):
                    normal[a, b] += weight * basis[a] * basis[b]
            used += 1
    if used < _LEAST_FITTED or abs(np.linalg.det(normal / normal[0, 0])) < 1e-12:
        return
    fit = np.linalg.solve(normal, right)
    if fit[3] > _FLATTEST:
        return
    most, slope, capped = np.float64(values[middle]), np.zeros(4), 0
    missing = np.isnan(values)
    for k in range(values.size):
        if missing[k]:
            _basis(k, half, basis)
            found = np.exp(np.dot(basis, fit))
            values[k] = min(found, most)
            if found < most:
                for a in range(4):
                    slope[a] += found * basis[a]
            else:
                capped += 1
    lever = np.linalg.solve(normal, slope)
    for k in range(values.size):
        if values[k] > 0 and not missing[k]:
            _basis(k, half, basis)
            rest = np.log(np.float64(values[k])) - np.dot(basis, fit)
            change[k] = values[k] * (1.0 + 2.0 * rest) * np.dot(basis, lever)
    change[middle] += capped


@njit(nogil=True, cache=True)
def _basis(k: int, half: int, basis: NDArray[np.float64]) -> None:
    """What the logarithm of a round Gaussian is made of, at the k-th pixel of a patch."""
    y, x = k // (2 * half + 1) - half, k % (2 * half + 1) - half
    basis[0], basis[1], basis[2], basis[3] = 1.0, y, x, y * y + x * x


@njit(nogil=True, cache=True)
def weighted_centroid(values: NDArray[np.float32], half: int, width: float, y: float, x: float) -> tuple[float, float]:
    """Centroid of the positive pixels of a patch under a round Gaussian about itself, from (y, x) on.

    Far pixels have little of the peak, and as much noise.
    """
    side, scale = 2 * half + 1, -0.5 / (width * width)
    for _ in range(_ROUNDS):
        total, up, right = 0.0, 0.0, 0.0
        for k in range(values.size):
            if values[k] > 0:
                dy, dx = k // side - half - y, k % side - half - x
                weight = values[k] * np.exp(scale * (dy * dy + dx * dx))
                total += weight
                up += weight * dy
                right += weight * dx
        y = min(max(y + _STEP * up / total, -1.0), 1.0)
        x = min(max(x + _STEP * right / total, -1.0), 1.0)
    return y, x


@njit(nogil=True, cache=True)
def interpolate_at(
    image: NDArray[np.float32], y: NDArray[np.float64], x: NDArray[np.float64], index: NDArray[np.int64]
) -> NDArray[np.float32]:
    """An image at places (n), linear between pixels; where that is NaN, its pixel of the flat `index`."""
    height, width = image.shape
    out = np.empty(y.size, np.float32)
    for k in range(y.size):
        i = min(max(int(np.floor(y[k])), 0), max(height - 2, 0))
        j = min(max(int(np.floor(x[k])), 0), max(width - 2, 0))
        down, right = min(i + 1, height - 1), min(j + 1, width - 1)
        v, w = y[k] - i, x[k] - j
        upper = image[i, j] * (1 - w) + image[i, right] * w
        lower = image[down, j] * (1 - w) + image[down, right] * w
        found = upper * (1 - v) + lower * v
        out[k] = found if found == found else image[index[k] // width, index[k] % width]
    return out
