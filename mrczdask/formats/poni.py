"""PONI files of pyFAI, and the detectors among them whose pixels stand in even rows across the beam.

Their shapes, pixels and gaps are in tables here; whatever else a file says is left to pyFAI.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class _Family:
    """Detectors of equal modules: pixels of a module and of a gap (y, x), side of a pixel in metres, and which columns
    from the middle of a module on are no pixels of their own."""

    module: tuple[int, int]
    gap: tuple[int, int]
    pixel: float
    middle: tuple[int, int] = (0, 0)


_EIGER: Final = _Family((514, 1030), (37, 10), 75e-6)
_EIGER2: Final = _Family((512, 1028), (38, 12), 75e-6)
_EIGER2_CDTE: Final = _Family((512, 1028), (38, 12), 75e-6, (-1, 1))
_PILATUS: Final = _Family((195, 487), (17, 7), 172e-6)
_PILATUS_CDTE: Final = _Family((195, 487), (17, 7), 172e-6, (-1, 2))

_MODELS: Final[Mapping[str, tuple[_Family, tuple[int, int]]]] = {
    "eiger500k": (_EIGER, (1, 1)),
    "eiger1m": (_EIGER, (2, 1)),
    "eiger4m": (_EIGER, (4, 2)),
    "eiger9m": (_EIGER, (6, 3)),
    "eiger16m": (_EIGER, (8, 4)),
    "eiger2500k": (_EIGER2, (1, 1)),
    "eiger21m": (_EIGER2, (2, 1)),
    "eiger24m": (_EIGER2, (4, 2)),
    "eiger29m": (_EIGER2, (6, 3)),
    "eiger216m": (_EIGER2, (8, 4)),
    "eiger2cdte500k": (_EIGER2_CDTE, (1, 1)),
    "eiger2cdte1m": (_EIGER2_CDTE, (2, 1)),
    "eiger2cdte4m": (_EIGER2_CDTE, (4, 2)),
    "eiger2cdte9m": (_EIGER2_CDTE, (6, 3)),
    "eiger2cdte16m": (_EIGER2_CDTE, (8, 4)),
    "pilatus100k": (_PILATUS, (1, 1)),
    "pilatus200k": (_PILATUS, (2, 1)),
    "pilatus300k": (_PILATUS, (3, 1)),
    "pilatus1m": (_PILATUS, (5, 2)),
    "pilatus2m": (_PILATUS, (8, 3)),
    "pilatus6m": (_PILATUS, (12, 5)),
    "pilatuscdte300k": (_PILATUS_CDTE, (3, 1)),
    "pilatuscdte1m": (_PILATUS_CDTE, (5, 2)),
    "pilatuscdte2m": (_PILATUS_CDTE, (8, 3)),
}
"""Modules (y, x) of the detectors of Dectris, by the names of pyFAI in small letters without blanks."""

_DECTRIS: Final[Mapping[str, float]] = {"dummy": -2.0, "delta_dummy": 1.5}
"""Marks of invalid pixels that pyFAI has for all of them."""
_ANY: Final = "detector"
"""Name of a detector that is described by its configuration alone."""
FIRST_PIXEL_FIRST: Final = (0, 3)
"""Orientations of a detector in which rows and columns are counted as they are stored."""
_NUMBERS: Final = ("Distance", "Poni1", "Poni2", "Rot1", "Rot2", "Rot3")
_KNOWN: Final = ("pixel1", "pixel2", "max_shape", "orientation", "sensor")


@dataclass(frozen=True)
class FlatPoni:
    """A flat detector across the beam: `shape` is None where the file does not say it."""

    shape: tuple[int, int] | None
    mask: NDArray[np.bool_] | None
    distance_m: float
    pixel_size_m: tuple[float, float]
    poni_m: tuple[float, float]
    wavelength_m: float | None
    detector: str = ""
    dummy: float | None = None
    delta_dummy: float | None = None


def flat_poni(text: str) -> FlatPoni | None:
    """What a PONI file says of a flat detector across the beam; None where it is not one, or one not known here."""
    said = _entries(text)
    try:
        if float(said["poni_version"]) < 2 or _truth(said.get("parallax", "")):
            return None
        if any(float(said[f"rot{k}"]) for k in (1, 2, 3)):
            return None
        config = json.loads(said["detector_config"])
        if {name for name, value in config.items() if value is not None} - set(_KNOWN):
            return None
        if int(config.get("orientation") or 0) not in FIRST_PIXEL_FIRST:
            return None
        found = _detector(said["detector"], config)
        if found is None:
            return None
        shape, mask, sizes = found
        return FlatPoni(
            shape=shape,
            mask=mask,
            distance_m=float(said["distance"]),
            pixel_size_m=sizes,
            poni_m=(float(said["poni1"]), float(said["poni2"])),
            wavelength_m=float(said["wavelength"]) if said.get("wavelength", "None") != "None" else None,
            detector=said["detector"],
            **({} if mask is None else _DECTRIS),
        )
    except (LookupError, ValueError, TypeError, AttributeError):
        return None  # pyFAI says what is wrong, or knows better


def poni_fault(text: str) -> str:
    """What a file lacks that every PONI file says, or which of its numbers is none; empty for JSON too."""
    if text.lstrip().startswith("{"):
        return ""
    said = _entries(text)
    for key in _NUMBERS:
        value = said.get(key.lower())
        if value is None:
            return f"it does not say {key}"
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            return f"{key} is {value[:40]!r}: give a number"
    return ""


def _entries(text: str) -> dict[str, str]:
    """Keys in small letters; a file grows by one calibration after another, and the last one counts."""
    lines = (line.partition(":") for line in text.splitlines() if not line.lstrip().startswith("#"))
    return {key.strip().lower(): value.strip() for key, colon, value in lines if colon}


def _truth(value: str) -> bool:
    return value.lower() not in ("", "none", "false", "0")


def _detector(
    name: str, config: Mapping[str, Any]
) -> tuple[tuple[int, int] | None, NDArray[np.bool_] | None, tuple[float, float]] | None:
    """(shape, mask, pixel sizes) of a known detector."""
    key = "".join(name.lower().split()).replace("_", "").replace("-", "")
    said = config.get("max_shape")
    shape = None if said is None else (int(said[0]), int(said[1]))
    if key == _ANY:
        return shape, None, (float(config["pixel1"]), float(config["pixel2"]))
    if key not in _MODELS:
        return None
    family, modules = _MODELS[key]
    own = tuple(n * m + (n - 1) * g for n, m, g in zip(modules, family.module, family.gap, strict=True))
    sizes = float(config.get("pixel1") or family.pixel), float(config.get("pixel2") or family.pixel)
    if shape not in (None, own) or sizes != (family.pixel, family.pixel):
        return None
    return (own[0], own[1]), _gaps((own[0], own[1]), family), sizes


def _gaps(shape: tuple[int, int], family: _Family) -> NDArray[np.bool_]:
    rows, columns = (np.arange(n) % (m + g) >= m for n, m, g in zip(shape, family.module, family.gap, strict=True))
    place = np.arange(shape[1]) % (family.module[1] + family.gap[1]) - family.module[1] // 2
    columns |= (place >= family.middle[0]) & (place < family.middle[1])
    bad: NDArray[np.bool_] = rows[:, None] | columns[None, :]
    return bad
