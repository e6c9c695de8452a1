"""The bytes of one shard, encoded in the thread that computed it: Zarr hands every chunk to other threads."""

from __future__ import annotations

import math
from typing import Any

import google_crc32c
import numcodecs.blosc
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec

from mrczdask.codecs.shells import Serializer
from mrczdask.formats.frame_index import pack_footer
from mrczdask.formats.mrcz import FrameTable
from mrczdask.io.archive_codecs import configuration_of

_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}


def encode_shard(block: NDArray[Any], target: zarr.Array[Any]) -> bytes | None:
    """The shard of `target` that holds `block`; None where only Zarr can make it.

    That is a shard cut by the border of the array, or of codecs other than those `write_archive` chooses.
    """
    (codec, *more) = target.metadata.codecs  # type: ignore[union-attr]
    if more or not isinstance(codec, ShardingCodec) or block.shape != target.shards:
        return None
    encode = _encoder(codec, target.dtype)
    index = [type(one) for one in codec.index_codecs]
    if encode is None or configuration_of(codec)["index_location"] != "end" or index != [BytesCodec, Crc32cCodec]:
        return None
    grid = tuple(n // c for n, c in zip(block.shape, codec.chunk_shape, strict=True))
    parts = []
    for place in np.ndindex(grid):
        key = tuple(slice(k * c, (k + 1) * c) for k, c in zip(place, codec.chunk_shape, strict=True))
        parts.append(encode(np.ascontiguousarray(block[key], target.dtype)))
    lengths = np.fromiter(map(len, parts), np.uint64, math.prod(grid))
    table = FrameTable(np.cumsum(lengths, dtype=np.uint64) - lengths, lengths)
    return b"".join([*parts, pack_footer(table)])


def _encoder(codec: ShardingCodec, dtype: Any) -> Any:
    """Encodes one chunk; None for other codecs."""
    first, *rest = codec.codecs
    if isinstance(first, Serializer) and not rest:
        return first.encode_array
    is_plain = isinstance(first, BytesCodec) and configuration_of(first).get("endian", "little") == "little"
    if not is_plain or np.dtype(dtype).byteorder == ">":
        return None
    if [type(one) for one in rest] != [BloscCodec, Crc32cCodec]:
        return None
    blosc = configuration_of(rest[0])
    shuffle, name = _SHUFFLES[blosc["shuffle"]], blosc["cname"].encode()
    level, block, item = blosc["clevel"], blosc["blocksize"], blosc["typesize"]

    def encode(chunk: NDArray[Any]) -> bytes:
        raw = chunk.reshape(-1).view(np.uint8)
        packed = numcodecs.blosc.compress(raw, name, level, shuffle, block, item)
        return b"".join([packed, google_crc32c.value(packed).to_bytes(4, "little")])

    return encode
