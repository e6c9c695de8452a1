"""Fletcher's checksum, as HDF5 has it behind a chunk."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_MODULUS: Final = 65535
_AT_ONCE: Final = 1 << 14
"""Words whose sums of sums a float64 holds exactly, 2**16 * 2**28 at most, and which stay in the cache."""
_WEIGHTS: Final = np.arange(_AT_ONCE, 0, -1, dtype=np.float64)


def fletcher32(data: NDArray[np.uint8]) -> int:
    """Both sums modulo 65535, the second above the first, of big-endian words of 16 bits; an odd byte is a high one.

    The library may write 65535 for 0: compare with `same_sums`.
    """
    first, second = 0, 0
    words = data[: data.size // 2 * 2].view("<u2")  # of swapped bytes: 256 times them are the words, modulo 65535
    for start in range(0, words.size, _AT_ONCE):
        part = words[start : start + _AT_ONCE].astype(np.float64)
        second = (second + first * part.size + int(part @ _WEIGHTS[_AT_ONCE - part.size :])) % _MODULUS
        first = (first + int(part.sum())) % _MODULUS
    if data.size % 2:
        first += int(data[-1])
        second += first
    return (256 * second % _MODULUS) << 16 | 256 * first % _MODULUS


def same_sums(one: int, other: int) -> bool:
    """Whether two checksums are of the same sums."""
    return all((one >> shift & 0xFFFF) % _MODULUS == (other >> shift & 0xFFFF) % _MODULUS for shift in (0, 16))
