"""Chunks of HDF5 files packed by the filters bitshuffle and LZ4, under the header of Blosc: the blocks are the same.

Both filters write the size of the data and of a block (big endian, 8 and 4 bytes), then each block behind its packed
size (4 bytes). A Blosc chunk has the same blocks behind little-endian sizes, so Blosc's own decoder reads them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from mrczdask.errors import MrcFormatError

HEAD: Final = struct.Struct(">QI")
_SIZE: Final = struct.Struct(">I")
_BLOSC_HEAD: Final = struct.Struct("<BBBBIII")
_BLOSC_FORMAT: Final = (2, 1)
"""Version of the Blosc format and of the packed blocks in it."""
_BITSHUFFLE: Final = 0x4
_ONE_STREAM: Final = 0x10
"""Flags of a Blosc chunk: its bits are transposed, its blocks are not split by byte."""
LZ4: Final = 1
ZSTD: Final = 4
"""Codecs as a Blosc chunk names them."""
_LANES: Final = 8
"""Bitshuffle transposes eight elements at a time; fewer are left as they are."""


Unpack = Callable[[bytes, int], bytes]
"""A packed block and the size of its content -> the content."""


def as_blosc(chunk: bytes, itemsize: int, *, codec: int, bitshuffled: bool, unpack: Unpack) -> tuple[bytearray, bytes]:
    """The Blosc chunk with the same blocks, and the bytes behind them that are not packed.

    Blosc takes a block that is as long as its content for one that is not packed: such blocks are unpacked here.

    Raises
    ------
    MrcFormatError
        The blocks do not fill the chunk.
    """
    if len(chunk) < HEAD.size:
        raise MrcFormatError(f"a chunk of {len(chunk)} bytes has no header")
    total, block = HEAD.unpack_from(chunk)
    loose = total % (_LANES * itemsize) if bitshuffled else 0
    packed = total - loose
    if packed and (not block or block % (_LANES * itemsize if bitshuffled else 1)):
        raise MrcFormatError(f"the chunk has blocks of {block} bytes")
    starts, sizes, end = _walk(chunk, packed, block)
    head = _BLOSC_HEAD.size + 4 * len(starts)
    out = bytearray(head) + chunk[HEAD.size : end]
    flags = codec << 5 | _ONE_STREAM | (_BITSHUFFLE if bitshuffled else 0)
    _BLOSC_HEAD.pack_into(out, 0, *_BLOSC_FORMAT, flags, itemsize, packed, min(block, packed), len(out))
    shift = head - HEAD.size
    struct.pack_into(f"<{len(starts)}I", out, _BLOSC_HEAD.size, *(start + shift for start in starts))
    for start, size in zip(starts, sizes, strict=True):
        struct.pack_into("<I", out, start + shift, size)
    for k in [k for k, size in enumerate(sizes) if size == min(block, packed - k * block)] if bitshuffled else ():
        first, last = starts[k] + _SIZE.size, starts[k] + _SIZE.size + sizes[k]
        out[first + shift : last + shift] = unpack(chunk[first:last], sizes[k])
    tail = chunk[end : end + loose]
    if len(tail) != loose:
        raise MrcFormatError("the chunk ends early")
    return out, tail


def nbytes_of(chunk: bytes | bytearray) -> int:
    """Bytes that a Blosc chunk unpacks to."""
    if len(chunk) < _BLOSC_HEAD.size:
        raise MrcFormatError(f"a chunk of {len(chunk)} bytes has no header")
    return int(_BLOSC_HEAD.unpack_from(chunk)[4])


def _walk(chunk: bytes, packed: int, block: int) -> tuple[list[int], list[int], int]:
    """Start and packed size of every block, and where the last one ends."""
    starts: list[int] = []
    sizes: list[int] = []
    at, left, length = HEAD.size, packed, len(chunk)
    while left:
        if at + _SIZE.size > length:
            raise MrcFormatError("the chunk ends early")
        (size,) = _SIZE.unpack_from(chunk, at)
        starts.append(at)
        sizes.append(size)
        at += _SIZE.size + size
        left -= min(block, left)
    if at > length:
        raise MrcFormatError("the chunk ends early")
    return starts, sizes, at
