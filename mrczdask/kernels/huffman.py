"""Canonical Huffman codes of at most twelve bits, least significant bit first.

docs/codecs.md specifies them. D. A. Huffman, Proc. IRE 40 (1952) 1098-1101.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.bits import CORRUPT, get_bits, get_unary, put_bits, put_unary, token_bases, unzigzag, zigzag
from mrczdask.kernels.compiling import njit
from mrczdask.kernels.rans import ALPHABET, SCALE, SCALE_BITS

LONGEST = SCALE_BITS
"""A code fits the 4096 entries of a decoding table. A table of one symbol has a code of no bits."""


@njit(nogil=True, cache=True)
def code_lengths(counts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Lengths of the codes of 256 symbols; 0 for those that do not occur, and for one that is alone."""
    lengths = np.zeros(ALPHABET, np.uint8)
    weights = counts.copy()
    present = np.sum(counts > 0)
    if present < 2:
        return lengths
    while True:
        _tree_depths(weights, lengths)
        if lengths.max() <= LONGEST:
            return lengths
        for s in range(ALPHABET):  # flatter counts give shorter codes
            if weights[s] > 0:
                weights[s] = (weights[s] >> 1) + 1


@njit(nogil=True, cache=True)
def _tree_depths(weights: NDArray[np.int64], lengths: NDArray[np.uint8]) -> None:
    """Depth of each symbol in the Huffman tree: two queues, one of leaves by weight and one of joined nodes."""
    symbols, n = np.zeros(ALPHABET, np.int64), 0
    for s in range(ALPHABET):  # sorted by weight as they come in
        if weights[s] > 0:
            k = n
            while k > 0 and weights[symbols[k - 1]] > weights[s]:
                symbols[k] = symbols[k - 1]
                k -= 1
            symbols[k] = s
            n += 1
    weight, parent = np.zeros(2 * n - 1, np.int64), np.zeros(2 * n - 1, np.int64)
    for k in range(n):
        weight[k] = weights[symbols[k]]
    leaf, joined = 0, n
    for node in range(n, 2 * n - 1):
        for _ in range(2):
            if leaf < n and (joined == node or weight[leaf] <= weight[joined]):
                child = leaf
                leaf += 1
            else:
                child = joined
                joined += 1
            weight[node] += weight[child]
            parent[child] = node
    depth = np.zeros(2 * n - 1, np.uint8)
    for node in range(2 * n - 3, -1, -1):
        depth[node] = depth[parent[node]] + 1
    lengths[:] = 0
    for k in range(n):
        lengths[symbols[k]] = depth[k]


@njit(nogil=True, cache=True)
def codes_of(lengths: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Canonical codes, shorter first, then by symbol; bits reversed, so that the first bit is the lowest."""
    codes = np.zeros(ALPHABET, np.uint16)
    code = 0
    for length in range(1, LONGEST + 1):
        for s in range(ALPHABET):
            if lengths[s] == length:
                reverse = 0
                for k in range(length):
                    reverse |= ((code >> k) & 1) << (length - 1 - k)
                codes[s] = reverse
                code += 1
        code <<= 1
    return codes


@njit(nogil=True, cache=True)
def write_lengths(lengths: NDArray[np.uint8], only: int, buffer: NDArray[np.uint8], position: int) -> int:
    """Append a table of code lengths to a zeroed bit buffer; `only` is the symbol of a table without codes."""
    alone = lengths.max() == 0
    position = put_bits(buffer, position, 1 if alone else 0, 1)
    if alone:
        return put_bits(buffer, position, only, 8)
    top = ALPHABET - 1
    while lengths[top] == 0:
        top -= 1
    position = put_bits(buffer, position, top, 8)
    before: Any = 4
    for s in range(top + 1):
        position = put_unary(buffer, position, zigzag(np.int64(lengths[s]) - before))
        before = np.int64(lengths[s])
    return position


@njit(nogil=True, cache=True)
def read_lengths(buffer: NDArray[np.uint8], position: int, out: NDArray[np.uint8]) -> tuple[int, int]:
    """Read code lengths into `out`; returns (symbol that is alone, next position or -1)."""
    out[:] = 0
    alone, position = get_bits(buffer, position, 1)
    top, position = get_bits(buffer, position, 8)
    if position < 0 or alone:
        return top, position
    length, room = 4, 0
    for s in range(top + 1):
        step, position = get_unary(buffer, position, 2 * LONGEST)
        length += unzigzag(step)
        if position < 0 or length < 0 or length > LONGEST:
            return 0, CORRUPT
        out[s] = length
        room += SCALE >> length if length else 0
    return 0, position if room == SCALE else CORRUPT


@njit(nogil=True, cache=True)
def decoding_entries(lengths: NDArray[np.uint8], only: int, out: NDArray[np.uint32]) -> None:
    """Fill 4096 entries: symbol, length of its code << 8, at every slot whose low bits are the code."""
    if lengths.max() == 0:
        out[:] = only
        return
    codes = codes_of(lengths)
    for s in range(ALPHABET):
        length = np.int64(lengths[s])
        if length:
            for slot in range(codes[s], SCALE, 1 << length):
                out[slot] = s | length << 8


@njit(nogil=True, cache=True)
def encode_tokens(
    tokens: NDArray[np.uint8],
    contexts: NDArray[np.uint8],
    folded: NDArray[np.uint32],
    lengths: NDArray[np.uint8],
    first_run: int,
) -> tuple[NDArray[np.uint64], int]:
    """Codes of tokens (of the table of their context), each followed by its extra bits; returns (words, bits).

    A token above `first_run` stands for itself and the zeros that follow it.
    """
    codes = np.zeros(lengths.shape, np.uint16)
    for t in range(lengths.shape[0]):
        codes[t] = codes_of(lengths[t])
    widths = token_bases()[1]
    out = np.zeros(tokens.size * (LONGEST + 32) // 64 + 2, np.uint64)
    position, i = 0, 0
    while i < tokens.size:
        token, context = tokens[i], contexts[i]
        position = _put(out, position, np.uint64(codes[context, token]), np.int64(lengths[context, token]))
        if token > first_run:
            exponent = np.int64(token) - first_run
            run = 1
            most = (2 << exponent) - 1
            while i + run < tokens.size and run < most and folded[i + run] == 0 and tokens[i + run] == 0:
                run += 1
            position = _put(out, position, np.uint64(run - (1 << exponent)), exponent)
            i += run
            continue
        width = np.int64(widths[token])
        if width:
            low = np.uint64(folded[i]) & ((np.uint64(1) << np.uint64(width)) - np.uint64(1))
            position = _put(out, position, low, width)
        i += 1
    return out[: (position + 63) // 64], position


@njit(nogil=True, cache=True)
def _put(out: NDArray[np.uint64], position: int, value: np.uint64, count: Any) -> int:
    """Append up to 32 bits."""
    word, shift = position >> 6, position & 63
    out[word] |= value << np.uint64(shift)
    if shift + count > 64:
        out[word + 1] = value >> np.uint64(64 - shift)
    return position + count
