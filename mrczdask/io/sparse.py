"""Sparse frames in files: the layout of pyFAI and FabIO in HDF5 and Zarr, and ImageD11's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
from mrczdask.errors import MrcFormatError, StoreError
from mrczdask.io.detector_facts import detector_attrs, find_detector
from mrczdask.io.hdf5_file import Options, open_hdf5
from mrczdask.io.ragged import Block, Ragged, layer_of
from mrczdask.io.source import is_remote
from mrczdask.io.sparse_sectors import sectors_in
from mrczdask.io.sparse_table import CENTER, RESPONSE, SECTOR, sparse_layout
from mrczdask.io.stamps import file_stamp, folder_stamp

ENTRY: Final = "entry_0000"
FRAMES: Final = "entry_0000/sparse_frames"
_ROWS: Final = ("frame_ptr", "index", "intensity")
_SETTINGS: Final = (
    "error_model",
    "cutoff_clip",
    "cycle",
    "noise",
    "cutoff_pick",
    "unit",
    "polarization",
    "solid_angle",
)
_FACTS: Final = ("distance_m", "pixel_size_m", "beam_center", "wavelength_m")
BLOCK_BYTES: Final = 128 << 20
"""Of the dense frames of one block, at 4 bytes a pixel."""
WIDE_ROWS: Final = 1 << 22
"""Stored pixels of a block of a table whose frames are not made dense."""


@dataclass(frozen=True)
class SparseFile:
    """Where the rows of sparse frames are; opened in each task. `width` is 0 but where rows and columns are stored."""

    path: str
    group: str
    pixels: int
    width: int = 0
    storage_options: Options = field(default=None, repr=False)

    def block(self, pointer: NDArray[np.int64], shot: int) -> Block:
        """The rows of consecutive shots, `pointer` being theirs and `shot` the first; refuses pixels off the frame."""
        rows = slice(int(pointer[0]), int(pointer[-1]))
        with self._group(shot) as group:
            intensity = np.asarray(group["intensity"][rows])
            if self.width:
                row, column = (np.asarray(group[name][rows], np.int64) for name in ("row", "col"))
                index = np.where(column < self.width, row * self.width + column, self.pixels)
            else:
                index = np.asarray(group["index"][rows], np.int64)
        if index.size and not (index.min() >= 0 and index.max() < self.pixels):
            problem = (
                f"a stored pixel has the index {index.max()}, a frame has {self.pixels} pixels: the file is damaged"
            )
            raise MrcFormatError(problem, url=self.path, frame=shot)
        return _sorted(Block(np.diff(pointer), {"index": index.astype(np.uint32), "intensity": intensity}))

    def rows(self, name: str, shape: tuple[int, ...], first: int, last: int) -> NDArray[np.float32]:
        """(shot, radius) or (shot, sector, radius) of the background."""
        with self._group(first) as group:
            return np.asarray(group[name][first:last], np.float32).reshape(last - first, *shape)

    @contextmanager
    def _group(self, shot: int) -> Iterator[Any]:
        try:
            with opened(self.path, self.storage_options) as file:
                yield file[self.group]
        except (MrcFormatError, FileNotFoundError, StoreError):
            raise
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            problem = f"the stored pixels do not unpack ({error}): the file is damaged"
            raise MrcFormatError(problem, url=self.path, frame=shot) from None


def open_sparse(url: str | os.PathLike[str], *, shots: int | None = None, storage_options: Options = None) -> Ragged:
    """Open sparse diffraction frames: as pyFAI, LIMA, `write_sparse` or ImageD11 write them.

    Parameters
    ----------
    url : str or path
        An HDF5 file or a .zarr folder, local or at any url fsspec knows.
    shots : int, optional
        Shots of a block: as many as are 128 MB of dense frames by default.
    storage_options : mapping, optional
        Passed to the fsspec file system.

    Returns
    -------
    Ragged
        Lazy, as `sparsify` gives it. ImageD11's files have no background. Attributes say what the frames were
        sparsified with, and of the detector `beam_center`, `pixel_size_m`, `distance_m`, `wavelength_m` where known.

    Raises
    ------
    MissingExtraError
        HDF5 files need h5py and hdf5plugin.
    MrcFormatError
        The file holds no sparse frames, or its pointers or indices lead nowhere.

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
    path = os.fspath(url)
    with opened(path, storage_options) as file:
        place = _frames_place(file)
        header, source, pointer = _pyfai(file, path, place) if place else _image_d11(file, path)
        source = replace(source, storage_options=storage_options)
        dtype = np.dtype(file[source.group]["intensity"].dtype)
        columns = ("row", "col") if source.width else ("index",)
        stored = min(int(file[source.group][name].shape[0]) for name in ("intensity", *columns))
    if pointer.size < 1 or pointer[0] != 0 or (np.diff(pointer) < 0).any() or pointer[-1] > stored:
        raise MrcFormatError(
            f"the pointers of the frames do not rise from 0 to {stored}: the file is damaged", url=path
        )
    step = max(1, shots or BLOCK_BYTES // (4 * max(source.pixels, 1)))
    edges = [*range(0, max(pointer.size - 1, 1), step), pointer.size - 1]
    name = f"sparse-{tokenize(source, stamp(path, storage_options), pointer, step)}"
    graph: dict[Any, Any] = {
        (name, k): (source.block, pointer[a : b + 1], a) for k, (a, b) in enumerate(pairwise(edges))
    }
    blocks = layer_of(name, graph, [], np.diff(edges).tolist())
    if "radius" in header.coords:
        dims = (SECTOR, "radius") if SECTOR in header.coords else ("radius",)
        for part in ("background_avg", "background_std"):
            table = _table(source, part, edges, tuple(header.sizes[dim] for dim in dims), name)
            header[part] = ((schema.SHOT, *dims), table)
    wide = max(1, int(WIDE_ROWS * (pointer.size - 1) / max(pointer[-1], 1)))
    return Ragged(
        header,
        blocks,
        sparse_layout(dtype),
        wide=partial(open_sparse, path, shots=wide, storage_options=storage_options),
    )


def plan_in(path: str, storage_options: Options = None) -> dict[str, Any] | None:
    """How a file was made that `write_sparse` wrote, or None."""
    import json

    place = f"{ENTRY}/sparsify"
    try:
        with opened(path, storage_options) as file:
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
    entry = _text(file.attrs.get("default"))
    if entry in file:
        for said in ("pyFAI_sparse_frames", "default"):
            name = _text(file[entry].attrs.get(said))
            place = name.lstrip("/") if name.startswith("/") else f"{entry}/{name}".strip("/")
            if name and place in file and all(part in file[place] for part in _ROWS[:2]):
                return place
    return FRAMES if FRAMES in file else None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value or "")


