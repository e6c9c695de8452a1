"""Huffman codes: optimal but for the limit of twelve bits, prefix-free, and refused when broken."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrczdask.kernels import huffman
from mrczdask.kernels.bits import token_bases
from mrczdask.kernels.prediction import FIRST_RUN


def optimal_bits(counts: np.ndarray) -> int:
    """Bits of an unlimited Huffman code, by a heap."""
    heap = [int(n) for n in counts if n]
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:
        joined = heapq.heappop(heap) + heapq.heappop(heap)
        total += joined
        heapq.heappush(heap, joined)
    return total


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=256, max_size=256), st.integers(0, 254))
def test_codes_are_optimal_and_complete(values: list[int], zeros: int) -> None:
    counts = np.array(values)
    counts[:zeros] = 0
    lengths = huffman.code_lengths(counts)
    if (counts > 0).sum() < 2:
        assert lengths.max() == 0
        return
    np.testing.assert_array_equal(lengths > 0, counts > 0)
    assert sum(2.0 ** -int(n) for n in lengths if n) == 1
    assert lengths.max() <= 12
    total = (counts * lengths).sum()
    assert optimal_bits(counts) <= total <= 1.01 * optimal_bits(counts)
    if counts.sum() < 610 * counts[counts > 0].min():  # the limit cannot bind: depth 13 takes Fibonacci's weights
        assert total == optimal_bits(counts)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(50, 300), min_size=2, max_size=9))
def test_short_codes_are_optimal(values: list[int]) -> None:
    counts = np.zeros(256, np.int64)
    counts[: len(values)] = values
    assert (counts * huffman.code_lengths(counts)).sum() == optimal_bits(counts)


def test_long_codes_are_limited() -> None:
    counts = np.zeros(256, np.int64)
    counts[:40] = 2 ** np.arange(40)
    lengths = huffman.code_lengths(counts)
    assert lengths.max() == 12
    assert sum(2.0 ** -int(n) for n in lengths if n) == 1


def test_lengths_come_back_and_cuts_are_refused() -> None:
    for counts in (np.arange(256), np.eye(256, dtype=np.int64)[9] * 5, np.eye(256, dtype=np.int64)[[3, 200]].sum(0)):
        lengths = huffman.code_lengths(counts)
        buffer = np.zeros(2000, np.uint8)
        end = huffman.write_lengths(lengths, int(counts.argmax()), buffer, 5)
        back = np.empty(256, np.uint8)
        only, position = huffman.read_lengths(buffer, 5, back)
        assert position == end
        np.testing.assert_array_equal(back, lengths)
        if lengths.max() == 0:
            assert only == counts.argmax()
        for size in range(end // 8):
            assert huffman.read_lengths(buffer[:size], 5, back)[1] == -1


def test_an_incomplete_code_is_refused() -> None:
    lengths = np.zeros(256, np.uint8)
    lengths[:3] = 2  # a quarter of the codes would mean nothing
    buffer = np.zeros(200, np.uint8)
    huffman.write_lengths(lengths, 0, buffer, 0)
    assert huffman.read_lengths(buffer, 0, np.empty(256, np.uint8))[1] == -1


@pytest.mark.parametrize("n_zeros", [1, 2, 3, 510, 511, 512, 513, 5000])
def test_runs_of_zeros_in_the_plain_bits(n_zeros: int) -> None:
    """A decoder of strings of bits, after docs/codecs.md, reads what the kernel wrote."""
    from mrczdask.kernels.prediction import tokenise

    folded = np.concatenate([[7, 40, 100_000], np.zeros(n_zeros), [3]]).astype(np.uint32)
    contexts = np.zeros(folded.size, np.uint8)
    tokens, counts = tokenise(folded, contexts)
    lengths = np.stack([huffman.code_lengths(each) for each in counts])
    words, n_bits = huffman.encode_tokens(tokens, contexts, folded, lengths, FIRST_RUN)
    bits = "".join(format(int(w), "064b")[::-1] for w in words)[:n_bits]
    codes = huffman.codes_of(lengths[0])
    book = {format(int(codes[s]), "016b")[::-1][: lengths[0, s]]: s for s in np.flatnonzero(lengths[0])}
    bases, widths = token_bases()
    out: list[int] = []
    at = 0
    while at < len(bits):
        end = at + 1
        while bits[at:end] not in book:
            end += 1
        token, at = book[bits[at:end]], end
        width = token - FIRST_RUN if token > FIRST_RUN else int(widths[token])
        low = int(bits[at : at + width][::-1] or "0", 2)
        at += width
        out += [0] * ((1 << width) + low) if token > FIRST_RUN else [int(bases[token]) + low]
    assert out == folded.tolist()
