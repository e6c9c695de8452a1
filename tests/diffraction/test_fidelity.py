"""The report on densified frames against NumPy, and the bars on what is regrown."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest

import mrczdask as md
from mrczdask.errors import MrczdaskError

SHAPE = (300, 310)
GEOMETRY = md.Geometry.flat(SHAPE)
OPTIONS: dict[str, Any] = {"bins": 30, "unit": "pixel"}
ALIKE = 0.015
"""Relative, of mean and variance."""


@pytest.mark.parametrize("mean", [0.05, 0.7, 5.0])
@pytest.mark.parametrize("cutoff", [1.5, 3.0])
def test_regrown_background_is_like_the_original_in_every_shell(mean: float, cutoff: float) -> None:
    frames = np.random.default_rng(1).poisson(mean, (12, *SHAPE)).astype(np.uint16)
    lazy = da.from_array(frames, chunks=(5, -1, -1))
    sparse = md.sparsify(lazy, GEOMETRY, cutoff_pick=cutoff, error_model="count", **OPTIONS)
    report = md.compare_background(lazy, md.densify(sparse, seed=2), sparse, shells=2)
    for name in ("mean", "variance"):
        original, dense = report[name].values
        few = 4 / np.sqrt(report.n_pixels.values * mean) * (1 if name == "mean" else 1.5)
        assert (np.abs(dense / original - 1) <= np.maximum(ALIKE, few)).all()
    assert (report.maximum.values[0] == report.maximum.values[1]).all()


def test_the_report_is_that_of_numpy() -> None:
    frames = np.random.default_rng(1).poisson(4, (3, *SHAPE)).astype(np.int32)
    frames[:, 100:103, 90] = 99
    sparse = md.sparsify(frames, GEOMETRY, **OPTIONS)
    report = md.compare_background(frames, frames + 1, sparse, shells=3)
    table = sparse.compute()
    free = np.ones(frames.shape, bool)
    free.reshape(3, -1)[np.repeat(np.arange(3), table.n_pixels), table["index"]] = False
    radius = np.broadcast_to(table.pixel_radius.values, frames.shape)
    inside = free & (radius >= report.radius_low.values[1]) & (radius < report.radius_high.values[1])
    assert int(report.n_pixels[1]) == inside.sum()
    for name, function in (("mean", np.mean), ("variance", np.var), ("maximum", np.max)):
        np.testing.assert_allclose(report[name][:, 1], [function(frames[inside]), function(frames[inside] + 1)])


def test_the_dark_and_invalid_pixels_are_taken_off() -> None:
    rng = np.random.default_rng(1)
    dark = rng.uniform(1.0, 5.0, SHAPE)
    frames = rng.poisson(4 + dark, (3, *SHAPE)).astype(np.float32)
    frames[0, 100:120, 90], frames[1, 7, 8] = np.nan, -5
    sparse = md.sparsify(frames, GEOMETRY, dark=dark, dummy=-5, **OPTIONS)
    table = sparse.compute()
    valid = np.isfinite(frames) & (frames != -5)
    valid.reshape(3, -1)[np.repeat(np.arange(3), table.n_pixels), table["index"]] = False
    for given in (sparse, table):
        report = md.compare_background(frames, md.densify(given), given, shells=1)
        assert int(report.n_pixels[0]) == valid.sum()
        original, dense = report["mean"].values[:, 0]
        assert original == pytest.approx((frames - dark)[valid].mean(), rel=1e-6)
        assert dense == pytest.approx(original, rel=0.05)


def test_bad_input_is_named() -> None:
    frames = np.ones((2, *SHAPE), np.int32)
    sparse = md.sparsify(frames, GEOMETRY, **OPTIONS)
    with pytest.raises(MrczdaskError, match="they must agree"):
        md.compare_background(frames[:1], frames, sparse)
    with pytest.raises(ValueError, match="shells=0"):
        md.compare_background(frames, frames, sparse, shells=0)
