"""One chunk of a Zarr array, decoded in the thread that asks for it, straight into its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import google_crc32c
import numcodecs.blosc
import numpy as np
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec

from mrczdask.codecs.shells import Serializer
from mrczdask.errors import CodecError
from mrczdask.formats.blosc_frame import HEADER_BYTES, parse_chunk_header
from mrczdask.formats.frame_index import CHECKSUM_BYTES
from mrczdask.io.archive_codecs import configuration_of

Decode = Callable[[memoryview, NDArray[Any]], None]
"""Unpacks a chunk into a C-contiguous array of its shape and dtype; `CodecError` where it is corrupt."""
_KNOWN: Final[tuple[list[Any], ...]] = ([], [Crc32cCodec], [BloscCodec], [BloscCodec, Crc32cCodec])


def decoder(codecs: Sequence[Any], dtype: np.dtype[Any]) -> Decode | None:
    """The inverse of the codecs of a chunk; None for those that are left to Zarr."""
    first, *rest = codecs
    if isinstance(first, Serializer) and not rest:
        return partial(_deserialized, first)
    if not is_plain(first, dtype) or [type(one) for one in rest] not in _KNOWN:
        return None
    return partial(_unpacked, checked=Crc32cCodec in map(type, rest), packed=BloscCodec in map(type, rest))


def is_plain(codec: Any, dtype: np.dtype[Any]) -> bool:
    """Whether a chunk is the memory of an array of this dtype."""
    little = isinstance(codec, BytesCodec) and configuration_of(codec).get("endian", "little") == "little"
    return little and dtype.kind in "biufc" and dtype.isnative


def _deserialized(codec: Serializer, chunk: memoryview, out: NDArray[Any]) -> None:
    header, body = codec.open(chunk)
    if header.shape != out.shape or header.dtype != out.dtype:
        raise CodecError(f"it holds {header.shape} {header.dtype}, not {out.shape} {out.dtype}: it is of another array")
    out[...] = codec.finish(header, body)


def _unpacked(chunk: memoryview, out: NDArray[Any], *, checked: bool, packed: bool) -> None:
    if checked:
        chunk, said = chunk[:-CHECKSUM_BYTES], chunk[-CHECKSUM_BYTES:]
        if google_crc32c.value(bytes(chunk)).to_bytes(CHECKSUM_BYTES, "little") != said:
            raise CodecError("its checksum is wrong: it is corrupt")
    pixels = out.reshape(-1).view(np.uint8)
    if packed:
        _unpack_blosc(chunk, pixels)
    elif len(chunk) != pixels.size:
        raise CodecError(f"it has {len(chunk)} bytes, not {pixels.size}: it is corrupt")
    else:
        pixels[:] = np.frombuffer(chunk, np.uint8)


def _unpack_blosc(chunk: memoryview, pixels: NDArray[np.uint8]) -> None:
    header = parse_chunk_header(chunk) if len(chunk) >= HEADER_BYTES else None
    if header is None or header.nbytes != pixels.size or header.cbytes != len(chunk):
        raise CodecError(f"its {len(chunk)} bytes are no Blosc chunk of {pixels.size}: it is corrupt")
    try:
        numcodecs.blosc.decompress(chunk, pixels)
    except (RuntimeError, ValueError) as error:
        raise CodecError(f"it does not unpack ({error}): it is corrupt") from None
