"""Where the pixels of each frame stand among the bins of its background; those bins as tasks take them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask.diffraction.beams import MovingBeam, moving_beam
from mrczdask.execution.blocks import structures_of
from mrczdask.io.sparse_table import AZIMUTH, SECTOR
from mrczdask.kernels.bin_places import radial_places
from mrczdask.kernels.places import Places

RADIUS: Final = "radius"
NEEDED: Final = ("background_avg", "background_std", "pixel_radius", RADIUS)
"""What frames are picked or filled by, of a background or of sparse frames."""
ANYWHERE: Final = (-np.inf, np.inf)
BINS: Final = np.dtype([("average", np.float32), ("deviation", np.float32), ("count", np.int32)])
_TURN: Final = 360.0


@dataclass(frozen=True)
class PixelMaps:
    """Maps (y, x) about the beam of a frame, that of the geometry where a `beam` moves.

    `radius` in the unit of the bins, NaN where masked; `azimuth` in degrees, empty where there is one sector; `norm` is
    what a frame is divided by; `centres` of the bins.
    """

    radius: NDArray[np.float32] = field(repr=False)
    azimuth: NDArray[np.float32] = field(repr=False)
    norm: NDArray[np.float32] = field(repr=False)
    centres: NDArray[np.float32] = field(repr=False)
    sectors: int
    beam: MovingBeam | None

    def at(self, center: NDArray[np.float64] | None) -> PixelMaps:
        """The same of a frame whose beam is at a place (y, x)."""
        if self.beam is None or center is None:
            return self
        azimuth = self.beam.azimuth(center) if self.azimuth.size else self.azimuth
        norm = self.beam.norm(center) if self.beam.is_corrected else self.norm
        return replace(self, radius=self.beam.pixel_radius(center), azimuth=azimuth, norm=norm)

    def places(self, within: tuple[float, float] = ANYWHERE) -> Places:
        """Places among the bins; NaN where masked or out of a range of the radius."""
        radial = radial_places(self.radius, self.centres)
        if within != ANYWHERE:
            radial[~((self.radius >= within[0]) & (self.radius < within[1]))] = np.nan
        azimuthal = ((self.azimuth + _TURN / 2) * (self.sectors / _TURN) - 0.5) % self.sectors
        if azimuthal.size:
            radial[~np.isfinite(azimuthal)] = np.nan
        return Places(*(np.asarray(part, np.float32).reshape(-1) for part in (radial, azimuthal)))


def pixel_maps(table: xr.Dataset) -> PixelMaps:
    """The maps of a background or of sparse frames."""
    radius = table["pixel_radius"].values
    norm = table["normalization"].values if "normalization" in table.coords else np.ones_like(radius)
    azimuth = table[AZIMUTH].values if AZIMUTH in table.coords else np.empty((0, 0), np.float32)
    return PixelMaps(
        radius=radius,
        azimuth=azimuth,
        norm=norm.astype(np.float32),
        centres=table[RADIUS].values,
        sectors=table.sizes.get(SECTOR, 1),
        beam=moving_beam(table),
    )


def bin_rows(background: xr.Dataset, images: xr.DataArray) -> list[Any]:
    """Averages and deviations in the chunks of the frames, as `da.blockwise` takes two arrays and their dims.

    Where both are fields of one array, that array and None: a task less for each.
    """
    average, deviation = (background[name].data for name in NEEDED[:2])
    dims = "sar" if average.ndim > 2 else "sr"
    source = structures_of((average, deviation))
    if source is not None and source[0].chunks[0] == images.data.chunks[0]:
        return [source[0], dims, None, None]
    return [part for table in (average, deviation) for part in (like_frames(table, images), dims)]


def like_frames(table: Any, images: xr.DataArray) -> da.Array:
    """(shot, ...) in the chunks of the frames."""
    values = table if isinstance(table, da.Array) else da.from_array(table, chunks=-1)
    return values.rechunk({0: images.data.chunks[0], **dict.fromkeys(range(1, values.ndim), -1)})


def split_rows(average: NDArray[Any], deviation: NDArray[np.float32] | None) -> tuple[NDArray[Any], NDArray[Any]]:
    """A chunk of averages and one of deviations, of what `bin_rows` gives."""
    return (average, deviation) if deviation is not None else (average["average"], average["deviation"])
