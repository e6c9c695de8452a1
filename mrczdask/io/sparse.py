"""Sparse frames in files: the layout of pyFAI and FabIO in HDF5 and Zarr, and ImageD11's."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.errors import MrcFormatError
from mrczdask.io.damaged import damaged
from mrczdask.io.hdf5_file import Options
from mrczdask.io.hdf5_rows import rows_of
from mrczdask.io.ragged import Ragged, layer_of
from mrczdask.io.source import absolute
from mrczdask.io.sparse_fields import text_of
from mrczdask.io.sparse_header import SCAN, image_d11_header, image_d11_scans, pyfai_header
from mrczdask.io.sparse_source import SparseFile, opened, stamp
from mrczdask.io.sparse_table import SECTOR, TABLES, sparse_layout

ENTRY: Final = "entry_0000"
FRAMES: Final = "entry_0000/sparse_frames"
BLOCK_BYTES: Final = 128 << 20
"""Of the dense frames of one block, at 4 bytes a pixel."""
WIDE_ROWS: Final = 1 << 22
"""Stored pixels of a block of a table whose frames are not made dense."""


def open_sparse(
    url: str | os.PathLike[str],
    *,
    scan: str | None = None,
    shots: int | None = None,
    storage_options: Options = None,
) -> Ragged:
    """Open sparse diffraction frames: as pyFAI, LIMA, `write_sparse` or ImageD11 write them.

    Parameters
    ----------
    url : str or path
        An HDF5 file or a .zarr folder, local or at any url fsspec knows.
    scan : str, optional
        One scan of a file of ImageD11, such as "1.1". By default all of them, one after another.
    shots : int, optional
        Shots of a block: as many as are 128 MB of dense frames by default.
    storage_options : mapping, optional
        Passed to the fsspec file system.

    Returns
    -------
    Ragged
        Lazy, as `sparsify` gives it. ImageD11's files have no background; the coordinate `scan` (shot) names the scan
        of each frame. Attributes say what the frames were
        sparsified with, and of the detector `beam_center`, `pixel_size_m`, `distance_m`, `wavelength_m` where known.

    Raises
    ------
    MissingExtraError
        HDF5 files need h5py and hdf5plugin.
    MrcFormatError
        The file holds no sparse frames, an array of it has another shape or dtype than it must or numbers that cannot
        be, its pointers or indices lead nowhere, or a piece of it is damaged or lost. There is no such scan, or scans
        that are opened together differ in shape or dtype.

    Examples
    --------
    >>> import numpy as np, os, tempfile
    >>> import mrczdask as md
    >>> frames = np.full((2, 64, 64), 3, np.uint16)
    >>> frames[1, 10, 12] = 900
    >>> sparse = md.sparsify(frames, md.Geometry.flat((64, 64)), bins=16, unit="pixel")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = md.write_sparse(sparse, os.path.join(folder, "run.zarr"))
    ...     md.open_sparse(os.path.join(folder, "run.zarr")).compute()["intensity"].values.tolist()
    [900]
    """
    path = absolute(os.fspath(url))
    with damaged(path, "the sparse frames do not open"):
        parts = _found(path, scan, storage_options)
    header = parts[0].header if len(parts) == 1 else _joined([part.header for part in parts])
    mark = stamp(path, storage_options)
    graph: dict[Any, Any] = {}
    counts: list[int] = []
    wanted = [replace(part.source, tables={}) for part in parts], [part.pointer for part in parts]
    name = f"sparse-{tokenize(*wanted, mark, shots)}"
    for part in parts:
        source, pointer = part.source, part.pointer
        edges = _edges(pointer.size - 1, max(1, shots or BLOCK_BYTES // (4 * max(source.pixels, 1))))
        for a, b in pairwise(edges):
            graph[(name, len(graph))] = (_part(source, pointer, a, b).block, pointer[a : b + 1], a)
        counts += np.diff(edges).tolist()
    blocks = layer_of(name, graph, [], counts)
    if "radius" in header.coords:
        dims = (SECTOR, "radius") if SECTOR in header.coords else ("radius",)
        for table in TABLES:
            sizes = tuple(header.sizes[dim] for dim in dims)
            header[table] = ((schema.SHOT, *dims), _table(parts[0].source, table, edges, sizes, name))
    n, stored = sum(counts), sum(int(part.pointer[-1]) for part in parts)
    wide = max(1, int(WIDE_ROWS * n / max(stored, 1)))
    again = partial(open_sparse, path, scan=scan, shots=wide, storage_options=storage_options)
    return Ragged(header, blocks, sparse_layout(parts[0].dtype), wide=again)


@dataclass(frozen=True)
class _Found:
    """Sparse frames of a group: what is known of each shot, rows and pointers, and the dtype of the pixels."""

    header: xr.Dataset
    source: SparseFile
    pointer: NDArray[np.int64]
    dtype: np.dtype[Any]


def _edges(n: int, step: int) -> list[int]:
    return [*range(0, max(n, 1), step), n]


def _joined(headers: list[xr.Dataset]) -> xr.Dataset:
    """What is known of the shots of all scans, numbered through."""
    names = np.concatenate([header[SCAN].values for header in headers])
    coords = {schema.SHOT: np.arange(names.size), SCAN: (schema.SHOT, names)}
    return xr.Dataset(coords=coords, attrs=headers[0].attrs)


def _found(path: str, scan: str | None, storage_options: Options) -> list[_Found]:
    """The frames of a file: of pyFAI those of its only group, of ImageD11 of one scan or all."""
    with opened(path, storage_options, whole=True) as file:
        place = _frames_place(file)
        if place and scan is not None:
            raise MrcFormatError(f"there is no scan {scan}: the frames are in {place}: leave out scan=", url=path)
        if place:
            return [_checked(file, path, pyfai_header(file, path, place, storage_options), storage_options)]
        scans = image_d11_scans(file, path)
        if scan is not None and scan not in scans:
            raise MrcFormatError(f"there is no scan {scan}, only {', '.join(scans)}", url=path)
        found = []
        for name in scans if scan is None else [scan]:
            parts = image_d11_header(file, path, name, storage_options)
            found.append(_checked(file, path, parts, storage_options))
    kinds = {(tuple(one.header.attrs["shape"]), one.dtype.str) for one in found}
    if len(kinds) > 1:
        problem = f"the scans {', '.join(scans)} are of {sorted(kinds)}: choose one with scan="
        raise MrcFormatError(problem, url=path)
    return found


def _checked(
    file: Any, path: str, parts: tuple[xr.Dataset, SparseFile, NDArray[np.int64]], storage_options: Options
) -> _Found:
    """Frames whose pointers lead to rows that are there."""
    header, source, pointer = parts
    group = file[source.group]
    columns = ("intensity", *source.places)
    stored = min(int(group[name].shape[0]) for name in columns)
    if pointer.size < 1 or pointer[0] != 0 or (np.diff(pointer) < 0).any() or pointer[-1] > stored:
        problem = f"the pointers of the frames do not rise from 0 to {stored}: the file is damaged"
        raise MrcFormatError(problem, url=path)
    names = (*columns, *(TABLES if "radius" in header.coords else ()))
    known = {name: rows_of(group[name], path, storage_options) for name in names if hasattr(group[name], "id")}
    tables = {name: rows for name, rows in known.items() if rows is not None}
    dtype = np.dtype(group["intensity"].dtype.newbyteorder("="))
    return _Found(header, replace(source, storage_options=storage_options, tables=tables), pointer, dtype)


def _part(source: SparseFile, pointer: NDArray[np.int64], first: int, last: int) -> SparseFile:
    """What reading the pixels of some shots needs."""
    return source.between(int(pointer[first]), int(pointer[last]), "intensity", *source.places)


def plan_in(path: str, storage_options: Options = None) -> dict[str, Any] | None:
    """How a file was made that `write_sparse` wrote, or None."""
    import json

    place = f"{ENTRY}/sparsify"
    try:
        with damaged(path, "the plan is lost"), opened(path, storage_options) as file:
            if place not in file:
                return None
            group = file[place]
            text = group["plan"][()] if "plan" in group else group.attrs.get("plan", "")
    except (FileNotFoundError, MrcFormatError):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _frames_place(file: Any) -> str | None:
    """Where the file says its sparse frames are, as FabIO looks for them: pyFAI and LIMA name their groups freely."""
    entry = text_of(file.attrs.get("default"))
    if entry in file:
        for said in ("pyFAI_sparse_frames", "default"):
            name = text_of(file[entry].attrs.get(said))
            place = name.lstrip("/") if name.startswith("/") else f"{entry}/{name}".strip("/")
            if name and place in file and all(part in file[place] for part in ("frame_ptr", "index")):
                return place
    return FRAMES if FRAMES in file else None


def _table(source: SparseFile, part: str, edges: list[int], shape: tuple[int, ...], token: str) -> da.Array:
    name, zeros = f"{part}-{token}", (0,) * len(shape)
    graph: dict[Any, Any] = {
        (name, k, *zeros): (source.between(a, b, part).rows, part, shape, a, b)
        for k, (a, b) in enumerate(pairwise(edges))
    }
    chunks = (tuple(np.diff(edges).tolist()), *((size,) for size in shape))
    meta = np.empty((0, *zeros), np.float32)
    return da.Array(HighLevelGraph.from_collections(name, graph), name, chunks, np.float32, meta)
