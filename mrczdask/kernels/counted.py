"""Clipping of counts by the quantiles of their Poisson distribution: right at any count, also far below one a pixel.

A pixel of dark count d and norm w is kept where lo(mu) <= raw <= hi(mu), mu = m w + d: a Poisson count of mean mu lies
above hi, or below lo, with a probability of at most that of one tail of the normal cutoff. What the limits cut from a
clean background lowers its mean, at low counts by some per cent: the mean is divided by that share. Every cycle judges
all pixels again: the first mean, which peaks have raised, may have dropped the lowest of the background.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit
from mrczdask.kernels.moments import AZIMUTHAL, LEAST_PIXELS
from mrczdask.kernels.restart import lower_median, restarted

LEAST_CLIPPED: Final = 10
"""Bins of fewer pixels are clipped of what is wild alone: one of four can empty itself."""
_FAR: Final = 12.0
"""Of a few pixels one is wild that lies above their median m by so many times 1 + sqrt(m): a good one does, beside a
median too low by chance, less than once in 1e9."""
_LEAST_KEPT: Final = 0.75
"""Of the pixels of a bin: where fewer are kept, they may not be those of the background."""
_MOST_CYCLES: Final = 20
_SUMMED_MEAN: Final = 64.0
"""Means up to here by summing probabilities; above, the Cornish-Fisher expansion has an error below 0.1 count."""
_TINY: Final = 1e-18
"""Probability beyond which a tail is not followed."""


@njit(nogil=True, cache=True)
def normal_tail(z: float) -> float:
    """Probability of a normal number above z."""
    return 0.5 * math.erfc(z / math.sqrt(2.0))


@njit(nogil=True, cache=True)
def poisson_limits(mu: float, z: float) -> tuple[float, float, float]:
    """(lo, hi, share): the narrowest range of counts of mean mu with at most `normal_tail(z)` on either side of it.

    `share` is the mean of the counts inside the range, against mu; 1 where the range is 0 alone.
    """
    if mu <= 0.0:
        return 0.0, 0.0, 1.0
    if mu > _SUMMED_MEAN:  # Fisher and Cornish, Technometrics 2 (1960) 209, to the third cumulant and its square
        s, skew = math.sqrt(mu), (z * z - 1.0) / 6.0
        bend = (z - z**3) / (72.0 * s)
        return math.floor(mu - s * z + skew - bend + 0.5), math.ceil(mu + s * z + skew + bend - 0.5), 1.0
    tail = normal_tail(z)
    k = float(math.floor(mu))
    at_mode = math.exp(k * math.log(mu) - mu - math.lgamma(k + 1.0))
    hi, p = k, at_mode
    while p > _TINY:
        hi += 1.0
        p *= mu / hi
    above = 0.0
    while hi > 0.0 and above + p <= tail:  # P(X >= hi) <= tail: hi - 1 is still a limit
        above += p
        p *= hi / mu
        hi -= 1.0
    at_hi = p
    lo, p = k, at_mode
    while lo > 0.0 and p > _TINY:
        p *= lo / mu
        lo -= 1.0
    below = 0.0
    while below + p <= tail:
        below += p
        lo += 1.0
        p *= mu / lo
    under = p * lo / mu  # of lo - 1; 0 for lo = 0
    inside = 1.0 - above - below
    return lo, hi, (inside + under - at_hi) / inside if hi > 0.0 else 1.0


@njit(nogil=True, cache=True)
def clip_counts(
    raw: NDArray[np.float32],
    weight: NDArray[np.float32],
    dark: NDArray[np.float32],
    n: int,
    cutoff: float,
    cycles: int,
) -> tuple[float, float, int]:
    """Mean, deviation and number of pixels of one bin; the pixels kept are moved to the front.

    Where few are kept, or the last cycle still changed their number, another start is the median: the mean may have
    been that of some wild pixels. Where none can be a count of any mean, the spread of the bin judges them.
    """
    if n < LEAST_CLIPPED:
        kept = _near_median(raw, weight, dark, n) if cycles else n
        mean = _level(raw, weight, dark, kept)
        return mean, _deviation(mean, weight, dark, kept), kept
    mean, kept, settled = _judged(raw, weight, dark, n, _level(raw, weight, dark, n), cutoff, cycles)
    std = _deviation(mean, weight, dark, kept)
    if cycles == 0 or (settled and _LEAST_KEPT * n <= kept):
        return mean, std, kept
    value, variance = _corrected(raw, weight, dark, n)
    other, left, _ = _judged(raw, weight, dark, n, float(lower_median(value)), cutoff, max(cycles, _MOST_CYCLES))
    spread = _deviation(other, weight, dark, left)
    if left == 0:
        value, variance = _corrected(raw, weight, dark, n)
        return restarted(value, weight, variance, n, AZIMUTHAL, cutoff)
    if left > kept or not abs(mean - other) <= spread:
        return other, spread, left
    return mean, std, kept


@njit(nogil=True, cache=True)
def _judged(
    raw: NDArray[np.float32],
    weight: NDArray[np.float32],
    dark: NDArray[np.float32],
    n: int,
    start: float,
    cutoff: float,
    cycles: int,
) -> tuple[float, int, bool]:
    """Mean and number of pixels from a start on, and whether the last cycle changed nothing."""
    mean, kept = start, n
    for _ in range(cycles):
        if kept < LEAST_CLIPPED:
            break
        z = max(cutoff, math.sqrt(2.0 * math.log(kept / math.sqrt(2.0 * math.pi))))
        low, high = _range(mean, weight, dark, n)
        lo_out, hi_in, share_low = poisson_limits(low, z)
        lo_in, hi_out, share_high = poisson_limits(high, z)
        inside = np.int32(0)
        for k in range(n):
            inside += np.int32((raw[k] >= lo_in) & (raw[k] <= hi_in))
        before, kept = kept, n
        if inside < n:
            kept = _part(raw, weight, dark, n, mean, z, lo_out, lo_in, hi_in, hi_out)
        mean = _level(raw, weight, dark, kept) / (0.5 * (share_low + share_high))
        if kept == before:
            return mean, kept, True
    return mean, kept, cycles == 0


@njit(nogil=True, cache=True)
def _near_median(raw: NDArray[np.float32], weight: NDArray[np.float32], dark: NDArray[np.float32], n: int) -> int:
    """Of a few pixels those to the front that may have the mean of the median, or one far above it."""
    if n < LEAST_PIXELS:
        return n
    value, _ = _corrected(raw, weight, dark, n)
    level = lower_median(value)
    kept = 0
    for k in range(n):
        mu = max(float(level * weight[k] + dark[k]), 0.0)
        pixel, w, d = raw[k], weight[k], dark[k]
        if pixel <= mu + _FAR * (1.0 + math.sqrt(mu)):
            raw[k], weight[k], dark[k] = raw[kept], weight[kept], dark[kept]
            raw[kept], weight[kept], dark[kept] = pixel, w, d
            kept += 1
    return kept


@njit(nogil=True, cache=True, error_model="numpy")
def _corrected(
    raw: NDArray[np.float32], weight: NDArray[np.float32], dark: NDArray[np.float32], n: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Counts less dark, for a norm of one, and the variance of the counts."""
    value, variance = np.empty(n, np.float32), np.empty(n, np.float32)
    for k in range(n):
        value[k] = (raw[k] - dark[k]) / weight[k]
        variance[k] = max(np.float32(1.0), raw[k])
    return value, variance


