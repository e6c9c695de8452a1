"""Lines and blocks without a count against scipy's morphology and drawn detectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mrczdask.kernels.dead_areas import empty_areas, empty_runs


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 5), st.integers(1, 9), st.integers(0, 2**32))
def test_runs_are_openings(ny: int, nx: int, side: int, run: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image, out = rng.poisson(0.3, (ny, nx)).astype(np.float32), rng.random((ny, nx)) < 0.1
    empty = (image == 0) | out
    expected = np.zeros((ny, nx), bool)
    for shape in ((side, side), (1, run), (run, 1)):
        expected |= ndimage.binary_opening(empty, np.ones(shape))
    np.testing.assert_array_equal(empty_runs(image, out, side, run), expected)


@pytest.mark.parametrize("mean", [0.3, 4.0, 40.0])
def test_lines_that_cross_and_blocks_in_corners(mean: float) -> None:
    dead = np.zeros((256, 256), bool)
    dead[:, 30:46] = dead[60:68] = dead[:40, 100:140] = dead[:128, 200] = dead[216:, 216:] = True
    image = np.where(dead, 0, np.random.default_rng(1).poisson(mean, dead.shape)).astype(np.float32)
    found = empty_areas(image, np.zeros(dead.shape, bool))
    assert found is not None
    assert found.dead[dead].mean() > 0.98
    assert np.count_nonzero(found.dead[~dead]) < 0.01 * dead.sum()


def test_nothing_is_looked_for_where_all_pixels_count_or_none() -> None:
    none = np.zeros((64, 64), bool)
    for value in (0, 5):
        assert empty_areas(np.full((64, 64), value, np.float32), none) is None
    assert empty_areas(np.empty((0, 0), np.float32), none[:0, :0]) is None
