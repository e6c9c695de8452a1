"""FEI1 and FEI2 extended headers (Thermo Fisher): one record a frame."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.formats.facts import (
    ANGSTROM_PER_M,
    KV_PER_V,
    Facts,
    accumulated_dose,
    credible,
    credible_along,
    datetime64,
    pixel_size_attrs,
)

FEI_BYTES: Final = {"FEI1": 768, "FEI2": 888}
MAX_FEI_BYTES: Final = 1 << 16
"""A record that says it is larger is taken for corrupt."""
_MASKS: Final = (8, 297, 490, 748)
"""Offsets of the bit masks that say which fields a record fills."""
FEI_FIELDS: Final = (
    # name, type, offset, bit mask, bit
    ("timestamp", "f8", 12, 0, 0),  # days since 1899-12-30
    ("microscope", "S16", 20, 0, 1),
    ("application", "S16", 52, 0, 3),
    ("application_version", "S16", 68, 0, 4),
    ("high_tension", "f8", 84, 0, 5),  # V
    ("dose", "f8", 92, 0, 6),  # e/m^2, of the image
    ("alpha_tilt", "f8", 100, 0, 7),  # deg
    ("tilt_axis_angle", "f8", 140, 0, 12),  # deg
    ("pixel_size_x", "f8", 156, 0, 14),  # m
    ("pixel_size_y", "f8", 164, 0, 15),
    ("defocus", "f8", 220, 0, 22),  # m
    ("magnification", "f8", 289, 0, 31),
    ("integration_time", "f8", 419, 1, 16),  # s
    ("camera", "S16", 435, 1, 19),
    ("electron_counting", "?", 472, 1, 26),
    ("stem_detector", "S16", 519, 2, 7),
    ("dwell_time", "f8", 571, 2, 15),  # s
    ("frame_time", "f8", 579, 2, 16),  # s
    ("input_stack", "S80", 668, 2, 31),
)
"""Fields of an FEI1 record that are read; FEI2 has the same and more. MRC2014 extended header of Thermo Fisher."""
FEI_EPOCH: Final = datetime(1899, 12, 30)


def parse_fei(raw: bytes, byte_order: str, n_frames: int, size: int) -> Facts:
    """Read the records of `n_frames` frames; `size` is the length of a record that does not say its own.

    `dose` is accumulated in the order of the timestamps: a record holds the dose of its own image.
    """
    records = _records(raw, byte_order, n_frames, size)
    filled = {
        name: (records[f"mask{mask}"] >> np.uint32(bit) & np.uint32(1)).astype(bool)
        for name, _, _, mask, bit in FEI_FIELDS
    }
    first = {name: records[name][0] for name, has in filled.items() if len(records) and has[0]}
    if not any(has.any() for has in filled.values()):
        return Facts(notes=("the FEI extended header has no record with a filled field",))
    attrs = _attrs(first)
    moments = _moments(records["timestamp"], filled["timestamp"])
    known = [moment for moment in moments if moment is not None]
    acquired = datetime64(min(known)) if known else None
    if len(records) < n_frames:
        note = f"the FEI extended header has {len(records)} records for {n_frames} frames: no coordinates along frame"
        return Facts(attrs=attrs, acquired=acquired, notes=(note,))
    return Facts(per_frame=_along(records, filled, moments), attrs=attrs, acquired=acquired)


def _dtype(order: str, size: int) -> np.dtype[Any]:
    names = [name for name, *_ in FEI_FIELDS] + ["size"] + [f"mask{k}" for k in range(len(_MASKS))]
    formats = [order + kind if kind[0] not in "S?" else kind for _, kind, *_ in FEI_FIELDS]
    formats += [order + "i4"] + [order + "u4"] * len(_MASKS)
    offsets = [offset for _, _, offset, *_ in FEI_FIELDS] + [0, *_MASKS]
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})


def _records(raw: bytes, byte_order: str, n_frames: int, size: int) -> NDArray[np.void]:
    """The records of the frames: the first four bytes of the first one say how long each is."""
    for order in (byte_order, ">" if byte_order == "<" else "<"):
        said = int(np.frombuffer(raw[:4].ljust(4, b"\x00"), order + "i4")[0])
        if FEI_BYTES["FEI1"] <= said <= min(MAX_FEI_BYTES, len(raw)):
            size, byte_order = said, order
            break
    return np.frombuffer(raw, _dtype(byte_order, size), count=min(n_frames, len(raw) // size))


def _attrs(first: Mapping[str, Any]) -> dict[str, Any]:
    attrs: dict[str, Any] = {}
    kv = credible(schema.VOLTAGE, abs(first["high_tension"]) * KV_PER_V) if "high_tension" in first else None
    if kv is not None:
        attrs[schema.VOLTAGE] = kv
    attrs |= pixel_size_attrs(first.get("pixel_size_x"), first.get("pixel_size_y"))
    numbers = {
        "tilt_axis_angle": ("tilt_axis_angle_deg", 1.0),
        "defocus": ("defocus_um", 1e6),
        "magnification": ("magnification", 1.0),
        "integration_time": ("exposure_time_s", 1.0),
        "dwell_time": ("dwell_time_s", 1.0),
        "frame_time": ("frame_time_s", 1.0),
    }
    for name, (key, factor) in numbers.items():
        value = credible(key, first[name]) if name in first else None
        if value:
            attrs[key] = value * factor
    for name in ("microscope", "application", "application_version", "camera", "stem_detector", "input_stack"):
        text = first.get(name, b"").split(b"\x00")[0].decode("latin-1").strip()
        if text:
            attrs[name] = text
    if "electron_counting" in first:
        attrs["electron_counting"] = bool(first["electron_counting"])
    return attrs


def _moments(days: NDArray[np.float64], filled: NDArray[np.bool_]) -> list[datetime | None]:
    """The timestamps as moments, None where they are no date of an electron microscope with a computer."""
    low, high = ((datetime(year, 1, 1) - FEI_EPOCH) / timedelta(days=1) for year in (1980, 2200))
    with np.errstate(invalid="ignore"):
        good = filled & (days >= low) & (days < high)
    return [FEI_EPOCH + timedelta(days=float(day)) if ok else None for day, ok in zip(days, good, strict=True)]


def _along(
    records: NDArray[np.void], filled: Mapping[str, NDArray[np.bool_]], moments: list[datetime | None]
) -> dict[str, NDArray[np.float64]]:
    per_frame: dict[str, NDArray[np.float64]] = {}
    tilt = credible_along(schema.TILT, np.where(filled["alpha_tilt"], records["alpha_tilt"], np.nan))
    if tilt is not None:
        per_frame[schema.TILT] = tilt
    order = None
    known = [moment for moment in moments if moment is not None]
    if len(known) == len(moments):
        seconds = np.array([(moment - min(known)).total_seconds() for moment in known])
        order = np.argsort(seconds, kind="stable").tolist()
        if seconds.any():  # the fractions of one exposure all carry its own timestamp
            per_frame[schema.TIME] = seconds
    with np.errstate(invalid="ignore", over="ignore"):
        each = np.where(filled["dose"], records["dose"] / ANGSTROM_PER_M**2, np.nan)
    dose = accumulated_dose(each, order=order)
    if dose is not None:
        per_frame[schema.DOSE] = dose
    return per_frame
