"""Exact Poisson counts of given means, each a pure function of (key, frame, y, x).

Means up to `TABLE_MEAN` by inversion of the cumulative distribution; most pixels need one look into a table of
(mean, uniform) cells in which the count is certain, the others are inverted. Larger means by the transformed
rejection PTRS of Hörmann, "The transformed rejection method for generating Poisson random variables", Insurance:
Mathematics and Economics 12 (1993) 39-45.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit
from mrczdask.kernels.philox import LANES, block, fill_words, open_unit, refined_unit

TABLE_MEAN: Final = 64
"""Largest mean that is inverted: above, PTRS is as fast and needs no table."""
_MEAN_CELLS: Final = 64
"""Cells of the table a unit of the mean."""
_UNIFORM_BITS: Final = 10
_FLAT_BITS: Final = 12
_UNSURE: Final = 255
"""No mean up to TABLE_MEAN gives this count with a probability above 1e-60."""

# The fourth word of the counter separates the uses of one pixel
_DRAW_FIRST: Final = 0
_DRAW_REFINE: Final = 1
_DRAW_REJECT: Final = 2
_HALF: Final = np.uint64(32)


@njit(nogil=True, cache=True)
def _invert(u: float, mean: float) -> int:
    """The smallest k whose cumulative probability exceeds u."""
    p = math.exp(-mean)
    total, k = p, 0
    while u >= total:
        k += 1
        p *= mean / k
        if total + p == total and k > mean:  # rounding has ended the sum just below 1
            break
        total += p
    return k


@njit(nogil=True, cache=True)
def _cumulative(mean: float, size: int) -> NDArray[np.float64]:
    """Cumulative probabilities of the counts -1 ... size - 2."""
    out = np.zeros(size)
    p = math.exp(-mean)
    for k in range(1, size):
        out[k] = out[k - 1] + p
        p *= mean / k
    return out


@njit(nogil=True, cache=True)
def _certain_counts(low_mean: float, high_mean: float, bits: int, out: NDArray[np.uint8]) -> None:
    """The count of each cell of the uniform number where it is one for all means of the range, else _UNSURE."""
    low, high = _cumulative(low_mean, _UNSURE), _cumulative(high_mean, _UNSURE)
    step, k = 2.0**-bits, 0
    for cell in range(out.size):
        first, last = cell * step, (cell + 1) * step
        while k < _UNSURE - 2 and low[k + 1] <= first:
            k += 1
        out[cell] = k if low[k] <= first and last <= high[k + 1] else _UNSURE


@lru_cache(maxsize=1)
def mean_table() -> NDArray[np.uint8]:
    """(mean cell, uniform cell) -> count, for all means up to TABLE_MEAN; 4 MB, made once a process."""
    return _mean_table()


@njit(nogil=True, cache=True)
def _mean_table() -> NDArray[np.uint8]:
    out = np.empty((TABLE_MEAN * _MEAN_CELLS, 1 << _UNIFORM_BITS), np.uint8)
    for row in range(out.shape[0]):
        _certain_counts(row / _MEAN_CELLS, (row + 1) / _MEAN_CELLS, _UNIFORM_BITS, out[row])
    return out


@njit(nogil=True, cache=True)
def _reject(mean: float, c0: Any, y: Any, frame: Any, lane: int, k0: Any, k1: Any) -> int:
    """Algorithm PTRS; the uniform numbers of attempt i are those of the draw _DRAW_REJECT + LANES i + lane."""
    root = math.sqrt(mean)
    b = 0.931 + 2.53 * root
    a = -0.059 + 0.02483 * b
    inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
    v_r = 0.9277 - 3.6224 / (b - 2.0)
    draw = np.uint32(_DRAW_REJECT + lane)
    while True:
        w = block(c0, y, frame, draw, k0, k1)
        draw = np.uint32(draw + np.uint32(LANES))
        u, v = open_unit(w[0], w[1]) - 0.5, open_unit(w[2], w[3])
        us = 0.5 - abs(u)
        k = math.floor((2.0 * a / us + b) * u + mean + 0.43)
        if us >= 0.07 and v <= v_r:
            return int(k)
        if k < 0 or (us < 0.013 and v > us):
            continue
        left = math.log(v * inverse_alpha / (a / (us * us) + b))
        if left <= k * math.log(mean) - mean - math.lgamma(k + 1.0):
            return int(k)


@njit(inline="always")
def looked_up(mean: Any, word: Any, table: Any) -> Any:
    """(count, whether it is certain) of a mean >= 0 from 32 bits, without a branch."""
    row = np.uint32(min(mean * np.float32(_MEAN_CELLS), np.float32(TABLE_MEAN * _MEAN_CELLS - 1)))
    count = np.int64(table[row, word >> np.uint32(32 - _UNIFORM_BITS)])
    return count, (count != _UNSURE) & (mean < TABLE_MEAN)


@njit(nogil=True, cache=True)
def sure_count(mean: float, word: Any, key: np.uint64, frame: int, y: int, x: int) -> Any:
    """The count of one pixel from 32 bits by the inverse; large means take further words of (key, frame, y, x)."""
    if mean > TABLE_MEAN:
        return np.int64(_one(np.float64(mean), word, x, y, frame, np.uint32(key), np.uint32(key >> _HALF)))
    return np.int64(_invert(refined_unit(word, 1 << 31), np.float64(mean)))


@njit(nogil=True, cache=True)
def table_count(mean: float, word: Any, table: NDArray[np.uint8], key: np.uint64, frame: int, y: int, x: int) -> Any:
    """The count of one pixel from 32 bits: `looked_up`, or `sure_count` where that is not certain."""
    count, certain = looked_up(mean, word, table)
    return count if certain else sure_count(mean, word, key, frame, y, x)


@njit(inline="always")
def _one(mean: Any, word: Any, x: Any, y: Any, frame: Any, k0: Any, k1: Any) -> Any:
    """The count of one pixel without a table; `word` is its 32 leading bits."""
    if not mean > 0.0:
        return 0
    c0, lane = np.uint32(x // LANES), x % LANES
    if mean > TABLE_MEAN:
        return _reject(mean, c0, np.uint32(y), np.uint32(frame), lane, k0, k1)
    w = block(c0, np.uint32(y), np.uint32(frame), np.uint32(_DRAW_REFINE), k0, k1)
    low = w[0] if lane == 0 else w[1] if lane == 1 else w[2] if lane == 2 else w[3]
    return _invert(refined_unit(word, low), mean)


@njit(nogil=True, cache=True)
def _flat(
    mean: float, key: np.uint64, frame: int, y0: int, x0: int, guide: NDArray[np.uint8], limit: int, out: Any
) -> None:
    k0, k1 = np.uint32(key), np.uint32(np.uint64(key) >> _HALF)
    ny, nx = out.shape
    shift = np.uint32(32 - _FLAT_BITS)
    first = x0 // LANES
    words = np.empty((LANES, (x0 + nx + LANES - 1) // LANES - first), np.uint32)
    for row in range(ny):
        fill_words(words, first, y0 + row, frame, _DRAW_FIRST, key)
        for x in range(nx):
            at = x0 + x
            word = words[at % LANES, at // LANES - first]
            count = np.int64(guide[word >> shift])
            if count == _UNSURE:
                count = _one(mean, word, at, y0 + row, frame, k0, k1)
            out[row, x] = min(count, limit)


@njit(nogil=True, cache=True)
def _image(
    mean: Any, key: np.uint64, frame: int, y0: int, x0: int, table: NDArray[np.uint8], limit: int, out: Any
) -> None:
    k0, k1 = np.uint32(key), np.uint32(np.uint64(key) >> _HALF)
    ny, nx = out.shape
    shift = np.uint32(32 - _UNIFORM_BITS)
    first = x0 // LANES
    words = np.empty((LANES, (x0 + nx + LANES - 1) // LANES - first), np.uint32)
    for row in range(ny):
        fill_words(words, first, y0 + row, frame, _DRAW_FIRST, key)
        for x in range(nx):
            at = x0 + x
            word = words[at % LANES, at // LANES - first]
            m = np.float64(mean[row, x])
            count = np.int64(_UNSURE)
            if 0.0 <= m < TABLE_MEAN:
                count = np.int64(table[np.uint32(m * _MEAN_CELLS), word >> shift])
            if count == _UNSURE:
                count = _one(m, word, at, y0 + row, frame, k0, k1)
            out[row, x] = min(count, limit)


def limit_of(dtype: np.dtype[Any]) -> int:
    """The largest count that a dtype holds; larger ones are clipped to it."""
    return int(np.iinfo(dtype).max) if dtype.kind in "iu" else np.iinfo(np.int64).max


def flat_counts(mean: float, key: int, frame: int, y0: int, x0: int, out: NDArray[Any]) -> None:
    """Fill (ny, nx) with counts of one mean; the pixel out[0, 0] is (y0, x0) of the frame."""
    guide = np.full(1 << _FLAT_BITS, _UNSURE, np.uint8)
    if mean <= TABLE_MEAN:
        _certain_counts(mean, mean, _FLAT_BITS, guide)
    _flat(float(mean), np.uint64(key), frame, y0, x0, guide, limit_of(out.dtype), out)


def image_counts(mean: NDArray[np.floating[Any]], key: int, frame: int, y0: int, x0: int, out: NDArray[Any]) -> None:
    """Fill (ny, nx) with counts of the means (ny, nx); the same counts as `flat_counts` where the means agree."""
    _image(mean, np.uint64(key), frame, y0, x0, mean_table(), limit_of(out.dtype), out)


def add_counts(
    extra: NDArray[np.floating[Any]],
    at: tuple[NDArray[np.int64], NDArray[np.int64]],
    mean: NDArray[np.floating[Any]],
    keys: tuple[int, int],
    frame: int,
    y0: int,
    x0: int,
    out: NDArray[Any],
) -> None:
    """Add counts of the means `extra` at the pixels (y, x) of the frame to what `image_counts` gave, then clip.

    `keys` are those of the image and of the added counts; `mean` and `out` begin at (y0, x0).
    """
    first, second = (np.uint64(key) for key in keys)
    _add(extra, at[0], at[1], mean, first, second, frame, y0, x0, limit_of(out.dtype), out)


@njit(nogil=True, cache=True)
def _add(
    extra: Any,
    ys: NDArray[np.int64],
    xs: NDArray[np.int64],
    mean: Any,
    first: np.uint64,
    second: np.uint64,
    frame: int,
    y0: int,
    x0: int,
    limit: int,
    out: Any,
) -> None:
    for k in range(extra.size):
        y, x = ys[k], xs[k]
        base = _count_at(np.float64(mean[y - y0, x - x0]), first, frame, y, x)
        out[y - y0, x - x0] = min(base + _count_at(np.float64(extra[k]), second, frame, y, x), limit)


@njit(nogil=True, cache=True)
def _count_at(mean: float, key: np.uint64, frame: int, y: int, x: int) -> Any:
    """The count of one pixel: what the kernels of whole images give there."""
    k0, k1 = np.uint32(key), np.uint32(key >> _HALF)
    w = block(np.uint32(x // LANES), np.uint32(y), np.uint32(frame), np.uint32(_DRAW_FIRST), k0, k1)
    lane = x % LANES
    word = w[0] if lane == 0 else w[1] if lane == 1 else w[2] if lane == 2 else w[3]
    return np.int64(_one(mean, word, x, y, frame, k0, k1))
