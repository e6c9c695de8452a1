"""Peaks in the arrays of a store that grows: lists with pointers, and tables that are padded."""

from __future__ import annotations

import json
from typing import Any, Final

import numpy as np
import xarray as xr

from mrczdask import schema
from mrczdask.errors import MrczdaskError
from mrczdask.io.grown_store import GZIP, GrownStore
from mrczdask.io.peak_file import NEXUS_FIELDS, NEXUS_PEAKS, PADDED_FIELDS
from mrczdask.io.peak_table import PEAK_FILE, PEAKS
from mrczdask.io.ragged import Block, Ragged, split
from mrczdask.io.shot_identity import put_identity
from mrczdask.io.sparse_table import CENTER

SHOTS: Final = 512
"""Shots of a block of a table in memory, and of a chunk of counts."""
ROWS: Final = 1 << 16
"""Peaks of a chunk of a list."""
_PADDED: Final = (64, 64)
"""Shots and peaks of a chunk of a padded table."""


def as_peaks(peaks: Ragged | xr.Dataset, path: str, blocks: tuple[int, ...] | int = SHOTS) -> Ragged:
    """The table to write; one in memory is cut into blocks of so many shots."""
    if not isinstance(peaks, Ragged):
        missing = [name for name in (PEAKS.pointer, *PEAKS.columns) if name not in peaks]
        if missing:
            raise MrczdaskError(f"{path}: the table lacks {', '.join(missing)}: give what find_peaks returns")
        peaks = split(peaks, PEAKS, blocks)
    if peaks.layout != PEAKS:
        raise MrczdaskError(
            f"{path}: these are rows of {', '.join(peaks.layout.columns)}: give what find_peaks returns"
        )
    return peaks


def settings_of(table: Ragged) -> str:
    """What the peaks were found with, as JSON."""
    left = (schema.HISTORY, schema.PROVENANCE, PEAK_FILE)
    known = {name: value for name, value in table.attrs.items() if name not in left}
    return json.dumps({name: value for name, value in known.items() if isinstance(value, str | int | float | list)})


def beam_of(table: Ragged) -> dict[str, Any]:
    """(shot) of the beam, y and x, where it is known of each shot."""
    return {name: table.header[name].values for name in CENTER if name in table.header.coords}


class PeakLists:
    """Lists with pointers, as the peak finder of pyFAI keeps them in NeXus: nothing is lost."""

    def __init__(self, store: GrownStore, table: Ragged, signal: str = "spots"):
        self._store, self._stored = store, 0
        store.group(NEXUS_PEAKS, {"NX_class": "NXdata", "signal": signal, "settings": settings_of(table)})
        store.put(f"{NEXUS_PEAKS}/shot", table.header[schema.SHOT].values)
        put_identity(store, NEXUS_PEAKS, table.header)
        for name, values in beam_of(table).items():
            store.put(f"{NEXUS_PEAKS}/{name}", values, {"units": "pixel"})
        store.growing(f"{NEXUS_PEAKS}/spots", (0,), (SHOTS,), np.int32)
        store.growing(f"{NEXUS_PEAKS}/frame_ptr", (0,), (SHOTS,), np.int64)
        store.append(f"{NEXUS_PEAKS}/frame_ptr", np.zeros(1, np.int64))
        for name, column in NEXUS_FIELDS.items():
            store.growing(f"{NEXUS_PEAKS}/{name}", (0,), (ROWS,), _stored(column))

    def append(self, block: Block) -> None:
        """Add the peaks of the next shots."""
        self._store.append(f"{NEXUS_PEAKS}/spots", block.counts.astype(np.int32))
        self._store.append(f"{NEXUS_PEAKS}/frame_ptr", block.pointer[1:].astype(np.int64) + self._stored)
        self._stored += int(block.counts.sum())
        for name, column in NEXUS_FIELDS.items():
            self._store.append(f"{NEXUS_PEAKS}/{name}", block.columns[column].astype(_stored(column)))


class PaddedPeaks:
    """Tables (shot, peak) in HDF5, padded with zeros and as wide as the fullest shot, as CXI and pyFAI's sparse files
    have them. They are packed by gzip, which CrystFEL reads without a plugin."""

    def __init__(self, store: GrownStore, group: str):
        made = store.root.create_dataset
        self._counts = made(f"{group}/nPeaks", (0,), np.int32, chunks=(SHOTS,), maxshape=(None,), **GZIP)
        self._tables = {
            name: made(f"{group}/{name}", (0, 0), np.float32, chunks=_PADDED, maxshape=(None, None), **GZIP)
            for name in PADDED_FIELDS
        }

    def append(self, block: Block) -> None:
        """Add the peaks of the next shots."""
        counts = block.counts.astype(np.int32)
        n = self._counts.shape[0]
        self._counts.resize((n + counts.size,))
        self._counts[n:] = counts
        shot = np.repeat(np.arange(counts.size), counts)
        place = np.arange(shot.size) - block.pointer[:-1].astype(np.int64)[shot]
        for name, values in _padded_values(block).items():
            array = self._tables[name]
            array.resize((n + counts.size, max(array.shape[1], int(counts.max(initial=0)))))
            if shot.size:
                rows = np.zeros((counts.size, array.shape[1]), np.float32)
                rows[shot, place] = values
                array[n:] = rows


def _padded_values(block: Block) -> dict[str, Any]:
    peaks = block.columns
    with np.errstate(divide="ignore", invalid="ignore"):
        values = peaks["x"], peaks["y"], peaks["intensity"], peaks["intensity"] / peaks["sigma"]
    return dict(zip(PADDED_FIELDS, values, strict=True))


def _stored(column: str) -> np.dtype[Any]:
    """pyFAI stores flat indices as int32."""
    return np.dtype(np.int32) if column == "index" else PEAKS.columns[column]
