"""Peaks in files: CXI for CrystFEL, NeXus as pyFAI writes it, Zarr and Parquet, appended block by block."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final

import numpy as np
import xarray as xr

import mrczdask
from mrczdask import schema
from mrczdask.errors import MissingExtraError, MrczdaskError
from mrczdask.execution.progress import Progress, track
from mrczdask.execution.regions import run_regions
from mrczdask.io.crystfel_geom import CXI_DETECTOR, frame_shifts, write_geom
from mrczdask.io.frame_copies import copy_frames
from mrczdask.io.frame_links import can_be_linked, link_frames, sources_of
from mrczdask.io.frames import open_frames
from mrczdask.io.geometry import Geometry
from mrczdask.io.grown_store import GZIP, GrownStore, grown_store
from mrczdask.io.peak_file import CXI_RESULT, CXI_SHOTS, open_peaks
from mrczdask.io.peak_rows import PaddedPeaks, PeakLists, as_peaks, beam_of, settings_of
from mrczdask.io.peak_table import PEAKS
from mrczdask.io.ragged import Block, Ragged
from mrczdask.io.shot_identity import put_identity, stored_identity
from mrczdask.io.source import is_remote
from mrczdask.io.sparse_table import CENTER

CXI_VERSION: Final = 160
_FRAMES: Final = "entry_1/data_1"
_BEAM: Final = "entry_1/instrument_1/beam_1"
_SUFFIXES: Final = (".cxi", ".h5", ".hdf5", ".nxs", ".parquet", ".zarr")


def write_peaks(
    peaks: Ragged | xr.Dataset,
    path: str | os.PathLike[str],
    *,
    frames: xr.DataArray | str | os.PathLike[str] | None = None,
    geometry: Geometry | None = None,
    progress: Progress = None,
) -> Ragged:
    """Write peaks for CrystFEL (.cxi), as NeXus (.h5, .nxs), Parquet or Zarr.

    Parameters
    ----------
    peaks : Ragged or Dataset
        What `find_peaks` gave, or its `.compute()`.
    path : str or path
        A name that ends in .cxi, .h5, .hdf5, .nxs, .parquet or .zarr. What is there is replaced when the new one is
        whole.
    frames : DataArray, str or path, optional
        The frames as `open_frames` gave them, or their file: linked from a .cxi file where they are HDF5, else copied
        into it, a block at a time.
    geometry : Geometry, optional
        Written into a .cxi file and, as CrystFEL reads it, into a .geom file of the same name beside it.
    progress : bool or callable, optional
        Show a bar, or call progress(done, total, label) as blocks are done.

    Returns
    -------
    Ragged
        The file, opened.

    Raises
    ------
    MissingExtraError
        HDF5 needs h5py, Parquet pyarrow.
    MrczdaskError
        The name has another ending, the table has no peaks, the frames are not those of the peaks, or the geometry is
        not one whose beam moves, where the peaks have a beam centre of each shot.

    Notes
    -----
    Blocks are computed by the scheduler in force and appended in order. Tables are packed by gzip, which CrystFEL reads
    without a plugin. In .cxi files `peakXPosRaw` is x (fast) and `peakYPosRaw` y (slow), an integer being the centre of
    a pixel, and peakSNR = intensity / sigma; rows are padded with zeros.

    Peaks about the beam of each shot keep their centres in every format. A .cxi file has them in pixels and, given a
    geometry, as `det_shift_x_mm`, `det_shift_y_mm`, by which the .geom file says that CrystFEL shifts the detector of
    each frame: the pixels of a frame then lie about its own beam.

    Examples
    --------
    >>> import numpy as np
    >>> import mrczdask as md
    >>> frames = np.full((2, 64, 64), 3, np.uint16)
    >>> frames[1, 10:12, 12:14] = 900
    >>> geometry = md.Geometry.flat((64, 64), wavelength_m=1e-10)
    >>> peaks = md.find_peaks(frames, geometry, bins=16, unit="pixel")
    >>> md.write_peaks(peaks, "run.cxi", geometry=geometry).n_peaks.values.tolist()
    [0, 1]
    """
    target = os.fspath(path)
    check_name(target)
    table = as_peaks(peaks, target)
    if geometry is not None and "shape" in table.attrs:
        geometry = geometry.framed(table.attrs["shape"])
    if geometry is not None and CENTER[0] in table.header.coords:
        geometry.moved(geometry.beam_center)
    pieces = table.pieces()
    with track(progress, len(pieces), target) as advance:
        blocks = (piece.block for _, piece in run_regions(enumerate(pieces), on_done=advance))
        if target.endswith(".parquet"):
            _write_parquet(target, table, blocks)
        elif target.endswith(".cxi"):
            _write_cxi(target, table, blocks, frames, geometry, progress)
        else:
            _write_nexus(target, table, blocks)
    return open_peaks(target)


def check_name(path: str) -> None:
    """Raise unless peaks can be written under a name.

    Raises
    ------
    MrczdaskError
        The name has another ending, or its folder is missing.
    """
    if not path.rstrip("/").endswith(_SUFFIXES):
        raise MrczdaskError(f"{path}: give a name that ends in {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}")
    if not is_remote(path) and not os.path.isdir(folder := os.path.dirname(path.rstrip("/")) or "."):
        raise MrczdaskError(f"{path}: there is no folder {folder}: make it first")


def _write_cxi(
    path: str, table: Ragged, blocks: Iterator[Block], frames: Any, geometry: Geometry | None, progress: Progress
) -> None:
    linked = frames is not None and can_be_linked(frames)
    sources = sources_of(frames, path) if linked else []
    copied = None if linked or frames is None else _opened(frames)
    with grown_store(path, filters=GZIP) as store:
        store.put("cxi_version", np.int32(CXI_VERSION))
        store.group("", {"default": "entry_1"})
        store.group("entry_1", {"NX_class": "NXentry", "default": "result_1"})
        store.group(CXI_RESULT, {"NX_class": "NXdata", "signal": "nPeaks"})
        padded = PaddedPeaks(store, CXI_RESULT)
        for block in blocks:
            padded.append(block)
        process = f"{CXI_RESULT}/process_1"
        store.group(process, {"NX_class": "NXprocess"})
        store.text(f"{process}/program", "mrczdask")
        store.text(f"{process}/version", mrczdask.__version__)
        store.text(f"{process}/metadata", settings_of(table))
        if geometry is not None:
            _describe(store, geometry)
        put_identity(store, CXI_SHOTS, table.header)
        _follow_beam(store, table, geometry)
        if frames is not None:
            store.group(_FRAMES, {"NX_class": "NXdata", "signal": "data"})
            where = store.root[_FRAMES], "data"
            shots = table.header[schema.SHOT].values
            if copied is None:
                link_frames(*where, sources, shots, path)
            else:
                copy_frames(*where, copied, shots, path, progress)
    if geometry is not None:
        follows = CENTER[0] in table.header.coords
        dummy = table.attrs.get("dummy"), table.attrs.get("delta_dummy") or 0.0
        write_geom(f"{path.removesuffix('.cxi')}.geom", geometry, dummy=dummy, follows_beam=follows)


def _opened(frames: Any) -> xr.DataArray:
    return frames if isinstance(frames, xr.DataArray) else open_frames(frames)


def _follow_beam(store: GrownStore, table: Ragged, geometry: Geometry | None) -> None:
    """The beam of each shot in pixels, and how far CrystFEL must shift the detector for it, in its x and y."""
    centers = beam_of(table)
    for name, values in centers.items():
        store.put(f"{CXI_SHOTS}/{name}", values, {"units": "pixel"})
    if geometry is not None and centers:
        for name, values in frame_shifts(geometry, np.stack([centers[name] for name in CENTER], axis=1)).items():
            store.put(name, values, {"units": "mm"})


def _describe(store: GrownStore, geometry: Geometry) -> None:
    """The detector and the beam, as CXI names them; lengths in metres, the corner of the first pixel as origin."""
    store.group("entry_1/instrument_1", {"NX_class": "NXinstrument"})
    store.group(CXI_DETECTOR, {"NX_class": "NXdetector"})
    corner = geometry.positions([-0.5], [-0.5])[:, 0]
    metres = {"units": "m"}
    store.put(f"{CXI_DETECTOR}/distance", geometry.distance_m, metres)
    store.put(f"{CXI_DETECTOR}/x_pixel_size", geometry.pixel_size_m[1], metres)
    store.put(f"{CXI_DETECTOR}/y_pixel_size", geometry.pixel_size_m[0], metres)
    store.put(f"{CXI_DETECTOR}/mask", geometry.mask.astype(np.uint32))
    store.group(f"{CXI_DETECTOR}/geometry_1", {"NX_class": "NXgeometry"})
    store.put(f"{CXI_DETECTOR}/geometry_1/translation", corner[::-1])
    along = geometry.positions([-0.5, -0.5, 0.5], [-0.5, 0.5, -0.5])[::-1]
    steps = [(along[:, k] - along[:, 0]) / np.linalg.norm(along[:, k] - along[:, 0]) for k in (1, 2)]
    store.put(f"{CXI_DETECTOR}/geometry_1/orientation", np.concatenate(steps))
    if geometry.wavelength_m is not None:
        store.group(_BEAM, {"NX_class": "NXbeam"})
        store.put(f"{_BEAM}/incident_wavelength", geometry.wavelength_m, metres)


def _write_nexus(path: str, table: Ragged, blocks: Iterator[Block]) -> None:
    with grown_store(path, filters=GZIP) as store:
        creator = f"mrczdask {mrczdask.__version__}"
        store.group("", {"NX_class": "NXroot", "creator": creator, "default": "entry_0000"})
        store.group("entry_0000", {"NX_class": "NXentry", "default": "peaks"})
        lists = PeakLists(store, table)
        for block in blocks:
            lists.append(block)


def _write_parquet(path: str, table: Ragged, blocks: Iterator[Block]) -> None:
    try:
        import pyarrow  # type: ignore[import-untyped,unused-ignore]
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError(f"{path}: Parquet needs pyarrow: pip install 'mrczdask[parquet]'") from None
    labels = table.header[schema.SHOT].values
    about = {"shots": json.dumps(labels.tolist()), "settings": settings_of(table)}
    about |= {name: json.dumps(values.tolist()) for name, values in beam_of(table).items()}
    if stored := stored_identity(table.header):
        about["image_files"] = json.dumps({name: np.asarray(one).tolist() for name, one in stored.items()})
    fields = [("shot", pyarrow.from_numpy_dtype(labels.dtype))]
    fields += [(name, pyarrow.from_numpy_dtype(dtype)) for name, dtype in PEAKS.columns.items()]
    layout = pyarrow.schema(fields, metadata=about)
    part = f"{path}.part"
    try:
        with ExitStack() as stack:
            writer = stack.enter_context(parquet.ParquetWriter(part, layout))
            for block in blocks:
                shots, labels = np.repeat(labels[: block.counts.size], block.counts), labels[block.counts.size :]
                columns = [shots, *(block.columns[name] for name in PEAKS.columns)]
                writer.write_table(pyarrow.table(list(map(pyarrow.array, columns)), schema=layout))
        os.replace(part, path)
    finally:
        if os.path.exists(part):
            os.remove(part)
