"""The tables of classes of pixels: of 8-bit symbols made of four, two or one pixel, and how they are stored."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.bits import get_bits, put_bits
from mrczdask.kernels.compiling import njit
from mrczdask.kernels.rans import ALPHABET, SCALE, TABLE_BITS, normalise, read_table, write_table

QUAD, PAIR, DIRECT, TOKEN = 0, 1, 2, 3
PATCH_BITS = 24.0
"""What one patch costs: two bytes of distance and one of value."""
MOST_PATCHES = 1 / 16
"""Share of patched pixels at which the model is no good."""
_LEAST_WEIGHT = 768
"""Joint probabilities below 768 / 2**24 get no code: a slot (1/4096 of all) would cost more than their patches."""


@njit(nogil=True, cache=True)
def joint_table(single: NDArray[np.uint16], kind: int, out: NDArray[np.uint16]) -> bool:
    """Frequencies of quads or pairs of independent pixels from those of one; False when they do not fit."""
    out[:] = 0
    used, mode, heaviest = 0, 0, -1
    for s in range(ALPHABET):
        if kind == QUAD:
            four = np.int64(single[s & 3]) * single[(s >> 2) & 3] * single[(s >> 4) & 3] * single[s >> 6]
            weight = four >> 24
        else:
            weight = np.int64(single[s & 15]) * single[s >> 4]
        if weight >= _LEAST_WEIGHT:
            out[s] = max(1, (weight + 2048) >> 12)
            used += out[s]
        if weight > heaviest:
            heaviest, mode = weight, s
    rest = SCALE - used + out[mode]
    out[mode] = max(rest, 0)
    return rest > 0


@njit(nogil=True, cache=True)
def complete_table(stored: NDArray[np.uint16], kind: int, out: NDArray[np.uint16]) -> bool:
    """Frequencies of the symbols of a kind from the stored ones; False when they do not fit."""
    if kind in (QUAD, PAIR):
        return joint_table(stored, kind, out)
    out[:] = stored
    return True


@njit(nogil=True, cache=True)
def write_classes(kinds: NDArray[np.int64], bases: NDArray[np.int64], stored: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Bits of each class: kind (2), bits of the base (6), the base, the table."""
    buffer = np.zeros(kinds.size * (TABLE_BITS + 64) // 8, np.uint8)
    position = 0
    for c in range(kinds.size):
        position = put_bits(buffer, position, kinds[c], 2)
        length = 0
        while bases[c] >> length:
            length += 1
        position = put_bits(buffer, position, length, 6)
        position = put_bits(buffer, position, bases[c], length)
        position = write_table(stored[c], buffer, position)
    return buffer[: (position + 7) // 8].copy()


@njit(nogil=True, cache=True)
def read_classes(
    buffer: NDArray[np.uint8], kinds: NDArray[np.int64], bases: NDArray[np.int64], joint: NDArray[np.uint16]
) -> bool:
    """Undo `write_classes`, with completed tables; False when the bits are none."""
    position = 0
    stored = np.empty(ALPHABET, np.uint16)
    for c in range(kinds.size):
        kinds[c], position = get_bits(buffer, position, 2)
        length, position = get_bits(buffer, position, 6)
        if length > 32:
            return False
        bases[c], position = get_bits(buffer, position, length)
        if position < 0:
            return False
        position = read_table(buffer, position, stored)
        if position < 0 or not complete_table(stored, kinds[c], joint[c]):
            return False
    return True


@njit(nogil=True, cache=True)
def choose_kind(direct: NDArray[np.int64], tokens: NDArray[np.int64]) -> tuple[int, NDArray[np.uint16], float]:
    """(kind, frequencies to store, bits a pixel) of a class with these counts: fewest bits, then fewest symbols."""
    total = max(float(tokens.sum()), 1.0)
    best, best_bits = normalise(tokens), _bits(tokens, normalise(tokens), 0.0, total)
    for t in range(32, ALPHABET):
        best_bits += tokens[t] / total * (2 + (t - 32) // 8)
    kind = TOKEN
    single = normalise(direct)
    bits = _bits(direct, single, PATCH_BITS, total)
    if bits <= best_bits + 1e-9 and direct.sum() > (1 - MOST_PATCHES / 2) * total:
        kind, best, best_bits = DIRECT, single, bits
    joint = np.empty(ALPHABET, np.uint16)
    for candidate, values in ((PAIR, 16), (QUAD, 4)):
        counts = np.zeros(ALPHABET, np.int64)
        counts[:values] = direct[:values]
        single = normalise(counts)
        if joint_table(single, candidate, joint):
            bits = _joint_bits(counts, joint, candidate, total)
            if bits <= 1.004 * best_bits + 1e-3 and counts.sum() > (1 - MOST_PATCHES / 2) * total:
                kind, best, best_bits = candidate, single, bits
    return kind, best, best_bits


@njit(nogil=True, cache=True)
def _bits(counts: NDArray[np.int64], frequencies: NDArray[np.uint16], patch: float, total: float) -> float:
    """Bits a pixel; pixels that are not counted cost `patch` each."""
    bits, counted = 0.0, 0.0
    for s in range(ALPHABET):
        if counts[s]:
            bits += counts[s] * (12 - np.log2(float(frequencies[s])))
            counted += counts[s]
    return (bits + patch * (total - counted)) / total


@njit(nogil=True, cache=True)
def _joint_bits(counts: NDArray[np.int64], joint: NDArray[np.uint16], kind: int, total: float) -> float:
    """Bits a pixel of independent pixels with these counts, coded by a joint table."""
    coded, bits = 0.0, 0.0
    for s in range(ALPHABET):
        if joint[s]:
            if kind == QUAD:
                p = counts[s & 3] / total * (counts[(s >> 2) & 3] / total)
                p *= counts[(s >> 4) & 3] / total * (counts[s >> 6] / total)
            else:
                p = counts[s & 15] / total * (counts[s >> 4] / total)
            coded += p
            bits += p * (12 - np.log2(float(joint[s])))
    return (bits + max(1 - coded, 0.0) * PATCH_BITS) / (4 if kind == QUAD else 2)
