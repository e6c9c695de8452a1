"""Sparse frames written as pyFAI does: FabIO reads the HDF5 file."""

from __future__ import annotations

import datetime
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

import mrczdask
from mrczdask.errors import MrczdaskError
from mrczdask.execution.progress import Progress, track
from mrczdask.execution.regions import run_regions
from mrczdask.io.hdf5_file import hdf5
from mrczdask.io.ragged import Ragged, split
from mrczdask.io.sparse import ENTRY, FRAMES, open_sparse
from mrczdask.io.sparse_table import sparse_layout

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS: Final = 1 << 19
"""Stored pixels of a chunk: 1 to 4 MB."""
SHOTS: Final = 512
"""Shots of a chunk of backgrounds and pointers, and of a block of a table in memory."""


def write_sparse(sparse: Ragged | xr.Dataset, url: str | os.PathLike[str], *, progress: Progress = None) -> Ragged:
    """Write sparse frames in the layout of pyFAI and FabIO.

    Parameters
    ----------
    sparse : Ragged or Dataset
        What `sparsify` gave, or its `.compute()`.
    url : str or path
        A name that ends in .h5, .hdf5 or .nxs, or in .zarr. What is there is replaced when the new one is whole.
    progress : bool or callable, optional
        Show a bar, or call progress(done, total, label) as blocks are done.

    Returns
    -------
    Ragged
        The file, opened.

    Raises
    ------
    MissingExtraError
        HDF5 files need h5py and hdf5plugin.
    MrczdaskError
        The table has no background, the dummy does not fit its dtype, or the name has another ending.

    Notes
    -----
    Blocks are computed by the scheduler in force and appended in order; memory is that of a few blocks. Pixels are
    sorted, pointers are uint64. Empty bins of the background, NaN in memory, are interpolated over, as FabIO needs.

    Examples
    --------
    >>> import numpy as np, os, tempfile
    >>> import mrczdask as md
    >>> sparse = md.sparsify(np.ones((2, 64, 64), np.uint16), md.Geometry.flat((64, 64)), bins=16, unit="pixel")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     len(md.write_sparse(sparse, os.path.join(folder, "run.zarr")))
    2
    """
    path = os.fspath(url)
    table = sparse if isinstance(sparse, Ragged) else split(sparse, sparse_layout(sparse["intensity"].dtype), SHOTS)
    missing = [name for name in ("background_avg", "background_std", "pixel_radius") if name not in table.header]
    if missing:
        raise MrczdaskError(f"{path}: the table lacks {', '.join(missing)}: write what sparsify returns")
    dummy = _dummy(table)
    edges = np.cumsum([0, *table.chunks])
    light = Ragged(
        table.header[["background_avg", "background_std"]].reset_coords(drop=True), table.block_layer, table.layout
    )
    pieces = [(k, light.isel(slice(edges[k], edges[k + 1]))) for k in range(len(table.chunks))]
    with _replacing(path) as part, _created(part, path) as store, track(progress, len(pieces), path) as advance:
        _write_header(store, table, dummy)
        stored = 0
        for _, piece in run_regions(pieces, on_done=advance):
            store.append("frame_ptr", piece["frame_ptr"].values[1:] + np.uint64(stored))
            stored += piece.sizes["pixel"]
            for name in ("index", "intensity"):
                store.append(name, piece[name].values)
            for name in ("background_avg", "background_std"):
                store.append(name, np.stack([_finite(row) for row in piece[name].values]))
    return open_sparse(path)


def _dummy(table: Ragged) -> float:
    """The value of masked pixels in the dtype of the table."""
    dtype = table.layout.columns["intensity"]
    dummy = float(table.attrs.get("dummy", np.nan))
    if dtype.kind == "f":
        return dummy
    limits = np.iinfo(dtype)
    if np.isnan(dummy):
        return float(limits.max) if dtype.kind == "u" else -1.0
    if not limits.min <= dummy <= limits.max or dummy != int(dummy):
        raise MrczdaskError(f"the dummy {dummy:g} does not fit {dtype}: give the frames another dummy=")
    return dummy


