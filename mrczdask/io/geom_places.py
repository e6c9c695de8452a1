"""What a CrystFEL geometry file leaves to the data files: the distance, and the energy of the beam."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask.errors import MrcFormatError, MrczdaskWarning
from mrczdask.formats.geom import GeomFile
from mrczdask.formats.geom_units import Quantity, wavelength_of
from mrczdask.io.hdf5_file import open_hdf5
from mrczdask.io.session import expand_urls

Frames = xr.DataArray | str | os.PathLike[str] | Sequence[str]
_SPREAD: Final = 1e-3
"""Of distances and wavelengths, that nobody is told of: less than the bandwidth of a FEL."""


def beam_and_distance(
    said: GeomFile, frames: Frames | None, is_given: tuple[bool, bool]
) -> tuple[float | None, float | None]:
    """The distance where the panels have none of their own, without their offsets, and the wavelength, in metres.

    What is given otherwise is not looked for.

    Raises
    ------
    MrcFormatError
        The file names a place that no frames are given for, or that they do not have.
    """
    attrs = frames.attrs if isinstance(frames, xr.DataArray) else {}
    distance = wavelength = None
    if not is_given[0]:
        distance = _clen_of(said, frames, attrs)
    if not is_given[1]:
        value = _told(said.beam, frames) if said.beam else attrs.get("wavelength_m")
        wavelength = value if said.beam is None or value is None else wavelength_of(said.beam.key, value)
    return distance, wavelength


def _clen_of(said: GeomFile, frames: Frames | None, attrs: Mapping[Any, Any]) -> float | None:
    """The distance that frames tell."""
    if all(panel.clen_m is not None for panel in said.panels):
        return None
    return _told(said.clen, frames) if said.clen else attrs.get("distance_m")


def _told(quantity: Quantity, frames: Frames | None) -> float | None:
    """In metres, eV or V; None where it is a place, and there are no frames to look into."""
    if quantity.number is not None or frames is None:
        return quantity.value
    where = f"{quantity.key} is at {quantity.place} of the data files"
    urls: Any = frames.encoding.get("source") if isinstance(frames, xr.DataArray) else frames
    files = [] if urls is None else expand_urls(urls)
    if not files:
        raise MrcFormatError(f"{where}, and the frames do not say their file: write the number into the .geom file")
    if "%" in quantity.place:
        raise MrcFormatError(f"{where}, one for each event: write the number into the .geom file")
    found = np.concatenate([_values(file, quantity.place, where) for file in files])
    middle = float(np.median(found))
    low, high = float(found.min()), float(found.max())
    if high - low > _SPREAD * abs(middle):
        told = f"{where} and goes from {low:g} to {high:g}: all frames are taken at the median, {middle:g}"
        warnings.warn(told, MrczdaskWarning, stacklevel=2)
    return middle * quantity.scale


def _values(file: str, place: str, where: str) -> NDArray[np.float64]:
    with open_hdf5(file) as root:
        item = root.get(place.strip("/"))
        if not hasattr(item, "dtype") or item.dtype.kind not in "iuf":
            raise MrcFormatError(f"{where}, and {file} has no number there: write it into the .geom file")
        values = np.asarray(item[()], np.float64).reshape(-1)
    values = values[np.isfinite(values)]
    if not values.size:
        raise MrcFormatError(f"{where}, and {file} has no number there: write it into the .geom file")
    return values
