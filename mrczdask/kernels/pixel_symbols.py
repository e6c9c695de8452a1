"""Pixels of a stack as symbols of 8 bits, four, two or one pixel a symbol, and back; what does not fit is a patch.

A stack is (rows, pixels): one row a pattern. A class of pixels has a kind, a base (its smallest value) and a table.
`offset` = value - base. Order of the symbols: blocks of rows, in a block the classes, in a class the groups of 4, 2 or
1 rows, in a group the pixels of the class in ascending order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.bits import token_bases, token_of
from mrczdask.kernels.class_tables import (
    DIRECT,
    MOST_PATCHES,
    PAIR,
    QUAD,
    TOKEN,
)
from mrczdask.kernels.compiling import njit

Stack = NDArray[np.unsignedinteger]


@njit(nogil=True, cache=True)
def runs_of(rows: int, block: int, kinds: NDArray[np.int64], members: NDArray[np.int64]) -> NDArray[np.int64]:
    """(class, symbols) of each run; `members` = pixels of each class."""
    blocks = (rows + block - 1) // block
    out = np.empty((blocks * kinds.size, 2), np.int64)
    for b in range(blocks):
        height = min(block, rows - b * block)
        for c in range(kinds.size):
            per = 4 if kinds[c] == QUAD else 2 if kinds[c] == PAIR else 1
            out[b * kinds.size + c, 0] = c
            out[b * kinds.size + c, 1] = members[c] * ((height + per - 1) // per)
    return out


@njit(nogil=True, cache=True)
def order_by_class(class_of: NDArray[np.uint8], members: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Pixel numbers, class by class, ascending in each."""
    at = np.zeros(members.size, np.int64)
    for c in range(1, members.size):
        at[c] = at[c - 1] + members[c - 1]
    out = np.empty(class_of.size, np.uint32)
    for p in range(class_of.size):
        out[at[class_of[p]]] = p
        at[class_of[p]] += 1
    return out


