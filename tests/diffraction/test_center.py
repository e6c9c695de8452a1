"""Frames of a wandering beam: shifted they have the averages of frames whose beam stood still."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import mrczdask as md
from mrczdask.errors import MrczdaskError

SHAPE = (60, 70)
GEOMETRY = md.Geometry.flat(SHAPE, beam_center=(30.0, 35.0))
CENTERS = np.array([[30.0, 35.0], [22.0, 41.0], [35.0, 20.0], [130.0, 35.0]])


def rings() -> np.ndarray:
    """A pattern of rings about each centre; the value is that of the radius."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    return np.array([np.hypot(y - cy, x - cx) for cy, cx in CENTERS]).round(3)


@pytest.mark.parametrize("chunk", [1, 3])
def test_shifted_rings_stand_about_the_beam(chunk: int) -> None:
    mask = np.zeros(SHAPE, bool)
    mask[10, 12] = True
    frames = da.from_array(rings(), chunks=(chunk, *SHAPE))
    found = md.center_frames(frames, CENTERS, GEOMETRY, mask=mask)
    assert found.shift_y.values.tolist() == [0, 8, -5, -100]
    expected = GEOMETRY.radius("pixel").round(3)
    for image in found.values:
        inside = np.isfinite(image)
        np.testing.assert_allclose(image[inside], expected[inside])
    holes = np.isnan(found.values).sum((1, 2))
    lost = [1, 60 * 70 - 52 * 64 + 1, 60 * 70 - 55 * 55 + 1, 60 * 70]
    assert holes.tolist() == lost
    assert np.isnan(found[1, 18, 6])
    averages = md.azimuthal_average(found[:3], GEOMETRY, bins=15, unit="pixel")
    radius = np.broadcast_to(averages.radius, (3, 15))
    # the mean radius of the innermost bin lies outside its centre
    np.testing.assert_allclose(averages.intensity[:, 1:], radius[:, 1:], rtol=0.05)


def test_where_the_beam_was_is_not_where_it_is() -> None:
    coords = {"beam_center_y": ("shot", CENTERS[:, 0]), "exposure": ("shot", np.arange(4))}
    frames = xr.DataArray(np.ones((4, *SHAPE), np.uint16), coords, ("shot", "y", "x"))
    assert set(md.center_frames(frames, CENTERS, GEOMETRY).coords) == {"exposure", "shift_y", "shift_x"}


@pytest.mark.usefixtures("no_compute")
def test_nothing_is_computed_at_once() -> None:
    found = md.center_frames(da.ones((4, *SHAPE), chunks=(2, *SHAPE), dtype=np.uint16), CENTERS, GEOMETRY)
    assert found.attrs["dummy"] == 65535


def test_what_does_not_fit_is_refused() -> None:
    frames = np.ones((4, *SHAPE), np.uint8)
    with pytest.raises(MrczdaskError, match=r"finite \(y, x\) for each of 4 shots"):
        md.center_frames(frames, CENTERS[:3], GEOMETRY)
    with pytest.raises(MrczdaskError, match="the geometry or a mask"):
        md.center_frames(frames[:, 1:], CENTERS, GEOMETRY)
    with pytest.raises(MrczdaskError, match="the dummy 256 does not fit uint8"):
        md.center_frames(frames, CENTERS, GEOMETRY, dummy=256)
