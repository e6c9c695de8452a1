"""rANS against the entropy, a plain big-integer decoder, and broken streams."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrczdask.kernels import rans


def coded(symbols, runs, frequencies):
    states, words = rans.encode_runs(symbols, runs, frequencies)
    return states, words


def decoded(states, words, runs, frequencies):
    out = np.empty(int(runs[:, 1].sum()), np.uint8)
    padded = np.append(words, np.zeros(rans.LANES, np.uint16))
    ok = rans.decode_runs(states, padded, runs, rans.decoding_table(frequencies), out)
    return out if ok else None


def plain_decoder(states, words, runs, frequencies):
    """The specification in Python integers: docs/codecs.md, not the kernel."""
    x, read, out = [int(s) for s in states], iter(words.tolist()), []
    for table, count in runs.tolist():
        starts = np.concatenate([[0], np.cumsum(frequencies[table], dtype=np.int64)])
        for _ in range(count):
            lane = len(out) % 8
            slot = x[lane] % 4096
            symbol = int(np.searchsorted(starts, slot, "right")) - 1
            x[lane] = int(frequencies[table, symbol]) * (x[lane] // 4096) + slot - int(starts[symbol])
            if x[lane] < 2**16:
                x[lane] = x[lane] * 2**16 + next(read)
            out.append(symbol)
    assert x == [2**16] * 8
    assert next(read, None) is None
    return np.array(out, np.uint8)


@pytest.mark.parametrize("mean", [0.01, 0.3, 1.0, 4.0, 30.0])
def test_size_is_the_entropy(mean: float) -> None:
    symbols = np.random.default_rng(0).poisson(mean, 300_001).astype(np.uint8)
    counts = np.bincount(symbols, minlength=256)
    table = rans.normalise(counts)[None]
    runs = np.array([[0, symbols.size]])
    states, words = coded(symbols, runs, table)
    p = counts[counts > 0] / symbols.size
    entropy = -(p * np.log2(p)).sum()
    assert words.size * 16 / symbols.size < entropy * 1.003 + 5e-4
    np.testing.assert_array_equal(decoded(states, words, runs, table), symbols)


def test_agrees_with_a_plain_decoder() -> None:
    rng = np.random.default_rng(1)
    runs = np.array([[0, 5], [1, 0], [2, 1000], [1, 33], [0, 7], [2, 1]])
    symbols = rng.integers(0, 250, runs[:, 1].sum()).astype(np.uint8)
    which = np.repeat(runs[:, 0], runs[:, 1])
    symbols[which == 1] = 17
    tables = np.stack([rans.normalise(np.bincount(symbols[which == t], minlength=256)) for t in range(3)])
    states, words = coded(symbols, runs, tables)
    np.testing.assert_array_equal(plain_decoder(states, words, runs, tables), symbols)
    np.testing.assert_array_equal(decoded(states, words, runs, tables), symbols)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 2**40), min_size=256, max_size=256), st.integers(0, 256))
def test_tables_sum_to_4096_and_come_back(counts: list[int], zeros: int) -> None:
    array = np.array(counts)
    array[:zeros] = 0
    table = rans.normalise(array)
    assert table.sum() == 4096
    if array.any():
        np.testing.assert_array_equal(table > 0, array > 0)
    buffer = np.zeros(rans.TABLE_BITS // 8, np.uint8)
    end = rans.write_table(table, buffer, 3)
    back = np.empty(256, np.uint16)
    assert rans.read_table(buffer, 3, back) == end
    np.testing.assert_array_equal(back, table)


def test_extreme_counts_are_normalised() -> None:
    one = np.zeros(256, np.int64)
    one[7] = 5
    assert rans.normalise(one)[7] == 4096
    assert rans.normalise(np.zeros(256, np.int64))[0] == 4096
    skew = np.ones(256, np.int64)
    skew[100:110] = 10**9
    assert rans.normalise(skew).min() == 1


def test_tables_cut_short_are_refused() -> None:
    table = rans.normalise(np.arange(256))
    buffer = np.zeros(rans.TABLE_BITS // 8, np.uint8)
    end = rans.write_table(table, buffer, 0)
    out = np.empty(256, np.uint16)
    for size in range(end // 8):
        assert rans.read_table(buffer[:size], 0, out) == -1


def test_broken_streams_do_not_decode() -> None:
    symbols = np.random.default_rng(2).poisson(2, 1000).astype(np.uint8)
    table = rans.normalise(np.bincount(symbols, minlength=256))[None]
    runs = np.array([[0, 1000]])
    states, words = coded(symbols, runs, table)
    for cut in range(words.size):
        assert decoded(states, words[:cut], runs, table) is None
    assert decoded(states, np.append(words, np.uint16(0)), runs, table) is None
    for lane in range(8):
        wrong = states.copy()
        wrong[lane] ^= 1 << 20
        assert decoded(wrong, words, runs, table) is None
