"""Peaks that are still being found: a Zarr folder that grows, and that a killed process leaves whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import xarray as xr

from mrczdask import schema
from mrczdask.errors import MrcFormatError
from mrczdask.execution.resume import check_plan
from mrczdask.io.peak_file import DONE, NEXUS_FIELDS, NEXUS_PEAKS, open_peaks
from mrczdask.io.peak_table import PEAKS
from mrczdask.io.ragged import Ragged
from mrczdask.io.sparse_table import CENTER

_PLAN: Final = "plan"
_CHUNK: Final = 1 << 14


class PeakStore:
    """Appends blocks of shots in order; the number of shots is written last, so that half a block does not count.

    With `has_centers`, beam centres are kept of each shot.
    """

    def __init__(self, path: str, plan: Mapping[str, Any], settings: Mapping[str, Any], *, has_centers: bool = False):
        import zarr

        self.path = path
        self._labels = CENTER if has_centers else ()
        self._group: Any
        if os.path.isdir(path):
            self._group = zarr.open_group(path, mode="r+")[NEXUS_PEAKS]
            if DONE not in self._group.attrs:
                raise MrcFormatError("these are no peaks that can be added to: give another name", url=path)
            check_plan(json.loads(str(self._group.attrs[_PLAN])), dict(plan), path)
            self._cut()
            return
        root = zarr.open_group(path, mode="w-")
        self._group = root.create_group(NEXUS_PEAKS)
        self._group.create_array("frame_ptr", shape=(1,), chunks=(_CHUNK,), dtype=np.int64)
        self._group.create_array("shot", shape=(0,), chunks=(_CHUNK,), dtype=np.int64)
        for name in self._labels:
            self._group.create_array(name, shape=(0,), chunks=(_CHUNK,), dtype=np.float64)
        for name, column in NEXUS_FIELDS.items():
            self._group.create_array(name, shape=(0,), chunks=(_CHUNK,), dtype=PEAKS.columns[column])
        about = {_PLAN: json.dumps(dict(plan)), "settings": json.dumps(dict(settings)), DONE: 0}
        self._group.attrs.update(about)

    @property
    def shots(self) -> int:
        """Shots that are stored."""
        return int(self._group.attrs[DONE])

    def append(self, block: xr.Dataset) -> None:
        """Add the peaks of the next shots."""
        pointer, shots = self._array("frame_ptr"), self._array("shot")
        stored = int(pointer[-1])
        for name, column in NEXUS_FIELDS.items():
            array = self._array(name)
            array.resize((stored + block.sizes[PEAKS.row],))
            if block.sizes[PEAKS.row]:
                array[stored:] = block[column].values
        first, n = self.shots, block.sizes[schema.SHOT]
        shots.resize((first + n,))
        shots[first:] = np.arange(first, first + n)
        for name in self._labels:
            array = self._array(name)
            array.resize((first + n,))
            array[first:] = block[name].values
        pointer.resize((first + n + 1,))
        pointer[first + 1 :] = stored + block[PEAKS.pointer].values[1:].astype(np.int64)
        self._group.attrs[DONE] = first + n

    def peaks(self) -> Ragged:
        """What is stored, lazy."""
        return open_peaks(self.path)

    def counts(self) -> Any:
        """Peaks of each stored shot."""
        return np.diff(self._array("frame_ptr")[: self.shots + 1])

    def _array(self, name: str) -> Any:
        return self._group[name]

    def _cut(self) -> None:
        """Forget what a killed process wrote of a block."""
        done = self.shots
        self._array("frame_ptr").resize((done + 1,))
        for name in ("shot", *self._labels):
            self._array(name).resize((done,))
        stored = int(self._array("frame_ptr")[-1])
        for name in NEXUS_FIELDS:
            self._array(name).resize((stored,))
