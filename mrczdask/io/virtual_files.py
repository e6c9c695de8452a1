"""The files of a virtual array one by one: where their pixels lie and what they say, kept until all are indexed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from mrczdask.errors import MrcFormatError
from mrczdask.execution.progress import Progress, track
from mrczdask.formats.blosc_frame import BLOSC1, HEADER_BYTES, parse_chunk_header
from mrczdask.io.frames import HDF5_SUFFIXES
from mrczdask.io.hdf5_chunks import GZIP, SHUFFLE, ZSTD_FILTER, ChunkTable
from mrczdask.io.hdf5_frames import open_hdf5_frames
from mrczdask.io.hdf5_reader import ChunkReader
from mrczdask.io.movie import open_file
from mrczdask.io.mrc_reader import MrcReader
from mrczdask.io.part_reader import PartReader
from mrczdask.io.reader import FrameReader
from mrczdask.io.session import OPEN_THREADS, open_all
from mrczdask.io.source import open_source, without_secrets
from mrczdask.io.sparse_blocks import Columns, KeptBlocks
from mrczdask.io.stamps import file_stamp, file_stamps

ROW_BLOCK_BYTES: Final = 4 << 20
"""Of plain MRC a chunk is so many rows: a few rows of a large frame do not load all of it."""
_PLAN: Final = {"verb": "virtualize", "format": 2}
"""Kept files of another format are not gone on with."""
_COORD: Final = "coord."

Options = Mapping[str, Any] | None


@dataclass(frozen=True)
class Codecs:
    """How a chunk is packed: nothing, Blosc 2, any Blosc, or gzip, Zstandard and shuffle as HDF5 has them."""

    kind: Literal["none", "blosc", "blosc_frame", "hdf5"]
    filters: tuple[tuple[int, int], ...] = ()
    """Of HDF5 in the order of writing: (number, level or item size)."""


@dataclass(frozen=True)
class IndexedFile:
    """A file (frame, y, x): its chunks as byte ranges on a grid, and what it says of itself, as plain values.

    `data` is the file of these bytes where another is linked to.
    """

    url: str
    stamp: str
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    stored: np.dtype[Any]
    codecs: Codecs
    offsets: NDArray[np.uint64] = field(repr=False)
    lengths: NDArray[np.uint64] = field(repr=False)
    coords: Mapping[str, tuple[tuple[str, ...], Any]] = field(repr=False, default_factory=dict)
    attrs: Mapping[str, Any] = field(repr=False, default_factory=dict)
    session: Mapping[str, Any] = field(repr=False, default_factory=dict)
    acquired: np.datetime64 | None = None
    data: str = ""

    @property
    def home(self) -> str:
        """The file that holds the pixels."""
        return self.data or self.url

    def columns(self) -> Columns:
        """As arrays and JSON, to be kept."""
        facts: dict[str, Any] = {"url": self.url, "stamp": self.stamp, "shape": self.shape, "chunk": self.chunk}
        facts |= {"data": self.data}
        facts |= {"stored": self.stored.str, "kind": self.codecs.kind, "filters": self.codecs.filters}
        facts |= {"attrs": dict(self.attrs), "session": dict(self.session)}
        facts |= {"acquired": None if self.acquired is None else str(self.acquired)}
        facts |= {"dims": {name: dims for name, (dims, _) in self.coords.items()}}
        text = np.frombuffer(json.dumps(facts).encode(), np.uint8)
        labels = {f"{_COORD}{name}": values for name, (_, values) in self.coords.items()}
        return {"facts": text, "offsets": self.offsets, "lengths": self.lengths, **labels}

    @classmethod
    def of_columns(cls, columns: Columns) -> IndexedFile:
        """What `columns` gave."""
        facts = json.loads(columns["facts"].tobytes())
        return cls(
            url=facts["url"],
            stamp=facts["stamp"],
            shape=tuple(facts["shape"]),
            chunk=tuple(facts["chunk"]),
            stored=np.dtype(facts["stored"]),
            codecs=Codecs(facts["kind"], tuple((number, value) for number, value in facts["filters"])),
            offsets=columns["offsets"],
            lengths=columns["lengths"],
            coords={name: (tuple(dims), columns[f"{_COORD}{name}"]) for name, dims in facts["dims"].items()},
            attrs=facts["attrs"],
            session=facts["session"],
            data=facts["data"],
            acquired=None if facts["acquired"] is None else np.datetime64(facts["acquired"]),
        )


@dataclass(frozen=True)
class KeptFiles:
    """Files that are indexed, in a folder beside the target: a run that was killed goes on with the others."""

    blocks: KeptBlocks

    def known(self, urls: Sequence[str], options: Options) -> dict[str, IndexedFile]:
        """Those of the files that an earlier run left and that did not change since."""
        numbers = self.blocks.begin(_PLAN)
        wanted = [number for number in map(_number, urls) if number in numbers]
        with ThreadPoolExecutor(OPEN_THREADS) as pool:
            kept = [IndexedFile.of_columns(columns) for columns in pool.map(self.blocks.read, wanted)]
        stamps = file_stamps([one.url for one in kept], options)
        homes = file_stamps([one.home for one in kept], options)
        now = [_both(*pair) for pair in zip(stamps, homes, strict=True)]
        same = {one.url: one for one, stamp in zip(kept, now, strict=True) if one.stamp == stamp}
        return {url: same[url] for url in urls if url in same}

    def keep(self, indexed: IndexedFile) -> IndexedFile:
        """Keep a file, and hand it on."""
        self.blocks.write(_number(indexed.url), indexed.columns())
        return indexed


def _both(stamp: str, home: str) -> str:
    """The stamp of a file and of the one that it links to."""
    return stamp if stamp == home else f"{stamp} {home}"


def _number(url: str) -> int:
    return int.from_bytes(hashlib.blake2b(url.encode(), digest_size=8).digest(), "big")


def index_files(
    urls: Sequence[str], options: Options, *, kept: KeptFiles | None, progress: Progress, label: str
) -> list[tuple[str, IndexedFile]]:
    """Index files, each once; those that fail are listed in one error when all others are done."""
    known = kept.known(urls, options) if kept is not None else {}

    def index(url: str) -> IndexedFile:
        found = index_file(url, options)
        return found if kept is None else kept.keep(found)

    with track(progress, len(urls), label) as advance:
        for _ in known:
            advance()
        made = dict(open_all([url for url in urls if url not in known], "raise", index, advance)) | known
    return [(url, made[url]) for url in urls]


def index_file(url: str, options: Options) -> IndexedFile:
    """Where the chunks of a file are."""
    return _of_hdf5(url, options) if url.lower().endswith(HDF5_SUFFIXES) else _of_mrc(url, options)


def _of_mrc(url: str, options: Options) -> IndexedFile:
    movie = open_file(url, storage_options=options)
    reader = _checked(movie.reader)
    n, ny, nx = reader.shape
    rows = ny if reader.compressed else _row_block(ny, reader.line_bytes)
    steps = np.arange(ny // rows, dtype=np.uint64) * np.uint64(rows * reader.line_bytes)
    offsets = (reader.table.offsets[:, None] + steps)[..., None]
    lengths = reader.table.lengths[:, None, None] if reader.compressed else np.uint64(rows * reader.line_bytes)
    return IndexedFile(
        url=url,
        stamp=reader.stamp,
        shape=(n, ny, nx),
        chunk=(1, rows, nx),
        stored=_pixel_type(reader),
        codecs=Codecs(_blosc_kind(reader, options) if reader.compressed else "none"),
        offsets=offsets,
        lengths=np.ascontiguousarray(np.broadcast_to(lengths, offsets.shape)),
        coords={name: (coord[0], _labels(coord[1])) for name, coord in movie.coords.items()},
        attrs={name: plain(value) for name, value in movie.attrs.items()},
        session={name: plain(value) for name, value in movie.session.items()},
        acquired=movie.acquired,
    )


def _labels(values: Any) -> NDArray[Any]:
    """Without objects, which a file of arrays does not hold."""
    found = np.asarray(values)
    return found.astype(str) if found.dtype.kind in "OT" else found


def plain(value: Any) -> Any:
    """A value as JSON has it, without passwords."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, str):
        return without_secrets(value)
    return value if isinstance(value, int | float | list | dict | None) else str(value)


