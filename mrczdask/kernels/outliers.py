"""Outlier pixels of the sum of a movie: by the false discovery rate, and by the cumulative histogram."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, ndtr, ndtri

from mrczdask.kernels.local_level import RADIUS, box_sums, median_levels

GOOD: Final = 0
HOT: Final = 1
DEAD: Final = 2
BINS: Final = 512
"""Bins of a histogram that is reported."""

_MAD: Final = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
_FINE: Final = 1 << 16
_FINE_STEP: Final = 1 / 1024
"""Histogram from which median and MAD of deviations are read: +-32 standard deviations in steps of 0.001."""
_LEAST_NOISE: Final = 0.01
"""Standard deviation of stabilised counts below which an image counts as free of noise: of Poisson counts it is 1."""
_SHARPEST_STEP: Final = 0.1
"""Finest step, in standard deviations, of the levels whose median is taken: the mean of 81 medians smooths it."""
_TAIL: Final = 2.0
"""Deviations below this are not searched for outliers: among Poisson counts there are always more good ones."""
_WIDEST: Final = 16.0
"""Deviations that the reported histogram spans."""
_BOX: Final = (2 * RADIUS + 1) ** 2

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
_SPECTRUM: Final = 1 << 20
"""Range of the integers of an image up to which each of them is counted for itself."""

Image = NDArray[Any]


@dataclass(frozen=True)
class Outliers:
    """What was found in one image.

    `kind` (y, x) uint8: GOOD, HOT, DEAD; `weight` (y, x) float32, or None: 0 in the outliers, 1 elsewhere.
    Thresholds in standard deviations, NaN for none. `edges`, `counts`, `residual` (BINS): right edges of the bins in
    standard deviations, pixels in them, and model less observed cumulative histogram, in standard deviations.
    """

    kind: NDArray[np.uint8]
    weight: NDArray[np.float32] | None
    threshold_hot: float
    threshold_dark: float
    mu: float
    sigma: float
    edges: NDArray[Any]
    counts: NDArray[Any]
    residual: NDArray[Any]


def deviations(electrons: Image, bad: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Deviation of each pixel from the local level, in robust standard deviations of the whole image.

    A = 2 sqrt(max(S, 0) + 3/8), level = 9 x 9 mean of the 9 x 9 median, z = (A - level - median) / (1.4826 MAD).
    """
    stabilised = _stabilised(np.ascontiguousarray(electrons))
    if not stabilised.size:
        return stabilised
    low, high, middle = _span(stabilised)
    step = max((high - low) / 255, _SHARPEST_STEP)
    low = max(low, middle - 127.5 * step)
    levels = median_levels(_quantised(stabilised, low, step), int(np.clip((middle - low) / step, 0, 255)))
    counts = _subtract_level(stabilised, box_sums(levels), np.float32(low), np.float32(step), _good(bad, stabilised))
    total = counts.sum()
    median = _quantile(counts, total / 2)
    mad = _quantile(_folded(counts, median), total / 2) - 0.5
    deviation = max(_MAD * mad * _FINE_STEP, _LEAST_NOISE)
    shift = (median - _FINE / 2) * _FINE_STEP
    _rescale(stabilised, np.float32(shift), np.float32(1 / deviation))
    return stabilised


def _good(bad: NDArray[np.bool_] | None, image: Image) -> NDArray[np.bool_]:
    return np.broadcast_to(np.True_, image.shape).copy() if bad is None else ~bad


@njit(nogil=True, cache=True)
def _stabilised(electrons: Image) -> NDArray[np.float32]:
    out = np.empty(electrons.shape, np.float32)
    for y in range(electrons.shape[0]):
        for x in range(electrons.shape[1]):
            value = np.float32(electrons[y, x])
            out[y, x] = np.float32(2) * np.sqrt(max(value, np.float32(0)) + np.float32(0.375))
    return out


