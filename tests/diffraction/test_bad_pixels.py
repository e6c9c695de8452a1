"""A shadow and hot pixels against the truth; crystals that turn are no defects."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

import mrczdask as md

SHAPE = (120, 130)
OPTIONS: dict[str, Any] = {"bins": 20, "unit": "pixel"}
GEOMETRY = md.Geometry.flat(SHAPE)


def stills() -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """(frames, hot, shadow): 20 stills, a beamstop with its arm, hot pixels, and reflections elsewhere in each."""
    rng = np.random.default_rng(2)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    shadow = (np.hypot(y - 58, x - 64) < 9) | ((np.abs(y - 58) < 3) & (x > 64))
    hot = rng.random(SHAPE) < 0.002
    level = 6 * np.exp(-(np.hypot(y - 60, x - 65) ** 2) / 6000)
    frames = rng.poisson(np.where(shadow, 0.02 * level, level), (20, *SHAPE))
    frames += rng.poisson(30 * hot, frames.shape)
    for frame in frames:
        frame[rng.integers(0, 120, 40), rng.integers(0, 130, 40)] += 500
    return frames.astype(np.int32), hot, shadow


def test_shadow_and_hot_pixels_are_found_and_reflections_are_not() -> None:
    frames, hot, shadow = stills()
    found = md.find_bad_pixels(frames, GEOMETRY, grow=0, **OPTIONS).compute()
    dark, bright = found.defect_kind.values == 2, found.defect_kind.values == 1
    away = GEOMETRY.radius("pixel") > 12  # further in, rings are mostly dark: nothing to compare with
    ringed = shadow & away
    assert (dark & ringed).sum() > 0.97 * (ringed & ~hot).sum()
    assert (dark & ~shadow).sum() <= 2
    assert (bright & hot).sum() > 0.97 * (hot & ~shadow).sum()
    assert (bright & ~hot & away).sum() <= 1
    np.testing.assert_array_equal(found.mask, dark | bright)
    wider = md.find_bad_pixels(frames, GEOMETRY, grow=2, **OPTIONS).compute()
    assert (wider.defect_kind.values == 2)[60, 80:].all()
    assert int(wider.mask.sum()) > int(found.mask.sum())


def test_the_mask_mends_the_background() -> None:
    frames, _, _ = stills()
    mask = md.find_bad_pixels(frames, GEOMETRY, **OPTIONS).compute().mask.values
    first = md.separate_background(frames, GEOMETRY, **OPTIONS, error_model="count").compute()
    again = md.separate_background(frames, GEOMETRY, **OPTIONS, error_model="count", mask=mask).compute()
    radius = again.radius.values
    away = (radius > 15) & (radius < 75)
    truth = 6 * np.exp(-(radius[away] ** 2) / 6000)
    errors = [
        np.abs(t.background_avg.mean("shot").interp(radius=radius[away]).values / truth - 1) for t in (first, again)
    ]
    assert errors[1].max() < 0.05
    assert errors[1].mean() < errors[0].mean()


def test_nothing_is_computed_and_chunks_change_nothing(no_compute: None) -> None:
    frames = stills()[0]
    one, other = (
        md.find_bad_pixels(da.from_array(frames, chunks=(n, -1, -1)), GEOMETRY, **OPTIONS, dummy=500) for n in (20, 7)
    )
    with dask.config.set(scheduler="sync"):
        xr.testing.assert_allclose(one.compute(), other.compute(), rtol=1e-4)


def test_masked_and_empty_frames_are_no_evidence() -> None:
    frames, _, _ = stills()
    frames[3:6] = -1
    mask = np.zeros(SHAPE, bool)
    mask[:30] = True
    found = md.find_bad_pixels(frames, GEOMETRY, mask=mask, dummy=-1, **OPTIONS).compute()
    assert np.isnan(found.deviation.values[:30]).all()
    assert not found.mask.values[:30].any()
    assert found.mask.values[30:].any()


@pytest.mark.parametrize("bad", [{"share": 0}, {"share": 2}, {"cutoff": -1}, {"grow": -1}])
def test_bad_input_is_named(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="share in"):
        md.find_bad_pixels(stills()[0], GEOMETRY, **bad, **OPTIONS)
