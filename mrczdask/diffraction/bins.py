"""The radial bins of a geometry: which pixel is in which, and its normalisation. Made once, sent to a worker once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from dask.tokenize import tokenize
from numpy.typing import NDArray

from mrczdask.errors import MrczdaskError
from mrczdask.io.geometry import SCALES, Geometry, Unit, check_unit
from mrczdask.kernels.azimuthal import bin_slots, to_bins

FLOAT32_STEP = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class RadialBins:
    """Where the pixels stand in the order of their bins, and what a frame is divided by.

    `slots` and `edges` as in `kernels.azimuthal`; `norm` (y, x) float32; `norm_in_order` the same in bin order;
    `centres` the bin centres in the shown unit, float32; `place` (y, x) float32, the place of a pixel among the centres
    (0 is the first), NaN where it is masked or out of range; `pixel_radius` (y, x) float32, NaN where masked.
    """

    slots: NDArray[np.uint32] = field(repr=False)
    edges: NDArray[np.int64] = field(repr=False)
    norm: NDArray[np.float32] = field(repr=False)
    norm_in_order: NDArray[np.float32] = field(repr=False)
    centres: NDArray[np.float32] = field(repr=False)
    place: NDArray[np.float32] = field(repr=False)
    pixel_radius: NDArray[np.float32] = field(repr=False)
    unit: str
    token: str

    @property
    def shape(self) -> tuple[int, int]:
        y, x = self.norm.shape
        return y, x

    def __dask_tokenize__(self) -> tuple[str, str]:
        return "mrczdask.RadialBins", self.token

    def in_order(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """The valid pixels of an image (y, x) in bin order."""
        return _in_order(image, self.slots, self.edges)


def _in_order(image: NDArray[Any], slots: NDArray[np.uint32], edges: NDArray[np.int64]) -> NDArray[np.float32]:
    out = np.empty(edges[-1] + 1, np.float32)
    to_bins(image.reshape(-1), slots, out)
    return out[:-1]


def radial_bins(
    geometry: Geometry,
    *,
    bins: int = 800,
    unit: Unit = "q_A^-1",
    mask: NDArray[Any] | None = None,
    flat: NDArray[Any] | None = None,
    polarization: float | None = None,
    solid_angle: bool = False,
    radial_range: tuple[float, float] | None = None,
) -> RadialBins:
    """Sort the pixels of a geometry into bins of equal width, without splitting any.

    Raises
    ------
    MrczdaskError
        A map has another shape than the detector, or every pixel is masked.
    ValueError
        The unit is not known or `bins` is not positive.
    """
    check_unit(unit)
    if bins < 1:
        raise ValueError(f"bins={bins}: give at least one")
    radius = geometry.radius(unit)
    bad = geometry.mask if mask is None else geometry.mask | _fitting("mask", mask, geometry).astype(bool)
    norm = _norm(geometry, flat, polarization, solid_angle)
    bad = bad | ~(norm > 0) | ~np.isfinite(norm)
    if bad.all():
        raise MrczdaskError("every pixel is masked: mask is True where a pixel is bad")
    low, high = float(radius[~bad].min()), float(radius[~bad].max()) * (1 + FLOAT32_STEP)
    step = (high - low) / bins
    number = np.floor((radius - low) / step).astype(np.int32)
    number[bad] = -1
    slots, edges = bin_slots(number.reshape(-1), bins)
    centres = np.linspace(low + step / 2, high - step / 2, bins)
    scale = SCALES.get(unit, 1.0)
    place = ((radius - centres[0]) / step).astype(np.float32)
    out = bad if radial_range is None else bad | ~_within(radius * scale, radial_range)
    norm32 = norm.astype(np.float32)
    shown = (radius * scale).astype(np.float32)
    return RadialBins(
        slots=slots,
        edges=edges,
        norm=norm32,
        norm_in_order=_in_order(norm32, slots, edges),
        centres=(centres * scale).astype(np.float32),
        place=np.where(out, np.float32(np.nan), place),
        pixel_radius=np.where(bad, np.float32(np.nan), shown),
        unit=unit,
        token=tokenize(geometry, bins, unit, mask, flat, polarization, solid_angle, radial_range),
    )


def _norm(
    geometry: Geometry, flat: NDArray[Any] | None, polarization: float | None, solid_angle: bool
) -> NDArray[np.float64]:
    norm = np.ones(geometry.shape)
    if flat is not None:
        norm = norm * _fitting("flat", flat, geometry)
    if solid_angle:
        norm = norm * geometry.solid_angle()
    return norm if polarization is None else norm * geometry.polarization(polarization)


def _within(radius: NDArray[np.float64], radial_range: tuple[float, float]) -> NDArray[np.bool_]:
    low, high = radial_range
    if not low < high:
        raise ValueError(f"radial_range={radial_range}: the first must be below the second")
    inside: NDArray[np.bool_] = (radius >= low) & (radius < high)
    return inside


def _fitting(name: str, values: Any, geometry: Geometry) -> NDArray[Any]:
    array = np.asarray(values)
    if array.shape != geometry.shape:
        raise MrczdaskError(f"{name} has the shape {array.shape}, the detector {geometry.shape}")
    return array