def _span(stabilised: NDArray[np.float32]) -> tuple[float, float, float]:
    """The range in which local levels may lie, and the median, from a sample of the pixels."""
    lines = max(stabilised.shape[0] // 256, 1)
    low, q1, middle, q3, high = np.nanquantile(stabilised[::lines], [0.02, 0.25, 0.5, 0.75, 0.98]).tolist()
    margin = 4 * max((q3 - q1) / 1.349, 0.25)  # 1.349 standard deviations lie between the quartiles
    return low - margin, high + margin, middle


@njit(nogil=True, cache=True)
def _quantised(values: NDArray[np.float32], low: float, step: float) -> NDArray[np.uint8]:
    out = np.empty(values.shape, np.uint8)
    offset, scale = np.float32(low), np.float32(1 / step)
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            out[y, x] = np.uint8(min(max((values[y, x] - offset) * scale + np.float32(0.5), 0), 255))
    return out


@njit(nogil=True, cache=True)
def _subtract_level(
    values: NDArray[np.float32], sums: NDArray[np.int32], low: Any, step: Any, good: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Take the level from the values; return the fine histogram of what is left of the good pixels."""
    counts = np.zeros(_FINE, np.int64)
    scale = np.float32(step / _BOX)
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            left = values[y, x] - (low + scale * np.float32(sums[y, x]))
            values[y, x] = left
            if good[y, x]:
                place = left * np.float32(1 / _FINE_STEP) + np.float32(_FINE / 2)
                counts[int(min(max(place, np.float32(0)), np.float32(_FINE - 1)))] += 1
    return counts


@njit(nogil=True, cache=True)
def _rescale(values: NDArray[np.float32], shift: Any, scale: Any) -> None:
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            values[y, x] = (values[y, x] - shift) * scale


def _quantile(counts: NDArray[np.int64], rank: float) -> float:
    """Place in a histogram below which `rank` values lie, within its bin by interpolation."""
    below = np.cumsum(counts)
    k = int(np.searchsorted(below, rank))
    if k == len(counts) or not counts[k]:
        return float(k)
    return k + (rank - (below[k] - counts[k])) / counts[k]


def _folded(counts: NDArray[np.int64], centre: float) -> NDArray[np.int64]:
    """Histogram of the distances of the middles of the bins from a place; bin 0 holds distances up to 1/2."""
    distance = np.rint(np.abs(np.arange(len(counts)) + 0.5 - centre)).astype(np.int64)
    return np.bincount(distance, weights=counts, minlength=1).astype(np.int64)


def discovery_threshold(tail: NDArray[np.floating], n: int, q: float) -> float:
    """Smallest t with n Phi(-t) / (number of deviations > t) < q, NaN where there is none.

    Benjamini and Hochberg, J. R. Statist. Soc. B 57 (1995) 289-300. `tail`: the deviations above some value.
    """
    ordered = np.sort(tail)[::-1].astype(float)
    found = np.arange(1, len(ordered) + 1)
    passed = np.flatnonzero(n * ndtr(-ordered) < q * found)
    return float(ordered[passed[-1]]) if len(passed) else float("nan")


def find_by_fdr(electrons: Image, q: float, bad: NDArray[np.bool_] | None = None) -> Outliers:
    """Outliers at a false discovery rate q in each tail; pixels in `bad` are not counted."""
    z = deviations(electrons, bad)
    n = z.size if bad is None else int(z.size - np.count_nonzero(bad))
    kept = z if bad is None else z[~bad]
    hot = discovery_threshold(kept[kept > _TAIL], n, q)
    dark = -discovery_threshold(-kept[kept < -_TAIL], n, q)
    kind = _classified(z, hot, dark)
    edges = np.linspace(-_WIDEST, _WIDEST, BINS + 1)[1:]
    inside = _histogram(kept.ravel(), np.ones(1, np.int64), -_WIDEST, 2 * _WIDEST / BINS)
    cdf = np.cumsum(inside)[1:-1] / max(n, 1)
    return Outliers(kind, None, hot, dark, 0.0, 1.0, edges, inside[1:-1].astype(float), _residual(cdf, edges, n))


def _classified(z: NDArray[np.float32], hot: float, dark: float) -> NDArray[np.uint8]:
    kind = np.zeros(z.shape, np.uint8)
    kind[z >= hot] = HOT  # a comparison with NaN is false: no threshold, no outlier
    kind[z <= dark] = DEAD
    return kind


def _residual(cdf: NDArray[Any], x: NDArray[Any], n: int) -> NDArray[Any]:
    """r = x - z where the cumulative histogram is neither empty nor full, else NaN ([M], eqs. 2 to 4)."""
    ends = (cdf <= 0.5 / max(n, 1)) | (cdf >= 1 - 0.5 / max(n, 1))
    return np.asarray(x - ndtri(np.where(ends, np.nan, cdf)))


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
    residual = _residual(cdf, x, n)
    hot = _tail_zero(x, residual, 1, DEFAULT_HOT)
    dark = _tail_zero(x, residual, -1, DEFAULT_DARK)
    kind, weight = _weights(((image - mu) / sigma).astype(np.float32), hot, dark, k, rho)
    return Outliers(kind, weight, hot, dark, mu, sigma, x, inside[1:-1].astype(float), residual)


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
