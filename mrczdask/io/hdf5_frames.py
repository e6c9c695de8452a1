"""Diffraction frames in HDF5: an Eiger master with its data files, virtual datasets, a dataset by name."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Final

import numpy as np

from mrczdask.errors import MrcFormatError
from mrczdask.io.damaged import damaged
from mrczdask.io.detector_facts import beam_centers, detector_attrs, find_detector
from mrczdask.io.detector_masks import FileMask, fitting_mask, mask_of
from mrczdask.io.detector_values import scaling_attrs, value_attrs
from mrczdask.io.frame_set import FrameSet
from mrczdask.io.hdf5_file import Options, open_hdf5
from mrczdask.io.hdf5_find import Finder, is_group
from mrczdask.io.hdf5_links import Located, linked
from mrczdask.io.hdf5_reader import ChunkReader
from mrczdask.io.hdf5_sources import CLOSED, linked_reader, reader_of
from mrczdask.io.part_reader import PartReader, joined
from mrczdask.io.reader import FrameReader

_SCAN_NDIM: Final = 4


def open_hdf5_frames(
    url: str, *, dataset: str | None = None, storage_options: Options = None, mask: str | bool | None = None
) -> FrameSet:
    """Open the frames of an HDF5 file; of its pixels none is read. `mask` names a dataset, False: none.

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
        coords: dict[str, Any] = {}
        masked: dict[str, Any] = {}
        entry, path = finder.entry_of(names[0])
        detector = find_detector(entry, path, reader.shape[1:]) if is_group(entry) else None
        if is_group(entry):
            coords = beam_centers(entry, reader.shape[0])
        attrs = value_attrs(None, reader.dtype) if detector is None else detector_attrs(detector, entry, reader.dtype)
        parent, _, signal = names[0].strip("/").rpartition("/")
        group = finder.at(parent) if parent else file
        if is_group(group):
            attrs |= scaling_attrs(group, signal, detector, url)
        bad = _mask(finder, group, detector, full, reader.shape[0], url, mask)
        if bad is not None:
            masked = {"mask": reader_of(bad.dataset, url, storage_options)}
            masked |= {"mask_bits": bad.bad_bits, "mask_lead": bad.lead}
    scan = (full[0], full[1]) if len(full) == _SCAN_NDIM and len(opened) == 1 else None
    return FrameSet(
        reader, scan=scan, coords={} if scan else coords, attrs=attrs, together=_together(opened[0][0]), **masked
    )


def _mask(
    finder: Finder, group: Any, detector: Any, full: Sequence[int], shots: int, url: str, asked: str | bool | None
) -> FileMask | None:
    """The mask that is asked for, or that of the detector."""
    if asked is False:
        return None
    if not isinstance(asked, str):
        return mask_of(detector, group, full, shots, url)
    found = finder.at(asked)
    if not hasattr(found, "shape"):
        raise MrcFormatError(f"there is no dataset {asked} for a mask", url=url)
    return fitting_mask(found, full, shots, url)


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
