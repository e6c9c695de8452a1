"""Pixels that stand out of the background of their radius."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

_SLACK: Final = 1e-5
"""Relative: a threshold lowered by so much lies below what float32 makes of it (a few times 6e-8)."""


class Places(NamedTuple):
    """Flat maps of a frame: the place of each pixel among the bin centres (0 is the first one, NaN where masked) and
    among the centres of sectors, a full turn being as many as there are; empty where there is one."""

    radial: NDArray[np.float32]
    azimuthal: NDArray[np.float32]


@njit(nogil=True, cache=True)
def interpolate(table: NDArray[np.float32], places: Places, pixel: int) -> np.float32:
    """The value of a table (sector, bin) at a pixel: linear along the radius, held at the ends, and around the beam."""
    sectors = table.shape[0]
    if sectors == 1:
        return _along(table[0], places.radial[pixel])
    azimuth = places.azimuthal[pixel]
    k = min(int(azimuth), sectors - 1)
    part = azimuth - np.float32(k)
    near = _along(table[k], places.radial[pixel])
    far = _along(table[k + 1 if k + 1 < sectors else 0], places.radial[pixel])
    return near * (np.float32(1.0) - part) + far * part


@njit(nogil=True, cache=True)
def _along(row: NDArray[np.float32], place: np.float32) -> np.float32:
    last = row.size - 1
    p = min(max(float(place), 0.0), float(last))
    k = min(int(p), max(last - 1, 0))
    part = np.float32(p - k)
    return row[k] * (np.float32(1.0) - part) + row[min(k + 1, last)] * part


@njit(nogil=True, cache=True)
def least_of_sectors(table: NDArray[np.float32]) -> NDArray[np.float32]:
    """The least of each bin in any sector."""
    out = table[0].copy()
    for s in range(1, table.shape[0]):
        for k in range(out.size):
            out[k] = min(out[k], table[s, k])
    return out


def cells_of(place: NDArray[np.float32], n_bins: int) -> NDArray[Any]:
    """Between which two bin centres each pixel lies, counted from 0; `max(n_bins - 1, 1)` where `place` is NaN."""
    last = max(n_bins - 1, 1)
    cells = np.empty(place.shape, np.uint16 if last < 1 << 16 else np.uint32)
    _fill_cells(place.reshape(-1), np.float32(max(n_bins - 2, 0)), last, cells.reshape(-1))
    return cells


@njit(nogil=True, cache=True)
def _fill_cells(place: NDArray[np.float32], top: np.float32, masked: int, cells: NDArray[np.uint16]) -> None:
    for pixel in range(place.size):
        p = place[pixel]
        cells[pixel] = masked if p != p else np.int32(min(max(p, np.float32(0.0)), top))


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
    places: Places,
    pixel: int,
    average: NDArray[np.float32],
    deviation: NDArray[np.float32],
    noise: np.float32,
    cutoff: np.float32,
) -> bool:
    """Whether b - background > max(noise, cutoff hypot(std, noise)) at a pixel, with b = signal / norm."""
    above = signal / norm - interpolate(average, places, pixel)
    if not above > noise:
        return False
    std = interpolate(deviation, places, pixel)
    return bool(above > cutoff * np.float32(np.sqrt(std * std + noise * noise)))


@njit(nogil=True, cache=True)
def pick_pixels(
    frame: NDArray[np.generic],
    places: Places,
    cells: NDArray[np.uint16],
    norm: NDArray[np.float32],
    dark: NDArray[np.float32],
    dummy: float,
    delta: float,
    average: NDArray[np.float32],
    deviation: NDArray[np.float32],
    noise: float,
    cutoff: float,
    index: NDArray[np.uint32],
) -> int:
    """Write the flat indices of the pixels to keep to `index`, ascending; return how many there are.

    `places` are NaN out of range too, and `cells` what `cells_of` says of them; the tables are (sector, bin), without
    NaN. `index` has one place more than there are pixels, `dark` may be empty.
    """
    noise32, cutoff32 = np.float32(noise), np.float32(cutoff)
    near = _candidates(frame, cells, norm, dark, thresholds(average, deviation, noise, cutoff), index)
    n = 0
    for k in range(near):
        pixel = index[k]
        if abs(np.float64(frame[pixel]) - dummy) <= delta:
            continue
        raw = np.float32(frame[pixel])
        signal = raw - dark[pixel] if dark.size else raw
        index[n] = pixel
        n += stands_out(signal, norm[pixel], places, pixel, average, deviation, noise32, cutoff32)
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


@njit(nogil=True, cache=True)
def interpolate_image(table: NDArray[np.float32], places: Places) -> NDArray[np.float32]:
    """`interpolate` for every pixel of flat maps; NaN where they are."""
    out = np.full(places.radial.size, np.nan, np.float32)
    for pixel in range(out.size):
        if places.radial[pixel] == places.radial[pixel]:
            out[pixel] = interpolate(table, places, pixel)
    return out
