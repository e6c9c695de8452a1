"""Frames that are not as they should be: numbers stay right elsewhere, and nothing is made up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import mrczdask as md
from mrczdask.errors import MrczdaskError

SHAPE = (80, 90)
OPTIONS: dict[str, Any] = {"bins": 25, "unit": "pixel"}
GEOMETRY = md.Geometry.flat(SHAPE)
MODELS = ("poisson", "azimuthal", "hybrid", "count")
RADIUS = GEOMETRY.radius("pixel")


def frames_of(mean: float = 20.0) -> NDArray[Any]:
    frames = np.random.default_rng(8).poisson(mean, (2, *SHAPE)).astype(np.int32)
    frames[:, 20, 60] = 4000
    return frames


@pytest.mark.parametrize("model", MODELS)
def test_a_ring_of_dummies_leaks_nowhere(model: Any) -> None:
    frames = frames_of().astype(np.uint32)
    frames[:, (RADIUS > 30) & (RADIUS < 37)] = 2**32 - 1
    sparse = md.sparsify(frames, GEOMETRY, dummy=2**32 - 1, error_model=model, cutoff_pick=8, **OPTIONS).compute()
    average = sparse.background_avg.values
    assert np.isnan(average).any()
    assert np.nanmin(average) > 15
    assert np.nanmax(average) < 26
    assert sparse["index"].values.tolist() == [20 * 90 + 60] * 2
    dense = md.densify(sparse, background="mean").values
    assert np.delete(dense.reshape(2, -1), 20 * 90 + 60, axis=1).max() < 26


@pytest.mark.parametrize("model", MODELS)
def test_frames_without_a_valid_pixel_hold_nothing(model: Any) -> None:
    frames = frames_of().astype(np.float32)
    frames[0] = np.nan
    sparse = md.sparsify(frames, GEOMETRY, error_model=model, cutoff_pick=8, **OPTIONS).compute()
    assert np.isnan(sparse.background_avg[0]).all()
    assert sparse.n_pixels.values.tolist() == [0, 1]
    assert not md.densify(sparse, seed=1)[0].values.any()


@pytest.mark.parametrize("model", MODELS)
def test_negative_counts_are_numbers_as_any(model: Any) -> None:
    """A detector with an offset taken off: the mean of its background may be 0."""
    frames = np.random.default_rng(5).normal(0, 0.5, (2, *SHAPE)).round().astype(np.int16)
    found = md.separate_background(frames, GEOMETRY, error_model=model, **OPTIONS).compute()
    assert np.isfinite(found.background_avg).all()
    assert (found.background_std >= 0).all()
    if model != "count":  # which takes a negative count for an outlier: none can be Poisson's
        assert abs(float((found.background_avg * found.n_used).sum() / found.n_used.sum())) < 0.1
    kept = md.sparsify(frames, background=found, cutoff_pick=3).compute()
    assert (md.densify(kept).values >= 0).all()


@pytest.mark.parametrize("name", ["mask", "flat", "dark"])
def test_maps_of_another_shape_are_refused(name: str) -> None:
    with pytest.raises(MrczdaskError, match=rf"{name} has the shape \(3, 4\)"):
        md.separate_background(frames_of(), GEOMETRY, **OPTIONS, **{name: np.ones((3, 4))})


def test_a_detector_without_a_pixel_is_refused() -> None:
    with pytest.raises(MrczdaskError, match="every pixel is masked"):
        md.separate_background(frames_of(), GEOMETRY, mask=np.ones(SHAPE, bool), **OPTIONS)
    with pytest.raises(MrczdaskError, match="every pixel is masked"):
        md.separate_background(frames_of(), GEOMETRY, flat=np.zeros(SHAPE), **OPTIONS)


def test_more_bins_than_radii_leave_empty_ones() -> None:
    found = md.separate_background(frames_of(), GEOMETRY, bins=5000, unit="pixel").compute()
    empty = found.n_used[0].values == 0
    assert empty.any()
    assert np.isnan(found.background_avg[0].values[empty]).all()
    assert np.isfinite(found.background_avg[0].values[~empty]).all()
