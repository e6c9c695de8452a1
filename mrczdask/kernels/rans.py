"""Range asymmetric numeral systems: eight interleaved states, static tables of 12-bit probabilities.

The state of lane i % 8 codes symbol i. States are 32 bits wide and stay at or above 2**16; words have 16 bits.
docs/codecs.md specifies the stream. J. Duda, "Asymmetric numeral systems", arXiv:1311.2540.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.bits import CORRUPT, get_bits, get_unary, put_bits, put_unary, unzigzag, zigzag
from mrczdask.kernels.compiling import njit

LANES = 8
SCALE_BITS = 12
SCALE = 1 << SCALE_BITS
LOWEST = 1 << 16
ALPHABET = 256
TABLE_BITS = 16 * ALPHABET + 32
"""No frequency table takes more: at most 27 + 4 bits a symbol are possible, and 12 + 4 on average."""
SIGNIFICANT = 5
"""Frequencies keep five significant bits: costs less than 3e-4 bits a symbol, saves up to 7 bits a table entry."""

Words = NDArray[np.uint16]
Symbols = NDArray[np.uint8]
Frequencies = NDArray[np.uint16]


@njit(nogil=True, cache=True)
def _bit_length(value: Any) -> int:
    n = 0
    while value >> n:
        n += 1
    return n


@njit(nogil=True, cache=True)
def _short(frequency: Any, up: bool) -> int:
    """Round a frequency to five significant bits."""
    drop = max(_bit_length(frequency) - SIGNIFICANT, 0)
    return ((frequency + ((1 << drop) >> 1 if up else 0)) >> drop) << drop


@njit(nogil=True, cache=True)
def normalise(counts: NDArray[np.int64]) -> Frequencies:
    """Scale 256 counts to frequencies that sum to 4096: at least 1 where a symbol occurs, 0 elsewhere.

    The most frequent symbol takes what the others leave, so that it need not be stored. No symbol: symbol 0 has all.
    """
    out = np.zeros(ALPHABET, np.uint16)
    total, mode = counts.sum(), np.argmax(counts)
    if total == 0:
        out[0] = SCALE
        return out
    used = 0
    for s in range(ALPHABET):
        if counts[s] > 0 and s != mode:
            out[s] = max(1, _short(int(counts[s] * (SCALE / total) + 0.5), True))
            used += out[s]
    least = max(1, int(0.9 * counts[mode] * (SCALE / total)))
    while SCALE - used < least:
        out[mode] = 0
        largest = np.argmax(out)
        if out[largest] <= 1:
            break
        lower = _short(out[largest] - 1, False)
        used -= out[largest] - lower
        out[largest] = lower
    out[mode] = SCALE - used
    return out


@njit(nogil=True, cache=True)
def write_table(frequencies: Frequencies, buffer: NDArray[np.uint8], position: int) -> int:
    """Append a table to a zeroed bit buffer; return the next position."""
    mode = np.argmax(frequencies == SCALE) if frequencies.max() == SCALE else _implied(frequencies)
    position = put_bits(buffer, position, 1 if frequencies[mode] == SCALE else 0, 1)
    position = put_bits(buffer, position, int(mode), 8)
    if frequencies[mode] == SCALE:
        return position
    top = ALPHABET - 1
    while frequencies[top] == 0 or top == mode:
        top -= 1
    position = put_bits(buffer, position, top, 8)
    before = 4
    for s in range(top + 1):
        if s == mode:
            continue
        length = _bit_length(frequencies[s])
        position = put_unary(buffer, position, zigzag(length - before))
        before = length
        kept = min(max(length - 1, 0), SIGNIFICANT - 1)
        position = put_bits(buffer, position, frequencies[s] >> max(length - 1 - kept, 0), kept)
    return position


@njit(nogil=True, cache=True)
def _implied(frequencies: Frequencies) -> int:
    """The symbol whose frequency need not be short: the one that is not, else the most frequent."""
    for s in range(ALPHABET):
        if _short(frequencies[s], False) != frequencies[s]:
            return s
    return int(np.argmax(frequencies))


@njit(nogil=True, cache=True)
def read_table(buffer: NDArray[np.uint8], position: int, out: Frequencies) -> int:
    """Read a table into `out` (256); return the next position, or -1 when it is no table."""
    out[:] = 0
    only, position = get_bits(buffer, position, 1)
    mode, position = get_bits(buffer, position, 8)
    if position < 0:
        return CORRUPT
    if only:
        out[mode] = SCALE
        return position
    top, position = get_bits(buffer, position, 8)
    length, used = 4, 0
    for s in range(top + 1):
        if s == mode:
            continue
        step, position = get_unary(buffer, position, 27)
        length += unzigzag(step)
        if position < 0 or length < 0 or length > SCALE_BITS:
            return CORRUPT
        kept = min(max(length - 1, 0), SIGNIFICANT - 1)
        low, position = get_bits(buffer, position, kept)
        if position < 0:
            return CORRUPT
        if length:
            out[s] = ((1 << kept) | low) << (length - 1 - kept)
        used += out[s]
    if used >= SCALE:
        return CORRUPT
    out[mode] = SCALE - used
    return position


@njit(nogil=True, cache=True)
def decoding_table(frequencies: NDArray[np.uint16]) -> NDArray[np.uint32]:
    """4096 entries a table of `frequencies` (tables, 256): symbol, slot - start << 8, frequency - 1 << 20."""
    out = np.empty(frequencies.shape[0] * SCALE, np.uint32)
    for t in range(frequencies.shape[0]):
        slot = t * SCALE
        for s in range(ALPHABET):
            frequency = np.uint32(frequencies[t, s])
            for k in range(frequency):
                out[slot] = (
                    np.uint32(s) | (np.uint32(k) << np.uint32(8)) | ((frequency - np.uint32(1)) << np.uint32(20))
                )
                slot += 1
    return out


@njit(nogil=True, cache=True)
def encoding_tables(frequencies: NDArray[np.uint16]) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    """For each (table, symbol): ceil(2**44 / frequency), and frequency << 16 | start; 0 where it does not occur."""
    tables = frequencies.shape[0]
    reciprocals, packed = np.zeros(tables * ALPHABET, np.uint64), np.zeros(tables * ALPHABET, np.uint32)
    for t in range(tables):
        start = 0
        for s in range(ALPHABET):
            frequency = int(frequencies[t, s])
            if frequency:
                reciprocals[t * ALPHABET + s] = ((1 << 44) + frequency - 1) // frequency
                packed[t * ALPHABET + s] = frequency << 16 | start
                start += frequency
    return reciprocals, packed


@njit(nogil=True, cache=True)
def encode_runs(
    symbols: Symbols, runs: NDArray[np.int64], frequencies: NDArray[np.uint16]
) -> tuple[NDArray[np.uint32], Words]:
    """Code symbols in runs of one table each; `runs` (n, 2) holds (table, symbols). Returns (states, words)."""
    reciprocals, packed = encoding_tables(frequencies)
    states = np.full(LANES, LOWEST, np.uint32)
    words = np.empty(symbols.size + 1, np.uint16)
    end = np.uint64(symbols.size)
    i = np.uint64(symbols.size)
    for r in range(runs.shape[0] - 1, -1, -1):
        table = np.uint64(runs[r, 0] * ALPHABET)
        first = i - np.uint64(runs[r, 1])
        if frequencies[runs[r, 0]].max() == SCALE:  # one symbol: states stay as they are
            i = first
            continue
        while i > first:
            i -= np.uint64(1)
            lane = i & np.uint64(LANES - 1)
            entry = table + np.uint64(symbols[i])
            x = np.uint64(states[lane])
            frequency = np.uint64(packed[entry] >> np.uint32(16))
            words[end] = x & np.uint64(0xFFFF)
            full = x >= frequency << np.uint64(20)
            end -= np.uint64(full)
            x = x >> np.uint64(16) if full else x
            quotient = (x * reciprocals[entry]) >> np.uint64(44)
            states[lane] = x + quotient * (np.uint64(SCALE) - frequency) + np.uint64(packed[entry] & np.uint32(0xFFFF))
    return states, words[end + np.uint64(1) :]


@njit(nogil=True, cache=True)
def decode_runs(
    states: NDArray[np.uint32], words: Words, runs: NDArray[np.int64], table: NDArray[np.uint32], symbols: Symbols
) -> bool:
    """Undo `encode_runs` into `symbols`; False when the stream is corrupt.

    `words` ends with LANES zeros that are not part of the stream; `table` comes from `decoding_table`.
    """
    x = states.copy()
    last = np.uint64(max(words.size - LANES, 0))
    position, i = np.uint64(0), np.uint64(0)
    one, low = np.uint64(1), np.uint64(SCALE - 1)
    for r in range(runs.shape[0]):
        base, end = np.uint64(runs[r, 0] * SCALE), i + np.uint64(runs[r, 1])
        if table[base] >> np.uint32(20) == low:  # one symbol has all 4096 slots
            symbols[i:end] = table[base] & np.uint32(0xFF)
            i = end
            continue
        while i < end:
            if i & np.uint64(LANES - 1) == 0 and i + np.uint64(LANES) <= end:
                i, position = _decode_eights(x, words, table, base, symbols, i, end, position, last)
                if i == end:
                    break
            if position > last:
                return False
            lane = i & np.uint64(LANES - 1)
            entry = table[base + (np.uint64(x[lane]) & low)]
            symbols[i] = entry & np.uint32(0xFF)
            x[lane], position = _advance(x[lane], entry, words, position)
            i += one
    return position == last and bool(np.all(x == LOWEST))


@njit(nogil=True, cache=True)
def _advance(x: np.uint32, entry: np.uint32, words: Words, position: np.uint64) -> tuple[np.uint32, np.uint64]:
    """Take a symbol off a state and fill it up from the words."""
    x = ((entry >> np.uint32(20)) + np.uint32(1)) * (x >> np.uint32(SCALE_BITS)) + (
        (entry >> np.uint32(8)) & np.uint32(0xFFF)
    )
    low = x < np.uint32(LOWEST)
    filled = (x << np.uint32(16)) | np.uint32(words[position])
    return (filled if low else x), position + np.uint64(low)


@njit(nogil=True, cache=True)
def _decode_eights(
    x: NDArray[np.uint32],
    words: Words,
    table: NDArray[np.uint32],
    base: np.uint64,
    symbols: Symbols,
    i: np.uint64,
    end: np.uint64,
    position: np.uint64,
    last: np.uint64,
) -> tuple[np.uint64, np.uint64]:
    """Decode whole groups of eight symbols of one table with the states in registers."""
    m, b = np.uint32(SCALE - 1), np.uint32(0xFF)
    x0, x1, x2, x3, x4, x5, x6, x7 = x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]
    while i + np.uint64(LANES) <= end and position <= last:
        e0, e1 = table[base + np.uint64(x0 & m)], table[base + np.uint64(x1 & m)]
        e2, e3 = table[base + np.uint64(x2 & m)], table[base + np.uint64(x3 & m)]
        e4, e5 = table[base + np.uint64(x4 & m)], table[base + np.uint64(x5 & m)]
        e6, e7 = table[base + np.uint64(x6 & m)], table[base + np.uint64(x7 & m)]
        symbols[i], symbols[i + np.uint64(1)] = e0 & b, e1 & b
        symbols[i + np.uint64(2)], symbols[i + np.uint64(3)] = e2 & b, e3 & b
        symbols[i + np.uint64(4)], symbols[i + np.uint64(5)] = e4 & b, e5 & b
        symbols[i + np.uint64(6)], symbols[i + np.uint64(7)] = e6 & b, e7 & b
        x0, position = _advance(x0, e0, words, position)
        x1, position = _advance(x1, e1, words, position)
        x2, position = _advance(x2, e2, words, position)
        x3, position = _advance(x3, e3, words, position)
        x4, position = _advance(x4, e4, words, position)
        x5, position = _advance(x5, e5, words, position)
        x6, position = _advance(x6, e6, words, position)
        x7, position = _advance(x7, e7, words, position)
        i += np.uint64(LANES)
    x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7] = x0, x1, x2, x3, x4, x5, x6, x7
    return i, position
