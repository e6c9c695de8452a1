"""What the NXdetector group of an HDF5 file says of the frames: beam centre, distance, pixel size, mask, dummy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from mrczdask import schema
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
_NUMBERS: Final = {
    "count_time": "count_time_s",
    "frame_time": "frame_time_s",
    "saturation_value": "saturation_value",
    "bit_depth_readout": "bit_depth_readout",
}
SHOTS: Final = "shots"
"""Group of an entry with what is known of each frame; NXmx has no place for it."""
_MASKS: Final = ("pixel_mask", "detectorSpecific/pixel_mask", "mask")


def find_detector(entry: Any) -> Any | None:
    """The detector group of an entry: by its class, or by its usual name."""
    for group in _groups(entry, depth=3):
        if _text(group.attrs.get("NX_class", "")) == "NXdetector" or group.name.endswith("/detector"):
            return group
    return None


def _groups(parent: Any, depth: int) -> Iterator[Any]:
    for name in parent:
        link = parent.get(name, getlink=True)
        if type(link).__name__ != "HardLink":
            continue
        child = parent[name]
        if hasattr(child, "keys"):
            yield child
            if depth > 1:
                yield from _groups(child, depth - 1)


def detector_attrs(detector: Any, entry: Any, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Attributes of the frames; a number of 0 where none can be says nothing."""
    attrs: dict[str, Any] = {}
    center = [_number(detector, f"beam_center_{axis}") for axis in "yx"]
    if all(center):
        attrs["beam_center"] = center
    sizes = [_length(detector, f"{axis}_pixel_size") for axis in "yx"]
    if all(sizes):
        attrs["pixel_size_m"] = sizes
    distance = _length(detector, "detector_distance") or _length(detector, "distance")
    if distance:
        attrs["distance_m"] = distance
    wavelength = _wavelength(entry, detector)
    if wavelength:
        attrs["wavelength_m"] = wavelength
    for name, key in _NUMBERS.items():
        value = _number(detector, name)
        if value:
            attrs[key] = value
    if dtype.kind == "u":  # DECTRIS marks bad pixels with the largest value
        bits = int(_number(detector, "bit_depth_image") or 8 * dtype.itemsize)
        attrs["dummy"] = 2 ** min(bits, 8 * dtype.itemsize) - 1
    return attrs


def beam_centers(entry: Any, shots: int) -> dict[str, Any]:
    """Coordinates of frames whose beam wanders, where `write_frames` kept them."""
    group = entry.get(SHOTS)
    found = {name: group.get(name) for name in CENTER} if hasattr(group, "keys") else {}
    if not found or any(getattr(values, "shape", None) != (shots,) for values in found.values()):
        return {}
    return {name: ((schema.SHOT,), np.asarray(values[()], np.float64)) for name, values in found.items()}


def mask_of(detector: Any, shape: tuple[int, ...]) -> Any | None:
    """The dataset of the mask, if it is of the shape (y, x) of the frames."""
    for name in _MASKS:
        found = detector.get(name)
        if found is not None and getattr(found, "shape", None) == shape and found.dtype.kind in "iub":
            return found
    return None


def _wavelength(entry: Any, detector: Any) -> float | None:
    beams = ("instrument/beam/incident_wavelength", "sample/beam/incident_wavelength")
    places = [(entry, name) for name in beams]
    # pyFAI spells it without an o
    places += [(detector.parent, f"{name}/wavelength") for name in ("monchromator", "monochromator")]
    values = (_length(group, name, default=_ANGSTROM_M) for group, name in places)
    return next((value for value in values if value), None)


def _length(group: Any, name: str, default: float = 1.0) -> float | None:
    """A length in metres; `default` is the unit of one that says none."""
    value = _number(group, name)
    if value is None:
        return None
    unit = _text(group[name].attrs.get("units", "")).strip().lower()
    return value * _METRES.get(unit, default)


def _number(group: Any, name: str) -> float | None:
    try:
        value = np.asarray(group[name][()], np.float64)
    except (KeyError, OSError, TypeError, ValueError):
        return None
    if value.size != 1 or not np.isfinite(value).all() or value.flat[0] <= 0:
        return None
    number = float(value.flat[0])
    return number


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        value = value.flat[0] if value.size else ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
