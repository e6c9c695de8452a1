"""What EPU says of an exposure: the XML beside its files, and the names of the files.

`FoilHole_<hole>_Data_<...>_<date>_<time>_fractions.tiff` (or `_EER.eer`, `_fractions.mrc`) is the movie, the same name
with `_gain` its gain reference and with `.xml` alone what the microscope was set to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.formats.facts import (
    ANGSTROM_PER_M,
    KV_PER_V,
    Facts,
    credible,
    datetime64,
    parse_time,
    pixel_size_attrs,
    utc_offset,
)

SUFFIX: Final = ".xml"
_MOVIE: Final = re.compile(r"(?P<stem>.+?)(?:_(?:fractions|eer))?\.(?:tiff?|mrcs?|eer)$", re.I)
_GAIN: Final = re.compile(r"(?P<stem>.+)_gain\.(?:tiff?|mrcs?|gain)$", re.I)
_NAME: Final = re.compile(r"FoilHole_.*_(\d{8})_(\d{6})(?:_|\.|$)")
_UM_PER_M: Final = 1e6


def movie_stem(name: str) -> str | None:
    """The name of an exposure from that of its movie: without `_fractions` or `_EER` and the suffix."""
    match = _MOVIE.fullmatch(name)
    return match["stem"] if match else None


def gain_stem(name: str) -> str | None:
    """The name of an exposure from that of the gain reference beside it; None for other files."""
    match = _GAIN.fullmatch(name)
    return match["stem"] if match else None


def name_time(name: str) -> np.datetime64 | None:
    """The time of acquisition in a name that EPU gave, by the clock of the microscope."""
    match = _NAME.search(name)
    if match is None:
        return None
    try:
        return datetime64(datetime.strptime("".join(match.groups()), "%Y%m%d%H%M%S"))
    except ValueError:
        return None


def parse_epu(raw: bytes, n_frames: int) -> Facts:
    """Read the XML of an exposure.

    Parameters
    ----------
    raw : bytes
        The file.
    n_frames : int
        Frames of the movie.

    Returns
    -------
    Facts
        Along `frame`: `dose` (e/angstrom^2 at the end of each frame) and `time` (s, start of each). Attributes: pixel
        size, voltage, exposure time, magnification, defocus. `acquired` by the clock of the microscope, and its
        offset to UTC for the session. Empty, with a note, where the file is no XML.
    """
    try:
        root = ElementTree.fromstring(raw)
    except (ElementTree.ParseError, ValueError) as error:
        return Facts(notes=(f"the XML file beside the movie cannot be read: {error}",))
    custom = dict(_custom(root))
    sides = (_number(root, "SpatialScale", "pixelSize", side, "numericValue") for side in "xy")
    attrs: dict[str, Any] = pixel_size_attrs(*sides)
    numbers = {
        schema.VOLTAGE: (_number(root, "gun", "AccelerationVoltage"), KV_PER_V),
        "exposure_time_s": (_number(root, "camera", "ExposureTime"), 1.0),
        "magnification": (_number(root, "TemMagnification", "NominalMagnification"), 1.0),
        "defocus_um": (_number(root, "optics", "Defocus"), _UM_PER_M),
    }
    for name, (value, factor) in numbers.items():
        known = credible(name, None if value is None else value * factor)
        attrs |= {name: float(f"{known:.7g}")} if known else {}
    per_frame: dict[str, NDArray[np.float64]] = {}
    dose = credible(schema.DOSE, _scaled(custom.get("Dose"), ANGSTROM_PER_M**-2))
    if dose:  # e/m^2 in the file
        per_frame[schema.DOSE] = np.arange(1.0, n_frames + 1) * (dose / n_frames)
    seconds = credible(schema.TIME, attrs.get("exposure_time_s"))
    if seconds:
        per_frame[schema.TIME] = np.linspace(0.0, seconds, n_frames, endpoint=False)
    when = _text(root, "acquisition", "acquisitionDateTime")
    offset = utc_offset(when)
    session = {} if offset is None else {schema.UTC_OFFSET: offset}
    return Facts(per_frame, attrs, acquired=parse_time(when), session=session)


def _local(element: ElementTree.Element) -> str:
    """The name of an element without its namespace, of which EPU has had several."""
    return element.tag.rpartition("}")[2]


def _find(root: ElementTree.Element, *path: str) -> ElementTree.Element | None:
    """The element at the end of a path that begins anywhere."""
    for start in root.iter():
        if _local(start) != path[0]:
            continue
        place: ElementTree.Element | None = start
        for name in path[1:]:
            place = None if place is None else next((child for child in place if _local(child) == name), None)
        if place is not None:
            return place
    return None


def _text(root: ElementTree.Element, *path: str) -> str | None:
    found = _find(root, *path)
    return None if found is None else (found.text or "").strip()


def _number(root: ElementTree.Element, *path: str) -> float | None:
    return _scaled(_text(root, *path), 1.0)


def _scaled(text: str | None, factor: float) -> float | None:
    number = credible("", text)
    return None if number is None else number * factor


def _custom(root: ElementTree.Element) -> Iterator[tuple[str, str]]:
    """Keys and values of CustomData."""
    for data in root.iter():
        if _local(data) != "CustomData":
            continue
        for pair in data:
            parts = {_local(part): (part.text or "").strip() for part in pair}
            if "Key" in parts and "Value" in parts:
                yield parts["Key"], parts["Value"]
