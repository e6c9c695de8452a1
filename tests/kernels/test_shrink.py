from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from mrczdask.kernels.line_means import block_variation, line_means, robust_limits
from mrczdask.kernels.shrink import shrink


def scene(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A smooth and a white part, and two noisy looks at it."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(200, 240)), 12)
    signal = smooth / smooth.std() * 0.04 + 0.02 * rng.normal(size=smooth.shape)
    one, two = (signal + 0.1 * rng.normal(size=signal.shape) for _ in range(2))
    return signal, one, two


def test_shrinking_beats_every_single_factor_and_knows_its_error() -> None:
    signal, one, two = scene()
    found, spectrum = shrink(one, two)
    error = float(np.mean((found - signal) ** 2))
    single = min(float(np.mean((k * (one + two) / 2 - signal) ** 2)) for k in np.linspace(0, 1, 101))
    assert error < 0.6 * single
    assert spectrum.error() == pytest.approx(error, rel=0.1)
    assert spectrum.noise_variance == pytest.approx(0.1**2 / 2, rel=0.03)
    assert spectrum.variance == pytest.approx(signal.var(), rel=0.15)


def test_error_for_more_data_is_the_error_found_with_them() -> None:
    signal, one, two = scene()
    _, few = shrink(one, two)
    rng = np.random.default_rng(9)
    halves = [signal + 0.05 * rng.normal(size=signal.shape) for _ in range(2)]  # four times the data
    found, _ = shrink(*halves)
    assert few.error(4.0) == pytest.approx(float(np.mean((found - signal) ** 2)), rel=0.1)


def test_one_image_needs_the_noise() -> None:
    signal, one, _ = scene()
    found, spectrum = shrink(one, None, noise=0.01)
    assert np.mean((found - signal) ** 2) == pytest.approx(spectrum.error(), rel=0.15)


def test_unequal_halves_are_weighted() -> None:
    signal, one, two = scene()
    noisy = two + 0.3 * np.random.default_rng(5).normal(size=two.shape)
    weight = (1 / 0.01) / (1 / 0.01 + 1 / 0.1)
    equal, _ = shrink(one, noisy)
    weighted, _ = shrink(one, noisy, weight)
    assert np.mean((weighted - signal) ** 2) < np.mean((equal - signal) ** 2)


def test_pure_noise_goes_to_zero() -> None:
    rng = np.random.default_rng(2)
    found, spectrum = shrink(*rng.normal(size=(2, 128, 128)))
    assert found.std() < 0.15
    assert spectrum.variance < 0.03
    nothing, empty = shrink(np.zeros((8, 8)), np.zeros((8, 8)))
    assert (nothing == 0).all()
    assert empty.error() == 0


def test_line_means_fit_rows_and_columns_past_hot_and_masked_pixels() -> None:
    rng = np.random.default_rng(1)
    row, column = 1 + 0.02 * rng.normal(size=150), 1 + 0.03 * rng.normal(size=120)
    row, column = row / row.mean(), column / column.mean()
    image = rng.poisson(400 * np.multiply.outer(row, column)).astype(float)
    image[rng.random(image.shape) < 0.002] = 1e6
    mask = np.zeros(image.shape, bool)
    mask[:, :30] = rng.random((150, 30)) < 0.3
    image[mask] = 430
    found = line_means(image, mask)
    assert ((found.row - row) / found.row_error).std() == pytest.approx(1, abs=0.2)
    assert ((found.column - column) / found.column_error).std() == pytest.approx(1, abs=0.2)
    assert found.level == pytest.approx(400, rel=0.01)


def test_lines_without_counts_are_nan() -> None:
    image = np.full((20, 30), 5.0)
    image[3], image[:, 7] = 0, 0
    found = line_means(image)
    assert np.flatnonzero(np.isnan(found.row)).tolist() == [3]
    assert np.flatnonzero(np.isnan(found.column)).tolist() == [7]
    assert np.isnan(line_means(np.zeros((4, 5))).row).all()


def test_robust_limits() -> None:
    values = np.random.default_rng(0).normal(10, 2, 100_000)
    values[:1000] = np.nan
    values[1000:1500] = 1e9
    low, high = robust_limits(values, 3)
    assert (low, high) == (pytest.approx(4, abs=0.1), pytest.approx(16, abs=0.1))
    assert robust_limits(np.full(5, np.nan)) == (0, 0)
    low, high = robust_limits(np.full(9, 4.0))
    assert low < 4 < high


def test_block_variation_is_that_of_the_specimen_alone() -> None:
    rng = np.random.default_rng(3)
    white = 1 + 0.1 * rng.normal(size=(256, 320))
    assert block_variation(white, 16) < 1e-5
    specimen = 0.05 * np.kron(rng.normal(size=(8, 10)), np.ones((32, 32)))
    assert block_variation(white + specimen, 16) == pytest.approx(specimen.var(), rel=0.1)
    assert block_variation(np.full((64, 64), np.nan), 16) == 0
    assert block_variation(white[:20, :20], 16) == 0
