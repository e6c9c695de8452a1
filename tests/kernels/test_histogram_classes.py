"""Classes of pixels: the cut is the cheapest of all cuts, and finds what was put in."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from mrczdask.kernels import histogram_classes as classes


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
def test_sums_are_above_the_lowest_value(dtype: str) -> None:
    values = np.random.default_rng(0).integers(0, 200, (37, 11)).astype(dtype)
    low = (-3) % 2 ** (8 * values.itemsize)  # a signed minimum of -3
    expected = (values.astype(np.int64) + 3).sum(0) if dtype != "u1" else ((values.astype(int) + 3) % 256).sum(0)
    np.testing.assert_array_equal(classes.pixel_sums(values, low), expected)


def test_fine_bins_rise_with_the_sum_and_are_few() -> None:
    sums = np.random.default_rng(0).integers(0, 10**6, 50_000).astype(np.uint64)
    bins, n = classes.fine_bins(sums, 256)
    assert n <= 256
    assert set(np.unique(bins)) == set(range(n))
    assert (np.diff(bins[np.argsort(sums)].astype(int)) >= 0).all()


def test_every_pixel_counted_once() -> None:
    values = np.random.default_rng(0).poisson(40, (20, 30)).astype(np.uint16)
    groups = (np.arange(30) % 3).astype(np.uint8)
    counts = classes.token_histograms(values, 0, groups, np.zeros(3, np.int64), 1, False)
    for g in range(3):
        np.testing.assert_array_equal(counts[g], np.bincount(values[:, groups == g].ravel(), minlength=256))
    assert classes.token_histograms(values, 0, groups, np.zeros(3, np.int64), 1, True).sum() == values.size
    sampled = classes.token_histograms(values, 0, groups, np.zeros(3, np.int64), 4, True)
    assert sampled.sum() == values.size // 4


def brute_force(histograms, population, scale):
    """The cheapest of all 2**(n-1) cuts, by the written-out cost."""
    n = len(population)

    def cost(i, j):
        merged, members = histograms[i:j].sum(0), population[i:j].sum()
        p = merged[merged > 0] / merged.sum()
        data = -merged.sum() * (p * np.log2(p)).sum()
        return scale * data + 60 + 5 * (merged > 0).sum() + members * np.log2(population.sum() / members)

    best = min(
        ([0, *inner] for k in range(n) for inner in combinations(range(1, n), k)),
        key=lambda cuts: sum(cost(a, b) for a, b in zip(cuts, [*cuts[1:], n], strict=True)),
    )
    return best


@pytest.mark.parametrize("seed", range(6))
def test_cut_is_the_cheapest_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    means = np.sort(rng.uniform(0, 3, 10)) ** 2
    population = rng.integers(5, 40, 10)
    histograms = np.stack(
        [np.bincount(rng.poisson(m, 50 * n), minlength=256) for m, n in zip(means, population, strict=True)]
    )
    cuts = classes.optimal_cuts(histograms, population, 2.0, 64, True)
    assert cuts.tolist() == brute_force(histograms, population, 2.0)
    assert 1 < len(cuts) < 10


def test_uniform_pixels_are_one_class() -> None:
    values = np.random.default_rng(0).poisson(2.0, (64, 1000)).astype(np.uint8)
    groups, n = classes.fine_bins(classes.pixel_sums(values, 0), 256)
    counts = classes.token_histograms(values, 0, groups, np.zeros(n, np.int64), 1, True)
    assert classes.optimal_cuts(counts, np.bincount(groups), 1.0, 64, True).tolist() == [0]


def test_never_more_than_64_classes() -> None:
    n = 100
    histograms = np.zeros((n, 256), np.int64)
    histograms[np.arange(n), np.arange(n)] = 100_000
    assert len(classes.optimal_cuts(histograms, np.full(n, 1000), 1.0, 64, True)) <= 64
