"""Births and deaths of defects against the laws of their process."""

from __future__ import annotations

import numpy as np

from mrczdask.kernels.defect_sites import SITE, alive_sites

KEY = np.uint64(12)


def sites(movie: int, first: int = -80, births: float = 30.0, survival: float = 0.9) -> np.ndarray:
    return alive_sites(KEY, movie, first, births, survival, 100, 200)


def test_places_and_numbers_are_uniform_and_inside() -> None:
    found = sites(0, 0, 20_000.0, 1.0)
    assert found.shape == (20_000, SITE)
    y, x, u, v, bits = found.T
    assert set(np.unique(y)) == set(range(100))
    assert set(np.unique(x)) == set(range(200))
    assert set(np.unique(bits)) == set(range(256))
    for numbers in (u, v):
        assert abs(numbers.mean() - 0.5) < 5 * 12**-0.5 / 20_000**0.5
    assert (np.abs(np.corrcoef(found.T)[np.triu_indices(SITE, 1)]) < 5 / 20_000**0.5).all()


def test_the_number_alive_is_births_times_lifetime() -> None:
    counts = [len(sites(movie, movie - 80)) for movie in range(0, 1000, 25)]
    assert abs(np.mean(counts) - 300) < 5 * (300 / len(counts)) ** 0.5


def test_the_dead_stay_dead_and_the_share_that_survives_is_right() -> None:
    before, after = (set(map(tuple, sites(movie))) for movie in (0, 1))
    new = {tuple(site) for site in alive_sites(KEY, 1, 1, 30.0, 0.9, 100, 200)}
    assert len(after - before - new) == 0
    assert len(new) == 30
    kept = np.mean([len(set(map(tuple, sites(k))) & set(map(tuple, sites(k + 1)))) for k in range(40)])
    assert abs(kept / 300 - 0.9) < 0.05


def test_a_fraction_of_a_birth_is_right_on_average() -> None:
    assert abs(len(alive_sites(KEY, 3999, 0, 0.25, 1.0, 10, 10)) - 1000) < 5 * (4000 * 0.25 * 0.75) ** 0.5
    assert len(alive_sites(KEY, 10, 0, 0.0, 1.0, 10, 10)) == 0
