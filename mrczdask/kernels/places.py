"""The bins of a background around a beam, (sector, radius), and where the pixels of a frame stand among them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit


class Places(NamedTuple):
    """Flat maps of a frame: the place of each pixel among the bin centres (0 is the first one, NaN where masked) and
    among the centres of sectors, a full turn being as many as there are; empty where there is one."""

    radial: NDArray[np.float32]
    azimuthal: NDArray[np.float32]


@njit(nogil=True, cache=True)
def or_zero(image: NDArray[np.float32], pixel: int) -> np.float32:
    """A pixel of an image that may be empty."""
    return image[pixel] if image.size else np.float32(0.0)


@njit(nogil=True, cache=True)
def interpolate(table: NDArray[np.float32], place: np.float32, azimuth: np.float32) -> np.float32:
    """The value of a table (bin), or (sector, bin), at a place: linear along the radius, held at the ends, and around
    the beam."""
    bins = table.shape[-1]
    p = min(max(float(place), 0.0), float(bins - 1))
    k = min(int(p), max(bins - 2, 0))
    part, after = np.float32(p - k), min(k + 1, bins - 1)
    if table.ndim == 1:  # known as it is compiled: nothing of sectors is left in the loops of one
        return table[k] * (np.float32(1.0) - part) + table[after] * part
    s = min(int(azimuth), table.shape[0] - 1)
    other, turn = (s + 1 if s + 1 < table.shape[0] else 0), azimuth - np.float32(s)
    near = table[s, k] * (np.float32(1.0) - part) + table[s, after] * part
    far = table[other, k] * (np.float32(1.0) - part) + table[other, after] * part
    return near * (np.float32(1.0) - turn) + far * turn


@njit(nogil=True, cache=True)
def least_of_sectors(table: NDArray[np.float32]) -> NDArray[np.float32]:
    """The least of each bin in any sector."""
    if table.ndim == 1:
        return table
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
    radial, azimuthal = places.radial, places.azimuthal
    out = np.full(radial.size, np.nan, np.float32)
    for pixel in range(out.size):
        if radial[pixel] == radial[pixel]:
            azimuth = or_zero(azimuthal, pixel)
            out[pixel] = interpolate(table, radial[pixel], azimuth)
    return out


def filled(table: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bins (radius) or (sector, radius) without NaN: empty ones take what lies between their neighbours, those around
    the beam first. Zeros where all are empty."""
    empty = ~np.isfinite(table)
    if not empty.any():
        return np.ascontiguousarray(table)
    rows, empty = np.atleast_2d(table).copy(), np.atleast_2d(empty)
    known = ~empty.all(axis=0)
    for ring in np.flatnonzero(known & empty.any(axis=0)):
        seen = np.flatnonzero(~empty[:, ring])
        rows[:, ring] = np.interp(np.arange(len(rows)), seen, rows[seen, ring], period=len(rows))
    rings = np.flatnonzero(known)
    for row in rows:
        row[:] = np.interp(np.arange(row.size), rings, row[rings]) if rings.size else 0
    return rows.reshape(table.shape)


def levels(table: NDArray[np.float32]) -> NDArray[np.float32]:
    """What to interpolate between the centres of sectors so that the mean over each is its average, `filled`.

    Linear between centres, the mean over a sector is (l' + 6 l + l") / 8 of its level and those beside it, which is
    undone around the beam; averages themselves would flatten a background that changes quickly. A ring that would fall
    below 0 somewhere, though its averages do not, is drawn back to them as far as that: its sum stays.
    """
    rows = filled(table)
    if rows.ndim == 1:
        return rows
    waves = np.fft.rfft(rows, axis=0)
    waves /= (0.75 + 0.25 * np.cos(2 * np.pi * np.arange(len(waves)) / len(rows)))[:, None]
    found = np.fft.irfft(waves, len(rows), axis=0)
    below = (found < 0) & (rows >= 0).all(axis=0)
    kept = np.divide(rows, rows - found, out=np.ones_like(found), where=below).min(axis=0)
    found = rows + kept * (found - rows)
    return np.where(below.any(axis=0), np.maximum(found, 0), found).astype(np.float32)
