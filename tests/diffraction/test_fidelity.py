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


def test_bad_input_is_named() -> None:
    frames = np.ones((2, *SHAPE), np.int32)
    sparse = md.sparsify(frames, GEOMETRY, **OPTIONS)
    with pytest.raises(MrczdaskError, match="they must agree"):
        md.compare_background(frames[:1], frames, sparse)
    with pytest.raises(ValueError, match="shells=0"):
        md.compare_background(frames, frames, sparse, shells=0)
