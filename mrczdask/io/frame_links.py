"""Frames of HDF5 files seen from another file, without a copy: links and virtual datasets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from mrczdask.errors import MrczdaskError
from mrczdask.io.frames import HDF5_SUFFIXES, open_frames
from mrczdask.io.grown_store import GZIP, grown_store
from mrczdask.io.hdf5_file import hdf5
from mrczdask.io.hdf5_frames import frame_datasets
from mrczdask.io.session import expand_urls
from mrczdask.io.shot_identity import DATASET, SOURCE


@dataclass(frozen=True)
class _Source:
    """A dataset of frames, the first of them and how many."""

    file: str
    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    first: int


def sources_of(frames: xr.DataArray | str | os.PathLike[str] | Sequence[str], target: str) -> list[_Source]:
    """The HDF5 datasets that hold frames.

    Raises
    ------
    MrczdaskError
        The frames do not come from HDF5 files.
    """
    urls: Any = frames
    dataset = None
    if isinstance(frames, xr.DataArray):
        urls, dataset = frames.encoding.get(SOURCE), frames.encoding.get(DATASET)
        if urls is None:
            raise MrczdaskError(f"{target}: the frames do not say their file: give its name as frames=")
    files = expand_urls(urls)
    if len(files) > 1 and all(url.lower().endswith(HDF5_SUFFIXES) for url in files):
        files = open_frames(files, dataset=dataset, chunks=None).encoding[SOURCE]  # a master without its data files
    found: list[_Source] = []
    for url in files:
        if not url.lower().endswith(HDF5_SUFFIXES):
            raise MrczdaskError(f"{target}: {url} is no HDF5 file and cannot be linked: write_frames makes one")
        for place, shape, dtype in frame_datasets(url, dataset):
            first = found[-1].first + found[-1].shape[0] if found else 0
            if len(shape) != 3:
                shape = (int(np.prod(shape[:-2])), *shape[-2:])
                raise MrczdaskError(f"{target}: {url} holds a scan, {shape[0]} frames: only (shot, y, x) is linked")
            found.append(_Source(place.url, place.path, shape, dtype, first))
    return found


def can_be_linked(frames: xr.DataArray | str | os.PathLike[str] | Sequence[str]) -> bool:
    """Whether frames are in HDF5 files as they are."""
    urls: Any = frames.encoding.get(SOURCE) if isinstance(frames, xr.DataArray) else frames
    return bool(urls) and all(url.lower().endswith(HDF5_SUFFIXES) for url in expand_urls(urls))


def link_frames(group: Any, name: str, sources: Sequence[_Source], shots: NDArray[Any], target: str) -> None:
    """Put the frames of some shots into an HDF5 group: a link to a whole dataset, else a virtual dataset."""
    h5py = hdf5(target)
    total = sources[-1].first + sources[-1].shape[0]
    numbers = np.asarray(shots)
    if numbers.dtype.kind not in "iu" or (numbers.size and not (numbers.min() >= 0 and numbers.max() < total)):
        raise MrczdaskError(f"{target}: the shots {numbers[:3]}... are no numbers of the {total} frames")
    folder = os.path.dirname(os.path.abspath(target))
    files = [os.path.relpath(os.path.abspath(source.file), folder) for source in sources]
    if len(sources) == 1 and np.array_equal(numbers, np.arange(total)):
        group[name] = h5py.ExternalLink(files[0], sources[0].path)
        return
    first = sources[0]
    layout = h5py.VirtualLayout((numbers.size, *first.shape[1:]), first.dtype)
    for source, file in zip(sources, files, strict=True):
        inside = np.flatnonzero((numbers >= source.first) & (numbers < source.first + source.shape[0]))
        seen = h5py.VirtualSource(file, source.path, source.shape, source.dtype)
        for run in _runs(inside, numbers):
            begin = int(numbers[run[0]]) - source.first
            layout[int(run[0]) : int(run[-1]) + 1] = seen[begin : begin + run.size]
    group.create_virtual_dataset(name, layout)


def _runs(places: NDArray[np.int64], numbers: NDArray[Any]) -> list[NDArray[np.int64]]:
    """Places that follow one another, of frames that do."""
    if not places.size:
        return []
    ends = np.flatnonzero((np.diff(places) != 1) | (np.diff(numbers[places].astype(np.int64)) != 1)) + 1
    return np.split(places, ends)


def link_hits(
    frames: xr.DataArray | str | os.PathLike[str], hit: ArrayLike, path: str | os.PathLike[str]
) -> xr.DataArray:
    """Write a file that shows the hits among the frames of HDF5 files: a virtual dataset, no pixel is copied.

    Parameters
    ----------
    frames : DataArray, str or path
        As `open_frames` gave them, or their file.
    hit : array of bool
        (shot,), such as `veto(...).hit`.
    path : str or path
        A name that ends in .h5, .hdf5, .nxs or .cxi. What is there is replaced.

    Returns
    -------
    DataArray
        The hits, opened; lazy.

    Raises
    ------
    MrczdaskError
        The frames are not in HDF5 files, `hit` is not of as many shots, or there is no hit.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> import mrczdask as md
    >>> frames = xr.DataArray(np.arange(3 * 64 * 64, dtype="u4").reshape(3, 64, 64), dims=("shot", "y", "x"))
    >>> written = md.write_frames(frames, "run.h5")
    >>> hits = md.link_hits(written, [True, False, True], "hits.h5")
    >>> bool((hits.values == frames.values[[0, 2]]).all())
    True
    """
    target = os.fspath(path)
    chosen = np.asarray(hit, bool).reshape(-1)
    sources = sources_of(frames, target)
    total = sources[-1].first + sources[-1].shape[0]
    if chosen.size != total:
        raise MrczdaskError(f"{target}: hit is of {chosen.size} shots, the files hold {total} frames")
    if not chosen.any():
        raise MrczdaskError(f"{target}: no shot is a hit: there is nothing to link")
    with grown_store(target, filters=GZIP) as store:
        store.group("", {"NX_class": "NXroot", "default": "entry"})
        store.group("entry", {"NX_class": "NXentry", "default": "data"})
        store.group("entry/data", {"NX_class": "NXdata", "signal": "data"})
        store.put("entry/data/shot", np.flatnonzero(chosen))
        link_frames(store.root["entry/data"], "data", sources, np.flatnonzero(chosen), target)
    return open_frames(target)
