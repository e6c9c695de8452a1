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
from mrczdask.errors import MrcFormatError
from mrczdask.io.sparse_table import AZIMUTH, SECTOR

BIN_RADIUS: Final = "bin_radius"
PIXEL_RADIUS: Final = "pixel_radius"
_DEGREES: Final = {"units": "degree"}


def axis_and_map(header: xr.Dataset) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What is stored as `radius` (bin) and `mask` (y, x): the radii, or places on the axis of all sectors."""
    centres, radius = header["radius"].values, header[PIXEL_RADIUS].values
    if SECTOR not in header.coords:
        return centres.astype(np.float32, copy=False), radius.astype(np.float32, copy=False)
    sectors, n = header.sizes[SECTOR], centres.size
    step = (centres[-1] - centres[0]) / max(n - 1, 1) or 1
    sector = np.minimum((header[AZIMUTH].values + 180) * (sectors / 360), sectors - 1).astype(np.int64)
    place = sector * n + np.clip((radius - centres[0]) / step, 0, n - 1)
    return np.arange(sectors * n, dtype=np.float32), place.astype(np.float32)


def beside(header: xr.Dataset) -> dict[str, NDArray[Any]]:
    """The datasets that say what the sectors are; none where there is one."""
    if SECTOR not in header.coords:
        return {}
    names = {BIN_RADIUS: "radius", PIXEL_RADIUS: PIXEL_RADIUS, SECTOR: SECTOR, AZIMUTH: AZIMUTH}
    return {stored: header[name].values for stored, name in names.items()}


def sectors_in(group: Any, n_bins: int, path: str, unit: dict[str, str]) -> dict[str, Any]:
    """The coordinates of the bins that `beside` stored; none where it stored nothing."""
    if SECTOR not in group:
        return {}
    missing = [name for name in (BIN_RADIUS, PIXEL_RADIUS, AZIMUTH) if name not in group]
    if missing:
        raise MrcFormatError(f"the background has sectors, but {', '.join(missing)} is lost", url=path)
    found = {name: np.asarray(group[name][()]) for name in (BIN_RADIUS, PIXEL_RADIUS, AZIMUTH, SECTOR)}
    if found[SECTOR].size * found[BIN_RADIUS].size != n_bins or found[AZIMUTH].shape != found[PIXEL_RADIUS].shape:
        raise MrcFormatError(f"the background has {n_bins} bins, its sectors do not fit: the file is damaged", url=path)
    plane = (schema.Y, schema.X)
    return {
        "radius": ("radius", found[BIN_RADIUS], unit),
        PIXEL_RADIUS: (plane, found[PIXEL_RADIUS], unit),
        SECTOR: (SECTOR, found[SECTOR], _DEGREES),
        AZIMUTH: (plane, found[AZIMUTH], _DEGREES),
    }
