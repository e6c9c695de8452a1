"""Counts of patterns coded by tables that follow from what the same pixel counted in the pattern before.

The table of a pixel is that of its class and of the level of the token that it had in the pattern before. Symbols are
the tokens of the pixels, pattern by pattern; symbol i belongs to lane i % 8 of the rANS.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.bits import token_bases, token_of
from mrczdask.kernels.compiling import njit
from mrczdask.kernels.rans import ALPHABET, LANES, LOWEST, SCALE, SCALE_BITS, _advance, encoding_tables

_SATURATED = 1 << 15
"""Larger counts are masked pixels and would be all of a correlation."""

Patterns = NDArray[np.unsignedinteger]
Map = NDArray[np.uint8]


@njit(nogil=True, cache=True)
def correlation_bits(values: Patterns, low: int, class_of: Map, classes: int, step: int) -> float:
    """Bits a pixel that the pattern before tells: -log2(1 - rho**2) / 2 of each class, if counts were normal."""
    sums = np.zeros((classes, 6), np.int64)
    zero = values.dtype.type(low)
    for r in range(0, values.shape[0] - 1, step):
        for p in range(values.shape[1]):
            x: Any = min(np.int64(values.dtype.type(values[r, p] - zero)), _SATURATED)
            y: Any = min(np.int64(values.dtype.type(values[r + 1, p] - zero)), _SATURATED)
            s = sums[class_of[p]]
            s[0] += 1
            s[1] += x
            s[2] += y
            s[3] += x * x
            s[4] += y * y
            s[5] += x * y
    bits = 0.0
    for c in range(classes):
        n, sx, sy, sxx, syy, sxy = sums[c].astype(np.float64)
        spread = (n * sxx - sx * sx) * (n * syy - sy * sy)
        if spread > 0:
            bits -= 0.5 * n * np.log2(max(1 - (n * sxy - sx * sy) ** 2 / spread, 1e-6))
    return bits / max(sums[:, 0].sum(), 1.0)


@njit(nogil=True, cache=True)
def transitions(values: Patterns, low: int, class_of: Map, classes: int) -> NDArray[np.int64]:
    """Counts of (class, token in the pattern before, token)."""
    out = np.zeros((classes, ALPHABET, ALPHABET), np.int64)
    zero = values.dtype.type(low)
    before = np.empty(values.shape[1], np.uint8)
    for r in range(values.shape[0]):
        for p in range(values.shape[1]):
            token = token_of(np.int64(values.dtype.type(values[r, p] - zero)))[0]
            if r:
                out[class_of[p], before[p], token] += 1
            before[p] = token
    return out


@njit(nogil=True, cache=True)
def symbols_in_context(
    values: Patterns, low: int, class_of: Map, table_of: Map, first: Map
) -> tuple[NDArray[np.uint16], NDArray[np.uint64], int]:
    """Symbols (table << 8 | token), extra bits of the tokens and their number.

    `table_of` (classes, 256) is the table of each class and token in the pattern before, `first` that of each class in
    the first pattern.
    """
    rows, columns = values.shape
    symbols = np.empty(values.size, np.uint16)
    extra, n_bits = np.zeros(values.size * 28 // 64 + 2, np.uint64), 0
    zero = values.dtype.type(low)
    before, i = np.empty(columns, np.uint8), 0
    for r in range(rows):
        for p in range(columns):
            offset = np.int64(values.dtype.type(values[r, p] - zero))
            token, width = token_of(offset)
            table = table_of[class_of[p], before[p]] if r else first[class_of[p]]
            symbols[i] = np.uint16(table) << np.uint16(8) | np.uint16(token)
            i += 1
            before[p] = token
            low_bits, word, shift = np.uint64(offset & ((1 << width) - 1)), n_bits >> 6, n_bits & 63
            extra[word] |= low_bits << np.uint64(shift)
            if shift + width > 64:
                extra[word + 1] = low_bits >> np.uint64(64 - shift)
            n_bits += width
    return symbols, extra[: (n_bits + 63) // 64], n_bits


@njit(nogil=True, cache=True)
def encode_each(
    symbols: NDArray[np.uint16], frequencies: NDArray[np.uint16]
) -> tuple[NDArray[np.uint32], NDArray[np.uint16]]:
    """rANS of symbols (table << 8 | token), each by its table of `frequencies` (tables, 256): (states, words)."""
    reciprocals, packed = encoding_tables(frequencies)
    states = np.full(LANES, LOWEST, np.uint64)
    words, end = np.empty(symbols.size, np.uint16), symbols.size - 1
    for i in range(symbols.size - 1, -1, -1):
        lane, entry = i & (LANES - 1), symbols[i]
        x, frequency = states[lane], np.uint64(packed[entry] >> np.uint32(16))
        if x >= frequency << np.uint64(20):
            words[end] = x & np.uint64(0xFFFF)
            end -= 1
            x >>= np.uint64(16)
        quotient = (x * reciprocals[entry]) >> np.uint64(44)
        states[lane] = x + quotient * (np.uint64(SCALE) - frequency) + np.uint64(packed[entry] & np.uint32(0xFFFF))
    return states.astype(np.uint32), words[end + 1 :]


@njit(nogil=True, cache=True)
def decode_patterns(
    values: Patterns,
    low: int,
    class_of: Map,
    table_of: Map,
    first: Map,
    table: NDArray[np.uint32],
    states: NDArray[np.uint32],
    words: NDArray[np.uint16],
    extra: NDArray[np.uint64],
    n_bits: int,
) -> bool:
    """Undo `symbols_in_context` and `encode_each` into `values`; False when the stream is corrupt.

    `words` ends with LANES zeros and `extra` with two, which are not part of the stream. `table` has SCALE entries for
    every number that stands in `table_of` and `first`.
    """
    rows, columns = values.shape
    bases, widths = token_bases()
    x, before = states.copy(), np.empty(columns, np.uint8)
    position, last, i = np.uint64(0), np.uint64(max(words.size - LANES, 0)), 0
    bit: Any = 0
    zero: Any = np.uint64(values.dtype.type(low))
    for r in range(rows):
        for p in range(columns):
            which = np.uint64(table_of[class_of[p], before[p]] if r else first[class_of[p]])
            lane = i & (LANES - 1)
            entry = table[which << np.uint64(SCALE_BITS) | np.uint64(x[lane] & np.uint32(SCALE - 1))]
            token = entry & np.uint32(0xFF)
            x[lane], position = _advance(x[lane], entry, words, position)
            width = np.int64(widths[token])
            if position > last or bit + width > n_bits:
                return False
            word, shift = bit >> 6, np.uint64(bit & 63)
            low_bits = extra[word] >> shift | (extra[word + 1] << np.uint64(1)) << (np.uint64(63) - shift)
            low_bits &= (np.uint64(1) << np.uint64(width)) - np.uint64(1)
            values[r, p] = values.dtype.type(zero + np.uint64(bases[token]) + low_bits)
            bit += width
            before[p] = token
            i += 1
    return position == last and bit == n_bits and bool(np.all(x == LOWEST))
