"""Averages and deviations over radial bins, with sigma clipping ([K], equations 2 to 6).

A frame is gathered once into the order of its bins; clipping then walks through sequential memory. Accumulators are
float64. `order` holds the flat indices of the valid pixels, sorted by bin and, within a bin, by index; `edges` the
first place of each bin in it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

POISSON: Final = 0
AZIMUTHAL: Final = 1
HYBRID: Final = 2

LEAST_PIXELS: Final = 3
"""Chauvenet's criterion is used as if a bin had at least this many pixels."""


@njit(nogil=True, cache=True)
def bin_order(bins: NDArray[np.int32], n_bins: int) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """(order, edges) of flat bin numbers; a negative one leaves the pixel out."""
    edges = np.zeros(n_bins + 1, np.int64)
    for bin_ in bins:
        if 0 <= bin_ < n_bins:
            edges[bin_ + 1] += 1
    for k in range(n_bins):
        edges[k + 1] += edges[k]
    order = np.empty(edges[n_bins], np.uint32)
    place = edges[:-1].copy()
    for pixel in range(bins.size):
        bin_ = bins[pixel]
        if 0 <= bin_ < n_bins:
            order[place[bin_]] = pixel
            place[bin_] += 1
    return order, edges


@njit(nogil=True, cache=True)
def clip_background(
    frame: NDArray[np.generic],
    order: NDArray[np.uint32],
    edges: NDArray[np.int64],
    norm: NDArray[np.float32],
    dark: NDArray[np.float32],
    dark_variance: NDArray[np.float32],
    dummy: float,
    delta: float,
    model: int,
    cutoff: float,
    cycles: int,
    average: NDArray[np.float32],
    deviation: NDArray[np.float32],
    counts: NDArray[np.int32],
) -> None:
    """Average and standard deviation of one pixel in each bin of a frame, after clipping.

    `frame` is flat; `norm`, `dark` and `dark_variance` are in bin order, the last two may be empty; a pixel within
    `delta` of `dummy` is invalid (NaN: none is). Bins without a pixel get NaN. `counts` are the pixels left.
    """
    raw = np.empty(order.size, np.float32)
    for place in range(order.size):
        raw[place] = frame[order[place]]
    widest = 0
    for k in range(edges.size - 1):
        widest = max(widest, edges[k + 1] - edges[k])
    value, weight = np.empty(widest, np.float32), np.empty(widest, np.float32)
    variance = np.empty(widest, np.float32)
    for k in range(edges.size - 1):
        first, last = edges[k], edges[k + 1]
        n = _correct(
            raw[first:last],
            norm[first:last],
            dark[first:last] if dark.size else dark,
            dark_variance[first:last] if dark_variance.size else dark_variance,
            np.float32(dummy),
            np.float32(delta),
            value,
            weight,
            variance,
        )
        average[k], deviation[k], counts[k] = _clip(value, weight, variance, n, last - first - n, model, cutoff, cycles)


@njit(nogil=True, cache=True)
def _correct(
    raw: NDArray[np.float32],
    norm: NDArray[np.float32],
    dark: NDArray[np.float32],
    dark_variance: NDArray[np.float32],
    dummy: np.float32,
    delta: np.float32,
    value: NDArray[np.float32],
    weight: NDArray[np.float32],
    variance: NDArray[np.float32],
) -> int:
    """Fill `value`, `weight` and `variance` with the valid pixels of one bin; return how many there are."""
    n = invalid = 0
    for k in range(raw.size):  # a comparison with NaN is false: NaN pixels are invalid, a NaN dummy is none
        invalid += abs(raw[k] - dummy) <= delta or raw[k] != raw[k] or norm[k] == 0 or norm[k] != norm[k]
    for k in range(raw.size):
        value[n] = (raw[k] - dark[k] if dark.size else raw[k]) / norm[k]
        weight[n] = norm[k]
        variance[n] = max(np.float32(1.0), raw[k]) + (dark_variance[k] if dark_variance.size else np.float32(0.0))
        if invalid == 0:
            n += 1
        else:
            n += not (abs(raw[k] - dummy) <= delta or raw[k] != raw[k] or norm[k] == 0 or norm[k] != norm[k])
    return n


@njit(nogil=True, cache=True)
def _clip(
    value: NDArray[np.float32],
    weight: NDArray[np.float32],
    variance: NDArray[np.float32],
    n: int,
    invalid: int,
    model: int,
    cutoff: float,
    cycles: int,
) -> tuple[float, float, int]:
    """Mean, deviation and number of pixels of one bin; the pixels kept are moved to the front.

    Chauvenet's criterion takes the `invalid` pixels of the bin into its number, as the public implementation does.
    """
    mean, std = _moments(value, weight, variance, n, model)
    for _ in range(cycles):
        floor = np.sqrt(2.0 * np.log(max(LEAST_PIXELS, n + invalid) / np.sqrt(2.0 * np.pi)))
        centre, limit = np.float32(mean), np.float32(max(cutoff, floor) * std)
        inside = 0
        for k in range(n):  # only counts: 16 lanes wide, and most bins are done
            inside += abs(value[k] - centre) <= limit
        if inside == n:
            break
        kept = 0
        for k in range(n):
            pixel = value[k]
            value[kept], weight[kept], variance[kept] = pixel, weight[k], variance[k]
            kept += abs(pixel - centre) <= limit
        n = kept
        mean, std = _moments(value, weight, variance, n, model)
    if model == HYBRID:
        _, std = _poisson(value, weight, variance, n)
    return mean, std, n


@njit(nogil=True, cache=True)
def _moments(
    value: NDArray[np.float32], weight: NDArray[np.float32], variance: NDArray[np.float32], n: int, model: int
) -> tuple[float, float]:
    if model == POISSON:
        return _poisson(value, weight, variance, n)
    return _azimuthal(value, weight, variance, n)


@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"})
def _poisson(
    value: NDArray[np.float32], weight: NDArray[np.float32], variance: NDArray[np.float32], n: int
) -> tuple[float, float]:
    """Weighted mean, and the deviation of one pixel by the variances of the counts (eqs. 3 to 5)."""
    omega, total, spread, squares = 0.0, 0.0, 0.0, 0.0
    for k in range(n):
        w = np.float64(weight[k])
        omega += w
        total += np.float64(value[k]) * w
        spread += variance[k]
        squares += w * w
    return (total / omega, np.sqrt(spread / squares)) if n else (np.nan, np.nan)


@njit(nogil=True, cache=True)
def _azimuthal(
    value: NDArray[np.float32], weight: NDArray[np.float32], variance: NDArray[np.float32], n: int
) -> tuple[float, float]:
    """Weighted mean, and the deviation of one pixel by the spread of the bin: the one-pass form (eqs. 6, 17)."""
    if n == 0:
        return np.nan, np.nan
    omega = np.float64(weight[0])
    mean, squares, spread = np.float64(value[0]), omega * omega, 0.0
    for k in range(1, n):
        w = np.float64(weight[k])
        omega += w
        squares += w * w
        before = value[k] - mean
        mean += before * (w / omega)
        spread += w * w * before * (value[k] - mean)
    return mean, np.sqrt(max(spread, 0.0) / squares)
