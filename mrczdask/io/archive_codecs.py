"""How an array is cut into the chunks of a Zarr archive, and which codec packs them: given, or measured on a sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from zarr.abc.codec import ArrayBytesCodec, BytesBytesCodec
from zarr.codecs import BloscCodec, Crc32cCodec

from mrczdask import schema
from mrczdask.codecs import B3D, PixelHistogram
from mrczdask.codecs.container import DTYPES
from mrczdask.codecs.shells import Serializer
from mrczdask.execution.regions import run_regions
from mrczdask.io.encode import Encoding, choose_blosc

MIN_SHARD_BYTES: Final = 1 << 20
"""An array smaller than this is stored as one chunk without shards."""
PATTERN_BYTES: Final = 4 << 20
"""Of a block of patterns of a scan: one request reads it, and it holds the 64 patterns PixelHistogram wants."""
WORTH: Final = 0.95
"""A codec of this package is taken where it needs 5 % less than Blosc, which every reader of Zarr has."""
SUM_BYTES: Final = 8
"""Integers of this size are sums of movies, which are read again and again: LZ4 with shuffled bytes is decoded five
times as fast as zstd and needs 3 bits a pixel more, of the 100 that the frames of a movie need together."""
SAMPLES: Final = 2
SAMPLE_BYTES: Final = 8 << 20
_ZARR_SHUFFLE: Final[dict[str, Any]] = {"none": "noshuffle", "byte": "shuffle", "bit": "bitshuffle"}

INNER: Final = "mrczdask_chunk"
"""Encoding of a variable: the chunk wanted inside its shards, which need not divide them."""

ArchiveCodec = Literal["auto", "zstd", "pixel_histogram", "b3d", "none"]
NAMES: Final = ("auto", "zstd", "pixel_histogram", "b3d", "none")


def inner_chunk(dims: Sequence[Any], shard: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """The chunk inside a shard: one image, or of a scan a block of patterns that divides the shard."""
    lead, image = list(shard[:-2]), tuple(shard[-2:])
    if schema.FRAME in dims or schema.MOVIE in dims or schema.SHOT in dims:
        return (1,) * len(lead) + image
    room = max(PATTERN_BYTES // max(math.prod(image) * itemsize, 1), 1)
    for axis in reversed(range(len(lead))):
        lead[axis] = max(n for n in range(1, min(room, lead[axis]) + 1) if lead[axis] % n == 0)
        room //= lead[axis]
    return (*lead, *image)


def enlarged(shard: Sequence[int], inner: Sequence[int]) -> tuple[int, ...]:
    """A shard of whole chunks, which may reach beyond the border of the array."""
    return tuple(-(-size // part) * part for size, part in zip(shard, inner, strict=True))


def encoding_of(variable: xr.DataArray, codec: Any) -> dict[str, Any]:
    """Chunks, shards and codecs of an array for xarray, "auto" measured."""
    shard = variable.data.chunksize
    wanted = variable.encoding.get(INNER)
    inner = wanted or inner_chunk(variable.dims, shard, variable.dtype.itemsize)
    shard = enlarged(shard, inner)
    whole = shard == inner or (wanted is None and variable.nbytes < MIN_SHARD_BYTES)
    chunks = {"chunks": shard} if whole else {"chunks": inner, "shards": shard}
    return chunks | codecs_of(variable, codec, shard if whole else inner)


def check_codec(codec: Any) -> None:
    """Raise ValueError where `codec` is neither one of the names nor a Zarr codec."""
    if not (isinstance(codec, ArrayBytesCodec | BytesBytesCodec) or (isinstance(codec, str) and codec in NAMES)):
        listed = ", ".join(f'"{name}"' for name in NAMES)
        raise ValueError(f"codec {codec!r}: give one of {listed} or a Zarr v3 codec")


def codecs_of(variable: xr.DataArray, codec: Any, inner: Sequence[int]) -> dict[str, Any]:
    """Serializer and compressors of an array, a checksum of each chunk among them."""
    check_codec(codec)
    ours = {"pixel_histogram": PixelHistogram, "b3d": B3D}
    if isinstance(codec, str) and codec in ours:
        codec = ours[codec]() if variable.dtype in DTYPES else "zstd"
    if codec == "auto":
        codec = _measured(variable, inner) if variable.ndim > 1 and variable.size else _blosc("bit")
    if codec == "zstd":
        codec = _blosc("bit")
    if isinstance(codec, Serializer):  # their streams hold a checksum
        return {"serializer": codec, "compressors": None}
    if isinstance(codec, ArrayBytesCodec):
        return {"serializer": codec, "compressors": (Crc32cCodec(),)}
    return {"compressors": (Crc32cCodec(),) if codec == "none" else (codec, Crc32cCodec())}


def configuration_of(codec: Any) -> dict[str, Any]:
    """As in zarr.json: the attributes of a codec are enumerations in some versions of Zarr and strings in others."""
    configuration: dict[str, Any] = codec.to_dict().get("configuration", {})
    return configuration


def _blosc(shuffle: str, name: Literal["zstd", "lz4"] = "zstd") -> BloscCodec:
    return BloscCodec(cname=name, clevel=1, shuffle=_ZARR_SHUFFLE[shuffle])


def _measured(variable: xr.DataArray, inner: Sequence[int]) -> Any:
    """The codec by which a few chunks of the array are smallest."""
    dtype = variable.dtype
    if dtype.kind in "iu" and dtype.itemsize == SUM_BYTES:
        return _blosc("byte", "lz4")
    if dtype.kind not in "iufcb":
        return _blosc("byte")
    samples = [np.ascontiguousarray(block) for _, block in run_regions(_sample_tasks(variable, inner))]
    images = [block.reshape(-1, block.shape[-1]) for block in samples]
    plan = choose_blosc(images, Encoding(0, dtype, "zstd"), None, None)
    blosc = _blosc(plan.shuffle)
    if dtype not in DTYPES:
        return blosc
    sizes: Mapping[Any, int] = {
        codec: sum(len(codec.encode_array(block)) for block in samples) for codec in (PixelHistogram(), B3D())
    }
    best = min(sizes, key=lambda codec: sizes[codec])
    return best if sizes[best] <= WORTH * sum(_blosc_bytes(block, plan) for block in samples) else blosc


def _sample_tasks(variable: xr.DataArray, inner: Sequence[int]) -> list[tuple[int, Any]]:
    """The first chunk and one of the middle, or as much of their rows as is measured fast."""
    rows = max(SAMPLE_BYTES // max(math.prod(inner[:-2]) * inner[-1] * variable.dtype.itemsize, 1), 1)
    tasks = []
    for share in range(SAMPLES):
        starts = [(n * share // SAMPLES) // step * step for n, step in zip(variable.shape, inner, strict=True)]
        ends = [min(at + step, n) for at, step, n in zip(starts, inner, variable.shape, strict=True)]
        ends[-2] = min(ends[-2], starts[-2] + rows)
        key = tuple(slice(at, end) for at, end in zip(starts, ends, strict=True))
        tasks.append((share, variable.data[key]))
    return tasks


def _blosc_bytes(block: NDArray[Any], plan: Encoding) -> int:
    from numcodecs.blosc import compress

    from mrczdask.io.encode import SHUFFLES

    raw = block.reshape(-1).view(np.uint8)
    return len(compress(raw, b"zstd", 1, SHUFFLES[plan.shuffle], 0, block.dtype.itemsize))
