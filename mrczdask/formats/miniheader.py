"""The text in which DECTRIS's detectors say what they know, in CBF and TIFF files: lines of `# Name value unit`."""

from __future__ import annotations

import re
from typing import Any, Final

_PATTERNS: Final = {
    "beam_xy": re.compile(r"Beam_xy\s*\(([\d.+-]+),\s*([\d.+-]+)\)"),
    "pixel": re.compile(r"Pixel_size\s*([\d.eE+-]+)\s*m\s*x\s*([\d.eE+-]+)\s*m"),
    "distance_m": re.compile(r"Detector_distance\s*([\d.eE+-]+)\s*m\b"),
    "wavelength": re.compile(r"Wavelength\s*([\d.eE+-]+)\s*A"),
    "saturation_value": re.compile(r"Count_cutoff\s*(\d+)\s*counts"),
    "count_time_s": re.compile(r"Exposure_time\s*([\d.eE+-]+)\s*s\b"),
}
PILATUS_MARKS: Final = {"dummy": -2, "delta_dummy": 1.5}
"""Pilatus marks gaps with -1 and bad pixels with -2; these values take both, as pyFAI does."""
_DETECTORS: Final = re.compile(r"pilatus|eiger|mythen|dectris", re.IGNORECASE)


def parse_miniheader(text: str) -> dict[str, Any]:
    """Attributes of the frames."""
    found = {name: match for name, pattern in _PATTERNS.items() if (match := pattern.search(text))}
    attrs: dict[str, Any] = {}
    for name, match in found.items():
        numbers = [float(number) for number in match.groups()]
        if name == "beam_xy":
            attrs["beam_center"] = numbers[::-1]
        elif name == "pixel":
            attrs["pixel_size_m"] = numbers[::-1]
        elif name == "wavelength":
            attrs["wavelength_m"] = numbers[0] * 1e-10
        else:
            attrs[name] = numbers[0]
    return attrs


def is_dectris(*texts: str) -> bool:
    """Whether a text names one of the detectors that mark pixels of signed frames with -1 and -2."""
    return any(_DETECTORS.search(text) for text in texts)
