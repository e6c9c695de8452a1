"""Rings with wild pixels: their background is that of the others, whatever the model, the share and the values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mrczdask.kernels import azimuthal
from mrczdask.kernels.restart import restarted
from mrczdask.kernels.valid import FINITE

MODELS = ("poisson", "azimuthal", "hybrid", "count")
NONE = np.empty(0, np.float32)
WILD = (6e4, 65535.0, 2.0**31, 2.0**32 - 1, 1.8e19, 1e30, 3e38)


def clipped(raw: NDArray[Any], norm: NDArray[Any], dark: NDArray[Any], model: str, cycles: int = 5) -> list[float]:
    out = np.empty(1, np.float32), np.empty(1, np.float32), np.empty(1, np.int32)
    edges = np.array([0, raw.size])
    number = MODELS.index(model)
    azimuthal.clip_background(raw.astype(np.float32), edges, norm, dark, FINITE, number, 0.0, cycles, *out)
    return [float(column[0]) for column in out]


@settings(max_examples=60, deadline=None)
@given(
    model=st.sampled_from(MODELS),
    mean=st.sampled_from([1.0, 3.4, 20.0, 400.0, 3000.0]),
    n=st.integers(60, 4000),
    share=st.floats(0.0, 0.05),
    values=st.lists(st.sampled_from([*WILD, np.nan, np.inf, -np.inf]), min_size=1, max_size=5),
    has_norm=st.booleans(),
    has_dark=st.booleans(),
    seed=st.integers(0, 99),
)
def test_wild_pixels_move_no_background(
    model: str, mean: float, n: int, share: float, values: list[float], has_norm: bool, has_dark: bool, seed: int
) -> None:
    """To five standard errors, and what the limits cut off at few counts."""
    rng = np.random.default_rng(seed)
    norm = rng.uniform(0.8, 1, n).astype(np.float32) if has_norm else np.ones(n, np.float32)
    dark = rng.uniform(0, 2, n).astype(np.float32) if has_dark else NONE
    raw = rng.poisson(mean * norm + (dark if has_dark else 0)).astype(np.float64)
    hot = rng.permutation(n)[: int(share * n) + 1]
    raw[hot] = rng.choice(values, hot.size)
    average, deviation, kept = clipped(raw, norm, dark, model)
    truth = np.sqrt(mean + 1)
    assert abs(average - mean) <= 5 * truth * np.sqrt(2 / n) + 0.08 * truth
    assert 0.6 * truth < deviation < 1.6 * truth
    assert 0.85 * n <= kept <= n


@pytest.mark.parametrize("model", MODELS)
def test_rings_without_wild_pixels_keep_the_published_numbers(model: str) -> None:
    """Weak peaks are dropped as published: a restart would keep some pixels more."""
    rng = np.random.default_rng(0)
    raw = rng.poisson(20, 5000).astype(np.float32)
    raw[:50] += 60
    ones = np.ones(5000, np.float32)
    found = clipped(raw, ones, NONE, model)
    assert found[0] == pytest.approx(20, rel=0.01)
    if model == "poisson":
        b = raw.astype(float)
        for _ in range(5):
            limit = np.sqrt(2 * np.log(b.size / np.sqrt(2 * np.pi))) * np.sqrt(b.mean())
            b = b[np.abs(b - np.float32(b.mean())) <= np.float32(limit)]
        assert found == [np.float32(b.mean()), np.float32(np.sqrt(b.mean())), b.size]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("ring", [[3.0], [0.0, 0.0], [-5.0] * 30, [10.0] * 20 + [100.0] * 20, [1e30] * 40, [2.5] * 11])
def test_a_ring_with_valid_pixels_has_a_background(model: str, ring: list[float]) -> None:
    """Of those of its own pixels, and no pixel left only where the limits leave none of a few."""
    raw = np.array(ring, np.float32)
    norm = np.full(raw.size, 0.7, np.float32)
    average, deviation, kept = clipped(raw, norm, NONE, model)
    assert raw.min() * 0.99 <= average * 0.7 <= raw.max() * 1.01 or raw.min() * 1.01 <= average * 0.7
    assert np.isfinite(deviation)
    assert kept > 0 or raw.size < 16


def test_nothing_is_clipped_in_no_cycle() -> None:
    raw = np.full(100, 3.0, np.float32)
    raw[5] = 60_000
    for model in MODELS:
        assert clipped(raw, np.ones(100, np.float32), NONE, model, cycles=0)[0] == pytest.approx(raw.mean())


def test_no_pixel_gives_no_number() -> None:
    empty = np.empty(0, np.float32)
    mean, std, kept = restarted(empty, empty, empty, 0, azimuthal.POISSON, 0.0)
    assert np.isnan([mean, std]).all()
    assert kept == 0
