"""Readers made of readers: some frames of one, or the frames of several in a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrczdask.io.reader import FrameReader


@dataclass(frozen=True)
class PartReader:
    """The frames of a reader from `first` on; see `FrameReader`."""

    reader: FrameReader
    first: int
    n_frames: int

    @property
    def url(self) -> str:
        return self.reader.url

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n_frames, *self.reader.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.reader.dtype

    def read_into(self, out: NDArray[Any], frames: Sequence[int], rows: slice, cols: slice) -> None:
        self.reader.read_into(out, [self.first + k for k in frames], rows, cols)


@dataclass(frozen=True)
class StepReader:
    """Every so many-th frame of a reader, from `first` on; see `FrameReader`."""

    reader: FrameReader
    first: int
    step: int

    @property
    def url(self) -> str:
        return self.reader.url

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(range(self.first, self.reader.shape[0], self.step)), *self.reader.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.reader.dtype

    def read_into(self, out: NDArray[Any], frames: Sequence[int], rows: slice, cols: slice) -> None:
        self.reader.read_into(out, [self.first + self.step * k for k in frames], rows, cols)


@dataclass(frozen=True)
class JoinedReader:
    """The frames of readers of one frame shape and dtype, one after another; see `FrameReader`."""

    readers: tuple[FrameReader, ...]

    @property
    def url(self) -> str:
        return self.readers[0].url

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(reader.shape[0] for reader in self.readers), *self.readers[0].shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.result_type(*{reader.dtype for reader in self.readers})

    def read_into(self, out: NDArray[Any], frames: Sequence[int], rows: slice, cols: slice) -> None:
        edges = np.array([0, *accumulate(reader.shape[0] for reader in self.readers)])
        owner = np.searchsorted(edges, np.asarray(frames), side="right") - 1
        runs = np.flatnonzero(np.diff(owner, prepend=-1))
        for first, last in zip(runs, [*runs[1:], len(frames)], strict=True):
            own = int(owner[first])
            inside = [int(frames[k] - edges[own]) for k in range(first, last)]
            self.readers[own].read_into(out[first:last], inside, rows, cols)


def joined(readers: Sequence[FrameReader]) -> FrameReader:
    """One reader of all the frames."""
    return readers[0] if len(readers) == 1 else JoinedReader(tuple(readers))
