"""Gain references: one image, and how it is to be applied.

Which way a gain works cannot be seen in its pixels alone. The conventions of the files: an MRC or TIFF gain is a
factor; the TIFF named `.gain` of a Falcon 4 is a factor too; any other gain of an EER movie is a divisor, and its rows
run as those of the EER frames do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.errors import MrcFormatError
from mrczdask.io.movie import EER_SUFFIXES, lazy_variable, open_movie
from mrczdask.io.movie_array import MovieArray
from mrczdask.io.mrcz_writer import write_rows
from mrczdask.io.notes import warn_of_notes
from mrczdask.io.source import unwrapped_name
from mrczdask.io.suffixes import Format, format_of
from mrczdask.io.tiff import open_tiff
from mrczdask.io.tiff_writer import LOWER, UPPER, write_tiff

MULTIPLY: Final = "multiply"
DIVIDE: Final = "divide"
EER: Final = "eer"
CONVENTIONS: Final = (MULTIPLY, DIVIDE, EER)
EER_GAIN_SUFFIX: Final = ".gain"
GAIN: Final = "gain"
_NOT_READ: Final = {
    ".dm4": "a Gatan file: convert it with IMOD, dm2mrc gain.dm4 gain.mrc",
    ".dm3": "a Gatan file: convert it with IMOD, dm2mrc gain.dm3 gain.mrc",
    ".raw": "pixels without a header: convert them to MRC or TIFF",
    **dict.fromkeys(EER_SUFFIXES, "a movie: its gain reference is a file of its own, .gain or .mrc"),
}

Convention = Literal["multiply", "divide", "eer"]


def open_gain(
    url: str | os.PathLike[str],
    *,
    convention: Convention | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Open a gain reference; no pixel is read.

    Parameters
    ----------
    url : str or path
        MRC or MRCZ, TIFF, or the `.gain` file (a TIFF) of an EER movie.
    convention : {"multiply", "divide", "eer"}, optional
        How the pixels of the file are applied to raw frames. By default what `write_gain` left in the file, else
        "multiply", the convention of MRC, TIFF and `.gain` files. "eer" is for other gains of EER movies, such as the
        MRC of a Falcon 4: they divide, and their rows run as those of the EER frames.
    storage_options : mapping, optional
        Passed to the fsspec file system.

    Returns
    -------
    xarray.DataArray
        `gain` (y, x) float32, one lazy chunk. Attributes: `convention`, "multiply" or "divide", and `origin`, "lower"
        (MRC) or "upper" (TIFF and EER), and `rotation_flip` where the file says how it was turned. A gain <= 0 marks a
        defect. Of a `.gain` file with more pages the first one is the gain.

    Raises
    ------
    MrcFormatError
        No gain reference: several frames, complex pixels, a format that is not read (`.dm4`).
    ValueError
        An unknown convention.

    Notes
    -----
    A corrected frame is frame x gain for "multiply" and frame / gain for "divide". Programs that turn TIFF images over
    when they read them do not do so with `.gain` files; here neither is turned over, and a `.gain` file fits the frames
    of its EER movie row by row.

    References
    ----------
    RELION, "Movie compression", section Falcon4 EER: the conventions of EER gain references.

    Examples
    --------
    >>> import numpy as np, mrczdask as md
    >>> _ = md.write_gain(np.full((8, 8), 1.25), "gain.mrc")
    >>> gain = md.open_gain("gain.mrc")
    >>> gain.dims, str(gain.dtype), gain.attrs["convention"], gain.attrs["origin"]
    (('y', 'x'), 'float32', 'multiply', 'lower')
    """
    target = os.fspath(url)
    _check_convention(convention)
    suffix = _suffix(target)
    if suffix in _NOT_READ:
        raise MrcFormatError(f"{suffix} is {_NOT_READ[suffix]}", url=target)
    images = _open_images(target, storage_options)
    if images.shape[0] != 1 or images.ndim != 3:
        raise MrcFormatError(
            f"{dict(images.sizes)}: a gain reference is one image; average a stack first: "
            "open_movie(...).mean('frame')",
            url=target,
        )
    if images.dtype.kind not in "buif":
        raise MrcFormatError(f"{images.dtype} pixels are no gain reference", url=target)
    gain = images.isel({schema.FRAME: 0}, drop=True).reset_coords(drop=True).astype(np.float32).rename(GAIN)
    said = images.attrs.get(schema.CONVENTION)
    used = convention or (said if said in (MULTIPLY, DIVIDE) else MULTIPLY)
    origin = UPPER if used == EER else images.attrs.get(schema.ORIGIN, LOWER)
    turn = {k: v for k, v in images.attrs.items() if k == schema.ROTATION_FLIP}
    gain.attrs = {schema.CONVENTION: DIVIDE if used == EER else used, schema.ORIGIN: origin, **turn}
    notes = images.encoding.get(schema.NOTES)
    gain.encoding = {schema.NOTES: notes} if notes else {}
    return gain


