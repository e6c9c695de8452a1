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
from numba import njit
from numpy.typing import NDArray

from mrczdask.kernels.bits import token_bases, token_of
from mrczdask.kernels.rans import ALPHABET, LANES, LOWEST, SCALE, SCALE_BITS, encoding_tables

CONTEXTS = 16
LOOKUP = 4096
"""Cells of the map from predictions to contexts."""
WEIGHT_BITS = 12
FIRST_RUN, LONGEST_RUN = 247, 511
"""With Huffman codes the tokens 248 to 255 are runs of 2**1 to 2**8 zeros and more."""
RANS, HUFFMAN = 0, 1
MARGIN = 8
"""Words of 64 bits: eight pixels take at most 8 * (12 + 8 + 29) bits before the next check."""

Weights = NDArray[np.int64]
"""w0, w1, w2, w3, bias, shift, low, high, step, residual bits, context shift."""
W0, W1, W2, W3, BIAS, SHIFT, LOW, HIGH, STEP, BITS, CONTEXT_SHIFT = range(11)


@njit(nogil=True, cache=True)
def _north_part(row: Any, model: Weights, out: NDArray[np.int64]) -> None:
    """What the row above adds to the sum of a prediction."""
    last = row.size - 1
    w1, w2, w3, bias = model[W1], model[W2], model[W3], model[BIAS]
    for c in range(1, last):
        out[c] = w1 * np.int64(row[c]) + w2 * np.int64(row[c - 1]) + w3 * np.int64(row[c + 1]) + bias
    out[0] = (w1 + w2) * np.int64(row[0]) + w3 * np.int64(row[min(1, last)]) + bias
    if last:
        out[last] = (w1 + w3) * np.int64(row[last]) + w2 * np.int64(row[last - 1]) + bias


@njit(nogil=True, cache=True)
def lane_rows(rows: int) -> int:
    """Rows of a full lane."""
    return (rows + LANES - 1) // LANES