@njit(nogil=True, cache=True)
def _range(mean: float, weight: NDArray[np.float32], dark: NDArray[np.float32], n: int) -> tuple[float, float]:
    """Smallest and largest expected count of a bin."""
    level = np.float32(max(mean, 0.0))
    low = high = level * weight[0] + dark[0]
    for k in range(1, n):
        mu = level * weight[k] + dark[k]
        low, high = min(low, mu), max(high, mu)
    return float(low), float(high)


@njit(nogil=True, cache=True)
def _part(
    raw: NDArray[np.float32],
    weight: NDArray[np.float32],
    dark: NDArray[np.float32],
    n: int,
    mean: float,
    z: float,
    lo_out: float,
    lo_in: float,
    hi_in: float,
    hi_out: float,
) -> int:
    """Pixels inside their limits to the front, the others behind; only those near the limits of the bin need theirs."""
    level = np.float32(max(mean, 0.0))
    kept = 0
    for k in range(n):
        pixel, w, d = raw[k], weight[k], dark[k]
        keep = lo_in <= pixel <= hi_in
        if not keep and lo_out <= pixel <= hi_out:
            lo, hi, _ = poisson_limits(float(level * w + d), z)
            keep = lo <= pixel <= hi
        if keep:
            raw[k], weight[k], dark[k] = raw[kept], weight[kept], dark[kept]
            raw[kept], weight[kept], dark[kept] = pixel, w, d
            kept += 1
    return kept


@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"})
def _level(raw: NDArray[np.float32], weight: NDArray[np.float32], dark: NDArray[np.float32], n: int) -> float:
    """Counts less dark, for a norm of one."""
    total, omega = 0.0, 0.0
    for k in range(n):
        total += np.float64(raw[k]) - np.float64(dark[k])
        omega += weight[k]
    return total / omega if n else np.nan


@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"})
def _deviation(mean: float, weight: NDArray[np.float32], dark: NDArray[np.float32], n: int) -> float:
    """Of one pixel, by the expected counts."""
    darks, omega, squares = 0.0, 0.0, 0.0
    for k in range(n):
        w = np.float64(weight[k])
        darks += dark[k]
        omega += w
        squares += w * w
    return math.sqrt(max(mean * omega + darks, 0.0) / squares) if n else np.nan
