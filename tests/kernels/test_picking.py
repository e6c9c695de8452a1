"""Picked pixels against the rule in NumPy, for signals on the threshold too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator

from mrczdask.kernels.picking import pick_pixels, thresholds
from mrczdask.kernels.places import Places, cells_of, interpolate
from mrczdask.kernels.valid import FINITE, Bounds

NONE = np.empty(0, np.float32)


def pick(
    frame: NDArray[Any],
    place: NDArray[Any] | Places,
    norm: NDArray[Any],
    dark: NDArray[Any],
    bounds: Bounds,
    average: NDArray[Any],
    deviation: NDArray[Any],
    *limits: float,
) -> NDArray[Any]:
    index = np.empty(frame.size + 1, np.uint32)
    places = place if isinstance(place, Places) else Places(place, NONE)
    cells = cells_of(places.radial, average.shape[-1])
    n = pick_pixels(frame, places, cells, norm, dark, bounds, average, deviation, *limits, index)
    return index[:n].astype(int)


@pytest.mark.parametrize("bins", [1, 2, 37])
@pytest.mark.parametrize(("noise", "cutoff"), [(1.0, 0.0), (0.0, 2.0), (0.5, 1.0)])
@pytest.mark.parametrize("with_dark", [False, True])
def test_picked_pixels_are_those_of_the_rule(bins: int, noise: float, cutoff: float, with_dark: bool) -> None:
    rng = np.random.default_rng(bins)
    n = 20_000
    average, deviation = rng.uniform(-1, 9, bins).astype(np.float32), rng.uniform(0, 3, bins).astype(np.float32)
    place = rng.uniform(-0.5, bins - 0.5, n).astype(np.float32)
    place[::17] = np.nan
    norm = rng.uniform(0.5, 2, n).astype(np.float32)
    dark = rng.uniform(0, 1, n).astype(np.float32) if with_dark else NONE
    p = np.clip(place, 0, bins - 1)
    level, std = (np.interp(p, np.arange(bins), table) for table in (average, deviation))
    least = level + np.maximum(noise, cutoff * np.hypot(std, noise))
    frame = (least * norm * rng.normal(1, 0.05, n) + (dark if with_dark else 0)).astype(np.float32)
    frame[5::101], frame[7::101] = np.nan, 77.0
    found = pick(
        frame,
        place,
        norm,
        dark,
        FINITE._replace(hole_low=np.float32(77), hole_high=np.float32(78)),
        average,
        deviation,
        noise,
        cutoff,
    )
    above = (frame - (dark if with_dark else 0)) / norm - least
    certain = np.abs(above) > 1e-5  # what float32 leaves open
    kept = (above > 0) & (np.abs(frame - 77.5) > 0.5) & ~np.isnan(place)
    chosen = np.isin(np.arange(n), found)
    assert (np.diff(found) > 0).all()
    np.testing.assert_array_equal(chosen[certain], kept[certain])
    assert not chosen[np.isnan(above)].any()
    assert 0.2 < chosen.mean() < 0.8


def test_no_pixel_on_its_threshold_is_missed() -> None:
    """Integer signals that are exactly the threshold, and one float32 step above it."""
    average, deviation = np.array([2, 2, 2], np.float32), np.array([0, 0, 0], np.float32)
    place = np.linspace(0, 2, 9).astype(np.float32)
    norm = np.ones(9, np.float32)
    on = np.full(9, 3, np.float32)
    assert pick(on, place, norm, NONE, FINITE, average, deviation, 1.0, 1.0).size == 0
    beyond = np.nextafter(on, np.float32(np.inf))
    assert pick(beyond, place, norm, NONE, FINITE, average, deviation, 1.0, 1.0).size == 9


def test_cells_bound_the_interpolation() -> None:
    rng = np.random.default_rng(0)
    average, deviation = rng.normal(5, 3, 50).astype(np.float32), rng.uniform(0, 2, 50).astype(np.float32)
    place = rng.uniform(-1, 50, 5000).astype(np.float32)
    least = thresholds(average, deviation, 0.7, 1.5)[cells_of(place, 50)]
    for p, bound in zip(place, least, strict=True):
        level, std = (interpolate(table, p, np.float32(0)) for table in (average, deviation))
        assert level + max(0.7, 1.5 * np.hypot(std, 0.7)) >= bound


@pytest.mark.parametrize("sectors", [2, 7])
def test_sectors_are_interpolated_around_the_beam(sectors: int) -> None:
    """Against SciPy on a grid that is continued over the turn on both sides."""
    rng = np.random.default_rng(sectors)
    bins, n = 11, 4000
    average, deviation = (rng.uniform(low, 9, (sectors, bins)).astype(np.float32) for low in (-1, 0))
    places = Places(*(rng.uniform(0, top, n).astype(np.float32) for top in (bins - 1, sectors)))
    around = [np.arange(-1, sectors + 1), np.arange(bins)]
    at = np.stack([places.azimuthal, places.radial], axis=1)
    level, std = (
        RegularGridInterpolator(around, table[np.arange(-1, sectors + 1) % sectors])(at)
        for table in (average, deviation)
    )
    ours = [interpolate(average, *place) for place in zip(*places, strict=True)]
    np.testing.assert_allclose(ours, level, atol=2e-5)
    least = level + np.maximum(0.7, 1.5 * np.hypot(std, 0.7))
    frame = (least + rng.normal(0, 0.5, n)).astype(np.float32)
    chosen = np.isin(
        np.arange(n), pick(frame, places, np.ones(n, np.float32), NONE, FINITE, average, deviation, 0.7, 1.5)
    )
    certain = np.abs(frame - least) > 1e-4
    np.testing.assert_array_equal(chosen[certain], (frame > least)[certain])


def test_large_numbers_and_empty_frames() -> None:
    frame = np.array([2**32 - 1, 2**32 - 2, 9], np.uint32)  # float32 cannot tell the first from the second
    place, norm, table = np.zeros(3, np.float32), np.ones(3, np.float32), np.ones(4, np.float32)
    below = FINITE._replace(high=np.nextafter(np.float32(2**32), np.float32(0)))
    assert pick(frame, place, norm, NONE, below, table, table, 1.0, 1.0).tolist() == [2]
    assert pick(frame[:0], place[:0], norm[:0], NONE, FINITE, table, table, 1.0, 1.0).size == 0
