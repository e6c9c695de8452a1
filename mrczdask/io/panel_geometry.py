"""A detector of several panels, each at a place of its own."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask.errors import MrcFormatError
from mrczdask.formats.geom import GeomFile, parse_geom
from mrczdask.io.detector_maps import Facts, Unit, below_pi, check_unit
from mrczdask.io.geom_places import Frames, beam_and_distance
from mrczdask.io.geom_values import flags_of, gain_of, masks_in_files

OFF_GRID: Final = 0.01
"""Pixels that panels may be off a common grid where the beam is moved on it."""


def read_panels(
    url: str,
    distance_m: float | None,
    wavelength_m: float | None,
    mask: NDArray[Any] | None,
    shape: Sequence[int] | None = None,
    frames: Frames | None = None,
) -> tuple[Facts, PanelMaps]:
    """The detector of a .geom file."""
    if not os.path.isfile(url):
        raise FileNotFoundError(url)
    with open(url, encoding="utf-8-sig", errors="replace") as file:
        text = file.read()
    if shape is None and isinstance(frames, xr.DataArray):
        shape = frames.shape[-2:]
    try:
        said = parse_geom(text).framed(shape)
        if distance_m is None or wavelength_m is None:
            told = beam_and_distance(said, frames, is_given=(distance_m is not None, wavelength_m is not None))
            distance_m = told[0] if distance_m is None else distance_m
            wavelength_m = told[1] if wavelength_m is None else wavelength_m
        hidden, unread = masks_in_files(said, url, frames)
        hidden = hidden if mask is None else hidden | np.asarray(mask, bool)
        facts, maps = _detector(said, text, distance_m, wavelength_m, hidden)
        gain = gain_of(said, wavelength_m, url)
        facts = replace(facts, validity=flags_of(said), counts_per_photon=gain, unread_masks=unread)
        return facts, maps
    except MrcFormatError as error:
        raise error.at(url) from None


def _detector(
    said: GeomFile, text: str, distance_m: float | None, wavelength_m: float | None, mask: NDArray[np.bool_]
) -> tuple[Facts, PanelMaps]:
    positions, normals, bad = said.maps(distance_m)
    first = said.panels[0]
    facts = Facts(
        said.shape,
        distance_m=float(positions[2][~bad].mean()) if not bad.all() else 0.0,
        pixel_size_m=(1 / first.pixels_per_m, 1 / first.pixels_per_m),
        beam_center=_beam_center(positions, bad, first.pixels_per_m),
        wavelength_m=wavelength_m,
        mask=bad | mask,
        source=hashlib.sha256(f"{text}{distance_m}".encode()).hexdigest(),
    )
    return facts, PanelMaps(facts, text, said, distance_m, positions, normals)


@dataclass(frozen=True)
class PanelMaps:
    """Maps by the positions of pixels (3, y, x), x, y and z, and the unit vectors across their panels."""

    facts: Facts
    text: str
    """The .geom file."""
    said: GeomFile = field(repr=False)
    """What it says."""
    given_m: float | None
    """The distance that stands for that of the file."""
    xyz: NDArray[np.float64] = field(repr=False)
    normals: NDArray[np.float64] = field(repr=False)

    def framed(self, shape: Sequence[int], mask: NDArray[np.bool_]) -> tuple[Facts, PanelMaps]:
        """The same panels in frames with more rows or columns at the end, which are of no panel: those are bad."""
        said = self.said.framed(shape)
        old = mask.reshape(-1, self.said.plane, mask.shape[1])
        new = np.zeros((said.shape[0] // said.plane, said.plane, said.shape[1]), bool)
        new[: len(old), : old.shape[1], : old.shape[2]] = old
        return _detector(said, self.text, self.given_m, self.facts.wavelength_m, new.reshape(said.shape))

    @property
    def shift_m(self) -> tuple[float, float]:
        """Of the whole detector, (x, y)."""
        return self.said.shift_m

    @property
    def is_flat(self) -> bool:
        size, mask = self.facts.pixel_size_m[0], self.facts.mask
        rows, columns = (
            np.arange(n) + 0.5 - at for n, at in zip(self.facts.shape, self.facts.beam_center, strict=True)
        )
        x, y, z = self.xyz
        off = np.maximum(np.abs(x - size * columns), np.abs(y - size * rows[:, None]))
        off = np.maximum(off, np.abs(z - self.facts.distance_m))
        return bool((off if mask is None else off[~mask]).max(initial=0) <= OFF_GRID * size)

    def radius(self, unit: Unit) -> NDArray[np.float64]:
        check_unit(unit)
        x, y, z = self.xyz
        r: NDArray[np.float64] = np.sqrt(y * y + x * x)
        if unit == "pixel":
            return r / self.facts.pixel_size_m[0]
        if unit.startswith("r_"):
            return r
        two_theta: NDArray[np.float64] = np.arctan2(r, np.where(z > 0, z, self.facts.distance_m or 1.0))
        return two_theta if unit.startswith("2th") else self.facts.per_sine * np.sin(two_theta / 2)

    def azimuth(self) -> NDArray[np.float64]:
        return below_pi(np.arctan2(self.xyz[1], self.xyz[0]))

    def positions(self, y: Sequence[float], x: Sequence[float]) -> NDArray[np.float64]:
        return self.said.positions(y, x, self.given_m)[::-1]

    def correction(self, polarization: float | None, solid_angle: bool) -> NDArray[np.float64]:
        """Solid angles are against one at the mean distance, across the beam."""
        found = np.ones(self.facts.shape)
        away = np.sqrt((self.xyz**2).sum(0))
        if solid_angle:
            facing = np.abs((self.xyz * self.normals).sum(0))
            np.divide(facing * self.facts.distance_m**2, away**3, out=found, where=away > 0)
        if polarization is None:
            return found
        x, y, z = self.xyz
        spread = np.divide(z * z - polarization * (x * x - y * y), away**2, out=np.ones(found.shape), where=away > 0)
        return found * (0.5 + 0.5 * spread)


def _beam_center(positions: NDArray[np.float64], bad: NDArray[np.bool_], pixels_per_m: float) -> tuple[float, float]:
    """(y, x) in pixels of the frame next to the beam, from the pixel nearest to it."""
    away = np.where(bad, np.inf, np.hypot(positions[0], positions[1]))
    row, col = np.unravel_index(int(away.argmin()), away.shape)
    x, y = positions[:2, row, col] * pixels_per_m
    return float(row + 0.5 - y), float(col + 0.5 - x)
