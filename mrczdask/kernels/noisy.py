"""Dense frames from a background whose variance is not its mean: dark counts, gain, read noise, levels below 0.

A pixel of mean m and variance v is drawn, of the first that fits, as

* a Poisson count of mean v, less v - m: what remains of counts when their dark is subtracted (`shifted`);
* for such counts without a dark, a Poisson count of mean m;
* where an integer might fall below the lowest value, at few counts: a Poisson count of one of two rates that make m and
  v together, or of mean m where v is the same or, as clipping leaves it, a little less;
* a normal number.

In integers the normal part is rounded up with the probability of its fraction, which keeps the mean and adds 1/6 to the
variance: so much less is drawn, and below 0.42 one of three integers in its place. A pixel is a function of (key, shot,
y, x); what would be picked is drawn again.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit
from mrczdask.kernels.philox import LANES, open_unit, words_of
from mrczdask.kernels.picking import stands_out
from mrczdask.kernels.places import Places, interpolate, or_zero
from mrczdask.kernels.poisson import table_count

REDRAWS: Final = 20
ALIKE: Final = 0.03
"""Relative: a variance that is so near the mean is that of counts."""
CLIPPED: Final = 0.2
"""Share of the variance of few counts that clipping may take."""
FEW: Final = 4.0
"""Deviations between the mean and the lowest value from which a normal number does not fall below it."""
_ROUNDING: Final = 1.0 / 6.0
"""Variance of rounding up with the probability of the fraction, over fractions that are all as likely."""
_SMALLEST: Final = 0.42
"""Variance from which fractions of a normal number are: below, three integers have it exactly."""
LARGEST_COUNT: Final = 1e9
"""Above, a normal number has the skewness of a count to 3e-5."""
_FIRST: Final = 0
_AGAIN: Final = 1 << 30
_NORMAL: Final = 1 << 29
"""Fourth words of counters: those of `regrow` for counts, and for normal numbers none that another draw comes near."""
_KEY_STEP: Final = np.uint64(0x9E3779B97F4A7C15)
_LANE: Final = LANES - 1
_BLOCK: Final = LANES.bit_length() - 1


class Law(NamedTuple):
    """How pixels are drawn: what is held at least and at most, whether in integers, whether they are counts less a
    dark; noise and cutoff of picking."""

    lowest: float
    top: float
    whole: bool
    shifted: bool
    noise: float
    cutoff: float


@njit(nogil=True, cache=True)
def fill_noisy(
    places: Places,
    norm: NDArray[np.float32],
    average: NDArray[np.float32],
    deviation: NDArray[np.float32],
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
    law: Law,
    seed: np.uint64,
    shot: int,
    dummy: float,
    table: NDArray[np.uint8],
    out: NDArray[Any],
) -> None:
    """Fill (y, x) with pixels of the tables `mean` and `std`, of a norm of one; `dummy` where masked.

    `average` and `deviation` are those that pixels were picked by.
    """
    noise, cutoff = np.float32(law.noise), np.float32(law.cutoff)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            pixel = y * out.shape[1] + x
            place, w = places.radial[pixel], norm[pixel]
            if place != place:
                out[y, x] = dummy
                continue
            azimuth = or_zero(places.azimuthal, pixel)
            m = float(interpolate(mean, place, azimuth) * w)
            s = float(interpolate(std, place, azimuth) * w)
            value = 0.0
            for attempt in range(REDRAWS):
                value = _draw(m, s * s, law, seed, attempt, shot, y, x, table)
                if not stands_out(np.float32(value), w, place, azimuth, average, deviation, noise, cutoff):
                    break
            else:
                value = np.floor(m) if law.whole else m
            out[y, x] = min(max(value, law.lowest), law.top)


@njit(nogil=True, cache=True)
def _draw(
    m: float, v: float, law: Law, key: np.uint64, attempt: int, shot: int, y: int, x: int, table: NDArray[np.uint8]
) -> float:
    if law.shifted and v > (1 + ALIKE) * (m + math.exp(-max(m, 0.0))):
        return _count(v, key, attempt, shot, y, x, table) - (v - m)
    low = m - law.lowest < FEW * math.sqrt(v)
    if m >= 0 and (law.shifted or (low and law.whole and (1 - CLIPPED) * m <= v <= (1 + ALIKE) * m)):
        return _count(m, key, attempt, shot, y, x, table)
    words = words_of(x, y, shot, _NORMAL + attempt, key)
    if low and v > m > 0 and law.whole:
        excess = v - m
        share = m * m / (m * m + excess)
        if share > 0.5:  # rates m -+ sqrt(excess)
            half = math.sqrt(excess)
            rate = m + half if words[0] & np.uint32(1) else m - half
            return _count(rate, key, attempt, shot, y, x, table)
        is_on = open_unit(words[0], words[1]) < share
        return _count(m / share, key, attempt, shot, y, x, table) if is_on else 0.0
    if law.whole and v < _SMALLEST:
        return _three(m, v, open_unit(words[0], words[1]), open_unit(words[2], words[3]))
    spread = math.sqrt(v - _ROUNDING if law.whole else v)
    radius = math.sqrt(-2.0 * math.log(open_unit(words[0], words[3])))
    value = m + spread * radius * math.cos(2.0 * math.pi * open_unit(words[1], words[3]))
    return np.floor(value + open_unit(words[2], words[3])) if law.whole else value


@njit(nogil=True, cache=True)
def _three(mean: float, variance: float, u: float, other: float) -> float:
    """An integer of a mean, and of a variance below 0.42 where that of rounding the mean is not larger."""
    below = np.floor(mean)
    part = mean - below
    extra = variance - part * (1.0 - part)
    value = below + (1.0 if u < part else 0.0)
    if other < 0.5 * extra:
        return value + 1.0
    return value - 1.0 if other > 1.0 - 0.5 * extra else value


@njit(nogil=True, cache=True)
def _count(mean: float, key: np.uint64, attempt: int, shot: int, y: int, x: int, table: NDArray[np.uint8]) -> float:
    """A Poisson count; the first one is what `regrow.fill_counts` gives."""
    if mean > LARGEST_COUNT:
        words = words_of(x, y, shot, _NORMAL - 1 - attempt, key)
        radius = math.sqrt(-2.0 * math.log(open_unit(words[0], words[1])))
        return np.floor(mean + math.sqrt(mean) * radius * math.cos(2.0 * math.pi * open_unit(words[2], words[3])))
    fourth, other = _FIRST, key
    if attempt:
        fourth, other = _AGAIN + attempt, np.uint64(key + np.uint64(attempt + 2) * _KEY_STEP)
    word = words_of(x >> _BLOCK, y, shot, fourth, key)[x & _LANE]
    return float(table_count(max(mean, 0.0), word, table, other, shot, y, x))
