from __future__ import annotations

import numpy as np
import pytest

from mrczdask.kernels.gain_ratio import in_convention, line_moments, ratio_of_sums, relative_error, scatter_about_lines


def images() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    recorded, ideal = rng.poisson(20, (2, 30, 40)).astype(float)
    recorded[3, 4] = ideal[5, 6] = 0
    mask = rng.random(recorded.shape) < 0.1
    return recorded, ideal, mask


def test_ratio_has_mean_one_over_good_pixels_and_one_in_defects() -> None:
    recorded, ideal, mask = images()
    gain, defect = np.ones(recorded.shape), np.empty(recorded.shape, bool)
    n, change = ratio_of_sums(recorded, ideal, mask, gain, defect)
    assert change == pytest.approx(np.sqrt(np.mean((gain - 1) ** 2)))
    assert ratio_of_sums(recorded, ideal, mask, gain, defect) == (n, 0)
    good = ~(defect | mask)
    assert n == good.sum()
    assert gain[good].mean() == pytest.approx(1)
    np.testing.assert_array_equal(defect, (recorded <= 0) | (ideal <= 0))
    assert (gain[defect] == 1).all()
    want = recorded[~defect] / ideal[~defect]
    np.testing.assert_allclose(gain[~defect] / want, gain[~defect][0] / want[0])
    assert ratio_of_sums(recorded, ideal, np.ones_like(mask), gain, defect)[0] == 0


def test_conventions_are_reciprocal_and_keep_the_relative_error() -> None:
    recorded, ideal, mask = images()
    gain, error = recorded / 20 + 0.1, ideal / 100
    defect = mask[::-1]
    divide, multiply = (in_convention(gain, error, defect, mask, factor) for factor in (False, True))
    good = ~(mask | defect)
    for values, errors in (divide, multiply):
        assert values[good].mean() == pytest.approx(1, abs=1e-6)
        assert (values[defect] == 1).all()
        assert np.isnan(errors[defect]).all()
        np.testing.assert_allclose((errors / values)[~defect], (error / gain)[~defect], rtol=1e-6)
    product = (divide[0] * multiply[0])[~defect]
    np.testing.assert_allclose(product, product[0], rtol=1e-6)


def test_moments_of_lines_are_numpys() -> None:
    image, gain, bad = images()
    gain = gain + 1
    good = ~bad
    rows, columns = line_moments(image, gain, good)
    for axis, found in ((1, rows), (0, columns)):
        flat = np.where(good, image / gain, 0)
        np.testing.assert_allclose(found[:, 0], good.sum(axis=axis))
        np.testing.assert_allclose(found[:, 1], flat.sum(axis=axis))
        np.testing.assert_allclose(found[:, 2], (flat**2).sum(axis=axis))
        np.testing.assert_allclose(found[:, 3], np.where(good, gain, 0).sum(axis=axis))


def test_scatter_is_about_rows_and_columns_and_errors_add_in_squares() -> None:
    rng = np.random.default_rng(1)
    row, column = rng.normal(1, 0.1, 200), rng.normal(1, 0.1, 300)
    noise = 0.03 * rng.normal(size=(200, 300))
    gain = np.add.outer(row, column) - 1 + noise
    good = np.ones(gain.shape, bool)
    assert scatter_about_lines(gain, row, column, good) == pytest.approx(np.mean(noise**2))
    assert scatter_about_lines(gain, row, column, ~good) == 0
    found = relative_error(gain, row**2, column**2, 0.5)
    np.testing.assert_allclose(found, gain * np.sqrt(np.add.outer(row**2, column**2) + 0.5))
