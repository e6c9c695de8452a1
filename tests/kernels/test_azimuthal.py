"""Bins and clipping against NumPy written from the rules, one pixel after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mrczdask.kernels import azimuthal

DUMMY = 4e9
NONE = np.empty(0, np.float32)


def clip(
    raw: NDArray[Any], edges: NDArray[Any], norm: NDArray[Any], dark: NDArray[Any] = NONE, **how: Any
) -> tuple[NDArray[Any], ...]:
    n_bins = len(edges) - 1
    out = np.empty(n_bins, np.float32), np.empty(n_bins, np.float32), np.empty(n_bins, np.int32)
    how = {"dummy": DUMMY, "delta": 0.0, "model": azimuthal.POISSON, "cutoff": 0.0, "cycles": 5} | how
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
    raw[::150] += 300
    norm, dark = rng.uniform(0.5, 1.5, (2, 3000)).astype(np.float32)
    found = clip(raw, edges, norm, dark, model=model, cutoff=cutoff)
    for k, part in enumerate(map(slice, edges[:-1], edges[1:])):
        wanted = by_the_rule(*(a[part] for a in (raw, norm, dark)), model, cutoff, 5)
        np.testing.assert_allclose([column[k] for column in found], wanted, rtol=1e-6)


@pytest.mark.parametrize("huge", [1e12, 1e30, np.inf])
def test_huge_pixels_leave_nothing_behind(huge: float) -> None:
    """Sums that lost a huge pixel are those of the others: to 1e-6, though a float64 has 16 digits."""
    raw = np.random.default_rng(0).poisson(5, 1000).astype(np.float32)
    norm, dark = np.full(1000, 0.7, np.float32), np.full(1000, 0.5, np.float32)
    raw[[3, 400]] = huge, 300
    for dark_of in (dark, NONE):
        found = clip(raw, np.array([0, 1000]), norm, dark_of)
        with np.errstate(invalid="ignore"):
            wanted = by_the_rule(raw, norm, dark_of if dark_of.size else np.zeros(1000, np.float32), 0, 0.0, 5)
        assert wanted[2] < 1000
        np.testing.assert_allclose([column[0] for column in found], wanted, rtol=1e-6)


def test_slots_sort_by_bin_then_by_pixel() -> None:
    bins = np.array([2, 0, -1, 2, 1, 0, 7], np.int32)
    slots, edges = azimuthal.bin_slots(bins, 4)
    assert slots.tolist() == [3, 0, 5, 4, 2, 1, 5]
    assert edges.tolist() == [0, 2, 3, 5, 5]
    out = np.zeros(6, np.float32)
    azimuthal.to_bins(np.arange(7, dtype=np.uint16), slots, out)
    assert out[:5].tolist() == [1, 5, 4, 0, 3]


def test_invalid_pixels_are_out_but_count_for_chauvenet() -> None:
    """Twelve pixels of 1 and one of 4: dropped where 13 count, kept where 1000 invalid ones join them."""
    raw, norm = np.ones(1013, np.float32), np.ones(1013, np.float32)
    raw[12], raw[13:600], raw[600:700], norm[700:800], norm[800:] = 4, DUMMY, np.nan, 0, np.nan
    few = clip(raw[:13], np.array([0, 13]), norm[:13])
    many = clip(raw, np.array([0, 1013]), norm)
    assert (few[0][0], few[2][0]) == (1, 12)
    assert (many[0][0], many[2][0]) == (np.float32(16 / 13), 13)


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
