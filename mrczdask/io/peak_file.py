"""Peaks from files: CXI, NeXus and Zarr lazily; Parquet and CrystFEL streams."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Final

import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.errors import MissingExtraError, MrcFormatError
from mrczdask.io.crystfel_stream import read_stream
from mrczdask.io.damaged import damaged
from mrczdask.io.hdf5_file import Options
from mrczdask.io.hdf5_rows import rows_between
from mrczdask.io.peak_table import FLOATS, IMAGE, PEAK_FILE, PEAKS, peaks_table
from mrczdask.io.ragged import Block, Ragged, layer_of, split
from mrczdask.io.shot_identity import read_identity
from mrczdask.io.source import absolute
from mrczdask.io.sparse_source import opened, stamp
from mrczdask.io.sparse_table import CENTER

_DAMAGED: Final = "the peaks do not unpack"
CXI_RESULT: Final = "entry_1/result_1"
PADDED_FIELDS: Final = ("peakXPosRaw", "peakYPosRaw", "peakTotalIntensity", "peakSNR")
"""Tables (shot, peak) beside `nPeaks`: of CXI, and of the sparse files of pyFAI."""
CXI_SHOTS: Final = "entry_1/shots"
"""Where a .cxi file has what is known of each shot."""
NEXUS_PEAKS: Final = "entry_0000/peaks"
NEXUS_FIELDS: Final = {
    "index": "index",
    "intensity": "intensity",
    "sigma": "sigma",
    "pos1": "y",
    "pos2": "x",
    "radius": "radius",
    "sigma_background": "sigma_background",
    "n_pixels": "n_pixels",
}
"""Datasets of pyFAI's NeXus layout, and our columns; it has the first five."""
SHOTS: Final = 4096
"""Of a block."""
DONE: Final = "shots_done"
"""Shots that count, where a list is still being written."""


def open_peaks(url: str | os.PathLike[str], *, group: str | None = None, storage_options: Options = None) -> Ragged:
    """Open peaks: as `write_peaks`, pyFAI, Cheetah and other programs write them, or as CrystFEL indexed them.

    Parameters
    ----------
    url : str or path
        A CXI file, a NeXus file of pyFAI or `write_peaks`, a .zarr folder, a .parquet file or a CrystFEL .stream; also
        sparse frames with peaks, of pyFAI or `write_sparse`. HDF5 and Zarr at any url fsspec knows.
    group : str, optional
        The group of an HDF5 file with `nPeaks`, `peakXPosRaw` and so on, where it has several elsewhere than in
        entry_1/result_1: that of Cheetah; OM has data/peaks.
    storage_options : mapping, optional
        Passed to the fsspec file system.

    Returns
    -------
    Ragged
        As `find_peaks` gives it, lazy for HDF5 and Zarr. What a file does not tell is NaN, and 0 for `n_pixels`; a
        sigma is taken for both where a file has one only. A stream adds (shot) `indexed` bool, `image`, the file,
        `event`, the number of the frame in it (-1 where it has a name, or is alone), and `event_name`, the event as it
        is written. Peaks in frames of several files have `image` and `event` too.
        Coordinates `beam_center_y`, `beam_center_x` (shot) where the file has them.

    Raises
    ------
    MrcFormatError
        The file holds no peaks, or its tables do not fit one another.
    MissingExtraError
        HDF5 needs h5py, Parquet pyarrow.

    Examples
    --------
    >>> import numpy as np
    >>> import mrczdask as md
    >>> frames = np.full((2, 64, 64), 3, np.uint16)
    >>> frames[1, 10:12, 12:14] = 900
    >>> peaks = md.find_peaks(frames, md.Geometry.flat((64, 64)), bins=16, unit="pixel")
    >>> _ = md.write_peaks(peaks, "run.zarr")
    >>> md.open_peaks("run.zarr").compute().y.values.tolist()
    [10.5]
    """
    path = absolute(os.fspath(url))
    if path.endswith(".stream"):
        return split(read_stream(path), PEAKS, SHOTS)
    if path.endswith(".parquet"):
        return split(_of_parquet(path), PEAKS, SHOTS)
    source: _NexusFile | _PaddedFile
    with opened(path, storage_options) as file:
        if group is None and NEXUS_PEAKS in file:
            is_padded = "nPeaks" in file[NEXUS_PEAKS] and "frame_ptr" not in file[NEXUS_PEAKS]
            header, source = _of_padded(file, path, NEXUS_PEAKS) if is_padded else _of_nexus(file, path)
        elif group is None and CXI_RESULT in file:
            header, source = _of_padded(file, path, CXI_RESULT)
        else:
            header, source = _of_padded(file, path, group.strip("/") if group else _only_group(file, path))
    source = replace(source, storage_options=storage_options)
    n = header.sizes[schema.SHOT]
    edges = [*range(0, max(n, 1), SHOTS), n]
    name = f"peaks-{tokenize(source, stamp(path, storage_options), n)}"
    graph: dict[Any, Any] = {(name, k): (source.block, a, b) for k, (a, b) in enumerate(pairwise(edges))}
    return Ragged(header, layer_of(name, graph, [], np.diff(edges).tolist()), PEAKS)


