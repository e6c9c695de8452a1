"""Bits, tokens and variable-length integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrczdask.kernels import bits


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**56 - 1), max_size=20))
def test_varints_round_trip_and_every_cut_is_refused(values: list[int]) -> None:
    packed = bits.write_varints(np.array(values, np.int64))
    back, end = bits.read_varints(packed, 0, len(values))
    assert back.tolist() == values
    assert end == packed.size
    for size in range(packed.size):
        assert bits.read_varints(packed[:size], 0, len(values))[1] == -1


def test_varint_that_never_ends_is_refused() -> None:
    assert bits.read_varints(np.full(40, 255, np.uint8), 0, 1)[1] == -1
    assert bits.read_varints(np.zeros(4, np.uint8), 0, 1 << 60)[1] == -1


@pytest.mark.parametrize("offset", [0, 1, 31, 32, 33, 35, 36, 63, 64, 1000, 65535, 2**31, 2**32 - 1])
def test_token_and_extra_bits_give_the_offset(offset: int) -> None:
    bases, widths = bits.token_bases()
    token, width = bits.token_of(offset)
    assert width == widths[token]
    assert int(bases[token]) + (offset & ((1 << width) - 1)) == offset
    assert token < 256


def test_tokens_rise_with_the_offset() -> None:
    tokens = [bits.token_of(offset)[0] for offset in range(5000)]
    assert np.isin(np.diff(tokens), (0, 1)).all()


@settings(deadline=None)
@given(st.integers(-(2**31), 2**31))
def test_zigzag(value: int) -> None:
    assert bits.unzigzag(bits.zigzag(value)) == value
    assert bits.zigzag(value) >= 0
