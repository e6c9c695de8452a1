"""Open diffraction frames of any format as a lazy DataArray."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import xarray as xr

from mrczdask import schema
from mrczdask.errors import MrcFormatError
from mrczdask.io.frame_set import FRAME_DIMS, MASK, SCAN_DIMS, FrameSet, as_array, join_sets
from mrczdask.io.hdf5_file import is_hdf5
from mrczdask.io.movie import EER_SUFFIXES, TIFF_SUFFIXES, Chunks, open_file
from mrczdask.io.session import expand_urls
from mrczdask.io.shot_identity import DATASET, SOURCE, SOURCE_FRAMES
from mrczdask.io.source import absolute, unwrapped_name

HDF5_SUFFIXES: Final = (".h5", ".hdf5", ".nxs", ".cxi", ".hdf", ".nx", ".emd", ".hspy")
MRC_SUFFIXES: Final = (".mrc", ".mrcs", ".mrcz", ".map", ".st", ".rec", ".ali")
MOVIE_SUFFIXES: Final = (*MRC_SUFFIXES, *TIFF_SUFFIXES, *EER_SUFFIXES)


def open_frames(
    url: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    dataset: str | None = None,
    scan_shape: tuple[int, int] | None = None,
    mask: str | bool | None = None,
    threshold: int | str | None = None,
    chunks: Chunks = "auto",
    storage_options: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Open diffraction frames as a lazy array; no pixel is read.

    Parameters
    ----------
    url : str, path or list of them
        A file, a pattern ("run_*.cbf") or several files, whose frames are taken one after another: HDF5 (.h5, .nxs,
        .cxi: an Eiger or NeXus master with its data files, virtual datasets, plain datasets), CBF and whatever else
        FabIO reads, NanoMEGAS .blo, Merlin .mib, MRC and MRCZ, TIFF, EER, Zarr. Local or at any url fsspec knows.
    dataset : str, optional
        The dataset in an HDF5 file, or the array in a Zarr store, where the file does not tell it. In HDF5 it may be
        a pattern: "tag-*/data" takes one after another.
    scan_shape : (int, int), optional
        (scan_y, scan_x) of a scan whose file does not tell it.
    mask : str or False, optional
        The dataset of the mask in an HDF5 file, where it is not that of the detector; False: none.
    threshold : int or str, optional
        The images of one energy threshold of a file that holds those of several: its number from 1, or its name.
    chunks : "auto", mapping, int or None
        Dask chunks. "auto": whole frames, 32 to 128 MB a chunk when counted at 4 bytes a pixel. None: lazy without
        Dask.
    storage_options : mapping, optional
        Passed to the fsspec file system.

    Returns
    -------
    xarray.DataArray
        `images` (shot, y, x), or (scan_y, scan_x, ky, kx) for 4D-STEM, as stored; (shot, threshold, y, x) and
        (shot, panel, y, x) where the file holds several thresholds or modules of a detector. The coordinate `mask`
        (y, x) bool, True = bad, where the file holds one, lazy, or (shot, y, x) where it holds one for each frame;
        `beam_center_y`, `beam_center_x` (shot) where `write_frames` kept those of a beam that wanders; attributes
        `beam_center` [y, x] in pixels from the outer edge of the first, `pixel_size_m` [y, x], `distance_m`,
        `wavelength_m` where it tells them. Which numbers are counts: those from `underload_value` to
        `saturation_value`, but those within `delta_dummy` of `dummy`; and `counts_per_photon`, `data_scaling_factor`
        and `data_offset`. Verbs go by all of them.

    Raises
    ------
    MrcFormatError
        A file is not what it should be, is truncated, or a data file is missing that a master file names. Files that
        are opened together differ in depth, distance, wavelength, beam centre or mask. The file does not say what its
        axes are, or has no such threshold.
    MissingExtraError
        HDF5 needs h5py and hdf5plugin, CBF and the like FabIO.
    FileNotFoundError
        There is no such file.
    ValueError
        No file is given, files of several formats are, or `scan_shape` does not fit.

    Notes
    -----
    HDF5 chunks are read by their byte ranges and unpacked outside the HDF5 library, whose lock would let only one
    thread work; bitshuffle with LZ4 or Zstandard, LZ4, Zstandard, Blosc, gzip and shuffle are. Others go through h5py.
    Links are followed to the file that holds the pixels, which is looked for where the HDF5 library looks. Of a pattern
    that takes a master and its data files each frame is read once.

    Examples
    --------
    >>> import mrczdask as md
    >>> _ = md.write_mrcz(md.simulate.poisson((4, 64, 64), mean=1.0, seed=0), "frames.mrcz")
    >>> md.open_frames("frames.mrcz").dims
    ('shot', 'y', 'x')
    >>> md.open_frames("frames.mrcz", scan_shape=(2, 2)).sizes["scan_y"]
    2
    """
    urls = [absolute(one) for one in expand_urls(url, storage_options=storage_options)]
    kinds = {_kind(one) for one in urls}
    if len(kinds) > 1:
        raise ValueError(f"{urls[0]} and others: {', '.join(sorted(kinds))} files together: open them one by one")
    (kind,) = kinds
    if kind == "Zarr":
        return _of_zarr(urls, dataset, chunks, storage_options)
    if threshold is not None and kind != "HDF5":
        raise ValueError(f"{urls[0]}: {kind} files hold one threshold: leave out threshold=")
    if kind == "HDF5":
        said = {"dataset": dataset, "mask": mask, "threshold": threshold, "is_scan": scan_shape is not None}
        frames, urls = _of_hdf5(urls, storage_options, said)
    else:
        frames = _open(kind, urls, storage_options)
    images = as_array(_scanned(frames, scan_shape), chunks)
    images.encoding |= {SOURCE: urls} | ({DATASET: dataset} if dataset else {})
    readers = getattr(frames.reader, "readers", ()) if len(urls) > 1 else (frames.reader,)
    if len(readers) == len(urls):
        per_shot = 1 if frames.scan is None or frames.dims == SCAN_DIMS else frames.scan[1]
        images.encoding[SOURCE_FRAMES] = [reader.shape[0] // per_shot for reader in readers]
    return images


def _kind(url: str) -> str:
    """By what the file is, as far as it tells, else by its suffix."""
    name = unwrapped_name(url.rstrip("/")).lower()
    known = {HDF5_SUFFIXES: "HDF5", (".blo",): "block", (".mib",): "Merlin", (".zarr",): "Zarr", MOVIE_SUFFIXES: "MRC"}
    kind = next((kind for suffixes, kind in known.items() if name.endswith(suffixes)), "FabIO")
    return "HDF5" if kind != "HDF5" and is_hdf5(url) else kind


def _of_hdf5(
    urls: Sequence[str], options: Mapping[str, Any] | None, said: Mapping[str, Any]
) -> tuple[FrameSet, list[str]]:
    """The frames of HDF5 files, each once, and the files that they are opened from."""
    from mrczdask.io.hdf5_frames import open_hdf5_frames
    from mrczdask.io.same_frames import each_once

    sets = [open_hdf5_frames(url, storage_options=options, **said) for url in urls]
    kept = each_once(sets)
    return join_sets([sets[k] for k in kept]), [urls[k] for k in kept]


def _open(kind: str, urls: Sequence[str], options: Mapping[str, Any] | None) -> FrameSet:
    if kind == "FabIO":
        from mrczdask.io.fabio_frames import open_fabio_frames

        return open_fabio_frames(urls, options)
    if kind == "MRC":
        return join_sets([_of_movie(url, options) for url in urls])
    from mrczdask.io.plain_frames import open_blo, open_mib

    opener = open_blo if kind == "block" else open_mib
    return join_sets([opener(url, options) for url in urls])


def _of_movie(url: str, options: Mapping[str, Any] | None) -> FrameSet:
    movie = open_file(url, storage_options=options)
    if len(movie.reader.shape) != 3:
        raise MrcFormatError(f"pixels of {movie.reader.shape[3:]} bands are no diffraction frames", url=url)
    return FrameSet(movie.reader, attrs=movie.attrs)


def _scanned(frames: FrameSet, scan: tuple[int, int] | None) -> FrameSet:
    if scan is None:
        return frames
    if len(scan) != 2 or scan[0] * scan[1] != frames.reader.shape[0]:
        raise ValueError(f"{frames.reader.url}: {frames.reader.shape[0]} frames are no scan of {tuple(scan)}")
    kept = frames.coords if scan == frames.scan else {}
    return replace(frames, scan=(int(scan[0]), int(scan[1])), dims=SCAN_DIMS, coords=kept)


def _of_zarr(
    urls: Sequence[str], dataset: str | None, chunks: Chunks, options: Mapping[str, Any] | None
) -> xr.DataArray:
    import dask.array as da
    import zarr
    from dask.base import tokenize

    from mrczdask.io.revisions import revisions
    from mrczdask.io.stores import open_store

    if len(urls) > 1:
        raise ValueError(f"{urls[0]} and others: open Zarr stores one by one")
    store = open_store(urls[0], options, read_only=True)
    root = zarr.open(store, mode="r")
    array = root if isinstance(root, zarr.Array) else root.get(dataset or schema.IMAGES)
    if not isinstance(array, zarr.Array):
        listed = ", ".join(name for name, _ in root.arrays()) if isinstance(root, zarr.Group) else ""
        raise MrcFormatError(
            f"there is no array {dataset or schema.IMAGES}, only: {listed}: give dataset=", url=urls[0]
        )
    if array.ndim not in (3, 4) or np.dtype(array.dtype).kind not in "iuf":
        raise MrcFormatError(f"{array.dtype} {array.shape}: no frames", url=urls[0])
    dims = FRAME_DIMS if array.ndim == 3 else SCAN_DIMS
    attrs = {name: value for name, value in array.attrs.asdict().items() if not name.startswith("_")}
    name = f"from-zarr-{tokenize(revisions(store, {schema.IMAGES: array}))}"
    images = xr.DataArray(da.from_zarr(array, name=name), dims=dims, attrs=attrs, name=schema.IMAGES)
    if array.ndim == 3:
        images = images.assign_coords({schema.SHOT: range(array.shape[0])})
    mask = root.get(MASK) if isinstance(root, zarr.Group) else None
    if isinstance(mask, zarr.Array) and mask.shape in (array.shape, array.shape[-2:]):
        images = images.assign_coords({MASK: (dims[-mask.ndim :], da.from_zarr(mask) != 0)})
    return images if chunks in ("auto", None) else images.chunk(chunks)
