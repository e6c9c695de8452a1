"""Defects of a detector: lists of SerialEM and MotionCor, map images, zeros of a gain."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.errors import MrcFormatError
from mrczdask.formats.defects import motioncor_text, parse_defects, serialem_text
from mrczdask.formats.mrc_fields import SUFFIXES
from mrczdask.io.movie import TIFF_SUFFIXES, open_movie
from mrczdask.io.mrcz_writer import write_mrcz
from mrczdask.io.source import open_source, unwrapped_name
from mrczdask.io.tiff_writer import write_tiff
from mrczdask.io.write import create_file
from mrczdask.kernels.normalise import usable_gain

Kind = Literal["serialem", "motioncor", "map", "gain"]
_IMAGES: Final = (*SUFFIXES, *TIFF_SUFFIXES, ".gain")
LOWER, UPPER = "lower", "upper"


def open_defects(
    url: str | os.PathLike[str],
    *,
    like: xr.DataArray | xr.Dataset | None = None,
    kind: Kind | None = None,
    rotation_flip: int = 0,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Read which pixels of a detector are bad.

    Parameters
    ----------
    url : str or path
        A text list of SerialEM or MotionCor, an image (MRC, TIFF), or a gain reference.
    like : DataArray or Dataset, optional
        The movies the mask is for: its size and `origin` are theirs. A list for pixels twice as fine or coarse, as of
        super-resolution, is scaled. Needed for a list that does not tell the size of the camera.
    kind : {"serialem", "motioncor", "map", "gain"}, optional
        What the file is. Default: a text is told apart by its first word; an image is a map, in which bad pixels are
        not zero. "gain": an image in which bad pixels are not above zero.
    rotation_flip : int
        How the images are turned relative to the list, as SerialEM counts: quarter turns counter-clockwise (0 to 3), 4
        more where left and right are exchanged before it.
    storage_options : mapping, optional
        Passed to the fsspec file system.

    Returns
    -------
    xarray.DataArray
        `mask` (y, x) bool, True = bad, in memory; attribute `origin`.

    Raises
    ------
    MrcFormatError
        The file is of neither format, or the defects are of another camera.
    FileNotFoundError
        There is no such file.
    ValueError
        `kind` or `rotation_flip` is none of those listed.

    Examples
    --------
    >>> import numpy as np
    >>> import mrczdask as md
    >>> mask = np.zeros((64, 64), bool)
    >>> mask[:, 7], mask[20, 30] = True, True
    >>> _ = md.write_defects(mask, "defects.txt")
    >>> bool((md.open_defects("defects.txt") == mask).all())
    True
    """
    path = os.fspath(url)
    if kind is not None and kind not in get_args(Kind):
        raise ValueError(f"kind={kind!r}: give one of {', '.join(get_args(Kind))}")
    wanted, origin = _wanted(like)
    size = wanted[::-1] if wanted and rotation_flip % 2 else wanted  # before the quarter turn
    rows: str | None
    if kind in ("map", "gain") or (kind is None and unwrapped_name(path).lower().endswith(_IMAGES)):
        mask, rows = _read_image(path, kind or "map", storage_options)
        if size is not None and mask.shape != size:
            raise MrcFormatError(f"the map is {mask.shape}, the images are {size} (y, x)", url=path)
    else:
        mask, rows = _read_list(path, size, storage_options)
        rows = rows if rows is not None else origin
    mask = _turned(mask if rows == UPPER else mask[::-1], rotation_flip)  # seen as the camera shows it: row 0 on top
    mask = mask if origin == UPPER else mask[::-1]
    return xr.DataArray(
        np.ascontiguousarray(mask), dims=(schema.Y, schema.X), name="mask", attrs={schema.ORIGIN: origin}
    )


def _wanted(like: xr.DataArray | xr.Dataset | None) -> tuple[tuple[int, int] | None, str]:
    if like is None:
        return None, LOWER
    images = like[schema.IMAGES] if isinstance(like, xr.Dataset) else like
    return (images.sizes[schema.Y], images.sizes[schema.X]), str(images.attrs.get(schema.ORIGIN, LOWER))


