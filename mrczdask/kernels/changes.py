"""When does the pattern of a detector change: products of successive deviations, and their cumulative sum."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

SLACK: Final = 0.5
"""Standard deviations taken off every step: half of the smallest lasting shift that is to be found."""
LIMIT: Final = 12.0
"""Sum that is an alarm: normal steps reach it once in 10**6 (Siegmund's approximation)."""
MOST: Final = 4.0
"""A single step counts no more: one odd movie, two steps, raises no alarm."""
_ACROSS: Final = {2: 12, 1: 16}
"""Blocks across an image, and parts of a profile."""
_LEAST_SIDE: Final = {2: 16, 1: 8}
"""Pixels across a block, lines of a part: the specimen that is left is alike over some ten pixels."""


def shared_deviation(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Normal deviate of what two images (y, x) or two profiles of mean 0 share: standard normal where it is nothing.

    The sum of their products over the root of the sum of the squares of its parts, blocks of pixels or segments of
    lines: right also where neighbours are alike, as specimen is, and where noise differs from place to place.
    """
    parts = first.astype(np.float64) * second
    for axis, n in enumerate(first.shape):
        side = max(-(-n // _ACROSS[first.ndim]), _LEAST_SIDE[first.ndim])
        parts = np.add.reduceat(parts, np.arange(0, n, side), axis=axis)
    norm = float(np.sqrt((parts**2).sum()))
    return float(parts.sum()) / norm if norm > 0 else 0.0


def cusum(steps: NDArray[np.floating], slack: float = SLACK, most: float = MOST) -> NDArray[np.float64]:
    """Page's sum max(0, sum + min(step, most) - slack) after each step; NaN counts nothing."""
    total, out = 0.0, np.empty(len(steps))
    for k, step in enumerate(steps):
        if np.isfinite(step):
            total = max(0.0, total + min(float(step), most) - slack)
        out[k] = total
    return out


def changepoint(steps: NDArray[np.floating], limit: float = LIMIT) -> int | None:
    """The step with which the mean rose; None where the cumulative sum never crosses the limit.

    Of the steps since the sum last was 0, the one from which on the mean of all is the least likely to be 0.
    """
    sums = cusum(steps)
    above = np.flatnonzero(sums > limit)
    if above.size == 0:
        return None
    zeros = np.flatnonzero(sums[: above[0]] <= 0)
    first = int(zeros[-1]) + 1 if zeros.size else 0
    kept = np.minimum(np.nan_to_num(np.asarray(steps, float)), MOST)
    after = np.cumsum(kept[::-1])[::-1]
    deviate = after / np.sqrt(np.arange(kept.size, 0, -1))
    return first + int(np.argmax(deviate[first : above[0] + 1]))
