"""Frames as shots: any leading dims flattened to one, every chunk of whole frames."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Final

import dask
import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from mrczdask import schema
from mrczdask.errors import MrczdaskError, MrczdaskWarning
from mrczdask.execution.schedulers import client_to_scatter
from mrczdask.io.detector_values import OFFSET, SCALE
from mrczdask.io.frame_axes import PANEL, THRESHOLD
from mrczdask.io.frame_set import MASK
from mrczdask.io.validity import ATTRIBUTES, INVALID, Validity, counts_in, dtype_rule, validity_of

CHUNK_BYTES: Final = 64 << 20
"""Of a chunk of frames in memory, counted at 4 bytes a pixel."""

DTYPE_KINDS: Final = "iuf"
MASKED: Final = "masked_by_frame"
"""Attribute of frames whose masks, one for each, are numbers in them."""
MOST_BYTES: Final = 8
"""Of a pixel."""


def as_shots(frames: Any) -> xr.DataArray:
    """Frames (..., y, x) as a lazy (shot, y, x) DataArray of a `native` type; coordinates of a single leading dim are
    kept."""
    images = frames[schema.IMAGES] if isinstance(frames, xr.Dataset) else frames
    if not isinstance(images, xr.DataArray):
        if not hasattr(images, "ndim") or images.ndim < 2:
            raise ValueError("the frames have fewer than two dims: give (shot, y, x)")
        leading = [f"dim_{k}" for k in range(images.ndim - 2)] if images.ndim != 3 else [schema.SHOT]
        images = xr.DataArray(images, dims=(*leading, schema.Y, schema.X))
    if images.dtype.kind not in DTYPE_KINDS or images.dtype.itemsize > MOST_BYTES:
        raise MrczdaskError(
            f"the frames are {images.dtype}: give integers or real floats of at most {8 * MOST_BYTES} bits"
        )
    images = in_counts(without_bad(images))
    if images.ndim != 3:
        return _flattened(images)
    data = images.data if isinstance(images.data, da.Array) else da.from_array(images.data, chunks=_chunks(images))
    renamed = dict(zip(images.dims, (schema.SHOT, schema.Y, schema.X), strict=True))
    whole = images.copy(data=data.rechunk({1: -1, 2: -1}).astype(native(data.dtype), copy=False))
    return whole.rename({old: new for old, new in renamed.items() if old != new})


def without_bad(images: xr.DataArray) -> xr.DataArray:
    """Frames that have a mask each with a number that is no count in its place: one mask of all stays a coordinate."""
    if MASK not in images.coords or images.coords[MASK].ndim <= 2:
        return images
    mask = images.coords[MASK].reset_coords(drop=True)
    whole = images.drop_vars(MASK)
    whole = whole if isinstance(whole.data, da.Array) else whole.chunk(dict.fromkeys(whole.dims[-2:], -1))
    fill = _no_count(whole.dtype)
    bad = mask.broadcast_like(whole).transpose(*whole.dims).chunk(whole.chunksizes).data
    found = whole.copy(data=da.where(bad, fill, whole.data))
    found.attrs[MASKED] = True
    if whole.dtype.kind != "f":
        found.attrs[INVALID] = [*found.attrs.get(INVALID, ()), [int(fill)] * 2]
    return found


def _no_count(dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "f":
        return dtype.type(np.nan)
    return dtype.type(np.iinfo(dtype).max if dtype.kind == "u" else np.iinfo(dtype).min)


def in_counts(images: xr.DataArray) -> xr.DataArray:
    """Frames whose file says how counts are made of what it holds: those, as float32, NaN where nothing was counted."""
    factor, offset = images.attrs.get(SCALE, 1.0), images.attrs.get(OFFSET, 0.0)
    if (factor, offset) == (1.0, 0.0):
        return images
    whole = images if isinstance(images.data, da.Array) else images.chunk(dict.fromkeys(images.dims[-2:], -1))
    rule = validity_of(images.attrs).merged(dtype_rule(images.dtype))
    data = whole.data.rechunk({images.ndim - 2: -1, images.ndim - 1: -1}).map_blocks(
        _scaled, rule, float(factor), float(offset), dtype=np.float32, meta=np.empty((0,) * images.ndim, np.float32)
    )
    found = whole.copy(data=data)
    found.attrs = {name: value for name, value in images.attrs.items() if name not in (*ATTRIBUTES, SCALE, OFFSET)}
    return found


def _scaled(block: NDArray[Any], rule: Validity, factor: float, offset: float) -> NDArray[np.float32]:
    good = np.empty(block.shape, bool)
    for place in np.ndindex(block.shape[:-2]):
        good[place] = counts_in(rule, block[place])
    return np.where(good, (block.astype(np.float64) + offset) * factor, np.nan).astype(np.float32)


def native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """A type as kernels take it: in the byte order of this machine, half floats as single ones."""
    is_half = dtype.kind == "f" and dtype.itemsize == 2
    return np.dtype(np.float32) if is_half else dtype.newbyteorder("=")


def _flattened(images: xr.DataArray) -> xr.DataArray:
    """Leading dims as one; the labels of shots are their places. Panels lie one below the other, as in a geometry."""
    if THRESHOLD in images.dims:
        told = (
            "images of several thresholds are taken for shots, one after another: choose one, open_frames(threshold=1)"
        )
        warnings.warn(told, MrczdaskWarning, stacklevel=2)
    panels = images.sizes[PANEL] if images.dims[-3:-2] == (PANEL,) else 1
    ny, nx = images.shape[-2:]
    data = images.data.reshape(-1, panels * ny, nx)
    plane = dict(zip(images.dims[-2:], (schema.Y, schema.X), strict=True))
    kept = {MASK: images.coords[MASK].variable} if MASK in images.coords else {}
    if panels > 1 and MASK in kept and PANEL not in kept[MASK].dims:
        kept[MASK] = xr.concat([kept[MASK]] * panels, dim=kept[MASK].dims[0])
    coords = {name: (tuple(plane[dim] for dim in one.dims), one.data) for name, one in kept.items()}
    return as_shots(xr.DataArray(data, coords, (schema.SHOT, schema.Y, schema.X), attrs=images.attrs))


def frames_mask(images: xr.DataArray) -> NDArray[np.bool_] | None:
    """The mask that came with the frames, read here and now without the scheduler in force: one image, maybe a file."""
    if MASK not in images.coords:
        return None
    bad: NDArray[np.bool_] = images.coords[MASK].compute(scheduler=dask.get).values.astype(bool)
    return bad


def with_frames_mask(images: xr.DataArray, mask: ArrayLike | None) -> NDArray[np.bool_] | None:
    """The mask given and that of the frames together."""
    own, given = frames_mask(images), None if mask is None else np.asarray(mask)
    if given is None or own is None:
        return own if given is None else given.astype(bool)
    if given.shape != own.shape:
        raise MrczdaskError(f"mask has the shape {given.shape}, the frames {own.shape}")
    return own | given.astype(bool)


def _chunks(images: xr.DataArray) -> tuple[int, int, int]:
    n, ny, nx = images.shape
    return max(1, min(n, CHUNK_BYTES // max(4 * ny * nx, 1))), ny, nx


def shot_map(
    function: Callable[..., NDArray[Any]], *arrays: da.Array, shape: tuple[int, ...], dtype: Any, **constants: Any
) -> da.Array:
    """Apply a function of `whole_blocks` to each chunk of shots of arrays (shot, ...); the result is (shot, *shape)."""
    args: list[Any] = []
    for k, array in enumerate(arrays):
        args += [array, (0, *range(100 * (k + 1), 100 * (k + 1) + array.ndim - 1))]
    meta = np.empty((0,) * (len(shape) + 1), dtype)
    axes = {1 + k: size for k, size in enumerate(shape)}
    return da.blockwise(function, (0, *axes), *args, new_axes=axes, dtype=dtype, meta=meta, **constants)


def on_workers(value: Any) -> Any:
    """A large object as an argument of tasks: in the workers' memory once where there are any, else as it is."""
    client = client_to_scatter()
    return value if client is None else client.scatter(value, hash=True)
