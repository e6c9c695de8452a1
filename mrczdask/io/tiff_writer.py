"""Movies to TIFF files, through tifffile and imagecodecs, in the conventions of IMOD, RELION and MotionCor2."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import DTypeLike, NDArray

import mrczdask
from mrczdask import schema
from mrczdask.errors import MrcFormatError
from mrczdask.execution.schedulers import n_threads
from mrczdask.io.json_header import pack_json
from mrczdask.io.tiff_file import tifffile_module
from mrczdask.io.write import create_file

UPPER: Final = "upper"
LOWER: Final = "lower"
ANGSTROM_PER_CM: Final = 1e8
STRIP_BYTES: Final = 256 << 10
"""Strips of this size compress like whole frames and let a selection of rows read few of them."""
CLASSIC_BYTES: Final = 2**32 - 2**25
"""A classic TIFF ends at 4 GiB; directories need a little of it."""
WORST_RATIO: Final = {"none": 1.001, "lzw": 1.5, "zlib": 1.01}
"""Most that a codec can make of incompressible pixels."""

Compression = Literal["lzw", "zlib", "none"]


def write_tiff(
    images: Iterable[NDArray[Any]],
    url: str | os.PathLike[str],
    *,
    shape: Sequence[int],
    dtype: DTypeLike,
    attrs: Mapping[str, Any] | None = None,
    coords: Mapping[Any, Any] | None = None,
    compression: Compression | None = None,
    origin: Literal["upper", "lower"] = "upper",
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Write a movie as a TIFF, one page a frame, as the frames come: one frame is in memory.

    Parameters
    ----------
    images : iterable of numpy.ndarray, (y, x)
        The frames in order.
    url : str or path
        The file, local or in an object store; it appears under this name only when it is whole.
    shape : sequence of int
        (frame, y, x).
    dtype : dtype
        Of the pixels; bool is written as uint8.
    attrs, coords : mapping, optional
        Attributes and coordinates of the DataArray. The pixel size goes to the resolution tags, all of them to the
        JSON description, from which they are read back.
    compression : {"lzw", "zlib", "none"}, optional
        Default: lzw for integers of 8 and 16 bits, zlib for others. IMOD, RELION and MotionCor2 read all three.
    origin : {"upper", "lower"}
        Where the first row of the file lies. "upper" is the convention of TIFF: the rows of a movie whose attribute
        `origin` is "lower" (any MRC) are written last first, so that other programs see the image the right way up
        and gain references keep fitting. "lower" writes the rows of such a movie as they are.
    storage_options : mapping, optional
        For the fsspec file system.

    Raises
    ------
    MrcFormatError
        Frames of another shape, too few or too many of them, or a dtype that TIFF does not have.
    MissingExtraError
        tifffile or imagecodecs is not installed.

    Notes
    -----
    BigTIFF is used where the pixels could exceed 4 GiB.
    """
    tifffile = tifffile_module()
    n, ny, nx = (int(size) for size in shape)
    pixel = np.dtype(np.uint8) if np.dtype(dtype) == np.bool_ else np.dtype(dtype).newbyteorder("=")
    if pixel.kind not in "uifc":
        raise MrcFormatError(f"TIFF has no pixels of {pixel}: convert with .astype()", url=os.fspath(url))
    if origin not in (UPPER, LOWER):
        raise ValueError(f'origin={origin!r}: give "upper" or "lower"')
    came_from = (attrs or {}).get(schema.ORIGIN, UPPER)
    codec = compression or ("lzw" if pixel.kind in "ui" and pixel.itemsize <= 2 else "zlib")
    kept = {**(attrs or {}), schema.ORIGIN: origin}
    options = {
        "photometric": "minisblack",
        "compression": None if codec == "none" else codec,
        "rowsperstrip": min(max(STRIP_BYTES // (nx * pixel.itemsize), 1), ny),
        "metadata": None,
        "contiguous": False,
        "maxworkers": n_threads(),
        "software": f"mrczdask {mrczdask.__version__}",
        **_resolution(kept.get(schema.PIXEL_SIZE)),
    }
    big = n * ny * nx * pixel.itemsize * WORST_RATIO[codec] > CLASSIC_BYTES
    frames = _checked(images, (n, ny, nx), pixel, flip=came_from != origin)
    with create_file(os.fspath(url), storage_options) as file:
        # a temporary file has a number for a name, which tifffile does not take
        handle = tifffile.FileHandle(file, mode="wb", name="movie.tif")
        with tifffile.TiffWriter(handle, bigtiff=big) as tif:
            for k, frame in enumerate(frames):
                tif.write(frame, description=_description(shape, dtype, kept, coords) if k == 0 else None, **options)


def _checked(
    images: Iterable[NDArray[Any]], shape: tuple[int, int, int], dtype: np.dtype[Any], *, flip: bool
) -> Iterator[NDArray[Any]]:
    """The frames in native byte order and the row order of the file; an error if they are not as many as said."""
    count = 0
    for image in images:
        count += 1
        if image.shape != shape[1:] or count > shape[0]:
            raise MrcFormatError(f"image {count - 1} is {image.shape}: {shape[0]} of {shape[1:]} were to come")
        yield np.ascontiguousarray(image[::-1] if flip else image, dtype=dtype)
    if count != shape[0]:
        raise MrcFormatError(f"{count} images came, {shape[0]} were to come")


def _resolution(pixel_size: Any) -> dict[str, Any]:
    if pixel_size is None:
        return {}
    x, y = (ANGSTROM_PER_CM / float(size) for size in np.broadcast_to(np.ravel(pixel_size)[:2], 2))
    return {"resolution": (x, y), "resolutionunit": "CENTIMETER"}


def _description(
    shape: Sequence[int], dtype: DTypeLike, attrs: Mapping[str, Any], coords: Mapping[Any, Any] | None
) -> bytes:
    """Attributes and coordinates as the JSON that MRCZ files of this package carry too."""
    nothing = np.broadcast_to(np.zeros((), dtype), tuple(shape))
    return pack_json(xr.DataArray(nothing, dims=schema.MOVIE_DIMS, coords=coords, attrs=dict(attrs)), None)
