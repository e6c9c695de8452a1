"""Electrons in the raw frames of a counting camera: local maxima above a threshold, and their centroids ([M] 2.4)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit

PIXEL: Final = 0
CENTROID: Final = 1

EVENT: Final = np.dtype([("y", np.float32), ("x", np.float32), ("intensity", np.float32)])
"""An electron: its place in pixels (an integer is the centre of a pixel), and the charge of its 3 x 3 pixels."""


@njit(nogil=True, cache=True)
def find_electrons(
    frame: NDArray[Any], dark: NDArray[np.float32], threshold: float, method: int, events: NDArray[Any]
) -> int:
    """Write the electrons of a frame (y, x) to `events`, ascending; return how many there are.

    `dark` (y, x) may be empty. If there are more than `events` holds, the number is right and the rest is not written.
    """
    ny, nx = frame.shape
    limit, n = np.float32(threshold), 0
    bright = np.empty(nx + 1, np.int32)
    for y in range(ny):
        found = 0  # without a branch: a tenth of the pixels may be bright, and a wrong guess costs more than a write
        for x in range(nx):
            bright[found] = x
            found += int(_signal(frame, dark, y, x) >= limit)
        for x in bright[:found]:
            if _is_maximum(frame, dark, y, x, _signal(frame, dark, y, x)):
                if n < events.size:
                    _place(frame, dark, y, x, method, events, n)
                n += 1
    return n


@njit(nogil=True, cache=True)
def _signal(frame: NDArray[Any], dark: NDArray[np.float32], y: int, x: int) -> np.float32:
    value = np.float32(frame[y, x])
    return value - dark[y, x] if dark.size else value


@njit(nogil=True, cache=True)
def _is_maximum(frame: NDArray[Any], dark: NDArray[np.float32], y: int, x: int, value: np.float32) -> bool:
    """Whether no neighbour is larger; of equal ones the first counts."""
    ny, nx = frame.shape
    if 0 < y < ny - 1 and 0 < x < nx - 1 and dark.size == 0:  # the usual case, without a loop
        return (
            value >= frame[y, x + 1]
            and value > frame[y, x - 1]
            and value >= frame[y + 1, x]
            and value > frame[y - 1, x]
            and value >= frame[y + 1, x + 1]
            and value > frame[y - 1, x - 1]
            and value >= frame[y + 1, x - 1]
            and value > frame[y - 1, x + 1]
        )
    for i in range(max(y - 1, 0), min(y + 2, ny)):
        for j in range(max(x - 1, 0), min(x + 2, nx)):
            other = _signal(frame, dark, i, j)
            if other > value or (other == value and (i < y or (i == y and j < x))):
                return False
    return True


@njit(nogil=True, cache=True)
def _place(
    frame: NDArray[Any], dark: NDArray[np.float32], y: int, x: int, method: int, events: NDArray[Any], n: int
) -> None:
    total, moment_y, moment_x = np.float32(0.0), np.float32(0.0), np.float32(0.0)
    for i in range(max(y - 1, 0), min(y + 2, frame.shape[0])):
        for j in range(max(x - 1, 0), min(x + 2, frame.shape[1])):
            value = max(_signal(frame, dark, i, j), np.float32(0.0))
            total += value
            moment_y += value * (i - y)
            moment_x += value * (j - x)
    shift = method == CENTROID and total > 0
    events[n]["y"] = y + (moment_y / total if shift else np.float32(0.0))
    events[n]["x"] = x + (moment_x / total if shift else np.float32(0.0))
    events[n]["intensity"] = total


@njit(nogil=True, cache=True)
def add_electrons(events: NDArray[Any], superres: int, out: NDArray[Any]) -> None:
    """Add one count for each electron to an image of `superres` pixels a pixel, which starts at zero.

    Counts stay at the largest that the dtype of `out` (uint8 or uint16) holds.
    """
    top = (1 << (8 * out.itemsize)) - 1
    for event in events:
        y = min(max(int(np.floor((event["y"] + 0.5) * superres)), 0), out.shape[0] - 1)
        x = min(max(int(np.floor((event["x"] + 0.5) * superres)), 0), out.shape[1] - 1)
        if out[y, x] < top:
            out[y, x] += 1
