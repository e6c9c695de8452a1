"""Diffraction frames in HDF5: an Eiger master with its data files, virtual datasets, a dataset by name."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from mrczdask.errors import MrcFormatError, MrczdaskWarning
from mrczdask.io.damaged import damaged
from mrczdask.io.detector_facts import beam_centers, detector_attrs, find_detector
from mrczdask.io.detector_masks import FileMask, fitting_mask, mask_of
from mrczdask.io.detector_values import scaling_attrs, value_attrs
from mrczdask.io.frame_axes import THRESHOLD, Axes, Said, axes_of, channel_of
from mrczdask.io.frame_set import SCAN_DIMS, FrameSet
from mrczdask.io.hdf5_file import Options, open_hdf5
from mrczdask.io.hdf5_find import Finder
from mrczdask.io.hdf5_links import Located, MissingLinkError, linked
from mrczdask.io.hdf5_reader import ChunkReader
from mrczdask.io.hdf5_sources import CLOSED, linked_reader, reader_of
from mrczdask.io.part_reader import PartReader, StepReader, joined
from mrczdask.io.reader import FrameReader


def open_hdf5_frames(
    url: str,
    *,
    dataset: str | None = None,
    threshold: int | str | None = None,
    is_scan: bool = False,
    storage_options: Options = None,
    mask: str | bool | None = None,
) -> FrameSet:
    """Open the frames of an HDF5 file; of its pixels none is read. `mask` names a dataset, False: none.

    Four axes are a scan where the caller says so.

    Raises
    ------
    MrcFormatError
        No HDF5 file, a truncated one, no or several datasets that could be the frames, a data file that is missing.
    """
    with damaged(url, CLOSED), ExitStack() as stack:
        file = stack.enter_context(open_hdf5(url, storage_options))
        finder = Finder(file, url, storage_options, stack)
        names = finder.named(dataset) if dataset else finder.found()
        opened, missing = _opened(file, url, names, storage_options)
        reader = joined([reader for reader, _ in opened])
        shapes = {reader.shape[1:] for reader, _ in opened}
        if len(shapes) > 1:
            raise MrcFormatError(f"the data files hold frames of different shapes: {sorted(shapes)}", url=url)
        entry, detector = _detector(finder, names[0], reader.shape[1:])
        parent, _, signal = names[0].rpartition("/")
        group = finder.at(parent)
        axes = axes_of(
            [full for _, full in opened],
            Said(names[0], finder.at(names[0]), group, file, detector),
            url,
            is_scan=is_scan,
        )
        chosen = axes.chosen(threshold, url)
        coords: dict[str, Any] = {} if entry is None else beam_centers(entry, axes.sizes[0])
        attrs = value_attrs(None, reader.dtype) if detector is None else detector_attrs(detector, entry, reader.dtype)
        attrs |= scaling_attrs(group, signal, detector, url)
        bad = _masks(finder, group, detector, axes, chosen, (reader, url), mask)
        masked = {} if bad is None else _masked([(one, reader_of(one.dataset, url, storage_options)) for one in bad])
        masked = masked if chosen is None else _of_threshold(masked, chosen, axes.sizes[1])
    if missing:
        told = f"{url}: {len(missing)} of {len(names)} data files are missing ({missing[0].problem}): "
        warnings.warn(f"{told}only the {reader.shape[0]} frames before are opened", MrczdaskWarning, stacklevel=2)
    if chosen is not None:
        attrs |= {THRESHOLD: axes.labels[chosen]}
        return FrameSet(StepReader(reader, chosen, axes.sizes[1]), coords=coords, attrs=attrs, **masked)
    if len(axes.sizes) == 1:
        return FrameSet(reader, coords=coords, attrs=attrs, together=_together(opened[0][0]), **masked)
    if axes.dims == SCAN_DIMS[:2]:
        return FrameSet(reader, scan=axes.pair, attrs=attrs, **masked)
    if axes.labels:
        coords |= {THRESHOLD: ((THRESHOLD,), list(axes.labels))}
    return FrameSet(reader, scan=axes.pair, dims=axes.four, coords=coords, attrs=attrs, **masked)


def _opened(
    file: Any, url: str, names: list[str], options: Options
) -> tuple[list[tuple[FrameReader, tuple[int, ...]]], list[MissingLinkError]]:
    """Readers and shapes of datasets; the last data files of a run that was stopped were never written."""
    opened: list[tuple[FrameReader, tuple[int, ...]]] = []
    missing: list[MissingLinkError] = []
    for name in names:
        try:
            found = linked_reader(file, url, name, options)
        except MissingLinkError as error:
            missing.append(error)
            continue
        if missing:
            break
        opened.append(found)
    if missing and (not opened or len(opened) + len(missing) < len(names)):
        raise missing[0]
    return opened, missing


def _detector(finder: Finder, name: str, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """The entry of a dataset and its detector: those of the file that was opened before those of the one linked to."""
    entries = list(finder.entries_of(name))
    for entry, path in entries:
        if (detector := find_detector(entry, path, shape)) is not None:
            return entry, detector
    return (entries[0][0] if entries else None), None


def _masks(
    finder: Finder,
    group: Any,
    detector: Any,
    axes: Axes,
    chosen: int | None,
    frames: tuple[FrameReader, str],
    asked: str | bool | None,
) -> list[FileMask] | None:
    """The mask that is asked for, or that of the detector: of thresholds those of each, where they have their own."""
    reader, url = frames
    full = (*axes.sizes, *reader.shape[1:])
    if detector is not None and axes.labels and not isinstance(asked, str | bool):
        labels = axes.labels if chosen is None else axes.labels[chosen : chosen + 1]
        own = [mask_of(channel_of(detector, label), None, reader.shape, 1, url) for label in labels]
        found = [one for one in own if one is not None]
        if len(found) == len(own):
            return found
    one = _mask(finder, group, detector, full, reader.shape[0], url, asked)
    return None if one is None else [one]


def _masked(masks: list[tuple[FileMask, FrameReader]]) -> dict[str, Any]:
    """What a set of frames has of its mask: one, or one for each threshold."""
    first, reader = masks[0]
    if len(masks) == 1:
        return {"mask": reader, "mask_bits": first.bad_bits, "mask_lead": first.lead}
    return {"mask": joined([one for _, one in masks]), "mask_bits": first.bad_bits, "mask_lead": (1,)}


def _of_threshold(masked: dict[str, Any], chosen: int, n: int) -> dict[str, Any]:
    """The mask of one threshold, of those of all."""
    lead = masked.get("mask_lead", ())
    if 1 not in lead:
        return masked
    return masked | {"mask": StepReader(masked["mask"], chosen, n), "mask_lead": tuple(k for k in lead if k != 1)}


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
