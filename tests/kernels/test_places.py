"""Empty bins are filled from around the beam, then along the radius."""

from __future__ import annotations

import numpy as np
import pytest

from mrczdask.kernels.places import filled, levels


def test_empty_bins_take_what_lies_around_the_beam_then_along_the_radius() -> None:
    nan = np.nan
    table = np.array([[1, nan, 3, nan], [5, nan, nan, nan], [nan, nan, 9, nan], [1, nan, 9, nan]], np.float32)
    wanted = [[1, 2, 3, 3], [5, 5.5, 6, 6], [3, 6, 9, 9], [1, 5, 9, 9]]
    np.testing.assert_array_equal(filled(table), wanted)
    np.testing.assert_array_equal(filled(table[0]), [1, 2, 3, 3])
    full = np.ones((2, 3), np.float32)
    assert filled(full) is full
    assert not filled(np.full((3, 4), nan, np.float32)).any()


@pytest.mark.parametrize("sectors", [1, 2, 3, 8, 15])
def test_the_mean_over_a_sector_is_its_average(sectors: int) -> None:
    """By integrating what is interpolated between the centres."""
    table = np.random.default_rng(sectors).uniform(3, 5, (sectors, 7)).astype(np.float32)
    found = levels(table)
    turn = (np.arange(sectors * 1000) + 0.5) / 1000
    for bin_ in range(7):
        fine = np.interp(turn, np.arange(sectors) + 0.5, found[:, bin_], period=sectors)
        np.testing.assert_allclose(fine.reshape(sectors, 1000).mean(axis=1), table[:, bin_], atol=1e-5)
    np.testing.assert_array_equal(levels(table[0]), table[0])


def test_levels_are_not_negative_where_averages_are_not() -> None:
    """A streak, few counts, and averages below 0, as of frames less a dark."""
    streak = np.zeros((36, 1), np.float32)
    streak[4] = 100
    few = np.random.default_rng(0).poisson(0.2, (16, 200)).astype(np.float32)
    for table in (streak, few):
        found = levels(table)
        assert found.min() >= 0
        np.testing.assert_allclose(found.sum(axis=0), table.sum(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(levels(streak), streak)
    below = levels(-few)
    np.testing.assert_allclose(below.mean(axis=0), -few.mean(axis=0), atol=1e-6)
