"""Diffraction frames in HDF5: an Eiger master with its data files, virtual datasets, a dataset by name."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Final

import numpy as np

from mrczdask.errors import MrcFormatError
from mrczdask.io.damaged import damaged
from mrczdask.io.detector_facts import beam_centers, detector_attrs, find_detector, mask_of
from mrczdask.io.frame_set import FrameSet
from mrczdask.io.hdf5_file import Options, open_hdf5
from mrczdask.io.hdf5_find import Finder, is_group
from mrczdask.io.hdf5_links import Located, linked
from mrczdask.io.hdf5_reader import ChunkReader
from mrczdask.io.hdf5_sources import CLOSED, linked_reader, reader_of
from mrczdask.io.part_reader import PartReader, joined
from mrczdask.io.reader import FrameReader

_SCAN_NDIM: Final = 4


def open_hdf5_frames(url: str, *, dataset: str | None = None, storage_options: Options = None) -> FrameSet:
    """Open the frames of an HDF5 file; of its pixels none is read.

    Raises
    ------
    MrcFormatError
        No HDF5 file, a truncated one, no or several datasets that could be the frames, a data file that is missing.
    """
    with damaged(url, CLOSED), ExitStack() as stack:
        file = stack.enter_context(open_hdf5(url, storage_options))
        finder = Finder(file, url, storage_options, stack)
        names = finder.named(dataset) if dataset else finder.found()
        opened = [linked_reader(file, url, name, storage_options) for name in names]
        reader = joined([reader for reader, _ in opened])
        shapes = {reader.shape[1:] for reader, _ in opened}
        if len(shapes) > 1:
            raise MrcFormatError(f"the data files hold frames of different shapes: {sorted(shapes)}", url=url)
        full = opened[0][1]
        attrs: dict[str, Any] = {}
        coords: dict[str, Any] = {}
        mask: FrameReader | None = None
        entry, path = finder.entry_of(names[0])
        detector = find_detector(entry, path, reader.shape[1:]) if is_group(entry) else None
        if is_group(entry):
            coords = beam_centers(entry, reader.shape[0])
        if detector is not None:
            attrs = detector_attrs(detector, entry, reader.dtype)
            bad = mask_of(detector, reader.shape[1:])
            mask = None if bad is None else reader_of(bad, url, storage_options)
    scan = (full[0], full[1]) if len(full) == _SCAN_NDIM and len(opened) == 1 else None
    return FrameSet(
        reader, scan=scan, coords={} if scan else coords, attrs=attrs, mask=mask, together=_together(opened[0][0])
    )


def frame_datasets(url: str, dataset: str | None = None) -> list[tuple[Located, tuple[int, ...], np.dtype[Any]]]:
    """Where the frames of an HDF5 file are, of what shape and dtype."""
    found = []
    with damaged(url, CLOSED), ExitStack() as stack:
        file = stack.enter_context(open_hdf5(url))
        finder = Finder(file, url, None, stack)
        for name in finder.named(dataset) if dataset else finder.found():
            with linked(file, url, name) as (item, place):
                if not hasattr(item, "dtype"):
                    raise MrcFormatError(f"there is no dataset {place.path}, which {url} names", url=place.url)
                found.append((place, tuple(map(int, item.shape)), item.dtype))
    return found


def _together(reader: FrameReader) -> int:
    """Frames in a chunk of the file."""
    reader = reader.reader if isinstance(reader, PartReader) else reader
    return int(np.prod(reader.table.chunk[:-2])) if isinstance(reader, ChunkReader) else 1
