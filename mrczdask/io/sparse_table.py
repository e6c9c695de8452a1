"""Names of the columns of sparse frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from mrczdask.io.ragged import Layout
from mrczdask.io.validity import DUMMY, INVALID, PANELS, SATURATION, UNDERLOAD, validity_of

CENTER: Final = ("beam_center_y", "beam_center_x")
"""Coordinates (shot) of what follows the beam of each shot, in pixels from the outer edge of the first."""
SECTOR: Final = "sector"
"""Dim of the background where it is anisotropic; its coordinate is the azimuth of the centres, in degrees."""
AZIMUTH: Final = "pixel_azimuth"
"""Coordinate (y, x) of it: degrees from x towards y, from -180 on."""
EMPTY: Final = "empty_frames"
"""Dataset beside the pointers: frames without a valid pixel, whose background is stored as zeros."""
RESPONSE: Final = "response"
"""Coordinate (y, x) of it: the flat field alone, which does not move with the beam."""


def masked_value(dtype: np.dtype[Any], attrs: Mapping[str, Any]) -> float:
    """What masked pixels hold: the dummy of the attributes, or where there is none a number that is no count.

    NaN, the largest value of unsigned integers, and -1 of signed ones or the least, where -1 is a count.
    """
    dummy = attrs.get(DUMMY)
    if dtype.kind == "f" or not (dummy is None or np.isnan(dummy)):
        return np.nan if dummy is None else dummy
    if dtype.kind == "u":
        return int(np.iinfo(dtype).max)
    return -1 if not validity_of(attrs).lowest < -1 or UNDERLOAD not in attrs else int(np.iinfo(dtype).min)


TABLES: Final = ("background_avg", "background_std")
"""Variables (shot, radius) or (shot, sector, radius)."""
NUMBERS: Final = ("cutoff_clip", "cycle", "noise", "cutoff_pick", "delta_dummy")
LIMITS: Final = (UNDERLOAD, SATURATION, "counts_per_photon")
SETTINGS: Final = (
    "error_model",
    *NUMBERS,
    "unit",
    "polarization",
    "solid_angle",
    "radial_range",
    *LIMITS,
    INVALID,
    PANELS,
)
"""Attributes of sparse frames that files keep in their configuration: what they were made with."""


def sparse_layout(dtype: np.dtype[Any]) -> Layout:
    """Of stored pixels: flat index and intensity."""
    columns = {"index": np.dtype(np.uint32), "intensity": np.dtype(dtype)}
    return Layout(row="pixel", pointer="frame_ptr", count="n_pixels", columns=columns)
