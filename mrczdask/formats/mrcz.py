"""The chunks of an MRCZ file: where each frame begins and ends, by a walk over the Blosc headers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.errors import MrcFormatError
from mrczdask.formats.blosc_frame import HEADER_BYTES as CHUNK_BYTES
from mrczdask.formats.blosc_frame import MAX_FRAME_BYTES, ChunkHeader, check_chunk_header, parse_chunk_header
from mrczdask.formats.mrc import MrcHeader
from mrczdask.formats.mrc_fields import BLOSC_CODECS, COMPRESSORS, HEADER_BYTES

ReadRanges = Callable[[Sequence[tuple[int, int]]], list[bytes]]
"""Takes (offset, size) pairs, gives their bytes; short at the end of the file."""

MAX_RAW_FRAME_BYTES: Final = 1 << 62

_SURE_WINDOW: Final = 4096
_SPREAD: Final = 0.02
"""Sizes of frames of one movie differ by a fraction of a per cent: a window of 2 % about a guess finds the header."""


@dataclass(frozen=True)
class FrameTable:
    """Offset and length in bytes of every frame in the file."""

    offsets: NDArray[np.uint64]
    lengths: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def end(self) -> int:
        """First byte behind the last frame."""
        return int(self.offsets[-1]) + int(self.lengths[-1]) if len(self) else 0


def raw_table(header: MrcHeader, size: int, *, readable: bool = False) -> FrameTable:
    """Frames of an uncompressed file of `size` bytes; the complete ones only where `readable`.

    Raises
    ------
    MrcFormatError
        The file is shorter than its header says.
    """
    frame_bytes, first = header.frame_bytes, header.data_offset
    whole = max(size - first, 0) // frame_bytes
    n = header.shape[0]
    if whole < n:
        if not header.nsymbt_sure:
            raise MrcFormatError(
                f"the header says {n} frames of {frame_bytes} bytes behind an extended header of {header.nsymbt}: "
                f"{max(size - first, 0)} bytes are left for them, and without the extended header it would be "
                f"{(size - HEADER_BYTES) // frame_bytes} frames. Either the file is truncated or NSYMBT is of another "
                "file, and a wrong choice shifts the pixels: copy the file again, or write NSYMBT = 0 at byte 92",
                byte=92,
            )
        if not readable:
            raise MrcFormatError(
                f"the header says {n} frames of {frame_bytes} bytes, {max(size - first, 0)} bytes are there: "
                f'the file is truncated. open_movie(..., truncated="readable") gives the first {whole} frames',
                frame=whole,
                byte=first + whole * frame_bytes,
            )
        n = whole
    _check_frame_bytes(frame_bytes, MAX_RAW_FRAME_BYTES)
    offsets = first + np.arange(n, dtype=np.uint64) * np.uint64(frame_bytes)
    return FrameTable(offsets, np.full(n, frame_bytes, np.uint64))


def check_compressed(header: MrcHeader, size: int) -> None:
    """Raise unless the header of an MRCZ file can be true for a file of `size` bytes, before anything is allocated."""
    name = COMPRESSORS[header.compressor]
    if name not in BLOSC_CODECS:
        raise MrcFormatError(
            f"MODE names the compressor {name!r}, which is not read here: convert the file with python-mrcz >= 0.6",
            byte=12,
        )
    _check_frame_bytes(header.frame_bytes, MAX_FRAME_BYTES)
    if header.data_offset > size:
        raise MrcFormatError(
            f"the extended header ends at byte {header.data_offset}, the file has {size}: "
            "NSYMBT is wrong or the file is truncated",
            byte=92,
        )


def _check_frame_bytes(frame_bytes: int, limit: int) -> None:
    if frame_bytes > limit:
        raise MrcFormatError(f"a frame of {frame_bytes} bytes is over the limit of {limit}: the header is corrupt")


def walk_chunks(
    header: MrcHeader,
    size: int,
    read_ranges: ReadRanges,
    *,
    speculate: bool = False,
    readable: bool = False,
    start: FrameTable | None = None,
) -> FrameTable:
    """Find every chunk of an MRCZ file.

    Parameters
    ----------
    header : MrcHeader
    size : int
        Bytes in the file.
    read_ranges : callable
        Reads several (offset, size) ranges, at best at the same time.
    speculate : bool
        Ask for windows about the places where the next headers must be, many at once: a handful of requests in a
        row for a movie on an object store, instead of one after the other for each frame.
    readable : bool
        Stop at the first chunk that is not whole instead of raising.
    start : FrameTable, optional
        Frames known already, for a file that grows.

    Raises
    ------
    MrcFormatError
        A chunk is not one, or ends behind the end of the file.
    """
    check_compressed(header, size)
    walk = _Walk(header, size, start)
    try:
        while walk.frame < header.shape[0]:
            windows = walk.guess() if speculate else [(walk.position, CHUNK_BYTES)]
            walk.advance(windows, read_ranges(windows))
    except MrcFormatError:
        if not readable:
            raise
    return walk.table()


class _Walk:
    """Position of the walk: `frame` chunks are known, the next begins at `position`."""

    def __init__(self, header: MrcHeader, size: int, start: FrameTable | None):
        self.nbytes, self.n_frames, self.size = header.frame_bytes, header.shape[0], size
        self.offsets: list[int] = [] if start is None else start.offsets.tolist()
        self.lengths: list[int] = [] if start is None else start.lengths.tolist()
        self.position = start.end if start is not None and len(start) else header.data_offset

    @property
    def frame(self) -> int:
        return len(self.offsets)

    def table(self) -> FrameTable:
        return FrameTable(np.array(self.offsets, np.uint64), np.array(self.lengths, np.uint64))

    def guess(self) -> list[tuple[int, int]]:
        """Windows about the next headers, twice as many as are known, merged where they touch."""
        if not self.lengths:
            return [(self.position, _SURE_WINDOW)]
        recent = self.lengths[-16:]
        mean = sum(recent) / len(recent)
        windows = [(self.position, self.position + _SURE_WINDOW)]
        for step in range(1, min(2 * self.frame + 8, self.n_frames - self.frame)):
            centre, half = self.position + step * mean, _SURE_WINDOW // 2 + _SPREAD * mean * step**0.5
            first, last = int(centre - half), int(centre + half)
            if first >= self.size:
                break
            if first <= windows[-1][1]:
                windows[-1] = (windows[-1][0], max(last, windows[-1][1]))
            else:
                windows.append((first, last))
        return [(first, min(last, self.size) - first) for first, last in windows]

    def advance(self, windows: Sequence[tuple[int, int]], parts: Sequence[bytes]) -> None:
        """Follow the chunks through what was read, for as long as the next header is among it."""
        before = self.frame
        for (offset, _), part in zip(windows, parts, strict=True):
            while self.frame < self.n_frames:
                inside = self.position - offset
                if inside < 0 or inside + CHUNK_BYTES > len(part):
                    break
                self._take(parse_chunk_header(memoryview(part)[inside:]))
        if self.frame == before:  # the first window begins at the next header: nothing there means the end
            raise MrcFormatError(
                f"the header says {self.n_frames} frames, the file ends behind {self.frame}: the file is truncated "
                f'or still written. open_movie(..., truncated="readable") gives the first {self.frame} frames',
                frame=self.frame,
                byte=self.position,
            )

    def _take(self, chunk: ChunkHeader) -> None:
        room = self.size - self.position
        check_chunk_header(chunk, nbytes=self.nbytes, room=room, frame=self.frame, byte=self.position)
        self.offsets.append(self.position)
        self.lengths.append(chunk.cbytes)
        self.position += chunk.cbytes


def check_table(table: FrameTable, header: MrcHeader, size: int) -> str | None:
    """Why a table from an index cannot belong to the file, or None where it can."""
    if len(table) != header.shape[0]:
        return f"it lists {len(table)} frames, the header says {header.shape[0]}"
    if max(int(table.offsets.max()), int(table.lengths.max())) > size:
        return f"it points behind the end of the file at byte {size}"
    ends = table.offsets + table.lengths
    if int(table.offsets[0]) != header.data_offset:
        return f"its first frame is at byte {int(table.offsets[0])}, the data begin at {header.data_offset}"
    if (ends[:-1] != table.offsets[1:]).any():
        return "its frames do not follow each other"
    if table.end > size:
        return f"its last frame ends at byte {table.end}, the file has {size}"
    return None
