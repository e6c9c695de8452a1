"""Diffraction frames in HDF5: an Eiger master with its data files, virtual datasets, a dataset by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from mrczdask.errors import MrcFormatError
from mrczdask.io.damaged import damaged
from mrczdask.io.detector_facts import beam_centers, detector_attrs, find_detector, mask_of
from mrczdask.io.frame_set import FrameSet
from mrczdask.io.hdf5_file import Options, beside, open_hdf5
from mrczdask.io.hdf5_reader import ChunkReader, LibraryReader, dataset_reader
from mrczdask.io.part_reader import PartReader, joined
from mrczdask.io.reader import FrameReader
from mrczdask.io.session import natural_key
from mrczdask.io.stamps import file_stamp

NUMBERED: Final = re.compile(r"data_\d+")
"""Names under which an Eiger master links its data files."""
_USUAL: Final = ("entry/data", "entry/instrument/detector")
_SCAN_NDIM: Final = 4
_CLOSED: Final = "the frames do not open"


@dataclass(frozen=True)
class _Place:
    """A dataset, and the file that it was asked for in."""

    url: str
    path: str
    asked: str


def open_hdf5_frames(url: str, *, dataset: str | None = None, storage_options: Options = None) -> FrameSet:
    """Open the frames of an HDF5 file; of its pixels none is read.

    Raises
    ------
    MrcFormatError
        No HDF5 file, a truncated one, no or several datasets that could be the frames, a data file that is missing.
    """
    with damaged(url, _CLOSED), open_hdf5(url, storage_options) as file:
        places = _named(file, url, dataset) if dataset else _found(file, url)
        opened = [_open(place, url, storage_options) for place in places]
        reader = joined([reader for reader, _ in opened])
        shapes = {reader.shape[1:] for reader, _ in opened}
        if len(shapes) > 1:
            raise MrcFormatError(f"the data files hold frames of different shapes: {sorted(shapes)}", url=url)
        full = opened[0][1]
        attrs: dict[str, Any] = {}
        coords: dict[str, Any] = {}
        mask: FrameReader | None = None
        entry = file.get(places[0].asked.strip("/").split("/")[0])
        path = places[0].asked
        detector = find_detector(entry, path, reader.shape[1:]) if hasattr(entry, "keys") else None
        if hasattr(entry, "keys"):
            coords = beam_centers(entry, reader.shape[0])
        if detector is not None:
            attrs = detector_attrs(detector, entry, reader.dtype)
            bad = mask_of(detector, reader.shape[1:])
            mask = None if bad is None else dataset_reader(bad, url, storage_options, file_stamp(url, storage_options))
    scan = (full[0], full[1]) if len(full) == _SCAN_NDIM and len(opened) == 1 else None
    return FrameSet(
        reader, scan=scan, coords={} if scan else coords, attrs=attrs, mask=mask, together=_together(opened[0][0])
    )


def frame_datasets(url: str, dataset: str | None = None) -> list[tuple[_Place, tuple[int, ...], np.dtype[Any]]]:
    """Where the frames of an HDF5 file are, of what shape and dtype."""
    found = []
    with damaged(url, _CLOSED), open_hdf5(url) as file:
        for place in _named(file, url, dataset) if dataset else _found(file, url):
            with open_hdf5(place.url) as holder:
                item = holder[place.path]
                found.append((place, tuple(map(int, item.shape)), item.dtype))
    return found


def _together(reader: FrameReader) -> int:
    """Frames in a chunk of the file."""
    reader = reader.reader if isinstance(reader, PartReader) else reader
    return int(np.prod(reader.table.chunk[:-2])) if isinstance(reader, ChunkReader) else 1


def _named(file: Any, url: str, name: str) -> list[_Place]:
    name = name.strip("/")
    parent, _, last = name.rpartition("/")
    group = file.get(parent) if parent else file
    if group is None or last not in group:
        raise MrcFormatError(f"there is no dataset {name}", url=url)
    place = _place(group, last, url)
    if place.url == url and hasattr(file.get(name), "keys"):
        return _of_group(file[name], url)
    return [place]


def _found(file: Any, url: str) -> list[_Place]:
    """Where the file says its frames are, else the only dataset that can be frames."""
    group = file
    while (default := _text(group.attrs.get("default"))) and hasattr(group.get(default), "keys"):
        group = group[default]
    signal = _text(group.attrs.get("signal"))
    if signal and signal in group:
        return _of_group(group, url) if NUMBERED.fullmatch(signal) else [_place(group, signal, url)]
    for usual in _USUAL:
        if hasattr(file.get(usual), "keys") and any(NUMBERED.fullmatch(name) for name in file[usual]):
            return _of_group(file[usual], url)
    return [_only_one(file, url)]


def _of_group(group: Any, url: str) -> list[_Place]:
    names = sorted((name for name in group if NUMBERED.fullmatch(name)), key=natural_key)
    if names:
        return [_place(group, name, url) for name in names]
    signal = _text(group.attrs.get("signal"))
    return [_place(group, signal, url)] if signal in group else [_only_one(group, url)]


def _place(group: Any, name: str, url: str) -> _Place:
    """Follow an external link by hand: the library does so for local files only."""
    asked = f"{group.name.rstrip('/')}/{name}"
    link = group.get(name, getlink=True)
    if type(link).__name__ == "ExternalLink":
        return _Place(beside(url, link.filename), link.path, asked)
    return _Place(url, asked, asked)


def _only_one(group: Any, url: str) -> _Place:
    found: list[Any] = []
    group.visititems(lambda _, item: found.append(item) if _could_be_frames(item) else None)
    several = [item for item in found if item.ndim >= 3] or found
    if not several:
        raise MrcFormatError("no dataset holds frames: numbers of (shot, y, x)", url=url)
    if len(several) > 1:
        listed = ", ".join(f"{item.name} {item.shape} {item.dtype}" for item in several[:5])
        raise MrcFormatError(f"several datasets could be frames: {listed}: give dataset=", url=url)
    return _Place(url, several[0].name, several[0].name)


def _could_be_frames(item: Any) -> bool:
    return hasattr(item, "dtype") and item.dtype.kind in "iuf" and item.ndim >= 2 and min(item.shape[-2:]) > 1


def _open(place: _Place, master: str, options: Options) -> tuple[FrameReader, tuple[int, ...]]:
    """A reader of the frames of a dataset, and its shape."""
    try:
        with damaged(place.url, _CLOSED), open_hdf5(place.url, options) as file:
            dataset = file.get(place.path)
            if dataset is None or not hasattr(dataset, "dtype"):
                raise MrcFormatError(f"there is no dataset {place.path}, which {master} names", url=place.url)
            if dataset.ndim < 2 or dataset.dtype.kind not in "iuf":
                raise MrcFormatError(f"{place.path} is {dataset.dtype} {dataset.shape}: no frames", url=place.url)
            full = tuple(map(int, dataset.shape))
            if dataset.is_virtual:
                return _virtual(dataset, place.url, options), full
            return dataset_reader(dataset, place.url, options, file_stamp(place.url, options)), full
    except FileNotFoundError:
        if place.url == master:
            raise
        problem = f"{place.asked} is in {place.url}, which is missing: put it where the master file expects it"
        raise MrcFormatError(problem, url=master) from None


def _virtual(dataset: Any, url: str, options: Options) -> FrameReader:
    """The sources of a virtual dataset one after another; what is put together otherwise is left to the library.

    Sources are opened here: the library gives fill values for one that is missing, and no error.
    """
    library = LibraryReader(
        url, dataset.name, tuple(dataset.shape), dataset.dtype.newbyteorder("="), options, file_stamp(url, options)
    )
    parts: list[tuple[int, FrameReader]] = []
    plain = dataset.ndim == 3
    for source in dataset.virtual_sources():
        if "%b" in source.file_name:
            return library
        place = _Place(
            url if source.file_name == "." else beside(url, source.file_name), source.dset_name, dataset.name
        )
        reader, full = _open(place, url, options)
        to, of = _box(source.vspace, dataset.shape), _box(source.src_space, full)
        plain = plain and to is not None and of is not None and to[1] == of[1] and len(full) == 3
        if plain and to and of:
            parts.append((to[0], PartReader(reader, of[0], of[1])))
    parts.sort(key=lambda part: part[0])
    edges = np.cumsum([0, *(reader.shape[0] for _, reader in parts)])
    if not plain or edges[-1] != dataset.shape[0] or [start for start, _ in parts] != edges[:-1].tolist():
        return library
    return joined([reader for _, reader in parts])


def _box(space: Any, shape: Sequence[int]) -> tuple[int, int] | None:
    """First frame and number of frames of a selection of whole consecutive frames, else None."""
    from h5py import h5s

    if space.get_select_type() == h5s.SEL_ALL:
        return 0, int(shape[0])
    try:
        start, end = space.get_select_bounds()
        points = space.get_select_npoints()
    except (RuntimeError, ValueError):
        return None
    sizes = [last - first + 1 for first, last in zip(start, end, strict=True)]
    if list(start[1:]) != [0] * (len(shape) - 1) or tuple(sizes[1:]) != tuple(shape[1:]) or points != np.prod(sizes):
        return None
    return int(start[0]), int(sizes[0])


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        value = value.flat[0] if value.size else ""
    return value.decode() if isinstance(value, bytes) else str(value or "")
