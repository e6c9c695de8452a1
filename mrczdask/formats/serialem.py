"""What SerialEM and IMOD say in titles: labels of MRC files, descriptions of TIFF files, `T` lines of mdoc files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from mrczdask import schema
from mrczdask.formats.mrc_fields import SUPER_RESOLUTION_HALVED, SUPER_RESOLUTION_SLACK

ROTATION_FLIP_NEEDED: Final = "rotation_flip_needed"
TILT_AXIS: Final = "tilt_axis_angle_deg"
ROTATION_FLIPS: Final = range(8)
"""Quarter turns counter-clockwise, and 4 more where left and right are exchanged before."""

_PACKED: Final = re.compile(r"\b4[ -]bits? packed", re.I)
_TURN: Final = re.compile(r"\br/f\s*=?\s*(-?\d+)(?:\s+need\s+(-?\d+))?", re.I)
_AXIS: Final = re.compile(r"\btilt\s*axis\s*(?:rotation\s*)?(?:angle)?\s*=\s*([-+]?\d+(?:\.\d*)?|[-+]?\.\d+)", re.I)


def says_packed(text: str) -> bool:
    """Whether a title says that a byte holds two 4-bit pixels."""
    return _PACKED.search(text) is not None


def is_halved_size(nx: int, ny: int) -> bool:
    """Whether an image of bytes has the size of super-resolution frames of a K2 or K3, two pixels a byte."""
    slack = SUPER_RESOLUTION_SLACK
    return any(abs(nx - w) <= slack and abs(ny - h) <= slack for w, h in SUPER_RESOLUTION_HALVED)


def is_full_size(nx: int, ny: int) -> bool:
    """Whether an image has the size of such frames with a byte a pixel: a title that says packed is an old one."""
    slack = SUPER_RESOLUTION_SLACK
    return any(abs(nx - 2 * w) <= slack and abs(ny - h) <= slack for w, h in SUPER_RESOLUTION_HALVED)


def title_attrs(titles: Iterable[str]) -> dict[str, Any]:
    """What titles say of the turn of the frames and of the tilt axis.

    "r/f 4" says that the frames are turned so, "r/f 0 need 5" that they are as the camera reads them and that the
    turn 5 is still to be made.
    """
    text = "\n".join(titles)
    attrs: dict[str, Any] = {}
    turn = _TURN.search(text)
    if turn and int(turn[1]) in ROTATION_FLIPS:
        attrs[schema.ROTATION_FLIP] = int(turn[1])
        if turn[2] and int(turn[2]) in ROTATION_FLIPS:
            attrs[ROTATION_FLIP_NEEDED] = int(turn[2])
    axis = _AXIS.search(text)
    if axis and abs(float(axis[1])) <= 360:
        attrs[TILT_AXIS] = float(axis[1])
    return attrs
