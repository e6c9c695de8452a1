"""Dense frames from a background and the pixels that stood out of it.

A pixel is a function of (key, shot, y, x). `places`, `cells` and `norm` are flat maps, and tables (bin) or (sector,
bin), as in `kernels.places`.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit
from mrczdask.kernels.normal import fill_normal
from mrczdask.kernels.philox import LANES, fill_rows, words_of
from mrczdask.kernels.picking import stands_out, thresholds
from mrczdask.kernels.places import Places, interpolate, least_of_sectors, or_zero
from mrczdask.kernels.poisson import limit_of, looked_up, mean_table, sure_count, table_count

REDRAWS: Final = 20
"""Times a count above the threshold of picking is drawn again before it is cut."""
_REDRAW: Final = 1 << 30
"""Fourth word of the counters of redraws: no other draw of a pixel comes near."""
_KEY_STEP: Final = np.uint64(0x9E3779B97F4A7C15)
"""Weyl increment of 64 bits (golden ratio): apart the keys of the redraws of large means, which take further words."""
_CROWDED: Final = 2.0
"""Below this cutoff so many counts are drawn again that a whole row of words is made at once, many times as fast."""
_ROWS: Final = 32
"""Rows of words made at once: they stay in the second cache."""
_ZERO: Final = np.float32(0.0)
_LANE: Final = LANES - 1
_BLOCK: Final = LANES.bit_length() - 1


@njit(nogil=True, cache=True)
def _padded(table: NDArray[np.float32]) -> NDArray[np.float32]:
    """A table of one sector in which every cell, and the one behind it, has a place."""
    row = least_of_sectors(table)
    out = np.full(max(row.size, 2) + 1, row[-1] if row.size else np.float32(0.0), np.float32)
    out[: row.size] = row
    return out


def fill_counts(
    places: Places,
    cells: NDArray[Any],
    norm: NDArray[np.float32],
    average: NDArray[np.float32],
    deviation: NDArray[np.float32],
    noise: float,
    cutoff: float,
    seed: int,
    shot: int,
    dummy: float,
    out: NDArray[Any],
) -> None:
    """Fill (y, x) with Poisson counts around the background, none that would be picked; `dummy` where masked.

    Words are made by a call of their own, some rows at a time: inlined, they would not be vectorised.
    """
    ny, nx = out.shape
    crowded = cutoff < _CROWDED
    words = np.empty((_ROWS, LANES, (nx + LANES - 1) // LANES), np.uint32)
    spare = np.empty_like(words) if crowded else words[:0]
    least, padded = thresholds(average, deviation, noise, cutoff), _padded(average)
    key, limits = np.uint64(seed), (np.float32(noise), np.float32(cutoff))
    tables = average, deviation, least, padded, mean_table()
    top = limit_of(out.dtype)
    for y in range(0, ny, _ROWS):
        fill_rows(words, y, shot, 0, key)
        if crowded:
            fill_rows(spare, y, shot, _REDRAW, key)
        _fill_strip(places, cells, norm, *tables, *limits, key, shot, y, words, spare, dummy, top, out)


@njit(nogil=True, cache=True)
def _fill_strip(
    places: Places,
    cells: NDArray[np.uint16],
    norm: NDArray[np.float32],
    average: NDArray[np.float32],
    deviation: NDArray[np.float32],
    least: NDArray[np.float32],
    padded: NDArray[np.float32],
    table: NDArray[np.uint8],
    noise: np.float32,
    cutoff: np.float32,
    key: np.uint64,
    shot: int,
    y0: int,
    words: NDArray[np.uint32],
    spare: NDArray[np.uint32],
    dummy: float,
    top: int,
    out: NDArray[np.generic],
) -> None:
    """Pass after pass over a row, each without a branch that depends on chance; the few odd pixels in lists."""
    nx = out.shape[1]
    means, bounds = np.empty(nx, np.float32), np.empty(nx, np.float32)
    counts, odd = np.empty(nx, np.int64), np.empty(nx + 1, np.int64)
    radial, azimuthal = places.radial, places.azimuthal
    for y in range(y0, min(y0 + words.shape[0], out.shape[0])):
        row, first = y - y0, y * nx
        _row_means(radial, azimuthal, first, cells, norm, average, padded, least, _ZERO, means, bounds)
        for k in range(_look_up(means, words[row], table, counts, odd)):
            x = odd[k]
            counts[x] = sure_count(means[x], words[row, x & _LANE, x >> _BLOCK], key, shot, y, x)
        n = _above(counts, bounds, odd)
        for k in range(n):
            x = odd[k]
            w, p = norm[first + x], radial[first + x]
            a = or_zero(azimuthal, first + x)
            if not stands_out(np.float32(counts[x]), w, p, a, average, deviation, noise, cutoff):
                continue
            if spare.size:
                word = spare[row, x & _LANE, x >> _BLOCK]
                counts[x] = table_count(means[x], word, table, np.uint64(key + _KEY_STEP), shot, y, x)
                count = np.float32(counts[x])
                if count <= bounds[x] or not stands_out(count, w, p, a, average, deviation, noise, cutoff):
                    continue
            counts[x] = _again(means[x], w, p, a, average, deviation, noise, cutoff, key, shot, y, x, table)
        for x in range(nx):  # no conditional expression: a dummy and a count of other types would meet as floats
            if bounds[x] == np.inf:
                out[y, x] = dummy
            else:
                out[y, x] = min(counts[x], top)


@njit(nogil=True, cache=True)
def _row_means(
    radial: NDArray[np.float32],
    azimuthal: NDArray[np.float32],
    first: int,
    cells: NDArray[np.uint16],
    norm: NDArray[np.float32],
    average: NDArray[np.float32],
    padded: NDArray[np.float32],
    least: NDArray[np.float32],
    lowest: np.float32,
    means: NDArray[np.float32],
    bounds: NDArray[np.float32],
) -> None:
    """What `interpolate` gives of the row that begins at `first`, times the norm and at least `lowest`, and
    `thresholds` alike; no number where masked. The padded table is that of a single sector."""
    last = first + means.size
    place, cell, w = radial[first:last], cells[first:last], norm[first:last]
    for x in range(means.size):
        k = np.int64(cell[x])
        part = min(max(place[x] - np.float32(k), np.float32(0.0)), np.float32(1.0))
        mean = (padded[k] * (np.float32(1.0) - part) + padded[k + 1] * part) * w[x]
        means[x] = mean if mean > lowest else lowest
        bounds[x] = least[k] * w[x] if least[k] < np.inf else np.float32(np.inf)
    if average.ndim > 1:
        for x in range(means.size):
            if bounds[x] < np.inf:
                means[x] = max(interpolate(average, place[x], azimuthal[first + x]) * w[x], lowest)


@njit(nogil=True, cache=True)
def _look_up(
    means: NDArray[np.float32],
    words: NDArray[np.uint32],
    table: NDArray[np.uint8],
    counts: NDArray[np.int64],
    odd: NDArray[np.int64],
) -> int:
    """Fill `counts` from the table and list the pixels that it does not know."""
    n = 0
    for x in range(means.size):
        counts[x], sure = looked_up(means[x], words[x & _LANE, x >> _BLOCK], table)
        odd[n] = x
        n += not sure
    return n


@njit(nogil=True, cache=True)
def _above(counts: NDArray[np.int64], bounds: NDArray[np.float32], odd: NDArray[np.int64]) -> int:
    n = 0
    for x in range(counts.size):
        odd[n] = x
        n += np.float32(counts[x]) > bounds[x]
    return n


@njit(nogil=True, cache=True)
def _again(
    mean: np.float32,
    norm: np.float32,
    place: np.float32,
    azimuth: np.float32,
    average: NDArray[np.float32],
    deviation: NDArray[np.float32],
    noise: np.float32,
    cutoff: np.float32,
    key: np.uint64,
    shot: int,
    y: int,
    x: int,
    table: NDArray[np.uint8],
) -> int:
    """A count that does not stand out: drawn again, and at last cut down."""
    count = 0
    for attempt in range(REDRAWS):
        word = words_of(x >> _BLOCK, y, shot, _REDRAW + attempt, key)[x & _LANE]
        count = table_count(float(mean), word, table, np.uint64(key + np.uint64(attempt + 2) * _KEY_STEP), shot, y, x)
        if not stands_out(np.float32(count), norm, place, azimuth, average, deviation, noise, cutoff):
            return count
    while count > 0 and stands_out(np.float32(count), norm, place, azimuth, average, deviation, noise, cutoff):
        count -= 1
    return count


def held_by(dtype: np.dtype[Any]) -> tuple[np.float32, np.float32]:
    """Least and largest number that a type holds, as floats that it holds too: nothing within is cast beyond it."""
    if dtype.kind == "f":
        return np.float32(-np.inf), np.float32(np.inf)
    most = int(np.iinfo(dtype).max)
    top = np.float32(most)
    return np.float32(np.iinfo(dtype).min), top if int(top) <= most else np.nextafter(top, _ZERO)


def fill_mean(
    places: Places,
    cells: NDArray[Any],
    norm: NDArray[np.float32],
    average: NDArray[np.float32],
    dummy: Any,
    rounded: bool,
    out: NDArray[Any],
) -> None:
    """Fill (y, x) with the background, rounded half up if asked; `dummy` where masked."""
    _fill_mean(places, cells, norm, average, dummy, rounded, *held_by(out.dtype), out)


@njit(nogil=True, cache=True)
def _fill_mean(
    places: Places,
    cells: NDArray[np.uint16],
    norm: NDArray[np.float32],
    average: NDArray[np.float32],
    dummy: float,
    rounded: bool,
    lowest: np.float32,
    top: np.float32,
    out: NDArray[np.generic],
) -> None:
    padded, least = _padded(average), thresholds(average, average, 0.0, 0.0)
    ny, nx = out.shape
    means, bounds = np.empty(nx, np.float32), np.empty(nx, np.float32)
    radial, azimuthal = places.radial, places.azimuthal
    for y in range(ny):
        _row_means(radial, azimuthal, y * nx, cells, norm, average, padded, least, lowest, means, bounds)
        if rounded:
            for x in range(nx):
                means[x] = np.floor(means[x] + np.float32(0.5))
        for x in range(nx):
            if bounds[x] == np.inf:
                out[y, x] = dummy
            else:
                out[y, x] = min(means[x], top)


def fill_clamped(
    places: Places,
    norm: NDArray[np.float32],
    average: NDArray[np.float32],
    deviation: NDArray[np.float32],
    key: np.uint64,
    shot: int,
    dummy: Any,
    rounded: bool,
    out: NDArray[Any],
) -> None:
    """Fill (y, x) as FabIO does: a normal number around the background, cut at 0, then times the norm.

    Pixels of the outer half of the first bin become `dummy`, as they do there.
    """
    _fill_clamped(places, norm, average, deviation, key, shot, dummy, rounded, held_by(out.dtype)[1], out)


@njit(nogil=True, cache=True)
def _fill_clamped(
    places: Places,
    norm: NDArray[np.float32],
    average: NDArray[np.float32],
    deviation: NDArray[np.float32],
    key: np.uint64,
    shot: int,
    dummy: float,
    rounded: bool,
    top: np.float32,
    out: NDArray[np.generic],
) -> None:
    ny, nx = out.shape
    row = np.empty((1, nx))
    radial, azimuthal = places.radial, places.azimuthal
    for y in range(ny):
        fill_normal(key, shot, y, 0, row)
        for x in range(nx):
            pixel = y * nx + x
            if not 0.0 <= radial[pixel] < average.shape[-1]:
                out[y, x] = dummy
                continue
            a = or_zero(azimuthal, pixel)
            level, std = interpolate(average, radial[pixel], a), interpolate(deviation, radial[pixel], a)
            value = max(level + std * row[0, x], 0.0) * norm[pixel]
            value = np.floor(value + 0.5) if rounded else value
            out[y, x] = min(value, top)
