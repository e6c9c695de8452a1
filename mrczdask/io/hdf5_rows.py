"""Rows of an HDF5 dataset from the bytes of its chunks, past the library: it dies of chunks that are damaged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.io.hdf5_chunks import ChunkTable, chunk_table
from mrczdask.io.hdf5_links import files_of, home_of
from mrczdask.io.source import Source, open_source

_FEW: Final = 64
"""Chunks of a table that is not worth cutting."""


@dataclass(frozen=True)
class Rows:
    """Where the rows of a dataset are; `first` is the chunk along the first axis at which the table begins."""

    table: ChunkTable = field(repr=False)
    first: int = 0
    url: str = ""
    """The file that holds them, which links may lead to."""

    def between(self, first: int, last: int) -> Rows:
        """What reading these rows needs."""
        if len(self.table.offsets) <= _FEW:
            return self
        step = self.table.chunk[0]
        part = slice(first // step, max(-(-last // step), first // step + 1))
        one = self.table
        cut = replace(one, offsets=one.offsets[part], sizes=one.sizes[part], skipped=one.skipped[part])
        return Rows(cut, part.start, self.url)

    def read(self, source: Source, first: int, last: int, url: str, frame: int | None) -> NDArray[Any]:
        """Rows as they are stored, in the byte order of this machine; errors name the file and the frame."""
        table = self.table
        out = np.empty((last - first, *table.shape[1:]), table.stored)
        step, inner = table.chunk[0], table.chunk[1:]
        if out.size:
            rows = range(first // step - self.first, -(-last // step) - self.first)
            places = product(rows, *(range(n) for n in table.offsets.shape[1:]))
            scratch = np.empty(table.chunk_bytes, np.uint8)
            for place, raw in table.raw_chunks(source, places):
                start = (place[0] + self.first) * step
                straight = inner == out.shape[1:] and first <= start and start + step <= last
                into = out[max(start - first, 0) : start + step - first]
                room = into.reshape(-1).view(np.uint8) if straight else scratch
                table.unpack_at(raw, place, room, url, frame)
                if not straight:
                    at = tuple(slice(k * n, (k + 1) * n) for k, n in zip(place[1:], inner, strict=True))
                    target = into[(slice(None), *at)]
                    kept = (slice(max(first - start, 0), last - start), *(slice(n) for n in target.shape[1:]))
                    target[...] = room.view(table.stored).reshape(table.chunk)[kept]
        return out.astype(table.stored.newbyteorder("="), copy=False)


def rows_of(dataset: Any, url: str, storage_options: Mapping[str, Any] | None) -> Rows | None:
    """Where the rows are of an open dataset that was asked for in a file; None where only the library reads them."""
    files = files_of(dataset, home_of(dataset, url).url, storage_options)  # what is missing the library takes for 0
    table = chunk_table(dataset) if dataset.ndim and dataset.dtype.kind in "iuf" and dataset.chunks else None
    return None if table is None else Rows(table, url=files[0])


def whole(dataset: Any, url: str, storage_options: Mapping[str, Any] | None) -> NDArray[Any]:
    """An open dataset of HDF5, or array of Zarr, read whole."""
    if not dataset.shape:
        return np.asarray(dataset[()])
    return rows_between(dataset, 0, int(dataset.shape[0]), url, storage_options)


def rows_between(
    dataset: Any, first: int, last: int, url: str, storage_options: Mapping[str, Any] | None
) -> NDArray[Any]:
    """Rows of an open dataset of HDF5, or array of Zarr."""
    rows = rows_of(dataset, url, storage_options) if hasattr(dataset, "id") else None
    if rows is None or not prod(dataset.shape):
        return np.asarray(dataset[first:last])
    with open_source(rows.url, storage_options, size=rows.table.end) as source:
        return rows.read(source, first, min(last, int(dataset.shape[0])), rows.url, None)
