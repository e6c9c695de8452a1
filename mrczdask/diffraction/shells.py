"""Shells of the radius, in which a report counts pixels: about the beam of each shot."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask.diffraction.beams import MovingBeam, moving_beam
from mrczdask.io.geometry import SCALES
from mrczdask.io.sparse_table import CENTER


@dataclass(frozen=True)
class Shells:
    """Shells of equal width between `edges`; `number` (y, x) is that of each pixel, -1 where it is masked, and that of
    the geometry where a `beam` moves."""

    edges: NDArray[np.float64] = field(repr=False)
    number: NDArray[np.int16] = field(repr=False)
    beam: MovingBeam | None = field(repr=False)

    def __len__(self) -> int:
        return self.edges.size - 1

    def at(self, center: NDArray[np.float64] | None) -> NDArray[np.int16]:
        """Number of the shell of each pixel (y, x) of a frame whose beam is at a place (y, x)."""
        if self.beam is None or center is None:
            return self.number
        return _numbers(self.beam.pixel_radius(center), self.edges)


def shells_of(table: xr.Dataset, n: int) -> Shells:
    """So many shells of all radii of a background, or of sparse frames."""
    radius, beam = table["pixel_radius"].values, moving_beam(table)
    low, high = np.nanmin(radius), np.nanmax(radius)
    if beam is not None:
        centers = np.stack([table[name].values for name in CENTER], axis=1)
        low, high = (SCALES.get(beam.unit, 1.0) * end for end in beam.span(centers))
    edges = np.linspace(low, high, n + 1)
    return Shells(edges, _numbers(radius, edges), beam)


def _numbers(radius: NDArray[np.float32], edges: NDArray[np.float64]) -> NDArray[np.int16]:
    number = np.clip(np.searchsorted(edges, radius, side="right") - 1, 0, edges.size - 2)
    return np.where(np.isnan(radius), -1, number).astype(np.int16)
