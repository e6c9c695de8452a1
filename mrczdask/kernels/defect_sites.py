"""Places and strengths of defects, drawn by the movie in which they appear."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit
from mrczdask.kernels.philox import block, open_unit

SITE: Final = 5
"""Columns of a site: y, x, two uniform numbers, an integer of 8 random bits."""
_HALF: Final = np.uint64(32)


@njit(nogil=True, cache=True)
def alive_sites(
    key: np.uint64, movie: int, first: int, births: float, survival: float, ny: int, nx: int
) -> NDArray[np.float64]:
    """(n, SITE) sites born in the movies first ... movie and alive in `movie`.

    On average `births` appear a movie; each of them is still there in the next one with the probability `survival`.
    """
    k0, k1 = np.uint32(key), np.uint32(key >> _HALF)
    out = np.empty((int(movie - first + 1) * (int(births) + 1), SITE))
    found = 0
    for born in range(first, movie + 1):
        epoch = np.uint32(born)
        head = block(np.uint32(0), epoch, np.uint32(0), np.uint32(0), k0, k1)
        count = int(births + open_unit(head[0], head[1]))
        left = survival ** (movie - born)
        for k in range(count):
            a = block(np.uint32(k), epoch, np.uint32(1), np.uint32(0), k0, k1)
            if survival < 1.0 and open_unit(a[0], a[1]) >= left:
                continue
            b = block(np.uint32(k), epoch, np.uint32(2), np.uint32(0), k0, k1)
            c = block(np.uint32(k), epoch, np.uint32(3), np.uint32(0), k0, k1)
            out[found, 0] = math.floor(open_unit(b[0], b[1]) * ny)
            out[found, 1] = math.floor(open_unit(b[2], b[3]) * nx)
            out[found, 2] = open_unit(a[2], a[3])
            out[found, 3] = open_unit(c[0], c[1])
            out[found, 4] = np.float64(c[2] & np.uint32(255))
            found += 1
    return out[:found]
