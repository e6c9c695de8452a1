"""Files that show frames of other files: of a pattern that takes both, each frame is read once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrczdask.errors import MrcFormatError
from mrczdask.io.frame_set import FrameSet
from mrczdask.io.hdf5_reader import ChunkReader, LibraryReader
from mrczdask.io.part_reader import JoinedReader, PartReader, StepReader
from mrczdask.io.reader import FrameReader
from mrczdask.io.source import is_remote, local_path

Frames = dict[tuple[str, str], NDArray[np.int64]]
"""Numbers of frames, by the file and the dataset that holds them."""


def each_once(sets: Sequence[FrameSet]) -> list[int]:
    """Places of the sets without those whose frames others show: data files of a master, or a second master of them.

    Raises
    ------
    MrcFormatError
        A file shows some frames of another and frames of its own.
    """
    shown = [_frames_of(one.reader) for one in sets]
    own = [all(file == _real(one.reader.url) for file, _ in frames) for one, frames in zip(sets, shown, strict=True)]
    sizes = [sum(numbers.size for numbers in frames.values()) for frames in shown]
    facts = [len(one.attrs) + (one.mask is not None) for one in sets]  # a master knows of the detector
    order = sorted(range(len(sets)), key=lambda k: (-facts[k], -sizes[k], own[k], k))
    taken: Frames = {}
    kept: list[int] = []
    for k in order:
        again = _count(shown[k], taken)
        if again == sizes[k] > 0:
            continue
        if again:
            problem = f"{again} of its frames are in other files too, that are opened with it: open them one by one"
            raise MrcFormatError(problem, url=sets[k].reader.url)
        for where, numbers in shown[k].items():
            taken[where] = np.union1d(taken.get(where, numbers), numbers)
        kept.append(k)
    return sorted(kept)


def _count(frames: Frames, taken: Frames) -> int:
    """How many of the frames are taken."""
    return sum(int(np.isin(numbers, taken[where]).sum()) for where, numbers in frames.items() if where in taken)


def _frames_of(reader: FrameReader, numbers: Any = None) -> Frames:
    """The frames of a dataset that some of those of a reader are; all by default."""
    numbers = np.arange(reader.shape[0]) if numbers is None else numbers
    if isinstance(reader, PartReader):
        return _frames_of(reader.reader, numbers + reader.first)
    if isinstance(reader, StepReader):
        return _frames_of(reader.reader, numbers * reader.step + reader.first)
    if isinstance(reader, JoinedReader):
        found: Frames = {}
        edges = np.cumsum([0, *(one.shape[0] for one in reader.readers)])
        for one, first, last in zip(reader.readers, edges, edges[1:], strict=False):
            inside = numbers[(numbers >= first) & (numbers < last)] - first
            for where, more in _frames_of(one, inside).items() if inside.size else ():
                found[where] = np.concatenate([found.get(where, more[:0]), more])
        return found
    library = reader.library if isinstance(reader, ChunkReader) else reader
    if isinstance(library, LibraryReader) and library.sources:
        return {(_real(file), path): np.arange(n) for file, path, n in library.sources}
    return {(_real(reader.url), getattr(library, "dataset", "").strip("/")): numbers}


def _real(url: str) -> str:
    return url if is_remote(url) else os.path.realpath(local_path(url))
