"""Where the pixels of many files lie, as the chunks of one Zarr array: no pixel is copied."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.errors import MrcFormatError
from mrczdask.formats.blosc_frame import BLOSC1, HEADER_BYTES, parse_chunk_header
from mrczdask.io.frames import HDF5_SUFFIXES, open_frames
from mrczdask.io.hdf5_chunks import GZIP, SHUFFLE, ZSTD_FILTER, ChunkTable
from mrczdask.io.hdf5_reader import ChunkReader
from mrczdask.io.movie_array import movie_array
from mrczdask.io.mrc_reader import MrcReader
from mrczdask.io.session import Order, expand_urls, open_session
from mrczdask.io.source import is_remote, local_path, open_source

ROW_BLOCK_BYTES: Final = 4 << 20
"""Of plain MRC a chunk is so many rows: a few rows of a large frame do not load all of it."""
_PROBED: Final = 3
"""Chunks of a remote file whose Blosc version is looked at; of a local file all are."""
_DIMS: Final = schema.SESSION_DIMS


@dataclass(frozen=True)
class Codecs:
    """How a chunk is packed: nothing, Blosc 2, any Blosc, or gzip, Zstandard and shuffle as HDF5 has them."""

    kind: Literal["none", "blosc", "blosc_frame", "hdf5"]
    filters: tuple[tuple[int, int], ...] = ()
    """Of HDF5 in the order of writing: (number, level or item size)."""


@dataclass(frozen=True)
class VirtualTable:
    """The cube (movie, frame, y, x): its chunks as byte ranges of files, its labels and attributes.

    `offsets` and `lengths` have the shape of the grid of chunks; all chunks of a movie lie in its file.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    stored: np.dtype[Any]
    codecs: Codecs
    urls: tuple[str, ...]
    offsets: NDArray[np.uint64] = field(repr=False)
    lengths: NDArray[np.uint64] = field(repr=False)
    coords: xr.Dataset = field(repr=False, default_factory=xr.Dataset)
    attrs: Mapping[str, Any] = field(repr=False, default_factory=dict)

    @property
    def chunk_bytes(self) -> int:
        """Size of a chunk, unpacked."""
        return math.prod(self.chunk) * self.stored.itemsize


