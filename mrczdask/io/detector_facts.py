"""What the NXdetector group of an HDF5 file says of the frames: beam centre, distance, pixel size, mask, dummy."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

from mrczdask import schema
from mrczdask.errors import MrczdaskWarning
from mrczdask.io.detector_values import fact, followed, value_attrs
from mrczdask.io.sparse_table import CENTER

_ANGSTROM_M: Final = 1e-10
_METRES: Final = {
    "m": 1.0,
    "cm": 1e-2,
    "mm": 1e-3,
    "um": 1e-6,
    "µm": 1e-6,
    "nm": 1e-9,
    **dict.fromkeys(("angstrom", "a", "å"), _ANGSTROM_M),
}
_PIXELS: Final = ("", "pixel", "pixels", "px")
_USUAL: Final = re.compile(r"detector(_\d+)?")
"""Name of a detector group of NXmx, and of CXI."""
_TELLING: Final = ("beam_center_x", "x_pixel_size", "detector_distance", "distance", "pixel_mask")
_LISTED: Final = 4
_NUMBERS: Final = {
    "count_time": "count_time_s",
    "frame_time": "frame_time_s",
    "bit_depth_readout": "bit_depth_readout",
}
SHOTS: Final = "shots"
"""Group of an entry with what is known of each frame; NXmx has no place for it."""


def find_detector(entry: Any, path: str = "", shape: tuple[int, ...] | None = None) -> Any | None:
    """The detector group of an entry: of several the one of a dataset, whose frames are (y, x) of a shape.

    It holds the dataset, or a link to it, or has the name of a group above it. Else it is the only one that tells
    anything, or whose images have the shape; where none of this is so, a warning is given and there is none.
    """
    found = list(dict.fromkeys(group for group in _groups(entry, depth=3) if _is_detector(group)))
    if len(found) < 2:
        return found[0] if found else None
    place = f"/{path.strip('/')}"
    if inside := [group for group in found if place.startswith(f"{group.name}/")]:
        return inside[-1]
    frames = followed(entry.file, place)
    tests: tuple[Callable[[Any], bool], ...] = (
        lambda group: frames is not None and any(followed(group, name) == frames for name in group),
        lambda group: group.name.rpartition("/")[2] in place.split("/"),
        lambda group: any(name in group for name in _TELLING),
        lambda group: shape is not None and any(_shape(followed(group, name))[-2:] == shape for name in group),
    )
    left = found
    for test in tests:
        fitting = [group for group in left if test(group)]
        if len(fitting) == 1:
            return fitting[0]
        left = fitting or left
    if any(name in group for group in left for name in _TELLING):
        listed = ", ".join(group.name for group in left[:_LISTED])
        told = f"{entry.file.filename}: {place} may be of {listed}: nothing is taken of any: give the dataset in one"
        warnings.warn(told, MrczdaskWarning, stacklevel=2)
    return None


def _is_detector(group: Any) -> bool:
    named = _USUAL.fullmatch(group.name.rpartition("/")[2])
    return named is not None or _text(group.attrs.get("NX_class", "")) == "NXdetector"


def _shape(item: Any) -> tuple[int, ...]:
    return tuple(getattr(item, "shape", None) or ())


def _groups(parent: Any, depth: int, known: frozenset[Any] = frozenset()) -> Iterator[Any]:
    """Groups in a group and in those: what stands in it before what its links lead to."""
    links = {name: parent.get(name, getlink=True) for name in parent}
    for name in sorted(links, key=lambda name: hasattr(links[name], "path")):
        child = followed(parent, name)
        if hasattr(child, "keys") and child not in known:
            yield child
            if depth > 1:
                yield from _groups(child, depth - 1, known | {child})


def detector_attrs(detector: Any, entry: Any, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Attributes of the frames; a number of 0 where none can be says nothing."""
    attrs: dict[str, Any] = {}
    sizes = [_length(detector, f"{axis}_pixel_size") for axis in "yx"]
    center = [_center(detector, axis, size) for axis, size in zip("yx", sizes, strict=True)]
    if any(center) and None not in center:
        attrs["beam_center"] = center
    if all(sizes):
        attrs["pixel_size_m"] = sizes
    distance = _length(detector, "detector_distance") or _length(detector, "distance")
    if distance:
        attrs["distance_m"] = distance
    wavelength = _wavelength(entry, detector)
    if wavelength:
        attrs["wavelength_m"] = wavelength
    thickness, material = _length(detector, "sensor_thickness"), followed(detector, "sensor_material")
    if thickness:
        attrs["sensor_thickness_m"] = thickness
    if material is not None and getattr(material, "shape", None) == () and material.dtype.kind in "OS":
        attrs["sensor_material"] = _text(material[()])
    for name, key in _NUMBERS.items():
        value = _number(detector, name)
        if value:
            attrs[key] = value
    return attrs | value_attrs(detector, dtype)


def beam_centers(entry: Any, shots: int) -> dict[str, Any]:
    """Coordinates of frames whose beam wanders, where `write_frames` kept them."""
    group = entry.get(SHOTS)
    found = {name: group.get(name) for name in CENTER} if hasattr(group, "keys") else {}
    if not found or any(getattr(values, "shape", None) != (shots,) for values in found.values()):
        return {}
    return {name: ((schema.SHOT,), np.asarray(values[()], np.float64)) for name, values in found.items()}


def _wavelength(entry: Any, detector: Any) -> float | None:
    beams = ("instrument/beam/incident_wavelength", "sample/beam/incident_wavelength")
    places = [(entry, name) for name in beams] + [(detector, "beam/incident_wavelength")]
    # pyFAI spells it without an o
    places += [(detector.parent, f"{name}/wavelength") for name in ("monchromator", "monochromator")]
    values = (_length(group, name, default=_ANGSTROM_M) for group, name in places)
    return next((value for value in values if value), None)


def _length(group: Any, name: str, default: float = 1.0) -> float | None:
    """A length in metres; `default` is the unit of one that says none."""
    value = _number(group, name)
    if value is None:
        return None
    unit = _text(fact(group, name).attrs.get("units", "")).strip().lower()
    return value * _METRES.get(unit, default)


def _center(detector: Any, axis: str, size: float | None) -> float | None:
    """In pixels from the outer edge of the first; a length is divided by the side of a pixel."""
    name = f"beam_center_{axis}"
    value = _finite(detector, name)
    unit = "" if value is None else _text(fact(detector, name).attrs.get("units", "")).strip().lower()
    if value is None or unit in _PIXELS:
        return value
    return value * _METRES[unit] / size if unit in _METRES and size else None


def _number(group: Any, name: str) -> float | None:
    """A number above 0."""
    value = _finite(group, name)
    return value if value is not None and value > 0 else None


def _finite(group: Any, name: str) -> float | None:
    """A number, or one that is told again for each frame."""
    try:
        value = np.asarray(fact(group, name)[()], np.float64)
    except (KeyError, OSError, TypeError, ValueError):
        return None
    if not value.size or not np.isfinite(value).all() or (value != value.flat[0]).any():
        return None
    return float(value.flat[0])


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        value = value.flat[0] if value.size else ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
