"""What is known of the background that stays in sparse frames: its law, and its moments without the stored pixels."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mrczdask.kernels.moments import chauvenet
from mrczdask.kernels.noisy import ALIKE, CLIPPED, LARGEST_COUNT
from mrczdask.kernels.places import Places

MEASURED: Final = "azimuthal"
"""The error model whose deviation is the spread that was seen; that of the others is what counts would have."""
CLIPS_COUNTS: Final = (MEASURED, "hybrid")
"""Models that clip counts by their spread, which takes the highest of few."""
FEW_COUNTS: Final = 16.0
"""Mean below which that changes it by some per cent."""
_DARK: Final = 0.05
"""Relative: so much larger than that of counts a deviation of counts is where a dark was subtracted."""
_BY_CHANCE: Final = 4.0
"""Standard errors of a variance."""
_ROUNDS: Final = 30
_LEAST_VARIANCE: Final = 0.2
"""Of the variance of a ring: what its free pixels have at least, as clipping is not known to the pixel."""
_MOST_VARIANCE: Final = 4.0
_TINY: Final = 1e-30


def is_counted(
    level: NDArray[np.float32], spread: NDArray[np.float32], model: str, dtype: np.dtype[Any], places: Places
) -> bool:
    """Whether every ring is one of Poisson counts as they were recorded: mean and variance are one number.

    By the models of counts that is so in integers without a negative mean; floats may have lost a dark, which shows in
    the deviation. By a measured deviation it is so within some per cent, what clipping takes of few counts, and what
    chance makes of the pixels of a ring.
    """
    mean, variance = level.astype(np.float64), spread.astype(np.float64) ** 2
    if not ((mean >= 0) & (mean <= LARGEST_COUNT)).all():
        return False
    if model != MEASURED:
        return dtype.kind in "iu" or bool((variance <= (mean + np.exp(-mean)) * (1 + _DARK)).all())
    if dtype.kind not in "iu":
        return False
    ring = _rings(places, level.shape)
    pixels = np.bincount(ring[ring >= 0], minlength=level.size).reshape(level.shape)
    chance = _BY_CHANCE * np.sqrt((2 + 1 / np.maximum(mean, _TINY)) / np.maximum(pixels, 1))
    least = np.where(mean < FEW_COUNTS, 1 - CLIPPED, 1 - ALIKE) - chance
    return bool(((least * mean <= variance) & (variance <= (1 + ALIKE + chance) * mean)).all())


def whole_counts(level: NDArray[np.float32], spread: NDArray[np.float32], places: Places) -> NDArray[np.float32]:
    """The mean of Poisson counts that have the mean `level` when those beyond Chauvenet's limits are dropped."""
    mean, std = level.astype(np.float64), spread.astype(np.float64)
    highest = np.floor(mean + _limits(places, level.shape).reshape(level.shape) * std)
    found = mean.copy()
    for _ in range(_ROUNDS):
        kept = stats.poisson.cdf(highest, found)
        share = np.divide(stats.poisson.cdf(highest - 1, found), kept, out=np.ones_like(kept), where=kept > 0)
        found = np.where((mean < FEW_COUNTS) & (share > 0.5), mean / np.maximum(share, 0.5), found)
    return found.astype(np.float32)


def free_moments(
    level: NDArray[np.float32],
    spread: NDArray[np.float32],
    stored: tuple[NDArray[Any], NDArray[Any]],
    places: Places,
    norm: NDArray[np.float32],
    limits: tuple[float, float],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and deviation that a normal number has before those that would be picked are drawn again, so that the
    pixels that are not stored have what remains of the moments of their ring.

    Moments are those of the pixels within Chauvenet's limits; of these the stored ones are known.
    """
    n = level.size
    mean, std = level.astype(np.float64).ravel(), spread.astype(np.float64).ravel()
    ring = _rings(places, level.shape)
    pixels = np.bincount(ring[ring >= 0], minlength=n).astype(np.float64)
    index, intensity = stored
    where, value = ring[index], intensity.astype(np.float64) / norm[index]
    reach = _reach(pixels)
    known = where >= 0
    inside = known & (np.abs(value - mean[where]) <= (reach * std)[where])
    beyond = np.bincount(where[known & ~inside], minlength=n)
    counts, seen, squares = (
        np.bincount(where[inside], weights, n) for weights in (None, value[inside], value[inside] ** 2)
    )
    left = np.maximum(pixels - beyond - counts, 1.0)
    whole = np.maximum(pixels - beyond, 1.0)
    centre = (whole * mean - seen) / left
    variance = (whole * (std**2 + mean**2) - squares) / left - centre**2
    odd = ~(np.abs(centre - mean) <= std) | (left < 0.5 * whole)
    centre, variance = np.where(odd, mean, centre), np.where(odd, std**2, variance)
    variance = np.clip(variance, _LEAST_VARIANCE * std**2, std**2)
    noise, cutoff = limits
    top = mean + np.maximum(noise, cutoff * np.hypot(std, noise))
    centre, variance = _before_cut(centre, variance, top, std)
    return centre.reshape(level.shape).astype(np.float32), variance.reshape(level.shape).astype(np.float32)


def _limits(places: Places, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Deviations of Chauvenet's limits for each bin, flat."""
    ring = _rings(places, shape)
    return _reach(np.bincount(ring[ring >= 0], minlength=math.prod(shape)))


def _reach(pixels: NDArray[Any]) -> NDArray[np.float64]:
    return np.array([chauvenet(int(count), 0.0) for count in pixels])


def _rings(places: Places, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """The bin nearest to each pixel, flat; -1 where masked."""
    n_bins = shape[-1]
    valid = np.isfinite(places.radial)
    ring = np.clip(np.rint(np.where(valid, places.radial, 0)), 0, n_bins - 1).astype(np.int64)
    if len(shape) > 1:
        sector = np.rint(np.where(valid, places.azimuthal, 0)).astype(np.int64) % shape[0]
        ring = sector * n_bins + ring
    return np.where(valid, ring, -1)


def _before_cut(
    centre: NDArray[np.float64], variance: NDArray[np.float64], top: NDArray[np.float64], std: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation of normal numbers that have the moments given when those above `top` are left out."""
    mean, spread = centre.copy(), np.sqrt(variance)
    for _ in range(_ROUNDS):
        a = (top - mean) / np.maximum(spread, _TINY)
        ratio = np.exp(stats.norm.logpdf(a) - stats.norm.logcdf(a))
        cut = spread**2 * (1 - a * ratio - ratio**2)
        mean = np.clip(mean + (centre - (mean - spread * ratio)), centre, centre + std)
        grown = np.sqrt(variance / np.maximum(cut, _TINY))
        spread = np.minimum(np.where(cut > 0, spread * np.clip(grown, 0.5, 2.0), spread), _MOST_VARIANCE**0.5 * std)
    return mean, spread
