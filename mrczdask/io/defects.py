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
from mrczdask.formats.defects import motioncor_text, parse_defects, serialem_text, turn_of_list
from mrczdask.formats.mrc import SHIFT
from mrczdask.formats.mrc_fields import SUFFIXES
from mrczdask.io.movie import TIFF_SUFFIXES, movie_dataset
from mrczdask.io.mrcz_writer import write_mrcz
from mrczdask.io.source import open_source, unwrapped_name
from mrczdask.io.tiff_writer import write_tiff
from mrczdask.io.write import create_file
from mrczdask.kernels.normalise import usable_gain

Kind = Literal["serialem", "motioncor", "map", "gain"]
_IMAGES: Final = (*SUFFIXES, *TIFF_SUFFIXES, ".gain")
MOST_BAD: Final = 0.5
"""A map with a larger share of bad pixels is one of the good pixels."""
_LARGEST_FLAG: Final = 15
"""Kinds of defects that a map tells apart."""
LOWER, UPPER = "lower", "upper"


def open_defects(
    url: str | os.PathLike[str],
    *,
    like: xr.DataArray | xr.Dataset | None = None,
    kind: Kind | None = None,
    rotation_flip: int | None = None,
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
        not zero; a map of IMOD, whose bytes are 128 off, is known by its values. "gain": an image in which bad pixels
        are not above zero.
    rotation_flip : int, optional
        How the images are turned relative to the file, as SerialEM counts: quarter turns counter-clockwise (0 to 3), 4
        more where left and right are exchanged before it. Default: of a list of SerialEM that says RotationAndFlip,
        from there to the `rotation_flip` of `like`; other files are taken to lie as the images do.
    storage_options : mapping, optional
        Passed to the fsspec file system.

    Returns
    -------
    xarray.DataArray
        `mask` (y, x) bool, True = bad, in memory; attribute `origin`.

    Raises
    ------
    MrcFormatError
        The file is of neither format, the defects are of another camera, or a map calls more than half of the
        pixels bad: it marks the good ones.
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
    is_image = kind in ("map", "gain") or (kind is None and unwrapped_name(path).lower().endswith(_IMAGES))
    data = b"" if is_image else _read_text(path, storage_options)
    if rotation_flip is None:
        rotation_flip = 0 if is_image else _turn_between(path, turn_of_list(data), _turn_of(like))
    size = wanted[::-1] if wanted and rotation_flip % 2 else wanted  # before the quarter turn
    rows: str | None
    if is_image:
        mask, rows = _read_image(path, kind or "map", storage_options)
        if size is not None and mask.shape != size:
            raise MrcFormatError(f"the map is {mask.shape}, the images are {size} (y, x)", url=path)
    else:
        mask, rows = _parsed(path, data, size)
        rows = rows if rows is not None else origin
    mask = _turned(mask if rows == UPPER else mask[::-1], rotation_flip)  # seen as the camera shows it: row 0 on top
    mask = mask if origin == UPPER else mask[::-1]
    attrs: dict[str, Any] = {schema.ORIGIN: origin}
    if like is not None and _turn_of(like):
        attrs[schema.ROTATION_FLIP] = _turn_of(like)
    return xr.DataArray(np.ascontiguousarray(mask), dims=(schema.Y, schema.X), name="mask", attrs=attrs)


def _serialem(mask: xr.DataArray, upper: bool) -> str:
    """The list of a mask, whose rows SerialEM counts from the top."""
    turn = mask.attrs.get(schema.ROTATION_FLIP)
    return serialem_text(mask.values if upper else mask.values[::-1], None if turn is None else int(turn))


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
    """The mask of an image, and where its row 0 is. Bytes are read as they stand, whatever sign the header says."""
    ds = movie_dataset(url, signed=False, storage_options=options)
    image = ds[schema.IMAGES]
    pixels = image.values.reshape(-1, *image.shape[-2:])
    if kind == "gain":
        mask = usable_gain(pixels[0])[1]
    else:
        mask = (_without_shift(pixels) != 0).any(axis=0)
        share = float(mask.mean())
        if share > MOST_BAD:
            raise MrcFormatError(
                f"the map calls {share:.0%} of the pixels bad: bad pixels are not zero in a map; of an image in which "
                'they are zero, such as a gain or a mask of good pixels, kind="gain" reads them',
                url=url,
            )
    return mask, str(image.attrs.get(schema.ORIGIN, LOWER))


def _without_shift(pixels: NDArray[Any]) -> NDArray[Any]:
    """A map as it was before 128 was taken away from its bytes, or added: IMOD writes 0 and 1 as -128 and -127."""
    if pixels.dtype.kind not in "iu" or not pixels.size:
        return pixels
    low, high = int(pixels.min()), int(pixels.max())
    return pixels - pixels.dtype.type(low) if low in (-SHIFT, SHIFT) and high - low <= _LARGEST_FLAG else pixels


def _turn_of(like: xr.DataArray | xr.Dataset | None) -> int:
    """How the camera software turned the images."""
    if like is None:
        return 0
    images = like[schema.IMAGES] if isinstance(like, xr.Dataset) else like
    value = images.attrs.get(schema.ROTATION_FLIP)
    if value is None and schema.ROTATION_FLIP in images.coords:
        values = np.unique(np.asarray(images.coords[schema.ROTATION_FLIP].values))
        if len(values) > 1:
            raise ValueError(
                f"the movies are turned in different ways (rotation_flip {', '.join(map(str, values.tolist()))}): "
                "open their defects with rotation_flip= for each kind"
            )
        value = values[0]
    return max(int(value or 0), 0)


def _turn_between(url: str, listed: int | None, images: int) -> int:
    """How a list is to be turned: one of MotionCor, one that says nothing, and one turned as the images lie as they."""
    if listed is None or listed == images:
        return 0
    if listed and images:
        raise MrcFormatError(
            f"the list is turned by RotationAndFlip {listed}, the images by {images}: give rotation_flip=", url=url
        )
    return images


def _read_text(url: str, options: Mapping[str, Any] | None) -> bytes:
    with open_source(url, options) as source:
        return source.read_at(0, source.size)


def _parsed(url: str, data: bytes, size: tuple[int, int] | None) -> tuple[NDArray[np.bool_], str | None]:
    """The mask, and where its row 0 is: None where it is that of the images."""
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
        text = motioncor_text(pixels) if kind == "motioncor" else _serialem(bad, upper)
        with create_file(path) as file:
            file.write(text.encode())
    return open_defects(path, like=bad, kind=kind, rotation_flip=0)
