"""Pixels that stand out of the background of their radius."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

_SLACK: Final = 1e-5
"""Relative: a threshold lowered by so much lies below what float32 makes of it (a few times 6e-8)."""


@njit(nogil=True, cache=True)
def interpolate(table: NDArray[np.float32], place: np.float32) -> np.float32:
    """The value of a table of bin centres at the place p (0 is the first centre), linear, held at the ends."""
    last = table.size - 1
    p = min(max(float(place), 0.0), float(last))
    k = min(int(p), max(last - 1, 0))
    part = np.float32(p - k)
    return table[k] * (np.float32(1.0) - part) + table[min(k + 1, last)] * part


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
    average: NDArray[np.float32], deviation: NDArray[np.float32], noise: float, cutoff: float
) -> NDArray[np.float32]:
    """For each cell, a signal at a norm of one that no pixel of it needs less than to stand out; infinite where masked.

    The lowest on either side: linear interpolation lies between, so most pixels need no other test.
    """
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
    average: NDArray[np.float32],
    deviation: NDArray[np.float32],
    noise: np.float32,
    cutoff: np.float32,
) -> bool:
    """Whether b - background > max(noise, cutoff hypot(std, noise)), with b = signal / norm."""
    above = signal / norm - interpolate(average, place)
    if not above > noise:
        return False
    std = interpolate(deviation, place)
    return bool(above > cutoff * np.float32(np.sqrt(std * std + noise * noise)))


@njit(nogil=True, cache=True)
def pick_pixels(
    frame: NDArray[np.generic],
    place: NDArray[np.float32],
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

    `place` is the place of a pixel among the bin centres, NaN where it is masked or out of range, and `cells` what
    `cells_of` says of it; `average` has no NaN. `index` has one place more than there are pixels, `dark` may be empty.
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
        n += stands_out(signal, norm[pixel], place[pixel], average, deviation, noise32, cutoff32)
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
def interpolate_image(table: NDArray[np.float32], place: NDArray[np.float32]) -> NDArray[np.float32]:
    """`interpolate` for every pixel of a flat map; NaN where `place` is."""
    out = np.empty(place.size, np.float32)
    for pixel in range(place.size):
        out[pixel] = interpolate(table, place[pixel]) if place[pixel] == place[pixel] else np.float32(np.nan)
    return out