@dataclass(frozen=True)
class _PaddedFile:
    """Padded tables: a row a shot."""

    path: str
    group: str
    storage_options: Options = field(default=None, repr=False)

    def block(self, first: int, last: int) -> Block:
        """The peaks of consecutive shots."""
        where = (first, last, self.path, self.storage_options)
        with damaged(self.path, _DAMAGED, first), opened(self.path, self.storage_options) as file:
            result = file[self.group]
            counts = rows_between(result["nPeaks"], *where).astype(np.int64).reshape(-1)
            wide = int(counts.max(initial=0))
            rows = {name: rows_between(result[name], *where)[:, :wide] for name in PADDED_FIELDS if name in result}
        if counts.min(initial=0) < 0 or wide > rows["peakXPosRaw"].shape[1]:
            problem = f"nPeaks is up to {wide}, the tables hold {rows['peakXPosRaw'].shape[1]} peaks a shot"
            raise MrcFormatError(f"{problem}: the file is damaged", url=self.path)
        inside = np.arange(wide) < counts[:, None]
        found = {name: values[inside] for name, values in rows.items()}
        columns = {"x": found["peakXPosRaw"], "y": found["peakYPosRaw"]}
        columns["intensity"] = found.get("peakTotalIntensity", np.full(columns["x"].size, np.nan))
        if "peakSNR" in found:
            with np.errstate(divide="ignore", invalid="ignore"):
                columns["sigma"] = columns["intensity"] / found["peakSNR"]
        return _block(counts, columns)


@dataclass(frozen=True)
class _NexusFile:
    """Lists of peaks with pointers."""

    path: str
    storage_options: Options = field(default=None, repr=False)

    def block(self, first: int, last: int) -> Block:
        """The peaks of consecutive shots."""
        with damaged(self.path, _DAMAGED, first), opened(self.path, self.storage_options) as file:
            group = file[NEXUS_PEAKS]
            pointer = rows_between(group["frame_ptr"], first, last + 1, self.path, self.storage_options)
            where = (int(pointer[0]), int(pointer[-1]), self.path, self.storage_options)
            columns = {ours: rows_between(group[name], *where) for name, ours in NEXUS_FIELDS.items() if name in group}
            pointer = pointer.astype(np.int64)
        return _block(np.diff(pointer), columns)


def _block(counts: NDArray[np.int64], columns: dict[str, NDArray[Any]]) -> Block:
    """All columns of peaks; those that a file does not have as `open_peaks` says."""
    n = int(counts.sum())
    columns.setdefault("sigma_background", columns.get("sigma", np.full(n, np.nan)))
    for name in FLOATS:
        columns.setdefault(name, np.full(n, np.nan))
    columns.setdefault("n_pixels", np.zeros(n, np.int32))
    columns.setdefault("index", np.zeros(n, np.uint32))
    return Block(counts, {name: columns[name].astype(dtype) for name, dtype in PEAKS.columns.items()})


def _only_group(file: Any, path: str) -> str:
    """The only group of padded tables in an HDF5 file."""
    found: list[str] = []

    def note(name: str, item: Any) -> None:
        if hasattr(item, "keys") and all(part in item for part in ("nPeaks", *PADDED_FIELDS[:2])):
            found.append(name)

    if hasattr(file, "visititems"):
        file.visititems(note)
    if not found:
        raise MrcFormatError(f"there are no peaks: neither {CXI_RESULT} nor {NEXUS_PEAKS}", url=path)
    if len(found) > 1:
        raise MrcFormatError(f"there are peaks in {', '.join(found)}: give one of them as group=", url=path)
    return found[0]


