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
from mrczdask.io.frame_links import link_frames, sources_of
from mrczdask.io.geometry import Geometry
from mrczdask.io.grown_store import GZIP, GrownStore, grown_store
from mrczdask.io.peak_file import CXI_FIELDS, CXI_RESULT, CXI_SHOTS, NEXUS_FIELDS, NEXUS_PEAKS, open_peaks
from mrczdask.io.peak_table import PEAKS
from mrczdask.io.ragged import Block, Ragged, split
from mrczdask.io.sparse_table import CENTER

SHOTS: Final = 512
"""Shots of a block of a table in memory, and of a chunk of counts."""
ROWS: Final = 1 << 16
"""Peaks of a chunk of a list."""
_PADDED: Final = (64, 64)
"""Shots and peaks of a chunk of a padded table."""
CXI_VERSION: Final = 160
_FRAMES: Final = "entry_1/data_1"
_BEAM: Final = "entry_1/instrument_1/beam_1"


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
        The frames as `open_frames` gave them, or their HDF5 file: linked from a .cxi file, not copied.
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
        The name has another ending, the table has no peaks, the frames cannot be linked, or the geometry is not one
        whose beam moves, where the peaks have a beam centre of each shot.

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
    table = peaks if isinstance(peaks, Ragged) else split(_checked(peaks, target), PEAKS, SHOTS)
    if table.layout != PEAKS:
        raise MrczdaskError(
            f"{target}: these are rows of {', '.join(table.layout.columns)}: give what find_peaks returns"
        )
    if geometry is not None and CENTER[0] in table.header.coords:
        geometry.moved(geometry.beam_center)
    pieces = table.pieces()
    with track(progress, len(pieces), target) as advance:
        blocks = (piece.block for _, piece in run_regions(enumerate(pieces), on_done=advance))
        if target.endswith(".parquet"):
            _write_parquet(target, table, blocks)
        elif target.endswith(".cxi"):
            _write_cxi(target, table, blocks, frames, geometry)
        else:
            _write_nexus(target, table, blocks)
    return open_peaks(target)


def _checked(peaks: xr.Dataset, path: str) -> xr.Dataset:
    missing = [name for name in (PEAKS.pointer, *PEAKS.columns) if name not in peaks]
    if missing:
        raise MrczdaskError(f"{path}: the table lacks {', '.join(missing)}: give what find_peaks returns")
    return peaks


def settings_of(table: Ragged) -> str:
    """What the peaks were found with, as JSON."""
    known = {name: value for name, value in table.attrs.items() if name not in (schema.HISTORY, schema.PROVENANCE)}
    return json.dumps({name: value for name, value in known.items() if isinstance(value, str | int | float | list)})


def _write_cxi(path: str, table: Ragged, blocks: Iterator[Block], frames: Any, geometry: Geometry | None) -> None:
    sources = None if frames is None else sources_of(frames, path)
    with grown_store(path, filters=GZIP) as store:
        store.put("cxi_version", np.int32(CXI_VERSION))
        store.group("", {"default": "entry_1"})
        store.group("entry_1", {"NX_class": "NXentry", "default": "result_1"})
        store.group(CXI_RESULT, {"NX_class": "NXdata", "signal": "nPeaks"})
        store.growing(f"{CXI_RESULT}/nPeaks", (0,), (SHOTS,), np.int32)
        for name in CXI_FIELDS:
            store.root.create_dataset(
                f"{CXI_RESULT}/{name}", (0, 0), np.float32, chunks=_PADDED, maxshape=(None, None), **GZIP
            )
        for block in blocks:
            _append_padded(store, block)
        process = f"{CXI_RESULT}/process_1"
        store.group(process, {"NX_class": "NXprocess"})
        store.text(f"{process}/program", "mrczdask")
        store.text(f"{process}/version", mrczdask.__version__)
        store.text(f"{process}/metadata", settings_of(table))
        if geometry is not None:
            _describe(store, geometry)
        _follow_beam(store, table, geometry)
        if sources is not None:
            store.group(_FRAMES, {"NX_class": "NXdata", "signal": "data"})
            link_frames(store.root[_FRAMES], "data", sources, table.header[schema.SHOT].values, path)
    if geometry is not None:
        follows = CENTER[0] in table.header.coords
        write_geom(f"{path.removesuffix('.cxi')}.geom", geometry, dummy=table.attrs.get("dummy"), follows_beam=follows)


