"""Philox4x32-10: random words that are a pure function of a key and a counter, so that no order of work changes them.

Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC11 (2011), section 4.3.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit

LANES: Final = 4
"""Words a counter gives."""

# Multipliers and Weyl increments of the paper, table 2 and section 4.3
_M0: Final = np.uint64(0xD2511F53)
_M1: Final = np.uint64(0xCD9E8D57)
_W0: Final = np.uint32(0x9E3779B9)
_W1: Final = np.uint32(0xBB67AE85)
_ROUNDS: Final = 10
_HALF: Final = np.uint64(32)

_TWO_M21: Final = 2.0**-21
_TWO_M32: Final = 2.0**-32
_TWO_M52: Final = 2.0**-52


@njit(inline="always")
def block(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """The four words of one counter; all arguments are uint32."""
    for _ in range(_ROUNDS):
        p0 = _M0 * np.uint64(c0)
        p1 = _M1 * np.uint64(c2)
        c0, c1, c2, c3 = (
            np.uint32(p1 >> _HALF) ^ c1 ^ k0,
            np.uint32(p1),
            np.uint32(p0 >> _HALF) ^ c3 ^ k1,
            np.uint32(p0),
        )
        k0, k1 = np.uint32(k0 + _W0), np.uint32(k1 + _W1)
    return c0, c1, c2, c3


@njit(nogil=True, cache=True)
def fill_words(out: NDArray[np.uint32], first: int, c1: int, c2: int, c3: int, key: np.uint64) -> None:
    """Fill (LANES, n) with the words of the counters (first + b, c1, c2, c3): lanes apart, so that it vectorises."""
    k0, k1 = np.uint32(key), np.uint32(np.uint64(key) >> _HALF)
    w1, w2, w3 = np.uint32(c1), np.uint32(c2), np.uint32(c3)
    start = np.uint32(first)
    for b in range(out.shape[1]):
        a = block(np.uint32(start + np.uint32(b)), w1, w2, w3, k0, k1)
        out[0, b], out[1, b], out[2, b], out[3, b] = a[0], a[1], a[2], a[3]


@njit(nogil=True, cache=True)
def fill_rows(out: NDArray[np.uint32], c1: int, c2: int, c3: int, key: np.uint64) -> None:
    """Fill (rows, LANES, n) with the words of the counters (b, c1 + row, c2, c3)."""
    for row in range(out.shape[0]):
        fill_words(out[row], 0, c1 + row, c2, c3, key)


@njit(nogil=True, cache=True)
def words_of(c0: int, c1: int, c2: int, c3: int, key: np.uint64) -> tuple[np.uint32, np.uint32, np.uint32, np.uint32]:
    """The four words of the counter (c0, c1, c2, c3)."""
    k0, k1 = np.uint32(key), np.uint32(key >> _HALF)
    a = block(np.uint32(c0), np.uint32(c1), np.uint32(c2), np.uint32(c3), k0, k1)
    return np.uint32(a[0]), np.uint32(a[1]), np.uint32(a[2]), np.uint32(a[3])


@njit(nogil=True, cache=True)
def uniforms(count: int, c1: int, c2: int, key: np.uint64) -> NDArray[np.float64]:
    """(count, 2) uniform numbers in (0, 1), of the counters (0 ... count - 1, c1, c2, 0)."""
    k0, k1 = np.uint32(key), np.uint32(np.uint64(key) >> _HALF)
    out = np.empty((count, 2))
    for k in range(count):
        a = block(np.uint32(k), np.uint32(c1), np.uint32(c2), np.uint32(0), k0, k1)
        out[k, 0], out[k, 1] = open_unit(a[0], a[1]), open_unit(a[2], a[3])
    return out


@njit(inline="always")
def open_unit(high: Any, low: Any) -> Any:
    """A uniform number in (0, 1) from 52 bits: the middle of its cell, so never 0 nor 1."""
    bits = (np.uint64(high) << np.uint64(20)) | (np.uint64(low) >> np.uint64(12))
    return (np.float64(bits) + 0.5) * _TWO_M52


@njit(inline="always")
def refined_unit(high: Any, low: Any) -> Any:
    """A uniform number in [0, 1) of 53 bits whose leading 32 are `high`."""
    return (np.float64(high) + np.float64(np.uint32(low) >> np.uint32(11)) * _TWO_M21) * _TWO_M32
