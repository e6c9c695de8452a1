"""Pixels of an opened movie or archive into memory, without the copy that a Dask array makes of its chunks."""

from __future__ import annotations

import itertools

import numpy as np
import xarray as xr
from dask.delayed import delayed

from mrczdask.execution.progress import Progress, track
from mrczdask.execution.regions import run_regions
from mrczdask.execution.schedulers import current_client
from mrczdask.io.movie_array import movie_array
from mrczdask.io.shard_reader import stored_array


def load(images: xr.DataArray, *, progress: Progress = None) -> xr.DataArray:
    """Read a movie, a session or an array of an archive into memory.

    Chunks are decoded on threads straight into one array; `.compute()` decodes them and then copies them together.
    What is not straight from `open_movie`, `open_session` or `open_archive`, or runs on a cluster, is computed.

    Parameters
    ----------
    images : DataArray
        (..., frame, y, x).
    progress : None, True or callable

    Returns
    -------
    DataArray
        The same, over a numpy array.
    """
    chunks = images.chunks
    source = movie_array(images.data) or stored_array(images.data) if chunks is not None else None
    if chunks is None or source is None or current_client() is not None:
        return images.compute()
    out = np.empty(images.shape, images.dtype)
    edges = [[0, *np.cumsum(sizes).tolist()] for sizes in chunks]
    regions = list(itertools.product(*(itertools.starmap(slice, itertools.pairwise(stops)) for stops in edges)))
    read = delayed(source.read_into, pure=False, traverse=False)
    tasks = ((region, read(out[region], region)) for region in regions)
    with track(progress, len(regions), "read") as advance:
        for _ in run_regions(tasks, ordered=False, on_done=advance):
            pass
    return images.copy(data=out)