def _follow_beam(store: GrownStore, table: Ragged, geometry: Geometry | None) -> None:
    """The beam of each shot in pixels, and how far CrystFEL must shift the detector for it, in its x and y."""
    centers = _centers(table)
    for name, values in centers.items():
        store.put(f"{CXI_SHOTS}/{name}", values, {"units": "pixel"})
    if geometry is not None and centers:
        for name, values in frame_shifts(geometry, np.stack([centers[name] for name in CENTER], axis=1)).items():
            store.put(name, values, {"units": "mm"})


def _centers(table: Ragged) -> dict[str, Any]:
    """(shot) of the beam, y and x, where it is known of each shot."""
    return {name: table.header[name].values for name in CENTER if name in table.header.coords}


def _append_padded(store: GrownStore, block: Block) -> None:
    """Rows of peaks of each shot, padded with zeros; the table grows as wide as the fullest shot."""
    counts = block.counts.astype(np.int32)
    store.append(f"{CXI_RESULT}/nPeaks", counts)
    shot = np.repeat(np.arange(counts.size), counts)
    place = np.arange(shot.size) - block.pointer[:-1].astype(np.int64)[shot]
    with np.errstate(divide="ignore", invalid="ignore"):
        values = {
            "peakXPosRaw": block.columns["x"],
            "peakYPosRaw": block.columns["y"],
            "peakTotalIntensity": block.columns["intensity"],
            "peakSNR": block.columns["intensity"] / block.columns["sigma"],
        }
    for name in CXI_FIELDS:
        array = store.root[f"{CXI_RESULT}/{name}"]
        n = array.shape[0]
        array.resize((n + counts.size, max(array.shape[1], int(counts.max(initial=0)))))
        if shot.size:
            rows = np.zeros((counts.size, array.shape[1]), np.float32)
            rows[shot, place] = values[name]
            array[n:] = rows


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
        store.group(NEXUS_PEAKS, {"NX_class": "NXdata", "signal": "spots", "settings": settings_of(table)})
        store.put(f"{NEXUS_PEAKS}/shot", table.header[schema.SHOT].values)
        for name, values in _centers(table).items():
            store.put(f"{NEXUS_PEAKS}/{name}", values, {"units": "pixel"})
        store.growing(f"{NEXUS_PEAKS}/spots", (0,), (SHOTS,), np.int32)
        store.growing(f"{NEXUS_PEAKS}/frame_ptr", (0,), (SHOTS,), np.int64)
        store.append(f"{NEXUS_PEAKS}/frame_ptr", np.zeros(1, np.int64))
        for name, column in NEXUS_FIELDS.items():
            store.growing(f"{NEXUS_PEAKS}/{name}", (0,), (ROWS,), _stored(column))
        stored = 0
        for block in blocks:
            store.append(f"{NEXUS_PEAKS}/spots", block.counts.astype(np.int32))
            store.append(f"{NEXUS_PEAKS}/frame_ptr", block.pointer[1:].astype(np.int64) + stored)
            stored += int(block.counts.sum())
            for name, column in NEXUS_FIELDS.items():
                store.append(f"{NEXUS_PEAKS}/{name}", block.columns[column].astype(_stored(column)))


def _stored(column: str) -> np.dtype[Any]:
    """pyFAI stores flat indices as int32."""
    return np.dtype(np.int32) if column == "index" else PEAKS.columns[column]


def _write_parquet(path: str, table: Ragged, blocks: Iterator[Block]) -> None:
    try:
        import pyarrow  # type: ignore[import-untyped,unused-ignore]
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError(f"{path}: Parquet needs pyarrow: pip install 'mrczdask[parquet]'") from None
    labels = table.header[schema.SHOT].values
    about = {"shots": json.dumps(labels.tolist()), "settings": settings_of(table)}
    about |= {name: json.dumps(values.tolist()) for name, values in _centers(table).items()}
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
