"""Diffraction frames as every format gives them, and the lazy array made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import xarray as xr

from mrczdask import schema
from mrczdask.errors import MrcFormatError
from mrczdask.io.detector_masks import bad_pixels
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
    """Opened frames. `scan` is the shape of a scan, `mask` a reader of one frame, or of many."""

    reader: FrameReader
    scan: tuple[int, int] | None = None
    coords: Mapping[str, tuple[tuple[str, ...], Any]] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)
    mask: FrameReader | None = None
    mask_bits: int = -1
    """Bits of the mask that make a pixel bad."""
    mask_lead: tuple[int, ...] = ()
    """Leading dims of the frames that the mask has too: none where it is one plane."""
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
        images = images.assign_coords({MASK: _mask(frames.mask, frames, images)})
    return images


def _scan_chunks(rows: int, columns: int, ny: int, nx: int) -> dict[str, int]:
    frames = max(CHUNK_BYTES // max(4 * ny * nx, 1), 1)
    return dict(zip(SCAN_DIMS, (max(frames // max(columns, 1), 1), min(frames, max(columns, 1)), ny, nx), strict=True))


def _mask(reader: FrameReader, frames: FrameSet, images: xr.DataArray) -> xr.Variable:
    """(y, x) bool, True = bad, read when it is needed; of one for each frame in the chunks of the frames."""
    lazy = xr.DataArray(lazy_variable(MovieArray([reader], session=False), FRAME_DIMS, {}, {}))
    plane = images.dims[-2:]
    if not frames.mask_lead:
        data = lazy.chunk(-1, inline_array=False).isel({schema.SHOT: 0}).data
        return xr.Variable(plane, data.map_blocks(bad_pixels, frames.mask_bits, dtype=bool))
    own = [images.dims[k] for k in frames.mask_lead]
    sizes = [images.sizes[dim] for dim in own]
    shots: Any = max(CHUNK_BYTES // max(4 * images.shape[-2] * images.shape[-1], 1), 1)
    if images.chunks is not None and len(own) == 1:
        shots = images.chunksizes[own[0]]
    data = lazy.chunk({schema.SHOT: shots}, inline_array=False).data.map_blocks(
        bad_pixels, frames.mask_bits, dtype=bool
    )
    return xr.Variable((*own, *plane), data.reshape((*sizes, *data.shape[1:])))
