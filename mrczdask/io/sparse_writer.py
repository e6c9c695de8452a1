"""Sparse frames written as pyFAI does, so that FabIO reads them, or as ImageD11 does."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any, Final, Literal, get_args

import numpy as np
import xarray as xr

import mrczdask
from mrczdask import schema
from mrczdask.errors import MrczdaskError
from mrczdask.execution.progress import Progress
from mrczdask.io.geometry import Geometry
from mrczdask.io.grown_store import GZIP, GrownStore, grown_store
from mrczdask.io.hdf5_file import Options
from mrczdask.io.peak_file import NEXUS_PEAKS
from mrczdask.io.peak_rows import PaddedPeaks, PeakLists, as_peaks
from mrczdask.io.ragged import Ragged
from mrczdask.io.sparse import ENTRY, FRAMES, open_sparse, plan_in
from mrczdask.io.sparse_blocks import Columns, KeptBlocks, computed_blocks, peaks_in, plan_of
from mrczdask.io.sparse_input import as_sparse
from mrczdask.io.sparse_sectors import axis_and_map, beside, unit_of
from mrczdask.io.sparse_table import CENTER, EMPTY, RESPONSE, SETTINGS, TABLES, masked_value
from mrczdask.io.suffixes import format_of
from mrczdask.kernels.places import filled

ROWS: Final = 1 << 19
"""Stored pixels of a chunk: 1 to 4 MB."""
SHOTS: Final = 512
"""Shots of a chunk of backgrounds and pointers, and of a block of a table in memory."""
SCAN: Final = "1.1"
"""The group ImageD11 looks for first: scan 1.1 of a session."""
_DETECTOR: Final = f"{ENTRY}/beamline/Detector"

Layout = Literal["pyfai", "imaged11"]


def write_sparse(
    sparse: Ragged | xr.Dataset,
    url: str | os.PathLike[str],
    *,
    layout: Layout = "pyfai",
    peaks: Ragged | xr.Dataset | None = None,
    geometry: Geometry | None = None,
    resume: bool = False,
    progress: Progress = None,
    storage_options: Options = None,
) -> Ragged:
    """Write sparse frames in the layout of pyFAI and FabIO, or of ImageD11.

    Parameters
    ----------
    sparse : Ragged or Dataset
        What `sparsify` gave, or its `.compute()`.
    url : str or path
        A name that ends in .h5, .hdf5 or .nxs, or in .zarr, the latter also at any url fsspec knows. What is there is
        replaced when the new one is whole.
    layout : {"pyfai", "imaged11"}
        ImageD11's has no background: the frames cannot be made dense again from it.
    peaks : Ragged or Dataset, optional
        What `find_peaks` gave for the same frames, best with the same `background`: computed and written together with
        the pixels, so that each frame is read once. `open_peaks(url)` gives them back.
    geometry : Geometry, optional
        Of the detector, to be written too. By default what the attributes of the table say of it.
    resume : bool
        Keep blocks in the folder URL.blocks until all are done: a run that was killed goes on where it was. A file
        that is whole and was made in the same way is opened, and nothing computed.
    progress : bool or callable, optional
        Show a bar, or call progress(done, total, label) as blocks are done.
    storage_options : mapping, optional
        Passed to the fsspec file system.

    Returns
    -------
    Ragged
        The file, opened.

    Raises
    ------
    MissingExtraError
        HDF5 files need h5py and hdf5plugin.
    MrczdaskError
        The table has no background, the dummy does not fit its dtype, the peaks are of other shots, or the name has
        another ending, or that of an HDF5 file in an object store.
    ResumeError
        What is to be resumed was begun in another way.
    ValueError
        The layout is not known, or has no place for peaks.

    Notes
    -----
    Blocks are computed by the scheduler in force; memory is that of a few blocks. Pixels are sorted, pointers are
    uint64. Empty bins of the background, NaN in memory, are interpolated over, as FabIO needs. Beam centres of the
    shots are stored too; pyFAI and FabIO know of none, and take the geometry's. Sectors are stored so that FabIO fills
    each from its own bins, without interpolating between them. Peaks are kept as lists with pointers, and in HDF5 also
    as pyFAI's sparse files have them, in tables (shot, peak) padded with zeros.

    Examples
    --------
    >>> import numpy as np, os, tempfile
    >>> import mrczdask as md
    >>> sparse = md.sparsify(np.ones((2, 64, 64), np.uint16), md.Geometry.flat((64, 64)), bins=16, unit="pixel")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     len(md.write_sparse(sparse, os.path.join(folder, "run.zarr")))
    2
    """
    save_sparse(sparse, url, layout, geometry, resume, progress, storage_options, peaks)
    return open_sparse(url, storage_options=storage_options)


def save_sparse(
    sparse: Ragged | xr.Dataset,
    url: str | os.PathLike[str],
    layout: Layout = "pyfai",
    geometry: Geometry | None = None,
    resume: bool = False,
    progress: Progress = None,
    storage_options: Options = None,
    peaks: Ragged | xr.Dataset | None = None,
) -> None:
    """As `write_sparse`, and what was written is not opened."""
    if layout not in get_args(Layout):
        raise ValueError(f"layout={layout!r}: give one of {', '.join(get_args(Layout))}")
    path = os.fspath(url)
    format_of(path, ("hdf5", "zarr"))
    table = as_sparse(sparse, SHOTS)
    tables = TABLES if layout == "pyfai" else ()
    missing = [name for name in (*tables, "pixel_radius") if name not in table.header]
    if missing and layout == "pyfai":
        raise MrczdaskError(f"{path}: the table lacks {', '.join(missing)}: write what sparsify returns")
    dummy = _dummy(table, path)
    beside = None if peaks is None else _peaks_beside(peaks, table, layout, path)
    plan = plan_of(table, layout, beside) if resume else {}
    if resume and plan_in(path, storage_options) == plan:
        return
    with _kept(KeptBlocks(f"{path}.blocks", storage_options or {}) if resume else None) as kept:
        blocks: Iterator[Columns] = computed_blocks(
            table, tables, kept=kept, plan=plan, progress=progress, label=path, peaks=beside
        )
        filters = GZIP if layout == "imaged11" else None
        with grown_store(path, filters=filters, storage_options=storage_options) as store:
            if layout == "imaged11":
                _image_d11(store, table, blocks, path)
                return
            with ThreadPoolExecutor(1) as other:
                header = other.submit(_header, store, table, dummy, _facts(geometry, table.attrs))
                blocks = chain(list(islice(blocks, 1)), blocks)
                plan = plan or plan_of(table, layout, beside)
                header.result()
            _pyfai(store, blocks, [] if beside is None else _peak_arrays(store, beside, path))
            store.text(f"{ENTRY}/sparsify/plan", json.dumps(plan))


@contextmanager
def _kept(blocks: KeptBlocks | None) -> Iterator[KeptBlocks | None]:
    """Finished blocks, removed when all went well."""
    yield blocks
    if blocks is not None:
        blocks.remove()


def _peaks_beside(peaks: Ragged | xr.Dataset, table: Ragged, layout: str, path: str) -> Ragged:
    """The peaks of the shots of a table, in the blocks of its shots."""
    if layout != "pyfai":
        raise ValueError(f"layout={layout!r} has no place for peaks: leave them out, and write them with write_peaks")
    labels, of_peaks = table.header[schema.SHOT].values, peaks[schema.SHOT].values
    if not np.array_equal(labels, of_peaks):
        differ = "other ones" if labels.size == of_peaks.size else f"{labels.size} shots"
        problem = f"the peaks are of {of_peaks.size} shots, the sparse frames of {differ}"
        raise MrczdaskError(f"{path}: {problem}: give the peaks of the same frames")
    found = as_peaks(peaks, path, table.chunks)
    if found.chunks != table.chunks:
        problem = "the peaks are in blocks of other shots than the sparse frames"
        raise MrczdaskError(f"{path}: {problem}: find them in the same frames, or give peaks.compute()")
    return found


def _peak_arrays(store: GrownStore, peaks: Ragged, path: str) -> list[PeakLists | PaddedPeaks]:
    """What takes the peaks of each block; pyFAI and CrystFEL, whom padded tables are for, read HDF5 only."""
    if path.endswith(".zarr"):
        return [PeakLists(store, peaks)]
    return [PeakLists(store, peaks, "nPeaks"), PaddedPeaks(store, NEXUS_PEAKS)]


def _dummy(table: Ragged, path: str) -> float:
    """The value of masked pixels in the dtype of the table."""
    dtype = table.layout.columns["intensity"]
    dummy = masked_value(dtype, table.attrs)
    if dtype.kind == "f":
        return dummy
    limits = np.iinfo(dtype)
    if not limits.min <= dummy <= limits.max or dummy != int(dummy):
        raise MrczdaskError(f"{path}: the dummy {dummy:g} does not fit {dtype}: give the frames another dummy=")
    return dummy


def _facts(geometry: Geometry | None, attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Of the detector: the geometry counts before what the frames said."""
    names = ("distance_m", "pixel_size_m", "beam_center", "wavelength_m")
    known = {name: attrs[name] for name in names if attrs.get(name) is not None}
    return known if geometry is None else known | geometry.facts()


