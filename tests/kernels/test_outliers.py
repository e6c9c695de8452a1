"""What is found at a false discovery rate: against scipy, and against the truth of simulated detectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from mrczdask.kernels.outliers import DEAD, GOOD, HOT, discovery_limit, find_by_fdr, local_levels, strong

N = 192
Y, X = np.mgrid[:N, :N] / N
SCENES = {
    "flat": np.ones((N, N)),
    "gradient": 0.3 + 1.4 * X,
    "thickness": np.exp(0.5 * np.sin(6 * Y + 1) * np.cos(5 * X)),
    "dark half": np.where(X < 0.5, 1.0, 0.03),
    "unlit half": np.where(X + 0.1 * Y < 0.6, 1.0, 0.0),
    "narrow beam": (np.hypot(Y - 0.5, X - 0.5) < 0.42) * 1.0,
    "beads": ndimage.gaussian_filter(np.where((Y * 6 % 1 - 0.5) ** 2 + (X * 6 % 1 - 0.5) ** 2 < 0.03, 0.15, 1.0), 1),
}


def counts(mean: float = 40.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(mean * np.ones((N, N)))


def test_limit_is_that_of_benjamini_and_hochberg() -> None:
    rng = np.random.default_rng(3)
    p = stats.norm.sf(np.concatenate([rng.standard_normal(20_000), rng.normal(5, 1, 200)]))
    limit = discovery_limit(p[p < 0.1], p.size, 0.05)
    assert (p <= limit).sum() == (stats.false_discovery_control(p, method="bh") <= 0.05).sum()
    assert discovery_limit(np.array([0.01, 0.02]), 10_000, 0.05) == 0
    assert discovery_limit(np.empty(0), 10_000, 0.05) == 0


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("mean", [0.01, 0.3, 1.0, 4.0, 40.0, 300.0])
def test_nothing_is_found_where_nothing_is(name: str, mean: float) -> None:
    found = [
        np.count_nonzero(find_by_fdr(np.random.default_rng(k).poisson(SCENES[name] * mean), 0.05).kind) for k in (1, 2)
    ]
    assert max(found) <= 12  # of 36 864: the limit on a false discovery is one in ten images


@pytest.mark.parametrize("name", ["flat", "gradient", "thickness", "dark half"])
@pytest.mark.parametrize("mean", [0.05, 0.5, 5.0, 50.0, 500.0])
def test_false_discoveries_are_at_most_twice_the_rate(name: str, mean: float) -> None:
    share, recall = [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        image = rng.poisson(SCENES[name] * mean)
        hot = rng.random(image.shape) < 0.005
        image[hot] += rng.poisson(15 + 10 * np.sqrt(mean), hot.sum())
        kind = find_by_fdr(image, 0.05).kind
        share.append(np.count_nonzero((kind > 0) & ~hot) / np.count_nonzero(kind))
        recall.append((kind[hot] == HOT).mean())
    assert np.mean(share) <= 0.1
    assert min(recall) > 0.97


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(8, N), st.integers(0, N), st.sampled_from([2.0, 20.0, 100.0]), st.booleans())
def test_blocks_that_never_count_are_found(width: int, height: int, place: int, mean: float, turned: bool) -> None:
    dead = np.zeros((N, N), bool)
    dead[place // 2 : place // 2 + height, place : place + width] = True
    dead = dead.T if turned else dead
    if mean * dead.sum() < 60 or (mean * min(width, height) < 5 and dead.sum() * mean < 200):
        return
    kind = find_by_fdr(np.where(dead, 0, counts(mean)), 0.05).kind
    assert (kind[dead] == DEAD).all()
    assert np.count_nonzero(kind[~dead]) < 12


def test_empty_places_that_are_no_blocks_are_named() -> None:
    image = np.random.default_rng(0).poisson(SCENES["narrow beam"] * 40)
    found = find_by_fdr(image, 0.05)
    assert found.unlit == pytest.approx((SCENES["narrow beam"] == 0).sum(), rel=0.05)
    assert not found.kind.any()


def test_dead_pixels_are_judged_where_they_can_be() -> None:
    dim, bright = find_by_fdr(counts(1.0), 0.05), find_by_fdr(counts(40.0), 0.05)
    assert (dim.judged, bright.judged) == (0, 1)
    half = find_by_fdr(np.random.default_rng(0).poisson(SCENES["dark half"] * 40), 0.05)
    assert half.judged == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("unit", [37, 0.025, 1.7])
@pytest.mark.parametrize("mean", [0.2, 40.0])
def test_other_units_change_nothing(unit: float, mean: float) -> None:
    image = counts(mean)
    image.ravel()[::400] += 30
    found, scaled = find_by_fdr(image, 0.05), find_by_fdr(image * unit, 0.05)
    assert (found.kind != scaled.kind).mean() < 2e-4
    assert scaled.dispersion == pytest.approx(unit, rel=0.06)


@pytest.mark.parametrize("mean", [0.5, 5.0, 50.0])
def test_gains_and_over_dispersed_counts(mean: float) -> None:
    rng = np.random.default_rng(0)
    gained = counts(mean) * rng.normal(1, 0.05, (N, N))
    grouped = rng.negative_binomial(mean / 0.5, 1 / 1.5, (N, N))
    for image in (gained, grouped):
        assert np.count_nonzero(find_by_fdr(image, 0.05).kind) < 5
    grouped[50, 60] += int(30 + 15 * np.sqrt(mean))
    assert find_by_fdr(grouped, 0.05).kind[50, 60] == HOT


def test_dead_and_hot_pixels_are_told_apart() -> None:
    image = counts(100.0)
    image[10, 20], image[30, 40] = 400, 0
    found = find_by_fdr(image, 0.05)
    assert (found.kind[10, 20], found.kind[30, 40]) == (HOT, DEAD)
    assert found.counts.sum() == pytest.approx(image.size, rel=1e-3)
    assert found.threshold_dark < -3 < 3 < found.threshold_hot


def test_known_defects_do_not_count() -> None:
    image, bad = counts(), np.zeros((N, N), bool)
    bad[::2] = True
    image[::2] = 10_000
    assert not find_by_fdr(image, 0.05, bad).kind.any()


def test_strong_pixels_are_those_of_the_tail() -> None:
    image = counts(100.0)
    image[3, 4], image[9, 9] = 100 + 75, 100 + 30
    levels = local_levels(image)
    assert strong(levels, 6.0)[3, 4] == HOT
    assert strong(levels, 6.0)[9, 9] == GOOD
    assert np.count_nonzero(strong(levels, 3.2)) < 2 * 2 * stats.norm.sf(3.2) * image.size


@pytest.mark.parametrize("image", [np.zeros((32, 32)), np.full((32, 32), 7), np.empty((0, 0)), np.ones((1, 1))])
def test_images_without_noise(image: np.ndarray) -> None:
    assert (find_by_fdr(image, 0.05).kind == GOOD).all()
