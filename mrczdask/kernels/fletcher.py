"""Fletcher's checksum of HDF5."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

_AT_ONCE = 1 << 20
"""Words whose sums of sums fit 64 bits: 2**40 * 2**16 at most."""


@njit(nogil=True, cache=True)
def fletcher32(data: NDArray[np.uint8]) -> int:
    """Both sums modulo 65535, the second above the first, of big-endian words of 16 bits; an odd byte is a high one.

    The library may write 65535 for 0: compare with `same_sums`.
    """
    modulus = np.uint64(65535)
    first, second = np.uint64(0), np.uint64(0)
    words = data.size // 2
    for start in range(0, words, _AT_ONCE):
        for k in range(start, min(start + _AT_ONCE, words)):
            first += np.uint64(data[2 * k]) << np.uint64(8) | np.uint64(data[2 * k + 1])
            second += first
        first %= modulus
        second %= modulus
    if data.size % 2:
        first += np.uint64(data[data.size - 1]) << np.uint64(8)
        second += first
    return int((second % modulus) << np.uint64(16) | first % modulus)


def same_sums(one: int, other: int) -> bool:
    """Whether two checksums are of the same sums."""
    return all((one >> shift & 0xFFFF) % 65535 == (other >> shift & 0xFFFF) % 65535 for shift in (0, 16))