def _checked(reader: Any) -> MrcReader:
    if not isinstance(reader, MrcReader):
        raise MrcFormatError(
            "only MRC, MRCZ and HDF5 files lie in chunks that Zarr reads: write_archive copies the others",
            url=reader.url,
        )
    if reader.packed4 or reader.shifted or reader.stored.shape:
        kind = "signed bytes of IMOD" if reader.shifted else f"pixels of {reader.stored}"
        kind = "4-bit pixels" if reader.packed4 else kind
        raise MrcFormatError(f"{kind} have no data type in Zarr: write_archive copies them", url=reader.url)
    return reader


def _pixel_type(reader: MrcReader) -> np.dtype[Any]:
    """The type in the file, or the one of the same bytes that its writer names: uint8 and bool are stored as int8."""
    same = reader.dtype.itemsize == reader.stored.itemsize and reader.dtype.kind in "uib"
    return reader.dtype.newbyteorder(reader.stored.byteorder) if same else reader.stored


def _row_block(ny: int, line_bytes: int) -> int:
    """Rows of a chunk: as many as divide the frame and fit into ROW_BLOCK_BYTES."""
    return max(
        rows for rows in range(1, ny + 1) if ny % rows == 0 and (rows * line_bytes <= ROW_BLOCK_BYTES or rows == 1)
    )


