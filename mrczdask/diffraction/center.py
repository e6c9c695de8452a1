"""Frames whose beam wanders, shifted so that it stands where the geometry has it."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from mrczdask import schema
from mrczdask.diffraction.beams import shot_centers
from mrczdask.diffraction.shots import as_shots, frames_mask, on_workers, shot_map
from mrczdask.errors import MrczdaskError
from mrczdask.execution.blocks import whole_blocks
from mrczdask.io.geometry import Geometry
from mrczdask.io.sparse_table import CENTER
from mrczdask.provenance import record


def center_frames(
    frames: Any,
    beam_centers: ArrayLike,
    geometry: Geometry,
    *,
    mask: ArrayLike | None = None,
    dummy: float | None = None,
) -> xr.DataArray:
    """Shift each frame by whole pixels so that its beam stands where the geometry has it.

    Parameters
    ----------
    frames : DataArray, dask or numpy array
        (shot, y, x), or with scan dims in front, which become `shot`.
    beam_centers : array
        (shot, 2) float, (y, x) of the beam in each frame, in pixels from the outer edge of the first.
    geometry : Geometry
        Of the detector; its `beam_center` is where beams are brought to. Its mask moves with the frames: go on with
        one that has no mask.
    mask : array of bool, optional
        (y, x), True = bad; taken together with that of the geometry and the coordinate `mask` of the frames.
    dummy : float, optional
        Value of bad pixels, and of those that come from outside. By default the largest value of unsigned dtypes, -1
        of signed ones, NaN of floats.

    Returns
    -------
    DataArray
        Lazy, (shot, y, x) of the same dtype, values as recorded. Coordinates `shift_y`, `shift_x` (shot), in pixels;
        attributes `dummy`, which `separate_background` heeds, and those of the geometry, `beam_center` among them.

    Raises
    ------
    MrczdaskError
        Shapes differ, a centre is not finite, or the dummy does not fit the dtype.

    Notes
    -----
    No pixel is interpolated, counts stay counts: half a pixel of the wandering may be left along each axis. Bins about
    the very centre of each shot, of frames as they are, are those of `separate_background(..., beam_centers=)`.

    Examples
    --------
    >>> import numpy as np
    >>> import mrczdask as md
    >>> frames = np.zeros((2, 16, 16), np.uint16)
    >>> frames[0, 8, 8] = frames[1, 5, 9] = 7
    >>> geometry = md.Geometry.flat((16, 16), beam_center=(8.5, 8.5))
    >>> centered = md.center_frames(frames, [(8.5, 8.5), (5.5, 9.5)], geometry)
    >>> centered[:, 8, 8].values.tolist(), int(centered[1, 0, 0])
    ([7, 7], 65535)
    """
    images = as_shots(frames)
    geometry = geometry.framed(images.shape[1:])
    centers = shot_centers(beam_centers, images.shape[0])
    bad = _bad(images, geometry, mask)
    value = _dummy(images.dtype, dummy)
    shifts = np.rint(np.array(geometry.beam_center) - centers).astype(np.int64)
    data = shot_map(
        _shift_chunk,
        images.data,
        da.from_array(shifts, chunks=(images.data.chunks[0], 2)),
        shape=images.shape[1:],
        dtype=images.dtype,
        bad=on_workers(bad),
        dummy=value,
    )
    attrs = record(images.attrs, "center_frames", {"beam_centers": centers, "dummy": value})
    attrs |= {"dummy": value, **geometry.facts()}
    attrs.pop("delta_dummy", None)
    known = {str(name): coord for name, coord in images.coords.items() if set(coord.dims) <= {schema.SHOT}}
    coords: dict[str, Any] = {name: coord for name, coord in known.items() if name not in CENTER}
    coords |= {f"shift_{axis}": (schema.SHOT, shifts[:, k]) for k, axis in enumerate("yx")}
    return xr.DataArray(data, coords, (schema.SHOT, schema.Y, schema.X), schema.IMAGES, attrs)


def _bad(images: xr.DataArray, geometry: Geometry, mask: ArrayLike | None) -> NDArray[np.bool_]:
    given = [geometry.mask, *(np.asarray(one, bool) for one in (mask, frames_mask(images)) if one is not None)]
    odd = [one.shape for one in given if one.shape != images.shape[1:]]
    if odd:
        raise MrczdaskError(f"the frames are {images.shape[1:]} (y, x), the geometry or a mask {odd[0]}")
    return np.logical_or.reduce(given)


def _dummy(dtype: np.dtype[Any], given: float | None) -> float:
    if dtype.kind == "f":
        return np.nan if given is None else float(given)
    limits = np.iinfo(dtype)
    value = given if given is not None else (limits.max if dtype.kind == "u" else -1)
    if not limits.min <= value <= limits.max or value != int(value):
        raise MrczdaskError(f"the dummy {value:g} does not fit {dtype}")
    return int(value)


@whole_blocks
def _shift_chunk(block: NDArray[Any], shifts: NDArray[np.int64], bad: NDArray[np.bool_], dummy: float) -> NDArray[Any]:
    out = np.full(block.shape, dummy, block.dtype)
    for k, image in enumerate(block):
        into, of = zip(*(_spans(int(by), n) for by, n in zip(shifts[k], image.shape, strict=True)), strict=True)
        out[k][into] = np.where(bad[of], np.asarray(dummy, block.dtype), image[of])
    return out


def _spans(by: int, n: int) -> tuple[slice, slice]:
    """Where pixels of an axis of `n` come to when shifted by so many, and which they are."""
    by = max(min(by, n), -n)
    return slice(max(by, 0), n + min(by, 0)), slice(max(-by, 0), n - max(by, 0))
