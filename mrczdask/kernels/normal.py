"""Normal deviates, each a pure function of (key, frame, y, x)."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit
from mrczdask.kernels.philox import LANES, fill_words

_STEP: Final = 2.0**-32
_TURN: Final = 2.0 * math.pi * _STEP


@njit(nogil=True, cache=True)
def fill_normal(key: np.uint64, frame: int, y0: int, x0: int, out: Any) -> None:
    """Fill (ny, nx) float with standard normal deviates; the pixel out[0, 0] is (y0, x0). Box-Muller."""
    ny, nx = out.shape
    first = x0 // LANES
    words = np.empty((LANES, (x0 + nx + LANES - 1) // LANES - first), np.uint32)
    for row in range(ny):
        fill_words(words, first, y0 + row, frame, 0, key)
        for x in range(nx):
            lane, b = (x0 + x) % LANES, (x0 + x) // LANES - first
            pair = lane & 2
            radius = math.sqrt(-2.0 * math.log((np.float64(words[pair, b]) + 0.5) * _STEP))
            angle = np.float64(words[pair + 1, b]) * _TURN
            out[row, x] = radius * (math.sin(angle) if lane & 1 else math.cos(angle))


def normal_vector(key: int, length: int) -> NDArray[np.float64]:
    """Standard normal deviates of one row: the first ones are the same for any length."""
    out = np.empty((1, length))
    fill_normal(np.uint64(key), 0, 0, 0, out)
    return out[0]
