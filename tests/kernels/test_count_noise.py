"""Tails of counts against scipy.stats and simulation, units and dispersions against what was put in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mrczdask.kernels.count_noise import high_tail, least_level, low_tail, pair_dispersion, unit_of_counts

SIZE = (256, 256)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 500), st.integers(0, 5000), st.integers(1, 300))
def test_tails_are_those_of_the_binomial_distribution(k: int, total: int, n: int) -> None:
    binomial = stats.binom(k + total, 1 / (n + 1))
    assert high_tail(k, total, n, 1.0) == pytest.approx(binomial.sf(k - 1), rel=1e-6, abs=1e-200)
    if total:
        assert low_tail(k, total, n, 1.0) == pytest.approx(binomial.cdf(k), rel=1e-5, abs=1e-200)


@pytest.mark.parametrize("mean", [0.05, 2.0, 60.0])
@pytest.mark.parametrize("dispersion", [1.0, 1.6])
def test_tails_are_as_frequent_as_they_say(mean: float, dispersion: float) -> None:
    rng = np.random.default_rng(0)
    shape = (81, 100_000)
    values = (
        rng.poisson(mean, shape)
        if dispersion == 1
        else rng.negative_binomial(mean / (dispersion - 1), 1 / dispersion, shape)
    )
    for tail in (high_tail, low_tail):
        p = tail(values[0], values[1:].sum(axis=0), 80, dispersion)
        for limit in (1e-2, 1e-3):
            assert (p <= limit).mean() <= 1.25 * limit + 3 * np.sqrt(limit / shape[1])


@pytest.mark.parametrize("mean", [0.02, 0.5, 5.0, 500.0])
@pytest.mark.parametrize("unit", [1.0, 37.0, 0.02])
def test_unit_and_dispersion(mean: float, unit: float) -> None:
    rng, none = np.random.default_rng(1), np.zeros(SIZE, bool)
    image = rng.poisson(mean, SIZE)
    image.ravel()[::300] += 1000
    assert pair_dispersion(image * unit, none)[0] == pytest.approx(unit, rel=0.4)
    assert unit_of_counts(image * unit, none) == pytest.approx(unit, rel=0.06)
    if unit > 1:
        assert unit_of_counts(image * int(unit), none) == unit


def test_level_at_which_an_empty_pixel_is_improbable() -> None:
    assert np.exp(-least_level(1e-6, 1.0)) == pytest.approx(1e-6)
    level = least_level(1e-6, 1.5)
    assert stats.nbinom.pmf(0, level / 0.5, 1 / 1.5) == pytest.approx(1e-6)