def _pyfai(store: GrownStore, blocks: Iterable[Columns], peaks: list[PeakLists | PaddedPeaks]) -> None:
    stored, shots, empty = np.uint64(0), 0, [np.empty(0, np.uint64)]
    for block in blocks:
        store.append(f"{FRAMES}/frame_ptr", np.cumsum(block["counts"], dtype=np.uint64) + stored)
        stored += np.uint64(block["index"].size)
        for name in ("index", "intensity"):
            store.append(f"{FRAMES}/{name}", block[name])
        for name in TABLES if len(block["counts"]) else ():
            store.append(f"{FRAMES}/{name}", np.stack([filled(row).reshape(-1) for row in block[name]]))
        seen = np.isfinite(block[TABLES[0]]).reshape(len(block["counts"]), -1).any(axis=1)
        empty.append((shots + np.flatnonzero(~seen)).astype(np.uint64))
        shots += seen.size
        for arrays in peaks:
            arrays.append(peaks_in(block))
    if sum(part.size for part in empty):
        store.put(f"{FRAMES}/{EMPTY}", np.concatenate(empty))


def _image_d11(store: GrownStore, table: Ragged, blocks: Iterable[Columns], path: str) -> None:
    ny, nx = map(int, table.attrs["shape"])
    if max(ny, nx) > np.iinfo(np.uint16).max:
        raise MrczdaskError(f"{path}: frames of {(ny, nx)}: ImageD11 keeps rows and columns in 16 bits")
    dtype = table.layout.columns["intensity"]
    store.group(SCAN, {"itype": dtype.name, "nframes": len(table), "shape0": ny, "shape1": nx})
    store.growing(f"{SCAN}/nnz", (0,), (SHOTS,), np.int64)
    for name, kind in {"row": np.uint16, "col": np.uint16, "intensity": dtype}.items():
        store.growing(f"{SCAN}/{name}", (0,), (ROWS,), kind)
    for block in blocks:
        row, column = np.divmod(block["index"], np.uint32(nx))
        store.append(f"{SCAN}/nnz", block["counts"].astype(np.int64))
        store.append(f"{SCAN}/row", row.astype(np.uint16))
        store.append(f"{SCAN}/col", column.astype(np.uint16))
        store.append(f"{SCAN}/intensity", block["intensity"])