@njit(nogil=True, cache=True)
def _active(rows: int, length: int, t: int) -> int:
    """Lanes that have a row t: the first ones."""
    return min((rows - t + length - 1) // length, LANES) if length else 0


@njit(nogil=True, cache=True)
def residuals(
    pixels: NDArray[Any], height: int, model: Weights, lookup: NDArray[np.uint8]
) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """Folded residuals and contexts of pixels (rows, width), in coding order: row of the lane, column, lane."""
    rows, width = pixels.shape
    length = lane_rows(rows)
    folded, contexts = np.empty(rows * width, np.uint32), np.empty(rows * width, np.uint8)
    north, predicted, line = np.empty(width, np.int64), np.empty(width, np.int64), np.empty(width, np.uint32)
    mask, sign = (np.int64(1) << model[BITS]) - 1, model[BITS] - 1
    shift, low, high, context_shift = model[SHIFT], model[LOW], model[HIGH], np.uint64(model[CONTEXT_SHIFT])
    at = np.uint64(0)
    for t in range(length):
        active = _active(rows, length, t)
        for k in range(active):
            r = k * length + t
            row = pixels[r]
            w0, left = np.int64(1) << shift, low
            if t == 0 or r % height == 0:
                north[:] = 0
            else:
                _north_part(pixels[r - 1], model, north)
                w0, left = model[W0], np.int64(pixels[r - 1, 0])
            predicted[0] = w0 * left
            for c in range(1, width):
                predicted[c] = w0 * np.int64(row[c - 1])
            for c in range(width):  # loops apart, so that these vectorise
                p = min(max((predicted[c] + north[c]) >> shift, low), high)
                wrapped = (np.int64(row[c]) - p) & mask
                line[c] = ((wrapped << 1) ^ -(wrapped >> sign)) & mask
                predicted[c] = p - low
            i = at + np.uint64(k)
            for c in range(width):
                folded[i] = line[c]
                contexts[i] = lookup[np.uint64(predicted[c]) >> context_shift]
                i += np.uint64(active)
        at += np.uint64(active * width)
    return folded, contexts


@njit(nogil=True, cache=True)
def tokenise(
    folded: NDArray[np.uint32], contexts: NDArray[np.uint8], runs: bool
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Tokens of residuals and their counts (contexts, 256). With `runs`, zeros that are inside a run count nowhere."""
    tokens = np.empty(folded.size, np.uint8)
    counts = np.zeros((CONTEXTS, ALPHABET), np.int64)
    small = np.empty(LOOKUP, np.uint8)
    for value in range(LOOKUP):
        small[value] = token_of(value)[0]
    i = 0
    while i < folded.size:
        value = folded[i]
        if runs and value == 0:
            n = 1
            while i + n < folded.size and n < LONGEST_RUN and folded[i + n] == 0:
                n += 1
            exponent = 0
            while n >> (exponent + 1):
                exponent += 1
            tokens[i : i + n] = 0
            tokens[i] = FIRST_RUN + exponent if exponent else 0
            counts[contexts[i], tokens[i]] += 1
            i += n
            continue
        tokens[i] = small[value] if value < LOOKUP else token_of(np.int64(value))[0]
        counts[contexts[i], tokens[i]] += 1
        i += 1
    return tokens, counts


@njit(nogil=True, cache=True)
def extra_bits(folded: NDArray[np.uint32], tokens: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], int]:
    """The low bits of residuals that their tokens leave out, and their number."""
    widths = token_bases()[1]
    total: Any = 0
    for i in range(tokens.size):
        total += np.int64(widths[tokens[i]])
    out = np.zeros(total // 64 + 2, np.uint64)
    position, word, filled = 0, np.uint64(0), np.uint64(0)
    for i in range(tokens.size):
        width = np.uint64(widths[tokens[i]])
        low = np.uint64(folded[i]) & ((np.uint64(1) << width) - np.uint64(1))
        word |= low << filled
        filled += width
        if filled >= np.uint64(64):
            out[position] = word
            position += 1
            filled -= np.uint64(64)
            word = low >> (width - filled) if filled else np.uint64(0)
    out[position] = word
    return out[: (total + 63) // 64], total


@njit(nogil=True, cache=True)
def encode_lanes(
    tokens: NDArray[np.uint8], contexts: NDArray[np.uint8], frequencies: NDArray[np.uint16], rows: int, width: int
) -> tuple[NDArray[np.uint32], NDArray[np.uint16]]:
    """rANS of tokens in coding order, the state of a lane for the pixels of the lane. Returns (states, words)."""
    reciprocals, packed = encoding_tables(frequencies)
    entries = np.empty((packed.size, 2), np.uint64)  # side by side: one cache line
    entries[:, 0], entries[:, 1] = reciprocals, packed
    states = np.full(LANES, LOWEST, np.uint32)
    words = np.empty(tokens.size + 1, np.uint16)
    end, i = np.uint64(tokens.size), np.uint64(tokens.size)
    length = lane_rows(rows)
    for t in range(length - 1, -1, -1):
        active = _active(rows, length, t)
        for _ in range(width):
            if active == LANES:
                for lane in range(LANES - 1, -1, -1):
                    i -= np.uint64(1)
                    end = _encode_one(states, lane, entries, contexts[i], tokens[i], words, end)
            else:
                for lane in range(active - 1, -1, -1):
                    i -= np.uint64(1)
                    end = _encode_one(states, lane, entries, contexts[i], tokens[i], words, end)
    return states, words[end + np.uint64(1) :]


@njit(inline="always")
def _encode_one(states: Any, lane: Any, entries: Any, context: Any, token: Any, words: Any, end: Any) -> Any:
    """Put a token onto a state; returns where the next word goes."""
    entry = (np.uint64(context) << np.uint64(8)) | np.uint64(token)
    reciprocal, packed = entries[entry, 0], entries[entry, 1]
    frequency = packed >> np.uint64(16)
    x = np.uint64(states[lane])
    words[end] = x & np.uint64(0xFFFF)
    full = x >= frequency << np.uint64(20)
    x = x >> np.uint64(16) if full else x
    quotient = (x * reciprocal) >> np.uint64(44)
    states[lane] = x + quotient * (np.uint64(SCALE) - frequency) + (packed & np.uint64(0xFFFF))
    return end - np.uint64(full)


@njit(nogil=True, cache=True)
def decode_pixels(
    pixels: NDArray[Any],
    height: int,
    model: Weights,
    lookup: NDArray[np.uint8],
    table: NDArray[np.uint32],
    entropy: int,
    states: NDArray[np.uint32],
    words: NDArray[np.uint16],
    extra: NDArray[np.uint64],
    n_bits: int,
) -> bool:
    """Undo `residuals` and the entropy coding into pixels (rows, width); False when the stream is corrupt.

    `words` ends with LANES zeros and `extra` with MARGIN, which are not part of the stream: what is read before the
    next check. `table` has SCALE entries a context.
    """
    rows, width = pixels.shape
    length = lane_rows(rows)
    x, left, w0 = states.copy(), np.empty(LANES, np.int64), np.empty(LANES, np.int64)
    bases, widths = token_bases()
    # rows of lanes lie apart by no power of two, which would put them all into one set of the cache
    north, line = np.empty((LANES, width + 8), np.int64), np.empty((LANES, width + 8), np.int64)
    last = np.uint64(max(words.size - LANES, 0))
    position, bit, run = np.uint64(0), np.int64(0), np.int64(0)
    step = model[STEP]
    for t in range(length):
        active = _active(rows, length, t)
        _begin_line(pixels, height, length, t, active, model, north, left, w0)
        if entropy == RANS and step == 1 and active == LANES:
            position, bit = _eight_rows(
                north, line, left, w0, x, model, lookup, table, words, position, last, extra, bit, n_bits, bases, widths
            )
            if bit > n_bits:
                return False
        else:
            position, bit, run = _any_rows(
                north,
                line,
                left,
                w0,
                x,
                model,
                lookup,
                table,
                words,
                position,
                last,
                extra,
                bit,
                n_bits,
                bases,
                widths,
                active,
                entropy,
                run,
            )
            if position > last or bit > n_bits:
                return False
        for k in range(active):
            row = pixels[k * length + t]
            for c in range(width):
                row[c] = line[k, c]
    done = position == last and bit == n_bits and run == 0
    return done and (entropy == HUFFMAN or bool(np.all(x == LOWEST)))


@njit(nogil=True, cache=True)
def _begin_line(pixels, height, length, t, active, model, north, left, w0):  # type: ignore[no-untyped-def]
    """What the row above and the border say of line t of each lane."""
    for k in range(active):
        r = k * length + t
        w0[k], left[k] = np.int64(1) << model[SHIFT], model[LOW]
        if t == 0 or r % height == 0:
            north[k] = 0
        else:
            _north_part(pixels[r - 1], model, north[k, : pixels.shape[1]])
            w0[k], left[k] = model[W0], np.int64(pixels[r - 1, 0])


@njit(nogil=True, cache=True)
def _any_rows(  # type: ignore[no-untyped-def]
    north,
    line,
    left,
    w0,
    x,
    model,
    lookup,
    table,
    words,
    position,
    last,
    extra,
    bit,
    n_bits,
    bases,
    widths,
    active,
    entropy,
    run,
):
    """One line of the `active` lanes in either entropy code; returns (position, bit, run)."""
    mask = (np.int64(1) << model[BITS]) - 1
    half = (mask >> 1) + 1
    shift, low, high, step = model[SHIFT], model[LOW], model[HIGH], model[STEP]
    context_shift, slots = model[CONTEXT_SHIFT], np.uint32(SCALE - 1)
    for c in range(line.shape[1] - 8):
        if position > last or bit > n_bits:
            return position, bit, run
        for k in range(active):
            p = min(max((w0[k] * left[k] + north[k, c]) >> shift, low), high)
            base = np.uint64(lookup[(p - low) >> context_shift]) << np.uint64(SCALE_BITS)
            if entropy == RANS:
                entry = table[base + np.uint64(x[k] & slots)]
                token = entry & np.uint32(0xFF)
                state = ((entry >> np.uint32(20)) + np.uint32(1)) * (x[k] >> np.uint32(SCALE_BITS))
                state += (entry >> np.uint32(8)) & np.uint32(0xFFF)
                lacks = state < np.uint32(LOWEST)
                filled = (state << np.uint32(16)) | np.uint32(words[position])
                x[k] = filled if lacks else state
                position += np.uint64(lacks)
            elif run > 0:
                run -= 1
                token = np.uint32(0)
            else:
                entry = table[base + (_peek(extra, bit) & np.uint64(slots))]
                token = entry & np.uint32(0xFF)
                bit += np.int64(entry >> np.uint32(8))
                if token > FIRST_RUN:
                    exponent = np.int64(token) - FIRST_RUN
                    run = (1 << exponent) - 1 + (np.int64(_peek(extra, bit)) & ((1 << exponent) - 1))
                    bit += exponent
                    token = np.uint32(0)
            value = np.int64(bases[token])
            extent = np.int64(widths[token])  # often 0: no branch, it could not be foreseen
            value += np.int64(_peek(extra, bit)) & ((np.int64(1) << extent) - 1)
            bit += extent
            residual = (value >> 1) ^ -(value & 1)
            v = p + residual * step
            if step == 1:  # modulo the type, as the residual was
                v = v & mask
                v = v - mask - 1 if low < 0 and v >= half else v
            line[k, c] = v
            left[k] = v
    return position, bit, run


@njit(nogil=True, cache=True)
def _eight_rows(  # type: ignore[no-untyped-def]
    north, line, left, w0, x, model, lookup, table, words, position, last, extra, bit, n_bits, bases, widths
):
    """Decode a row of every lane by rANS: the common case, with nothing to decide. Past `n_bits`: corrupt."""
    width = line.shape[1] - 8
    mask, sign = (np.int64(1) << model[BITS]) - 1, np.int64(64) - model[BITS]
    signed = model[LOW] < 0
    shift, low, high = model[SHIFT], model[LOW], model[HIGH]
    context_shift, slots, byte = np.uint64(model[CONTEXT_SHIFT]), np.uint32(SCALE - 1), np.uint32(0xFF)
    ahead = np.uint64(0)
    for c in range(width):
        if position > last or bit > n_bits:
            return position, n_bits + 1
        for k in range(LANES):
            p = min(max((w0[k] * left[k] + north[k, c]) >> shift, low), high)
            base = np.uint64(lookup[np.uint64(p - low) >> context_shift]) << np.uint64(SCALE_BITS)
            state = np.uint32(x[k])
            entry = table[base + np.uint64(state & slots)]
            state = ((entry >> np.uint32(20)) + np.uint32(1)) * (state >> np.uint32(SCALE_BITS))
            state += (entry >> np.uint32(8)) & np.uint32(0xFFF)
            lacks = state < np.uint32(LOWEST)
            filled = (state << np.uint32(16)) | np.uint32(words[position])
            x[k] = filled if lacks else state
            position += np.uint64(lacks)
            token = np.uint64(entry & byte)
            extent = np.int64(widths[token])
            if k & 1 == 0:  # 64 bits are enough for two pixels
                ahead = _peek(extra, bit)
            value = np.int64(bases[token]) + (np.int64(ahead) & ((np.int64(1) << extent) - 1))
            ahead = ahead >> np.uint64(extent)
            bit += extent
            v = (p + ((value >> 1) ^ -(value & 1))) & mask
            v = (v << sign) >> sign if signed else v
            line[k, c] = v
            left[k] = v
    return position, bit


@njit(nogil=True, cache=True)
def _peek(words: NDArray[np.uint64], bit: Any) -> Any:
    """64 bits from a position inside the stream."""
    word, shift = bit >> 6, np.uint64(bit & 63)
    return words[word] >> shift | (words[word + 1] << np.uint64(1)) << (np.uint64(63) - shift)
