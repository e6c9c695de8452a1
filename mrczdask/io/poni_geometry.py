"""Detectors in PONI files: pyFAI's own maps, but for flat detectors across the beam, which are known without it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from logging.handlers import BufferingHandler
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.errors import MissingExtraError, MrczdaskError
from mrczdask.formats.poni import FIRST_PIXEL_FIRST, FlatPoni, flat_poni, poni_fault
from mrczdask.io.detector_maps import DetectorMaps, Facts, FlatMaps, Unit, below_pi, check_unit
from mrczdask.io.validity import Marks

_BESIDE: Final = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
_STEPS: Final = 20
_STILL: Final = 1e-9
"""Pixels by which the last step towards the beam moves."""


def read_poni(url: str, shape: Sequence[int] | None, mask: NDArray[Any] | None) -> tuple[Facts, DetectorMaps]:
    """A PONI file as a flat detector if it is one: pyFAI takes seconds to load, and its maps would be the same."""
    if not os.path.isfile(url):
        raise FileNotFoundError(url)
    with open(url, encoding="utf-8", errors="replace") as file:
        text = file.read()
    if fault := poni_fault(text):
        raise MrczdaskError(f"{url}: this is no PONI file: {fault}")
    found = flat_poni(text)
    integrator = None
    if found is None:
        integrator = _load_poni(url)
        found = _flat_facts(url, integrator)
    _check(url, found)
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
        marks=None if found.dummy is None else Marks(found.detector, found.dummy, found.delta_dummy or 0.0),
    )
    if integrator is None or _is_plain(integrator):
        return facts, FlatMaps(facts)
    if not integrator.detector.shape:  # orientations count from the last row and column
        integrator.detector.max_shape = integrator.detector.shape = size
    maps = PoniMaps(facts, integrator)
    facts = replace(facts, beam_center=_beam_center(maps, size))
    return facts, replace(maps, facts=facts)


def _beam_center(maps: PoniMaps, shape: tuple[int, int]) -> tuple[float, float]:
    """(y, x) in pixels where the beam meets the detector, from the positions of pixels: `getFit2D` of pyFAI counts from
    other corners for detectors of orientation 1, 2 and 4.

    Newton's method: one step on a flat detector of even pixels, some where pixels are distorted.
    """
    place = np.array(shape) / 2 - 0.5
    for _ in range(_STEPS):
        _, y, x = maps.positions(*(place[:, None] + _BESIDE))
        away = np.array([y, x])  # of the place, of the one below and of the one to the right
        step = np.linalg.solve(away[:, 1:] - away[:, :1], -away[:, 0])
        place = place + step
        if np.abs(step).max() < _STILL:
            break
    return float(place[0] + 0.5), float(place[1] + 0.5)


def _check(url: str, found: FlatPoni) -> None:
    """Raise where a number cannot be that of a detector."""
    numbers = {
        "distance": (found.distance_m,),
        "pixel size": found.pixel_size_m,
        "wavelength": () if found.wavelength_m is None else (found.wavelength_m,),
    }
    for name, values in numbers.items():
        if not all(0 < value < np.inf for value in values):
            raise MrczdaskError(f"{url}: the {name} is {' x '.join(map(str, values))} m: it must be above 0")
    if found.shape is not None and not (len(found.shape) == 2 and all(0 < size < 1 << 31 for size in found.shape)):
        raise MrczdaskError(
            f"{url}: the detector has the shape {found.shape}: it must be two sizes above 0 and below 2**31"
        )


def _flat_facts(url: str, integrator: Any) -> FlatPoni:
    """What pyFAI knows of a detector, but for tilts."""
    detector = integrator.detector
    if detector.pixel1 is None or detector.pixel2 is None:
        raise MrczdaskError(f"{url}: this is no PONI file: it does not say the size of a pixel")
    if detector.shape and not all(isinstance(size, (int, np.integer)) for size in detector.shape):
        raise MrczdaskError(f"{url}: the shape of the detector is {detector.shape}: give two numbers (y, x)")
    return FlatPoni(
        shape=tuple(detector.shape) if detector.shape else None,
        mask=None if detector.mask is None else np.asarray(detector.mask, bool),
        distance_m=float(integrator.dist),
        pixel_size_m=(float(detector.pixel1), float(detector.pixel2)),
        poni_m=(float(integrator.poni1), float(integrator.poni2)),
        wavelength_m=integrator.wavelength,
        detector=str(detector.name),
        dummy=detector.dummy,
        delta_dummy=detector.delta_dummy,
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
        with _held_logs():
            return pyFAI.load(url)
    except (ValueError, LookupError, RuntimeError, TypeError, AttributeError, ArithmeticError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MrczdaskError(f"{url}: this is no PONI file: {reason}") from None


@contextmanager
def _held_logs() -> Iterator[None]:
    """What pyFAI logs is held back, and dropped with an exception: that says it in one line."""
    logger = logging.getLogger("pyFAI")
    held, above = BufferingHandler(1000), logger.propagate
    logger.addHandler(held)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(held)
        logger.propagate = above
    for log in held.buffer:
        logger.handle(log)
