"""Diffraction frames as every format gives them, and the lazy array made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import xarray as xr

from mrczdask import schema
from mrczdask.errors import MrcFormatError
from mrczdask.io.movie import Chunks, chunked, lazy_variable
from mrczdask.io.movie_array import CHUNK_BYTES, MovieArray, preferred_chunks
from mrczdask.io.part_reader import PartReader, joined
from mrczdask.io.reader import FrameReader

SCAN_DIMS: Final = ("scan_y", "scan_x", "ky", "kx")
FRAME_DIMS: Final = (schema.SHOT, schema.Y, schema.X)
MASK: Final = "mask"
_LISTED: Final = 3


@dataclass(frozen=True)
class FrameSet:
    """Opened frames. `scan` is the shape of a scan, `mask` a reader of one frame that is not 0 where a pixel is bad."""

    reader: FrameReader
    scan: tuple[int, int] | None = None
    coords: Mapping[str, tuple[tuple[str, ...], Any]] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)
    mask: FrameReader | None = None
    together: int = 1
    """Frames of one packed chunk: it is unpacked whole for any of them."""


def join_sets(sets: Sequence[FrameSet]) -> FrameSet:
    """The frames of several files one after another; attributes are those of the first."""
    first = sets[0]
    odd = [one.reader.url for one in sets if one.reader.shape[1:] != first.reader.shape[1:]]
    if odd:
        more = f" and {len(odd) - _LISTED} more" if len(odd) > _LISTED else ""
        listed = ", ".join(odd[:_LISTED])
        raise MrcFormatError(
            f"frames of {first.reader.shape[1:]} (y, x), others differ: {listed}{more}", url=first.reader.url
        )
    if len(sets) == 1:
        return first
    return replace(first, reader=joined([one.reader for one in sets]), scan=None, coords={})


def as_array(frames: FrameSet, chunks: Chunks) -> xr.DataArray:
    """The lazy DataArray of a set: (shot, y, x), or (scan_y, scan_x, ky, kx)."""
    reader = frames.reader
    if frames.scan is None:
        array, dims = MovieArray([reader], session=False), FRAME_DIMS
        sizes = preferred_chunks(reader.shape)
        shots = -(-sizes["frame"] // frames.together) * frames.together
        wanted = {schema.SHOT: min(shots, max(reader.shape[0], 1)), schema.Y: sizes["y"], schema.X: sizes["x"]}
    else:
        rows, columns = frames.scan
        array = MovieArray([PartReader(reader, k * columns, columns) for k in range(rows)], session=True)
        dims = SCAN_DIMS  # type: ignore[assignment]
        wanted = _scan_chunks(rows, columns, *reader.shape[1:3])
    variable = lazy_variable(array, dims, frames.attrs, {schema.PREFERRED_CHUNKS: wanted})
    images = xr.Dataset({schema.IMAGES: variable})[schema.IMAGES]
    if frames.scan is None:
        images = images.assign_coords({schema.SHOT: range(reader.shape[0])})
    images = chunked(images.assign_coords(dict(frames.coords)), chunks)
    if frames.mask is not None:
        images = images.assign_coords({MASK: (dims[-2:], _mask(frames.mask))})
    return images


def _scan_chunks(rows: int, columns: int, ny: int, nx: int) -> dict[str, int]:
    frames = max(CHUNK_BYTES // max(4 * ny * nx, 1), 1)
    return dict(zip(SCAN_DIMS, (max(frames // max(columns, 1), 1), min(frames, max(columns, 1)), ny, nx), strict=True))


def _mask(reader: FrameReader) -> Any:
    """(y, x) bool, True = bad, read when it is needed."""
    lazy = xr.DataArray(lazy_variable(MovieArray([reader], session=False), FRAME_DIMS, {}, {}))
    return (lazy.chunk(-1, inline_array=False).isel({schema.SHOT: 0}) != 0).data
