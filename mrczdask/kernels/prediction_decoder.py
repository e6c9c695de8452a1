"""The way back from a B3D stream to pixels: eight lanes at a time, with every access inside its array.

A pixel is known only after its left neighbour, and each takes some fifty cycles from prediction to value. So the eight
lanes go through each step together: what follows in the machine code never waits for what stands right before it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.bits import token_bases
from mrczdask.kernels.compiling import njit
from mrczdask.kernels.prediction import (
    CONTEXT_SHIFT,
    FIRST_RUN,
    HIGH,
    HUFFMAN,
    LOW,
    RANS,
    SHIFT,
    STEP,
    W0,
    Weights,
    active_lanes,
    lane_rows,
    north_part,
)
from mrczdask.kernels.rans import LANES, LOWEST, SCALE, SCALE_BITS

MARGIN = 64
"""Bytes: eight pixels take at most 8 * (12 + 8 + 28) bits before the next check."""
_COLUMNS = 128
"""Columns for which the part of the row above is made ahead: 8 KB for the eight lanes, a quarter of the cache."""


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
    extra: NDArray[np.uint8],
    n_bits: int,
) -> bool:
    """Undo `residuals` and the entropy coding into pixels (rows, width); False when the stream is corrupt.

    `words` ends with LANES zeros and `extra` with MARGIN, which are not part of the stream: what is read before the
    next check. `table` has SCALE entries a context.
    """
    rows, width = pixels.shape
    length = lane_rows(rows)
    x, left, w0 = states.copy(), np.empty(LANES, np.int64), np.empty(LANES, np.int64)
    north, tokens = np.empty((LANES, _COLUMNS + 8), np.int64), _packed_tokens()
    stream = (lookup, table, tokens, words, extra)
    last = np.uint64(max(words.size - LANES, 0))
    at = (np.uint64(0), np.uint64(0), np.int64(0))
    for t in range(length):
        active = active_lanes(rows, length, t)
        _begin_line(pixels, height, length, t, active, model, left, w0)
        for first in range(0, width, _COLUMNS):
            n = min(_COLUMNS, width - first)
            _look_north(pixels, height, length, t, active, model, first, north[:, :n])
            part = north[:, :n]
            if entropy == RANS and model[STEP] == 1 and active == LANES:
                at = _eight_lanes(pixels, length, t, first, part, left, w0, x, model, stream, at, n_bits)
            else:
                at = _any_lanes(pixels, length, t, first, part, left, w0, x, model, stream, at, n_bits, active, entropy)
            if at[0] > last or at[1] > np.uint64(n_bits):
                return False
    done = at[0] == last and at[1] == np.uint64(n_bits) and at[2] == 0
    return done and (entropy == HUFFMAN or bool(np.all(x == LOWEST)))


@njit(nogil=True, cache=True)
def _packed_tokens() -> NDArray[np.uint64]:
    """Smallest offset of each token, number of its extra bits << 32."""
    bases, widths = token_bases()
    return bases.astype(np.uint64) | widths.astype(np.uint64) << np.uint64(32)


@njit(nogil=True, cache=True)
def _begin_line(pixels, height, length, t, active, model, left, w0):  # type: ignore[no-untyped-def]
    """What the border says of line t of each lane."""
    for k in range(active):
        r = k * length + t
        top = t == 0 or r % height == 0
        w0[k] = np.int64(1) << model[SHIFT] if top else model[W0]
        left[k] = model[LOW] if top else np.int64(pixels[r - 1, 0])


@njit(nogil=True, cache=True)
def _look_north(pixels, height, length, t, active, model, first, north):  # type: ignore[no-untyped-def]
    """What the row above says of some columns of line t of each lane."""
    for k in range(active):
        r = k * length + t
        if t == 0 or r % height == 0:
            north[k] = 0
        else:
            north_part(pixels[r - 1], model, first, north[k])


@njit(nogil=True, cache=True)
def _eight_lanes(pixels, length, t, first, north, left, w0, x, model, stream, at, n_bits):  # type: ignore[no-untyped-def]
    """Some columns of a line of all lanes by rANS; returns (words, bits, 0), past the end when corrupt."""
    flat, stride = pixels.reshape(-1), np.uint64(length * pixels.shape[1])
    i = np.uint64(t * pixels.shape[1] + first)
    lookup, table, tokens, words, extra = stream
    shift, low, high, context_shift = model[SHIFT], model[LOW], model[HIGH], np.uint64(model[CONTEXT_SHIFT])
    p, entries = np.empty(LANES, np.int64), np.empty(LANES, np.uint32)
    position, bit, _ = at
    last, end = np.uint64(words.size - LANES), np.uint64(n_bits)
    for c in range(north.shape[1]):
        if position > last or bit > end:
            break
        for k in range(LANES):
            p[k] = min(max((w0[k] * left[k] + north[k, c]) >> shift, low), high)
        for k in range(LANES):
            context = np.uint64(lookup[np.uint64(p[k] - low) >> context_shift])
            entries[k] = table[context << np.uint64(SCALE_BITS) | np.uint64(x[k] & np.uint32(SCALE - 1))]
        for k in range(LANES):
            x[k], position = _advance(x[k], entries[k], words, position)
        for k in range(LANES):
            residual, bit = _residual(tokens[np.uint64(entries[k] & np.uint32(0xFF))], extra, bit)
            value = flat.dtype.type(p[k] + residual)
            flat[i + np.uint64(k) * stride] = value
            left[k] = np.int64(value)
        i += np.uint64(1)
    return position, bit, np.int64(0)


@njit(inline="always")
def _advance(x: Any, entry: Any, words: Any, position: Any) -> Any:
    """Take a symbol off a state and fill it up from the words."""
    state = ((entry >> np.uint32(20)) + np.uint32(1)) * (x >> np.uint32(SCALE_BITS))
    state += (entry >> np.uint32(8)) & np.uint32(0xFFF)
    lacks = state < np.uint32(LOWEST)
    filled = (state << np.uint32(16)) | np.uint32(words[position])
    return (filled if lacks else state), position + np.uint64(lacks)


@njit(inline="always")
def _residual(token: Any, extra: Any, bit: Any) -> Any:
    """Residual of a packed token, and the position after its extra bits: often none, which could not be foreseen."""
    width = token >> np.uint64(32)
    value = np.uint32(token) + (np.uint32(_peek(extra, bit)) & ((np.uint32(1) << np.uint32(width)) - np.uint32(1)))
    return np.int64(np.int32(value >> np.uint32(1)) ^ -np.int32(value & np.uint32(1))), bit + width


@njit(nogil=True, cache=True)
def _any_lanes(  # type: ignore[no-untyped-def]
    pixels, length, t, first, north, left, w0, x, model, stream, at, n_bits, active, entropy
):
    """Some columns of a line of the `active` lanes in either entropy code; returns (words, bits, run of zeros)."""
    lookup, table, tokens, words, extra = stream
    shift, low, high, step = model[SHIFT], model[LOW], model[HIGH], model[STEP]
    context_shift, slots = np.uint64(model[CONTEXT_SHIFT]), np.uint32(SCALE - 1)
    position, bit, run = at
    last, end = np.uint64(max(words.size - LANES, 0)), np.uint64(n_bits)
    for c in range(north.shape[1]):
        if position > last or bit > end:
            break
        for k in range(active):
            p = min(max((w0[k] * left[k] + north[k, c]) >> shift, low), high)
            base = np.uint64(lookup[np.uint64(p - low) >> context_shift]) << np.uint64(SCALE_BITS)
            token = np.uint32(0)
            if entropy == RANS:
                entry = table[base + np.uint64(x[k] & slots)]
                token = entry & np.uint32(0xFF)
                x[k], position = _advance(x[k], entry, words, position)
            elif run > 0:
                run -= 1
            else:
                entry = table[base + np.uint64(np.uint32(_peek(extra, bit)) & slots)]
                token = entry & np.uint32(0xFF)
                bit += np.uint64(entry >> np.uint32(8))
                if token > FIRST_RUN:
                    exponent = np.int64(token) - FIRST_RUN
                    run = (1 << exponent) - 1 + (np.int64(_peek(extra, bit)) & ((1 << exponent) - 1))
                    bit += np.uint64(exponent)
                    token = np.uint32(0)
            residual, bit = _residual(tokens[np.uint64(token)], extra, bit)
            value = pixels.dtype.type(p + residual * step)
            pixels[k * length + t, first + c] = value
            left[k] = np.int64(value)
    return position, bit, run


@njit(nogil=True, cache=True)
def _peek(extra: NDArray[np.uint8], bit: Any) -> Any:
    """At least 57 bits from a position inside the stream; the compiler makes one load of the eight."""
    i, out = bit >> np.uint64(3), np.uint64(0)
    for k in range(8):
        out |= np.uint64(extra[i + np.uint64(k)]) << np.uint64(8 * k)
    return out >> (bit & np.uint64(7))
