"""Outlier pixels of the sum of a movie by the fat tails of its cumulative histogram, as published."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, ndtr, pdtrik

from mrczdask.kernels.compiling import njit
from mrczdask.kernels.outliers import BINS, DEAD, GOOD, HOT, Image, Outliers, residual_of

_MAD: Final = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
DEFAULT_HOT: Final = 3.25
DEFAULT_DARK: Final = -4.0
"""Onsets of the fat tails in [M], Fig. 5: used where a tail cannot be fitted."""
_LIMIT: Final = 0.5
"""Residual above which a bin belongs to a fat tail ([M], step 4)."""
_RANGE: Final = (1.0, 12.0)
FULL_WEIGHT: Final = 1e-4
"""A pixel whose weight differs from 1 by less keeps its value."""
_SURE: Final = 12.0
"""expit(12)**2 is 1 - 1.2e-5, above 1 - FULL_WEIGHT."""
_NORMAL: Final = 10.0
"""Electrons per pixel below which counts are far from normal, 4 standard deviations being more than there are."""
_POISSON_TAIL: Final = 1e-4
_SPECTRUM: Final = 1 << 20
"""Range of the integers of an image up to which each of them is counted for itself."""


@njit(nogil=True, cache=True)
def _histogram(values: Any, times: NDArray[np.int64], first: float, width: float) -> NDArray[np.int64]:
    """Counts of BINS bins, with what lies left of them before and what lies right of them after.

    A value counts `times`, of which there is one for each or one for all.
    """
    counts = np.zeros(BINS + 2, np.int64)
    for k in range(values.size):
        place = np.floor((values[k] - first) / width)
        counts[int(min(max(place, -1.0), float(BINS))) + 1] += times[k if times.size > 1 else 0]
    return counts


def find_by_cdf(electrons: Image, k: float, rho: float, bad: NDArray[np.bool_] | None = None) -> Outliers:
    """Outliers by the fat tails of the cumulative histogram, with logistic weights ([M], section 4)."""
    spectrum = _spectrum(electrons, bad)
    if spectrum is None:
        return _search_tails(electrons, electrons[~bad] if bad is not None else electrons.ravel(), None, k, rho)
    low, counts = spectrum
    levels = np.arange(low, low + len(counts))
    found = _search_tails(levels, levels, counts, k, rho)
    assert found.weight is not None
    kind, weight = np.empty(electrons.shape, np.uint8), np.empty(electrons.shape, np.float32)
    _look_up(electrons.astype(np.int64, copy=False), low, found.kind, found.weight, kind, weight)
    return replace(found, kind=kind, weight=weight)


def _spectrum(electrons: Image, bad: NDArray[np.bool_] | None) -> tuple[int, NDArray[np.int64]] | None:
    """Least value of an image of integers and the number of good pixels of each value; None where it is too long."""
    if electrons.dtype.kind not in "iu" or not electrons.size:
        return None
    low, high = int(electrons.min()), int(electrons.max())
    if high - low >= _SPECTRUM or high >= 1 << 62:
        return None
    none = np.zeros((1, 1), np.bool_)
    return low, _counted(electrons.astype(np.int64, copy=False), low, high - low + 1, none if bad is None else bad)


@njit(nogil=True, cache=True)
def _counted(image: NDArray[np.int64], low: int, n: int, bad: NDArray[np.bool_]) -> NDArray[np.int64]:
    counts = np.zeros(n, np.int64)
    masked = bad.shape == image.shape
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            if not (masked and bad[y, x]):
                counts[image[y, x] - low] += 1
    return counts


@njit(nogil=True, cache=True)
def _look_up(image: NDArray[np.int64], low: int, kinds: Any, weights: Any, kind: Any, weight: Any) -> None:
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            place = image[y, x] - low
            kind[y, x] = kinds[place]
            weight[y, x] = weights[place]


def _search_tails(image: Image, values: Image, counts: NDArray[np.int64] | None, k: float, rho: float) -> Outliers:
    """Outliers of an image by the histogram of values, each of which counts once, or as often as given."""
    n = max(values.size if counts is None else int(counts.sum()), 1)
    mean = float(values.mean() if counts is None else (values * counts).sum() / n) if values.size else 0.0
    spread = max(np.sqrt(max(mean, 0.0)), _MAD * _median_distance(values, counts), 1e-6)
    first, width = _bins(values, mean, spread)
    inside = _histogram(values, np.ones(1, np.int64) if counts is None else counts, first, width)
    edges, cdf = first + width * np.arange(1, BINS + 1), np.cumsum(inside)[1:-1] / n
    mu, sigma = _fit_normal(edges, cdf, mean, spread)
    x = (edges - mu) / sigma
    residual = residual_of(cdf, x, n)
    hot = _tail_zero(x, residual, 1, DEFAULT_HOT)
    dark = _tail_zero(x, residual, -1, DEFAULT_DARK)
    if mean < _NORMAL:
        hot, dark = _beyond_poisson(mean, mu, sigma, rho, hot, dark)
    kind, weight = _weights(((image - mu) / sigma).astype(np.float32), hot, dark, k, rho)
    return Outliers(kind, weight, hot, dark, mu, sigma, x, inside[1:-1].astype(float), residual)


def _beyond_poisson(mean: float, mu: float, sigma: float, rho: float, hot: float, dark: float) -> tuple[float, float]:
    """Thresholds that spare what Poisson counts reach: their tails are not those of the normal distribution."""
    level = max(mean, 0.0)
    highest = int(pdtrik(1 - _POISSON_TAIL, level)) + 1.5
    lowest = -0.5 if np.exp(-level) > _POISSON_TAIL else 0.5
    return max(hot, (highest - mu) / sigma / rho), min(dark, (lowest - mu) / sigma / rho)


def _weights(
    u: NDArray[np.float32], hot: float, dark: float, k: float, rho: float
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Kind and weight by deviation ([M], eq. 6), evaluated where it is not surely 1."""
    kind, weight = np.zeros(u.shape, np.uint8), np.ones(u.shape, np.float32)
    margin = _SURE / k
    unsure = np.flatnonzero(~((u > rho * dark + margin) & (u < rho * hot - margin)))
    away = u.ravel()[unsure]
    share = expit(k * (away - rho * dark)) * expit(-k * (away - rho * hot))
    share[share > 1 - FULL_WEIGHT] = 1
    weight.ravel()[unsure] = share
    kind.ravel()[unsure] = np.where(share < 0.5, np.where(away > 0, HOT, DEAD), GOOD)
    return kind, weight


