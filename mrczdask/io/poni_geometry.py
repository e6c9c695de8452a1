"""Detectors in PONI files: pyFAI's own maps, but for flat detectors across the beam, which are known without it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrczdask.errors import MissingExtraError, MrczdaskError
from mrczdask.formats.poni import FIRST_PIXEL_FIRST, FlatPoni, flat_poni
from mrczdask.io.detector_maps import DetectorMaps, Facts, FlatMaps, Unit, below_pi, check_unit


def read_poni(url: str, shape: Sequence[int] | None, mask: NDArray[Any] | None) -> tuple[Facts, DetectorMaps]:
    """A PONI file as a flat detector if it is one: pyFAI takes seconds to load, and its maps would be the same."""
    if not os.path.isfile(url):
        raise FileNotFoundError(url)
    with open(url, encoding="utf-8", errors="replace") as file:
        text = file.read()
    found = flat_poni(text)
    integrator = None
    if found is None:
        integrator = _load_poni(url)
        found = _flat_facts(integrator)
    size = shape or found.shape
    if not size:
        raise MrczdaskError(f"{url}: the detector has no shape: give shape=(y, x)")
    size = int(size[0]), int(size[1])
    own = np.zeros(size, bool) if found.mask is None else found.mask
    if own.shape != size or found.shape not in (None, size):
        raise MrczdaskError(f"{url}: the detector has the shape {found.shape or own.shape}, the frames {size}")
    facts = Facts(
        size,
        distance_m=found.distance_m,
        pixel_size_m=found.pixel_size_m,
        beam_center=(found.poni_m[0] / found.pixel_size_m[0], found.poni_m[1] / found.pixel_size_m[1]),
        wavelength_m=found.wavelength_m,
        mask=own if mask is None else own | np.asarray(mask, bool),
        source=text,
    )
    if integrator is None or _is_plain(integrator):
        return facts, FlatMaps(facts)
    fit = integrator.getFit2D()
    facts = replace(facts, beam_center=(float(fit["centerY"]), float(fit["centerX"])))
    return facts, PoniMaps(facts, integrator)


def _flat_facts(integrator: Any) -> FlatPoni:
    """What pyFAI knows of a detector, but for tilts."""
    detector = integrator.detector
    return FlatPoni(
        shape=tuple(detector.shape) if detector.shape else None,
        mask=None if detector.mask is None else np.asarray(detector.mask, bool),
        distance_m=float(integrator.dist),
        pixel_size_m=(float(detector.pixel1), float(detector.pixel2)),
        poni_m=(float(integrator.poni1), float(integrator.poni2)),
        wavelength_m=integrator.wavelength,
    )


def _is_plain(integrator: Any) -> bool:
    """Whether pixels stand in even rows across the beam, the first one first, as `Geometry.flat` has them."""
    detector = integrator.detector
    untilted = integrator.rot1 == integrator.rot2 == integrator.rot3 == 0
    even = detector.uniform_pixel and detector.IS_FLAT and detector.IS_CONTIGUOUS
    first = int(detector.orientation) in FIRST_PIXEL_FIRST
    return bool(untilted and even and first and not getattr(integrator, "parallax", None))


@dataclass(frozen=True)
class PoniMaps:
    """Asks pyFAI for every map, so that bins are the same as its own."""

    facts: Facts
    integrator: Any

    @property
    def is_flat(self) -> bool:
        return False

    def radius(self, unit: Unit) -> NDArray[np.float64]:
        check_unit(unit)
        if unit == "pixel":
            return self.radius("r_m") / self.facts.pixel_size_m[0]
        return self._map(unit)

    def azimuth(self) -> NDArray[np.float64]:
        return below_pi(self._map("chi_rad"))

    def _map(self, unit: str) -> NDArray[np.float64]:
        found: NDArray[np.float64] = self.integrator.array_from_unit(self.facts.shape, "center", unit, scale=False)
        return found

    def positions(self, y: Sequence[float], x: Sequence[float]) -> NDArray[np.float64]:
        places = (np.asarray(values, float) for values in (y, x))
        return np.stack(self.integrator.calc_pos_zyx(None, *places))

    def correction(self, polarization: float | None, solid_angle: bool) -> NDArray[np.float64]:
        shape = self.facts.shape
        found = np.asarray(self.integrator.solidAngleArray(shape)) if solid_angle else np.ones(shape)
        return found if polarization is None else found * self.integrator.polarization(shape, factor=polarization)


def _load_poni(url: str) -> Any:
    try:
        import pyFAI
    except ImportError:
        raise MissingExtraError(f"{url}: PONI files need pyFAI: pip install 'mrczdask[diffraction]'") from None
    try:
        return pyFAI.load(url)
    except (ValueError, KeyError, RuntimeError, TypeError) as error:
        raise MrczdaskError(f"{url}: this is no PONI file: {error}") from None
