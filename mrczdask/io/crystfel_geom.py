"""The .geom file with which CrystFEL reads a .cxi file of peaks."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.io.geometry import Geometry
from mrczdask.io.panel_geometry import PanelMaps

_PLACES: Final = {
    "data": "/entry_1/data_1/data",
    "peak_list": "/entry_1/result_1",
    "peak_list_type": "cxi",
}
"""Without `peak_list_type` CrystFEL finds no peak and says nothing."""
CXI_DETECTOR: Final = "entry_1/instrument_1/detector_1"
_MASK: Final = {
    "mask0_data": f"/{CXI_DETECTOR}/mask",
    "mask0_goodbits": "0x0",
    "mask0_badbits": "0x1",
}
"""The mask that `write_peaks` puts into the .cxi file. A .geom file that geometry came from has its own."""


_SHIFTS: Final = {f"detector_shift_{axis}": f"entry_1/shots/det_shift_{axis}_mm" for axis in "xy"}
"""By how much the detector of each frame stands elsewhere, so that its beam is at the origin."""


def frame_shifts(geometry: Geometry, centers: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Millimetres by which the detector is shifted for beams at (shot, 2), by the name of the dataset."""
    own = geometry.maps.shift_m if isinstance(geometry.maps, PanelMaps) else (0.0, 0.0)
    metres = (np.array(geometry.beam_center) - centers) * geometry.pixel_size_m
    return {place: 1e3 * (metres[:, 1 - k] + own[k]) for k, place in enumerate(_SHIFTS.values())}


Dummy = tuple[float | None, float]
"""Value of invalid pixels, and how close to it they are."""


def write_geom(path: str, geometry: Geometry, *, dummy: Dummy = (None, 0.0), follows_beam: bool = False) -> None:
    """Write a detector as CrystFEL reads it: as one panel, or as the .geom file it came from with other places."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(geom_text(geometry, dummy, follows_beam))


def geom_text(geometry: Geometry, dummy: Dummy, follows_beam: bool = False) -> str:
    """The text of a .geom file; where it follows the beam, with the shifts of each frame."""
    places = [f"{key} = {value}" for key, value in _PLACES.items()]
    if follows_beam:
        places += [f"{key} = /{place} mm" for key, place in _SHIFTS.items()]
    if isinstance(geometry.maps, PanelMaps):
        kept = [line for line in geometry.maps.text.splitlines() if not _is_replaced(line, follows_beam)]
        return "\n".join([*places, *kept]) + "\n"
    places += [f"{key} = {value}" for key, value in _MASK.items()]
    if geometry.wavelength_m is not None:
        places.append(f"wavelength = {1e10 * geometry.wavelength_m:.8g} A")
    places += _flags(*dummy)
    corner, fast, slow = _vectors(geometry)
    size = float(np.linalg.norm(fast))
    height, width = geometry.shape
    x, y = corner[:2] / size
    lines = [
        "adu_per_photon = 1",
        f"clen = {corner[2]:.10g}",
        f"res = {1 / size:.8g}",
        "dim0 = %",
        "dim1 = ss",
        "dim2 = fs",
        f"p0/min_fs = 0\np0/max_fs = {width - 1}",
        f"p0/min_ss = 0\np0/max_ss = {height - 1}",
        f"p0/corner_x = {x:.8g}\np0/corner_y = {y:.8g}",
        f"p0/fs = {_direction(fast / size)}",
        f"p0/ss = {_direction(slow / size)}",
    ]
    return "\n".join([*places, *lines]) + "\n"


def _flags(dummy: float | None, delta: float) -> list[str]:
    """Values of invalid pixels; of whole numbers on one side of 0 what lies beyond them too."""
    if dummy is None or not np.isfinite(dummy):
        return []
    if not delta:
        return [f"flag_equal = {dummy:.10g}"]
    if dummy < 0:
        return [f"flag_lessthan = {np.floor(dummy + delta) + 1:.10g}"]
    return [f"flag_morethan = {np.ceil(dummy - delta) - 1:.10g}"]


def _is_replaced(line: str, follows_beam: bool) -> bool:
    """Whether a line names a place in other files, or a shift instead of which there are those of the frames."""
    key, _, value = (part.strip() for part in line.partition(";")[0].partition("="))
    return key in _PLACES or (key in _SHIFTS and (follows_beam or "/" in value))


def _vectors(geometry: Geometry) -> tuple[NDArray[np.float64], ...]:
    """(x, y, z) in metres of the outer corner of the first pixel, and of a step along x and along y."""
    corner, right, down = geometry.positions([-0.5, -0.5, 0.5], [-0.5, 0.5, -0.5])[::-1].T
    return corner, right - corner, down - corner


def _direction(step: NDArray[np.float64]) -> str:
    return " ".join(f"{value:+.9f}{axis}" for value, axis in zip(step, "xyz", strict=True))