@njit(nogil=True, cache=True)
def symbolise(
    values: Stack,
    rows: int,
    low: int,
    block: int,
    order: NDArray[np.uint32],
    members: NDArray[np.int64],
    kinds: NDArray[np.int64],
    bases: NDArray[np.int64],
    frequencies: NDArray[np.uint16],
) -> tuple[bool, NDArray[np.uint8], NDArray[np.uint64], int, NDArray[np.int64]]:
    """Turn a stack into symbols, extra bits of tokens and patches.

    Parameters
    ----------
    values : unsigned (a multiple of 4, pixels)
    rows : int
        Those that matter; later ones fill the last group of 2 or 4.
    low : int
        Added to `bases`.
    block : int
        Rows of a block, a multiple of 4.
    order, members : uint32 (pixels,), int64 (classes,)
        Pixels class by class. An empty `order`: all pixels are of one class.
    kinds, bases : int64 (classes,)
    frequencies : uint16 (classes, 256)
        Of symbols; a symbol of frequency 0 is not used.

    Returns
    -------
    ok : bool
        False when more than one pixel in 16 needs a patch: nothing else is valid then.
    symbols : uint8
    extra, n_bits : uint64 words, int
    patches : int64 (n, 2)
        (flat position, offset).
    """
    pixels = values.shape[1]
    flat = values.reshape(-1)
    runs = runs_of(rows, block, kinds, members)
    symbols = np.empty(runs[:, 1].sum(), np.uint8)
    n_extra = 0
    for c in range(kinds.size):
        n_extra += rows * members[c] if kinds[c] == TOKEN else 0
    extra, n_bits = np.zeros(n_extra // 2 + 2, np.uint64), 0
    patches, n = np.empty((int(values.size * MOST_PATCHES) + 16, 2), np.int64), 0
    room = patches.shape[0] - 4
    at = 0
    for r in range(runs.shape[0]):
        c = runs[r, 0]
        top = r // kinds.size * block
        height = min(block, rows - top)
        first = members[:c].sum()
        mine = order[first : first + members[c]] if order.size else order
        zero = values.dtype.type(low + bases[c])
        table = frequencies[c]
        mode = np.argmax(table)
        per = 4 if kinds[c] == QUAD else 2 if kinds[c] == PAIR else 1
        for group in range(0, height, per):
            start = (top + group) * pixels
            out = symbols[at : at + members[c]]
            at += members[c]
            if kinds[c] == QUAD:
                n = _take_quads(flat, start, pixels, mine, zero, table, mode, out, patches, n, room)
            elif kinds[c] == PAIR:
                n = _take_pairs(flat, start, pixels, mine, zero, table, mode, out, patches, n, room)
            elif kinds[c] == DIRECT:
                n = _take_direct(flat, start, mine, zero, table, mode, out, patches, n, room)
            else:
                n, n_bits = _take_tokens(flat, start, mine, zero, table, mode, out, patches, n, room, extra, n_bits)
            if n > room:
                return False, symbols, extra, n_bits, patches
    return True, symbols, extra[: (n_bits + 63) // 64], n_bits, patches[:n]


@njit(nogil=True, cache=True)
def _patch(patches: NDArray[np.int64], n: int, room: int, position: Any, offset: Any, coded: Any) -> int:
    """Note a pixel whose symbol says `coded`; return the number of patches, at most one more than there is room."""
    if offset == coded or n > room:
        return n
    patches[n, 0], patches[n, 1] = position, offset
    return n + 1


@njit(nogil=True, cache=True)
def _nearest(table, mode, bits, offsets, position, pixels, patches, n, room):  # type: ignore[no-untyped-def]
    """A symbol that has a code: offsets furthest from the mode's are replaced by them, and patched, until one has."""
    parts = np.empty(len(offsets), np.int64)
    for k in range(parts.size):
        parts[k] = np.int64(offsets[k])
    mask = (1 << bits) - 1
    while True:
        furthest, distance, symbol = 0, -1, 0
        for k in range(parts.size):
            away = parts[k] - ((mode >> (bits * k)) & mask)
            away = away if away >= 0 else -away
            if away > distance:
                furthest, distance = k, away
            symbol |= parts[k] << (bits * k)
        if parts.max() <= mask and table[symbol]:
            return np.uint64(symbol), n
        usual = (mode >> (bits * furthest)) & mask
        n = _patch(patches, n, room, position + furthest * pixels, parts[furthest], usual)
        parts[furthest] = usual


@njit(nogil=True, cache=True)
def _take_quads(flat, start, pixels, mine, zero, table, mode, out, patches, n, room):  # type: ignore[no-untyped-def]
    """Four rows into one symbol a pixel, two bits a row."""
    kind = flat.dtype.type
    one, two, three, many = np.uint64(start), np.uint64(start + pixels), np.uint64(start + 2 * pixels), mine.size > 0
    four = np.uint64(start + 3 * pixels)
    for i in range(out.size):
        p = np.uint64(mine[i]) if many else np.uint64(i)
        a, b = np.uint64(kind(flat[one + p] - zero)), np.uint64(kind(flat[two + p] - zero))
        c, d = np.uint64(kind(flat[three + p] - zero)), np.uint64(kind(flat[four + p] - zero))
        s = (a | b << np.uint64(2) | c << np.uint64(4) | d << np.uint64(6)) & np.uint64(255)
        if (a | b | c | d) > np.uint64(3) or table[s] == 0:
            s, n = _nearest(table, mode, 2, (a, b, c, d), start + np.int64(p), pixels, patches, n, room)
        out[i] = s
    return n


@njit(nogil=True, cache=True)
def _take_pairs(flat, start, pixels, mine, zero, table, mode, out, patches, n, room):  # type: ignore[no-untyped-def]
    """Two rows into one symbol a pixel, four bits a row."""
    kind = flat.dtype.type
    one, two, many = np.uint64(start), np.uint64(start + pixels), mine.size > 0
    for i in range(out.size):
        p = np.uint64(mine[i]) if many else np.uint64(i)
        a, b = np.uint64(kind(flat[one + p] - zero)), np.uint64(kind(flat[two + p] - zero))
        s = (a | b << np.uint64(4)) & np.uint64(255)
        if (a | b) > np.uint64(15) or table[s] == 0:
            s, n = _nearest(table, mode, 4, (a, b), start + np.int64(p), pixels, patches, n, room)
        out[i] = s
    return n


@njit(nogil=True, cache=True)
def _take_direct(flat, start, mine, zero, table, mode, out, patches, n, room):  # type: ignore[no-untyped-def]
    """The offset is the symbol."""
    kind = flat.dtype.type
    many = mine.size > 0
    for i in range(out.size):
        p = np.uint64(start) + (np.uint64(mine[i]) if many else np.uint64(i))
        a = np.uint64(kind(flat[p] - zero))
        if a > np.uint64(255) or table[a] == 0:
            n = _patch(patches, n, room, np.int64(p), np.int64(a), mode)
            a = np.uint64(mode)
        out[i] = a
    return n


@njit(nogil=True, cache=True)
def _take_tokens(flat, start, mine, zero, table, mode, out, patches, n, room, extra, n_bits):  # type: ignore[no-untyped-def]
    """The token of the offset is the symbol, its low bits go to `extra`; a patched pixel has extra bits of 0."""
    kind = flat.dtype.type
    many = mine.size > 0
    for i in range(out.size):
        p = np.uint64(start) + (np.uint64(mine[i]) if many else np.uint64(i))
        offset = np.int64(kind(flat[p] - zero))
        token, width = token_of(offset)
        low = offset & ((1 << width) - 1)
        if table[token] == 0:
            n = _patch(patches, n, room, np.int64(p), offset, -1)
            token, low = mode, np.int64(0)
            width = 2 + ((mode - 32) >> 3) if mode >= 32 else 0
        out[i] = token
        word, shift = n_bits >> 6, n_bits & 63
        extra[word] |= np.uint64(low) << np.uint64(shift)
        if shift + width > 64:
            extra[word + 1] = np.uint64(low) >> np.uint64(64 - shift)
        n_bits += width
    return n, n_bits


@njit(nogil=True, cache=True)
def pixels_of(
    symbols: NDArray[np.uint8],
    values: Stack,
    rows: int,
    low: int,
    block: int,
    order: NDArray[np.uint32],
    members: NDArray[np.int64],
    kinds: NDArray[np.int64],
    bases: NDArray[np.int64],
    extra: NDArray[np.uint64],
    n_bits: int,
) -> bool:
    """Undo `symbolise` but for the patches, into `values` (a multiple of 4, pixels); False when bits do not add up.

    `extra` ends with two words of zeros that are not part of the stream. Symbols, order and members must fit the stack.
    """
    pixels = values.shape[1]
    flat = values.reshape(-1)
    runs = runs_of(rows, block, kinds, members)
    at, bit = 0, 0
    token_base, token_width = token_bases()
    for r in range(runs.shape[0]):
        c = runs[r, 0]
        top = r // kinds.size * block
        height = min(block, rows - top)
        first = members[:c].sum()
        mine = order[first : first + members[c]] if order.size else order
        zero = values.dtype.type(low + bases[c])
        per = 4 if kinds[c] == QUAD else 2 if kinds[c] == PAIR else 1
        for group in range(0, height, per):
            start = (top + group) * pixels
            these = symbols[at : at + members[c]]
            at += members[c]
            if kinds[c] == QUAD:
                _put_quads(flat, start, pixels, mine, zero, these)
            elif kinds[c] == PAIR:
                _put_pairs(flat, start, pixels, mine, zero, these)
            elif kinds[c] == DIRECT:
                _put_direct(flat, start, mine, zero, these)
            else:
                bit = _put_tokens(flat, start, mine, zero, these, extra, bit, n_bits, token_base, token_width)
                if bit > n_bits:
                    return False
    return bit == n_bits


@njit(nogil=True, cache=True)
def _put_quads(flat, start, pixels, mine, zero, symbols):  # type: ignore[no-untyped-def]
    """One symbol a pixel into four rows."""
    one, two, three, many = np.uint64(start), np.uint64(start + pixels), np.uint64(start + 2 * pixels), mine.size > 0
    four, mask = np.uint64(start + 3 * pixels), np.uint32(3)
    for i in range(symbols.size):
        p = np.uint64(mine[i]) if many else np.uint64(i)
        s = np.uint32(symbols[i])
        flat[one + p] = zero + (s & mask)
        flat[two + p] = zero + ((s >> np.uint32(2)) & mask)
        flat[three + p] = zero + ((s >> np.uint32(4)) & mask)
        flat[four + p] = zero + (s >> np.uint32(6))


@njit(nogil=True, cache=True)
def _put_pairs(flat, start, pixels, mine, zero, symbols):  # type: ignore[no-untyped-def]
    """One symbol a pixel into two rows."""
    one, two, many = np.uint64(start), np.uint64(start + pixels), mine.size > 0
    for i in range(symbols.size):
        p = np.uint64(mine[i]) if many else np.uint64(i)
        s = np.uint32(symbols[i])
        flat[one + p] = zero + (s & np.uint32(15))
        flat[two + p] = zero + (s >> np.uint32(4))


@njit(nogil=True, cache=True)
def _put_direct(flat, start, mine, zero, symbols):  # type: ignore[no-untyped-def]
    """One symbol a pixel."""
    many = mine.size > 0
    for i in range(symbols.size):
        p = np.uint64(start) + (np.uint64(mine[i]) if many else np.uint64(i))
        flat[p] = zero + np.uint32(symbols[i])


@njit(nogil=True, cache=True)
def _put_tokens(flat, start, mine, zero, symbols, extra, bit, n_bits, bases, widths):  # type: ignore[no-untyped-def]
    """One token and its extra bits a pixel; returns the next bit, past `n_bits` when there were too few."""
    many = mine.size > 0
    for i in range(symbols.size):
        width = np.int64(widths[symbols[i]])
        if bit + width > n_bits:
            return n_bits + 1
        word, shift = bit >> 6, np.uint64(bit & 63)
        low = extra[word] >> shift | (extra[word + 1] << np.uint64(1)) << (np.uint64(63) - shift)
        p = np.uint64(start) + (np.uint64(mine[i]) if many else np.uint64(i))
        flat[p] = (
            np.uint64(zero) + np.uint64(bases[symbols[i]]) + (low & ((np.uint64(1) << np.uint64(width)) - np.uint64(1)))
        )
        bit += width
    return bit


@njit(nogil=True, cache=True)
def apply_patches(
    values: Stack,
    low: int,
    columns: int,
    class_of: NDArray[np.uint8],
    bases: NDArray[np.int64],
    patches: NDArray[np.int64],
) -> bool:
    """Set the pixels of (distance, offset) patches; False when one is outside `values` (flat)."""
    position: Any = 0
    for k in range(patches.shape[0]):
        position = position + patches[k, 0]
        if position >= values.size or patches[k, 1] >> 32:
            return False
        base = bases[class_of[position % columns]] if class_of.size else bases[0]
        values[position] = values.dtype.type(low + base + patches[k, 1])
    return True
