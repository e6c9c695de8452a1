"""Bins and clipping against NumPy written from the rules, one pixel after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mrczdask.kernels import azimuthal
from mrczdask.kernels.valid import FINITE

DUMMY = 4e9
BOUNDS = FINITE._replace(hole_low=np.float32(DUMMY), hole_high=np.float32(DUMMY))
NONE = np.empty(0, np.float32)


def clip(
    raw: NDArray[Any], edges: NDArray[Any], norm: NDArray[Any], dark: NDArray[Any] = NONE, **how: Any
) -> tuple[NDArray[Any], ...]:
    n_bins = len(edges) - 1
    out = np.empty(n_bins, np.float32), np.empty(n_bins, np.float32), np.empty(n_bins, np.int32)
    how = {"bounds": BOUNDS, "model": azimuthal.POISSON, "cutoff": 0.0, "cycles": 5} | how
    azimuthal.clip_background(raw, edges, norm, dark, *how.values(), *out)
    return out


def by_the_rule(raw: NDArray[Any], w: NDArray[Any], dark: NDArray[Any], model: int, cutoff: float, cycles: int) -> Any:
    """Section by section as published: the one-pass variance, Chauvenet as the floor, hybrid at the end."""
    b, variance = ((raw - dark) / w).astype(np.float64), np.maximum(1, raw).astype(np.float64)
    w = w.astype(np.float64)

    def moments(kind: int) -> tuple[float, float]:
        if not b.size:
            return np.nan, np.nan
        if kind == azimuthal.POISSON:
            return float((b * w).sum() / w.sum()), float(np.sqrt(variance.sum() / (w**2).sum()))
        mean, omega, spread = 0.0, 0.0, 0.0
        for pixel, weight in zip(b.tolist(), w.tolist(), strict=True):
            omega += weight
            before = mean
            mean += (pixel - mean) * weight / omega
            spread += weight**2 * (pixel - before) * (pixel - mean)
        return mean, float(np.sqrt(spread / (w**2).sum()))

    kind = azimuthal.AZIMUTHAL if model == azimuthal.HYBRID else model
    mean, std = moments(kind)
    for _ in range(cycles):
        limit = max(cutoff, np.sqrt(2 * np.log(max(3, b.size) / np.sqrt(2 * np.pi)))) * std
        good = np.abs(b - np.float32(mean)) <= np.float32(limit)
        if good.all():
            break
        b, w, variance = b[good], w[good], variance[good]
        mean, std = moments(kind)
    return mean, moments(azimuthal.POISSON)[1] if model == azimuthal.HYBRID else std, b.size


@pytest.mark.parametrize("model", [azimuthal.POISSON, azimuthal.AZIMUTHAL, azimuthal.HYBRID])
@pytest.mark.parametrize("cutoff", [0.0, 4.0])
def test_clipping_follows_the_rule(model: int, cutoff: float) -> None:
    rng = np.random.default_rng(model)
    edges = np.array([0, 900, 905, 3000])
    raw = rng.poisson(np.repeat([2.0, 30.0, 400.0], np.diff(edges))).astype(np.float32)
    raw[::150] += 60
    norm, dark = rng.uniform(0.5, 1.5, (2, 3000)).astype(np.float32)
    found = clip(raw, edges, norm, dark, model=model, cutoff=cutoff)
    for k, part in enumerate(map(slice, edges[:-1], edges[1:])):
        wanted = by_the_rule(*(a[part] for a in (raw, norm, dark)), model, cutoff, 5)
        if not wanted[2]:  # a few pixels, of which the rule leaves none: something near the most of them, uncounted
            wanted = np.median(((raw - dark) / norm)[part]), found[1][k], 0
            np.testing.assert_allclose([column[k] for column in found], wanted, rtol=0.3)
            continue
        np.testing.assert_allclose([column[k] for column in found], wanted, rtol=1e-6)


@pytest.mark.parametrize("huge", [1e12, 1e30, 3e38, np.inf])
def test_huge_pixels_leave_nothing_behind(huge: float) -> None:
    """As if the pixel were not there: to 1e-6, though a float64 has 16 digits."""
    raw = np.random.default_rng(0).poisson(5, 1000).astype(np.float32)
    norm, dark = np.full(1000, 0.7, np.float32), np.full(1000, 0.5, np.float32)
    raw[[3, 400]] = huge, 300
    others = raw < 300
    for dark_of in (dark, NONE):
        found = clip(raw, np.array([0, 1000]), norm, dark_of)
        rest = dark_of[others] if dark_of.size else np.zeros(998, np.float32)
        wanted = by_the_rule(raw[others], norm[others], rest, 0, 0.0, 5)
        np.testing.assert_allclose([column[0] for column in found], wanted, rtol=1e-6)


def test_slots_sort_by_bin_then_by_pixel() -> None:
    bins = np.array([2, 0, -1, 2, 1, 0, 7], np.int32)
    slots, edges = azimuthal.bin_slots(bins, 4)
    assert slots.tolist() == [3, 0, 5, 4, 2, 1, 5]
    assert edges.tolist() == [0, 2, 3, 5, 5]
    out = np.zeros(6, np.float32)
    azimuthal.to_bins(np.arange(7, dtype=np.uint16), slots, out)
    assert out[:5].tolist() == [1, 5, 4, 0, 3]


@pytest.mark.parametrize("model", range(4))
@pytest.mark.parametrize("has_dark", [False, True])
def test_invalid_pixels_are_as_if_they_were_not_there(model: int, has_dark: bool) -> None:
    """In the number of Chauvenet's criterion too, and to the last bit."""
    rng = np.random.default_rng(model)
    raw, norm = rng.poisson(6, 1400).astype(np.float32), rng.uniform(0.5, 1.5, 1400).astype(np.float32)
    raw[rng.integers(0, 1400, 30)] = 60
    bad = rng.random(1400) < 0.5
    marks = rng.integers(0, 5, 1400)
    for mark, value in enumerate((DUMMY, np.nan, np.inf)):
        raw[bad & (marks == mark)] = value
    norm[bad & (marks == 3)], norm[bad & (marks == 4)] = 0, np.nan
    dark = rng.uniform(0, 2, 1400).astype(np.float32) if has_dark else NONE
    good = clip(raw[~bad], np.array([0, (~bad).sum()]), norm[~bad], dark[~bad] if has_dark else NONE, model=model)
    for one, other in zip(clip(raw, np.array([0, 1400]), norm, dark, model=model), good, strict=True):
        np.testing.assert_array_equal(one, other)


def test_empty_bins_and_frames() -> None:
    for model in range(4):
        average, deviation, count = clip(
            np.full(5, DUMMY, np.float32), np.array([0, 0, 5]), np.ones(5, np.float32), model=model
        )
        assert np.isnan(average).all()
        assert np.isnan(deviation).all()
        assert not count.any()
        clip(NONE, np.zeros(1, np.int64), NONE, model=model)
    slots, edges = azimuthal.bin_slots(np.empty(0, np.int32), 3)
    assert slots.size == 0
    assert edges.tolist() == [0] * 4
