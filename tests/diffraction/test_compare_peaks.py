"""Partners of known places, and shells of known numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

import mrczdask as md
from mrczdask.errors import MrczdaskError
from mrczdask.io.peak_table import PEAKS, peaks_table


def table(shots: list[list[tuple[float, float]]], radius: Any = None) -> xr.Dataset:
    places = np.array([place for shot in shots for place in shot], np.float32).reshape(-1, 2)
    columns = {name: np.ones(len(places), dtype) for name, dtype in PEAKS.columns.items()}
    columns["y"], columns["x"] = places.T
    columns["radius"] = np.hypot(*places.T).astype(np.float32) if radius is None else radius
    counts = np.array([len(shot) for shot in shots])
    return peaks_table(counts, columns, {"shot": np.arange(len(shots))}, {})


def test_the_nearest_pairs_are_partners_and_each_has_one() -> None:
    ours = table([[(1, 1), (1, 2.4), (30, 30)], [], [(5, 5)]])
    other = table([[(1, 2)], [(7, 7)], [(5, 6)]])
    found = md.compare_peaks(ours, other, distance=2, shells=[0, 10, 100])
    assert found.matched.values.tolist() == [False, True, False, True]
    assert found.reference_matched.values.tolist() == [True, False, True]
    assert found.n_peaks.values.tolist() == [3, 1]
    assert found.n_reference.values.tolist() == [3, 0]
    np.testing.assert_allclose(found.confirmed, [2 / 3, 0])
    np.testing.assert_allclose(found.recalled, [2 / 3, np.nan])
    assert float(found.distance_rms) == pytest.approx(np.sqrt((0.4**2 + 1) / 2), rel=1e-6)


def test_a_geometry_gives_radii_that_are_missing() -> None:
    ours = table([[(10, 20)]], radius=np.full(1, np.nan, np.float32))
    flat = md.Geometry.flat((40, 40), beam_center=(0.5, 0.5))
    found = md.compare_peaks(ours, ours, geometry=flat, unit="pixel", shells=[0, 20, 25, 40])
    assert found.n_peaks.values.tolist() == [0, 1, 0]
    assert md.compare_peaks(table([[]]), table([[]])).n_peaks.sum() == 0


@pytest.mark.parametrize("unit", ["pixel", "q_A^-1", "2th_deg"])
def test_radii_are_about_the_beam_of_each_shot(unit: Any) -> None:
    places: list[list[tuple[float, float]]] = [[(10, 20), (30, 2)], [], [(10, 20)]]
    centers = np.array([[5.0, 5.0], [1.0, 1.0], [30.5, 20.5]])
    geometry = md.Geometry.flat((40, 40), distance_m=0.1, pixel_size_m=(1e-3, 2e-3), wavelength_m=1e-10)
    known = {name: ("shot", centers[:, k]) for k, name in enumerate(("beam_center_y", "beam_center_x"))}
    ours, other = table(places).assign_coords(known), table(places)
    wanted = []
    for k, y, x in ((0, 10, 20), (0, 30, 2), (2, 10, 20)):
        wanted.append(geometry.moved(tuple(centers[k])).radius(unit)[y, x])
    edges = np.sort([value * scale for value in wanted for scale in (1 - 1e-6, 1 + 1e-6)])
    for pair in ((ours, other), (other, ours)):
        found = md.compare_peaks(*pair, geometry=geometry, unit=unit, shells=edges)
        assert found.n_peaks.values.tolist() == found.n_reference.values.tolist() == [1, 0, 1, 0, 1]


def test_bad_input_is_named() -> None:
    with pytest.raises(MrczdaskError, match="of 1 shots, the reference of 2"):
        md.compare_peaks(table([[]]), table([[], []]))
    with pytest.raises(ValueError, match="distance=0"):
        md.compare_peaks(table([[]]), table([[]]), distance=0)
    with pytest.raises(ValueError, match="edges that rise"):
        md.compare_peaks(table([[]]), table([[]]), shells=[1, 0])