def _open_images(url: str, storage_options: Mapping[str, Any] | None) -> xr.DataArray:
    """The file as a movie of whole frames; `.gain` is a TIFF under another name, whose first page is the gain."""
    whole = {schema.FRAME: 1, schema.Y: -1, schema.X: -1}
    if _suffix(url) != EER_GAIN_SUFFIX:
        return open_movie(url, chunks=whole, storage_options=storage_options)
    movie = open_tiff(url, first_page=True, storage_options=storage_options)
    warn_of_notes([(url, movie.encoding)])
    array = MovieArray([movie.reader], session=False)
    images = xr.DataArray(lazy_variable(array, schema.MOVIE_DIMS, movie.attrs, movie.encoding))
    return images.chunk(whole, inline_array=False)


def write_gain(
    gain: xr.DataArray | NDArray[Any],
    url: str | os.PathLike[str],
    *,
    convention: Convention | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Write a gain reference in the convention of the format, so that other programs apply it rightly.

    Parameters
    ----------
    gain : DataArray or numpy.ndarray, (y, x)
        With the attributes `convention` (default "multiply") and `origin` (default: that of the format).
    url : str or path
        `.mrc` or `.mrcz`, `.tif` or `.tiff`, or `.gain` for an EER movie.
    convention : {"multiply", "divide", "eer"}, optional
        What the file shall hold. Default: "multiply". "eer" writes the MRC that other programs divide EER frames by.
    storage_options : mapping, optional
        For the fsspec file system.

    Returns
    -------
    xarray.DataArray
        The gain, opened from the file.

    Raises
    ------
    MrcFormatError
        Not one (y, x) image of real numbers, or a format that is not written.
    ValueError
        An unknown convention.

    Notes
    -----
    A gain of the other convention is written as its reciprocal, where a gain <= 0 (a defect) or not finite becomes 0.
    Rows are written from the bottom up in MRC and from the top down in TIFF, `.gain` and "eer": a gain of the other
    `origin` is turned over on the way, which its new attribute says.

    Examples
    --------
    >>> import numpy as np, mrczdask as md
    >>> stored = md.write_gain(np.full((8, 8), 2.0), "gain.mrc", convention="divide")
    >>> float(stored[0, 0]), stored.attrs["convention"]
    (0.5, 'divide')
    """
    target = os.fspath(url)
    _check_convention(convention)
    is_tiff = check_gain_name(target) in ("tiff", "gain")
    if convention == EER and is_tiff:
        raise ValueError('convention="eer" is for MRC files; TIFF and .gain files of EER movies multiply')
    wanted = DIVIDE if convention == EER else convention or MULTIPLY
    origin = UPPER if is_tiff or convention == EER else LOWER
    image = _oriented(_image(gain, target), wanted, origin)
    if is_tiff:
        rows: Iterator[NDArray[np.float32]] = iter([image.to_numpy()])
        write_tiff(
            rows,
            target,
            shape=(1, *image.shape),
            dtype=image.dtype,
            attrs=image.attrs,
            compression="none",
            storage_options=storage_options,
        )
    else:
        codec: Literal["zstd"] | None = "zstd" if _suffix(target) == ".mrcz" else None
        write_rows(image.expand_dims(schema.FRAME), target, codec=codec, storage_options=storage_options)
    return open_gain(target, storage_options=storage_options)


def check_gain_name(url: str) -> Format:
    """The format that a gain reference of this name is written in; other names are refused."""
    suffix = _suffix(url)
    if suffix in _NOT_READ:
        raise MrcFormatError(f"{suffix} gain references are not written: give .mrc, .tif or .gain", url=url)
    return format_of(url, ("mrc", "mrcz", "tiff", "gain"))


def _image(gain: xr.DataArray | NDArray[Any], url: str) -> xr.DataArray:
    """The gain in memory as float32 (y, x)."""
    array = gain if isinstance(gain, xr.DataArray) else xr.DataArray(np.asarray(gain))
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "buif":
        raise MrcFormatError(
            f"{array.dtype} {dict(array.sizes)}: a gain reference is one (y, x) image of real numbers", url=url
        )
    values = array.to_numpy().astype(np.float32)
    return xr.DataArray(values, dims=(schema.Y, schema.X), attrs=array.attrs)


def _oriented(image: xr.DataArray, convention: str, origin: str) -> xr.DataArray:
    """The image in another convention and row order."""
    has = image.attrs.get(schema.CONVENTION, MULTIPLY)
    if has not in (MULTIPLY, DIVIDE):
        raise ValueError(f'the attribute convention is {has!r}: "multiply" or "divide"')
    values = image.to_numpy()
    if has != convention:
        good = np.isfinite(values) & (values > 0)
        values = np.divide(1.0, values, out=np.zeros_like(values), where=good)
    if image.attrs.get(schema.ORIGIN, origin) != origin:
        values = values[::-1]
    turn = {k: v for k, v in image.attrs.items() if k == schema.ROTATION_FLIP}
    attrs = {schema.CONVENTION: convention, schema.ORIGIN: origin, **turn}
    return xr.DataArray(np.ascontiguousarray(values), dims=image.dims, attrs=attrs)


def _check_convention(convention: str | None) -> None:
    if convention not in (None, *CONVENTIONS):
        raise ValueError(f"convention={convention!r}: give one of {CONVENTIONS}")


def _suffix(url: str) -> str:
    return os.path.splitext(unwrapped_name(url).lower())[1]