def read_table(
    urls: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    order: Order = "time",
    storage_options: Mapping[str, Any] | None = None,
) -> VirtualTable:
    """Index files of one shape; see `virtualize`."""
    found = expand_urls(urls, storage_options)
    if all(url.lower().endswith(HDF5_SUFFIXES) for url in found):
        return _of_hdf5(found, storage_options)
    session = open_session(found, order=order, storage_options=storage_options)
    source = movie_array(session[schema.IMAGES].data)
    assert source is not None
    readers = [_mrc(reader) for reader in source.readers]
    _same([(_pixel_type(reader), reader.compressed) for reader in readers], [reader.url for reader in readers])
    first = readers[0]
    ny = first.shape[1]
    rows = ny if first.compressed else _row_block(ny, first.line_bytes)
    offsets = np.stack([_row_offsets(reader, ny // rows, rows) for reader in readers])
    lengths = np.stack([reader.table.lengths for reader in readers])[..., None, None]
    if not first.compressed:
        lengths = np.broadcast_to(np.uint64(rows * first.line_bytes), offsets.shape)
    kind: Any = "none" if not first.compressed else _blosc_kind(readers, storage_options)
    return VirtualTable(
        shape=(len(readers), *first.shape),
        chunk=(1, 1, rows, first.shape[2]),
        stored=_pixel_type(first),
        codecs=Codecs(kind),
        urls=tuple(absolute(reader.url) for reader in readers),
        offsets=offsets,
        lengths=np.ascontiguousarray(lengths),
        coords=session.coords.to_dataset(),
        attrs=dict(session[schema.IMAGES].attrs),
    )


def absolute(url: str) -> str:
    """A url that means the same from every folder."""
    return url if is_remote(url) else "file://" + os.path.realpath(local_path(url))


def _mrc(reader: Any) -> MrcReader:
    if not isinstance(reader, MrcReader):
        raise MrcFormatError(
            "only MRC, MRCZ and HDF5 files lie in chunks that Zarr reads: write_archive copies the others",
            url=reader.url,
        )
    if reader.packed4 or reader.stored.shape:
        kind = "4-bit pixels" if reader.packed4 else f"pixels of {reader.stored}"
        raise MrcFormatError(f"{kind} have no data type in Zarr: write_archive copies them", url=reader.url)
    return reader


def _pixel_type(reader: MrcReader) -> np.dtype[Any]:
    """The type in the file, or the one of the same bytes that its writer names: uint8 and bool are stored as int8."""
    same = reader.dtype.itemsize == reader.stored.itemsize and reader.dtype.kind in "uib"
    return reader.dtype.newbyteorder(reader.stored.byteorder) if same else reader.stored


def _same(kinds: Sequence[Any], urls: Sequence[str]) -> None:
    for kind, url in zip(kinds, urls, strict=True):
        if kind != kinds[0]:
            raise MrcFormatError(
                f"pixels are stored otherwise than in {urls[0]} (type, byte order or compression): "
                "the chunks of one Zarr array are all alike. write_archive copies them, or virtualize them apart",
                url=url,
            )


def _row_block(ny: int, line_bytes: int) -> int:
    """Rows of a chunk: as many as divide the frame and fit into ROW_BLOCK_BYTES."""
    return max(
        rows for rows in range(1, ny + 1) if ny % rows == 0 and (rows * line_bytes <= ROW_BLOCK_BYTES or rows == 1)
    )


def _row_offsets(reader: MrcReader, blocks: int, rows: int) -> NDArray[np.uint64]:
    steps = np.arange(blocks, dtype=np.uint64) * np.uint64(rows * reader.line_bytes)
    return (reader.table.offsets[:, None] + steps)[..., None]


def _blosc_kind(readers: Sequence[MrcReader], options: Mapping[str, Any] | None) -> str:
    """ "blosc" where every chunk is of the version that Zarr's own codec reads."""
    for reader in readers:
        offsets = reader.table.offsets.tolist()
        with open_source(reader.url, options, size=reader.table.end) as source:
            if source.concurrent:
                offsets = [offsets[k] for k in sorted({0, len(offsets) // 2, len(offsets) - 1})]
            for head in source.read_ranges([(at, HEADER_BYTES) for at in offsets]):
                if parse_chunk_header(head).version != BLOSC1:
                    return "blosc_frame"
    return "blosc"


def _of_hdf5(urls: Sequence[str], options: Mapping[str, Any] | None) -> VirtualTable:
    images = [open_frames(url, chunks=None, storage_options=options) for url in urls]
    tables = [_chunk_table(url, image) for url, image in zip(urls, images, strict=True)]
    first = tables[0]
    _same([(t.shape, t.chunk, t.stored, t.filters) for t in tables], urls)
    lead = math.prod(first.shape[:-2])
    grid = (len(urls), -1, *first.offsets.shape[-2:])
    names = [os.path.splitext(os.path.basename(url))[0] for url in urls]
    return VirtualTable(
        shape=(len(urls), lead, *first.shape[-2:]),
        chunk=(1, first.chunk[0] if len(first.shape) == 3 else 1, *first.chunk[-2:]),
        stored=first.stored,
        codecs=_hdf5_codecs(first, urls[0]),
        urls=tuple(absolute(url) for url in urls),
        offsets=np.stack([t.offsets for t in tables]).reshape(grid).astype(np.uint64),
        lengths=np.stack([t.sizes for t in tables]).reshape(grid).astype(np.uint64),
        coords=xr.Dataset(coords={schema.MOVIE: np.array(names), schema.FRAME: np.arange(lead)}),
        attrs=dict(images[0].attrs),
    )


def _chunk_table(url: str, images: xr.DataArray) -> ChunkTable:
    array = getattr(images.variable._data, "array", None)
    while array is not None and not hasattr(array, "readers"):
        array = getattr(array, "array", None)
    reader = array.readers[0] if array is not None else None
    reader = getattr(reader, "reader", reader)
    if not isinstance(reader, ChunkReader):
        raise MrcFormatError("the frames are no chunks with byte ranges of one dataset: write_archive copies", url=url)
    table = reader.table
    if (table.offsets < 0).any() or table.skipped.any():
        raise MrcFormatError("chunks were never written, or without their filters: write_archive copies", url=url)
    if len(table.shape) > 3 and math.prod(table.chunk[:-2]) != 1:
        raise MrcFormatError(f"chunks of {table.chunk} hold several rows of a scan: write_archive copies", url=url)
    return table


def _hdf5_codecs(table: ChunkTable, url: str) -> Codecs:
    known = {GZIP, SHUFFLE, ZSTD_FILTER}
    for one in table.filters:
        if one.number not in known:
            raise MrcFormatError(
                f"the filter {one.number} of HDF5 is no codec of Zarr: open_frames reads it, write_archive copies",
                url=url,
            )
    pairs = [(f.number, table.stored.itemsize if f.number == SHUFFLE else 1) for f in table.filters]
    return Codecs("hdf5" if pairs else "none", tuple(pairs))
