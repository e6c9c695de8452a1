"""Regrown background: Poisson below the threshold of picking and nothing above it; FabIO's rule as FabIO has it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from mrczdask.kernels.places import Places, cells_of
from mrczdask.kernels.regrow import fill_clamped, fill_counts, fill_mean

DUMMY = 200.0
SMALLEST_P = 1e-4
ONE_SECTOR = np.empty(0, np.float32)


def fill(function: Any, place: NDArray[Any], norm: NDArray[Any], tables: list[NDArray[Any]], *rest: Any) -> None:
    """Call a filler with the maps of an image and tables of one sector."""
    places = Places(place.ravel(), ONE_SECTOR)
    cells = [] if function is fill_clamped else [cells_of(places.radial, tables[0].size)]
    function(places, *cells, norm.ravel(), *tables, *rest)


def flat(mean: float, std: float, noise: float, cutoff: float, norm: float = 1.0, **keys: int) -> NDArray[Any]:
    place = np.full((400, 500), 1.25, np.float32)
    table, spread = np.full(4, mean, np.float32), np.full(4, std, np.float32)
    out = np.empty(place.shape, np.int32)
    norms = np.full(place.shape, norm, np.float32)
    key = {"seed": 3, "shot": 5} | keys
    fill(fill_counts, place, norms, [table, spread], noise, cutoff, *key.values(), DUMMY, out)
    return out


@pytest.mark.parametrize(("mean", "norm"), [(0.05, 1.0), (0.5, 0.7), (3.0, 1.0), (12.0, 1.4), (90.0, 1.0)])
@pytest.mark.parametrize("cutoff", [0.8, 3.0])
def test_counts_are_poisson_cut_at_the_threshold(mean: float, norm: float, cutoff: float) -> None:
    std, noise = mean**0.5, 0.5
    found = flat(mean, std, noise, cutoff, norm)
    limit = int(np.floor((mean + max(noise, cutoff * np.hypot(std, noise))) * norm))
    chances = stats.poisson.pmf(np.arange(limit + 1), mean * norm)
    wanted = chances / chances.sum() * found.size
    seen = np.bincount(found.ravel(), minlength=limit + 1)
    assert len(seen) == limit + 1
    if not limit:
        return
    many = wanted >= 10
    few = [seen[~many].sum()], [wanted[~many].sum()]
    if few[1][0] < 10:  # too rare to test: at most what a Poisson count of so few may be
        assert few[0][0] <= stats.poisson.isf(SMALLEST_P, few[1][0] + 1e-9)
        few = [], []
    p = stats.chisquare(np.append(seen[many], few[0]), np.append(wanted[many], few[1]), sum_check=False).pvalue
    assert p > SMALLEST_P


def test_pixels_shots_and_seeds_are_independent() -> None:
    one = flat(3.0, 1.7, 1.0, 0.8)
    for other in (flat(3.0, 1.7, 1.0, 0.8, seed=4), flat(3.0, 1.7, 1.0, 0.8, shot=6), np.roll(one, 1, 1)):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 5 / one.size**0.5
    np.testing.assert_array_equal(one, flat(3.0, 1.7, 1.0, 0.8))


def test_a_threshold_below_every_count_leaves_zeros() -> None:
    """Nearly every draw is too high: after twenty, counts are cut down to what is not picked."""
    assert flat(30.0, 0.0, 0.0, 0.0, norm=1.0).max() == 30
    place = np.zeros((40, 50), np.float32)
    out = np.empty(place.shape, np.uint8)
    tables = [np.full(2, -5.0, np.float32), np.zeros(2, np.float32)]
    fill(fill_counts, place, np.full(place.shape, 1.0, np.float32), tables, 0.0, 0.0, 1, 0, DUMMY, out)
    assert not out.any()


def test_means_and_dummies() -> None:
    average = np.array([1.0, 3.0, 2.4, -4.0], np.float32)
    place = np.array([[-0.4, 0.25, 1.5, np.nan], [2.0, 3.0, 3.4, np.nan]], np.float32)
    norm = np.full(place.shape, 2, np.float32)
    out, rounded = np.empty(place.shape, np.float32), np.empty(place.shape, np.uint16)
    fill(fill_mean, place, norm, [average], DUMMY, False, out)
    fill(fill_mean, place, norm, [average], DUMMY, True, rounded)
    np.testing.assert_allclose(out, [[2, 3, 5.4, DUMMY], [4.8, -8, -8, DUMMY]], rtol=1e-6)
    assert rounded.tolist() == [[2, 3, 5, 200], [5, 0, 0, 200]]


def test_the_rule_of_fabio() -> None:
    """The first half bin is dummy, the mean is too high: E max(0, N(m, s)) = m Phi(m/s) + s phi(m/s)."""
    place = np.full((300, 400), 0.5, np.float32)
    place[0], place[1], place[2] = -0.1, 4.0, np.nan
    out = np.empty(place.shape, np.float32)
    mean, std = np.float32(0.31), np.float32(1.0)
    tables = [np.full(4, mean, np.float32), np.full(4, std, np.float32)]
    fill(fill_clamped, place, np.full_like(place, 2), tables, np.uint64(1), 0, DUMMY, False, out)
    assert (out[:3] == DUMMY).all()
    z = mean / std
    assert out[3:].mean() / 2 == pytest.approx(mean * stats.norm.cdf(z) + std * stats.norm.pdf(z), rel=0.01)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_empty_frames(shape: tuple[int, int]) -> None:
    place, out = np.empty(shape, np.float32), np.empty(shape, np.int32)
    table = np.ones(3, np.float32)
    fill(fill_counts, place, place, [table, table], 1.0, 1.0, 0, 0, DUMMY, out)
    fill(fill_mean, place, place, [table], DUMMY, True, np.empty(shape, np.float32))
