"""The bytes of one shard, encoded in the thread that computed it: Zarr hands every chunk to other threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import google_crc32c
import numcodecs.blosc
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec

from mrczdask.codecs.shells import Serializer
from mrczdask.formats.frame_index import CHECKSUM_BYTES, pack_footer
from mrczdask.formats.mrcz import FrameTable
from mrczdask.io.archive_codecs import configuration_of
from mrczdask.io.shard_decoder import is_plain

_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}


def encode_shard(block: NDArray[Any], target: zarr.Array[Any]) -> Iterator[bytes] | None:
    """The parts, one after the other, of the shard of `target` that holds `block`; None where only Zarr can make it.

    That is a shard cut by the border of the array, or of codecs other than those `write_archive` chooses.
    """
    (codec, *more) = target.metadata.codecs  # type: ignore[union-attr]
    if more or not isinstance(codec, ShardingCodec) or block.shape != target.shards:
        return None
    encode = _encoder(codec, target.dtype)
    index = [type(one) for one in codec.index_codecs]
    if encode is None or configuration_of(codec)["index_location"] != "end" or index != [BytesCodec, Crc32cCodec]:
        return None
    return _parts(block.astype(target.dtype, copy=False), codec.chunk_shape, encode)


def _parts(
    block: NDArray[Any], inner: tuple[int, ...], encode: Callable[[NDArray[Any]], list[bytes]]
) -> Iterator[bytes]:
    """Chunks as they are encoded: what is written at once needs no memory of its own."""
    sizes = []
    for place in np.ndindex(*(n // c for n, c in zip(block.shape, inner, strict=True))):
        key = tuple(slice(k * c, (k + 1) * c) for k, c in zip(place, inner, strict=True))
        chunk = encode(np.ascontiguousarray(block[key]))
        sizes.append(sum(map(len, chunk)))
        yield from chunk
        del chunk  # the next one takes its memory, which is in the cache
    lengths = np.array(sizes, np.uint64)
    yield pack_footer(FrameTable(np.cumsum(lengths) - lengths, lengths))


def _encoder(codec: ShardingCodec, dtype: Any) -> Any:
    """Encodes one chunk into parts; None for other codecs."""
    first, *rest = codec.codecs
    if isinstance(first, Serializer) and not rest:
        return lambda chunk: [first.encode_array(chunk)]
    if not is_plain(first, np.dtype(dtype)):
        return None
    if [type(one) for one in rest] != [BloscCodec, Crc32cCodec]:
        return None
    blosc = configuration_of(rest[0])
    shuffle, name = _SHUFFLES[blosc["shuffle"]], blosc["cname"].encode()
    level, block, item = blosc["clevel"], blosc["blocksize"], blosc["typesize"]

    def encode(chunk: NDArray[Any]) -> list[bytes]:
        raw = chunk.reshape(-1).view(np.uint8)
        packed = numcodecs.blosc.compress(raw, name, level, shuffle, block, item)
        return [packed, google_crc32c.value(packed).to_bytes(CHECKSUM_BYTES, "little")]

    return encode