def _pyfai(file: Any, path: str, place: str) -> tuple[xr.Dataset, SparseFile, NDArray[np.int64]]:
    group = file[place]
    missing = [name for name in (*_ROWS, "mask") if name not in group]
    if missing:
        raise MrcFormatError(f"{place} lacks {', '.join(missing)}", url=path)
    pointer = np.asarray(group["frame_ptr"][()]).astype(np.int64)
    plane = (schema.Y, schema.X)
    radius = np.asarray(group["mask"][()])
    said = group["mask"].attrs.get("unit")
    unit = {"units": _text(said)} if said is not None else {}
    coords: dict[str, Any] = {schema.SHOT: np.arange(max(pointer.size - 1, 0)), "pixel_radius": (plane, radius, unit)}
    if all(name in group for name in ("background_avg", "background_std", "radius")):
        shapes = {name: tuple(group[name].shape) for name in ("background_avg", "background_std")}
        wanted = (max(pointer.size - 1, 0), int(group["radius"].shape[0]))
        if set(shapes.values()) != {wanted}:
            raise MrcFormatError(f"{place}: {shapes}, but {wanted} (shot, radius) are wanted", url=path)
        coords["radius"] = ("radius", np.asarray(group["radius"][()]), unit)
        coords |= sectors_in(group, wanted[1], path, unit)
    for name in ("normalization", RESPONSE):
        if name in group:
            coords[name] = (plane, np.asarray(group[name][()]))
    for name in CENTER:
        if name in group:
            if tuple(group[name].shape) != (coords[schema.SHOT].size,):
                raise MrcFormatError(f"{place}: {name} is not given for each shot", url=path)
            coords[name] = (schema.SHOT, np.asarray(group[name][()]))
    entry = place.split("/")[0]
    attrs = {"shape": list(radius.shape), "dtype": np.dtype(group["intensity"].dtype).str}
    detector = find_detector(file[entry]) if hasattr(file, "userblock_size") else None
    if detector is not None:
        attrs |= detector_attrs(detector, file[entry], np.dtype(np.float32))
    attrs |= _settings(file, entry)
    attrs["dummy"] = float(np.asarray(group["dummy"][()])) if "dummy" in group else attrs.get("dummy", np.nan)
    return xr.Dataset(coords=coords, attrs=attrs), SparseFile(path, place, radius.size), pointer


