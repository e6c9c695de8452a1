"""Frames of MRC and MRCZ files."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numcodecs.blosc
import numpy as np
from numpy.typing import NDArray

from mrczdask.errors import AmbiguousFileWarning, MrcFormatError
from mrczdask.formats.blosc_frame import (
    BLOSC2,
    DECODED,
    block_table_bytes,
    check_chunk_header,
    cut_blocks,
    parse_chunk_header,
)
from mrczdask.formats.mrc import SHIFT, MrcHeader
from mrczdask.formats.mrc_fields import COMPLEX_INT16
from mrczdask.formats.mrcz import FrameTable
from mrczdask.formats.pixels import pixels, unpack_lines
from mrczdask.io.source import Source, open_source

_TABLE_GUESS: Final = 4096
"""First read of a chunk of which only some blocks are wanted: the table of 1000 blocks."""
_MANY: Final = 64 << 20
"""Compressed bytes fetched at once from an object store."""


@dataclass(frozen=True)
class MrcReader:
    """Reads frames of one MRC or MRCZ file; see `FrameReader`."""

    url: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stored: np.dtype[Any]
    packed4: bool
    compressed: bool
    signed_known: bool
    line_bytes: int
    table: FrameTable = field(repr=False)
    shifted: bool = False
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)
    stamp: str = field(default="", repr=False)
    """What changes when the file does: with it in the names of Dask, a cluster never gives pixels of the old file."""

    @classmethod
    def of(
        cls,
        url: str,
        header: MrcHeader,
        table: FrameTable,
        *,
        dtype: np.dtype[Any] | None = None,
        storage_options: Mapping[str, Any] | None = None,
        stamp: str = "",
    ) -> MrcReader:
        """A reader for the frames of `table`; `dtype` is what the writer's JSON says the pixels were."""
        _, ny, nx = header.shape
        stored = header.stored
        in_memory = np.dtype("c8") if header.mode == COMPLEX_INT16 else stored.base.newbyteorder("=")
        if header.shifted:
            dtype = in_memory = np.dtype("u1")
        bands = () if header.mode == COMPLEX_INT16 else stored.shape
        return cls(
            url=url,
            shape=(len(table), ny, nx, *bands),
            dtype=dtype or in_memory,
            stored=stored,
            packed4=header.packed4,
            compressed=header.layout == "blosc",
            signed_known=header.signed_known,
            line_bytes=header.line_bytes,
            table=table,
            shifted=header.shifted,
            storage_options=storage_options,
            stamp=stamp,
        )

    def read_into(self, out: NDArray[Any], frames: Sequence[int], rows: slice, cols: slice) -> None:
        """Fill `out` with rows and columns of the frames, in the order given."""
        try:
            with open_source(self.url, self.storage_options, size=self.table.end) as source:
                if self._is_straight(out, cols):
                    rooms = out.reshape(len(frames), -1).view(np.uint8)
                    for place, raw in self._unpacked(source, frames, rows, rooms):
                        if not np.may_share_memory(raw, rooms[place]):
                            rooms[place] = raw
                    return
                for place, raw in self._unpacked(source, frames, rows):
                    out[place] = self._pixels(raw, rows.stop - rows.start)[:, cols]
        except MrcFormatError as error:
            raise error.at(self.url) from None
        if not self.signed_known and out.size and out.min() < 0:
            warnings.warn(
                f"{self.url}: mode 0 without a sure word on its sign is read as int8 and holds negative values; "
                "open_movie(..., signed=False) reads 0..255, and under a header of IMOD 128 more are its counts",
                AmbiguousFileWarning,
                stacklevel=2,
            )

    def iter_frames(self, frames: Sequence[int]) -> Iterator[NDArray[Any]]:
        """Whole frames one after another, in rising order, from a file opened once; nothing is warned of."""
        try:
            with open_source(self.url, self.storage_options, size=self.table.end) as source:
                for _, raw in self._unpacked(source, sorted(frames), slice(0, self.shape[1])):
                    yield self._pixels(raw, self.shape[1]).astype(self.dtype, copy=False)
        except MrcFormatError as error:
            raise error.at(self.url) from None

    def _is_straight(self, out: NDArray[Any], cols: slice) -> bool:
        """Whether whole lines unpack to just the bytes of `out`: no copy is needed."""
        whole = cols.stop - cols.start == self.shape[2]
        one_byte = out.dtype.itemsize == self.stored.itemsize == 1
        byte = one_byte and out.dtype.kind != "b"  # uint8 kept in int8 has the same bytes
        same = ((out.dtype == self.dtype == self.stored and self.stored.isnative) or byte) and self.signed_known
        return self.compressed and whole and same and out.flags.c_contiguous and not self.packed4

    def _pixels(self, raw: Any, n_rows: int) -> NDArray[Any]:
        if self.packed4:
            lines: NDArray[np.uint8] = np.frombuffer(raw, np.uint8).reshape(n_rows, self.line_bytes)
            return unpack_lines(lines, self.shape[2])
        view = pixels(raw, self.stored, n_rows, self.shape[2])
        if self.shifted:  # in bytes that wrap, adding 128 is turning the highest bit
            return np.bitwise_xor(view.view(np.uint8), np.uint8(SHIFT))
        if self.dtype == np.dtype("c8") and self.stored.shape == (2,):
            return np.ascontiguousarray(view, dtype=np.float32).view(np.complex64)[..., 0]
        return view

    def _unpacked(
        self, source: Source, frames: Sequence[int], rows: slice, rooms: NDArray[np.uint8] | None = None
    ) -> Iterator[tuple[int, Any]]:
        """(place in `out`, bytes of its rows) of each frame in the order of the file; in `rooms` where given."""
        order = sorted(range(len(frames)), key=lambda place: frames[place])
        first, last = rows.start * self.line_bytes, rows.stop * self.line_bytes
        if self.compressed and rows.stop - rows.start < self.shape[1]:
            for place in order:
                room = None if rooms is None else rooms[place]
                yield place, self._some_blocks(source, frames[place], first, last, room)
            return
        for batch in self._batches(order, frames, source.concurrent):
            ranges = [self._range(frames[place], first, last) for place in batch]
            for place, (offset, size), data in zip(batch, ranges, source.read_ranges(ranges), strict=True):
                if len(data) < size:
                    raise MrcFormatError(
                        f"{size} bytes were here when the file was opened, {len(data)} are left: "
                        "the file has changed, open it again",
                        frame=frames[place],
                        byte=offset,
                    )
                room = None if rooms is None else rooms[place]
                yield place, self._whole_frame(data, frames[place], room) if self.compressed else data

    def _range(self, frame: int, first: int, last: int) -> tuple[int, int]:
        offset = int(self.table.offsets[frame])
        return (offset, int(self.table.lengths[frame])) if self.compressed else (offset + first, last - first)

    def _batches(self, order: Sequence[int], frames: Sequence[int], concurrent: bool) -> Iterator[list[int]]:
        """Frames to fetch together: one on a disk, as many as fit into `_MANY` bytes from an object store."""
        batch: list[int] = []
        held = 0
        for place in order:
            length = int(self.table.lengths[frames[place]])
            if batch and (not concurrent or held + length > _MANY):
                yield batch
                batch, held = [], 0
            batch.append(place)
            held += length
        if batch:
            yield batch

    def _whole_frame(self, chunk: bytes, frame: int, room: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        self._check(chunk, frame)
        room = np.empty(self.shape[1] * self.line_bytes, np.uint8) if room is None else room
        return unpack(chunk, room, frame, int(self.table.offsets[frame]))

    def _check(self, head: bytes, frame: int) -> None:
        offset, length = int(self.table.offsets[frame]), int(self.table.lengths[frame])
        if len(head) < min(length, _TABLE_GUESS):
            raise MrcFormatError("the file ends here: it was cut since it was opened", frame=frame, byte=offset)
        header = parse_chunk_header(head)
        check_chunk_header(header, nbytes=self.shape[1] * self.line_bytes, room=length, frame=frame, byte=offset)

    def _some_blocks(
        self, source: Source, frame: int, first: int, last: int, room: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Unpack only the Blosc blocks that hold the bytes [first, last) of a frame."""
        offset, length = int(self.table.offsets[frame]), int(self.table.lengths[frame])
        head = source.read_at(offset, min(length, _TABLE_GUESS))
        self._check(head, frame)
        need = block_table_bytes(parse_chunk_header(head))
        if len(head) < need <= length:
            head += source.read_at(offset + len(head), need - len(head))
        cut = cut_blocks(head, first, last)
        if cut is None:
            rest = source.read_at(offset + len(head), length - len(head))
            return self._whole_frame(head + rest, frame)[first:last]
        lo, hi = min(start for start, _ in cut.spans), max(end for _, end in cut.spans)
        body = memoryview(source.read_at(offset + lo, hi - lo))
        buffer = cut.assemble([body[start - lo : end - lo] for start, end in cut.spans])
        if room is None or cut.nbytes != room.nbytes:
            room = np.empty(cut.nbytes, np.uint8)
        blocks = unpack(buffer, room, frame, offset)
        return blocks[cut.start : cut.start + last - first]


def unpack(chunk: bytes, dst: NDArray[np.uint8], frame: int, byte: int) -> NDArray[np.uint8]:
    """Unpack a Blosc chunk of either version into `dst`, which has the size the chunk's header says."""
    header = parse_chunk_header(chunk)
    if not header.is_memcpy and header.codec not in DECODED:
        raise MrcFormatError(
            f"the chunk is packed by {header.codec}, which is not read here: convert it with a program that reads it",
            frame=frame,
            byte=byte,
        )
    try:
        if header.version == BLOSC2:
            import blosc2

            blosc2.decompress2(chunk, dst=dst, nthreads=1)
        else:  # releases the GIL, and works with one thread outside the main thread: Dask brings the threads
            numcodecs.blosc.decompress(chunk, dst)
    except Exception as error:  # RuntimeError, ValueError or TypeError by the kind of fault
        raise MrcFormatError(f"the chunk does not unpack ({error}): it is corrupt", frame=frame, byte=byte) from None
    return dst
