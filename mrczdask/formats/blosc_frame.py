"""The header of one Blosc chunk, and the cut of a few blocks out of it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from mrczdask.errors import MrcFormatError

HEADER_BYTES: Final = 16
EXTENDED_HEADER_BYTES: Final = 32
MAX_FRAME_BYTES: Final = 2_147_483_631
"""Blosc's limit for one buffer: 2**31 - 1 - 16."""

BLOSC1, BLOSC2 = 2, 5
VERSIONS: Final = (1, BLOSC1, 3, 4, BLOSC2)

SHUFFLE: Final = 0x01
MEMCPY: Final = 0x02
BITSHUFFLE: Final = 0x04
DONT_SPLIT: Final = 0x10
_CODEC_NAMES: Final = ("blosclz", "lz4", "snappy", "zlib", "zstd")
DECODED: Final = ("blosclz", "lz4", "zlib", "zstd")
"""Codecs that Blosc as it is published for Python has."""
_HEADER: Final = struct.Struct("<4B3I")


@dataclass(frozen=True)
class ChunkHeader:
    """The 16 bytes before every Blosc buffer; `cbytes` counts them."""

    version: int
    flags: int
    typesize: int
    nbytes: int
    blocksize: int
    cbytes: int

    @property
    def extended(self) -> bool:
        """A Blosc2 chunk with a 32-byte header: its filters do not stand in the flags."""
        return self.version == BLOSC2 and self.flags & (SHUFFLE | BITSHUFFLE) == SHUFFLE | BITSHUFFLE

    @property
    def is_memcpy(self) -> bool:
        return bool(self.flags & MEMCPY)

    @property
    def codec(self) -> str:
        number = self.flags >> 5
        return _CODEC_NAMES[number] if number < len(_CODEC_NAMES) else f"Blosc codec {number}"

    @property
    def filter(self) -> str:
        if self.extended:
            return "extended"
        return "bitshuffle" if self.flags & BITSHUFFLE else "shuffle" if self.flags & SHUFFLE else "none"


def parse_chunk_header(raw: bytes | memoryview) -> ChunkHeader:
    """Read the 16 bytes, without judging them: `check_chunk_header` does."""
    version, _, flags, typesize, nbytes, blocksize, cbytes = _HEADER.unpack_from(raw)
    return ChunkHeader(version, flags, typesize, nbytes, blocksize, cbytes)


def check_chunk_header(header: ChunkHeader, *, nbytes: int, room: int, frame: int, byte: int) -> None:
    """Raise unless the chunk unpacks to `nbytes` and ends within the `room` bytes left in the file."""

    def fault(problem: str) -> MrcFormatError:
        return MrcFormatError(problem, frame=frame, byte=byte)

    if header.version not in VERSIONS:
        raise fault(f"Blosc version byte is {header.version}: no Blosc chunk begins here, the file is corrupt")
    if header.nbytes != nbytes:
        raise fault(f"the chunk unpacks to {header.nbytes} bytes, a frame has {nbytes}: the file is corrupt")
    if header.cbytes < HEADER_BYTES:
        raise fault(f"the chunk says it has {header.cbytes} bytes, its header alone has 16: the file is corrupt")
    if header.cbytes > room:
        raise fault(
            f"the chunk says {header.cbytes} bytes, {max(room, 0)} are left: the file is truncated. "
            f'open_movie(..., truncated="readable") gives the first {frame} frames'
        )


@dataclass(frozen=True)
class BlockCut:
    """Whole blocks of a chunk: which bytes of it to read, and where the wanted bytes stand in what they unpack to.

    `spans` are (start, end) in the chunk, in block order; `assemble` makes a small Blosc-1 buffer of them.
    """

    head: bytes
    blocksize: int
    nbytes: int
    start: int
    spans: tuple[tuple[int, int], ...]

    def assemble(self, parts: Sequence[bytes | memoryview]) -> bytes:
        """The buffer that unpacks to exactly these blocks: compressed bytes are copied, not touched."""
        ends = list(accumulate((len(part) for part in parts), initial=HEADER_BYTES + 4 * len(parts)))
        head = struct.pack("<4B3I", *self.head[:4], self.nbytes, self.blocksize, ends[-1])
        return b"".join([head, struct.pack(f"<{len(parts)}i", *ends[:-1]), *parts])


def block_table_bytes(header: ChunkHeader) -> int:
    """Bytes from the start of a chunk to the end of its table of blocks."""
    return HEADER_BYTES + 4 * _n_blocks(header)


def _n_blocks(header: ChunkHeader) -> int:
    return -(-header.nbytes // header.blocksize) if header.blocksize > 0 else 0


def cut_blocks(table: bytes, first: int, last: int) -> BlockCut | None:
    """Find the blocks that hold the unpacked bytes [first, last) of a chunk.

    Parameters
    ----------
    table : bytes
        The start of the chunk, `block_table_bytes` of it or more.
    first, last : int
        Bytes of the unpacked frame.

    Returns
    -------
    BlockCut or None
        None where the chunk has to be unpacked whole: another version than 2, stored bytes, a block table that does
        not add up, or a range that needs every block.
    """
    header = parse_chunk_header(table)
    n_blocks = _n_blocks(header)
    if header.version != BLOSC1 or header.is_memcpy or n_blocks < 2 or len(table) < block_table_bytes(header):
        return None
    block0, block1 = first // header.blocksize, -(-last // header.blocksize)
    if block1 == n_blocks and header.nbytes % header.blocksize and block1 - block0 == 1:
        block0 -= 1  # Blosc splits a lone partial block by another rule
    if block0 <= 0 and block1 >= n_blocks:
        return None
    spans = _block_spans(table, header, n_blocks)
    if spans is None:
        return None
    nbytes = min(block1 * header.blocksize, header.nbytes) - block0 * header.blocksize
    start = first - block0 * header.blocksize
    return BlockCut(table[:HEADER_BYTES], header.blocksize, nbytes, start, tuple(spans[block0:block1]))


def _block_spans(table: bytes, header: ChunkHeader, n_blocks: int) -> list[tuple[int, int]] | None:
    """(start, end) of each block in the chunk; None when the table does not fit the chunk."""
    table_end = block_table_bytes(header)
    starts = struct.unpack_from(f"<{n_blocks}i", table, HEADER_BYTES)
    if min(starts) < table_end or max(starts) >= header.cbytes or len(set(starts)) < n_blocks:
        return None
    # threads write blocks in the order they finish: a block ends where the next one in the file begins
    in_file = sorted(starts)
    following = dict(zip(in_file, [*in_file[1:], header.cbytes], strict=True))
    return [(start, following[start]) for start in starts]
