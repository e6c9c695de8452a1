"""The radial bins of a geometry: which pixel is in which, and its normalisation. Made once, sent to a worker once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from dask.tokenize import tokenize
from numpy.typing import NDArray

from mrczdask.diffraction.beams import MovingBeam, fitting, normalisation
from mrczdask.diffraction.checks import flag, number, span, whole_number
from mrczdask.errors import MrczdaskError
from mrczdask.io.geometry import SCALES, Geometry, Unit, check_unit
from mrczdask.kernels.azimuthal import bin_numbers, bin_slots, good_span, to_bins
from mrczdask.kernels.bin_places import sector_numbers
from mrczdask.kernels.flat_detector import shown_radius

FLOAT32_STEP = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class BinOrder:
    """Where the pixels stand in the order of their bins: `slots` and `edges` as in `kernels.azimuthal`; `norm` and
    `dark` float32 in that order, `dark` may be empty."""

    slots: NDArray[np.uint32] = field(repr=False)
    edges: NDArray[np.int64] = field(repr=False)
    norm: NDArray[np.float32] = field(repr=False)
    dark: NDArray[np.float32] = field(repr=False)


_NO_ORDER: Final = BinOrder(
    np.empty(0, np.uint32), np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.float32)
)


def _in_order(image: NDArray[Any], slots: NDArray[np.uint32], edges: NDArray[np.int64]) -> NDArray[np.float32]:
    out = np.empty(edges[-1] + 1, np.float32)
    to_bins(image.reshape(-1), slots, out)
    return out[:-1]


@dataclass(frozen=True)
class RadialBins:
    """Bins of equal width, and what a frame is divided by.

    `n` bins of `step` from `low` on, in the unit in which pixels are binned; `centres` in the shown unit, float32;
    `norm` (y, x) float32; `pixel_radius` (y, x) float32, NaN where masked; `pixel_azimuth` (y, x) float32 in degrees,
    None where one of the `sectors` is all; `dark` (y, x) float32 or None. With a `beam` that moves, the maps are those
    of the geometry, and the order of the pixels is made for each frame.
    """

    n: int
    low: float
    step: float
    centres: NDArray[np.float32] = field(repr=False)
    norm: NDArray[np.float32] = field(repr=False)
    pixel_radius: NDArray[np.float32] = field(repr=False)
    sectors: int
    pixel_azimuth: NDArray[np.float32] | None = field(repr=False)
    dark: NDArray[np.float32] | None = field(repr=False)
    unit: str
    order: BinOrder = field(repr=False)
    beam: MovingBeam | None = field(repr=False)
    token: str

    def __dask_tokenize__(self) -> tuple[str, str]:
        return "mrczdask.RadialBins", self.token

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the bins of a frame: (radius), or (sector, radius)."""
        return (self.n,) if self.sectors == 1 else (self.sectors, self.n)

    def order_at(self, center: NDArray[np.float64] | None) -> BinOrder:
        """The order of the pixels of one frame, whose beam is at a place (y, x)."""
        beam = self.beam
        if beam is None or center is None:
            return self.order
        azimuth = None if self.sectors == 1 else beam.azimuth(center)
        norm = beam.norm(center) if beam.is_corrected else None
        return self._ordered(beam.binned_radius(center), azimuth, beam.bad, norm)

    def _ordered(
        self,
        radius: NDArray[np.float64],
        azimuth: NDArray[np.float32] | None,
        bad: NDArray[np.bool_],
        norm: NDArray[np.float32] | None,
    ) -> BinOrder:
        """Bins are in the order of the sectors, and within one of the radius."""
        bins = bin_numbers(radius, bad, self.low, self.step)
        if azimuth is not None:
            sector = sector_numbers(azimuth.reshape(-1), self.sectors)
            bins = np.where((bins >= 0) & (bins < self.n), sector * np.int32(self.n) + bins, np.int32(-1))
        slots, edges = bin_slots(bins, self.n * self.sectors)
        weight = np.ones(edges[-1], np.float32) if norm is None else _in_order(norm, slots, edges)
        dark = np.empty(0, np.float32) if self.dark is None else _in_order(self.dark, slots, edges)
        return BinOrder(slots, edges, weight, dark)


def radial_bins(
    geometry: Geometry,
    *,
    bins: int = 800,
    unit: Unit = "q_A^-1",
    mask: NDArray[Any] | None = None,
    flat: NDArray[Any] | None = None,
    dark: NDArray[Any] | None = None,
    polarization: float | None = None,
    solid_angle: bool = False,
    radial_range: tuple[float, float] | None = None,
    sectors: int = 1,
    centers: NDArray[np.float64] | None = None,
) -> RadialBins:
    """Sort the pixels of a geometry into bins of equal width, without splitting any.

    With `centers` (shot, 2), the bins are those from the smallest to the largest radius in any shot.

    Raises
    ------
    MrczdaskError
        A map has another shape than the detector, every pixel is masked, or the beam of the geometry cannot move.
    ValueError
        The unit is not known, an option is out of its range, or the range is empty.
    """
    check_unit(unit)
    bins, sectors = whole_number("bins", bins, 1), whole_number("sectors", sectors, 1)
    if radial_range is not None:
        span("radial_range", radial_range)
    if polarization is not None:
        polarization = number("polarization", polarization, -1.0, 1.0)
    solid_angle = flag("solid_angle", solid_angle)
    known: dict[str, Any] = {"flat": flat, "polarization": polarization, "solid_angle": solid_angle}
    bad = geometry.mask if mask is None else geometry.mask | fitting("mask", mask, geometry).astype(bool)
    norm = normalisation(geometry, **known)
    with np.errstate(over="ignore"):
        response = norm.astype(np.float32)
        level = None if dark is None else fitting("dark", dark, geometry).astype(np.float32)
    bad = bad | ~(response > 0) | ~np.isfinite(response)
    bad = bad if level is None else bad | ~np.isfinite(level)
    if bad.all():
        raise MrczdaskError("every pixel is masked: mask is True where a pixel is bad")
    radius = np.ascontiguousarray(geometry.binned_radius(unit), np.float64)
    beam = None
    low, largest = good_span(radius, bad)
    if centers is not None:
        beam = MovingBeam(geometry.moved(geometry.beam_center), bad, unit, **known)
        low, largest = beam.span(centers)
    high = largest * (1 + FLOAT32_STEP)
    step = (high - low) / bins
    scale = SCALES.get(unit, 1.0)
    found = RadialBins(
        n=bins,
        low=low,
        step=step,
        centres=(np.linspace(low + step / 2, high - step / 2, bins) * scale).astype(np.float32),
        norm=response,
        pixel_radius=shown_radius(radius, bad, scale),
        sectors=sectors,
        pixel_azimuth=None if sectors == 1 else np.degrees(geometry.azimuth()).astype(np.float32),
        dark=level,
        unit=unit,
        order=_NO_ORDER,
        beam=beam,
        token=tokenize(geometry, bins, unit, mask, dark, known, radial_range, sectors, centers),
    )
    if beam is not None:
        return found
    return replace(found, order=found._ordered(radius, found.pixel_azimuth, bad, found.norm))