def _finite(row: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bins of one frame, the empty ones interpolated over; zeros for a frame without any."""
    full = np.isfinite(row)
    if full.all() or not full.any():
        return np.nan_to_num(row, nan=0.0)
    place = np.arange(row.size)
    return np.interp(place, place[full], row[full]).astype(np.float32)


class _Store:
    """Named growing arrays and fixed values in an HDF5 file or a Zarr folder."""

    def __init__(self, root: Any, filters: Mapping[str, Any] | None):
        self._root, self._filters = root, filters

    def group(self, name: str, attrs: Mapping[str, Any]) -> None:
        group = self._root.require_group(name) if name else self._root
        for key, value in attrs.items():
            group.attrs[key] = value

    def growing(self, name: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: Any) -> None:
        path = f"{FRAMES}/{name}"
        if self._filters is None:
            self._root.create_array(path, shape=shape, chunks=chunks, dtype=dtype)
        else:
            limits = (None, *shape[1:])
            self._root.create_dataset(path, shape, dtype, chunks=chunks, maxshape=limits, **self._filters)

    def append(self, name: str, values: NDArray[Any]) -> None:
        array = self._root[f"{FRAMES}/{name}"]
        n = array.shape[0]
        array.resize((n + len(values), *array.shape[1:]))
        if len(values):
            array[n:] = values

    def put(self, name: str, value: Any) -> None:
        array = np.asarray(value)
        if self._filters is None:
            self._root.create_array(name, data=array)
        else:
            self._root.create_dataset(name, data=array, **(self._filters if array.ndim else {}))

    def text(self, name: str, value: str) -> None:
        if self._filters is None:
            self._root.require_group(name.rpartition("/")[0]).attrs[name.rpartition("/")[2]] = value
        else:
            self._root[name] = value


def _write_header(store: _Store, table: Ragged, dummy: float) -> None:
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
    names = ("error_model", "cutoff_clip", "cycle", "noise", "cutoff_pick")
    settings = {name: attrs[name] for name in names if name in attrs} | {"dummy": dummy}
    store.text(f"{ENTRY}/sparsify/configuration/type", "text/json")
    store.text(f"{ENTRY}/sparsify/configuration/data", json.dumps({"sparsify": settings}))
    n_bins = header.sizes["radius"]
    store.growing("frame_ptr", (0,), (SHOTS,), np.uint64)
    store.append("frame_ptr", np.zeros(1, np.uint64))
    for name, dtype in table.layout.columns.items():
        store.growing(name, (0,), (ROWS,), dtype)
    for name in ("background_avg", "background_std"):
        store.growing(name, (0, n_bins), (SHOTS, n_bins), np.float32)
    store.put(f"{FRAMES}/radius", header["radius"].values.astype(np.float32))
    store.put(f"{FRAMES}/mask", header["pixel_radius"].values.astype(np.float32))
    store.put(f"{FRAMES}/dummy", np.float64(dummy))
    if "normalization" in header.coords:
        store.put(f"{FRAMES}/normalization", header["normalization"].values.astype(np.float64))


@contextmanager
def _created(part: str, path: str) -> Iterator[_Store]:
    if path.endswith(".zarr"):
        import zarr

        yield _Store(zarr.open_group(part, mode="w"), None)
    elif path.endswith((".h5", ".hdf5", ".nxs")):
        h5py = hdf5(path)
        import hdf5plugin

        with h5py.File(part, "w") as file:
            yield _Store(file, hdf5plugin.Bitshuffle(cname="lz4"))
    else:
        raise MrczdaskError(f"{path}: give a name that ends in .h5, .hdf5, .nxs or .zarr")


@contextmanager
def _replacing(path: str) -> Iterator[str]:
    """A name beside the target; moved to it at the end, removed on failure."""
    part = f"{path}.part"
    try:
        yield part
        if os.path.isdir(path):
            shutil.rmtree(path)
        os.replace(part, path)
    except BaseException:
        if os.path.isdir(part):
            shutil.rmtree(part)
        elif os.path.exists(part):
            os.remove(part)
        raise
