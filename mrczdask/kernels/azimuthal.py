"""Averages and deviations over radial bins, with sigma clipping ([K], equations 2 to 6).

A frame is scattered once into the order of its bins, which is four times as fast as gathering it; clipping then walks
through sequential memory. Accumulators are float64. In bin order, the valid pixels are sorted by bin and, within a bin,
by index: `slots` holds the place of each pixel of a frame in it, and `edges` the first place of each bin.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit
from mrczdask.kernels.counted import clip_counts
from mrczdask.kernels.moments import AZIMUTHAL, COUNT, HYBRID, POISSON, chauvenet, moments, poisson_moments
from mrczdask.kernels.restart import Found, better, is_raised, restarted
from mrczdask.kernels.valid import Bounds, is_count

__all__ = ["AZIMUTHAL", "COUNT", "HYBRID", "POISSON"]

SETTLED: Final = 0
RAISED: Final = 1
"""Some cycle began so high above where the last one ends that it dropped pixels of the background."""
UNSETTLED: Final = 2
"""The last cycle still dropped some, none is left, or they lie as if a few wild ones were among them."""
_RAISED: Final = 0.7
"""Of the limits: below the mean by less there are pixels of the background, 3 of 1000 in a ring of thousands."""
_RUN: Final = 128
"""Pixels that are compared at once: few of as many are dropped."""
_MOST_TAKEN_OUT: Final = 1e6
"""If the sums become smaller than by this, they are made anew: of 53 bits too few are left."""


@njit(nogil=True, cache=True)
def good_span(radius: NDArray[np.float64], bad: NDArray[np.bool_]) -> tuple[float, float]:
    """Least and largest radius of the pixels that are not bad."""
    least, largest = np.inf, -np.inf
    flat, out_of_use = radius.reshape(-1), bad.reshape(-1)
    for pixel in range(flat.size):
        if not out_of_use[pixel]:
            least, largest = min(least, flat[pixel]), max(largest, flat[pixel])
    return least, largest


@njit(nogil=True, cache=True, error_model="numpy")
def bin_numbers(radius: NDArray[np.float64], bad: NDArray[np.bool_], low: float, step: float) -> NDArray[np.int32]:
    """Flat numbers of the bins that start at `low`, -1 for bad pixels."""
    out = np.empty(radius.size, np.int32)
    flat, out_of_use = radius.reshape(-1), bad.reshape(-1)
    for pixel in range(flat.size):
        number = np.int32(math.floor((flat[pixel] - low) / step))
        out[pixel] = np.int32(-1) if out_of_use[pixel] else number
    return out


@njit(nogil=True, cache=True)
def bin_slots(bins: NDArray[np.int32], n_bins: int) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """(slots, edges) of flat bin numbers; pixels of a negative one share the slot behind the last."""
    edges = np.zeros(n_bins + 1, np.int64)
    for bin_ in bins:
        if 0 <= bin_ < n_bins:
            edges[bin_ + 1] += 1
    for k in range(n_bins):
        edges[k + 1] += edges[k]
    slots = np.full(bins.size, edges[n_bins], np.uint32)
    place = edges[:-1].copy()
    for pixel in range(bins.size):
        bin_ = bins[pixel]
        if 0 <= bin_ < n_bins:
            slots[pixel] = place[bin_]
            place[bin_] += 1
    return slots, edges


@njit(nogil=True, cache=True)
def to_bins(image: NDArray[np.generic], slots: NDArray[np.uint32], out: NDArray[np.float32]) -> None:
    """Scatter a flat image into bin order; `out` has one place more than there are valid pixels."""
    for pixel in range(slots.size):
        out[slots[pixel]] = image[pixel]


@njit(nogil=True, cache=True)
def clip_background(
    raw: NDArray[np.float32],
    edges: NDArray[np.int64],
    norm: NDArray[np.float32],
    dark: NDArray[np.float32],
    bounds: Bounds,
    model: int,
    cutoff: float,
    cycles: int,
    average: NDArray[np.float32],
    deviation: NDArray[np.float32],
    counts: NDArray[np.int32],
) -> None:
    """Average and standard deviation of one pixel in each bin of a frame, after clipping.

    `raw`, `norm` and `dark` are in bin order, `dark` may be empty; a pixel that is no count by `bounds` is invalid.
    Bins without a valid pixel get NaN. `counts` are the pixels left.
    """
    widest = 0
    for k in range(edges.size - 1):
        widest = max(widest, edges[k + 1] - edges[k])
    value, weight = np.empty(widest, np.float32), np.empty(widest, np.float32)
    third, fourth = np.empty(widest, np.float32), np.empty(widest, np.float32)
    for k in range(edges.size - 1):
        first, last = edges[k], edges[k + 1]
        pixels, weights, darks = raw[first:last], norm[first:last], dark[first:last] if dark.size else dark
        if model == POISSON:
            invalid, sums = _poisson_sums(pixels, weights, darks, bounds, fourth)
            if invalid == 0:
                found, doubt = _clip_poisson(pixels, weights, darks, fourth[: pixels.size], sums, cutoff, cycles)
            else:
                n = _valid(pixels, weights, darks, bounds, value, weight, third)
                left = value[:n], weight[:n], third[:n]
                _, sums = _poisson_sums(left[0], left[1], left[2], bounds, fourth)
                found, doubt = _clip_poisson(left[0], left[1], left[2], fourth[:n], sums, cutoff, cycles)
        else:
            n = _valid(pixels, weights, darks, bounds, value, weight, third)
            if model == COUNT:
                average[k], deviation[k], counts[k] = clip_counts(value, weight, third, n, cutoff, cycles)
                continue
            _corrected(value, weight, third, n)
            found, doubt = _clip(value, weight, third, n, model, cutoff, cycles)
        if doubt != SETTLED and cycles > 0:
            n = _valid(pixels, weights, darks, bounds, value, weight, third)
            _corrected(value, weight, third, n)
            found = better(found, restarted(value, weight, third, n, model, cutoff), doubt == RAISED, value, n)
        average[k], deviation[k], counts[k] = found


Sums = tuple[float, float, float, float]
"""Of the pixels of a bin: norms, signals, variances of the counts, and squares of the norms."""


@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"}, error_model="numpy")
def _poisson_sums(
    raw: NDArray[np.float32],
    norm: NDArray[np.float32],
    dark: NDArray[np.float32],
    bounds: Bounds,
    value: NDArray[np.float32],
) -> tuple[int, Sums]:
    """Fill `value` with the corrected pixels of one bin; how many are invalid, and the sums where none is."""
    low, high, hole_low, hole_high = bounds
    invalid = np.int32(0)
    omega, total, spread, squares = 0.0, 0.0, 0.0, 0.0
    for k in range(raw.size if hole_low <= hole_high else 0):
        invalid += np.int32((raw[k] >= hole_low) & (raw[k] <= hole_high))
    for k in range(raw.size):
        pixel, w = raw[k], norm[k]
        signal = pixel - dark[k] if dark.size else pixel
        invalid += np.int32((not pixel >= low) | (not pixel <= high) | (w == 0) | (w != w))
        value[k] = signal / w
        omega += w
        total += signal
        spread += max(np.float32(1.0), pixel)
        squares += np.float64(w) * np.float64(w)
    return int(invalid), (omega, total, spread, squares)


@njit(nogil=True, cache=True)
def _clip_poisson(
    raw: NDArray[np.float32],
    norm: NDArray[np.float32],
    dark: NDArray[np.float32],
    value: NDArray[np.float32],
    sums: Sums,
    cutoff: float,
    cycles: int,
) -> tuple[Found, int]:
    """Clip valid pixels by Poisson's model: those dropped become NaN in `value`, and leave the sums.

    What is found, and whether to doubt it.
    """
    n, lowest, doubt = raw.size, -np.inf, UNSETTLED
    for _ in range(cycles):
        if n == 0:
            break
        omega, total, spread, squares = sums
        mean, reach = total / omega, chauvenet(n, cutoff) * np.sqrt(spread / squares)
        left, sums = _drop(raw, norm, dark, value, sums, n, np.float32(mean), np.float32(reach))
        if left == n:
            doubt = SETTLED
            break
        n, lowest = left, max(lowest, mean - reach)
        if not sums[2] * _MOST_TAKEN_OUT > spread:
            sums = _sums_left(raw, norm, dark, value)
    if n == 0:
        return (np.nan, np.nan, 0), UNSETTLED
    omega, total, spread, squares = sums
    mean, std = total / omega, np.sqrt(spread / squares)
    if lowest > mean - _RAISED * chauvenet(raw.size, cutoff) * std:
        doubt = RAISED
    return (mean, std, n), doubt


@njit(nogil=True, cache=True)
def _drop(
    raw: NDArray[np.float32],
    norm: NDArray[np.float32],
    dark: NDArray[np.float32],
    value: NDArray[np.float32],
    sums: Sums,
    n: int,
    centre: np.float32,
    limit: np.float32,
) -> tuple[int, Sums]:
    """Drop the pixels further than `limit` from the centre; a run of pixels without any is settled at once."""
    omega, total, spread, squares = sums
    for first in range(0, value.size, _RUN):
        run = value[first : first + _RUN]
        inside = np.int32(0)
        for k in range(run.size):
            inside += np.int32(abs(run[k] - centre) <= limit)
        if inside == run.size:
            continue
        for k in range(run.size):
            if run[k] != run[k] or abs(run[k] - centre) <= limit:
                continue
            pixel, w = raw[first + k], np.float64(norm[first + k])
            run[k] = np.nan
            n -= 1
            omega -= w
            total -= pixel - dark[first + k] if dark.size else pixel
            spread -= max(np.float32(1.0), pixel)
            squares -= w * w
    return n, (omega, total, spread, squares)


@njit(nogil=True, cache=True)
def _sums_left(
    raw: NDArray[np.float32], norm: NDArray[np.float32], dark: NDArray[np.float32], value: NDArray[np.float32]
) -> Sums:
    """The sums of what is not dropped."""
    omega, total, spread, squares = 0.0, 0.0, 0.0, 0.0
    for k in range(value.size):
        if value[k] == value[k]:
            w = np.float64(norm[k])
            omega += w
            total += raw[k] - dark[k] if dark.size else raw[k]
            spread += max(np.float32(1.0), raw[k])
            squares += w * w
    return omega, total, spread, squares


@njit(nogil=True, cache=True)
def _valid(
    raw: NDArray[np.float32],
    norm: NDArray[np.float32],
    dark: NDArray[np.float32],
    bounds: Bounds,
    value: NDArray[np.float32],
    weight: NDArray[np.float32],
    darks: NDArray[np.float32],
) -> int:
    """Fill `value`, `weight` and `darks` with the valid pixels of one bin; return how many there are."""
    invalid = 0
    for k in range(raw.size):
        invalid += (not is_count(raw[k], bounds)) | (norm[k] == 0) | (norm[k] != norm[k])
    for k in range(raw.size):
        value[k], weight[k], darks[k] = raw[k], norm[k], np.float32(0.0)
    for k in range(dark.size):
        darks[k] = dark[k]
    if invalid == 0:
        return raw.size
    n = 0
    for k in range(raw.size):
        value[n], weight[n], darks[n] = raw[k], norm[k], darks[k]
        n += is_count(raw[k], bounds) and not (norm[k] == 0 or norm[k] != norm[k])
    return n


@njit(nogil=True, cache=True, error_model="numpy")
def _corrected(value: NDArray[np.float32], weight: NDArray[np.float32], third: NDArray[np.float32], n: int) -> None:
    """Raw pixels to corrected ones, and darks to variances (eq. 1)."""
    for k in range(n):
        raw = value[k]
        value[k] = (raw - third[k]) / weight[k]
        third[k] = max(np.float32(1.0), raw)


@njit(nogil=True, cache=True)
def _clip(
    value: NDArray[np.float32],
    weight: NDArray[np.float32],
    variance: NDArray[np.float32],
    n: int,
    model: int,
    cutoff: float,
    cycles: int,
) -> tuple[Found, int]:
    """Clip corrected pixels by the spread of the bin; those kept are moved to the front. As `_clip_poisson` returns."""
    mean, std = moments(value, weight, variance, n, model)
    doubt = UNSETTLED
    for _ in range(cycles):
        centre, limit = np.float32(mean), np.float32(chauvenet(n, cutoff) * std)
        inside = np.int32(0)  # as wide as the pixels: 8 lanes, and most bins are done
        for k in range(n):
            inside += np.int32(abs(value[k] - centre) <= limit)
        if inside == n:
            doubt = UNSETTLED if is_raised(value, n, mean, std) else SETTLED
            break
        first = 0
        while abs(value[first] - centre) <= limit:
            first += 1
        kept = first
        for k in range(first, n):
            pixel = value[k]
            value[kept], weight[kept], variance[kept] = pixel, weight[k], variance[k]
            kept += abs(pixel - centre) <= limit
        n = kept
        mean, std = moments(value, weight, variance, n, model)
    if not np.isfinite(mean):
        doubt = UNSETTLED
    if model == HYBRID:
        _, std = poisson_moments(value, weight, variance, n)
    return (mean, std, n), doubt
