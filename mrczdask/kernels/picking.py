"""Pixels that stand out of the background of their radius."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit
from mrczdask.kernels.places import Places, interpolate, least_of_sectors, or_zero
from mrczdask.kernels.valid import Bounds, is_count

_SLACK: Final = 1e-5
"""Relative: a threshold lowered by so much lies below what float32 makes of it (a few times 6e-8)."""


@njit(nogil=True, cache=True)
def thresholds(
    averages: NDArray[np.float32], deviations: NDArray[np.float32], noise: float, cutoff: float
) -> NDArray[np.float32]:
    """For each cell, a signal at a norm of one that no pixel of it needs less than to stand out; infinite where masked.

    The lowest on either side and in any sector: linear interpolation lies between, so most pixels need no other test.
    """
    average, deviation = least_of_sectors(averages), least_of_sectors(deviations)
    last = average.size - 1
    out = np.full(max(last, 1) + 1, np.inf, np.float32)
    for k in range(out.size - 1):
        after = min(k + 1, last)
        spread = min(deviation[k], deviation[after])
        extra = max(noise, cutoff * np.sqrt(float(spread) * spread + noise * noise))
        level = min(average[k], average[after])
        out[k] = level + extra - _SLACK * (abs(average[k]) + abs(average[after]) + extra)
    return out


@njit(nogil=True, cache=True)
def stands_out(
    signal: np.float32,
    norm: np.float32,
    place: np.float32,
    azimuth: np.float32,
    average: NDArray[np.float32],
    deviation: NDArray[np.float32],
    noise: np.float32,
    cutoff: np.float32,
) -> bool:
    """Whether b - background > max(noise, cutoff hypot(std, noise)) at a place, with b = signal / norm."""
    above = signal / norm - interpolate(average, place, azimuth)
    if not above > noise:
        return False
    std = interpolate(deviation, place, azimuth)
    return bool(above > cutoff * np.float32(np.sqrt(std * std + noise * noise)))


@njit(nogil=True, cache=True)
def pick_pixels(
    frame: NDArray[np.generic],
    places: Places,
    cells: NDArray[np.uint16],
    norm: NDArray[np.float32],
    dark: NDArray[np.float32],
    bounds: Bounds,
    average: NDArray[np.float32],
    deviation: NDArray[np.float32],
    noise: float,
    cutoff: float,
    index: NDArray[np.uint32],
) -> int:
    """Write the flat indices of the pixels to keep to `index`, ascending; return how many there are.

    `places` are NaN out of range too, and `cells` what `cells_of` says of them; tables, (bin) or (sector, bin), have
    no NaN. `index` has one place more than there are pixels, `dark` may be empty. What is no count is never kept.
    """
    noise32, cutoff32 = np.float32(noise), np.float32(cutoff)
    near = _candidates(frame, cells, norm, dark, thresholds(average, deviation, noise, cutoff), index)
    radial, azimuthal = places.radial, places.azimuthal
    n = 0
    for k in range(near):
        pixel = index[k]
        raw = np.float32(frame[pixel])
        if not is_count(raw, bounds):
            continue
        signal = raw - dark[pixel] if dark.size else raw
        index[n] = pixel
        azimuth = or_zero(azimuthal, pixel)
        n += stands_out(signal, norm[pixel], radial[pixel], azimuth, average, deviation, noise32, cutoff32)
    return n


@njit(nogil=True, cache=True)
def _candidates(
    frame: NDArray[np.generic],
    cells: NDArray[np.uint16],
    norm: NDArray[np.float32],
    dark: NDArray[np.float32],
    least: NDArray[np.float32],
    index: NDArray[np.uint32],
) -> int:
    """The pixels that may stand out, without a branch: every sixth may, and a wrong guess costs more than a write."""
    n = 0
    if dark.size:
        for pixel in range(cells.size):
            index[n] = pixel
            n += np.float32(frame[pixel]) - dark[pixel] > least[cells[pixel]] * norm[pixel]
    else:
        for pixel in range(cells.size):
            index[n] = pixel
            n += np.float32(frame[pixel]) > least[cells[pixel]] * norm[pixel]
    return n
