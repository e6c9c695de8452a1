"""Movies over Dask arrays to TIFF files, frame by frame as they are computed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.execution.progress import Progress, track
from mrczdask.execution.regions import run_regions
from mrczdask.io.movie import open_movie


def to_tiff(
    frames: xr.DataArray,
    target: str,
    progress: Progress,
    *,
    metadata: Mapping[str, Any] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Write a movie (frame, y, x) over a Dask array as a TIFF, and open it."""
    from mrczdask.io.tiff_writer import write_tiff

    frames = frames.chunk({frames.dims[1]: -1, frames.dims[2]: -1})
    attrs = frames.attrs if metadata is None else {**frames.attrs, schema.METADATA: dict(metadata)}
    blocks = frames.data.to_delayed().ravel()
    with track(progress, len(blocks), os.path.basename(target)) as advance:

        def images() -> Iterator[NDArray[Any]]:
            for _, block in run_regions(enumerate(blocks), on_done=advance):
                yield from np.asarray(block)

        write_tiff(
            images(),
            target,
            shape=frames.shape,
            dtype=frames.dtype,
            attrs=attrs,
            coords=frames.coords,
            storage_options=storage_options,
        )
    return open_movie(target, storage_options=storage_options)
