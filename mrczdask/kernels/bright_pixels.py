"""Pixels of a frame that stand out of its background.

Most pixels are far below any peak. A frame is searched by segments of consecutive pixels: one comparison of all of them
with the lowest threshold that any of their radii has settles nearly every segment, at little more than what it takes to
read the frame from memory.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit
from mrczdask.kernels.places import Places, interpolate, least_of_sectors, or_zero
from mrczdask.kernels.valid import Bounds, is_count

SEGMENT: Final = 64
"""Most pixels of a segment."""
_GAP: Final = 4
"""Pixels side by side that are not searched and end a segment: those of a gap may be bright, and would be looked at."""
_SLACK: Final = 1e-5
"""Relative: a threshold lowered by so much lies below what float32 makes of it."""


class Segments(NamedTuple):
    """Pieces of rows, ascending: of the `SEGMENT` pixels from `window` on, which are compared at once, those from
    `begin` to `end` are its own. What bounds its thresholds: norms and darks of its searched pixels and where the table
    of `_lowest` has their cells (the bin centres below): `left` and `right` together are all."""

    window: NDArray[np.uint32]
    begin: NDArray[np.uint8]
    end: NDArray[np.uint8]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    low_norm: NDArray[np.float32]
    high_norm: NDArray[np.float32]
    low_dark: NDArray[np.float32]


class Detector(NamedTuple):
    """Flat maps of a frame: `places` of the pixels, `searched` for maxima; `dark` may be empty; a pixel that
    is no count by its `bounds` is masked too."""

    width: int
    places: Places
    searched: NDArray[np.bool_]
    norm: NDArray[np.float32]
    dark: NDArray[np.float32]
    bounds: Bounds


def segments_of(detector: Detector, n_bins: int) -> Segments:
    """The segments of a detector: what lies between two has no searched pixel."""
    begin, end, first, last, *bounds = _segments(
        detector.places.radial, detector.searched, detector.norm, detector.dark, detector.width, n_bins
    )
    window = np.maximum(np.minimum(begin, end - SEGMENT), 0)
    width = last - first + 1
    level = np.frexp(width)[1] - 1  # 2**level is the largest power of two within the width
    left = level * max(n_bins - 1, 1) + first
    return Segments(
        window.astype(np.uint32),
        (begin - window).astype(np.uint8),
        (end - window).astype(np.uint8),
        left,
        left + width - (1 << level),
        *bounds,
    )


@njit(nogil=True, cache=True)
def _segments(
    place: NDArray[np.float32],
    searched: NDArray[np.bool_],
    norm: NDArray[np.float32],
    dark: NDArray[np.float32],
    width: int,
    n_bins: int,
) -> Any:
    """Begin and end of each, its least and largest cell, and the bounds of its norms and darks."""
    room = place.size // max(width, 1) * (width // (_GAP + 1) + 1)  # a row has no more: a pixel each, and the gaps
    begin, end = np.empty(room, np.int64), np.empty(room, np.int64)
    first, last = np.empty(room, np.int32), np.empty(room, np.int32)
    low_norm, high_norm = np.empty(room, np.float32), np.empty(room, np.float32)
    low_dark = np.empty(room, np.float32)
    s, stop = -1, 0
    for pixel in range(place.size):
        if place[pixel] != place[pixel] or not searched[pixel]:
            continue
        cell = int(min(max(place[pixel], 0.0), max(n_bins - 2, 0)))
        level = or_zero(dark, pixel)
        if pixel >= stop or pixel - end[s] >= _GAP:
            s, stop = s + 1, min(pixel + SEGMENT, (pixel // width + 1) * width)
            begin[s], first[s], last[s] = pixel, cell, cell
            low_norm[s], high_norm[s], low_dark[s] = norm[pixel], norm[pixel], level
        end[s] = pixel + 1
        first[s], last[s] = min(first[s], cell), max(last[s], cell)
        low_norm[s], high_norm[s] = min(low_norm[s], norm[pixel]), max(high_norm[s], norm[pixel])
        low_dark[s] = min(low_dark[s], level)
    n = s + 1
    bounds = low_norm[:n].copy(), high_norm[:n].copy(), low_dark[:n].copy()
    return (begin[:n].copy(), end[:n].copy(), first[:n].copy(), last[:n].copy(), *bounds)


@njit(nogil=True, cache=True)
def _lowest(averages: NDArray[np.float32], deviations: NDArray[np.float32], noise: float, cutoff: float) -> Any:
    """Flat table (level, cell): the lowest corrected signal that can stand out in the 2**level cells from one on."""
    average, deviation = least_of_sectors(averages), least_of_sectors(deviations)
    bins = average.size
    cells = max(bins - 1, 1)
    levels = 1
    while 1 << levels <= cells:
        levels += 1
    table = np.empty((levels, cells), np.float32)
    for k in range(cells):
        after = min(k + 1, bins - 1)
        spread = min(deviation[k], deviation[after])
        extra = cutoff * np.sqrt(float(spread) * spread + noise * noise)
        level = min(average[k], average[after])
        table[0, k] = level + extra - _SLACK * (abs(average[k]) + abs(average[after]) + extra)
    for j in range(1, levels):
        reach = 1 << (j - 1)
        for k in range(cells):
            table[j, k] = min(table[j - 1, k], table[j - 1, min(k + reach, cells - 1)])
    return table.reshape(-1)


def find_bright(
    frame: NDArray[Any],
    detector: Detector,
    segments: Segments,
    cutoff: float,
    noise: float,
    average: NDArray[np.float32],
    deviation: NDArray[np.float32],
    index: NDArray[np.uint32],
    above: NDArray[np.float32],
) -> int:
    """Write the pixels that stand out to `index`, ascending, and their d to `above`; return how many there are.

    `average` and `deviation`, (bin) or (sector, bin), have no NaN; `index` and `above` have one place more than there
    are pixels.
    """
    limits: Any = np.finfo(frame.dtype) if frame.dtype.kind == "f" else np.iinfo(frame.dtype)
    held = float(limits.min), float(limits.max)
    if frame.size < SEGMENT:
        frame = np.pad(frame, (0, SEGMENT - frame.size))
    table = _lowest(average, deviation, noise, cutoff)
    n = _candidates(frame, detector.searched, detector.places.radial, segments, table, *held, index, above)
    return int(_keep_bright(frame, detector, cutoff, noise, average, deviation, index[:n], above))


@njit(nogil=True, cache=True)
def _candidates(
    frame: NDArray[np.generic],
    searched: NDArray[np.bool_],
    radial: NDArray[np.float32],
    segments: Segments,
    table: NDArray[np.float32],
    lowest_held: float,
    top: float,
    index: NDArray[np.uint32],
    places: NDArray[np.float32],
) -> int:
    """Searched pixels above the lowest threshold of their segment, and their places; how many there are."""
    window, begin, end, left, right, low_norm, high_norm, low_dark = segments
    held = np.zeros(1, frame.dtype)  # a threshold of the frame's own type is compared in twice as many lanes
    found = 0
    for s in range(window.size):
        lowest = min(table[left[s]], table[right[s]])
        norm = low_norm[s] if lowest > 0 else high_norm[s]
        threshold = np.float64(lowest * norm + low_dark[s])
        if threshold > top:
            continue
        held[0] = max(threshold, lowest_held)
        if held[0] < threshold:  # what is cut to an integer
            held[0] += 1
        least, first = held[0], np.int64(window[s])
        some = np.int32(0)
        for k in range(SEGMENT):
            some |= np.int32(frame[first + k] >= least)
        if some == 0:
            continue
        for pixel in range(first + begin[s], first + end[s]):  # without a branch: a wrong guess costs more than a write
            index[found] = pixel
            found += frame[pixel] >= least
    kept = 0
    for pixel in index[:found]:  # loops of their own, without a branch: their loads are far apart, and overlap
        index[kept], places[kept] = pixel, radial[pixel]
        kept += searched[pixel] & (radial[pixel] == radial[pixel])
    return kept


@njit(nogil=True, cache=True)
def _keep_bright(
    frame: NDArray[np.generic],
    detector: Detector,
    cutoff: float,
    noise: float,
    average: NDArray[np.float32],
    deviation: NDArray[np.float32],
    index: NDArray[np.uint32],
    above: NDArray[np.float32],
) -> int:
    """Of the pixels of `index`, whose places are in `above`, those that stand out come to the front, and their d; how
    many do."""
    norms, dark, azimuthal = detector.norm, detector.dark, detector.places.azimuthal
    values, n = np.empty(index.size, np.float32), 0
    for k in range(index.size):  # again a loop for the loads
        pixel = index[k]
        signal = signal_of(frame[pixel], or_zero(dark, pixel), detector.bounds)
        values[k] = corrected(signal, norms[pixel])
    for k in range(index.size):
        place, azimuth = above[k], or_zero(azimuthal, index[k])
        d = values[k] - interpolate(average, place, azimuth)
        u = spread(deviation, place, azimuth, noise)
        index[n], above[n] = index[k], d
        n += int((d > 0) & (d >= np.float32(cutoff) * u))
    return n


@njit(nogil=True, cache=True)
def signal_of(raw: Any, dark: np.float32, bounds: Bounds) -> np.float32:
    """A pixel without its dark; NaN where it is no count."""
    value = np.float32(raw)
    return value - dark if is_count(value, bounds) else np.float32(np.nan)


@njit(nogil=True, cache=True, error_model="numpy")
def corrected(signal: np.float32, norm: np.float32) -> np.float32:
    """The signal over the norm, without a test for 0 that would leave the loop."""
    return signal / norm


@njit(nogil=True, cache=True)
def spread(deviation: NDArray[np.float32], place: np.float32, azimuth: np.float32, noise: float) -> np.float32:
    """The deviation of the background at a place, with the noise."""
    std, noise32 = interpolate(deviation, place, azimuth), np.float32(noise)
    return np.float32(np.sqrt(std * std + noise32 * noise32))
