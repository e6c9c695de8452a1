"""How the frames of a movie become regions of bytes: mode by dtype, samples, encoded frames in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final, Literal, get_args

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.errors import MrcFormatError
from mrczdask.execution.progress import Progress, track
from mrczdask.execution.regions import run_regions
from mrczdask.formats.mrc_fields import MODE_DTYPES, PACKED4
from mrczdask.formats.mrcz import FrameTable
from mrczdask.io.encode import EncodedFrames, Encoding, encode_block

SAMPLE_FRAMES: Final = 3
MODE_OF: Final = {
    "i1": 0,
    "b1": 0,
    "i2": 1,
    "f4": 2,
    "c8": 4,
    "u2": 6,
    "i4": 7,
    "u4": 8,
    "f2": 12,
    "i8": 2,
    "u8": 2,
    "f8": 2,
}
"""MODE by dtype. uint8 has none: mode 0 while every pixel is <= 127, else mode 6. Sums have 64 bits, MRC does not:
float32, which every program reads, while all of them are exact, else int32 for integers."""
INT8_MAX: Final = 127

Codec = Literal["none", "blosclz", "lz4", "lz4hc", "zlib", "zstd"]
WRITTEN: Final = get_args(Codec)


def as_movie(movie: Any) -> xr.DataArray:
    """A DataArray (frame, y, x) over a Dask array, of whatever holds a movie or one image."""
    if isinstance(movie, xr.Dataset):
        movie = movie[schema.IMAGES]
    if not isinstance(movie, xr.DataArray):
        dims = schema.MOVIE_DIMS[-np.ndim(movie) :] if 2 <= np.ndim(movie) <= 3 else None
        movie = xr.DataArray(movie, dims=dims)
    if movie.dims == schema.MOVIE_DIMS[1:]:
        movie = movie.expand_dims(schema.FRAME)
    if movie.ndim != 3 or 0 in movie.shape:
        raise MrcFormatError(
            f"a movie has the dims (frame, y, x) and at least one pixel, not {dict(movie.sizes)}: "
            "select one movie with .isel(movie=...) first"
        )
    if not isinstance(movie.data, da.Array):
        movie = movie.chunk({movie.dims[0]: max((64 << 20) // max(movie[0].nbytes, 1), 1)})
    return movie


def bottom_up(movie: xr.DataArray) -> xr.DataArray:
    """The movie with its rows as MRC has them, the lowest first: TIFF and EER have the highest first."""
    if movie.attrs.get(schema.ORIGIN) != "upper":
        return movie
    return movie.isel({schema.Y: slice(None, None, -1)}).assign_attrs({schema.ORIGIN: "lower"})


def plan_encoding(frames: xr.DataArray, codec: str | None, level: int, mode: int | None) -> Encoding:
    """Mode and stored dtype for the dtype of the movie."""
    if codec is not None and codec not in WRITTEN:
        raise MrcFormatError(f"codec {codec!r} is not one of {', '.join(WRITTEN)}")
    dtype = frames.dtype
    chosen = mode if mode is not None else 0 if dtype == np.uint8 else MODE_OF.get(dtype.str[1:])
    if chosen not in MODE_DTYPES or MODE_DTYPES[chosen].shape:
        kinds = "int8, uint8, int16, uint16, int32, uint32, float16, float32, complex64"
        raise MrcFormatError(
            f"no MRC mode holds {dtype} pixels: convert with .astype() to {kinds}"
            if mode is None
            else f"mode {mode} is not written: choose one of 0, 1, 2, 4, 6, 7, 8, 12, 101"
        )
    stored = MODE_DTYPES[chosen].newbyteorder("<")
    if chosen == PACKED4:
        if dtype != np.uint8 or codec:
            raise MrcFormatError("mode 101 packs uint8 pixels of 0..15 and is not compressed: codec=None")
        return Encoding(chosen, stored)
    if dtype.name in ("int64", "uint64", "float64") and (chosen == 2 or (dtype.kind != "f" and chosen in (7, 8))):
        return Encoding(chosen, stored, codec, level, narrowed=True)
    fits = dtype.name in ("uint8", "bool") if chosen == 0 and dtype != np.int8 else np.can_cast(dtype, stored)
    if not fits:
        raise MrcFormatError(f"mode {chosen} stores {stored.name}, which does not hold every {dtype}")
    return Encoding(chosen, stored, codec, level)


def in_uint16(plan: Encoding) -> Encoding:
    return replace(plan, mode=6, stored=np.dtype("<u2"))


def in_int32(plan: Encoding) -> Encoding:
    return replace(plan, mode=7, stored=np.dtype("<i4"))


def sample_frames(frames: xr.DataArray) -> list[NDArray[Any]]:
    """The first, the middle and the last frame, computed."""
    places = sorted({0, frames.shape[0] // 2, frames.shape[0] - 1})[:SAMPLE_FRAMES]
    tasks = [(k, frames.data[k]) for k in places]
    return [frame for _, frame in run_regions(tasks)]


def table_of(first: int, lengths: list[int]) -> FrameTable:
    sizes = np.array(lengths, np.uint64)
    starts = first + np.concatenate([[0], np.cumsum(sizes[:-1])]).astype(np.uint64)
    return FrameTable(starts.astype(np.uint64), sizes)


def encoded_frames(frames: xr.DataArray, encoding: Encoding, progress: Progress, label: str) -> Iterator[EncodedFrames]:
    """Encoded frames in order; a region is the frames of one Dask chunk."""
    blocks = frames.data.to_delayed()
    encode = delayed(encode_block, pure=False)
    tasks = (
        (k, encode(block.tolist() if block.size > 1 else block.item(), encoding)) for k, block in enumerate(blocks)
    )
    with track(progress, len(blocks), label) as advance:
        for _, encoded in run_regions(tasks, on_done=advance):
            yield encoded
