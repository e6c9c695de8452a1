"""Names of the columns of sparse frames."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from mrczdask.io.ragged import Layout
from mrczdask.io.validity import INVALID, PANELS, SATURATION, UNDERLOAD

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


def masked_value(dtype: np.dtype[Any], dummy: float) -> float:
    """What masked pixels hold: the dummy, or where there is none NaN, -1, or the largest value of unsigned integers."""
    if dtype.kind == "f" or not np.isnan(dummy):
        return dummy
    return float(np.iinfo(dtype).max) if dtype.kind == "u" else -1.0


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
