"""Stationary random processes at any point of their axis, without the points before it.

A process is a sum of cosines of random frequency and phase, one set a pixel (Rahimi and Recht, "Random features for
large-scale kernel machines", NIPS 2007). Frequencies from the Linnik distribution of index a give the correlation
1 / (1 + |t|**a): a power law at large t, 1 at t = 0 (Devroye, "A note on Linnik's distribution", Statistics &
Probability Letters 9 (1990) 305-306).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mrczdask.kernels.compiling import njit
from mrczdask.kernels.philox import block, open_unit


@njit(nogil=True, cache=True)
def fill_wander(key: np.uint64, t: float, index: float, terms: int, y0: int, x0: int, out: Any) -> None:
    """Fill (ny, nx) float with the values at `t` of processes of mean 0 and variance 1, one a pixel."""
    k0, k1 = np.uint32(key), np.uint32(key >> np.uint64(32))
    scale = math.sqrt(2.0 / terms)
    for row in range(out.shape[0]):
        for col in range(out.shape[1]):
            x, y = np.uint32(x0 + col), np.uint32(y0 + row)
            total = 0.0
            for term in range(terms):
                a = block(x, y, np.uint32(2 * term), np.uint32(0), k0, k1)
                b = block(x, y, np.uint32(2 * term + 1), np.uint32(0), k0, k1)
                frequency = _linnik(open_unit(a[0], a[1]), open_unit(a[2], a[3]), open_unit(b[0], b[1]), index)
                total += math.cos(frequency * t + 2.0 * math.pi * open_unit(b[2], b[3]))
            out[row, col] = scale * total


@njit(nogil=True, cache=True)
def _linnik(u: float, v: float, w: float, index: float) -> float:
    """A Linnik deviate: a symmetric stable one (Chambers, Mallows and Stuck 1976) times Exp(1)**(1 / index)."""
    angle = math.pi * (u - 0.5)
    first, second = -math.log(v), -math.log(w)
    stable = math.sin(index * angle) / math.cos(angle) ** (1.0 / index)
    stable *= (math.cos((1.0 - index) * angle) / first) ** ((1.0 - index) / index)
    return stable * second ** (1.0 / index)