def _of_padded(file: Any, path: str, place: str) -> tuple[xr.Dataset, _PaddedFile]:
    result = file.get(place)
    if not hasattr(result, "keys"):
        raise MrcFormatError(f"there is no group {place}", url=path)
    missing = [name for name in ("nPeaks", *PADDED_FIELDS[:2]) if name not in result]
    if missing:
        raise MrcFormatError(f"{place} lacks {', '.join(missing)}", url=path)
    n = int(result["nPeaks"].size)
    if any(result[name].ndim != 2 or result[name].shape[0] != n for name in PADDED_FIELDS if name in result):
        raise MrcFormatError(f"{place} has tables of another length than its {n} shots", url=path)
    attrs = _settings(result["process_1/metadata"][()]) if "process_1/metadata" in result else {}
    coords: dict[str, Any] = {schema.SHOT: np.arange(n)}
    if CXI_SHOTS in file:
        coords |= _centers(file[CXI_SHOTS], n, path) | read_identity(file[CXI_SHOTS], n, path)
    if place == CXI_RESULT:  # shots are the rows of this file
        attrs.pop(IMAGE, None)
        attrs[PEAK_FILE] = path
    return xr.Dataset(coords=coords, attrs=attrs), _PaddedFile(path, place)


def _of_nexus(file: Any, path: str) -> tuple[xr.Dataset, _NexusFile]:
    group = file[NEXUS_PEAKS]
    missing = [name for name in ("frame_ptr", "pos1", "pos2", "intensity") if name not in group]
    if missing:
        raise MrcFormatError(f"{NEXUS_PEAKS} lacks {', '.join(missing)}", url=path)
    pointer = np.asarray(group["frame_ptr"][()], np.int64)
    if DONE in group.attrs:
        pointer = pointer[: int(group.attrs[DONE]) + 1]
    stored = int(group["pos1"].shape[0])
    if pointer.size < 1 or pointer[0] != 0 or (np.diff(pointer) < 0).any() or pointer[-1] > stored:
        raise MrcFormatError(f"the pointers of the shots do not rise from 0 to {stored}: the file is damaged", url=path)
    n = pointer.size - 1
    labels = np.asarray(group["shot"][:n]) if "shot" in group else np.arange(n)
    coords = {schema.SHOT: labels} | _centers(group, n, path) | read_identity(group, n, path)
    return xr.Dataset(coords=coords, attrs=_settings(group.attrs.get("settings", "{}"))), _NexusFile(path)


def _centers(group: Any, n: int, path: str) -> dict[str, Any]:
    """Coordinates of the beam of each shot, where they are known."""
    found = {name: np.asarray(group[name][:n], np.float64) for name in CENTER if name in group}
    if any(values.shape != (n,) for values in found.values()) or len(found) == 1:
        raise MrcFormatError(f"{' and '.join(CENTER)} are not given for each of {n} shots", url=path)
    return {name: (schema.SHOT, values) for name, values in found.items()}


def _settings(text: Any) -> dict[str, Any]:
    try:
        found = json.loads(text.decode() if isinstance(text, bytes) else str(text))
    except ValueError:
        return {}
    return {name: value for name, value in found.items() if value is not None} if isinstance(found, dict) else {}


def _of_parquet(path: str) -> xr.Dataset:
    try:
        from pyarrow import ArrowInvalid, parquet  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        raise MissingExtraError(f"{path}: Parquet needs pyarrow: pip install 'mrczdask[parquet]'") from None
    try:
        table = parquet.read_table(path)
    except ArrowInvalid as error:
        raise MrcFormatError(f"this is no Parquet file: {error}", url=path) from None
    missing = [name for name in ("shot", *PEAKS.columns) if name not in table.column_names]
    if missing:
        raise MrcFormatError(f"there are no peaks: {', '.join(missing)} lack", url=path)
    about = table.schema.metadata or {}
    shots = table["shot"].to_numpy()
    labels = np.asarray(json.loads(about[b"shots"])) if b"shots" in about else np.unique(shots)
    order = np.argsort(labels, kind="stable")
    place = order[np.searchsorted(labels, shots, sorter=order)]
    columns = {name: table[name].to_numpy() for name in PEAKS.columns}
    counts = np.bincount(place, minlength=labels.size)
    known = {name: np.asarray(json.loads(about[name.encode()])) for name in CENTER if name.encode() in about}
    coords = {schema.SHOT: labels} | _centers(known, labels.size, path)
    if b"image_files" in about:
        coords |= read_identity(json.loads(about[b"image_files"]), labels.size, path)
    return peaks_table(counts, columns, coords, _settings(about.get(b"settings", b"{}")))
