"""Frames copied into an HDF5 file, where they cannot be linked: a block of them in memory at a time."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.errors import MrczdaskError
from mrczdask.execution.progress import Progress, track
from mrczdask.execution.regions import run_regions
from mrczdask.io.frame_set import FRAME_DIMS
from mrczdask.io.grown_store import GZIP

_BYTES = 64 << 20
"""Of a block of frames in memory."""


def copy_frames(
    group: Any, name: str, frames: xr.DataArray, shots: NDArray[Any], target: str, progress: Progress = None
) -> None:
    """Write the frames of some shots into an HDF5 group, each a chunk of its own, packed by gzip.

    Raises
    ------
    MrczdaskError
        The frames are not (shot, y, x) numbers, or a shot is none of them.
    """
    if frames.dims != FRAME_DIMS or frames.dtype.kind not in "iuf":
        raise MrczdaskError(f"{target}: {frames.dtype} {frames.dims}: only numbers of {FRAME_DIMS} are copied")
    labels = frames[schema.SHOT].values if schema.SHOT in frames.coords else np.arange(len(frames))
    order = np.argsort(labels, kind="stable")
    place = np.minimum(np.searchsorted(labels, shots, sorter=order), max(len(labels) - 1, 0))
    if len(shots) and (not len(labels) or (labels[order[place]] != shots).any()):
        raise MrczdaskError(
            f"{target}: the frames lack some of the {len(shots)} shots of the peaks: give the same frames"
        )
    data = _lazy(frames)[order[place]] if len(shots) else _lazy(frames)[:0]
    made = group.create_dataset(name, data.shape, data.dtype, chunks=(1, *data.shape[1:]), **GZIP)
    at = 0
    with track(progress, data.numblocks[0], f"{target}: frames") as advance:
        for _, block in run_regions(enumerate(data.to_delayed().ravel()), on_done=advance):
            made[at : at + len(block)] = block
            at += len(block)


def _lazy(frames: xr.DataArray) -> da.Array:
    step = max(_BYTES // max(4 * frames.shape[1] * frames.shape[2], 1), 1)
    if not isinstance(frames.data, da.Array):
        return frames.chunk({schema.SHOT: step, schema.Y: -1, schema.X: -1}).data
    return frames.data.rechunk({1: -1, 2: -1})
