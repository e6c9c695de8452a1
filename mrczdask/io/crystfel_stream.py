"""CrystFEL streams: the peaks of each frame and whether it was indexed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import xarray as xr

from mrczdask import schema
from mrczdask.errors import MrcFormatError
from mrczdask.io.peak_table import EVENT, EVENT_NAME, FLOATS, IMAGE, PEAKS, peaks_table

_BEGIN: Final = "----- Begin chunk -----"
_END: Final = "----- End chunk -----"
_PEAKS: Final = "Peaks from peak search"
_PEAKS_END: Final = "End of peak list"
_NUMBER: Final = re.compile(r"(?:^|/)(\d+)$")
"""What is behind `//` in an event: the number of the frame in its dataset."""
_HALF: Final = 0.5
"""CrystFEL counts from the outer edge of the first pixel."""
_FIELDS: Final = 4
"""fs, ss, 1/d, intensity."""
_PER_ANGSTROM: Final = 2 * np.pi / 10
"""q in 1/A from 1/d in 1/nm."""


def read_stream(path: str) -> xr.Dataset:
    """Peaks in memory, in the order of the stream; `radius` is q in 1/A.

    Raises
    ------
    MrcFormatError
        The file is no stream, or ends within a frame.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(path)
    counts, rows, images, events, names, indexed = [], [], [], [], [], []
    for chunk in _chunks(path):
        counts.append(len(chunk["peaks"]))
        rows.extend(chunk["peaks"])
        images.append(chunk["image"])
        events.append(chunk["event"])
        names.append(chunk["name"])
        indexed.append(chunk["indexed"])
    table = np.asarray(rows, np.float64).reshape(-1, _FIELDS)
    columns = {name: np.full(len(table), np.nan, np.float32) for name in FLOATS}
    columns["x"], columns["y"] = ((table[:, k] - _HALF).astype(np.float32) for k in (0, 1))
    columns["radius"] = (table[:, 2] * _PER_ANGSTROM).astype(np.float32)
    columns["intensity"] = table[:, 3].astype(np.float32)
    columns |= {name: np.zeros(len(table), PEAKS.columns[name]) for name in ("n_pixels", "index")}
    coords = {
        schema.SHOT: np.arange(len(counts)),
        IMAGE: (schema.SHOT, np.asarray(images, str)),
        EVENT: (schema.SHOT, np.asarray(events, np.int64)),
        EVENT_NAME: (schema.SHOT, np.asarray(names, str)),
        "indexed": (schema.SHOT, np.asarray(indexed, bool)),
    }
    return peaks_table(np.asarray(counts, np.int64), columns, coords, {"radius_unit": "q_A^-1"})


def _chunks(path: str) -> Iterator[dict[str, Any]]:
    """Each frame of a stream: image, event number (-1: the file has one frame), indexed, peaks."""
    chunk: dict[str, Any] | None = None
    in_peaks, number = False, 0
    with open(path, encoding="utf-8", errors="replace") as file:
        if not file.readline().startswith("CrystFEL stream format"):
            raise MrcFormatError("this is no CrystFEL stream", url=path)
        for number, line in enumerate(file, 2):
            text = line.strip()
            if text == _BEGIN:
                chunk, in_peaks = {"image": "", "event": -1, "name": "", "indexed": False, "peaks": []}, False
            elif chunk is None:
                continue
            elif text == _END:
                yield chunk
                chunk = None
            elif text in (_PEAKS, _PEAKS_END):
                in_peaks = text == _PEAKS
            elif in_peaks:
                if not text.startswith("fs/px"):
                    chunk["peaks"].append(_peak(text, path, number))
            else:
                _note(chunk, text)
    if chunk is not None:
        raise MrcFormatError(f"line {number}: the stream ends within a frame: it is truncated", url=path)


def _peak(text: str, path: str, number: int) -> list[float]:
    try:
        fields = [float(word) for word in text.split()[:_FIELDS]]
    except ValueError:
        fields = []
    if len(fields) < _FIELDS:
        raise MrcFormatError(f"line {number}: {text[:40]!r} is no peak", url=path)
    return fields


def _note(chunk: dict[str, Any], text: str) -> None:
    if text.startswith("Image filename:"):
        chunk["image"] = text.partition(":")[2].strip()
    elif text.startswith("Event:"):
        chunk["name"] = text.partition(":")[2].strip()
        if found := _NUMBER.search(chunk["name"]):
            chunk["event"] = int(found[1])
    elif text.startswith("indexed_by ="):
        chunk["indexed"] = text.partition("=")[2].strip() != "none"
