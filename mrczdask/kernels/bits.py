"""Bits and variable-length integers in byte arrays: what the streams of the codecs are written with.

Bit k of a stream is bit k % 8 of byte k // 8. A reader that would leave its buffer returns
position -1, and stays there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit

Bytes = NDArray[np.uint8]
CORRUPT = -1
DIRECT_BITS, MANTISSA_BITS = 5, 3
"""Tokens: offsets below 2**5 are their own token; above, a token is the leading bit and the 3 bits after it."""


@njit(nogil=True, cache=True)
def put_bits(buffer: Bytes, position: int, value: int, count: int) -> int:
    """Write the low `count` bits of `value` into a zeroed buffer; return the next position."""
    for k in range(count):
        if (value >> k) & 1:
            buffer[position >> 3] |= np.uint8(1 << (position & 7))
        position += 1
    return position


@njit(nogil=True, cache=True)
def get_bits(buffer: Bytes, position: int, count: int) -> tuple[Any, int]:
    """Read `count` bits; return (value, next position)."""
    if position < 0 or position + count > 8 * buffer.size:
        return np.int64(0), CORRUPT
    value = np.int64(0)
    for k in range(count):
        value |= ((np.int64(buffer[position >> 3]) >> (position & 7)) & 1) << k
        position += 1
    return value, position


@njit(nogil=True, cache=True)
def put_unary(buffer: Bytes, position: int, value: int) -> int:
    """Write `value` zeros and a one."""
    return put_bits(buffer, position, 1 << value, value + 1)


@njit(nogil=True, cache=True)
def get_unary(buffer: Bytes, position: int, limit: int) -> tuple[int, int]:
    """Read zeros up to a one; more than `limit` are corrupt."""
    value = 0
    while True:
        bit, position = get_bits(buffer, position, 1)
        if position < 0 or value > limit:
            return 0, CORRUPT
        if bit:
            return value, position
        value += 1


@njit(nogil=True, cache=True)
def zigzag(value: Any) -> int:
    """0, -1, 1, -2, ... become 0, 1, 2, 3, ..."""
    return 2 * value if value >= 0 else -2 * value - 1


@njit(nogil=True, cache=True)
def unzigzag(value: int) -> int:
    """Undo `zigzag`."""
    return (value >> 1) ^ -(value & 1)


@njit(nogil=True, cache=True)
def token_of(offset: Any) -> tuple[int, int]:
    """(token, number of extra bits) of an offset below 2**32; the extra bits are the low bits of the offset."""
    if offset < (1 << DIRECT_BITS):
        return offset, 0
    exponent = DIRECT_BITS
    while offset >> (exponent + 1):
        exponent += 1
    extra = exponent - MANTISSA_BITS
    return ((exponent - DIRECT_BITS) << MANTISSA_BITS) + (offset >> extra) + (1 << DIRECT_BITS) - 8, extra


@njit(nogil=True, cache=True)
def token_bases() -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """Smallest offset and number of extra bits of each of the 256 tokens; tokens past 2**32 take no bits."""
    bases, extras = np.zeros(256, np.uint32), np.zeros(256, np.uint8)
    for token in range(256):
        if token < (1 << DIRECT_BITS):
            bases[token] = token
        elif token < (1 << DIRECT_BITS) + ((32 - DIRECT_BITS) << MANTISSA_BITS):
            above = token - (1 << DIRECT_BITS)
            extra = DIRECT_BITS - MANTISSA_BITS + (above >> MANTISSA_BITS)
            extras[token] = extra
            bases[token] = ((1 << MANTISSA_BITS) + (above & 7)) << extra
    return bases, extras


@njit(nogil=True, cache=True)
def write_varints(values: NDArray[np.int64]) -> Bytes:
    """Non-negative integers as LEB128: 7 bits a byte, low first, the high bit says that more follow."""
    out = np.empty(10 * values.size, np.uint8)
    n = 0
    for value in values:
        while value >= 128:
            out[n] = (value & 127) | 128
            value >>= 7
            n += 1
        out[n] = value
        n += 1
    return out[:n].copy()


@njit(nogil=True, cache=True)
def read_varints(buffer: Bytes, start: int, count: int, most_bytes: int = 8) -> tuple[NDArray[np.int64], int]:
    """Read `count` integers from byte `start`; return them and the next byte, or -1.

    Each has at most `most_bytes` of 7 bits: 8, or 9 for numbers up to 2**63 - 1.
    """
    if count < 0 or start < 0 or count > buffer.size - start:
        return np.empty(0, np.int64), CORRUPT
    out = np.empty(count, np.int64)
    for k in range(count):
        value, shift = np.int64(0), 0
        while True:
            if start >= buffer.size or shift >= 7 * most_bytes:
                return out, CORRUPT
            byte = np.int64(buffer[start])
            start += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        out[k] = value
    return out, start


def as_bytes(buffer: Any) -> Bytes:
    """View any contiguous buffer as flat bytes without a copy."""
    return np.frombuffer(buffer, np.uint8) if memoryview(buffer).nbytes else np.empty(0, np.uint8)
