"""The level under each pixel of an image of counts: the mean of the pixels around it that are not suspected."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mrczdask.kernels.compiling import njit

RADIUS: Final = 4
"""Boxes of 9 x 9 pixels."""
WIDE_RADIUS: Final = 8
"""Boxes of 17 x 17 pixels, where a smaller one holds few electrons."""
TILE: Final = 32
"""Side of the tiles whose statistics tell the scale of an image and the spread of its noise."""
LEAST_PIXELS: Final = 8
"""Good pixels in its box without which a pixel is not judged."""
HIGH: Final = 1
LOW: Final = 2
_CAP_QUANTILE: Final = 0.75
_CAP_SD: Final = 8.0
"""A first level caps each pixel this far above the upper quartile of the tiles around it: it follows no hot pixel."""
_SAMPLED: Final = 4
"""Every so many rows of a tile tell its upper quartile."""
NEAR: Final = 2
"""Boxes of 5 x 5 pixels."""
_TERMS: Final = 6
"""Of a parabola in two dimensions."""
_SHARE: Final = 4
"""A quarter of the pixels around one at an edge, the highest or the lowest, is like it."""


def tile_caps(counts: NDArray[np.float32], out: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Largest count that a level heeds, in each tile; `out`: pixels that are left out."""
    nx = counts.shape[1]
    if not counts.size:
        return np.zeros(tuple(-(-n // TILE) for n in counts.shape), np.float32)
    rows = np.where(out[::_SAMPLED], np.float32(0), counts[::_SAMPLED])
    step = TILE // _SAMPLED
    wide = np.pad(rows, ((0, -len(rows) % step), (0, -nx % TILE)), mode="symmetric")
    tiles = wide.reshape(wide.shape[0] // step, step, wide.shape[1] // TILE, TILE).swapaxes(1, 2)
    values = tiles.reshape(*tiles.shape[:2], -1)
    place = int(_CAP_QUANTILE * values.shape[2])
    quartile = np.partition(values, place, axis=2)[..., place]
    highest = ndimage.maximum_filter(np.maximum(quartile, 0), 3, mode="nearest")
    return np.asarray(highest + _CAP_SD * (np.sqrt(highest) + 1), np.float32)


@njit(nogil=True, cache=True)
def tile_sums(counts: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sum of the positive counts of each tile."""
    ny, nx = counts.shape
    out = np.zeros((-(-ny // TILE), -(-nx // TILE)))
    for y in range(ny):
        for k in range(out.shape[1]):
            total = np.float64(0)
            for x in range(k * TILE, min(k * TILE + TILE, nx)):
                total += max(counts[y, x], np.float32(0))
            out[y // TILE, k] += total
    return out


@njit(nogil=True, cache=True)
def _usable(out: Any, suspect: Any, judged: Any, weight: Any) -> None:
    for x in range(out.size):
        judged[x] = np.float32(1) if not out[x] else np.float32(0)
        weight[x] = judged[x] if suspect[x] == 0 else np.float32(0)


@njit(nogil=True, cache=True)
def _add_row(row: Any, weight: Any, cap: Any, sign: Any, sums: Any, numbers: Any) -> None:
    for x in range(row.size):
        value = row[x] if row[x] < cap[x] else cap[x]
        sums[x] += np.float64(sign * weight[x] * value)
        numbers[x] += sign * weight[x]


@njit(nogil=True, cache=True)
def _box(sums: Any, radius: int, total: Any) -> None:
    """Sums over 2 radius + 1 places; `sums` has `radius` more at either end."""
    total[:] = 0
    for k in range(2 * radius + 1):
        shifted = sums[k : k + total.size]
        for x in range(total.size):
            total[x] += np.float32(shifted[x])


@njit(nogil=True, cache=True, error_model="numpy")
def _judge(
    row: Any, weight: Any, judged: Any, cap: Any, total: Any, pixels: Any, spread: Any, dispersion: Any, flags: Any,
    sums: Any, deviations: Any,
) -> None:  # fmt: skip
    """Flags and deviations of a row, and what it adds to the sums of its columns; vectorised, as it has no branches."""
    zero, one, half = np.float32(0), np.float32(1), np.float32(0.5)
    scale, add = np.float32(2) / np.sqrt(dispersion), np.float32(0.375)
    skew = (spread * spread - one) / np.float32(6) * (np.float32(2) * dispersion - one)
    dim = half * spread * spread
    squares, levels, numbers = sums[0], sums[1], sums[2]
    for x in range(row.size):
        value = row[x]
        n = pixels[x] - weight[x]
        others = total[x] - weight[x] * (value if value < cap[x] else cap[x])
        least = n if n > one else one
        level = (others if others > zero else zero) / least
        width = spread * np.sqrt(level * dispersion * (one + one / least)) - half
        off = value - level
        high = one if off - skew > width else zero
        low = one - high if skew - off > width and level > dim else zero  # an empty pixel of a dim level is usual
        enough = judged[x] if n >= np.float32(LEAST_PIXELS) else zero
        flags[x] = np.uint8(np.int32(enough * (high * np.float32(HIGH) + low * np.float32(LOW))))
        good = enough * weight[x] * (one - high) * (one - low)
        off = off if good > zero else zero
        squares[x] += off * off * n / (n + one)
        levels[x] += good * level
        numbers[x] += good
        deviations[x] = scale * (np.sqrt((value if value > zero else zero) + add) - np.sqrt(level + add))


@njit(nogil=True, cache=True)
def _add_to_histogram(values: Any, judged: Any, widest: float, histogram: Any) -> None:
    bins = histogram.size - 2
    first, scale = np.float32(-widest), np.float32(bins / (2 * widest))
    for x in range(values.size):
        place = int(np.floor((values[x] - first) * scale)) + 1
        histogram[min(max(place, 0), bins + 1)] += judged[x] > 0


@njit(nogil=True, cache=True)
def screen(
    counts: NDArray[np.float32],
    out: NDArray[np.bool_],
    suspect: NDArray[np.uint8],
    caps: NDArray[np.float32],
    radius: int,
    spread: float,
    dispersion: float,
    histogram: NDArray[np.int64],
    widest: float,
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Flag the pixels far from the mean of the unsuspected pixels in their box: HIGH, LOW, else 0.

    Far: Poisson counts (or over-dispersed ones) reach it as seldom as normal ones do `spread` standard deviations, by
    the expansion of Cornish and Fisher, half a count nearer. Also (3, tile y, tile x): squared deviations, levels and
    number of the unsuspected pixels of each tile. Pixels in `out` are not judged and belong to no level; no pixel adds
    more to a level than the cap of its tile. To the histogram, if it has bins, the deviations of stabilised counts,
    2 (sqrt(k + 3/8) - sqrt(level + 3/8)), are added: bins over +-widest, what lies beyond in the first and last.
    """
    ny, nx = counts.shape
    flags, tiles = np.zeros((ny, nx), np.uint8), np.zeros((3, -(-ny // TILE), -(-nx // TILE)))
    sums, numbers = np.zeros(nx + 2 * radius), np.zeros(nx + 2 * radius, np.float32)
    total, pixels = np.zeros(nx, np.float32), np.zeros(nx, np.float32)
    weight, judged = np.zeros(nx, np.float32), np.zeros(nx, np.float32)
    columns, deviations = np.zeros((3, nx), np.float32), np.zeros(nx, np.float32)
    inner, count = sums[radius : radius + nx], numbers[radius : radius + nx]
    wide = np.zeros((caps.shape[0], nx), np.float32)
    for x in range(nx):
        wide[:, x] = caps[:, x // TILE]
    for y in range(-radius, ny):
        for k, sign in ((y + radius, 1), (y - radius - 1, -1)):
            if 0 <= k < ny:
                _usable(out[k], suspect[k], judged, weight)
                _add_row(counts[k], weight, wide[k // TILE], np.float32(sign), inner, count)
        if y < 0:
            continue
        _box(sums, radius, total)
        _box(numbers, radius, pixels)
        _usable(out[y], suspect[y], judged, weight)
        cap = wide[y // TILE]
        how = np.float32(spread), np.float32(dispersion)
        _judge(counts[y], weight, judged, cap, total, pixels, how[0], how[1], flags[y], columns, deviations)
        if histogram.size:
            _add_to_histogram(deviations, judged, widest, histogram)
        if y % TILE == TILE - 1 or y == ny - 1:
            for k in range(3):
                for x in range(nx):
                    tiles[k, y // TILE, x // TILE] += columns[k, x]
            columns[:] = 0
    return flags, tiles


@njit(inline="always")
def _belongs(value: Any, out: Any, suspect: Any, low: bool) -> bool:
    """Whether a pixel tells what is usual: where `low`, dark ones do too that count, the inside of a shadow."""
    return not out and (suspect == 0 or (low and suspect == LOW and value > 0))


@njit(nogil=True, cache=True)
def surroundings(
    counts: NDArray[np.float32],
    out: NDArray[np.bool_],
    suspect: NDArray[np.uint8],
    places: NDArray[np.int64],
    radius: int,
    low: bool,
) -> NDArray[np.float64]:
    """What is in the box around each place: sum and number of the unsuspected pixels; number of the usual ones, and
    their squared deviations from their mean.
    """
    ny, nx = counts.shape
    found = np.zeros((places.size, 4))
    for k in range(places.size):
        y, x = places[k] // nx, places[k] % nx
        square, total, n, plain, number = 0.0, 0.0, 0, 0.0, 0
        for v in range(max(y - radius, 0), min(y + radius + 1, ny)):
            for u in range(max(x - radius, 0), min(x + radius + 1, nx)):
                value = np.float64(counts[v, u])
                if (v == y and u == x) or not _belongs(value, out[v, u], suspect[v, u], low):
                    continue
                n += 1
                total += value
                square += value * value
                if suspect[v, u] == 0:
                    plain += value
                    number += 1
        found[k, 0], found[k, 1], found[k, 2] = max(plain, 0.0), number, n
        found[k, 3] = max(square - total * total / max(n, 1), 0.0)
    return found


@njit(nogil=True, cache=True)
def parabolas(
    counts: NDArray[np.float32],
    out: NDArray[np.bool_],
    suspect: NDArray[np.uint8],
    places: NDArray[np.int64],
    radius: int,
    low: bool,
) -> NDArray[np.float64]:
    """A parabola through the usual pixels in the box around each place: their squared deviations from it, its value in
    the middle, and the share of the variance of a pixel that this has; infinite, 0 and 1 where there are too few.
    """
    ny, nx = counts.shape
    found = np.zeros((places.size, 3))
    matrix, right, terms = np.empty((_TERMS, _TERMS)), np.empty((_TERMS, 2)), np.ones(_TERMS)
    for k in range(places.size):
        y, x = places[k] // nx, places[k] % nx
        square, n = 0.0, 0
        matrix[:], right[:] = 0, 0
        for v in range(max(y - radius, 0), min(y + radius + 1, ny)):
            for u in range(max(x - radius, 0), min(x + radius + 1, nx)):
                value = np.float64(counts[v, u])
                if (v == y and u == x) or not _belongs(value, out[v, u], suspect[v, u], low):
                    continue
                n += 1
                square += value * value
                b, a = (v - y) / radius, (u - x) / radius
                terms[1], terms[2], terms[3], terms[4], terms[5] = a, b, a * a, a * b, b * b
                for i in range(_TERMS):
                    right[i, 0] += terms[i] * value
                    for j in range(i + 1):
                        matrix[i, j] += terms[i] * terms[j]
        found[k, 0], found[k, 2] = np.inf, 1.0
        if n > 2 * _TERMS:
            _fit_parabola(matrix, right, square, found[k])
    return found


@njit(nogil=True, cache=True)
def extremes(
    counts: NDArray[np.float32],
    out: NDArray[np.bool_],
    suspect: NDArray[np.uint8],
    places: NDArray[np.int64],
    radius: int,
    low: bool,
) -> NDArray[np.float64]:
    """Sum and number of the highest quarter (`low`: lowest) of the usual pixels of a box around each place.

    Where more than a third of the 5 x 5 neighbourhood seem hot, it is the bright side of an edge: they are usual.
    """
    ny, nx = counts.shape
    found = np.zeros((places.size, 2))
    values = np.empty((2 * radius + 1) ** 2)
    for k in range(places.size):
        y, x = places[k] // nx, places[k] % nx
        n, bright, near = 0, 0, 0
        for v in range(max(y - NEAR, 0), min(y + NEAR + 1, ny)):
            for u in range(max(x - NEAR, 0), min(x + NEAR + 1, nx)):
                near += not out[v, u]
                bright += suspect[v, u] == HIGH
        edge = 3 * bright > near
        for v in range(max(y - radius, 0), min(y + radius + 1, ny)):
            for u in range(max(x - radius, 0), min(x + radius + 1, nx)):
                usual = _belongs(counts[v, u], out[v, u], suspect[v, u], low)
                if (usual or (edge and suspect[v, u] == HIGH)) and not (v == y and u == x):
                    values[n] = counts[v, u]
                    n += 1
        quarter = -(-n // _SHARE)
        ordered = np.sort(values[:n])
        found[k, 0] = max(ordered[:quarter].sum() if low else ordered[n - quarter :].sum(), 0.0)
        found[k, 1] = quarter
    return found


@njit(nogil=True, cache=True)
def _fit_parabola(matrix: Any, right: Any, square: float, found: Any) -> None:
    """Squared deviations, value in the middle and its share of the noise, of a least-squares parabola."""
    right[0, 1] = 1.0
    lower = np.zeros((_TERMS, _TERMS))
    for i in range(_TERMS):  # Cholesky
        for j in range(i + 1):
            rest = matrix[i, j]
            for m in range(j):
                rest -= lower[i, m] * lower[j, m]
            if i == j:
                if rest < 1e-6:
                    return
                lower[i, i] = np.sqrt(rest)
            else:
                lower[i, j] = rest / lower[j, j]
    explained, middle, share = 0.0, 0.0, 0.0
    half = np.zeros((_TERMS, 2))
    for c in range(2):
        for i in range(_TERMS):
            rest = right[i, c]
            for m in range(i):
                rest -= lower[i, m] * half[m, c]
            half[i, c] = rest / lower[i, i]
    for i in range(_TERMS):
        explained += half[i, 0] * half[i, 0]
        middle += half[i, 0] * half[i, 1]
        share += half[i, 1] * half[i, 1]
    found[0], found[1], found[2] = max(square - explained, 0.0), max(middle, 0.0), share
