"""Masks of bad pixels as they are given: refused where they would hide what they should keep."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask.movies.arrays import one_chunk

MAX_BAD: Final = 0.1
"""Share of bad pixels above which a mask is taken for one of the good pixels: detectors lose 1 % or less, and a column
of a read-out of 16 or 32 blocks at most a few more."""


def plausible(mask: xr.DataArray, verb: str, max_bad: float = MAX_BAD) -> xr.DataArray:
    """The mask itself; ValueError where more than `max_bad` of its pixels (y, x) are bad.

    At once where it is in memory, else when it is computed.
    """
    if not 0 < max_bad <= 1:
        raise ValueError(f"{verb}: max_bad={max_bad}: give a share of the pixels, above 0 and up to 1")
    ordered = mask.transpose(..., "y", "x")
    if not isinstance(ordered.data, da.Array):
        checked(np.asarray(ordered.data), verb, max_bad)
        return mask
    if max_bad == 1:
        return mask
    whole = one_chunk(ordered.data)
    check = partial(checked, verb=verb, max_bad=max_bad)
    data = da.map_blocks(check, whole, dtype=whole.dtype, meta=np.empty((0,) * whole.ndim, whole.dtype))
    return ordered.copy(data=data)


def checked(mask: NDArray[Any], verb: str, max_bad: float = MAX_BAD) -> NDArray[Any]:
    """The mask (..., y, x) itself, or ValueError."""
    size = mask.shape[-2] * mask.shape[-1]
    worst = np.count_nonzero(mask, axis=(-2, -1)).max(initial=0) / max(size, 1)
    if worst > max_bad:
        raise ValueError(
            f"{verb}: the mask calls {worst:.0%} of the pixels bad (True, or not 0 in a file, is bad): give its "
            f"inverse if it marks the good ones, else max_bad={np.ceil(worst * 100) / 100:g}"
        )
    return mask
