"""Levels that lie within the noise of a camera: which codes share one, and what each stands for.

sigma(x) = g sqrt(max((x - o) / g, 0) + s^2) with g counts per electron, o offset, s read noise in electrons. Levels are
made by the encoder and stored, so that no decoder computes a square root. B. Balazs et al., "A real-time compression
library for microscopy images", without equation numbers; corrected in docs/codecs.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

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
        """T / q of each code: one unit is one quantisation step."""
        electrons = np.maximum((codes - self.offset) / self.counts_per_electron, 0.0)
        return 2 * (np.sqrt(electrons + self.read_noise**2) - self.read_noise) / self.quantisation


def strict_levels(noise: Noise, dtype: np.dtype[Any]) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """Level of every code, and code of every level, with |x' - x| <= q sigma(x) / 2 for every code x.

    Codes are joined from the lowest up as long as one integer is within q sigma / 2 of all of them; the code of a level
    is the middle of its codes, moved into that range where it is outside.
    """
    info = np.iinfo(dtype)
    codes = np.arange(info.min, info.max + 1, dtype=np.int64)
    half = noise.quantisation * noise.sigma(codes) / 2
    return _cover(codes, np.ceil(codes - half).astype(np.int64), np.floor(codes + half).astype(np.int64))


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


def stabilised_levels(noise: Noise, dtype: np.dtype[Any]) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """Level of every code and code of every level by rounding the stabilised value, as published."""
    info = np.iinfo(dtype)
    codes = np.arange(info.min, info.max + 1, dtype=np.int64)
    level_of = np.rint(noise.stabilised(codes)).astype(np.int64)
    used, index = np.unique(level_of, return_inverse=True)
    values = noise.quantisation * used / 2 + noise.read_noise
    codes_of = (values**2 - noise.read_noise**2) * noise.counts_per_electron + noise.offset
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
        return min(self.scale, self.shift, self.top) >= 0 and reach < 2**62 and abs(self.constant) < 2**62


def inverse_of(noise: Noise, dtype: np.dtype[Any]) -> Inverse:
    """The inverse of `stabilised` in integers."""
    unit, q, g = 1 << UNIT_BITS, noise.quantisation, noise.counts_per_electron
    top = int(np.ceil(noise.stabilised(np.array([np.iinfo(dtype).max]))[0] * unit))
    constant = round((noise.offset - g * noise.read_noise**2) * 2**OUTPUT_BITS)
    return Inverse(
        round(g * q * q / 4 * 2 ** (OUTPUT_BITS - 2 * UNIT_BITS)), round(2 * noise.read_noise / q * unit), constant, top
    )


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
