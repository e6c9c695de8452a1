"""A detector of several panels, each at a place of its own."""

from __future__ import annotations

import hashlib
import os
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.errors import MrcFormatError
from mrczdask.formats.geom import parse_geom
from mrczdask.io.geometry import Geometry, Unit, below_pi, check_unit

OFF_GRID: Final = 0.01
"""Pixels that panels may be off a common grid where the beam is moved on it."""


class PanelGeometry(Geometry):
    """What `Geometry.from_geom` makes: positions of pixels are those of their panels."""

    def __init__(self, url: str, distance_m: float | None, wavelength_m: float | None, mask: NDArray[Any] | None):
        if not os.path.isfile(url):
            raise FileNotFoundError(url)
        with open(url, encoding="utf-8", errors="replace") as file:
            text = file.read()
        try:
            said = parse_geom(text)
            self._positions, self._normals, bad = said.maps(distance_m)
        except MrcFormatError as error:
            raise error.at(url) from None
        self.text, self.shift_m = text, said.shift_m
        first = said.panels[0]
        super().__init__(
            said.shape,
            distance_m=float(self._positions[2][~bad].mean()) if not bad.all() else 0.0,
            pixel_size_m=(1 / first.pixels_per_m, 1 / first.pixels_per_m),
            beam_center=_beam_center(self._positions, bad, first.pixels_per_m),
            wavelength_m=wavelength_m or said.wavelength_m,
            mask=bad if mask is None else bad | np.asarray(mask, bool),
            source=hashlib.sha256(f"{text}{distance_m}".encode()).hexdigest(),
        )

    def moved(self, beam_center: tuple[float, float]) -> Geometry:
        """Where all panels are one grid across the beam, fast along x and slow along y, a flat detector."""
        if not self._is_grid():
            return super().moved(beam_center)
        return Geometry(
            self.shape,
            distance_m=self.distance_m,
            pixel_size_m=self.pixel_size_m,
            beam_center=beam_center,
            wavelength_m=self.wavelength_m,
            mask=self.mask,
        )

    def _is_grid(self) -> bool:
        size = self.pixel_size_m[0]
        rows, columns = (np.arange(n) + 0.5 - at for n, at in zip(self.shape, self.beam_center, strict=True))
        x, y, z = self._positions
        off = np.maximum(np.abs(x - size * columns), np.abs(y - size * rows[:, None]))
        off = np.maximum(off, np.abs(z - self.distance_m))
        return bool(off[~self.mask].max(initial=0) <= OFF_GRID * size)

    def radius(self, unit: Unit = "q_A^-1") -> NDArray[np.float64]:
        check_unit(unit)
        x, y, z = self._positions
        r: NDArray[np.float64] = np.sqrt(y * y + x * x)
        if unit == "pixel":
            return r / self.pixel_size_m[0]
        if unit.startswith("r_"):
            return r
        two_theta: NDArray[np.float64] = np.arctan2(r, np.where(z > 0, z, self.distance_m or 1.0))
        return two_theta if unit.startswith("2th") else self._per_sine * np.sin(two_theta / 2)

    def azimuth(self) -> NDArray[np.float64]:
        return below_pi(np.arctan2(self._positions[1], self._positions[0]))

    def correction(self, polarization: float | None = None, solid_angle: bool = True) -> NDArray[np.float64]:
        """Solid angles are against one at the mean distance, across the beam."""
        found = np.ones(self.shape)
        away = np.sqrt((self._positions**2).sum(0))
        if solid_angle:
            facing = np.abs((self._positions * self._normals).sum(0))
            np.divide(facing * self.distance_m**2, away**3, out=found, where=away > 0)
        if polarization is None:
            return found
        x, y, z = self._positions
        spread = np.divide(z * z - polarization * (x * x - y * y), away**2, out=np.ones(self.shape), where=away > 0)
        return found * (0.5 + 0.5 * spread)


def _beam_center(positions: NDArray[np.float64], bad: NDArray[np.bool_], pixels_per_m: float) -> tuple[float, float]:
    """(y, x) in pixels of the frame next to the beam, from the pixel nearest to it."""
    away = np.where(bad, np.inf, np.hypot(positions[0], positions[1]))
    row, col = np.unravel_index(int(away.argmin()), away.shape)
    x, y = positions[:2, row, col] * pixels_per_m
    return float(row + 0.5 - y), float(col + 0.5 - x)
