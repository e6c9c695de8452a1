"""Frames that the camera software turned, and a gain that lies as the camera has it."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import xarray as xr

from mrczdask import schema
from mrczdask.kernels.orientation import ORIENTATIONS, oriented

_PROBE: Final = np.arange(6).reshape(2, 3)
"""An image whose eight orientations all differ."""
_REMEDY: Final = 'orientation="{0}" (--orientation "{0}") turns it so, "as stored" applies it as it lies'


def turned(image: Any, rotation_flip: int) -> Any:
    """An image whose row 0 is on top, turned as `rotation_flip` says: left and right exchanged, then quarter turns."""
    return np.rot90(image[..., ::-1] if rotation_flip & 4 else image, rotation_flip % 4, axes=(-2, -1))


def orientation_between(gain_flip: int, images_flip: int, gain_origin: str, images_origin: str) -> str:
    """The name of the orientation that turns a gain as stored to images as stored.

    Both are turned from what the camera reads, seen with row 0 on top; an `origin` "lower" has the rows the other way.
    """
    camera = _PROBE
    gain, images = turned(camera, gain_flip), turned(camera, images_flip)
    gain = gain[::-1] if gain_origin == "lower" else gain
    images = images[::-1] if images_origin == "lower" else images
    return next(name for name in ORIENTATIONS if np.array_equal(oriented(gain, name), images))


def rotation_flip_of(images: xr.DataArray) -> int | None:
    """How the camera software turned the images; None where they do not say it.

    Raises
    ------
    ValueError
        The movies of a session are turned in different ways.
    """
    value = images.attrs.get(schema.ROTATION_FLIP)
    if value is None and schema.ROTATION_FLIP in images.coords:
        values = np.unique(np.asarray(images.coords[schema.ROTATION_FLIP].values))
        if len(values) > 1:
            said = ", ".join("unknown" if v < 0 else str(v) for v in values.tolist())
            raise ValueError(f"the movies are turned in different ways (rotation_flip {said}): take them apart")
        value = int(values[0]) if values[0] >= 0 else None
    return None if value is None else int(value)


def check_turn(gain: xr.DataArray, images: xr.DataArray, orientation: str | None, remedy: str = _REMEDY) -> None:
    """Refuse a gain that does not say that it lies as images that were turned; `remedy` says how to turn it."""
    if orientation is not None:
        return
    images_flip = rotation_flip_of(images)
    if images_flip is None:
        return
    gain_flip = int(gain.attrs.get(schema.ROTATION_FLIP, 0))
    if gain_flip == images_flip:
        return
    origin = str(images.attrs.get(schema.ORIGIN, "upper"))
    name = orientation_between(gain_flip, images_flip, str(gain.attrs.get(schema.ORIGIN, origin)), origin)
    lies = f"rotation_flip {gain_flip}" if schema.ROTATION_FLIP in gain.attrs else "perhaps as the camera reads it"
    raise ValueError(
        f"the frames were turned by the camera software (rotation_flip {images_flip}), the gain lies {lies}: "
        f"{remedy.format(name)}; orient_gain finds which is right"
    )
