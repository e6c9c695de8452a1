"""Dense frames from a background and the pixels that stood out of it."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mrczdask.kernels.picking import interpolate
from mrczdask.kernels.poisson import _count_at, image_counts

REDRAWS: Final = 20
"""Times a count above the threshold of picking is drawn again before it is cut."""
_KEY_STEP: Final = np.uint64(0x9E3779B97F4A7C15)
"""Weyl increment of 64 bits (golden ratio): apart the keys of the redraws."""


@njit(nogil=True, cache=True)
def expected(
    place: NDArray[np.float32],
    norm: NDArray[np.float32],
    average: NDArray[np.float32],
    deviation: NDArray[np.float32],
    noise: float,
    cutoff: float,
    mean: NDArray[np.float64],
    limit: NDArray[np.float64],
) -> None:
    """Mean counts of each pixel (y, x) and the most counts that were not picked; 0 and 0 where `place` is NaN."""
    for y in range(place.shape[0]):
        for x in range(place.shape[1]):
            p = place[y, x]
            if p != p:
                mean[y, x] = limit[y, x] = 0.0
                continue
            level, std = interpolate(average, p), interpolate(deviation, p)
            mean[y, x] = max(level * norm[y, x], 0.0)
            limit[y, x] = max((level + max(noise, cutoff * np.hypot(std, noise))) * norm[y, x], 0.0)


def truncated_counts(mean: NDArray[np.float64], limit: NDArray[np.float64], seed: int, shot: int) -> NDArray[np.int64]:
    """Poisson counts (y, x) of the means, none above its limit; each a function of (seed, shot, y, x)."""
    out = np.empty(mean.shape, np.int64)
    image_counts(mean, seed, shot, 0, 0, out)
    _redraw(mean, limit, np.uint64(seed), shot, out)
    return out


@njit(nogil=True, cache=True)
def _redraw(mean: Any, limit: Any, key: np.uint64, shot: int, out: Any) -> None:
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            again = key
            for _ in range(REDRAWS):
                if out[y, x] <= limit[y, x]:
                    break
                again = np.uint64(again + _KEY_STEP)
                out[y, x] = _count_at(mean[y, x], again, shot, y, x)
            if out[y, x] > limit[y, x]:
                out[y, x] = np.int64(limit[y, x])
