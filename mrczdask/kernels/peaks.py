"""Bragg peaks: local maxima of a patch that stand out of the background, measured over the patch ([K], section 3)."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.bright_pixels import Detector, corrected, signal_of, spread
from mrczdask.kernels.compiling import njit
from mrczdask.kernels.peak_profile import fill_gaps, weighted_centroid
from mrczdask.kernels.places import interpolate, or_zero

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
    tables, patch = (average, deviation), (values, deviations, norms)
    searched, shape = detector.searched, (detector.searched.size // detector.width, detector.width)
    n = 0
    for k in range(bright.size):
        if rule.half and _has_larger_beside(k, bright, above, shape[1]):
            continue
        if not _is_brightest(k, bright, above, searched, shape, rule.half, rule.least, rows):
            continue
        pixel: Any = np.int64(bright[k])
        y, x = pixel // shape[1], pixel % shape[1]
        inside = _read_patch(frame, y, x, shape, above[k], detector, rule, tables, patch)
        if inside and _measure(values, deviations, norms, rule, peaks, n):
            peaks[n]["index"] = pixel
            peaks[n]["y"] += np.float32(y)
            peaks[n]["x"] += np.float32(x)
            n += 1
    return n


@njit(nogil=True, cache=True)
def _has_larger_beside(k: int, bright: NDArray[np.uint32], above: NDArray[np.float32], width: int) -> bool:
    """Most have: they are settled without a look at their patch."""
    before, after = max(k - 1, 0), min(k + 1, bright.size - 1)
    left = (bright[before] + 1 == bright[k]) & (above[before] > above[k])
    right = (bright[after] == bright[k] + 1) & (above[after] > above[k])
    if left & (bright[k] % np.uint32(width) != 0):
        return True
    return right & (bright[after] % np.uint32(width) != 0)


@njit(nogil=True, cache=True)
def _is_brightest(
    k: int,
    bright: NDArray[np.uint32],
    above: NDArray[np.float32],
    searched: NDArray[np.bool_],
    shape: tuple[int, int],
    half: int,
    least: int,
    rows: NDArray[np.int64],
) -> bool:
    """Whether no bright pixel of the patch of the k-th is above it, and enough pixels of the patch may stand out.

    `rows` are, for each row of the patch, where its first pixel is among the bright ones, or before: it only grows.
    """
    height, width = shape
    pixel: Any = np.int64(bright[k])
    y, x = pixel // width, pixel % width
    left, right = max(x - half, 0), min(x + half, width - 1)
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
        if near >= least:
            break
        for column in range(left, right + 1):
            near += not searched[row * width + column]
    return near >= least


@njit(nogil=True, cache=True)
def _read_patch(
    frame: NDArray[np.generic],
    y: int,
    x: int,
    shape: tuple[int, int],
    centre: np.float32,
    detector: Detector,
    rule: Rule,
    tables: tuple[NDArray[np.float32], NDArray[np.float32]],
    patch: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]],
) -> bool:
    """Fill the values, deviations and norms of the patch around a pixel; False where it is no maximum of it, or the
    patch is void."""
    half, (height, width), (average, deviation), (values, deviations, norms) = rule.half, shape, tables, patch
    over = y < half or x < half or y >= height - half or x >= width - half
    if over and not rule.keep_border:
        return False
    norm, dark, (radial, azimuthal) = detector.norm, detector.dark, detector.places
    k = 0
    for i in range(y - half, y + half + 1):  # a loop of its own: its loads are far apart, and overlap
        for j in range(x - half, x + half + 1):
            values[k], deviations[k], norms[k] = np.nan, np.nan, 1.0
            if 0 <= i < height and 0 <= j < width:
                other = i * width + j
                values[k] = signal_of(frame[other], or_zero(dark, other), detector.bounds)
                deviations[k], norms[k] = radial[other], norm[other]  # the place, at first
            k += 1
    k = 0
    for i in range(y - half, y + half + 1):
        for j in range(x - half, x + half + 1):
            place, d, u = deviations[k], np.float32(np.nan), np.float32(rule.noise)
            if place == place:
                azimuth = or_zero(azimuthal, i * width + j)
                d = corrected(values[k], norms[k]) - interpolate(average, place, azimuth)
                u = spread(deviation, place, azimuth, rule.noise)
            if d > centre or (d == centre and k < values.size // 2):
                return False
            if d != d and rule.gaps == VOID:
                return False
            if rule.gaps == IGNORE and u <= 0 and not d > 0 and 0 <= i < height and 0 <= j < width:
                return False
            values[k], deviations[k] = d, u
            k += 1
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
    cutoff, pixels, missing = np.float32(rule.cutoff), 0, 0
    square, counts = 0.0, 0.0
    for k in range(values.size):
        d = values[k]
        if d > 0:
            pixels += d >= cutoff * deviations[k]
            square += float(deviations[k] * deviations[k])
            counts += float(d / norms[k])
        missing += d != d
    if pixels < rule.least or pixels > rule.most:
        return False
    noise = square + rule.gain * counts
    if missing and rule.gaps == FILL:
        noise = _fill(values, deviations, norms, rule)
    total, moment_y, moment_x = 0.0, 0.0, 0.0
    k = 0
    for i in range(-rule.half, rule.half + 1):
        for j in range(-rule.half, rule.half + 1):
            if values[k] > 0:
                total += values[k]
                moment_y += values[k] * i
                moment_x += values[k] * j
            k += 1
    y, x = moment_y / total, moment_x / total
    if rule.width > 0:
        y, x = weighted_centroid(values, rule.half, rule.width, y, x)
    peaks[n]["y"], peaks[n]["x"] = y, x
    peaks[n]["intensity"], peaks[n]["n_pixels"] = total, pixels
    peaks[n]["sigma_background"] = np.sqrt(square)
    peaks[n]["sigma"] = np.sqrt(noise)
    return True


@njit(nogil=True, cache=True)
def _fill(
    values: NDArray[np.float32], deviations: NDArray[np.float32], norms: NDArray[np.float32], rule: Rule
) -> float:
    """Fill the gaps of a patch; return the variance of its sum, with what the filled pixels take from the others."""
    noise, change = np.zeros(values.size), np.empty(values.size)
    for k in range(values.size):
        if values[k] > 0:
            noise[k] = float(deviations[k] * deviations[k]) + rule.gain * float(values[k] / norms[k])
    fill_gaps(values, rule.half, change)
    return float(np.sum((1.0 + change) ** 2 * noise))
