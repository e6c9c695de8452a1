"""What frames say themselves of their bad pixels counts without being given again."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

import mrczdask as md
from mrczdask.errors import MrczdaskError

SHAPE = (48, 56)
OPTIONS: dict[str, Any] = {"bins": 12, "unit": "pixel"}
DUMMY = 2**16 - 1


def bare(n: int = 4) -> NDArray[Any]:
    frames = np.random.default_rng(2).poisson(6.0, (n, *SHAPE)).astype(np.uint16)
    frames[:, 10:13, 40:43] += 300
    frames[:, 30, 5:9] = DUMMY - 1
    return frames


def marks() -> NDArray[np.bool_]:
    """A beam stop, so that bins begin elsewhere, and a hot pixel that the geometry does not know of."""
    bad = np.zeros(SHAPE, bool)
    bad[20:29, 24:33] = bad[40, 12] = True
    return bad


def labelled(*, lazy: bool = True) -> xr.DataArray:
    coords = {"mask": (("y", "x"), da.from_array(marks(), chunks=-1) if lazy else marks())}
    frames = bare()
    frames[:, 40, 12] = 5000
    data = da.from_array(frames, chunks=(2, *SHAPE))
    return xr.DataArray(data, coords, ("shot", "y", "x"), attrs={"dummy": DUMMY, "delta_dummy": 1})


def known() -> md.Geometry:
    edge = np.zeros(SHAPE, bool)
    edge[0] = True
    return md.Geometry.flat(SHAPE, mask=edge)


def given() -> dict[str, Any]:
    return {"mask": marks(), "dummy": DUMMY, "delta_dummy": 1} | OPTIONS


@pytest.mark.parametrize("lazy", [True, False])
def test_mask_and_dummy_of_the_frames_are_as_if_given(no_compute: None, lazy: bool) -> None:
    frames = labelled(lazy=lazy)
    found = md.separate_background(frames, known(), **OPTIONS)
    picked = md.sparsify(frames, known(), cutoff_pick=4, **OPTIONS)
    peaks = md.find_peaks(frames, known(), **OPTIONS)
    averages = md.azimuthal_average(frames, known(), **OPTIONS)
    plain = frames.drop_vars("mask").drop_attrs()
    apart = md.separate_background(plain, known(), **given())
    for ours, theirs in [
        (found, apart),
        (picked, md.sparsify(plain, known(), cutoff_pick=4, **given())),
        (peaks, md.find_peaks(plain, background=apart)),
        (averages, md.azimuthal_average(plain, known(), **given())),
    ]:
        one, other = (table.compute(scheduler="synchronous") for table in (ours, theirs))
        xr.testing.assert_equal(one.drop_vars("mask", errors="ignore"), other)
    assert isinstance(frames.coords["mask"].data, da.Array) == lazy
    assert not found.background_avg.isnull().compute(scheduler="synchronous").all()
    assert 40 * SHAPE[1] + 12 not in picked.compute(scheduler="synchronous")["index"].values


def test_masks_are_taken_together_and_a_given_dummy_counts_alone() -> None:
    more = np.zeros(SHAPE, bool)
    more[:, :3] = True
    found = md.separate_background(labelled(), known(), mask=more, dummy=5000, **OPTIONS)
    np.testing.assert_array_equal(found.pixel_radius.isnull(), marks() | more | known().mask)
    assert found.attrs["dummy"] == 5000
    assert found.attrs["delta_dummy"] == 0
    with pytest.raises(MrczdaskError, match=r"mask has the shape \(3, 4\), the frames \(48, 56\)"):
        md.separate_background(labelled(), known(), mask=np.ones((3, 4)), **OPTIONS)


def test_the_mask_of_a_scan_goes_with_it() -> None:
    scan = xr.DataArray(
        labelled().data.reshape(2, 2, *SHAPE),
        {"mask": (("ky", "kx"), marks())},
        ("scan_y", "scan_x", "ky", "kx"),
        attrs={"dummy": DUMMY, "delta_dummy": 1},
    )
    flat = md.separate_background(labelled(), known(), **OPTIONS)
    ours = md.separate_background(scan, known(), **OPTIONS)
    np.testing.assert_array_equal(ours.background_avg, flat.background_avg)
    np.testing.assert_array_equal(ours.pixel_radius, flat.pixel_radius)


def test_centred_frames_need_no_dummy_again() -> None:
    centred = md.center_frames(labelled(), np.full((4, 2), (22.0, 25.0)), known())
    plain = md.Geometry.flat(SHAPE)
    np.testing.assert_array_equal(
        md.azimuthal_average(centred, plain, **OPTIONS).intensity,
        md.azimuthal_average(centred.drop_attrs(), plain, dummy=DUMMY, **OPTIONS).intensity,
    )