def _header(store: GrownStore, table: Ragged, dummy: float, facts: Mapping[str, Any]) -> None:
    header, attrs = table.header, table.attrs
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    creator = f"pyFAI (written by mrczdask {mrczdask.__version__})"
    store.group("", {"NX_class": "NXroot", "creator": creator, "default": ENTRY})
    store.group(ENTRY, {"NX_class": "NXentry", "default": "sparse_frames", "pyFAI_sparse_frames": f"/{FRAMES}"})
    store.group(FRAMES, {"NX_class": "NXdata", "signal": "background_avg", "axes": [".", "radius"]})
    store.text(f"{ENTRY}/program_name", "mrczdask")
    store.text(f"{ENTRY}/start_time", now)
    store.group(f"{ENTRY}/sparsify", {"NX_class": "NXprocess"})
    store.group(f"{ENTRY}/sparsify/configuration", {"NX_class": "NXnote"})
    settings = {name: attrs[name] for name in SETTINGS if name in attrs} | {"dummy": dummy}
    store.text(f"{ENTRY}/sparsify/configuration/type", "text/json")
    store.text(f"{ENTRY}/sparsify/configuration/data", json.dumps({"geometry": facts, "sparsify": settings}))
    _detector(store, facts)
    axis, places = axis_and_map(header)
    store.growing(f"{FRAMES}/frame_ptr", (0,), (SHOTS,), np.uint64)
    store.append(f"{FRAMES}/frame_ptr", np.zeros(1, np.uint64))
    for name, dtype in table.layout.columns.items():
        store.growing(f"{FRAMES}/{name}", (0,), (ROWS,), dtype)
    shots = max(1, SHOTS * header.sizes["radius"] // axis.size)
    for name in TABLES:
        store.growing(f"{FRAMES}/{name}", (0, axis.size), (shots, axis.size), np.float32)
    for name, values in {"radius": axis, "mask": places, **beside(header)}.items():
        store.put(f"{FRAMES}/{name}", values, unit_of(name, header))
    store.put(f"{FRAMES}/dummy", np.float64(dummy))
    if "normalization" in header.coords:
        store.put(f"{FRAMES}/normalization", header["normalization"].values)
    for name in (*CENTER, RESPONSE):
        if name in header.coords:
            store.put(f"{FRAMES}/{name}", header[name].values.astype(np.float64))


def _detector(store: GrownStore, facts: Mapping[str, Any]) -> None:
    """The detector as pyFAI writes it; `monchromator` is spelled as there."""
    if not facts:
        return
    store.group(_DETECTOR.rpartition("/")[0], {"NX_class": "NXinstrument"})
    store.group(_DETECTOR, {"NX_class": "NXdetector"})
    for name, key, unit in (
        ("beam_center", "beam_center_{}", "pixel"),
        ("pixel_size_m", "{}_pixel_size", "m"),
    ):
        for axis, value in zip("yx", facts.get(name, ()), strict=False):
            store.put(f"{_DETECTOR}/{key.format(axis)}", float(value), {"units": unit})
    if "distance_m" in facts:
        store.put(f"{_DETECTOR}/distance", float(facts["distance_m"]), {"units": "m"})
    if "wavelength_m" in facts:
        beam = f"{ENTRY}/beamline/monchromator"
        store.group(beam, {"NX_class": "NXmonochromator"})
        store.put(f"{beam}/wavelength", 1e10 * float(facts["wavelength_m"]), {"units": "angstrom"})
