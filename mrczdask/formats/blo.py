"""Header of a NanoMEGAS block file (.blo): scanned diffraction patterns of one byte a pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from mrczdask.errors import MrcFormatError

MAGIC: Final = b"IMGBLO"
VERSIONS: Final = (258, 259)
FRAME_HEAD: Final = 6
"""Bytes before each pattern: a mark and the number of the pattern."""
HEAD: Final = np.dtype(
    [
        ("id", "S6"),
        ("version", "<u2"),
        ("image_offset", "<u4"),
        ("frames_offset", "<u4"),
        ("flags", "<u4"),
        ("side", "<u2"),
        ("pattern_rotation", "<u2"),
        ("nx", "<u2"),
        ("ny", "<u2"),
        ("scan_rotation", "<u2"),
        ("step_x_nm", "<f8"),
        ("step_y_nm", "<f8"),
        ("beam_v", "<u4"),
        ("pixels_per_m", "<u2"),
        ("camera_length_um10", "<u4"),
    ]
)
_MM_PER_UNIT: Final = 0.1
"""The camera length is stored in tenths of a millimetre."""


@dataclass(frozen=True)
class BloHeader:
    """What of the header is used: the scan, the patterns, the microscope."""

    scan: tuple[int, int]
    side: int
    first: int
    step_nm: tuple[float, float]
    voltage_kv: float
    camera_length_mm: float
    pixel_size_m: float | None

    @property
    def frame_bytes(self) -> int:
        return FRAME_HEAD + self.side * self.side

    @property
    def n_frames(self) -> int:
        return self.scan[0] * self.scan[1]


def parse_blo(head: bytes) -> BloHeader:
    """Read the header.

    Raises
    ------
    MrcFormatError
        This is no block file.
    """
    if len(head) < HEAD.itemsize or not head.startswith(MAGIC):
        raise MrcFormatError("the file does not begin with IMGBLO: this is no block file")
    said = np.frombuffer(head, HEAD, 1)[0]
    if said["version"] not in VERSIONS:
        raise MrcFormatError(f"a block file of version {said['version']}: {VERSIONS} are read")
    scan = int(said["ny"]), int(said["nx"])
    if 0 in scan or not said["side"] or said["frames_offset"] < HEAD.itemsize:
        raise MrcFormatError(f"a scan of {scan} with patterns of {said['side']} pixels: the header is corrupt")
    density = float(said["pixels_per_m"])  # hundreds of pixels a centimetre are pixels a metre
    return BloHeader(
        scan=scan,
        side=int(said["side"]),
        first=int(said["frames_offset"]),
        step_nm=(float(said["step_y_nm"]), float(said["step_x_nm"])),
        voltage_kv=float(said["beam_v"]) / 1e3,
        camera_length_mm=float(said["camera_length_um10"]) * _MM_PER_UNIT,
        pixel_size_m=1 / density if density else None,
    )
