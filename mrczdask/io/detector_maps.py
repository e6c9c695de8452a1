"""Where the pixels of a detector stand, as each kind of detector tells: what `Geometry` asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from mrczdask.errors import MrczdaskError
from mrczdask.io.validity import Marks, Validity

Unit = Literal["q_A^-1", "q_nm^-1", "2th_deg", "2th_rad", "r_m", "r_mm", "pixel"]
UNITS: Final[tuple[str, ...]] = get_args(Unit)
SCALES: Final = {"q_A^-1": 0.1, "q_nm^-1": 1.0, "2th_deg": 180 / np.pi, "2th_rad": 1.0, "r_m": 1.0, "r_mm": 1e3}
"""From the unit in which pixels are binned (nm^-1, rad, m) to the one that is shown; pixels are their own."""


@dataclass(frozen=True)
class Facts:
    """What is known of any detector, as `Geometry` has it; `source` tells it from others of the same numbers."""

    shape: tuple[int, int]
    distance_m: float
    pixel_size_m: tuple[float, float]
    beam_center: tuple[float, float]
    wavelength_m: float | None = None
    mask: NDArray[Any] | None = field(default=None, repr=False, compare=False)
    source: str = field(default="", repr=False)
    validity: Validity = field(default_factory=Validity)
    marks: Marks | None = None
    counts_per_photon: float | None = None
    unread_masks: tuple[str, ...] = ()

    @property
    def per_sine(self) -> float:
        """q in 1/nm over sin(theta)."""
        if self.wavelength_m is None:
            raise MrczdaskError("q needs the wavelength: give wavelength_m to Geometry.flat, or unit='r_m'")
        return 4e-9 * np.pi / self.wavelength_m


class DetectorMaps(Protocol):
    """Maps (y, x) of a detector; see the methods of `Geometry`."""

    @property
    def is_flat(self) -> bool:
        """Whether pixels are one grid across the beam, fast along x and slow along y."""
        ...

    def radius(self, unit: Unit) -> NDArray[np.float64]: ...

    def azimuth(self) -> NDArray[np.float64]: ...

    def positions(self, y: Sequence[float], x: Sequence[float]) -> NDArray[np.float64]: ...

    def correction(self, polarization: float | None, solid_angle: bool) -> NDArray[np.float64]: ...


@dataclass(frozen=True)
class FlatMaps:
    """Of a flat detector across the beam."""

    facts: Facts

    @property
    def is_flat(self) -> bool:
        return True

    def radius(self, unit: Unit) -> NDArray[np.float64]:
        return self.radius_at(*self._offsets((1.0, 1.0) if unit == "pixel" else self.facts.pixel_size_m), unit)

    def radius_at(self, y: NDArray[np.float64], x: NDArray[np.float64], unit: Unit) -> NDArray[np.float64]:
        """Radius (y, x) at such distances from the beam, in metres, or pixels."""
        check_unit(unit)
        from mrczdask.kernels import flat_detector as kernel

        if unit.startswith("q"):
            return kernel.flat_radius(y, x, self.facts.distance_m, kernel.SINE, self.facts.per_sine)
        kind = kernel.ANGLE if unit.startswith("2th") else kernel.LENGTH
        return kernel.flat_radius(y, x, self.facts.distance_m, kind, 1.0)

    def azimuth(self) -> NDArray[np.float64]:
        y, x = self._offsets(self.facts.pixel_size_m)
        return below_pi(np.arctan2(y[:, None], x))

    def positions(self, y: Sequence[float], x: Sequence[float]) -> NDArray[np.float64]:
        places = np.stack([np.asarray(y, float), np.asarray(x, float)]) + 0.5
        metres = (places.T - self.facts.beam_center) * self.facts.pixel_size_m
        return np.stack([np.full(len(metres), self.facts.distance_m), *metres.T])

    def correction(self, polarization: float | None, solid_angle: bool) -> NDArray[np.float64]:
        from mrczdask.kernels.flat_detector import flat_correction

        y, x = self._offsets(self.facts.pixel_size_m)
        polarized = polarization is not None
        return flat_correction(y, x, self.facts.distance_m, solid_angle, polarized, float(polarization or 0.0))

    def _offsets(self, sizes: tuple[float, float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Distances of rows and of columns of pixels from the beam."""
        shape, center = self.facts.shape, self.facts.beam_center
        y, x = ((np.arange(shape[k], dtype=np.float64) + 0.5 - center[k]) * sizes[k] for k in (0, 1))
        return y, x


def check_unit(unit: str) -> None:
    """Raise unless the unit is one in which pixels are binned."""
    if unit not in UNITS:
        raise ValueError(f"unit {unit!r}: give one of {', '.join(UNITS)}")


def below_pi(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles of [-pi, 2 pi) in [-pi, pi), in an array of their own."""
    return np.where(angle >= np.pi, angle - 2 * np.pi, angle)
