"""Which pixels of frames count in a verb: what the frames, the detector and the options say, together."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xarray as xr

from mrczdask.diffraction.checks import number
from mrczdask.errors import AmbiguousFileWarning
from mrczdask.io.geometry import Geometry
from mrczdask.io.validity import (
    ATTRIBUTES,
    DELTA,
    DUMMY,
    UNDERLOAD,
    Judge,
    Validity,
    dtype_rule,
    judge,
    marks,
    validity_of,
)

GAIN: Final = "counts_per_photon"


@dataclass(frozen=True)
class Counts:
    """The rule of a verb; masked pixels hold the `dummy`, NaN for none; `is_given` where the caller said it."""

    rule: Validity
    dummy: float
    delta: float
    is_given: bool

    def judge(self, images: xr.DataArray) -> Judge:
        """The rule ready for the pixels of frames."""
        return judge(self.rule, images.dtype, _plane(images), is_known=self.is_given)

    def attrs(self) -> dict[str, Any]:
        """From which `judge_of` makes it again."""
        return {DUMMY: math.nan, DELTA: 0.0} | self.rule.attrs(self.dummy, self.delta)


def counts_of(images: xr.DataArray, geometry: Geometry, dummy: float | None, delta: float | None) -> Counts:
    """What counts in frames on a detector.

    Bounds of the frames and flags of the geometry always hold. A dummy given stands for the dummy of the frames, and
    that for the marks of the detector, which are also none where the frames say from which number on they are counts.
    """
    said = images.attrs
    rule = validity_of({name: value for name, value in said.items() if name not in (DUMMY, DELTA)})
    rule = rule.merged(geometry.validity).merged(dtype_rule(images.dtype))
    given = dummy is not None
    value, around = math.nan if dummy is None else float(dummy), delta
    if dummy is None or dummy == said.get(DUMMY):
        value = said.get(DUMMY, math.nan) if dummy is None else value
        around = said.get(DELTA) if delta is None else delta
    if not given and math.isnan(value) and geometry.marks is not None and not _states_lowest(said, images.dtype):
        value, own = geometry.marks.of(images.dtype)
        around = own if delta is None else delta
        _warn_of_counts(geometry.marks.detector, value, own, images.dtype)
    around = number("delta_dummy", around or 0.0)
    rule = rule.merged(Validity(holes=tuple(marks(value, around))))
    return Counts(rule, value, around, given)


def judge_of(attrs: Mapping[str, Any], images: xr.DataArray) -> Judge:
    """The rule that a background or sparse frames were made with, for their frames."""
    rule = validity_of(attrs).merged(dtype_rule(images.dtype))
    return judge(rule, images.dtype, _plane(images), is_known=True)


def without_rule(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes without those that say what a count is."""
    return {name: value for name, value in attrs.items() if name not in ATTRIBUTES}


def gain_of(attrs: Mapping[str, Any], geometry: Geometry | None = None) -> float:
    """Counts of a photon: as the frames say it, or the geometry; else 1."""
    said = attrs.get(GAIN)
    if said is None and geometry is not None:
        said = geometry.counts_per_photon
    gain = 1.0 if said is None else float(said)
    return gain if 0 < gain < math.inf else 1.0


def _plane(images: xr.DataArray) -> tuple[int, int]:
    return int(images.shape[-2]), int(images.shape[-1])


def _states_lowest(said: Mapping[str, Any], dtype: np.dtype[Any]) -> bool:
    return dtype.kind != "u" and UNDERLOAD in said


def _warn_of_counts(detector: str, dummy: float, delta: float, dtype: np.dtype[Any]) -> None:
    """Say where the marks of a detector may be counts or noise."""
    is_noisy = dummy < 0 and "jungfrau" in detector.lower()
    if dummy == 0 or is_noisy:
        what = "pixels without a photon" if dummy == 0 else f"numbers from {dummy - delta:g} to {dummy + delta:g}"
        warnings.warn(
            f"{detector}: {what} are left out, as pyFAI does for this detector: give dummy=nan to count them",
            AmbiguousFileWarning,
            stacklevel=4,
        )
