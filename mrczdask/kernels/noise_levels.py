"""Levels that lie within the noise of a camera: which codes share one, and what each stands for.

sigma(x) = g sqrt(max((x - o) / g, 0) + s^2) with g counts per electron, o offset, s read noise in electrons. Levels are
made by the encoder and stored, so that no decoder computes a square root. B. Balazs et al., "A real-time compression
library for microscopy images", without equation numbers; corrected in docs/codecs.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit
from mrczdask.kernels.prediction import (
    CONTEXT_SHIFT,
    HIGH,
    LOW,
    SHIFT,
    STEP,
    W0,
    Weights,
    active_lanes,
    lane_rows,
    north_part,
)

UNIT_BITS: Final = 10
"""Stabilised values are integers in units of the quantisation step / 1024."""
OUTPUT_BITS: Final = 44
"""Fraction bits of the inverse transform: 16-bit results leave room for offsets and the sign."""

BALANCE: Final = 0.02
"""Part of the variance by which the sum S of `balanced_levels` may be off: averages are off by 0.4 of this part of a
standard deviation for it, and streams take up to a tenth less than with none."""


@dataclass(frozen=True)
class Noise:
    """The noise of a camera and the step of the quantisation in its standard deviations."""

    quantisation: float
    counts_per_electron: float
    offset: float
    read_noise: float

    def sigma(self, codes: NDArray[Any]) -> NDArray[np.float64]:
        """Standard deviation at each code, in codes."""
        electrons = np.maximum((codes - self.offset) / self.counts_per_electron, 0.0)
        return self.counts_per_electron * np.sqrt(electrons + self.read_noise**2)

    def stabilised(self, codes: NDArray[Any]) -> NDArray[np.float64]:
        """T / q of each code: one unit is one quantisation step; infinity where q is too fine for a number."""
        electrons = np.maximum((codes - self.offset) / self.counts_per_electron, 0.0)
        root = np.sqrt(electrons + self.read_noise**2) + self.read_noise
        with np.errstate(over="ignore"):  # 2 (sqrt(e + s^2) - s), without the difference of near numbers
            return np.asarray(2 * electrons / np.where(root > 0, root, 1.0) / self.quantisation)


def strict_levels(noise: Noise, dtype: np.dtype[Any]) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """Level of every code, and code of every level, with |x' - x| <= q sigma(x) / 2 for every code x.

    Codes are joined from the lowest up as long as one integer is within q sigma / 2 of all of them; the code of a level
    is the middle of its codes, moved into that range where it is outside.
    """
    return _cover(*_reach(noise, dtype))


def balanced_levels(
    noise: Noise, dtype: np.dtype[Any]
) -> tuple[NDArray[np.uint16], NDArray[np.int64], NDArray[np.uint8]]:
    """Level of every code, and code and part of every level: it stands for code + 1 in part of 256 pixels.

    Both are within q sigma / 2 of all codes of the level, as in `strict_levels`, and their mean leaves no bias in
    averages: S, the sum of (what is decoded - code) from the lowest code on, has the mean 0 over each level. So has
    then sum p(x) (x' - x) = -sum p'(x) S(x) for every distribution p that is smooth over a level.
    """
    codes, lowest, highest = _reach(noise, dtype)
    level_of, mean = _balance(codes, lowest, highest, noise.sigma(codes) ** 2, BALANCE)
    parts = np.rint(mean * 256).astype(np.int64)
    return level_of, parts >> 8, (parts & 255).astype(np.uint8)


def _reach(noise: Noise, dtype: np.dtype[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Every code, and the lowest and the highest integer within q sigma / 2 of it."""
    info = np.iinfo(dtype)
    codes = np.arange(info.min, info.max + 1, dtype=np.int64)
    half = noise.quantisation * noise.sigma(codes) / 2
    return codes, np.ceil(codes - half).astype(np.int64), np.floor(codes + half).astype(np.int64)


@njit(nogil=True, cache=True)
def _cover(
    codes: NDArray[np.int64], lowest: NDArray[np.int64], highest: NDArray[np.int64]
) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """Greedy cover of the codes by intervals with a common integer in all [lowest, highest]."""
    level_of, levels = np.empty(codes.size, np.uint16), np.empty(codes.size, np.int64)
    n, first = 0, 0
    low, high = lowest[0], highest[0]
    for k in range(1, codes.size + 1):
        if k < codes.size and max(low, lowest[k]) <= min(high, highest[k]):
            low, high = max(low, lowest[k]), min(high, highest[k])
            continue
        level_of[first:k] = n
        levels[n] = min(max((codes[first] + codes[k - 1] + 1) >> 1, low), high)
        n += 1
        if k < codes.size:
            first, low, high = k, lowest[k], highest[k]
    return level_of, levels[:n].copy()


@njit(nogil=True, cache=True)
def _balance(
    codes: NDArray[np.int64],
    lowest: NDArray[np.int64],
    highest: NDArray[np.int64],
    variance: NDArray[np.float64],
    slack: float,
) -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
    """The longest intervals, one after the other, whose mean within all [lowest, highest] balances the sum S.

    Over n codes S rises by (n^2 - 1) / 12 above its ends, on average. That is what the end of an interval has below 0;
    n^2 is taken in proportion to the variance at that end, where the next interval begins.
    """
    level_of, means = np.empty(codes.size, np.uint16), np.empty(codes.size, np.float64)
    n, first, total, last = 0, 0, 0.0, codes.size - 1
    while first <= last:
        low, high = lowest[first], highest[first]
        best, mean = 1, min(max(codes[first] - total, float(low)), float(high))
        for k in range(first + 1, codes.size):
            low, high, size = max(low, lowest[k]), min(high, highest[k]), k - first + 1
            if low > high:
                break
            wider = (variance[k] + variance[min(k + 1, last)]) / max(variance[first] + variance[k], 1e-300)
            middle = (codes[first] + codes[k]) / 2
            balanced = middle - (total + (size * size * wider - 1) / 12) / size
            moved = min(max(balanced, float(low)), float(high))
            # beyond the last code there is nothing to balance
            if k == last or abs(moved - balanced) * size <= slack * (variance[first] + variance[k]) / 2:
                best, mean = size, moved
        total += best * (mean - (codes[first] + codes[first + best - 1]) / 2)
        level_of[first : first + best], means[n] = n, mean
        n, first = n + 1, first + best
    return level_of, means[:n].copy()


@njit(nogil=True, cache=True)
def dithered(
    levels: NDArray[np.uint16], codes: NDArray[np.int64], parts: NDArray[np.uint8], seed: int, out: NDArray[Any]
) -> None:
    """Codes of levels (both flat): one more where a number drawn from the seed and the place is below the part."""
    mask = np.uint64(0xFFFFFFFF)
    for i in range(levels.size):
        h = (np.uint64(i) + np.uint64(seed)) & mask  # the last steps of MurmurHash3: every bit moves every other
        h = ((h ^ (h >> np.uint64(16))) * np.uint64(0x85EBCA6B)) & mask
        h = ((h ^ (h >> np.uint64(13))) * np.uint64(0xC2B2AE35)) & mask
        h ^= h >> np.uint64(16)
        level = levels[i]
        out[i] = codes[level] + np.int64(h >> np.uint64(24) < np.uint64(parts[level]))


def stabilised_levels(noise: Noise, dtype: np.dtype[Any]) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """Level of every code and code of every level by rounding the stabilised value, as published."""
    info = np.iinfo(dtype)
    codes = np.arange(info.min, info.max + 1, dtype=np.int64)
    level_of = np.rint(noise.stabilised(codes)).astype(np.int64)
    used, index = np.unique(level_of, return_inverse=True)
    half = noise.quantisation * used / 2
    codes_of = half * (half + 2 * noise.read_noise) * noise.counts_per_electron + noise.offset
    return index.astype(np.uint16), np.clip(np.rint(codes_of), info.min, info.max).astype(np.int64)


@dataclass(frozen=True)
class Inverse:
    """Integers of the inverse transform: x' = (scale (u + shift)^2 + constant) / 2**44, rounded, u from 0 to top."""

    scale: int
    shift: int
    constant: int
    top: int

    @property
    def is_safe(self) -> bool:
        """Nothing overflows 64 bits."""
        reach = self.scale * (self.top + self.shift) ** 2
        small = reach < 2**62 and abs(self.constant) < 2**62 and self.top + self.shift < 2**62
        return small and min(self.scale, self.shift, self.top) >= 0


def inverse_of(noise: Noise, dtype: np.dtype[Any]) -> tuple[Inverse, NDArray[np.float64]]:
    """The inverse of `stabilised` in integers, and what it turns into each code of a type.

    Step and read noise are rounded down to what the integers can say, and the values are those of the rounded
    transform: only so does every code come back, whatever was rounded. All values are 0 where the step is too fine.
    """
    info, g = np.iinfo(dtype), noise.counts_per_electron
    codes = np.arange(info.min, info.max + 1, dtype=np.int64)
    scale = math.floor(g * noise.quantisation**2 / 4 * 2 ** (OUTPUT_BITS - 2 * UNIT_BITS))
    if scale < 1:
        return Inverse(0, 0, 0, 0), np.zeros(codes.size)
    shift = math.floor(noise.read_noise * math.sqrt(g * 2**OUTPUT_BITS / scale))
    above = np.maximum(codes - noise.offset, 0.0) * (2**OUTPUT_BITS / scale)
    root = np.sqrt(above + float(shift) ** 2) + shift
    units = above / np.where(root > 0, root, 1.0)
    constant = round(noise.offset * 2**OUTPUT_BITS) - scale * shift**2
    return Inverse(scale, shift, constant, math.ceil(units[-1])), units


@njit(nogil=True, cache=True)
def restore(
    units: NDArray[np.int32], scale: int, shift: int, constant: int, top: int, low: int, high: int, out: NDArray[Any]
) -> None:
    """Codes of stabilised values (both flat), in integers alone."""
    half = np.int64(1) << (OUTPUT_BITS - 1)
    for k in range(units.size):
        u: Any = min(max(int(units[k]), 0), top) + shift
        x = (scale * (u * u) + constant + half) >> OUTPUT_BITS
        out[k] = min(max(x, low), high)


@njit(nogil=True, cache=True)
def quantised_residuals(
    units: NDArray[np.int32], height: int, model: Weights, lookup: NDArray[np.uint8]
) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """Folded residuals, in steps, and contexts; `units` (rows, width) becomes what the decoder will have.

    Each pixel is predicted from what its neighbours are decoded to, and moved to the nearest prediction + k * step.
    """
    rows, width = units.shape
    length = lane_rows(rows)
    folded, contexts = np.empty(rows * width, np.uint32), np.empty(rows * width, np.uint8)
    north = np.empty(width, np.int64)
    shift, low, high, step = model[SHIFT], model[LOW], model[HIGH], model[STEP]
    at = 0
    for t in range(length):
        active = active_lanes(rows, length, t)
        for lane in range(active):
            r = lane * length + t
            w0, left = np.int64(1) << shift, low
            north[:] = 0
            if t > 0 and r % height > 0:
                north_part(units[r - 1], model, 0, north)
                w0, left = model[W0], np.int64(units[r - 1, 0])
            for c in range(width):
                p = min(max((w0 * left + north[c]) >> shift, low), high)
                steps = (np.int64(units[r, c]) - p + step // 2) // step
                left = p + steps * step
                units[r, c] = left
                i = at + c * active + lane
                folded[i] = 2 * steps if steps >= 0 else -2 * steps - 1
                contexts[i] = lookup[(p - low) >> model[CONTEXT_SHIFT]]
        at += active * width
    return folded, contexts