def _turned(mask: NDArray[np.bool_], rotation_flip: int) -> NDArray[np.bool_]:
    if rotation_flip not in range(8):
        raise ValueError(f"rotation_flip={rotation_flip}: give 0 to 7")
    return np.rot90(mask[:, ::-1] if rotation_flip & 4 else mask, rotation_flip % 4)


def _read_image(url: str, kind: str, options: Mapping[str, Any] | None) -> tuple[NDArray[np.bool_], str]:
    image = open_movie(url, storage_options=options)
    pixels = image.values.reshape(-1, *image.shape[-2:])
    mask = usable_gain(pixels[0])[1] if kind == "gain" else (pixels != 0).any(axis=0)
    return mask, str(image.attrs.get(schema.ORIGIN, LOWER))


def _read_list(
    url: str, size: tuple[int, int] | None, options: Mapping[str, Any] | None
) -> tuple[NDArray[np.bool_], str | None]:
    """The mask, and where its row 0 is: None where it is that of the images."""
    with open_source(url, options) as source:
        data = source.read_at(0, source.size)
    try:
        found = parse_defects(data.decode())
        size = size or found.size
        if size is None:
            raise MrcFormatError("the list does not tell the size of the camera: give like=movie")
        return found.mask(size), UPPER if found.size is not None else None
    except UnicodeDecodeError:
        raise MrcFormatError("not a text: a defect list is one, or an image named .mrc or .tif", url=url) from None
    except MrcFormatError as error:
        raise error.at(url) from None


def write_defects(
    mask: xr.DataArray | NDArray[np.bool_], url: str | os.PathLike[str], *, kind: Kind | None = None
) -> xr.DataArray:
    """Write which pixels of a detector are bad.

    Parameters
    ----------
    mask : DataArray or array of bool
        (y, x), True = bad. Row 0 is at the bottom unless its attribute `origin` is "upper".
    url : str or path
        The suffixes of MRC and TIFF write a map image, others a text.
    kind : {"serialem", "motioncor", "map"}, optional
        Default: a map by suffix, else "serialem".

    Returns
    -------
    xarray.DataArray
        The mask, read from the file.

    Raises
    ------
    ValueError
        The mask is not (y, x) of bool, or the kind is no format for it.

    Examples
    --------
    >>> import numpy as np
    >>> import mrczdask as md
    >>> mask = np.zeros((4, 6), bool)
    >>> mask[1:3, 2] = True
    >>> int(md.write_defects(mask, "defects.txt", kind="motioncor").sum())
    2
    """
    path = os.fspath(url)
    bad = mask if isinstance(mask, xr.DataArray) else xr.DataArray(np.asarray(mask), dims=("y", "x")[-np.ndim(mask) :])
    if bad.ndim != 2 or bad.dtype != bool:
        raise ValueError(f"the mask is {bad.dtype} of {bad.ndim} dims: give (y, x) of bool")
    is_image = unwrapped_name(path).lower().endswith(_IMAGES)
    kind = kind or ("map" if is_image else "serialem")
    if kind not in ("serialem", "motioncor", "map") or (kind == "map") != is_image:
        raise ValueError(f"{path}: kind={kind!r} does not fit its suffix: a map is an image, other kinds are text")
    if kind == "map":
        image = bad.astype(np.uint8).expand_dims(schema.FRAME)
        if unwrapped_name(path).lower().endswith(TIFF_SUFFIXES):
            rows = bad.values if bad.attrs.get(schema.ORIGIN) == UPPER else bad.values[::-1]
            write_tiff([rows.astype(np.uint8)], path, shape=(1, *bad.shape), dtype=np.uint8)
        else:
            write_mrcz(image, path)
    else:
        pixels = bad.values
        upper = bad.attrs.get(schema.ORIGIN) == UPPER
        text = motioncor_text(pixels) if kind == "motioncor" else serialem_text(pixels if upper else pixels[::-1])
        with create_file(path) as file:
            file.write(text.encode())
    return open_defects(path, like=bad, kind=kind)
