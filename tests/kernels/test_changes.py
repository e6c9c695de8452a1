from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from mrczdask.kernels.changes import LIMIT, changepoint, cusum, shared_deviation
from mrczdask.kernels.residual import broken_lines, histogram_spread, spread, structure


@pytest.mark.parametrize("shape", [(400,), (64, 96)])
@pytest.mark.parametrize("alike", [1, 3])
def test_what_independent_images_share_is_standard_normal(shape: tuple[int, ...], alike: int) -> None:
    """Also where neighbours are alike: the sum of all products alone would then have a deviation of 1.4 to 2."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(1000):
        first, second = (
            ndimage.uniform_filter(rng.normal(size=shape), alike, mode="wrap") if alike > 1 else rng.normal(size=shape)
            for _ in range(2)
        )
        found.append(shared_deviation(first, second))
    assert np.mean(found) == pytest.approx(0, abs=0.1)
    assert np.std(found) == pytest.approx(1, abs=0.12)
    assert max(found) < 4


def test_a_shared_deviation_is_found() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(120, 120))
    first, second = (shared + 3 * rng.normal(size=shared.shape) for _ in range(2))
    assert shared_deviation(first, second) > 5
    assert shared_deviation(shared, shared) > 7
    assert shared_deviation(np.zeros(4), np.ones(4)) == 0


def test_cusum_is_pages_sum() -> None:
    assert cusum(np.array([1.0, np.nan, -2.0, 3.0, 9.0]), slack=0.5, most=4.0).tolist() == [0.5, 0.5, 0, 2.5, 6.0]


def test_normal_steps_raise_no_alarm_and_a_shift_is_dated() -> None:
    rng = np.random.default_rng(1)
    steps = rng.normal(size=(300, 100))
    assert not any(changepoint(row) is not None for row in steps)
    steps[:, 60:] += 2
    dated = np.array([changepoint(row) for row in steps])
    assert (cusum(steps[0])[65:75] > LIMIT / 2).any()
    assert np.mean(np.abs(dated - 60) <= 2) > 0.8


def test_one_odd_movie_is_no_alarm() -> None:
    steps = np.zeros(30)
    steps[10:12] = 100
    assert changepoint(steps) is None


def test_broken_lines_are_far_off_their_neighbours() -> None:
    rng = np.random.default_rng(2)
    profile = 1 + 0.01 * rng.normal(size=300) + 0.1 * np.sin(np.arange(300) / 50)
    error = np.full(300, 0.005)
    assert broken_lines(profile, error).size == 0
    profile[[0, 17, 299]] += [0.3, -0.2, 0.2]
    profile[100] = np.nan
    assert broken_lines(profile, error).tolist() == [0, 17, 100, 299]
    assert broken_lines(np.full(5, np.nan), np.ones(5)).tolist() == [0, 1, 2, 3, 4]
    assert broken_lines(1 + 0.04 * (np.arange(300) == 7), error).size == 0  # below 5 %


def test_spread_leaves_outliers_out_of_three_statistics() -> None:
    rng = np.random.default_rng(3)
    gain = 5 * (1 + 0.02 * rng.normal(size=(300, 300)))
    bad = np.zeros(gain.shape, bool)
    bad[0, :90] = True
    gain[bad] *= 8
    found = spread(gain, bad)
    assert found.std == pytest.approx(0.02, rel=0.02)
    assert found.percentile_ratio == pytest.approx((1 + 1.96 * 0.02) / (1 - 1.96 * 0.02), rel=0.005)
    assert found.max_ratio > 7
    assert found.std_all > 0.2


def test_structure_finds_the_image_in_the_residual() -> None:
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:256, :256]
    particles = sum(np.exp(-((y - a) ** 2 + (x - b) ** 2) / 72) for a, b in rng.uniform(0, 256, (30, 2)))
    noise = 0.01 * rng.normal(size=(2, 256, 256))
    bad = np.zeros((256, 256), bool)
    seen = structure(1 + 0.02 * particles + noise[0], 1 + 0.1 * particles + noise[1], bad)
    assert seen.correlation > 0.9
    assert seen.excess > 2
    unseen = structure(1 + noise[0], 1 + 0.1 * particles + noise[1], bad)
    assert abs(unseen.correlation) < 0.2
    assert unseen.excess == pytest.approx(1, abs=0.2)
    assert structure(np.ones((40, 40)), np.ones((40, 40)), np.zeros((40, 40), bool)) == (0, 0)


def test_histograms_are_unlike_where_variances_of_lines_differ() -> None:
    rng = np.random.default_rng(5)
    bad = np.zeros((300, 300), bool)
    lines = 1 + 0.1 * rng.normal(size=300)
    assert histogram_spread(rng.poisson(40 * lines, (300, 300)).astype(float), bad) == pytest.approx(1, abs=0.4)
    wide = rng.normal(40, 6 * (1 + 0.5 * (np.arange(300) > 200)), (300, 300))
    assert histogram_spread(wide, bad) > 10
    assert histogram_spread(np.full((20, 20), 3.0), bad[:20, :20]) == 1
