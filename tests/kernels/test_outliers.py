"""Deviations and thresholds against the formulas written out with numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, stats

from mrczdask.kernels.outliers import (
    DEAD,
    DEFAULT_DARK,
    DEFAULT_HOT,
    GOOD,
    HOT,
    deviations,
    discovery_threshold,
    find_by_cdf,
    find_by_fdr,
)

SIZE = (256, 240)


def counts(mean: float = 40.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(mean, SIZE)


def test_deviations_are_the_formula() -> None:
    image = counts() * (1 + 0.1 * np.sin(np.arange(SIZE[1]) / 15))
    a = 2 * np.sqrt(image + 3 / 8)
    level = ndimage.uniform_filter(ndimage.median_filter(a, 9, mode="mirror"), 9, mode="mirror")
    left = a - level
    left -= np.median(left)
    expected = left / (1.4826 * np.median(np.abs(left)))
    np.testing.assert_allclose(deviations(image), expected, atol=0.04)  # levels are quantised to 0.1 before the mean


def test_deviations_of_poisson_counts_are_normal() -> None:
    z = deviations(counts(200.0))
    assert abs(float(z.mean())) < 0.02
    assert float(z.std()) == pytest.approx(1.0, abs=0.02)


def test_known_defects_do_not_count() -> None:
    image, bad = counts(), np.zeros(SIZE, bool)
    bad[::2] = True
    image[::2] = 0
    z = deviations(image, bad)
    assert float(z[~bad].std()) < 1.6


def test_threshold_is_that_of_benjamini_and_hochberg() -> None:
    rng = np.random.default_rng(3)
    z = np.concatenate([rng.standard_normal(20_000), rng.normal(5, 1, 200)])
    t = discovery_threshold(z[z > 1], z.size, 0.05)
    rejected = stats.false_discovery_control(stats.norm.sf(z), method="bh") < 0.05
    assert (z >= t).sum() == rejected.sum()


def test_no_threshold_without_outliers() -> None:
    assert np.isnan(discovery_threshold(np.array([2.5, 2.1]), 10_000, 0.05))
    assert np.isnan(discovery_threshold(np.empty(0), 10_000, 0.05))


def test_clean_images_have_few_outliers() -> None:
    found = [np.count_nonzero(find_by_fdr(counts(100.0, seed), 0.05).kind) for seed in range(10)]
    assert sum(found) < 40


def test_dead_and_hot_pixels_are_told_apart() -> None:
    image = counts(100.0)
    image[10, 20], image[30, 40] = 400, 0
    for found in (find_by_fdr(image, 0.05), find_by_cdf(image, 6.0, 0.95)):
        assert (found.kind[10, 20], found.kind[30, 40]) == (HOT, DEAD)


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


@pytest.mark.parametrize("image", [np.zeros((32, 32)), np.full((32, 32), 7), np.empty((0, 0)), np.ones((1, 1))])
def test_images_without_noise(image: np.ndarray) -> None:
    assert (find_by_fdr(image, 0.05).kind == GOOD).all()
    assert (find_by_cdf(image, 6.0, 0.95).kind == GOOD).all()
