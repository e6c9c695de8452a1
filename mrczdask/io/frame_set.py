"""Diffraction frames as every format gives them, and the lazy array made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.errors import MrcFormatError
from mrczdask.io.detector_masks import bad_pixels
from mrczdask.io.detector_values import OFFSET, SCALE
from mrczdask.io.movie import Chunks, chunked, lazy_variable
from mrczdask.io.movie_array import CHUNK_BYTES, MovieArray, preferred_chunks
from mrczdask.io.part_reader import PartReader, joined
from mrczdask.io.reader import FrameReader
from mrczdask.io.validity import ATTRIBUTES

SCAN_DIMS: Final[tuple[str, str, str, str]] = ("scan_y", "scan_x", "ky", "kx")
FRAME_DIMS: Final = (schema.SHOT, schema.Y, schema.X)
MASK: Final = "mask"
_LISTED: Final = 3
_CLOSE: Final = 1e-6
"""By which part numbers of two files may differ that say the same."""
_OF_ALL: Final = (
    "distance_m",
    "wavelength_m",
    "beam_center",
    "pixel_size_m",
    "threshold",
    "counts_per_photon",
    SCALE,
    OFFSET,
    *ATTRIBUTES,
)
"""Attributes by which frames are read or placed. Exposures may differ."""


@dataclass(frozen=True)
class FrameSet:
    """Opened frames. `scan` is the shape of a scan, `mask` a reader of one frame, or of many.

    Where each shot has several images, `scan` is how many shots and images, and `dims` names them.
    """

    reader: FrameReader
    scan: tuple[int, int] | None = None
    dims: tuple[str, str, str, str] = SCAN_DIMS
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
    """The frames of several files one after another, of one detector in one place.

    Raises
    ------
    MrcFormatError
        Shapes differ, or what the files say of the detector: no attribute or mask could be right for all.
    """
    first = sets[0]
    odd = [one.reader.url for one in sets if _form(one) != _form(first)]
    if odd:
        more = f" and {len(odd) - _LISTED} more" if len(odd) > _LISTED else ""
        listed = ", ".join(odd[:_LISTED])
        raise MrcFormatError(
            f"frames of {first.reader.shape[1:]} (y, x), others differ: {listed}{more}", url=first.reader.url
        )
    if len(sets) == 1:
        return first
    for one in sets[1:]:
        for name in _OF_ALL:
            if not _same(one.attrs.get(name), first.attrs.get(name)):
                said = f"{name} is {first.attrs.get(name)}, and {one.attrs.get(name)} in {one.reader.url}"
                raise MrcFormatError(f"{said}: open them one by one", url=first.reader.url)
    if len({one.reader.dtype for one in sets}) > 1 and any(one.reader.dtype.kind == "u" for one in sets):
        problem = (
            "the frames of the files are of other depths, whose bad pixels are other numbers: open them one by one"
        )
        raise MrcFormatError(problem, url=first.reader.url)
    first = replace(first, mask=_joined_mask(sets))
    reader = joined([one.reader for one in sets])
    if first.scan is None or first.dims == SCAN_DIMS:
        return replace(first, reader=reader, scan=None, coords={})
    coords = {name: coord for name, coord in first.coords.items() if schema.SHOT not in coord[0]}
    shots = sum(one.scan[0] for one in sets if one.scan is not None)
    return replace(first, reader=reader, scan=(shots, first.scan[1]), coords=coords)


def _form(one: FrameSet) -> tuple[Any, ...]:
    """What frames of all files share: their shape, and the images of a shot."""
    images = None if one.scan is None or one.dims == SCAN_DIMS else one.scan[1]
    return one.reader.shape[1:], images, one.dims


def _same(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    if isinstance(one, str) or isinstance(other, str):
        return bool(one == other)
    left, right = np.asarray(one, float), np.asarray(other, float)
    return left.shape == right.shape and np.allclose(left, right, rtol=_CLOSE, atol=0, equal_nan=True)


def _joined_mask(sets: Sequence[FrameSet]) -> FrameReader | None:
    """The mask of all files: masks of each frame one after another, else one that all have; it is read for it."""
    masks = [one.mask for one in sets]
    there = [mask for mask in masks if mask is not None]
    if not there:
        return None
    same = len(there) == len(masks) and len({(one.mask_bits, one.mask_lead) for one in sets}) == 1
    if same and 0 in sets[0].mask_lead:
        return joined(there)
    if same and all(mask == there[0] or np.array_equal(_read_mask(mask), _read_mask(there[0])) for mask in there[1:]):
        return there[0]
    raise MrcFormatError("the masks of the files differ: open them one by one", url=sets[0].reader.url)


def _read_mask(reader: FrameReader) -> NDArray[Any]:
    n, ny, nx = reader.shape
    out = np.empty((n, ny, nx), reader.dtype)
    reader.read_into(out, range(n), slice(0, ny), slice(0, nx))
    return out


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
        dims = frames.dims  # type: ignore[assignment]
        wanted = dict(zip(dims, _scan_chunks(rows, columns, *reader.shape[1:3]), strict=True))
    variable = lazy_variable(array, dims, frames.attrs, {schema.PREFERRED_CHUNKS: wanted})
    images = xr.Dataset({schema.IMAGES: variable})[schema.IMAGES]
    if schema.SHOT in images.dims:
        images = images.assign_coords({schema.SHOT: range(images.sizes[schema.SHOT])})
    images = chunked(images.assign_coords(dict(frames.coords)), chunks)
    if frames.mask is not None:
        images = images.assign_coords({MASK: _mask(frames.mask, frames, images)})
    return images


def _scan_chunks(rows: int, columns: int, ny: int, nx: int) -> tuple[int, int, int, int]:
    frames = max(CHUNK_BYTES // max(4 * ny * nx, 1), 1)
    return max(frames // max(columns, 1), 1), min(frames, max(columns, 1)), ny, nx


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
