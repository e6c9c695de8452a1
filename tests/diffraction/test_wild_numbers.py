"""Every verb on frames of numbers that are no counts: nothing is cast beyond its type, nothing reaches other frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import mrczdask as md

SHAPE = (80, 90)
GEOMETRY = md.Geometry.flat(SHAPE)
OPTIONS: dict[str, Any] = {"bins": 25, "unit": "pixel"}
WILD = (np.nan, np.inf, -np.inf, 1e30, 3e38, 2.0**53 + 1, -0.0)
LARGE = (2**53 + 1, 2**63 - 1, 2**63 - 2**40)


def clean(dtype: Any) -> NDArray[Any]:
    frames = np.random.default_rng(8).poisson(20.0, (3, *SHAPE))
    frames[:, 20:23, 60:63] += 400
    return frames.astype(dtype)


def wild(dtype: Any) -> NDArray[Any]:
    """The first of three frames is spoilt, away from its peak."""
    frames = clean(dtype)
    for k, value in enumerate(WILD if frames.dtype.kind == "f" else LARGE):
        frames[0, 40 + 5 * k, 3 + 10 * k] = value
    return frames


@pytest.mark.parametrize("model", ["poisson", "azimuthal", "hybrid", "count"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint64, np.int64])
def test_wild_numbers_stay_where_they_are(dtype: Any, model: Any) -> None:
    with np.errstate(invalid="raise", over="raise", divide="raise"):
        found, expected = (
            md.separate_background(images, GEOMETRY, error_model=model, **OPTIONS).compute()
            for images in (wild(dtype), clean(dtype))
        )
        np.testing.assert_allclose(found.background_avg, expected.background_avg, atol=1.5)
        for name in ("background_avg", "background_std", "n_used"):
            np.testing.assert_array_equal(found[name][1:], expected[name][1:])
        sparse = md.sparsify(wild(dtype), background=found).compute()
        assert np.isfinite(sparse.intensity.values.astype(float)).all()
        for law in ("poisson", "mean", "fabio"):
            dense = md.densify(sparse, background=law)  # type: ignore[arg-type]
            same = md.densify(md.sparsify(clean(dtype), background=expected), background=law)  # type: ignore[arg-type]
            np.testing.assert_array_equal(dense.values[1:], same.values[1:])
        peaks = md.find_peaks(wild(dtype), background=found, cutoff_peak=8.0).compute()
        others = md.find_peaks(clean(dtype), background=expected, cutoff_peak=8.0).compute()
        for name in ("y", "x", "intensity", "sigma"):
            np.testing.assert_allclose(peaks[name], others[name], rtol=0.02)
        assert md.veto(peaks, min_peaks=1).hit.values.all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_reports_of_wild_numbers_are_numbers(dtype: Any) -> None:
    with np.errstate(invalid="raise", over="raise", divide="raise"):
        sparse = md.sparsify(wild(dtype), GEOMETRY, **OPTIONS).compute()
        md.sparse_sum(sparse).compute()
        md.virtual_image(sparse).compute()
        md.compare_background(wild(dtype), md.densify(sparse), sparse)
        budget = md.loss_budget(wild(dtype), GEOMETRY, cutoffs=(1, 3), **OPTIONS)
        assert np.isfinite(budget.kept_fraction).all()
        bad = md.find_bad_pixels(wild(dtype), GEOMETRY, **OPTIONS).compute()
        assert np.isfinite(bad.deviation).all()
        for output in ("frames", "events"):
            counted = md.count_electrons(wild(dtype), threshold=100.0, method="centroid", output=output)  # type: ignore[arg-type]
            assert counted is not None
