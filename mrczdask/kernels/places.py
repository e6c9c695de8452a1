"""The bins of a background around a beam, (sector, radius), and where the pixels of a frame stand among them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray


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
def interpolate_image(table: NDArray[np.float32], places: Places) -> NDArray[np.float32]:
    """`interpolate` for every pixel of flat maps; NaN where they are."""
    out = np.full(places.radial.size, np.nan, np.float32)
    for pixel in range(out.size):
        if places.radial[pixel] == places.radial[pixel]:
            out[pixel] = interpolate(table, places, pixel)
    return out


def filled(table: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bins (radius) or (sector, radius) as (sector, radius), without NaN: empty bins take what lies between their
    neighbours, those around the beam first. Zeros where all are empty."""
    rows = np.ascontiguousarray(np.atleast_2d(table))
    empty = ~np.isfinite(rows)
    if not empty.any():
        return rows
    rows, known = rows.copy(), ~empty.all(axis=0)
    for ring in np.flatnonzero(known & empty.any(axis=0)):
        seen = np.flatnonzero(~empty[:, ring])
        rows[:, ring] = np.interp(np.arange(len(rows)), seen, rows[seen, ring], period=len(rows))
    rings = np.flatnonzero(known)
    for row in rows:
        row[:] = np.interp(np.arange(row.size), rings, row[rings]) if rings.size else 0
    return rows


def levels(table: NDArray[np.float32]) -> NDArray[np.float32]:
    """What to interpolate between the centres of sectors so that the mean over each is its average, `filled`.

    Linear between centres, the mean over a sector is (l' + 6 l + l") / 8 of its level and those beside it, which is
    undone around the beam; averages themselves would flatten a background that changes quickly.
    """
    rows = filled(table)
    if len(rows) == 1:
        return rows
    waves = np.fft.rfft(rows, axis=0)
    waves /= (0.75 + 0.25 * np.cos(2 * np.pi * np.arange(len(waves)) / len(rows)))[:, None]
    return np.fft.irfft(waves, len(rows), axis=0).astype(np.float32)
