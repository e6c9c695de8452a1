"""Contrast, binning and scale bars against numbers worked out by hand."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt

from mrczdask.plotting import bin_image, contrast_limits, draw_image, scale_bar

mpl.use("Agg")


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


def test_a_nan_is_left_out_of_its_block() -> None:
    image = np.ones((8, 8))
    image[0, 0] = np.nan
    assert bin_image(image, largest=4)[0][0, 0] == 1


def test_complex_pixels_show_their_modulus() -> None:
    assert bin_image(np.array([[3 + 4j]]))[0][0, 0] == 5


def test_contrast_ignores_outliers() -> None:
    image = np.arange(10_000.0).reshape(100, 100)
    image[0, 0] = 1e9
    low, high = contrast_limits(image, (1, 99))
    assert low == pytest.approx(np.percentile(image, 1))
    assert high < 10_000


@pytest.mark.parametrize("image", [np.full((4, 4), 7.0), np.full((4, 4), np.nan)])
def test_flat_images_have_limits(image: np.ndarray) -> None:
    low, high = contrast_limits(image)
    assert low < high


@pytest.mark.parametrize(
    ("width", "pixel", "pixels", "label"),
    [
        (1000, 1.0, 200.0, "20 nm"),  # a quarter is 250 angstrom: 200 is the longest round length
        (4096, 1.06, 1000 / 1.06, "100 nm"),
        (100, 0.2, 25.0, "5 Å"),
        (512, 1000.0, 100.0, "10 µm"),
    ],
)
def test_scale_bars_are_round_and_fit(width: float, pixel: float, pixels: float, label: str) -> None:
    assert scale_bar(width, pixel) == (pytest.approx(pixels), label)


def test_the_bar_has_its_length_in_the_picture() -> None:
    ax = draw_image(np.zeros((500, 1000)), pixel_size_angstrom=2.0)
    box, bar = ax.patches
    assert bar.get_width() * 1000 * 2.0 == pytest.approx(500)  # 50 nm of 200 nm
    assert [text.get_text() for text in ax.texts] == ["50 nm"]
    assert box.get_width() > bar.get_width()
    plt.close(ax.figure)


@pytest.mark.parametrize(("origin", "first"), [("lower", 0), ("upper", 3)])
def test_origin_puts_the_first_row_where_it_belongs(origin: str, first: int) -> None:
    ax = draw_image(np.arange(12).reshape(4, 3), origin=origin)
    bottom, top = ax.get_ylim()
    assert (bottom < top) == (first == 0)
    plt.close(ax.figure)


def test_colour_bands_are_drawn() -> None:
    ax = draw_image(np.random.default_rng(0).integers(0, 255, (8, 8, 3)))
    assert ax.images[0].get_array().shape == (8, 8, 3)
    plt.close(ax.figure)
