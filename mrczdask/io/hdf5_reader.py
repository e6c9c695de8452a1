"""Frames of one HDF5 dataset: from the bytes of its chunks, or from the HDF5 library where only that can."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrczdask.io.damaged import damaged
from mrczdask.io.hdf5_chunks import ChunkTable, Place, chunk_table
from mrczdask.io.hdf5_file import open_hdf5
from mrczdask.io.source import Source, open_source


@dataclass(frozen=True)
class LibraryReader:
    """Reads frames through h5py, opened in the task; see `FrameReader`. Leading dims are flattened to frames."""

    url: str
    dataset: str
    full: tuple[int, ...]
    dtype: np.dtype[Any]
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)
    stamp: str = field(default="", repr=False)
    sources: tuple[tuple[str, str, int], ...] = field(default=(), repr=False)
    """Of a virtual dataset: files, datasets in them and their frames."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (int(np.prod(self.full[:-2])), *self.full[-2:])

    def read_into(self, out: NDArray[Any], frames: Sequence[int], rows: slice, cols: slice) -> None:
        with (
            damaged(self.url, f"{self.dataset} does not unpack"),
            open_hdf5(self.url, self.storage_options) as file,
        ):
            dataset = file[self.dataset]
            for place, frame in enumerate(frames):
                lead = np.unravel_index(frame, self.full[:-2]) if len(self.full) > 2 else ()
                out[place] = dataset[(*map(int, lead), rows, cols)]


@dataclass(frozen=True)
class ChunkReader:
    """Reads frames from the bytes of the chunks, without the HDF5 library; see `FrameReader`."""

    library: LibraryReader
    table: ChunkTable = field(repr=False)

    @property
    def url(self) -> str:
        return self.library.url

    @property
    def shape(self) -> tuple[int, ...]:
        return self.library.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.library.dtype

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        own = self.library
        return "mrczdask.ChunkReader", own.url, own.dataset, own.full, own.dtype.str, own.stamp

    def read_into(self, out: NDArray[Any], frames: Sequence[int], rows: slice, cols: slice) -> None:
        tiles = [range(span.start // c, -(-span.stop // c)) for span, c in zip((rows, cols), self._tile, strict=True)]
        wanted = self._by_chunk(frames)
        places = [(*lead, *tile) for lead in wanted for tile in product(*tiles)]
        with (
            damaged(self.url, f"{self.library.dataset} does not unpack"),
            open_source(self.url, self.library.storage_options, size=self.table.end) as source,
        ):
            self._read(source, places, wanted, out, rows, cols)

    @property
    def _tile(self) -> tuple[int, ...]:
        return self.table.chunk[-2:]

    def _by_chunk(self, frames: Sequence[int]) -> dict[Place, list[tuple[int, Place, int]]]:
        """Of the chunks along the leading dims: places in the output, places in the chunk and frame numbers."""
        wanted = defaultdict(list)
        lead_shape, lead_chunk = self.table.shape[:-2], self.table.chunk[:-2]
        for place, frame in enumerate(frames):
            lead = [int(k) for k in np.unravel_index(frame, lead_shape)] if lead_shape else []
            chunk = tuple(at // c for at, c in zip(lead, lead_chunk, strict=True))
            inside = tuple(at % c for at, c in zip(lead, lead_chunk, strict=True))
            wanted[chunk].append((place, inside, int(frame)))
        return wanted

    def _read(
        self,
        source: Source,
        places: Sequence[Place],
        wanted: Mapping[Place, Any],
        out: NDArray[Any],
        rows: slice,
        cols: slice,
    ) -> None:
        straight = self._is_straight(out)
        scratch: NDArray[np.uint8] = np.empty(0 if straight else self.table.chunk_bytes, np.uint8)
        for place, raw in self.table.raw_chunks(source, places):
            asked = wanted[place[:-2]]
            room = out[asked[0][0]].reshape(-1).view(np.uint8) if straight else scratch
            self.table.unpack_at(raw, place, room, self.url, asked[0][2])
            for target, inside, _ in asked[1:] if straight else asked:
                if straight:
                    out[target] = out[asked[0][0]]
                else:
                    pixels = room.view(self.table.stored).reshape(self.table.chunk)[inside]
                    self._copy(pixels, place, out[target], rows, cols)

    def _is_straight(self, out: NDArray[Any]) -> bool:
        """Whether a chunk unpacks to just the bytes of a frame of `out`."""
        one = (
            self.table.chunk == (*([1] * (len(self.table.chunk) - 2)), *out.shape[1:])
            and out.shape[1:] == self.shape[1:]
        )
        return one and out.dtype == self.table.stored and out.flags.c_contiguous

    def _copy(self, pixels: NDArray[Any], place: Place, out: NDArray[Any], rows: slice, cols: slice) -> None:
        """What of a tile (y, x) is asked for, into a frame of the output."""
        into: list[slice] = []
        of: list[slice] = []
        for span, at, tile in zip((rows, cols), place[-2:], self._tile, strict=True):
            first, last = max(span.start, at * tile), min(span.stop, (at + 1) * tile)
            into.append(slice(first - span.start, last - span.start))
            of.append(slice(first - at * tile, last - at * tile))
        out[into[0], into[1]] = pixels[of[0], of[1]]


def dataset_reader(
    dataset: Any, url: str, storage_options: Mapping[str, Any] | None, stamp: str
) -> ChunkReader | LibraryReader:
    """A reader of the frames of an open dataset of h5py."""
    full = tuple(map(int, dataset.shape))
    library = LibraryReader(url, dataset.name, full, dataset.dtype.newbyteorder("="), storage_options, stamp)
    table = chunk_table(dataset)
    return library if table is None else ChunkReader(library, table)
