"""Local medians and means against scipy.ndimage, to the last unit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mrczdask.kernels.local_level import box_sums, median_levels

SIZES = [(0, 0), (1, 1), (1, 30), (30, 1), (3, 7), (9, 9), (64, 65), (150, 70)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("spread", [1, 12, 255])
def test_median(size: tuple[int, int], spread: int) -> None:
    image = np.random.default_rng(spread).integers(255 - spread, 256, size).astype(np.uint8)
    expected = ndimage.median_filter(image, 9, mode="mirror") if image.size else image
    np.testing.assert_array_equal(median_levels(image, 128), expected)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 255), st.integers(0, 2**32), st.integers(1, 20), st.integers(1, 20))
def test_the_guess_changes_nothing(guess: int, seed: int, ny: int, nx: int) -> None:
    image = np.random.default_rng(seed).choice(np.array([0, 3, 120, 255], np.uint8), (ny, nx))
    np.testing.assert_array_equal(median_levels(image, guess), ndimage.median_filter(image, 9, mode="mirror"))


@pytest.mark.parametrize("size", SIZES)
def test_sums(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, size).astype(np.uint8)
    expected = ndimage.uniform_filter(image.astype(float), 9, mode="mirror") * 81 if image.size else image
    np.testing.assert_array_equal(box_sums(image), np.rint(expected))
