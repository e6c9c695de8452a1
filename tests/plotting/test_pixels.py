"""Binning and contrast against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mrczdask.plotting import bin_image, contrast_limits


def test_small_images_are_not_binned() -> None:
    image = np.arange(12.0).reshape(3, 4)
    shown, side = bin_image(image)
    assert side == 1
    np.testing.assert_array_equal(shown, image)


def test_large_images_are_means_of_blocks() -> None:
    shown, side = bin_image(np.arange(64).reshape(8, 8), largest=4)
    assert side == 2
    assert shown[0, 0] == np.mean([0, 1, 8, 9])
    assert shown.shape == (4, 4)


@pytest.mark.parametrize("dtype", ["u1", "i2", "i8", "f2", "f4", "f8"])
def test_binning_is_the_mean_of_a_reshaped_array(dtype: str) -> None:
    image = np.random.default_rng(0).integers(0, 200, (61, 97, 3)).astype(dtype)
    shown, side = bin_image(image, largest=25)
    assert side == 4
    blocks = image[:60, :96].astype(float).reshape(15, 4, 24, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(shown, blocks, rtol=1e-6)
    assert shown.dtype == np.float32


def test_a_thin_image_is_binned_along_its_length() -> None:
    shown, side = bin_image(np.arange(9.0)[None], largest=3)
    assert side == 3
    np.testing.assert_array_equal(shown, [[1, 4, 7]])


def test_what_is_not_finite_is_left_out_of_its_block() -> None:
    image = np.ones((8, 8))
    image[0, :2] = np.nan, np.inf
    image[4:6, 4:6] = np.nan
    shown, _ = bin_image(image, largest=4)
    assert shown[0, 0] == 1
    assert np.isnan(shown[2, 2])
    assert np.isnan(shown).sum() == 1


def test_complex_pixels_show_their_modulus() -> None:
    assert bin_image(np.array([[3 + 4j]]))[0][0, 0] == 5


def test_contrast_ignores_outliers() -> None:
    image = np.arange(10_000.0).reshape(100, 100)
    image[0, 0] = 1e9
    low, high = contrast_limits(image, (1, 99))
    assert low == pytest.approx(np.percentile(image, 1))
    assert high < 10_000


@pytest.mark.parametrize("image", [np.full((4, 4), 7.0), np.full((4, 4), np.nan)])
def test_flat_images_have_limits(image: NDArray[np.float64]) -> None:
    low, high = contrast_limits(image)
    assert low < high


def test_an_image_of_few_counts_has_the_range_of_them() -> None:
    image = np.zeros((100, 100))
    image[3, 4] = 2
    assert contrast_limits(image) == (0, 2)


@pytest.mark.parametrize("percentiles", [(99, 1), (-1, 50), (50, 101), (5, 5)])
def test_percentiles_must_rise(percentiles: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"^percentiles=.*: give two rising numbers between 0 and 100$"):
        contrast_limits(np.zeros((2, 2)), percentiles)
