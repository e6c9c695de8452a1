"""A detector of several panels, each at a place of its own."""

from __future__ import annotations

import hashlib
import os
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrczdask.errors import MrcFormatError
from mrczdask.formats.geom import parse_geom
from mrczdask.io.geometry import Geometry, Unit, check_unit


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
        self.text = text
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

    @property
    def _depth(self) -> NDArray[np.float64]:
        return np.where(self._positions[2] > 0, self._positions[2], self.distance_m or 1.0)

    @cached_property
    def _offsets(self) -> tuple[NDArray[Any], NDArray[Any]]:
        return self._positions[1], self._positions[0]

    def radius(self, unit: Unit = "q_A^-1") -> NDArray[np.float64]:
        check_unit(unit)
        y, x = self._offsets
        r: NDArray[np.float64] = np.sqrt(y * y + x * x)
        if unit == "pixel":
            return r / self.pixel_size_m[0]
        if unit.startswith("r_"):
            return r
        two_theta: NDArray[np.float64] = np.arctan2(r, self._depth)
        return two_theta if unit.startswith("2th") else self._per_sine * np.sin(two_theta / 2)

    def solid_angle(self) -> NDArray[np.float64]:
        """Solid angle of every pixel against one on the beam at the mean distance, across the beam."""
        away = np.sqrt((self._positions**2).sum(0))
        facing = np.abs((self._positions * self._normals).sum(0))
        return np.divide(facing * self.distance_m**2, away**3, out=np.ones(self.shape), where=away > 0)


def _beam_center(positions: NDArray[np.float64], bad: NDArray[np.bool_], pixels_per_m: float) -> tuple[float, float]:
    """(y, x) in pixels of the frame next to the beam, from the pixel nearest to it."""
    away = np.where(bad, np.inf, np.hypot(positions[0], positions[1]))
    row, col = np.unravel_index(int(away.argmin()), away.shape)
    x, y = positions[:2, row, col] * pixels_per_m
    return float(row + 0.5 - y), float(col + 0.5 - x)
