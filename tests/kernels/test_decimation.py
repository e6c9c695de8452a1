"""Lattices found in ratios, and none where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrczdask.kernels.decimation import FORMULAS, count_frame, find_scale, normalised, whole_counts

RNG = np.random.default_rng(0)


@settings(max_examples=40, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(0.05, 100), st.integers(1, 3))
def test_the_spacing_is_found(scale: float, mean: float, step: int) -> None:
    counts = np.random.default_rng(1).poisson(mean, 20_000) * step
    found = find_scale(counts * scale * (1 + 1e-7 * RNG.standard_normal(counts.size)))
    assert found == pytest.approx(scale * step, rel=1e-5)


def test_outliers_do_not_hide_it() -> None:
    values = RNG.poisson(3, 20_000).astype(float)
    values[:40] += RNG.random(40)
    assert find_scale(values) == pytest.approx(1, rel=1e-3)


def test_counts_without_a_one() -> None:
    values = RNG.choice([2.0, 3.0, 5.0], 5000) * 0.7
    assert find_scale(values) == pytest.approx(0.7, rel=1e-6)


@pytest.mark.parametrize(
    "values", [np.zeros(1000), np.ones(10), RNG.random(5000), RNG.normal(100, 10, 5000), np.empty(0)]
)
def test_no_lattice(values: np.ndarray) -> None:
    assert find_scale(values) is None


@pytest.mark.parametrize("formula", FORMULAS)
def test_every_formula_comes_back(formula: str) -> None:
    counts, gain = RNG.poisson(5, (2, 30, 40)), RNG.uniform(0.5, 2, (30, 40)).astype(np.float32)
    values = normalised(counts, gain, 0.37, formula)
    found, whole, exact = whole_counts(values, gain, 0.37, formula, np.dtype(np.uint8))
    np.testing.assert_array_equal(found, counts)
    assert whole.all()
    assert exact.all()


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_a_frame_in_one_pass_is_the_same(formula: str, dtype: type) -> None:
    counts, gain = RNG.poisson(40, (90, 70)) - 8, RNG.uniform(0.5, 2, (90, 70)).astype(np.float32)
    values = normalised(counts, gain, 0.37, formula)
    values[:9] = np.nextafter(values[:9], np.float32(np.inf))
    values[9:18] *= np.float32(1.01)
    values[30:33, ::3], values[33, ::2], values[34] = np.nan, np.inf, 1e30
    bad = RNG.random(values.shape) < 0.1
    found = np.empty(values.shape, dtype)
    with np.errstate(invalid="ignore"):
        wanted, whole, exact = whole_counts(values, gain, 0.37, formula, np.dtype(dtype))
    faults = count_frame(values, gain, bad, 0.37, formula, found)
    np.testing.assert_array_equal(found, np.where(bad, 0, wanted))
    assert faults == ((~whole & ~bad).sum(), (whole & ~exact & ~bad).sum())
    assert min(faults) > 300
    assert count_frame(values[:0], gain[:0], bad[:0], 0.37, formula, found[:0]) == (0, 0)


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
def test_frames_of_other_floats(dtype: str) -> None:
    counts = RNG.poisson(5, (30, 40))
    found = np.empty(counts.shape, np.uint8)
    ones, none = np.ones(counts.shape, np.float32), np.zeros(counts.shape, bool)
    assert count_frame(counts.astype(dtype), ones, none, 1.0, FORMULAS[0], found) == (0, 0)
    np.testing.assert_array_equal(found, counts)


def test_counts_beyond_the_dtype_are_not_whole() -> None:
    found, whole, _ = whole_counts(
        np.array([[[-1.0, 300.0, 5.0]]], np.float32), np.ones((1, 3), np.float32), 1.0, FORMULAS[0], np.dtype(np.uint8)
    )
    assert whole.tolist() == [[[False, False, True]]]
    assert found.tolist() == [[[0, 0, 5]]]
