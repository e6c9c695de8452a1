from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mrczdask.kernels.statistics import RUN, SMALL, byte_statistics, float_statistics, integer_statistics

BYTES = st.sampled_from([np.dtype("i1"), np.dtype("u1")])
INTEGERS = st.sampled_from([np.dtype(kind) for kind in ("i2", "u2", "i4", "u4", "i8")])


def exact(pixels: np.ndarray) -> tuple[int, int, int, int]:
    values = [int(value) for value in pixels]
    return min(values), max(values), sum(values), sum(value * value for value in values)


@settings(deadline=None, max_examples=60)
@given(BYTES.flatmap(lambda dtype: hnp.arrays(dtype, st.integers(1, 300))))
def test_bytes(pixels: np.ndarray) -> None:
    assert tuple(map(int, byte_statistics(pixels))) == exact(pixels)


@settings(deadline=None, max_examples=60)
@given(INTEGERS.flatmap(lambda dtype: hnp.arrays(dtype, st.integers(1, 300), elements=st.integers(0, 30_000))))
def test_integers(pixels: np.ndarray) -> None:
    assert tuple(map(int, integer_statistics(pixels))) == exact(pixels)


@pytest.mark.parametrize("dtype", ["i1", "u1"])
@pytest.mark.parametrize("n", [RUN - 1, RUN, 3 * RUN + 7])
def test_extreme_bytes_over_many_runs(dtype: str, n: int) -> None:
    for value in (np.iinfo(dtype).min, np.iinfo(dtype).max):
        low, high, total, squares = byte_statistics(np.full(n, value, dtype))
        assert (low, high, total, squares) == (value, value, n * int(value), float(n * int(value) ** 2))


@pytest.mark.parametrize("value", [SMALL - 1, SMALL, -SMALL, 2**31 - 1, -(2**31), 2**32 - 1])
def test_large_integers_over_many_runs(value: int) -> None:
    pixels = np.full(2 * RUN + 5, value, "i8")
    low, high, total, squares = integer_statistics(pixels)
    assert (low, high, total) == (value, value, value * pixels.size)
    assert squares == pytest.approx(float(value) ** 2 * pixels.size, rel=1e-12)


def test_floats_that_are_not_finite_do_not_count() -> None:
    pixels = np.array([1.5, np.nan, -2.0, np.inf, -np.inf, 4.0], "f4")
    assert float_statistics(pixels) == (-2.0, 4.0, 3.5, 22.25, 3)
    assert float_statistics(np.full(4, np.nan, "f4")) == (np.inf, -np.inf, 0.0, 0.0, 0)


def test_none() -> None:
    assert byte_statistics(np.zeros(0, "u1")) == (0, 0, 0, 0.0)
    assert integer_statistics(np.zeros(0, "i2")) == (0, 0, 0, 0.0)
    assert float_statistics(np.zeros(0, "f4")) == (np.inf, -np.inf, 0.0, 0.0, 0)
