"""The method of the cumulative histogram against the formulas written out with numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mrczdask.kernels.outlier_tails import DEFAULT_DARK, DEFAULT_HOT, find_by_cdf
from mrczdask.kernels.outliers import GOOD, HOT

SIZE = (256, 240)


def counts(mean: float = 40.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(mean, SIZE)


def test_cdf_fit_finds_the_distribution() -> None:
    image = np.random.default_rng(1).normal(400, 20, (512, 512))
    found = find_by_cdf(image, 6.0, 0.95)
    assert found.mu == pytest.approx(400, abs=0.3)
    assert found.sigma == pytest.approx(20, abs=0.3)


def test_bins_of_integers_are_centred_on_them_and_belong_to_their_right_edge() -> None:
    image = np.random.default_rng(1).poisson(400, (512, 512))
    found = find_by_cdf(image, 6.0, 0.95)
    edges = found.edges * found.sigma + found.mu
    np.testing.assert_allclose(edges % 1, 0.5, atol=1e-6)
    k = int(np.argmin(np.abs(edges - 410.5)))
    assert found.counts[k] == (image == 410).sum()
    np.testing.assert_allclose(found.residual[k], found.edges[k] - stats.norm.ppf((image <= 410).mean()), atol=1e-9)


def test_thresholds_fall_back_where_a_tail_cannot_be_fitted() -> None:
    found = find_by_cdf(np.random.default_rng(1).normal(400, 20, SIZE), 6.0, 0.95)
    assert (found.threshold_hot, found.threshold_dark) == (DEFAULT_HOT, DEFAULT_DARK)


def test_cdf_weights_are_eq_6() -> None:
    image = counts(100.0)
    image.ravel()[:300] += 200
    found = find_by_cdf(image, 6.0, 0.95)
    u = (image - found.mu) / found.sigma
    expected = (1 - 1 / (1 + np.exp(6 * (u - 0.95 * found.threshold_dark)))) / (
        1 + np.exp(np.minimum(6 * (u - 0.95 * found.threshold_hot), 300))
    )
    np.testing.assert_allclose(found.weight, expected, atol=1.1e-4)
    np.testing.assert_array_equal(found.kind > 0, found.weight < 0.5)


@pytest.mark.parametrize("known", [None, np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) % 7 == 0])
def test_integers_counted_one_by_one_give_what_the_same_numbers_as_floats_give(known: np.ndarray | None) -> None:
    image = counts(100.0)
    image.ravel()[:300] += 200
    image.ravel()[300:350] = 0
    image[20, 7] = 5000
    integers, floats = (find_by_cdf(image.astype(dtype), 6.0, 0.95, known) for dtype in (np.int64, np.float64))
    assert 0 < np.count_nonzero(integers.kind == HOT) < image.size / 4
    for name, value in vars(integers).items():
        np.testing.assert_array_equal(value, vars(floats)[name], err_msg=name)


@pytest.mark.parametrize("mean", [0.01, 0.2, 1.0, 4.0, 9.0])
def test_electrons_of_dim_images_are_no_tails(mean: float) -> None:
    image = counts(mean)
    found = find_by_cdf(image, 6.0, 0.95)
    assert np.count_nonzero(found.kind) < 3e-4 * image.size
    filled = (found.weight * image).sum() / image.sum()
    assert filled == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("image", [np.zeros((32, 32)), np.full((32, 32), 7), np.empty((0, 0)), np.ones((1, 1))])
def test_images_without_noise(image: np.ndarray) -> None:
    assert (find_by_cdf(image, 6.0, 0.95).kind == GOOD).all()