def _blosc_kind(reader: MrcReader, options: Options) -> Literal["blosc", "blosc_frame"]:
    """Whether every chunk is of the version that Zarr's own codec reads; of a remote file three are looked at."""
    offsets = reader.table.offsets.tolist()
    with open_source(reader.url, options, size=reader.table.end) as source:
        if source.concurrent:
            offsets = [offsets[k] for k in sorted({0, len(offsets) // 2, len(offsets) - 1})]
        heads = source.read_ranges([(at, HEADER_BYTES) for at in offsets])
    return "blosc" if all(parse_chunk_header(head).version == BLOSC1 for head in heads) else "blosc_frame"


def _of_hdf5(url: str, options: Options) -> IndexedFile:
    frames = open_hdf5_frames(url, storage_options=options)
    reader, kept = _chunk_reader(url, frames.reader)
    table = reader.table
    grid = (-1, *table.offsets.shape[-2:])
    offsets, lengths = (part.reshape(grid)[kept].astype(np.uint64) for part in (table.offsets, table.sizes))
    return IndexedFile(
        url=url,
        stamp=_both(file_stamp(url, options), file_stamp(reader.url, options)),
        shape=frames.reader.shape,
        chunk=(table.chunk[0] if len(table.shape) == 3 else 1, *table.chunk[-2:]),
        stored=table.stored,
        codecs=_hdf5_codecs(table, url),
        offsets=offsets,
        lengths=lengths,
        attrs={name: plain(value) for name, value in frames.attrs.items()},
        data="" if reader.url == url else reader.url,
    )


def _chunk_reader(url: str, reader: FrameReader) -> tuple[ChunkReader, slice]:
    """The reader of the chunks, and which of those along the first axis are meant."""
    first, n = 0, reader.shape[0]
    while isinstance(reader, PartReader):  # of a virtual dataset
        first, reader = first + reader.first, reader.reader
    if not isinstance(reader, ChunkReader):
        raise MrcFormatError("the frames are no chunks with byte ranges of one dataset: write_archive copies", url=url)
    table = reader.table
    if (table.offsets < 0).any() or table.skipped.any():
        raise MrcFormatError("chunks were never written, or without their filters: write_archive copies", url=url)
    step = table.chunk[0] if len(table.shape) == 3 else 1
    if len(table.shape) > 3 and math.prod(table.chunk[:-2]) != 1:
        raise MrcFormatError(f"chunks of {table.chunk} hold several rows of a scan: write_archive copies", url=url)
    if first % step:
        raise MrcFormatError(f"frame {first} is inside of a chunk: write_archive copies", url=url)
    return reader, slice(first // step, -(-(first + n) // step))


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
