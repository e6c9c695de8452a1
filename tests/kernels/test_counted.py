"""Limits of counts against SciPy's distribution; the background they leave against the truth at any count."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mrczdask.kernels.counted import clip_counts, normal_tail, poisson_limits

ALIKE = 0.02
"""Relative, of the background."""


@pytest.mark.parametrize("z", [1.0, 3.0, 4.0, 6.0])
def test_limits_are_quantiles(z: float) -> None:
    tail = stats.norm.sf(z)
    assert normal_tail(z) == pytest.approx(tail, rel=1e-12)
    for mu in [1e-6, 0.01, 0.045, 0.3, 1.0, 2.5, 7.7, 30.0, 63.9]:
        lo, hi, share = poisson_limits(mu, z)
        assert stats.poisson.sf(hi, mu) <= tail * (1 + 1e-9)
        assert hi == 0 or stats.poisson.sf(hi - 1, mu) > tail
        assert lo == 0 or stats.poisson.cdf(lo - 1, mu) <= tail
        assert stats.poisson.cdf(lo, mu) > tail
        if hi == 0:  # nothing but zeros: no share gives the mean again
            assert share == 1
            continue
        k = np.arange(lo, hi + 1)
        inside = stats.poisson.pmf(k, mu)
        assert share * mu == pytest.approx((k * inside).sum() / inside.sum(), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("z", [2.0, 4.0])
def test_limits_of_large_means(z: float) -> None:
    """The rate at which a background pixel is dropped is that stated, to the step of one count."""
    for mu in [64.1, 100.0, 1e3, 1e6]:
        lo, hi, share = poisson_limits(mu, z)
        assert share == 1
        assert stats.poisson.sf(hi + 1, mu) <= stats.norm.sf(z) <= stats.poisson.sf(hi - 2, mu)
        assert stats.poisson.cdf(lo - 2, mu) <= stats.norm.sf(z) <= stats.poisson.cdf(lo + 1, mu)


@pytest.mark.parametrize("mean", [0.01, 0.045, 0.1, 0.5, 3.0, 100.0])
@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_background_is_right_at_any_count(mean: float, spread: float) -> None:
    """Bins of 300 pixels, 1 % of them peaks; norms may differ by half."""
    rng = np.random.default_rng(4)
    found, total, dropped = 0.0, 0.0, 0
    bins = int(max(200, 2e6 / (300 * mean**0.5) * (0.1 if mean < 1 else 0.02)))
    for _ in range(bins):
        weight = rng.uniform(1 - spread, 1, 300).astype(np.float32)
        raw = rng.poisson(mean * weight).astype(np.float32)
        raw[:3] += 40 + 10 * mean
        level, _, n = clip_counts(raw, weight, np.zeros(300, np.float32), 300, 0.0, 5)
        found += level
        total += 1
        dropped += 297 - n
    assert found / total == pytest.approx(mean, rel=ALIKE)
    stated = 2 * stats.norm.sf(np.sqrt(2 * np.log(300 / np.sqrt(2 * np.pi))))
    assert dropped / (297 * total) <= stated


def test_deviation_is_that_of_the_expected_counts() -> None:
    rng = np.random.default_rng(1)
    weight, dark = rng.uniform(0.5, 1, 50_000).astype(np.float32), np.full(50_000, 0.2, np.float32)
    raw = rng.poisson(0.05 * weight + dark).astype(np.float32)
    mean, std, _ = clip_counts(raw.copy(), weight.copy(), dark.copy(), 50_000, 0.0, 5)
    assert mean == pytest.approx(0.05, rel=0.1)
    assert std == pytest.approx(np.sqrt((0.05 * weight + dark).sum() / (weight.astype(float) ** 2).sum()), rel=0.02)


def test_small_bins_lose_what_is_wild_alone() -> None:
    for few, kept, mean in (([0, 1, 0, 2, 9], 5, 2.4), ([0, 0, 0, 0, 500], 4, 0.0), ([7, 2], 2, 4.5)):
        raw = np.array(few, np.float32)
        level, _, n = clip_counts(raw, np.ones(len(few), np.float32), np.zeros(len(few), np.float32), len(few), 0.0, 5)
        assert (pytest.approx(level), n) == (mean, kept)
