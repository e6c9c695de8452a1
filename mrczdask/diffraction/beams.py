"""Beams that wander: where the pixels stand about the beam of each shot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import is_dask_collection
from numpy.typing import ArrayLike, NDArray

from mrczdask import schema
from mrczdask.errors import MrczdaskError
from mrczdask.io.geometry import SCALES, Geometry, Unit
from mrczdask.io.sparse_table import CENTER, RESPONSE
from mrczdask.kernels.flat_detector import nearest_and_farthest, shown_radius

_CENTER: Final = np.dtype([("y", np.float64), ("x", np.float64)])
_FACTS: Final = ("distance_m", "pixel_size_m", "beam_center")


@dataclass(frozen=True)
class MovingBeam:
    """A flat detector across a beam that stands elsewhere in each shot. `bad` is the whole mask, `flat` (y, x) or
    None."""

    geometry: Geometry
    bad: NDArray[np.bool_] = field(repr=False)
    unit: Unit
    flat: NDArray[Any] | None = field(repr=False)
    polarization: float | None
    solid_angle: bool

    @property
    def is_corrected(self) -> bool:
        """Whether there is a normalisation other than 1."""
        return self.flat is not None or self.solid_angle or self.polarization is not None

    def binned_radius(self, center: NDArray[np.float64]) -> NDArray[np.float64]:
        """(y, x), in the unit in which pixels are binned."""
        return self._moved(center).binned_radius(self.unit)

    def norm(self, center: NDArray[np.float64]) -> NDArray[np.float32]:
        """(y, x) of what a frame is divided by."""
        found = normalisation(self._moved(center), self.flat, self.polarization, self.solid_angle)
        return found.astype(np.float32)

    def pixel_radius(self, center: NDArray[np.float64]) -> NDArray[np.float32]:
        """(y, x) in the unit that is shown, NaN where masked."""
        return shown_radius(self.binned_radius(center), self.bad, SCALES.get(self.unit, 1.0))

    def azimuth(self, center: NDArray[np.float64]) -> NDArray[np.float32]:
        """(y, x) in degrees."""
        return np.degrees(self._moved(center).azimuth()).astype(np.float32)

    def span(self, centers: NDArray[np.float64]) -> tuple[float, float]:
        """Least and largest radius of a good pixel in any shot, in the unit in which pixels are binned."""
        good = np.pad(~self.bad, 1)
        inner = good[:-2, 1:-1] & good[2:, 1:-1] & good[1:-1, :-2] & good[1:-1, 2:]
        good = good[1:-1, 1:-1]
        sizes = (1.0, 1.0) if self.unit == "pixel" else self.geometry.pixel_size_m
        ends = nearest_and_farthest(np.ascontiguousarray(good), np.argwhere(good & ~inner), centers, np.array(sizes))
        low, high = np.diagonal(self.geometry.flat_radius(ends[:, 0].copy(), ends[:, 1].copy(), self.unit))
        return float(low), float(high)

    def _moved(self, center: NDArray[np.float64]) -> Geometry:
        return self.geometry.moved((float(center[0]), float(center[1])))


def normalisation(
    geometry: Geometry, flat: NDArray[Any] | None, polarization: float | None, solid_angle: bool
) -> NDArray[np.float64]:
    """What frames are divided by, (y, x)."""
    if polarization is None and not solid_angle:
        return np.ones(geometry.shape) if flat is None else fitting("flat", flat, geometry).astype(np.float64)
    norm = geometry.correction(polarization, solid_angle)
    return norm if flat is None else norm * fitting("flat", flat, geometry)


def fitting(name: str, values: Any, geometry: Geometry) -> NDArray[Any]:
    """An array (y, x) of the shape of the detector."""
    array = np.asarray(values)
    if array.shape != geometry.shape:
        raise MrczdaskError(f"{name} has the shape {array.shape}, the detector {geometry.shape}")
    return array


def shot_centers(beam_centers: ArrayLike, shots: int) -> NDArray[np.float64]:
    """(shot, 2) of finite centres, given so or with scan dims in front.

    Raises
    ------
    MrczdaskError
        They are not finite, not one a shot, or not computed.
    """
    if is_dask_collection(beam_centers):
        raise MrczdaskError("beam_centers are lazy: compute them first, the bins depend on all of them")
    given = np.asarray(beam_centers, np.float64)
    centers = given.reshape(-1, 2) if given.ndim and given.shape[-1] == 2 else given
    if centers.shape != (shots, 2) or not np.isfinite(centers).all():
        raise MrczdaskError(f"beam_centers of {given.shape}: give finite (y, x) for each of {shots} shots")
    return np.ascontiguousarray(centers)


def beam_record(beam: MovingBeam, centers: NDArray[np.float64]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Coordinates and attributes from which `moving_beam` makes it again."""
    coords: dict[str, Any] = {name: (schema.SHOT, centers[:, k]) for k, name in enumerate(CENTER)}
    if beam.flat is not None:
        coords[RESPONSE] = ((schema.Y, schema.X), np.asarray(beam.flat, np.float64))
    known = beam.geometry
    attrs: dict[str, Any] = {
        "distance_m": known.distance_m,
        "pixel_size_m": list(known.pixel_size_m),
        "beam_center": list(known.beam_center),
    }
    attrs |= {"unit": beam.unit, "solid_angle": beam.solid_angle}
    attrs |= {"wavelength_m": known.wavelength_m} if known.wavelength_m is not None else {}
    return coords, attrs | ({"polarization": beam.polarization} if beam.polarization is not None else {})


def moving_beam(table: xr.Dataset) -> MovingBeam | None:
    """The beam that the bins of a background or of sparse frames follow; None where it stands still."""
    if CENTER[0] not in table.coords:
        return None
    attrs = table.attrs
    missing = [name for name in (*_FACTS, "unit") if name not in attrs]
    if missing:
        raise MrczdaskError(f"beam centres are given for each shot, but not {', '.join(missing)} of the detector")
    bad = np.isnan(table["pixel_radius"].values)
    (py, px), (cy, cx) = (map(float, attrs[name]) for name in ("pixel_size_m", "beam_center"))
    geometry = Geometry.flat(
        bad.shape,
        distance_m=float(attrs["distance_m"]),
        pixel_size_m=(py, px),
        beam_center=(cy, cx),
        wavelength_m=attrs.get("wavelength_m"),
    )
    flat = table[RESPONSE].values if RESPONSE in table.coords else None
    return MovingBeam(
        geometry, bad, attrs["unit"], flat, attrs.get("polarization"), bool(attrs.get("solid_angle", False))
    )


def center_rows(table: xr.Dataset, chunks: Sequence[int]) -> tuple[Any, str | None]:
    """Centres (shot) in chunks of shots, and their index, as `da.blockwise` takes them; None where none are."""
    if CENTER[0] not in table.coords:
        return None, None
    return lazy_centers(np.stack([table[name].values for name in CENTER], axis=1), chunks), "s"


def lazy_centers(centers: NDArray[np.float64], chunks: Sequence[int]) -> da.Array:
    """Centres (shot, 2) as structures (shot) of y and x: Dask fuses nothing into what contracts a dim."""
    return da.from_array(np.ascontiguousarray(centers).view(_CENTER).reshape(-1), chunks=(tuple(chunks),))
