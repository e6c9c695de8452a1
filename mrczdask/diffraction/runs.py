"""Some shots of a run whose beam wanders: bins span the radii of all its shots, whichever are asked for."""

from __future__ import annotations

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.io.frame_set import MASK


def within_run(
    images: xr.DataArray, centers: NDArray[np.float64], place: NDArray[np.int64]
) -> tuple[xr.DataArray, NDArray[np.float64]]:
    """Frames that are the shots `place` of a run, and one block after them that stands for the others; their centres.

    The block is never computed: what is made of all shots is cut to the first ones.
    """
    others = np.delete(centers, place, axis=0)
    shape = (len(others), *images.shape[1:])
    data = da.concatenate([images.data, da.zeros(shape, images.dtype, chunks=shape)])
    kept = {MASK: images.coords[MASK]} if MASK in images.coords else {}
    whole = xr.DataArray(data, kept, (schema.SHOT, schema.Y, schema.X), attrs=images.attrs)
    return whole, np.concatenate([centers[place], others])
