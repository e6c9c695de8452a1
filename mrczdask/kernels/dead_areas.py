"""Lines and blocks of pixels that never count, of any width, told from where no electron comes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mrczdask.kernels.compiling import njit
from mrczdask.kernels.local_level import RADIUS, TILE, tile_sums

_LEAST_SIDE: Final = 3
_LEAST_RUN: Final = 16
"""Smaller groups of empty pixels are judged one by one, beside their neighbours."""
_SMALL: Final = 2 * RADIUS + 1
"""What the box of a pixel spans is judged pixel by pixel where it is no block."""
_SURE: Final = 7.0
"""An area is empty by chance with a probability below exp(-7) over the whole image."""
_MIDDLE: Final = 0.5
"""Quantile of the levels of the tiles that is taken for the level of an image."""
_RING: Final = 3
"""Width of the strips beside a rectangle that tell its level."""
_AROUND: Final = 10
_PIECE: Final = 10.0
"""Events in the pieces of strips that are looked at."""
_LIVELY: Final = 0.25
_SEALED_BLOCK: Final = 0.75
_SEALED_LINE: Final = 0.4
"""Share of the pieces that must count, each by this share of the mean: a dead line may run on into the dark."""
_LINE: Final = 3
_SURE_BLOCK: Final = 40.0
"""Events that a block lacks and a line does not need to: a shadow that lets a sixth through is not empty then."""
_MOST: Final = 0.8
_ALL: Final = 0.95
"""Shares of a line of a block that are empty, at first and at last: empty good pixels fray its outline."""
_ROUNDS: Final = 4
"""What is left of an area when its rectangles are taken out is looked at again."""
_LARGEST: Final = 0.25
"""Share of the image above which an empty area is taken for unlit; a read-out may lose a quadrant."""


@dataclass(frozen=True)
class Areas:
    """Pixels of dead lines and blocks, and of empty areas of another shape or size, where no beam may be."""

    dead: NDArray[np.bool_]
    unlit: NDArray[np.bool_]


def empty_areas(counts: NDArray[np.float32], out: NDArray[np.bool_]) -> Areas | None:
    """Areas without a count that cannot be empty by chance; None where there is none.

    A line of L or a square of k x k empty pixels is looked for, of exp(-L level) and exp(-k^2 level) below exp(-7)
    over the number of pixels. What touches is one area. Its rectangles, and lines right across it, are dead where the
    pixels beside them count; an area without any is unlit.
    """
    level = _lit_level(counts) if counts.size and counts.min() <= 0 else 0.0
    if not level > 0:
        return None
    evidence = float(np.log(counts.size)) + _SURE
    side = max(int(np.ceil(np.sqrt(max(_SURE_BLOCK, evidence) / level))), _LEAST_SIDE)
    run = max(int(np.ceil(evidence / level)), _LEAST_RUN)
    wide = empty_runs(counts, out, side, run)
    if not wide.any():
        return None
    dead, unlit = np.zeros(counts.shape, bool), np.zeros(counts.shape, bool)
    for _ in range(_ROUNDS):
        labels, _ = ndimage.label(wide, np.ones((3, 3)))
        for k, box in enumerate(ndimage.find_objects(labels), 1):
            area = labels[box] == k
            found = False
            for rows, columns in _rectangles(area):
                y, x = (slice(a.start + b.start, a.start + b.stop) for a, b in zip(box, (rows, columns), strict=True))
                inside = area[rows, columns]
                if inside.sum() <= _LARGEST * counts.size and _sealed(counts, out | dead, (y, x), level, evidence):
                    dead[y, x] |= inside
                    found = True
            if not found:
                wide[box] &= ~area
                large = min(area.shape) > _SMALL and np.count_nonzero(area) * level > max(_SURE_BLOCK, evidence)
                if large:  # but for lines that run into it
                    core = ndimage.minimum_filter(area.view(np.uint8), _SMALL, mode="nearest")
                    unlit[box] |= area & (ndimage.maximum_filter(core, _SMALL, mode="nearest") > 0)
        wide &= ~dead
        if not wide.any():
            break
    return Areas(dead, unlit)


def _lit_level(counts: NDArray[np.float32]) -> float:
    """Level of the middle one of the tiles that are lit."""
    sums = tile_sums(counts)
    sizes = np.outer(*(np.diff(np.append(np.arange(0, n, TILE), n)) for n in counts.shape))
    means = (sums / sizes)[sums > 0]
    return float(np.quantile(means, _MIDDLE)) if means.size else 0.0


def _rectangles(area: NDArray[np.bool_]) -> list[tuple[slice, slice]]:
    """The lines right across an area, and the rectangle in the middle of it."""
    found: list[tuple[slice, slice]] = []
    for axis in (0, 1):
        whole = slice(0, area.shape[axis])
        bands, _ = ndimage.label(area.all(axis=axis))
        for (band,) in ndimage.find_objects(bands):
            found.append((whole, band) if axis == 0 else (band, whole))
    rows, columns = slice(0, area.shape[0]), slice(0, area.shape[1])
    for share in (_MOST, _ALL):
        rows = _longest(area[:, columns].mean(axis=1), share)
        columns = _longest(area[rows].mean(axis=0), share)
    core = (rows, columns)
    return [*found, core] if area[core].size and area[core].mean() >= _ALL else found


def _longest(shares: NDArray[np.floating], least: float) -> slice:
    """The longest run of lines whose shares reach `least` of the largest one."""
    if not shares.size:
        return slice(0, 0)
    runs, n = ndimage.label(shares >= least * shares.max())
    return max((run for (run,) in ndimage.find_objects(runs)), key=lambda s: s.stop - s.start) if n else slice(0, 0)


def _sealed(
    counts: NDArray[np.float32], out: NDArray[np.bool_], box: tuple[slice, slice], lit: float, evidence: float
) -> bool:
    """Whether the pixels along most of the sides of a rectangle count, so that it cannot be empty by chance."""
    height, width = (s.stop - s.start for s in box)
    line = min(height, width) <= _LINE or height == counts.shape[0] or width == counts.shape[1]
    axes = [k for k, n in enumerate((height, width)) if n <= _LINE and max(height, width) > _LINE] or [0, 1]
    sides = [(axis, before) for axis in axes for before in (0, 1)]  # at the ends of a line a hot pixel may be
    levels = [_level(*_beside(counts, out, box, *side, _AROUND)) for side in sides]
    level = min((found for found in levels if found is not None), default=0.0)
    if level * height * width < (evidence if line else max(_SURE_BLOCK, evidence)):
        return False
    least, usual = _SEALED_LINE if line else _SEALED_BLOCK, max(level, lit)
    shares = [_lively(*_beside(counts, out, box, *side, _RING), side[0], usual) for side in sides]
    return min((share for share in shares if share is not None), default=0.0) >= least


def _beside(
    counts: NDArray[np.float32], out: NDArray[np.bool_], box: tuple[slice, slice], axis: int, before: int, width: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Counts beside one side of a rectangle, and which of them are usable."""
    strip = list(box)
    edge = box[axis].start if before else box[axis].stop
    strip[axis] = slice(max(edge - width, 0), edge) if before else slice(edge, edge + width)
    return counts[tuple(strip)], ~out[tuple(strip)]


