"""Frames that are not as they should be: numbers stay right elsewhere, and nothing is made up."""

from __future__ import annotations

from typing import Any

import dask
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
    assert np.isnan(md.densify(sparse, seed=1)[0].values).all()


@pytest.mark.parametrize("model", MODELS)
def test_negative_counts_are_numbers_as_any(model: Any) -> None:
    """A detector with an offset taken off: the mean of its background may be 0."""
    frames = np.random.default_rng(5).normal(0, 0.5, (2, *SHAPE)).round().astype(np.int16)
    found = md.separate_background(frames, GEOMETRY, error_model=model, **OPTIONS).compute()
    assert np.isfinite(found.background_avg).all()
    assert (found.background_std >= 0).all()
    if model != "count":  # which takes a negative count for an outlier: none can be Poisson's
        assert abs(float((found.background_avg * found.n_used).sum() / found.n_used.sum())) < 0.1
    dense = md.densify(md.sparsify(frames, background=found, cutoff_pick=3).compute()).values
    if model == "azimuthal":  # the others suppose the deviation of counts
        assert dense.std() == pytest.approx(frames.std(), rel=0.05)
        assert dense.min() < 0


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("sectors", [1, 3])
def test_pixels_that_are_not_finite_are_no_pixels(model: Any, sectors: int) -> None:
    """As if a detector had marked them with a dummy."""
    marked = frames_of().astype(np.float32)
    broken = marked.copy()
    for place, value in zip(((3, 9), (20, 61), (40, 70), (70, 5)), (np.nan, np.inf, -np.inf, np.inf), strict=True):
        marked[0][place], broken[0][place] = -99, value
    options = OPTIONS | {"sectors": sectors, "error_model": model}
    expected = md.sparsify(marked, GEOMETRY, dummy=-99, **options).compute()
    found = md.sparsify(broken, GEOMETRY, **options).compute()
    for name in ("background_avg", "background_std", "index", "intensity"):
        np.testing.assert_array_equal(found[name], expected[name])
    if sectors == 1:  # of more, some have no pixel
        assert np.isfinite(found.background_avg).all()
    assert np.isfinite(found.intensity).all()


@pytest.mark.parametrize("gaps", ["fill", "ignore", "void"])
def test_pixels_that_are_not_finite_are_no_peaks(gaps: Any) -> None:
    marked = frames_of().astype(np.float32)
    marked[:, 20, 59] = marked[:, 21, 60] = 1000
    broken = marked.copy()
    for place, value in zip(((21, 61), (40, 70), (70, 5)), (np.inf, np.inf, -np.inf), strict=True):
        marked[0][place], broken[0][place] = -99, value
    options = OPTIONS | {"gaps": gaps, "cutoff_peak": 10, "connected": 2}
    expected = md.find_peaks(marked, GEOMETRY, dummy=-99, **options).compute()
    found = md.find_peaks(broken, GEOMETRY, **options).compute()
    assert found.n_peaks.values.tolist() == [gaps != "void", 1]
    for name in ("index", "y", "x", "intensity", "sigma", "n_pixels"):
        np.testing.assert_array_equal(found[name], expected[name])


def test_pixels_that_are_not_finite_are_no_evidence() -> None:
    frames = np.random.default_rng(3).poisson(20.0, (30, *SHAPE)).astype(np.float32)
    frames[:, 20:24, 60:64] = 0
    frames[::2, 22, 62], frames[1::3, 22, 62], frames[::2, 50, 30] = np.inf, np.nan, np.inf
    found = md.find_bad_pixels(frames, GEOMETRY, grow=0, **OPTIONS).compute()
    expected = np.zeros(SHAPE, np.uint8)
    expected[20:24, 60:64] = 2
    np.testing.assert_array_equal(found.defect_kind, expected)
    marked = np.where(np.isfinite(frames), frames, -99)
    budgets = [
        md.loss_budget(images, GEOMETRY, cutoffs=(1, 3), **OPTIONS, **more)
        for images, more in ((frames, {}), (marked, {"dummy": -99}))
    ]
    for name in ("kept_fraction", "kept_signal"):
        np.testing.assert_array_equal(budgets[0][name], budgets[1][name])


@pytest.mark.parametrize("name", ["dark", "flat"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_pixels_whose_maps_are_not_finite_are_masked(name: str, value: float) -> None:
    image = np.random.default_rng(2).uniform(0.5, 1.5, SHAPE)
    mask = np.zeros(SHAPE, bool)
    mask[30, 40] = mask[60, 7] = True
    broken = np.where(mask, value, image)
    expected = md.sparsify(frames_of(), GEOMETRY, mask=mask, **{name: image}, **OPTIONS).compute()
    found = md.sparsify(frames_of(), GEOMETRY, **{name: broken}, **OPTIONS).compute()
    for variable in ("background_avg", "background_std", "index", "intensity", "pixel_radius"):
        np.testing.assert_array_equal(found[variable], expected[variable])


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
    empty = md.azimuthal_average(frames_of(), GEOMETRY, bins=5000, unit="pixel").n_used[0].values == 0
    assert empty.any()
    assert np.isnan(found.background_avg[0].values[empty]).all()
    assert np.isfinite(found.background_avg[0].values[~empty]).all()


@pytest.mark.parametrize("dtype", [">u2", ">f4", "<f2", ">f2"])
def test_any_byte_order_and_half_floats_are_frames(dtype: str) -> None:
    native = frames_of().astype(np.float32 if dtype.endswith("f2") else np.dtype(dtype).newbyteorder("="))
    with dask.config.set(scheduler=no_scheduler):
        found = md.sparsify(native.astype(dtype), GEOMETRY, **OPTIONS)
        peaks = md.find_peaks(
            native.astype(dtype).reshape(2, 1, *SHAPE), GEOMETRY, cutoff_peak=50, connected=1, **OPTIONS
        )
    expected = md.sparsify(native, GEOMETRY, **OPTIONS).compute()
    one = found.compute()
    assert one.intensity.dtype == native.dtype
    for name in ("background_avg", "index", "intensity"):
        np.testing.assert_array_equal(one[name], expected[name])
    assert peaks.compute()["index"].values.tolist() == [20 * 90 + 60] * 2
    stored = expected.assign(intensity=expected.intensity.astype(dtype))
    np.testing.assert_array_equal(md.densify(stored), md.densify(expected))


@pytest.mark.parametrize("dtype", [bool, np.complex64, np.longdouble])
def test_frames_of_other_types_are_refused_in_one_line(dtype: Any) -> None:
    for verb in (md.sparsify, md.find_peaks, md.loss_budget, md.find_bad_pixels):
        with pytest.raises(MrczdaskError, match=f"^the frames are {np.dtype(dtype)}: give [^\n]*$"):
            verb(frames_of().astype(dtype), GEOMETRY, **OPTIONS)


def no_scheduler(*_: Any, **__: Any) -> None:
    raise AssertionError("something was computed")
