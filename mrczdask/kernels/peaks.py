"""Bragg peaks: local maxima of a patch that stand out of the background, measured over the patch ([K], section 3).

Most pixels are far below any peak. A frame is searched by segments of consecutive pixels: one comparison of all of them
with the lowest threshold that any of their radii has settles nearly every segment.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mrczdask.kernels.peak_profile import fill_gaps, weighted_centroid
from mrczdask.kernels.places import Places, interpolate, least_of_sectors

SEGMENT: Final = 64
"""Pixels of a segment."""
MASKED: Final = -1
_SLACK: Final = 1e-5
"""Relative: a threshold lowered by so much lies below what float32 makes of it."""

IGNORE: Final = 0
FILL: Final = 1
VOID: Final = 2

PEAK: Final = np.dtype(
    [
        ("index", np.uint32),
        ("y", np.float32),
        ("x", np.float32),
        ("intensity", np.float32),
        ("sigma", np.float32),
        ("sigma_background", np.float32),
        ("n_pixels", np.int32),
    ]
)
"""One peak: flat index of its maximum, centroid, sum above the background, its deviations, pixels above the cutoff."""


class Segments(NamedTuple):
    """What is searched of each segment, `begin` to `end`, and what bounds its thresholds: norms and darks of the pixels
    and where the table of `_lowest` has their cells (the bin centres below): `left` and `right` together are all."""

    begin: NDArray[np.uint8]
    end: NDArray[np.uint8]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    low_norm: NDArray[np.float32]
    high_norm: NDArray[np.float32]
    low_dark: NDArray[np.float32]


class Detector(NamedTuple):
    """Flat maps of a frame: `places` of the pixels, `searched` for maxima; `dark` may be empty; a pixel within `delta`
    of `dummy` is masked too."""

    width: int
    places: Places
    searched: NDArray[np.bool_]
    norm: NDArray[np.float32]
    dark: NDArray[np.float32]
    dummy: float
    delta: float


class Rule(NamedTuple):
    """What a peak is, as `diffraction.find_peaks` says; patches of (2 half + 1)**2, `gaps` IGNORE, FILL or VOID; a
    centroid is weighted by a Gaussian of the deviation `width`, 0 for none."""

    cutoff: float
    noise: float
    half: int
    least: int
    most: int
    keep_border: bool
    gaps: int
    gain: float
    width: float


def segments_of(detector: Detector, n_bins: int) -> Segments:
    """The segments of a detector, the last one shorter."""
    found = Segments(*_segments(detector.places.radial, detector.searched, detector.norm, detector.dark, n_bins))
    some = found.left != MASKED
    first, width = found.left[some], found.right[some] - found.left[some] + 1
    level = np.frexp(width)[1] - 1  # 2**level is the largest power of two within the width
    row = level * max(n_bins - 1, 1)
    found.left[some], found.right[some] = row + first, row + first + width - (1 << level)
    return found


@njit(nogil=True, cache=True)
def _segments(
    place: NDArray[np.float32],
    searched: NDArray[np.bool_],
    norm: NDArray[np.float32],
    dark: NDArray[np.float32],
    n_bins: int,
) -> Any:
    n = (place.size + SEGMENT - 1) // SEGMENT
    begin, end = np.zeros(n, np.uint8), np.zeros(n, np.uint8)
    first, last = np.full(n, MASKED, np.int32), np.full(n, MASKED, np.int32)
    low_norm, high_norm = np.full(n, np.inf, np.float32), np.zeros(n, np.float32)
    low_dark = np.full(n, 0.0 if dark.size == 0 else np.inf, np.float32)
    for pixel in range(place.size):
        if place[pixel] != place[pixel] or not searched[pixel]:
            continue
        s = pixel // SEGMENT
        begin[s] = begin[s] if end[s] else pixel % SEGMENT
        end[s] = pixel % SEGMENT + 1
        cell = int(min(max(place[pixel], 0.0), max(n_bins - 2, 0)))
        first[s] = cell if first[s] == MASKED else min(first[s], cell)
        last[s] = max(last[s], cell)
        low_norm[s], high_norm[s] = min(low_norm[s], norm[pixel]), max(high_norm[s], norm[pixel])
        if dark.size:
            low_dark[s] = min(low_dark[s], dark[pixel])
    return begin, end, first, last, low_norm, high_norm, low_dark


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
    rule: Rule,
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
    return int(_find_bright(frame, detector, segments, rule, average, deviation, *held, index, above))


@njit(nogil=True, cache=True)
def _find_bright(
    frame: NDArray[np.generic],
    detector: Detector,
    segments: Segments,
    rule: Rule,
    average: NDArray[np.float32],
    deviation: NDArray[np.float32],
    lowest_held: float,
    top: float,
    index: NDArray[np.uint32],
    above: NDArray[np.float32],
) -> int:
    """`find_bright`, with what the type of the frame holds."""
    table = _lowest(average, deviation, rule.noise, rule.cutoff)
    whole = frame[: frame.size // SEGMENT * SEGMENT].reshape(-1, SEGMENT)
    held = np.zeros(1, frame.dtype)  # a threshold of the frame's own type is compared in twice as many lanes
    found = 0
    for s in range(segments.left.size):
        left = segments.left[s]
        if left == MASKED:
            continue
        lowest = min(table[left], table[segments.right[s]])
        norm = segments.low_norm[s] if lowest > 0 else segments.high_norm[s]
        threshold = np.float64(lowest * norm + segments.low_dark[s])
        if threshold > top:
            continue
        held[0] = max(threshold, lowest_held)
        least = held[0]
        begin: Any = s * SEGMENT + np.int64(segments.begin[s])
        end: Any = s * SEGMENT + np.int64(segments.end[s])
        some = np.int32(0)
        if end - begin == SEGMENT:  # a loop of known length
            for k in range(SEGMENT):
                some += np.int32(whole[s, k] >= least)
        else:
            for pixel in range(begin, end):
                some += np.int32(frame[pixel] >= least)
        if some == 0:
            continue
        for pixel in range(begin, end):  # without a branch: a wrong guess costs more than a write
            index[found] = pixel
            found += frame[pixel] >= least
    kept, n = 0, 0
    for pixel in index[:found]:  # loops of their own, without a branch: their loads are far apart, and overlap
        index[kept] = pixel
        kept += detector.searched[pixel]
    for pixel in index[:kept]:
        d, u = _above(frame, pixel, detector, average, deviation, rule.noise)
        index[n], above[n] = pixel, d
        n += int((d > 0) & (d >= np.float32(rule.cutoff) * u))
    return n


@njit(nogil=True, cache=True)
def _above(
    frame: NDArray[np.generic],
    pixel: int,
    detector: Detector,
    average: NDArray[np.float32],
    deviation: NDArray[np.float32],
    noise: float,
) -> tuple[np.float32, np.float32]:
    """(d, u): the signal above the background and the deviation of the background; d is NaN where masked."""
    noise32, place, azimuthal = np.float32(noise), detector.places.radial[pixel], detector.places.azimuthal
    if place != place:
        return np.float32(np.nan), noise32
    azimuth = azimuthal[pixel] if azimuthal.size else np.float32(0.0)
    std = interpolate(deviation, place, azimuth)
    u = np.float32(np.sqrt(std * std + noise32 * noise32))
    if abs(np.float64(frame[pixel]) - detector.dummy) <= detector.delta:
        return np.float32(np.nan), u
    signal = np.float32(frame[pixel])
    if detector.dark.size:
        signal -= detector.dark[pixel]
    return signal / detector.norm[pixel] - interpolate(average, place, azimuth), u


@njit(nogil=True, cache=True)
def measure_peaks(
    frame: NDArray[np.generic],
    detector: Detector,
    rule: Rule,
    average: NDArray[np.float32],
    deviation: NDArray[np.float32],
    bright: NDArray[np.uint32],
    above: NDArray[np.float32],
    peaks: NDArray[Any],
) -> int:
    """Write the peaks among what `find_bright` found to `peaks`, by ascending index of their maximum; return how many.

    Of equal maxima within a patch the one of the lowest index is the peak.
    """
    side = 2 * rule.half + 1
    values, deviations = np.empty(side * side, np.float32), np.empty(side * side, np.float32)
    norms, rows = np.empty(side * side, np.float32), np.zeros(side, np.int64)
    n = 0
    for k in range(bright.size):
        if not _is_brightest(k, bright, above, detector, rule, rows):
            continue
        pixel: Any = np.int64(bright[k])
        inside = _read_patch(frame, pixel, above[k], detector, rule, average, deviation, values, deviations, norms)
        if inside and _measure(values, deviations, norms, rule, peaks, n):
            peaks[n]["index"] = pixel
            peaks[n]["y"] += np.float32(pixel // detector.width)
            peaks[n]["x"] += np.float32(pixel % detector.width)
            n += 1
    return n


@njit(nogil=True, cache=True)
def _is_brightest(
    k: int,
    bright: NDArray[np.uint32],
    above: NDArray[np.float32],
    detector: Detector,
    rule: Rule,
    rows: NDArray[np.int64],
) -> bool:
    """Whether no bright pixel of the patch of the k-th is above it, and enough pixels of the patch may stand out.

    `rows` are, for each row of the patch, where its first pixel is among the bright ones, or before: it only grows.
    """
    half, width, height = rule.half, detector.width, detector.places.radial.size // detector.width
    pixel: Any = np.int64(bright[k])
    y, x = pixel // width, pixel % width
    left, right = max(x - half, 0), min(x + half, width - 1)
    for step in (-1, 1):  # most have the larger one beside them
        other = k + step
        beside = 0 <= other < bright.size and left <= x + step <= right and bright[other] == pixel + step
        if beside and above[other] > above[k]:
            return False
    near = 0
    for row in range(max(y - half, 0), min(y + half + 1, height)):
        other = rows[row - y + half]
        while other < bright.size and bright[other] < row * width + left:
            other += 1
        rows[row - y + half] = other
        while other < bright.size and bright[other] <= row * width + right:
            if above[other] > above[k] or (above[other] == above[k] and other < k):
                return False
            near += 1
            other += 1
    for row in range(max(y - half, 0), min(y + half + 1, height)):
        if near >= rule.least:
            break
        for column in range(left, right + 1):
            near += not detector.searched[row * width + column]
    return near >= rule.least


@njit(nogil=True, cache=True)
def _read_patch(
    frame: NDArray[np.generic],
    pixel: int,
    centre: np.float32,
    detector: Detector,
    rule: Rule,
    average: NDArray[np.float32],
    deviation: NDArray[np.float32],
    values: NDArray[np.float32],
    deviations: NDArray[np.float32],
    norms: NDArray[np.float32],
) -> bool:
    """Fill the patch around a pixel; False where it is no maximum of it, or the patch is void."""
    half, width, height = rule.half, detector.width, detector.places.radial.size // detector.width
    y, x = pixel // width, pixel % width
    over = y < half or x < half or y >= height - half or x >= width - half
    if over and not rule.keep_border:
        return False
    place = 0
    for i in range(y - half, y + half + 1):
        for j in range(x - half, x + half + 1):
            d, u, norm = np.float32(np.nan), np.float32(1.0), np.float32(1.0)
            if 0 <= i < height and 0 <= j < width:
                other = i * width + j
                d, u = _above(frame, other, detector, average, deviation, rule.noise)
                norm = detector.norm[other]
                if d > centre or (d == centre and other < pixel):
                    return False
                if rule.gaps == IGNORE and u <= 0 and not d > 0:
                    return False
            if d != d and rule.gaps == VOID:
                return False
            values[place], deviations[place], norms[place] = d, u, norm
            place += 1
    return True


@njit(nogil=True, cache=True)
def _measure(
    values: NDArray[np.float32],
    deviations: NDArray[np.float32],
    norms: NDArray[np.float32],
    rule: Rule,
    peaks: NDArray[Any],
    n: int,
) -> bool:
    """Write place in the patch, sum and deviations of a peak; False where too few or too many pixels stand out."""
    side, cutoff, pixels, missing = 2 * rule.half + 1, np.float32(rule.cutoff), 0, 0
    seen, square, counts = 0.0, 0.0, 0.0
    for k in range(values.size):
        d = values[k]
        if d > 0:
            pixels += d >= cutoff * deviations[k]
            seen += float(d)
            square += float(deviations[k] * deviations[k])
            counts += float(d / norms[k])
        missing += d != d
    if pixels < rule.least or pixels > rule.most:
        return False
    if missing and rule.gaps == FILL:
        fill_gaps(values, rule.half)
    total, moment_y, moment_x = 0.0, 0.0, 0.0
    for k in range(values.size):
        if values[k] > 0:
            total += values[k]
            moment_y += values[k] * (k // side - rule.half)
            moment_x += values[k] * (k % side - rule.half)
    scale = total / seen
    y, x = moment_y / total, moment_x / total
    if rule.width > 0:
        y, x = weighted_centroid(values, rule.half, rule.width, y, x)
    peaks[n]["y"], peaks[n]["x"] = y, x
    peaks[n]["intensity"], peaks[n]["n_pixels"] = total, pixels
    peaks[n]["sigma_background"] = np.sqrt(square)
    peaks[n]["sigma"] = scale * np.sqrt(square + rule.gain * counts)
    return True