def _median_distance(values: Image, counts: NDArray[np.int64] | None) -> float:
    """Median distance from the median."""
    if not values.size:
        return 0.0
    if counts is None:
        return float(np.median(np.abs(values - np.median(values))))
    distance = np.abs(values - _counted_median(values, counts))
    order = np.argsort(distance)
    return _counted_median(distance[order], counts[order])


def _counted_median(ordered: NDArray[Any], counts: NDArray[np.int64]) -> float:
    """Median of values in their order, each of which counts as often as given; 0 for none."""
    below = np.cumsum(counts)
    if not below[-1]:
        return 0.0
    middle = np.searchsorted(below, [(below[-1] - 1) // 2, below[-1] // 2], side="right")
    return float(ordered[middle].mean())


def _bins(values: Image, mean: float, spread: float) -> tuple[float, float]:
    """Left edge of the first of BINS bins over mean +- 8 spread, and their width.

    Bins of integers are a whole number of counts wide and centred on them.
    """
    sample = values[:: max(values.size >> 16, 1)]
    if np.array_equal(np.rint(sample), sample):
        width = max(int(np.ceil(16 * spread / BINS)), 1)
        return float(np.rint(mean)) - width * (BINS // 2) - 0.5, float(width)
    return mean - 8 * spread, 16 * spread / BINS


def _fit_normal(edges: NDArray[Any], cdf: NDArray[Any], mean: float, spread: float) -> tuple[float, float]:
    """mu and sigma of the normal CDF nearest in the L1 norm ([M], eq. 1), within 0.5 and 0.7..1.3 spread."""

    def distance(p: NDArray[np.float64]) -> float:
        return float(np.abs(cdf - ndtr((edges - mean - p[0] * spread) / (p[1] * spread))).sum())

    bounds = [(-0.5, 0.5), (0.7, 1.3)]
    best = minimize(distance, [0.0, 1.0], method="Nelder-Mead", bounds=bounds, options={"xatol": 1e-5, "fatol": 1e-9})
    return mean + float(best.x[0]) * spread, float(best.x[1]) * spread


def _tail_zero(x: NDArray[Any], residual: NDArray[Any], side: int, default: float) -> float:
    """Where the line through a fat tail of the residual is zero ([M], eq. 5), or the default."""
    with np.errstate(invalid="ignore"):
        tail = (side * residual > _LIMIT) & (side * x > 0)
    if np.count_nonzero(tail) < 3:
        return default
    slope, offset = np.polyfit(x[tail], residual[tail], 1)
    zero = -offset / slope if slope > 0 else np.nan
    return float(zero) if _RANGE[0] < side * zero < _RANGE[1] else default
