"""The slowly varying level under an image: the mean of local medians, which outliers do not move."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

RADIUS: Final = 4
"""Boxes of 9 x 9 pixels."""
_BAND: Final = 64
"""Rows worked on together: a few of them fit into the cache."""


@njit(inline="always")
def mirrored(k: Any, n: Any) -> Any:
    """Place of line k of an image continued by mirrors at the middles of its border pixels."""
    if n == 1:
        return 0
    period = 2 * (n - 1)
    k = k % period
    return k if k < n else period - k


@njit(nogil=True, cache=True)
def _count_below(
    wide: NDArray[np.uint8],
    level: np.uint8,
    up: bool,
    columns: NDArray[np.uint8],
    across: NDArray[np.uint8],
    out: NDArray[np.uint8],
) -> int:
    """One threshold over a band: move `out` a level where more (up), or not more, than half of the box is above it."""
    rows, nx = out.shape
    side, half = 2 * RADIUS + 1, np.uint8(((2 * RADIUS + 1) ** 2) // 2)
    columns[:] = 0
    for y in range(side - 1):
        for k in range(columns.size):
            columns[k] += np.uint8(wide[y, k] <= level)
    moved = 0
    for y in range(rows):
        for k in range(columns.size):
            columns[k] += np.uint8(wide[y + side - 1, k] <= level)
        for x in range(nx):
            across[x] = columns[x] + columns[x + 1] + columns[x + 2]
        for x in range(nx, nx + 6):
            across[x] = columns[x] + columns[x + 1] + columns[x + 2]
        row_moved = np.uint8(0)
        if up:
            for x in range(nx):
                step = np.uint8(np.uint8(across[x] + across[x + 3] + across[x + 6]) <= half)
                out[y, x] += step
                row_moved |= step
        else:
            for x in range(nx):
                step = np.uint8(np.uint8(across[x] + across[x + 3] + across[x + 6]) > half)
                out[y, x] -= step
                row_moved |= step
        moved |= int(row_moved)
        for k in range(columns.size):
            columns[k] -= np.uint8(wide[y, k] <= level)
    return moved


@njit(nogil=True, cache=True)
def median_levels(image: NDArray[np.uint8], guess: int) -> NDArray[np.uint8]:
    """Median of the 9 x 9 box around each pixel, borders mirrored; `guess` is where the search starts.

    Thresholds are counted one after the other, away from the guess, until no median is left beyond: few of the 256
    levels occur as medians, and counting a threshold takes no branches.
    """
    ny, nx = image.shape
    out = np.empty_like(image)
    if image.size == 0:
        return out
    wide = np.empty((_BAND + 2 * RADIUS, nx + 2 * RADIUS), np.uint8)
    columns, across = np.empty(nx + 2 * RADIUS, np.uint8), np.empty(nx + 6, np.uint8)
    for first in range(0, ny, _BAND):
        band = out[first : first + _BAND]
        for y in range(band.shape[0] + 2 * RADIUS):
            row = image[mirrored(first + y - RADIUS, ny)]
            for x in range(-RADIUS, 0):
                wide[y, x + RADIUS] = row[mirrored(x, nx)]
            wide[y, RADIUS : RADIUS + nx] = row
            for x in range(nx, nx + RADIUS):
                wide[y, x + RADIUS] = row[mirrored(x, nx)]
        band[:] = np.uint8(guess)
        for level in range(guess, 255):
            if not _count_below(wide, np.uint8(level), True, columns, across, band):
                break
        for level in range(guess - 1, -1, -1):
            if not _count_below(wide, np.uint8(level), False, columns, across, band):
                break
    return out


@njit(nogil=True, cache=True)
def box_sums(levels: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Sum over the 9 x 9 box around each pixel, borders mirrored; exact."""
    ny, nx = levels.shape
    out = np.empty((ny, nx), np.int32)
    if levels.size == 0:
        return out
    columns = np.zeros(nx, np.int32)
    for dy in range(-RADIUS, RADIUS + 1):
        columns += levels[mirrored(dy, ny)]
    for y in range(ny):
        total = np.int32(0)
        for dx in range(-RADIUS, RADIUS + 1):
            total += columns[mirrored(dx, nx)]
        out[y, 0] = total
        for x in range(1, nx):
            total += columns[mirrored(x + RADIUS, nx)] - columns[mirrored(x - 1 - RADIUS, nx)]
            out[y, x] = total
        enters, leaves = levels[mirrored(y + 1 + RADIUS, ny)], levels[mirrored(y - RADIUS, ny)]
        for x in range(nx):
            columns[x] += np.int32(enters[x]) - np.int32(leaves[x])
    return out
