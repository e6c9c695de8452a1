"""Prediction of pixels from their neighbours, in integers: residuals and contexts out, pixels back.

Images of a stack are coded as rows of one width, in eight lanes: lane k holds the rows k * L to (k + 1) * L - 1 of the
whole stack, L = ceil(rows / 8), and the lanes advance together, pixel by pixel, so that eight decoding chains run side
by side. A row is a top row when it is the first of an image or of a lane: there the left pixel alone predicts.
Elsewhere p = (w0 W + w1 N + w2 NW + w3 NE + bias) >> shift, cut to [low, high]; column 0 takes N for W and NW, the last
column takes N for NE.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.bits import token_bases, token_of
from mrczdask.kernels.compiling import njit
from mrczdask.kernels.rans import ALPHABET, LANES, LOWEST, SCALE, encoding_tables

CONTEXTS = 16
LOOKUP = 4096
"""Cells of the map from predictions to contexts."""
WEIGHT_BITS = 12
FIRST_RUN, LONGEST_RUN = 247, 511
"""With Huffman codes the tokens 248 to 255 are runs of 2**1 to 2**8 zeros and more."""
RANS, HUFFMAN = 0, 1
Weights = NDArray[np.int64]
"""w0, w1, w2, w3, bias, shift, low, high, step, residual bits, context shift."""
W0, W1, W2, W3, BIAS, SHIFT, LOW, HIGH, STEP, BITS, CONTEXT_SHIFT = range(11)


@njit(nogil=True, cache=True)
def north_part(row: Any, model: Weights, first: int, out: NDArray[np.int64]) -> None:
    """What the row above adds to the sum of a prediction, for the columns from `first` that `out` has room for."""
    last, n = row.size - 1, min(out.size, row.size - first)
    # the product of two numbers of 32 bits is one instruction of the vector unit, that of two of 64 bits is many
    w1, w2, w3 = np.int64(np.int32(model[W1])), np.int64(np.int32(model[W2])), np.int64(np.int32(model[W3]))
    start, inner = np.uint64(max(first, 1)), max(min(first + n, last) - max(first, 1), 0)
    shift = np.uint64(start - np.uint64(first))
    for k in range(np.uint64(inner)):
        c = start + k
        total = w1 * np.int64(row[c]) + w2 * np.int64(row[c - np.uint64(1)])
        out[shift + k] = total + w3 * np.int64(row[c + np.uint64(1)]) + model[BIAS]
    if first == 0:
        out[0] = (w1 + w2) * np.int64(row[0]) + w3 * np.int64(row[min(1, last)]) + model[BIAS]
    if last and first + n > last:
        out[last - first] = (w1 + w3) * np.int64(row[last]) + w2 * np.int64(row[last - 1]) + model[BIAS]


@njit(nogil=True, cache=True)
def lane_rows(rows: int) -> int:
    """Rows of a full lane."""
    return (rows + LANES - 1) // LANES


@njit(nogil=True, cache=True)
def active_lanes(rows: int, length: int, t: int) -> int:
    """Lanes that have a row t: the first ones."""
    return min((rows - t + length - 1) // length, LANES) if length else 0


@njit(nogil=True, cache=True)
def _lane_line(
    pixels: NDArray[Any], r: int, top: bool, model: Weights, folded: NDArray[np.uint32], cells: NDArray[np.uint32]
) -> None:
    """Folded residuals and lookup cells of one row."""
    row, width = pixels[r], pixels.shape[1]
    predicted, north = np.empty(width, np.int64), np.zeros(width, np.int64)
    mask, sign = (np.int64(1) << model[BITS]) - 1, model[BITS] - 1
    shift, low, high, context_shift = model[SHIFT], model[LOW], model[HIGH], model[CONTEXT_SHIFT]
    w0, left = np.int64(1) << shift, low
    if not top:
        north_part(pixels[r - 1], model, 0, north)
        w0, left = model[W0], np.int64(pixels[r - 1, 0])
    w0 = np.int64(np.int32(w0))
    predicted[0] = w0 * left
    for c in range(1, width):
        predicted[c] = w0 * np.int64(row[c - 1])
    for c in range(width):
        p = min(max((predicted[c] + north[c]) >> shift, low), high)
        wrapped = (np.int64(row[c]) - p) & mask
        folded[c] = ((wrapped << 1) ^ -(wrapped >> sign)) & mask
        cells[c] = (p - low) >> context_shift


@njit(nogil=True, cache=True)
def _line(  # type: ignore[no-untyped-def]
    pixels, height, t, model, lookup, row, cells, folded, contexts
):
    """Folded residuals and contexts of line t of the lanes, in coding order; returns how many."""
    rows, width = pixels.shape
    length = lane_rows(rows)
    active = active_lanes(rows, length, t)
    for k in range(active):
        r = k * length + t
        _lane_line(pixels, r, t == 0 or r % height == 0, model, row, cells)
        i = np.uint64(k)
        for c in range(width):
            folded[i], contexts[i] = row[c], lookup[cells[c]]
            i += np.uint64(active)
    return active * width


@njit(nogil=True, cache=True)
def residuals(
    pixels: NDArray[Any], height: int, model: Weights, lookup: NDArray[np.uint8]
) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """Folded residuals and contexts of pixels (rows, width), in coding order: row of the lane, column, lane."""
    width, at = pixels.shape[1], 0
    folded, contexts = np.empty(pixels.size, np.uint32), np.empty(pixels.size, np.uint8)
    row, cells = np.empty(width, np.uint32), np.empty(width, np.uint32)
    for t in range(lane_rows(pixels.shape[0])):
        at += _line(pixels, height, t, model, lookup, row, cells, folded[at:], contexts[at:])
    return folded, contexts


@njit(nogil=True, cache=True)
def residual_symbols(
    pixels: NDArray[Any], height: int, model: Weights, lookup: NDArray[np.uint8]
) -> tuple[NDArray[np.uint16], NDArray[np.int64], NDArray[np.uint64], int]:
    """`residuals` and `symbols_of` in one go, line by line: what lies between stays in the cache."""
    width, at = pixels.shape[1], 0
    symbols, counts, extra, held = _room(pixels.size)
    small, widths = _small_tokens(), token_bases()[1]
    row, cells = np.empty(width, np.uint32), np.empty(width, np.uint32)
    folded, contexts = np.empty(LANES * width, np.uint32), np.empty(LANES * width, np.uint8)
    for t in range(lane_rows(pixels.shape[0])):
        n = _line(pixels, height, t, model, lookup, row, cells, folded, contexts)
        _take(folded[:n], contexts, small, widths, symbols[at:], counts, extra, held)
        at += n
    extra, n_bits = _last_word(extra, held)
    return symbols, counts.reshape(CONTEXTS, ALPHABET), extra, n_bits


@njit(nogil=True, cache=True)
def symbols_of(
    folded: NDArray[np.uint32], contexts: NDArray[np.uint8]
) -> tuple[NDArray[np.uint16], NDArray[np.int64], NDArray[np.uint64], int]:
    """Symbols (context << 8 | token), their counts (contexts, 256), extra bits and the number of these."""
    symbols, counts, extra, held = _room(folded.size)
    _take(folded, contexts, _small_tokens(), token_bases()[1], symbols, counts, extra, held)
    extra, n_bits = _last_word(extra, held)
    return symbols, counts.reshape(CONTEXTS, ALPHABET), extra, n_bits


@njit(nogil=True, cache=True)
def _room(pixels):  # type: ignore[no-untyped-def]
    """Symbols, counts, the most extra bits that there can be, and (word, its bits, their number) of what is filled."""
    extra = np.empty(pixels * 28 // 64 + 2, np.uint64)
    return np.empty(pixels, np.uint16), np.zeros(CONTEXTS * ALPHABET, np.int64), extra, np.zeros(3, np.uint64)


@njit(nogil=True, cache=True)
def _take(folded, contexts, small, widths, symbols, counts, extra, holding):  # type: ignore[no-untyped-def]
    """Append residuals to symbols and extra bits, and count them."""
    word, held, filled = holding[0], holding[1], holding[2]
    for i in range(folded.size):
        value = folded[i]
        token = np.uint64(small[value] if value < LOOKUP else token_of(np.int64(value))[0])
        symbol = np.uint64(contexts[i]) << np.uint64(8) | token
        symbols[i] = symbol
        counts[symbol] += 1
        width = np.uint64(widths[token])
        low = np.uint64(value) & ((np.uint64(1) << width) - np.uint64(1))
        held |= low << filled
        filled += width
        if filled >= np.uint64(64):
            extra[word] = held
            word += np.uint64(1)
            filled -= np.uint64(64)
            held = (low << np.uint64(1)) >> (width - filled + np.uint64(1))  # a shift by 64 is none
    holding[0], holding[1], holding[2] = word, held, filled


@njit(nogil=True, cache=True)
def _last_word(extra, holding):  # type: ignore[no-untyped-def]
    """The words of extra bits, and the number of these."""
    extra[holding[0]] = holding[1]
    n_bits = np.int64(holding[0]) * 64 + np.int64(holding[2])
    return extra[: (n_bits + 63) // 64], n_bits


@njit(nogil=True, cache=True)
def _small_tokens() -> NDArray[np.uint8]:
    small = np.empty(LOOKUP, np.uint8)
    for value in range(LOOKUP):
        small[value] = token_of(value)[0]
    return small


@njit(nogil=True, cache=True)
def tokenise(folded: NDArray[np.uint32], contexts: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Tokens of residuals with runs of zeros, and their counts (contexts, 256); zeros inside a run count nowhere."""
    tokens = np.empty(folded.size, np.uint8)
    counts = np.zeros((CONTEXTS, ALPHABET), np.int64)
    small = _small_tokens()
    i = 0
    while i < folded.size:
        value = folded[i]
        n = 1
        if value == 0:
            while i + n < folded.size and n < LONGEST_RUN and folded[i + n] == 0:
                n += 1
            exponent = 0
            while n >> (exponent + 1):
                exponent += 1
            tokens[i : i + n] = 0
            tokens[i] = FIRST_RUN + exponent if exponent else 0
        else:
            tokens[i] = small[value] if value < LOOKUP else token_of(np.int64(value))[0]
        counts[contexts[i], tokens[i]] += 1
        i += n
    return tokens, counts


