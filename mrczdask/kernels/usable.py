"""The gate for floats: pixels that are not numbers are told apart before anything is summed, averaged or compared."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels import fill
from mrczdask.kernels.compiling import njit

LARGEST: Final = 2.0**53
"""A float beyond has no place for single counts: it is garbage, such as 1e30 of a defect, and would drown all others.
Integers of any size are counts."""


def unusable(image: NDArray[Any]) -> NDArray[np.bool_] | None:
    """True where a float is NaN, infinite or beyond LARGEST; None where none is, and for integers."""
    if image.dtype.kind != "f" or not image.size:
        return None
    good = np.abs(image) <= LARGEST  # a comparison with NaN is false
    return None if good.all() else ~good


def mended(image: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """An image (y, x) whose unusable pixels are filled from their neighbours, and those; zeros where none is usable."""
    bad = unusable(image)
    if bad is None:
        return image, None
    clean = np.where(bad, 0, image)
    if bad.all():
        return clean, bad
    out = np.empty((1, *clean.shape), np.result_type(clean.dtype, np.float32))
    fill.fill(clean[None], fill.make_plan(bad), out)
    return out[0], bad


def mended_images(images: NDArray[Any]) -> NDArray[Any]:
    """Images (n, y, x), each mended; the same array where there is nothing to do."""
    bad = unusable(images)
    if bad is None:
        return images
    odd = np.asarray(bad.any(axis=(1, 2)))
    return np.stack([mended(image)[0] if one else image for image, one in zip(images, odd, strict=True)])


def fill_around(frames: NDArray[Any], plan: fill.Plan, out: NDArray[Any]) -> None:
    """As `fill.fill`, where frames may hold unusable pixels that the plan does not know: they stay and fill none."""
    fill.fill(frames, plan, out)
    odd = unusable(frames)
    if odd is None:
        return
    bad = np.zeros(frames.shape[1:], bool)
    bad.ravel()[plan.pixel[plan.keep == 0]] = True
    bad |= plan.bad if plan.weight.size else False
    for k in np.flatnonzero((odd & ~bad).any(axis=(1, 2))).tolist():
        hidden = bad | odd[k]
        weight = np.where(hidden, np.float32(0), plan.weight) if plan.weight.size else None
        fill.fill(frames[k : k + 1], fill.make_plan(hidden, weight), out[k : k + 1])
        out[k][odd[k] & ~bad] = frames[k][odd[k] & ~bad]


class Unusable(NamedTuple):
    """Values that were left out of a sum: their number, and where the first is; -1 for none."""

    values: int
    frame: int
    y: int
    x: int


NONE_UNUSABLE: Final = Unusable(0, -1, -1, -1)


def add_floats(frames: NDArray[Any], total: NDArray[np.float64]) -> Unusable:
    """Add float frames (n, y, x) to their sum (y, x), which is NaN where a pixel of any of them is unusable."""
    if not frames.size:
        return NONE_UNUSABLE
    wide = frames if frames.dtype in (np.float32, np.float64) and frames.dtype.isnative else frames.astype(np.float64)
    return Unusable(*_add_floats(np.ascontiguousarray(wide), total, LARGEST))


@njit(nogil=True, cache=True)
def _add_floats(frames: Any, total: NDArray[np.float64], largest: float) -> tuple[int, int, int, int]:
    """A row of all frames after the other; the sum of these frames is added as a whole, as numpy adds it."""
    n, ny, nx = frames.shape
    row = np.empty(nx)
    count, at_f, at_y, at_x = 0, -1, -1, -1
    for y in range(ny):
        row[:] = 0.0
        for f in range(n):
            odd = 0
            for x in range(nx):
                value = np.float64(frames[f, y, x])
                odd += not abs(value) <= largest
                row[x] += value
            if odd:
                for x in range(nx):
                    if not abs(np.float64(frames[f, y, x])) <= largest:
                        count += 1
                        row[x] = np.nan
                        if at_f < 0 or f < at_f:
                            at_f, at_y, at_x = f, y, x
        for x in range(nx):
            total[y, x] += row[x]
    return count, at_f, at_y, at_x
