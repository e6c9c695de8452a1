"""The frame around both codecs' streams: magic, version, method, type, shape, checksum. docs/codecs.md specifies it."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any, Final

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from mrczdask.errors import CodecError
from mrczdask.kernels.bits import as_bytes, read_varints

VERSION: Final = 1
"""Of a stream that needs nothing newer."""
STORED, CONSTANT, CODED = 0, 1, 2
DTYPES: Final = tuple(np.dtype(name) for name in ("uint8", "uint16", "int8", "int16", "uint32", "int32"))
MAX_BYTES: Final = 2**31 - 1
"""Largest chunk, unpacked: what numcodecs' and Blosc's buffers are limited to. Checked before memory is taken."""
MAX_DIMS: Final = 32
_FIXED: Final = struct.Struct("<4sBBBBI")  # magic, version, method, dtype code, flags, crc32c
_CRC_AT: Final = 8
BIG_ENDIAN, FORTRAN = 1, 2

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Header:
    """What stands before the body of a stream."""

    method: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    flags: int = 0
    version: int = VERSION

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def seal(magic: bytes, header: Header, *body: Any) -> bytes:
    """Join header and body and put the checksum in."""
    fixed = _FIXED.pack(magic, header.version, header.method, DTYPES.index(header.dtype), header.flags, 0)
    shape = b"".join(varint(n) for n in (len(header.shape), *header.shape))
    out = bytearray(b"".join([fixed, shape, *(part for part in body)]))
    struct.pack_into("<I", out, _CRC_AT, checksum(out))
    return bytes(out)


def checksum(stream: bytes | bytearray | memoryview) -> int:
    """CRC-32C of a stream without its own four bytes."""
    view = memoryview(stream)
    return int(google_crc32c.extend(google_crc32c.value(bytes(view[:_CRC_AT])), bytes(view[_CRC_AT + 4 :])))


def open_stream(magic: bytes, codec: str, stream: Any, newest: int = VERSION) -> tuple[Header, memoryview]:
    """Check a stream and return its header and body; `newest` is the highest version that the codec reads.

    Raises
    ------
    CodecError
        When it is no stream of this codec, of a newer version, truncated or corrupt.
    """
    raw = as_bytes(stream)
    view = memoryview(raw.data)
    if raw.size < _FIXED.size or bytes(view[:4]) != magic:
        raise CodecError(f"{codec}: these {raw.size} bytes are not its stream: they do not begin with {magic!r}")
    _, version, method, code, flags, crc = _FIXED.unpack_from(view)
    if version > newest:
        raise CodecError(f"{codec}: version {version} of the stream is newer than {newest}: update mrczdask")
    if crc != checksum(view):
        raise CodecError(f"{codec}: the checksum of the {raw.size} bytes is wrong: the chunk is corrupt or truncated")
    if method > CODED or code >= len(DTYPES) or flags > (BIG_ENDIAN | FORTRAN) or version < 1:
        raise CodecError(f"{codec}: the header is corrupt")
    ndim, at = read_varint(view, _FIXED.size, codec)
    if ndim > MAX_DIMS:
        raise CodecError(f"{codec}: {ndim} dimensions: the header is corrupt")
    shape = []
    for _ in range(ndim):
        n, at = read_varint(view, at, codec)
        shape.append(n)
    header = Header(method, DTYPES[code], tuple(shape), flags, version)
    if header.size * header.dtype.itemsize > MAX_BYTES:
        raise CodecError(f"{codec}: a shape of {header.shape} is more than {MAX_BYTES} bytes: the header is corrupt")
    return header, view[at:]


def varint(value: int) -> bytes:
    """LEB128."""
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def read_varint(view: memoryview, at: int, codec: str) -> tuple[int, int]:
    """Read one LEB128 integer of at most 56 bits; return it and the next byte."""
    value = 0
    for shift in range(0, 56, 7):
        if at >= len(view):
            break
        byte = view[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise CodecError(f"{codec}: the header is corrupt")


def describe(array: Any) -> tuple[NDArray[Any], Header]:
    """Return an array's pixels in C order and the native byte order, and the header that restores its memory.

    Raises
    ------
    CodecError
        When the type is none of DTYPES.
    """
    array = np.asanyarray(array)
    dtype = array.dtype.newbyteorder("=")
    if dtype not in DTYPES or array.nbytes > MAX_BYTES or array.ndim > MAX_DIMS:
        names = ", ".join(str(each) for each in DTYPES)
        raise CodecError(
            f"a chunk of {array.shape} {array.dtype} cannot be coded: chunks of {names} up to 2 GiB can; "
            "use smaller chunks or another codec"
        )
    flags = BIG_ENDIAN if array.dtype != dtype else 0
    if array.ndim > 1 and array.flags.f_contiguous and not array.flags.c_contiguous:
        flags |= FORTRAN
    return np.ascontiguousarray(array, dtype).reshape(array.shape), Header(CODED, dtype, array.shape, flags)


def masked_by_largest(pixels: NDArray[Any]) -> bool:
    """One pixel in a thousand or more is the largest number of an unsigned type, and few others are near it."""
    if pixels.dtype.kind != "u" or pixels.max() != np.iinfo(pixels.dtype).max:
        return False
    sample = pixels.reshape(-1)[:: pixels.size // (1 << 14) + 1]
    largest = sample == np.iinfo(pixels.dtype).max
    upper = sample > np.iinfo(pixels.dtype).max // 2
    return bool(largest.sum() > sample.size / 1000 and 2 * largest.sum() > upper.sum() and not upper.all())


def simple(magic: bytes, pixels: NDArray[Any], header: Header, *, stored: bool = False) -> bytes | None:
    """Return the stored form, the all-equal form where it applies, else None."""
    little = header.dtype.newbyteorder("<")
    if stored or pixels.size < 8:
        whole = Header(STORED, header.dtype, header.shape, header.flags)
        return seal(magic, whole, pixels.astype(little, copy=False).tobytes())
    first = pixels.reshape(-1)[0]
    if pixels.min() == first == pixels.max():
        return seal(magic, Header(CONSTANT, header.dtype, header.shape, header.flags), first.astype(little).tobytes())
    return None


def restore_simple(header: Header, body: memoryview, codec: str) -> NDArray[Any] | None:
    """Pixels of a stored or an all-equal stream, C order; None when it is coded."""
    if header.method == CODED:
        return None
    count = header.size if header.method == STORED else 1
    if len(body) != count * header.dtype.itemsize:
        raise CodecError(f"{codec}: {len(body)} bytes where {count} pixels were announced: the chunk is corrupt")
    pixels = np.frombuffer(body, header.dtype.newbyteorder("<"), count).astype(header.dtype)
    return pixels.reshape(header.shape) if header.method == STORED else np.full(header.shape, pixels[0])


def as_written(pixels: NDArray[Any], header: Header) -> NDArray[Any]:
    """Bring C-ordered pixels into the memory order and byte order that were encoded."""
    if header.flags & BIG_ENDIAN:
        pixels = pixels.astype(pixels.dtype.newbyteorder(">"))
    return np.asfortranarray(pixels) if header.flags & FORTRAN and pixels.ndim > 1 else pixels


def corrupt(codec: str, what: str) -> CodecError:
    """The error for a stream whose checksum is right and whose content is not."""
    return CodecError(f"{codec}: the chunk is corrupt: {what}")


class Cutter:
    """Takes the parts of a body one after the other, never past its end."""

    def __init__(self, body: memoryview, codec: str):
        self.left, self._codec = as_bytes(body), codec

    def take(self, count: int, dtype: str = "u1") -> NDArray[Any]:
        """The next `count` little-endian integers."""
        kind = np.dtype(dtype).newbyteorder("<")
        nbytes = count * kind.itemsize
        if nbytes > self.left.size:
            raise self.corrupt(f"{nbytes} bytes announced, {self.left.size} left")
        part, self.left = self.left[:nbytes], self.left[nbytes:]
        return np.frombuffer(part.tobytes(), kind).astype(dtype, copy=False)

    def varints(self, count: int, most_bytes: int = 8) -> list[int]:
        """The next `count` variable-length integers of at most `most_bytes` each."""
        numbers, at = read_varints(self.left, 0, count, most_bytes)
        if at < 0:
            raise self.corrupt("its lengths")
        self.left = self.left[at:]
        return [int(n) for n in numbers]

    def end(self) -> None:
        """Nothing may be left."""
        if self.left.size:
            raise self.corrupt(f"{self.left.size} bytes too many")

    def corrupt(self, what: str) -> CodecError:
        """The error to raise."""
        return corrupt(self._codec, what)
