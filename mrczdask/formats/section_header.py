"""SERI and AGAR extended headers: a few numbers a section, laid out as NINT and NREAL of the header say."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.formats.facts import KV_PER_V, Facts, accumulated_dose, credible, credible_along, pixel_size_attrs

SERI_FIELDS: Final = (
    # bit, shorts, names along `frame`, factor
    (1, 1, (schema.TILT,), 0.01),  # deg
    (2, 3, ("piece_x", "piece_y", "piece_z"), 1.0),  # montage: pixel, pixel, section
    (4, 2, ("stage_x_um", "stage_y_um"), 0.04),
    (8, 1, ("magnification",), 100.0),
    (16, 1, ("intensity",), 1 / 25_000),
    (32, 2, (schema.DOSE,), 1.0),  # e/angstrom^2, of the image
)
"""Short integers that SerialEM writes a section, by bit of NREAL (IMOD's description of the MRC format)."""
SERI_FLOAT: Final = 32
"""The bit whose two shorts are one float."""
_SERI_RESERVED: Final = {64: 1, 128: 2, 256: 1, 512: 2, 1024: 1}
"""Shorts taken by the bits whose meaning is not given."""
_SERI_BITS: Final = 1 << 11
_MAX_TILT: Final = 180.0
_MAX_PIXEL_ANGSTROM: Final = 1e5
"""Pixels of the lowest magnifications are some micrometres wide."""

AGAR_BYTES: Final = 128
AGAR_TILT: Final = 0
AGAR_ATTRS: Final = (
    # name, place among the reals, factor
    ("exposure_time_s", 8, 1.0),
    ("tilt_axis_angle_deg", 10, 1.0),
    ("magnification", 12, 1.0),
    (schema.VOLTAGE, 13, KV_PER_V),
)
AGAR_PIXEL_SIZE: Final = 11
"""Places of float32 among the reals of a section (Agard; FEI tomography software before 2014): deg, ..., m."""


def is_seri(nint: int, nreal: int, size: int, n_frames: int) -> bool:
    """Whether NINT and NREAL are SerialEM's bytes and bits of a section, for as many sections as `size` bytes hold.

    Files older than EXTTYP are known so, as by IMOD; other programs keep numbers of their own in the two fields.
    """
    return 0 < nreal < _SERI_BITS and nint == 2 * _shorts(nreal) and size >= nint * n_frames


def is_agar(raw: bytes, byte_order: str, nint: int, nreal: int) -> bool:
    """Whether an extended header without EXTTYP holds the 32 floats a section of FEI, by what they say."""
    if nint != 0 or nreal not in (0, AGAR_BYTES // 4) or len(raw) < AGAR_BYTES:
        return False
    first = np.frombuffer(raw, byte_order + "f4", count=AGAR_BYTES // 4).astype(np.float64)
    tilt, pixel = first[AGAR_TILT], pixel_size_attrs(first[AGAR_PIXEL_SIZE], None)
    if not np.isfinite(first[: AGAR_PIXEL_SIZE + 3]).all() or abs(tilt) > _MAX_TILT:
        return False
    return bool(pixel) and 0 < pixel[schema.PIXEL_SIZE] < _MAX_PIXEL_ANGSTROM


def _shorts(nreal: int) -> int:
    """Shorts of a section by the bits of NREAL."""
    shorts = sum(count for bit, count, _, _ in SERI_FIELDS if nreal & bit)
    return shorts + sum(count for bit, count in _SERI_RESERVED.items() if nreal & bit)


def parse_seri(raw: bytes, byte_order: str, n_frames: int, nint: int, nreal: int) -> Facts:
    """Read SerialEM's shorts: the bits of NREAL say which a section has, NINT how many bytes they are."""
    shorts = _shorts(nreal)
    if nint <= 0 or nreal <= 0 or 2 * shorts != nint:
        note = f"NINT = {nint} and NREAL = {nreal} do not describe SerialEM's records: the extended header is not read"
        return Facts(notes=(note,))
    if len(raw) // nint < n_frames:
        note = f"the SERI extended header has {len(raw) // nint} records for {n_frames} frames: not read"
        return Facts(notes=(note,))
    table = np.frombuffer(raw, byte_order + "i2", count=n_frames * shorts).reshape(n_frames, shorts)
    per_frame: dict[str, NDArray[np.float64]] = {}
    place = 0
    for bit, count, names, factor in SERI_FIELDS:
        if not nreal & bit:
            continue
        columns = table[:, place : place + count].astype(np.float64)
        place += count
        if bit == SERI_FLOAT:
            columns = serialem_float(columns[:, 0], columns[:, 1])[:, None]
        for k, name in enumerate(names):
            values = credible_along(name, columns[:, k] * factor)
            if values is not None:
                per_frame[name] = values
    dose = accumulated_dose(per_frame.pop(schema.DOSE, np.full(n_frames, np.nan)))
    if dose is not None:
        per_frame[schema.DOSE] = dose
    return Facts(per_frame, _constant(per_frame, "magnification"))


def serialem_float(high: NDArray[np.float64], low: NDArray[np.float64]) -> NDArray[np.float64]:
    """SerialEM's float of two shorts: sign(s1) (256 |s1| + |s2| % 256) 2**(sign(s2) (|s2| // 256))."""
    exponent, rest = np.divmod(np.abs(low), 256)
    value: NDArray[np.float64] = np.copysign(256 * np.abs(high) + rest, high) * np.exp2(np.copysign(exponent, low))
    return value


def _constant(per_frame: dict[str, NDArray[np.float64]], name: str) -> dict[str, Any]:
    """Make an attribute of a coordinate that is the same for all frames."""
    values = per_frame.get(name)
    if values is None or not (values == values[0]).all():
        return {}
    return {name: float(per_frame.pop(name)[0])}


def parse_agar(raw: bytes, byte_order: str, n_frames: int, nint: int, nreal: int) -> Facts:
    """Read `nint` int32 and `nreal` float32 a section; 32 floats where the header does not say."""
    if nint < 0 or nreal <= 0:
        nint, nreal = 0, AGAR_BYTES // 4
    words = nint + nreal
    records = len(raw) // (4 * words)
    if records < n_frames:
        return Facts(notes=(f"the AGAR extended header has {records} records for {n_frames} frames: not read",))
    table = np.frombuffer(raw, byte_order + "f4", count=n_frames * words).reshape(n_frames, words)
    with np.errstate(invalid="ignore"):
        reals = table[:, nint:].astype(np.float64)
    tilt = credible_along(schema.TILT, reals[:, AGAR_TILT])
    attrs: dict[str, Any] = pixel_size_attrs(reals[0, AGAR_PIXEL_SIZE], None) if nreal > AGAR_PIXEL_SIZE else {}
    for name, place, factor in AGAR_ATTRS:
        value = credible(name, reals[0, place] * factor) if nreal > place else None
        attrs |= {name: value} if value else {}
    return Facts({} if tilt is None else {schema.TILT: tilt}, attrs)
