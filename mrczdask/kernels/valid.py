"""Which numbers of a frame are counts: those of a range, but for a hole in it."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit

LARGEST: Final = np.finfo(np.float32).max


class Bounds(NamedTuple):
    """Numbers as float32, ends included; a hole that ends before it begins is none."""

    low: np.float32
    high: np.float32
    hole_low: np.float32
    hole_high: np.float32


FINITE: Final = Bounds(np.float32(-LARGEST), np.float32(LARGEST), np.float32(np.inf), np.float32(-np.inf))
"""Every finite number is a count."""


@njit(nogil=True, cache=True)
def is_count(pixel: np.float32, bounds: Bounds) -> bool:
    """Whether a pixel is a count, in the precision in which frames are averaged; NaN is none."""
    inside = (pixel >= bounds.low) & (pixel <= bounds.high)
    return bool(inside & ((pixel < bounds.hole_low) | (pixel > bounds.hole_high)))


@njit(nogil=True, cache=True)
def holds(values: NDArray[np.float32], number: float) -> bool:
    """Whether a number is among the values."""
    wanted, found = np.float32(number), np.int32(0)
    for k in range(values.size):
        found |= np.int32(values[k] == wanted)
    return bool(found)
