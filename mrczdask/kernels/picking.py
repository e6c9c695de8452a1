"""Pixels that stand out of the background of their radius."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(nogil=True, cache=True)
def interpolate(table: NDArray[np.float32], place: np.float32) -> np.float32:
    """The value of a table of bin centres at the place p (0 is the first centre), linear, held at the ends."""
    last = table.size - 1
    p = min(max(float(place), 0.0), float(last))
    k = min(int(p), max(last - 1, 0))
    part = np.float32(p - k)
    return table[k] * (np.float32(1.0) - part) + table[min(k + 1, last)] * part


@njit(nogil=True, cache=True)
def pick_pixels(
    frame: NDArray[np.generic],
    place: NDArray[np.float32],
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

    A pixel is kept where b - background > max(noise, cutoff hypot(std, noise)), b = (raw - dark) / norm. `place` is
    its place among the bin centres, NaN where it is masked or out of range; `average` has no NaN.
    """
    n = 0
    noise32, cutoff32 = np.float32(noise), np.float32(cutoff)
    for pixel in range(place.size):
        p = place[pixel]
        if p != p:
            continue
        raw = np.float32(frame[pixel])
        if raw != raw or abs(np.float64(frame[pixel]) - dummy) <= delta:
            continue
        signal = raw - dark[pixel] if dark.size else raw
        above = signal / norm[pixel] - interpolate(average, p)
        if above > noise32:
            std = interpolate(deviation, p)
            if above > cutoff32 * np.float32(np.sqrt(std * std + noise32 * noise32)):
                index[n] = pixel
                n += 1
    return n
