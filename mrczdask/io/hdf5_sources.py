"""Readers of datasets of HDF5, wherever links and virtual datasets lead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from mrczdask.errors import MrcFormatError
from mrczdask.execution.resume import digest
from mrczdask.io.damaged import damaged
from mrczdask.io.hdf5_file import Options, open_hdf5
from mrczdask.io.hdf5_links import Mapped, files_of, home_of, linked, mapped, sources_of
from mrczdask.io.hdf5_reader import LibraryReader, dataset_reader
from mrczdask.io.part_reader import PartReader, joined
from mrczdask.io.reader import FrameReader
from mrczdask.io.stamps import file_stamp, file_stamps

CLOSED: Final = "the frames do not open"
FRAMES: Final = "iuf"
MASKS: Final = "iufb"
"""Kinds of numbers that frames and masks are made of."""


def linked_reader(
    file: Any, url: str, path: str, options: Options = None, *, kinds: str = FRAMES
) -> tuple[FrameReader, tuple[int, ...]]:
    """A reader of the frames behind a name in an open file, and the shape of their dataset.

    Raises
    ------
    MrcFormatError
        The name leads to no frames, or to files of which one is missing or damaged.
    """
    with linked(file, url, path, options) as (dataset, place), damaged(place.url, CLOSED):
        if not hasattr(dataset, "dtype"):
            names = "" if place.url == url and place.path.strip("/") == path.strip("/") else f", which {url} names"
            raise MrcFormatError(f"there is no dataset {place.path}{names}", url=place.url)
        if dataset.ndim < 2 or dataset.dtype.kind not in kinds:
            raise MrcFormatError(f"{place.path} is {dataset.dtype} {dataset.shape}: no frames", url=place.url)
        return _reader(dataset, place.url, options), tuple(map(int, dataset.shape))


def reader_of(dataset: Any, url: str, options: Options = None) -> FrameReader:
    """A reader of an open dataset of h5py, `url` being the file that it was asked for in."""
    place = home_of(dataset, url)
    reader, _ = linked_reader(dataset.file, place.url, place.path, options, kinds=MASKS)
    return reader


def _reader(dataset: Any, url: str, options: Options) -> FrameReader:
    if dataset.is_virtual:
        return _virtual(dataset, url, options)
    files = files_of(dataset, url, options)
    stamp = file_stamp(url, options) if len(files) == 1 else digest(file_stamps(files, options))
    return dataset_reader(dataset, url, options, stamp)


def _virtual(dataset: Any, url: str, options: Options) -> FrameReader:
    """The sources of a virtual dataset one after another; what is put together otherwise is left to the library."""
    parts = _in_a_row(dataset, url, options) if dataset.ndim == 3 else None
    if parts is not None:
        return joined(parts)
    files = files_of(dataset, url, options)  # the library gives fill values for a file that is missing, and no error
    shape, dtype = tuple(map(int, dataset.shape)), dataset.dtype.newbyteorder("=")
    sources = tuple(sources_of(dataset, url, options))
    return LibraryReader(url, dataset.name, shape, dtype, options, digest(file_stamps(files, options)), sources)


def _in_a_row(dataset: Any, url: str, options: Options) -> list[FrameReader] | None:
    """Readers of sources that are whole frames one after another, if that is what a virtual dataset is made of."""
    parts: list[tuple[int, FrameReader]] = []
    try:
        sources = list(mapped(dataset, url, options))
    except FileNotFoundError:
        return None
    for source in sources:
        to = None if source.selection is None else _box(source.selection.vspace, dataset.shape)
        if to is None:
            return None
        reader, of = _part(dataset, url, source, options)
        same = reader.shape[1:] == dataset.shape[1:] and reader.dtype == dataset.dtype.newbyteorder("=")
        if of is None or to[1] != of[1] or not same:
            return None
        if sum(of) > reader.shape[0]:
            problem = f"{reader.shape[0]} frames are here, {sum(of)} in {dataset.name} of {url}: open this file itself"
            raise MrcFormatError(problem, url=reader.url)
        parts.append((to[0], PartReader(reader, *of)))
    parts.sort(key=lambda part: part[0])
    edges = np.cumsum([0, *(reader.shape[0] for _, reader in parts)])
    if edges[-1] != dataset.shape[0] or [start for start, _ in parts] != edges[:-1].tolist() or not parts:
        return None
    return [reader for _, reader in parts]


def _part(dataset: Any, url: str, source: Mapped, options: Options) -> tuple[FrameReader, tuple[int, int] | None]:
    """A reader of a source, and which of its frames are meant."""
    if source.url == url:
        reader, full = linked_reader(dataset.file, url, source.path, options)
    else:
        with open_hdf5(source.url, options) as file:
            reader, full = linked_reader(file, source.url, source.path, options)
    return reader, _box(source.selection.src_space, full) if len(full) == 3 else None


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
