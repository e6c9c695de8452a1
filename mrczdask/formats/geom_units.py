"""Lengths, energies and voltages of CrystFEL geometry files: numbers with units, or places in the data files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from mrczdask.errors import MrcFormatError

PLANCK_EV_M: Final = 1.23984198e-6
"""h c in eV m (CODATA 2018)."""
ELECTRON_REST_EV: Final = 510998.95
"""m c^2 of an electron (CODATA 2018)."""
_METRES: Final = {"m": 1.0, "mm": 1e-3}
_SCALES: Final = {
    "clen": _METRES,
    "detector_shift_x": _METRES,
    "detector_shift_y": _METRES,
    "wavelength": {"m": 1.0, "A": 1e-10},
    "photon_energy": {"eV": 1.0, "keV": 1e3, "MeV": 1e6},
    "electron_voltage": {"V": 1.0, "kV": 1e3},
}
"""Units of CrystFEL, as it spells them, in metres, eV or V."""
_WITHOUT: Final = {"clen": "m", "detector_shift_x": "m", "detector_shift_y": "m", "photon_energy": "eV"}
"""Unit of a number that has none; the others must have one."""
_PLACE_WITHOUT: Final = _WITHOUT | {"clen": "mm"}
"""Unit of what stands in the data files: crystfel_geometry(5), "for historical reasons"."""
_BEAM: Final = ("wavelength", "photon_energy", "electron_voltage")
_GLUED: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[A-Za-zµ]+")


@dataclass(frozen=True)
class Quantity:
    """A length, energy or voltage: a number, or a place in the data files; `scale` makes it metres, eV or V."""

    key: str
    number: float | None
    place: str
    scale: float

    @property
    def value(self) -> float | None:
        """In metres, eV or V; None where the data files tell it."""
        return None if self.number is None else self.number * self.scale


def length_of(said: Mapping[str, str], key: str) -> float | None:
    """In metres; None where it is a place in the data files."""
    found = quantity(said, key)
    return None if found is None else found.value


def quantity(said: Mapping[str, str], key: str) -> Quantity | None:
    """What a file says of a length, an energy or a voltage; None where it says nothing."""
    words = said.get(key, "").split()
    if not words:
        return None
    number = float(words[0]) if is_number(words[0]) else None
    if number is None and _GLUED.fullmatch(words[0]):
        raise MrcFormatError(f"{key} = {' '.join(words)}: put a blank between the number and its unit")
    if number is not None and not np.isfinite(number):
        raise MrcFormatError(f"{key} = {' '.join(words)}: give a finite number")
    scales = _SCALES[key]
    unit = " ".join(words[1:]) or (_WITHOUT if number is not None else _PLACE_WITHOUT).get(key, "")
    if unit not in scales:
        known = f"CrystFEL knows {', '.join(scales)}"
        wrong = f"the unit {unit} is not one of CrystFEL's" if unit else "the unit is missing"
        raise MrcFormatError(f"{key} = {' '.join(words)}: {wrong}: {known}")
    return Quantity(key, number, "" if number is not None else words[0], scales[unit])


def offset_of(text: str) -> float:
    """`coffset` in metres: CrystFEL reads the number and drops a unit."""
    if not is_number(text) or text.split()[1:] not in ([], ["m"]):
        raise MrcFormatError(f"coffset = {text}: give a number of metres")
    return float(text.split()[0])


def beam_of(common: Mapping[str, str]) -> Quantity | None:
    """The wavelength, photon energy or voltage; the last one counts."""
    found = [quantity(common, key) for key in common if key in _BEAM]
    return found[-1] if found else None


def wavelength_of(key: str, value: float) -> float:
    """In metres, of a wavelength (m), a photon energy (eV) or a voltage (V).

    Raises
    ------
    MrcFormatError
        The number cannot be one.
    """
    if not (np.isfinite(value) and value > 0):
        raise MrcFormatError(f"{key} is {value:g}: it must be above 0")
    if key == "wavelength":
        return value
    if key == "photon_energy":
        return PLANCK_EV_M / value
    return float(PLANCK_EV_M / np.sqrt(value * (value + 2 * ELECTRON_REST_EV)))


def is_number(text: str) -> bool:
    try:
        float(text.split()[0])
    except (ValueError, IndexError):
        return False
    return True
