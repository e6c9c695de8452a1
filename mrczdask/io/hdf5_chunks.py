"""Where the chunks of an HDF5 dataset lie in the file, and how one is unpacked without the HDF5 library.

The library holds one lock for the whole process; bytes that are read and unpacked past it keep every thread busy.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numcodecs.blosc
import numcodecs.lz4
import numcodecs.zstd
import numpy as np
from numpy.typing import NDArray

from mrczdask.errors import MrcFormatError
from mrczdask.formats.fletcher import fletcher32, same_sums
from mrczdask.formats.hdf5_chunk import LZ4, ZSTD, as_blosc, nbytes_of
from mrczdask.io.source import Source

GZIP: Final = 1
SHUFFLE: Final = 2
FLETCHER32: Final = 3
BLOSC: Final = 32001
LZ4_FILTER: Final = 32004
BITSHUFFLE: Final = 32008
ZSTD_FILTER: Final = 32015
"""Filters by the numbers they are registered under."""
_BITSHUFFLE_CODECS: Final = {2: LZ4, 3: ZSTD}
"""The fifth parameter of bitshuffle, and the codec of Blosc."""
_SUM: Final = struct.Struct("<I")
_MANY: Final = 64 << 20
"""Packed bytes fetched at once from an object store."""

Place = tuple[int, ...]


@dataclass(frozen=True)
class Filter:
    """A filter of the pipeline, in the order of writing."""

    number: int
    parameters: tuple[int, ...]

    @property
    def is_known(self) -> bool:
        if self.number == BITSHUFFLE:
            return len(self.parameters) > 4 and self.parameters[4] in _BITSHUFFLE_CODECS
        return self.number in _UNPACK


@dataclass(frozen=True)
class ChunkTable:
    """Byte ranges of the chunks of a dataset, by their place in the grid; an `offset` of -1: never written."""

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    stored: np.dtype[Any]
    filters: tuple[Filter, ...]
    fill: Any
    offsets: NDArray[np.int64] = field(repr=False)
    sizes: NDArray[np.int64] = field(repr=False)
    skipped: NDArray[np.uint32] = field(repr=False)
    """Bits of the filters that were not applied to a chunk."""

    @property
    def chunk_bytes(self) -> int:
        return int(np.prod(self.chunk)) * self.stored.itemsize

    @property
    def end(self) -> int:
        """Of the last chunk in the file."""
        return int((self.offsets + self.sizes).max(initial=0))

    def raw_chunks(self, source: Source, places: Iterable[Place]) -> Iterator[tuple[Place, bytes | None]]:
        """Chunks as they are stored, many at once from an object store; None for those never written."""
        for batch in self._batches(places, source.concurrent):
            written = [place for place in batch if self.offsets[place] >= 0]
            ranges = [(int(self.offsets[place]), int(self.sizes[place])) for place in written]
            data = dict(zip(written, source.read_ranges(ranges), strict=True))
            yield from ((place, data.get(place)) for place in batch)

    def _batches(self, places: Iterable[Place], concurrent: bool) -> Iterator[list[Place]]:
        batch: list[Place] = []
        held = 0
        for place in places:
            size = int(self.sizes[place])
            if batch and (not concurrent or held + size > _MANY):
                yield batch
                batch, held = [], 0
            batch.append(place)
            held += size
        if batch:
            yield batch

    def unpack_at(self, raw: bytes | None, place: Place, room: NDArray[np.uint8], url: str, frame: int | None) -> None:
        """As `unpack`; errors name the file, the frame and the byte, and None is filled with the fill value."""
        if raw is None:
            room.view(self.stored)[:] = self.fill
            return
        where: Any = {"url": url, "frame": frame, "byte": int(self.offsets[place])}
        size = int(self.sizes[place])
        if len(raw) < size:
            problem = f"{size} bytes were here when the file was opened, {len(raw)} are left: the file is truncated"
            raise MrcFormatError(problem, **where)
        try:
            self.unpack(raw, place, room)
        except MrcFormatError as error:
            raise MrcFormatError(error.problem, **where) from None
        except Exception as error:  # RuntimeError, ValueError or zlib.error by the codec
            raise MrcFormatError(f"a chunk does not unpack ({error}): it is corrupt", **where) from None

    def unpack(self, raw: bytes, place: Place, room: NDArray[np.uint8]) -> None:
        """Fill `room`, of `chunk_bytes`, with a chunk; at the borders of the dataset it reaches past them."""
        data: Any = raw
        skipped = int(self.skipped[place])
        applied = [one for k, one in enumerate(self.filters) if not skipped >> k & 1]
        for one in reversed(applied[1:]):
            data = _UNPACK[one.number](data, one, self.stored.itemsize, None)
        if applied:
            data = _UNPACK[applied[0].number](data, applied[0], self.stored.itemsize, room)
        if len(data) != room.size:
            raise _other_size(len(data), room.size)
        if data is not room:
            room[:] = np.frombuffer(data, np.uint8)


def chunk_table(dataset: Any) -> ChunkTable | None:
    """The table of a dataset of h5py; None where its pixels can be had from the library only."""
    plist = dataset.id.get_create_plist()
    if dataset.is_virtual or dataset.external or dataset.file.userblock_size:
        return None
    filters = tuple(_filter(plist.get_filter(k)) for k in range(plist.get_nfilters()))
    if dataset.chunks is None:
        return _contiguous(dataset)
    if not all(one.is_known for one in filters):
        return None
    grid = tuple(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
    offsets, sizes, skipped = np.full(grid, -1, np.int64), np.zeros(grid, np.int64), np.zeros(grid, np.uint32)

    def note(info: Any) -> None:
        place = tuple(at // c for at, c in zip(info.chunk_offset, dataset.chunks, strict=True))
        offsets[place], sizes[place], skipped[place] = info.byte_offset, info.size, info.filter_mask

    if 0 not in grid:
        dataset.id.chunk_iter(note)
    return ChunkTable(
        tuple(dataset.shape), dataset.chunks, dataset.dtype, filters, dataset.fillvalue, offsets, sizes, skipped
    )


def _contiguous(dataset: Any) -> ChunkTable | None:
    """A dataset in one piece as chunks of one frame, or None where its bytes are in the header."""
    from h5py import h5d

    if dataset.id.get_create_plist().get_layout() != h5d.CONTIGUOUS:
        return None
    shape = tuple(dataset.shape)
    chunk = (*([1] * (len(shape) - 2)), *shape[-2:])
    grid = tuple(-(-n // max(c, 1)) for n, c in zip(shape, chunk, strict=True))
    size = int(np.prod(chunk)) * dataset.dtype.itemsize
    start = dataset.id.get_offset()
    numbers = np.arange(int(np.prod(grid)), dtype=np.int64).reshape(grid)
    offsets = np.full(grid, -1, np.int64) if start is None else start + size * numbers
    none = np.zeros(grid, np.uint32)
    return ChunkTable(shape, chunk, dataset.dtype, (), dataset.fillvalue, offsets, np.full(grid, size), none)


def _filter(said: tuple[int, int, tuple[int, ...], bytes]) -> Filter:
    return Filter(said[0], tuple(said[2]))


Room = NDArray[np.uint8] | None
"""Where to unpack to, if the size is known: large buffers of their own cost more than the unpacking."""


def _inflate(data: Any, _: Filter, __: int, ___: Room) -> Any:
    return zlib.decompress(data)


def _unshuffle(data: Any, _: Filter, itemsize: int, room: Room) -> Any:
    """Bytes of an element together again; what is left over at the end was not moved."""
    moved = np.frombuffer(data, np.uint8)
    whole = moved.size // itemsize * itemsize
    back = room if room is not None and room.size == moved.size else np.empty_like(moved)
    back[:whole].reshape(-1, itemsize)[...] = moved[:whole].reshape(itemsize, -1).T
    back[whole:] = moved[whole:]
    return back


def _unblosc(data: Any, _: Filter, __: int, room: Room) -> Any:
    return _blosc(bytes(data), room)


def _unzstd(data: Any, _: Filter, __: int, ___: Room) -> Any:
    return numcodecs.zstd.decompress(data)


def _unblock(data: Any, one: Filter, itemsize: int, room: Room) -> Any:
    """Blocks of LZ4 or Zstandard, their bits transposed or not."""
    bitshuffled = one.number == BITSHUFFLE
    codec = _BITSHUFFLE_CODECS[one.parameters[4]] if bitshuffled else LZ4
    unpack = _unzstd_block if codec == ZSTD else _unlz4_block
    chunk, tail = as_blosc(bytes(data), itemsize, codec=codec, bitshuffled=bitshuffled, unpack=unpack)
    packed = nbytes_of(chunk)
    if room is None:
        return (bytes(_blosc(chunk, None)) if packed else b"") + tail
    if packed + len(tail) != room.size:
        raise _other_size(packed + len(tail), room.size)
    if packed:
        _blosc(chunk, room[:packed])
    room[packed:] = np.frombuffer(tail, np.uint8)
    return room


def _unlz4_block(packed: bytes, size: int) -> bytes:
    return bytes(numcodecs.lz4.decompress(_SUM.pack(size) + packed))


def _unzstd_block(packed: bytes, size: int) -> bytes:
    content = bytes(numcodecs.zstd.decompress(packed))
    if len(content) != size:
        raise _other_size(len(content), size)
    return content


def _checked(data: Any, _: Filter, __: int, ___: Room) -> Any:
    """What stands in front of its checksum."""
    content = np.frombuffer(data, np.uint8)[: -_SUM.size]
    if len(data) < _SUM.size or not same_sums(fletcher32(content), *_SUM.unpack(bytes(data[-_SUM.size :]))):
        raise MrcFormatError("the checksum of a chunk is not that of its bytes: it is corrupt")
    return content


def _other_size(found: int, wanted: int) -> MrcFormatError:
    return MrcFormatError(f"a chunk holds {found} bytes instead of {wanted}: it is corrupt")


def _blosc(chunk: Any, room: Room) -> Any:
    """Unpack a Blosc chunk, into `room` if that is its size."""
    if room is None or nbytes_of(chunk) != room.size:
        return np.frombuffer(numcodecs.blosc.decompress(chunk), np.uint8)
    numcodecs.blosc.decompress(chunk, room)
    return room


_UNPACK: Final[dict[int, Callable[[Any, Filter, int, Room], Any]]] = {
    GZIP: _inflate,
    SHUFFLE: _unshuffle,
    FLETCHER32: _checked,
    BLOSC: _unblosc,
    LZ4_FILTER: _unblock,
    BITSHUFFLE: _unblock,
    ZSTD_FILTER: _unzstd,
}
