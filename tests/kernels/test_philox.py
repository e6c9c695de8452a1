"""Philox4x32-10 against the published vectors and an independent implementation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from mrczdask.kernels.philox import fill_words, uniforms

# The known answers that the authors publish with Random123: counter, key, words
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
words32 = st.integers(0, 2**32 - 1)


def words(counter: tuple[int, ...], key: tuple[int, ...], count: int = 1) -> np.ndarray:
    out = np.empty((4, count), np.uint32)
    fill_words(out, *counter, np.uint64(key[0] | key[1] << 32))
    return out


def plain_philox(counter: tuple[int, ...], key: tuple[int, ...]) -> list[int]:
    """The paper's definition in unlimited integers."""
    (left0, right0, left1, right1), (k0, k1) = counter, key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * left0, 2**32)
        high1, low1 = divmod(0xCD9E8D57 * left1, 2**32)
        left0, right0, left1, right1 = high1 ^ right0 ^ k0, low1, high0 ^ right1 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [left0, right0, left1, right1]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_published_vectors(counter: str, key: str, expected: str) -> None:
    numbers = [tuple(int(part, 16) for part in text.split()) for text in (counter, key, expected)]
    assert tuple(words(numbers[0], numbers[1])[:, 0].tolist()) == numbers[2]


@example((2**32 - 2, 0, 0, 0), (0, 0))
@given(st.tuples(words32, words32, words32, words32), st.tuples(words32, words32))
@settings(deadline=None)
def test_any_counter_and_key(counter: tuple[int, ...], key: tuple[int, ...]) -> None:
    many = words(counter, key, 5)
    for k in range(5):
        assert many[:, k].tolist() == plain_philox(((counter[0] + k) % 2**32, *counter[1:]), key)


def test_negative_frames_have_their_own_words() -> None:
    assert words((0, 0, -1, 0), (1, 2)).tolist() == words((0, 0, 2**32 - 1, 0), (1, 2)).tolist()


def test_uniforms_are_uniform_independent_and_open() -> None:
    numbers = uniforms(200_000, 0, 0, np.uint64(5))
    assert numbers.shape == (200_000, 2)
    assert 0 < numbers.min() < numbers.max() < 1
    for column in numbers.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4
    assert abs(np.corrcoef(numbers.T)[0, 1]) < 5 / 200_000**0.5


def test_uniforms_are_prefixes() -> None:
    assert np.array_equal(uniforms(3, 1, 2, np.uint64(9)), uniforms(10, 1, 2, np.uint64(9))[:3])
    assert uniforms(0, 1, 2, np.uint64(9)).shape == (0, 2)
