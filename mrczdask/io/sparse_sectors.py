"""Sectors in the layout of pyFAI and FabIO, which know of none.

Bins stand there one sector after the other along one axis, and the map of the radii says where on it a pixel stands:
FabIO fills each sector from its own bins. What that leaves out is stored beside it.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.io.sparse_fields import Header
from mrczdask.io.sparse_table import AZIMUTH, SECTOR
from mrczdask.kernels.bin_places import radial_places, sector_numbers

BIN_RADIUS: Final = "bin_radius"
PIXEL_RADIUS: Final = "pixel_radius"
BIN: Final = "bin"
"""Unit of places on the axis of all sectors."""
_DEGREES: Final = {"units": "degree"}
_PLANE: Final = (schema.Y, schema.X)
_TURN: Final = 360.0
"""Degrees no azimuth is beyond."""


def axis_and_map(header: xr.Dataset) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What is stored as `radius` (bin) and `mask` (y, x): the radii, or places on the axis of all sectors."""
    centres, radius = header["radius"].values, header[PIXEL_RADIUS].values
    if SECTOR not in header.coords:
        return centres.astype(np.float32, copy=False), radius.astype(np.float32, copy=False)
    sectors, n = header.sizes[SECTOR], centres.size
    place = sector_numbers(header[AZIMUTH].values, sectors) * n + np.clip(radial_places(radius, centres), 0, n - 1)
    return np.arange(sectors * n, dtype=np.float32), place.astype(np.float32)


def beside(header: xr.Dataset) -> dict[str, NDArray[Any]]:
    """The datasets that say what the sectors are; none where there is one."""
    if SECTOR not in header.coords:
        return {}
    names = {BIN_RADIUS: "radius", PIXEL_RADIUS: PIXEL_RADIUS, SECTOR: SECTOR, AZIMUTH: AZIMUTH}
    return {stored: header[name].values for stored, name in names.items()}


def unit_of(name: str, header: xr.Dataset) -> dict[str, str]:
    """The attribute `unit` of what is stored as `name`: where there are sectors, radii stand beside the axis."""
    said = header["radius"].attrs.get("units")
    if name in ("radius", "mask") and SECTOR in header.coords:
        return {"unit": BIN}
    if name in (SECTOR, AZIMUTH):
        return {"unit": _DEGREES["units"]}
    return {} if said is None else {"unit": said}


def sectors_in(header: Header, n_bins: int, mask: NDArray[Any]) -> dict[str, Any]:
    """The coordinates of the bins that `beside` stored; none where it stored nothing."""
    names = (BIN_RADIUS, PIXEL_RADIUS, SECTOR, AZIMUTH)
    missing = [name for name in names if name not in header]
    if len(missing) == len(names) and header.unit("mask").get("units") != BIN:
        return {}
    if missing:
        raise header.wrong(f"the background has sectors, but {', '.join(missing)} is lost")
    radius, sector = header.rising(BIN_RADIUS), header.rising(SECTOR)
    if sector.size * radius.size != n_bins:
        raise header.wrong(f"the background has {n_bins} bins, its sectors do not fit")
    pixel_radius, azimuth = header.plane(PIXEL_RADIUS, mask), header.plane(AZIMUTH, mask)
    if np.nanmax(np.abs(azimuth), initial=0) > _TURN:
        raise header.wrong(f"{AZIMUTH} is up to {np.nanmax(np.abs(azimuth)):g} degrees")
    unit = header.unit(BIN_RADIUS)
    return {
        "radius": ("radius", radius, unit),
        PIXEL_RADIUS: (_PLANE, pixel_radius, unit),
        SECTOR: (SECTOR, sector, _DEGREES),
        AZIMUTH: (_PLANE, azimuth, _DEGREES),
    }
