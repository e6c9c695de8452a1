"""Places among bins against their definition; two fields of one array."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import mrczdask as md
from mrczdask.diffraction.maps import bin_rows, pixel_maps, split_rows

SHAPE = (60, 70)


def test_places_are_those_of_radius_and_azimuth() -> None:
    geometry = md.Geometry.flat(SHAPE, beam_center=(21.3, 40.2), mask=np.eye(*SHAPE, dtype=bool))
    background = md.separate_background(np.ones((1, *SHAPE)), geometry, bins=20, unit="pixel", sectors=6)
    places = pixel_maps(background).places((5, 30))
    y, x = np.indices(SHAPE) + 0.5
    radius, azimuth = np.hypot(y - 21.3, x - 40.2), np.arctan2(y - 21.3, x - 40.2)
    outside = np.eye(*SHAPE, dtype=bool) | (radius < 5) | (radius >= 30)
    np.testing.assert_array_equal(np.isnan(places.radial).reshape(SHAPE), outside)
    step = np.diff(background.radius.values).mean()
    wanted = ((radius - background.radius.values[0]) / step)[~outside]
    np.testing.assert_allclose(places.radial.reshape(SHAPE)[~outside], wanted, atol=1e-4)
    turns = (azimuth + np.pi) / (2 * np.pi) * 6 - 0.5
    apart = (places.azimuthal.reshape(SHAPE) - turns + 3) % 6 - 3
    np.testing.assert_allclose(apart, 0, atol=1e-5)


@pytest.mark.parametrize("sectors", [1, 4])
def test_a_task_takes_both_fields_at_once(sectors: int) -> None:
    """The same numbers with the fields apart, as after a selection; fewer tasks with them together."""
    frames = xr.DataArray(np.random.default_rng(0).poisson(3.0, (6, *SHAPE)), dims=("shot", "y", "x")).chunk(shot=2)
    geometry = md.Geometry.flat(SHAPE)
    background = md.separate_background(frames, geometry, bins=8, unit="pixel", sectors=sectors)
    assert bin_rows(background, frames)[2:] == [None, None]
    apart = background.map(lambda values: values[:], keep_attrs=True).assign_coords(background.coords)
    apart = apart.isel(shot=slice(None, None, -1)).isel(shot=slice(None, None, -1))
    assert bin_rows(apart, frames)[2] is not None
    together, other = (md.sparsify(frames, background=given) for given in (background, apart))
    assert len(together.block_layer.__dask_graph__()) < len(other.block_layer.__dask_graph__())
    xr.testing.assert_identical(together.compute().drop_attrs(), other.compute().drop_attrs())
    background["background_avg"][:1] = 100
    edited = md.sparsify(frames, background=background).compute()
    xr.testing.assert_identical(edited, md.sparsify(frames, background=background.compute()).compute())
    known = background.compute()
    average, deviation = split_rows(known.background_avg.values, known.background_std.values)
    np.testing.assert_array_equal(average, known.background_avg)
    np.testing.assert_array_equal(deviation, known.background_std)