def _settings(file: Any, entry: str) -> dict[str, Any]:
    """What the frames were sparsified with, as far as it is written."""
    import json

    place = f"{entry}/sparsify/configuration"
    if place not in file:
        return {}
    note = file[place]
    text = note["data"][()] if "data" in note else note.attrs.get("data", "{}")  # Zarr keeps texts as attributes
    text = text.decode() if isinstance(text, bytes) else str(text)
    try:
        said = json.loads(text)
        known = said.get("sparsify", {}), said.get("geometry") or {}
        return {
            name: part[name]
            for part, names in zip(known, (_SETTINGS, _FACTS), strict=True)
            for name in names
            if part.get(name) is not None
        }
    except (ValueError, AttributeError):
        return {}


def _image_d11(file: Any, path: str) -> tuple[xr.Dataset, SparseFile, NDArray[np.int64]]:
    scans = [name for name in file if all(part in file[name] for part in ("nnz", "row", "col", "intensity"))]
    if not scans:
        raise MrcFormatError(f"there are no sparse frames: neither {FRAMES} nor a scan of ImageD11", url=path)
    group = file[scans[0]]
    shape = int(group.attrs["shape0"]), int(group.attrs["shape1"])
    counts = np.asarray(group["nnz"][()], np.int64)
    header = xr.Dataset(coords={schema.SHOT: np.arange(counts.size)}, attrs={"shape": list(shape)})
    source = SparseFile(path, scans[0], shape[0] * shape[1], shape[1])
    return header, source, np.concatenate([[0], np.cumsum(counts)])


def _table(source: SparseFile, part: str, edges: list[int], shape: tuple[int, ...], token: str) -> da.Array:
    name, zeros = f"{part}-{token}", (0,) * len(shape)
    graph: dict[Any, Any] = {
        (name, k, *zeros): (source.rows, part, shape, a, b) for k, (a, b) in enumerate(pairwise(edges))
    }
    chunks = (tuple(np.diff(edges).tolist()), *((size,) for size in shape))
    meta = np.empty((0, *zeros), np.float32)
    return da.Array(HighLevelGraph.from_collections(name, graph), name, chunks, np.float32, meta)


def _sorted(block: Block) -> Block:
    """The same rows with ascending indices in each shot: pyFAI's are in no order."""
    shot = np.repeat(np.arange(block.counts.size), block.counts)
    order = np.lexsort((block.columns["index"], shot))
    return Block(block.counts, {name: values[order] for name, values in block.columns.items()})


def stamp(path: str, options: Options = None) -> str:
    """What changes when a file or a Zarr folder does."""
    return folder_stamp(path, options) if _is_folder(path) else file_stamp(path, options)


def _is_folder(path: str) -> bool:
    return path.endswith(".zarr") if is_remote(path) else os.path.isdir(path)


@contextmanager
def opened(path: str, storage_options: Options = None) -> Iterator[Any]:
    """The root group of an HDF5 file or a Zarr folder, to read."""
    if not is_remote(path) and not os.path.exists(path):
        raise FileNotFoundError(path)
    if _is_folder(path):
        import zarr

        yield zarr.open_group(path, mode="r", storage_options=dict(storage_options) if storage_options else None)
        return
    with open_hdf5(path, storage_options) as file:
        yield file
