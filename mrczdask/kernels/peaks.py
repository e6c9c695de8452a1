"""Bragg peaks: local maxima of a patch that stand out of the background, measured over the patch ([K], section 3).

Most pixels are far below any peak. A frame is searched by segments of consecutive pixels: one comparison of all of them
with the lowest threshold that any of their radii has settles nearly every segment.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mrczdask.kernels.picking import interpolate

SEGMENT: Final = 64
"""Pixels of a segment."""
MASKED: Final = -1
_SLACK: Final = 1e-5
"""Relative: a threshold lowered by so much lies below what float32 makes of it."""
_LEAST_FITTED: Final = 6
"""Pixels from which the four parameters of a profile are fitted."""
_FLATTEST: Final = -0.02
"""Curvature -1 / (2 s^2) of a profile of a deviation of 5 pixels: a flatter one says nothing of what lies in a gap."""

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
    """What bounds the thresholds of each segment: cells (the bin centres below), norms and darks of its pixels."""

    first: NDArray[np.int32]
    last: NDArray[np.int32]
    low_norm: NDArray[np.float32]
    high_norm: NDArray[np.float32]
    low_dark: NDArray[np.float32]


class Detector(NamedTuple):
    """Flat maps of a frame: `place` of a pixel among the bin centres (NaN: masked), `searched` for maxima; `dark` may
    be empty; a pixel within `delta` of `dummy` is masked too."""

    width: int
    place: NDArray[np.float32]
    searched: NDArray[np.bool_]
    norm: NDArray[np.float32]
    dark: NDArray[np.float32]
    dummy: float
    delta: float


class Rule(NamedTuple):
    """What a peak is, as `diffraction.find_peaks` says; patches of (2 half + 1)**2, `gaps` IGNORE, FILL or VOID."""

    cutoff: float
    noise: float
    half: int
    least: int
    most: int
    keep_border: bool
    gaps: int
    gain: float


def segments_of(detector: Detector, n_bins: int) -> Segments:
    """The segments of a detector, the last one shorter."""
    return Segments(*_segments(detector.place, detector.searched, detector.norm, detector.dark, n_bins))


@njit(nogil=True, cache=True)
def _segments(
    place: NDArray[np.float32],
    searched: NDArray[np.bool_],
    norm: NDArray[np.float32],
    dark: NDArray[np.float32],
    n_bins: int,
) -> Any:
    n = (place.size + SEGMENT - 1) // SEGMENT
    first, last = np.full(n, MASKED, np.int32), np.full(n, MASKED, np.int32)
    low_norm, high_norm = np.full(n, np.inf, np.float32), np.zeros(n, np.float32)
    low_dark = np.full(n, 0.0 if dark.size == 0 else np.inf, np.float32)
    for pixel in range(place.size):
        if place[pixel] != place[pixel] or not searched[pixel]:
            continue
        s = pixel // SEGMENT
        cell = int(min(max(place[pixel], 0.0), max(n_bins - 2, 0)))
        first[s] = cell if first[s] == MASKED else min(first[s], cell)
        last[s] = max(last[s], cell)
        low_norm[s], high_norm[s] = min(low_norm[s], norm[pixel]), max(high_norm[s], norm[pixel])
        if dark.size:
            low_dark[s] = min(low_dark[s], dark[pixel])
    return first, last, low_norm, high_norm, low_dark


@njit(nogil=True, cache=True)
def _lowest(average: NDArray[np.float32], deviation: NDArray[np.float32], noise: float, cutoff: float) -> Any:
    """Table (level, cell): the lowest corrected signal that can stand out in the 2**level cells from a cell on."""
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
    return table


def find_bright(
    frame: NDArray[Any],
    detector: Detector,
    segments: Segments,
    rule: Rule,
    average: NDArray[np.float32],
    deviation: NDArray[np.float32],
    index: NDArray[np.uint32],
) -> int:
    """Write the flat indices of the pixels that stand out to `index`, ascending; return how many there are.

    `average` and `deviation` have no NaN; `index` has a place for every pixel.
    """
    limits: Any = np.finfo(frame.dtype) if frame.dtype.kind == "f" else np.iinfo(frame.dtype)
    held = float(limits.min), float(limits.max)
    return int(_find_bright(frame, detector, segments, rule, average, deviation, *held, index))


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
) -> int:
    """`find_bright`, with what the type of the frame holds."""
    table = _lowest(average, deviation, rule.noise, rule.cutoff)
    held = np.zeros(1, frame.dtype)  # a threshold of the frame's own type is compared in twice as many lanes
    n = 0
    for s in range(segments.first.size):
        first, last = segments.first[s], segments.last[s]
        if first == MASKED:
            continue
        level, width = 0, last - first + 1
        while 2 << level <= width:
            level += 1
        lowest = min(table[level, first], table[level, last + 1 - (1 << level)])
        norm = segments.low_norm[s] if lowest > 0 else segments.high_norm[s]
        begin = s * SEGMENT
        threshold = np.float64(lowest * norm + segments.low_dark[s])
        if threshold > top:
            continue
        held[0] = max(threshold, lowest_held)
        least = held[0]
        pixels = frame[begin : begin + SEGMENT]
        above = np.int32(0)
        for k in range(pixels.size):
            above += np.int32(pixels[k] >= least)
        if above == 0:
            continue
        for k in range(pixels.size):
            if not pixels[k] >= least or not detector.searched[begin + k]:
                continue
            d, u = _above(frame, begin + k, detector, average, deviation, rule.noise)
            if d > 0 and d >= np.float32(rule.cutoff) * u:
                index[n] = begin + k
                n += 1
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
    noise32, place = np.float32(noise), detector.place[pixel]
    if place != place:
        return np.float32(np.nan), noise32
    std = interpolate(deviation, place)
    u = np.float32(np.sqrt(std * std + noise32 * noise32))
    if abs(np.float64(frame[pixel]) - detector.dummy) <= detector.delta:
        return np.float32(np.nan), u
    signal = np.float32(frame[pixel])
    if detector.dark.size:
        signal -= detector.dark[pixel]
    return signal / detector.norm[pixel] - interpolate(average, place), u


@njit(nogil=True, cache=True)
def measure_peaks(
    frame: NDArray[np.generic],
    detector: Detector,
    rule: Rule,
    average: NDArray[np.float32],
    deviation: NDArray[np.float32],
    bright: NDArray[np.uint32],
    marks: NDArray[np.bool_],
    peaks: NDArray[Any],
) -> int:
    """Write the peaks among bright pixels to `peaks`, by ascending index of their maximum; return how many there are.

    Of equal maxima within a patch the one of the lowest index is the peak. `marks` is True where a pixel was not
    searched; it is used to count the pixels that may stand out before any is computed, and left as it was.
    """
    side = 2 * rule.half + 1
    values, deviations = np.empty(side * side, np.float32), np.empty(side * side, np.float32)
    norms = np.empty(side * side, np.float32)
    for pixel in bright:
        marks[pixel] = True
    n = 0
    for pixel in bright:
        if not _enough(pixel, marks, detector.width, rule.half, rule.least):
            continue
        inside = _read_patch(frame, pixel, detector, rule, average, deviation, values, deviations, norms)
        if inside and _measure(values, deviations, norms, rule, peaks, n):
            peaks[n]["index"] = pixel
            peaks[n]["y"] += np.float32(pixel // detector.width)
            peaks[n]["x"] += np.float32(pixel % detector.width)
            n += 1
    for pixel in bright:
        marks[pixel] = False
    return n


@njit(nogil=True, cache=True)
def _enough(pixel: int, marks: NDArray[np.bool_], width: int, half: int, least: int) -> bool:
    """Whether a patch has enough marks."""
    y, x = pixel // width, pixel % width
    marked = 0
    for i in range(max(y - half, 0), min(y + half + 1, marks.size // width)):
        for j in range(max(x - half, 0), min(x + half + 1, width)):
            marked += marks[i * width + j]
    return marked >= least


@njit(nogil=True, cache=True)
def _read_patch(
    frame: NDArray[np.generic],
    pixel: int,
    detector: Detector,
    rule: Rule,
    average: NDArray[np.float32],
    deviation: NDArray[np.float32],
    values: NDArray[np.float32],
    deviations: NDArray[np.float32],
    norms: NDArray[np.float32],
) -> bool:
    """Fill the patch around a pixel; False where it is no maximum of it, or the patch is void."""
    half, width, height = rule.half, detector.width, detector.place.size // detector.width
    y, x = pixel // width, pixel % width
    over = y < half or x < half or y >= height - half or x >= width - half
    if over and not rule.keep_border:
        return False
    centre, _ = _above(frame, pixel, detector, average, deviation, rule.noise)
    for i in range(max(y - 1, 0), min(y + 2, height)):  # most pixels of a peak have the larger one beside them
        for j in range(max(x - 1, 0), min(x + 2, width)):
            if _above(frame, i * width + j, detector, average, deviation, rule.noise)[0] > centre:
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
        _fill_gaps(values, rule.half)
    total, moment_y, moment_x = 0.0, 0.0, 0.0
    for k in range(values.size):
        if values[k] > 0:
            total += values[k]
            moment_y += values[k] * (k // side - rule.half)
            moment_x += values[k] * (k % side - rule.half)
    scale = total / seen
    peaks[n]["y"], peaks[n]["x"] = moment_y / total, moment_x / total
    peaks[n]["intensity"], peaks[n]["n_pixels"] = total, pixels
    peaks[n]["sigma_background"] = np.sqrt(square)
    peaks[n]["sigma"] = scale * np.sqrt(square + rule.gain * counts)
    return True


@njit(nogil=True, cache=True)
def _fill_gaps(values: NDArray[np.float32], half: int) -> None:
    """Give the masked pixels of a patch what a round Gaussian through the others has there, its maximum at most.

    Fitted to the logarithms, weighted by their squares: Guo, IEEE Signal Process. Mag. 28 (2011) 134, in 2-D.
    """
    side = 2 * half + 1
    normal, right, used = np.zeros((4, 4)), np.zeros(4), 0
    basis = np.empty(4)
    for k in range(values.size):
        if values[k] > 0:
            y, x = k // side - half, k % side - half
            basis[0], basis[1], basis[2], basis[3] = 1.0, y, x, y * y + x * x
            weight = np.float64(values[k]) * values[k]
            log = np.log(np.float64(values[k]))
            for a in range(4):
                right[a] += weight * basis[a] * log
                for b in range(4):
                    normal[a, b] += weight * basis[a] * basis[b]
            used += 1
    if used < _LEAST_FITTED or abs(np.linalg.det(normal / normal[0, 0])) < 1e-12:
        return
    fit = np.linalg.solve(normal, right)
    if fit[3] > _FLATTEST:
        return
    most = values[half * side + half]
    for k in range(values.size):
        if values[k] != values[k]:
            y, x = k // side - half, k % side - half
            log = fit[0] + fit[1] * y + fit[2] * x + fit[3] * (y * y + x * x)
            values[k] = min(np.exp(log), np.float64(most))