def encode_lanes(
    symbols: NDArray[np.uint16], frequencies: NDArray[np.uint16], rows: int, width: int
) -> tuple[NDArray[np.uint32], NDArray[np.uint16]]:
    """rANS of symbols in coding order, the state of a lane for the pixels of the lane. Returns (states, words).

    The words take the place of the symbols, which are lost: the array is locked, so that none codes it twice.
    """
    if symbols.size != rows * width or not symbols.flags.writeable:
        raise ValueError(f"{symbols.size} symbols for {rows} x {width} pixels, or symbols that were coded before")
    states, end = _encode_lanes(symbols, frequencies, rows, width)
    symbols.flags.writeable = False
    return states, symbols[end:]


@njit(nogil=True, cache=True)
def _encode_lanes(
    symbols: NDArray[np.uint16], frequencies: NDArray[np.uint16], rows: int, width: int
) -> tuple[NDArray[np.uint32], Any]:
    """States and where the words begin: there are never more words than symbols done."""
    reciprocals, packed = encoding_tables(frequencies)
    entries = np.zeros((CONTEXTS * ALPHABET, 2), np.uint64)  # side by side: one cache line
    entries[: packed.size, 0], entries[: packed.size, 1] = reciprocals, packed
    states = np.full(LANES, LOWEST, np.uint64)
    end, i = np.uint64(symbols.size - 1), np.uint64(symbols.size)
    length = lane_rows(rows)
    for t in range(length - 1, -1, -1):
        active = active_lanes(rows, length, t)
        for _ in range(width):
            if active == LANES:
                for lane in range(LANES - 1, -1, -1):
                    i -= np.uint64(1)
                    end = _encode_one(states, lane, entries, symbols, i, end)
            else:
                for lane in range(active - 1, -1, -1):
                    i -= np.uint64(1)
                    end = _encode_one(states, lane, entries, symbols, i, end)
    return states.astype(np.uint32), np.int64(end + np.uint64(1))


@njit(inline="always")
def _encode_one(states: Any, lane: Any, entries: Any, symbols: Any, i: Any, end: Any) -> Any:
    """Put a symbol onto a state; returns where the next word goes."""
    symbol = np.uint64(symbols[i] & np.uint16(CONTEXTS * ALPHABET - 1))  # never outside the tables
    reciprocal, packed = entries[symbol, 0], entries[symbol, 1]
    frequency = packed >> np.uint64(16)
    x = states[lane]
    symbols[end] = x & np.uint64(0xFFFF)
    full = x >= frequency << np.uint64(20)
    x = x >> np.uint64(16) if full else x
    quotient = (x * reciprocal) >> np.uint64(44)
    states[lane] = x + quotient * (np.uint64(SCALE) - frequency) + (packed & np.uint64(0xFFFF))
    return end - np.uint64(full)