def _level(strip: NDArray[np.float32], use: NDArray[np.bool_]) -> float | None:
    """Level of a strip, whatever hot pixels there are: by how many pixels are empty, where some are."""
    values = strip[use]
    if not values.size:
        return None
    empty = max(int(np.count_nonzero(values <= 0)), 0.5) / values.size
    clipped = np.clip(values, 0, np.quantile(values, 0.9) + 1)
    return min(float(clipped.mean(dtype=np.float64)), -float(np.log(empty)))


def _lively(strip: NDArray[np.float32], use: NDArray[np.bool_], axis: int, level: float) -> float | None:
    """Share of the pieces of a strip that count; None for none."""
    total, pixels = (np.maximum(strip, 0) * use).sum(axis=axis, dtype=np.float64), use.sum(axis=axis)
    if pixels.sum() * level < _PIECE / 2:
        return None
    starts = np.arange(0, total.size, max(int(np.ceil(_PIECE / (level * _RING))), 1))
    total, pixels = np.add.reduceat(total, starts), np.add.reduceat(pixels, starts)
    return float((total > _LIVELY * level * pixels).sum() / max((pixels > 0).sum(), 1))


@njit(nogil=True, cache=True)
def empty_runs(counts: NDArray[np.float32], out: NDArray[np.bool_], side: int, run: int) -> NDArray[np.bool_]:
    """Pixels in lines of `run` empty pixels or more, or in squares of `side` x `side`; `out` counts as empty."""
    ny, nx = counts.shape
    found = np.zeros((ny, nx), np.bool_)
    down, tall = np.zeros(nx, np.int64), np.zeros(nx, np.int64)
    corners = np.zeros((ny, nx), np.bool_)
    some = False
    for y in range(ny):
        across = 0
        for x in range(nx):
            empty = counts[y, x] <= 0 or out[y, x]
            across = across + 1 if empty else 0
            down[x] = down[x] + 1 if empty else 0
            if across == run:
                found[y, x - run + 1 : x + 1] = True
            elif across > run:
                found[y, x] = True
            if down[x] == run:
                found[y - run + 1 : y + 1, x] = True
            elif down[x] > run:
                found[y, x] = True
            tall[x] = tall[x] + 1 if across >= side else 0
            if tall[x] >= side:
                corners[y, x] = True
                some = True
    if some:
        _grow(corners, side, found)
    return found


@njit(nogil=True, cache=True)
def _grow(corners: NDArray[np.bool_], side: int, found: NDArray[np.bool_]) -> None:
    """Mark the square whose last corner each corner is."""
    ny, nx = corners.shape
    below = np.zeros(nx, np.int64)
    for y in range(ny - 1, -1, -1):
        left = 0
        for x in range(nx - 1, -1, -1):
            below[x] = side if corners[y, x] else max(below[x] - 1, 0)
            left = side if below[x] > 0 else max(left - 1, 0)
            if left > 0:
                found[y, x] = True
