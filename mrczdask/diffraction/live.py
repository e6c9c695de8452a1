"""Peaks of an experiment that is running: frames as they arrive, peaks and hit rate a moment later."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from dask.tokenize import tokenize

from mrczdask.diffraction.peaks import find_peaks
from mrczdask.diffraction.veto import hit_rate
from mrczdask.execution.regions import run_regions
from mrczdask.io.geometry import Geometry
from mrczdask.io.growing import GrowingFrames
from mrczdask.io.peak_store import PeakStore
from mrczdask.io.ragged import Ragged

BLOCK: Final = 16
"""Frames of a block: a third of a second at 50 Hz."""


@dataclass(frozen=True)
class HitRate:
    """How a run stands: shots that were searched, hits among them, and of the last block."""

    shots: int
    hits: int
    shots_of_block: int
    hits_of_block: int

    @property
    def rate(self) -> float:
        """Share of hits so far; NaN before the first shot."""
        return hit_rate(self.hits, self.shots)[0]

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the share (Wilson)."""
        return hit_rate(self.hits, self.shots)[1:]


class PeakWatch:
    """Find peaks in frames that are still arriving.

    Parameters
    ----------
    source : str or path
        An HDF5 file (also one that is written in SWMR mode) or Zarr array that grows, or a folder to which files of one
        frame are added.
    geometry : Geometry
        Of the detector.
    out : str or path
        A .zarr folder for the peaks. One that was begun with the same source and options is gone on with.
    min_peaks : int
        A shot of at least so many peaks is a hit.
    block : int
        Most frames that are searched together.
    dataset : str, optional
        The dataset of the frames, where the file does not tell it.
    settle_s : float
        Seconds that a frame must have been there before it is read: files and arrays grow before their pixels are
        written.
    **options : dict, optional
        Of `find_peaks` and `separate_background`.

    Raises
    ------
    ResumeError
        `out` was begun with another source or other options.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> import mrczdask as md
    >>> frames = np.full((3, 64, 64), 3, np.uint16)
    >>> frames[1, 10:12, 12:14] = 900
    >>> _ = md.write_frames(xr.DataArray(frames, dims=("shot", "y", "x")), "run.h5")
    >>> watch = md.PeakWatch("run.h5", md.Geometry.flat((64, 64)), "live.zarr", min_peaks=1, settle_s=0,
    ...                      bins=16, unit="pixel")
    >>> [(state.shots, state.hits) for state in watch.update()]
    [(3, 1)]
    >>> watch.peaks().n_peaks.values.tolist()
    [0, 1, 0]
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Sequence[str],
        geometry: Geometry,
        out: str | os.PathLike[str],
        *,
        min_peaks: int = 20,
        block: int = BLOCK,
        dataset: str | None = None,
        settle_s: float = 0.5,
        **options: Any,
    ):
        if block < 1:
            raise ValueError(f"block={block}: give at least one frame")
        self._frames = GrowingFrames(source, dataset=dataset, settle_s=settle_s)
        self._geometry, self._block, self._options = geometry, block, options
        self._min_peaks = min_peaks
        plan = {
            "source": [os.path.abspath(one) for one in source] if isinstance(source, list | tuple) else str(source),
            "geometry": tokenize(geometry),
            "options": {name: _plain(value) for name, value in sorted(options.items())},
        }
        settings = {name: value for name, value in options.items() if isinstance(value, str | int | float)}
        settings["radius_unit"] = options.get("unit", "q_A^-1")
        self._store = PeakStore(os.fspath(out), plan, settings)
        counts = self._store.counts()
        self._state = HitRate(counts.size, int((counts >= min_peaks).sum()), 0, 0)

    @property
    def state(self) -> HitRate:
        """How the run stands."""
        return self._state

    def update(self) -> Iterator[HitRate]:
        """Search what has arrived, and tell how the run stands after each block.

        Yields
        ------
        HitRate
            After each block, when its peaks are stored.

        Raises
        ------
        MrczdaskError
            The source has fewer frames than before.
        """
        frames = self._frames.frames(self._store.shots, self._block)
        if frames is None:
            return
        found = find_peaks(frames, self._geometry, **self._options)
        edges = np.cumsum([0, *found.chunks])
        pieces = ((k, found.isel(slice(edges[k], edges[k + 1]))) for k in range(len(found.chunks)))
        for _, table in run_regions(pieces):
            self._store.append(table)
            counts = table["n_peaks"].values
            hits = int((counts >= self._min_peaks).sum())
            total = self._state
            self._state = HitRate(total.shots + counts.size, total.hits + hits, counts.size, hits)
            yield self._state

    def follow(self, *, poll_s: float = 0.5, idle_s: float | None = None) -> Iterator[HitRate]:
        """Search frames as they arrive.

        Parameters
        ----------
        poll_s : float
            Seconds from one look at the source to the next.
        idle_s : float, optional
            Stop when no frame has come for so many seconds; by default, never.

        Yields
        ------
        HitRate
            After each block, when its peaks are stored.

        Raises
        ------
        MrczdaskError
            The source has fewer frames than before.
        """
        last = time.monotonic()
        while idle_s is None or time.monotonic() - last < idle_s:
            for state in self.update():
                last = time.monotonic()
                yield state
            time.sleep(poll_s)

    def peaks(self) -> Ragged:
        """The peaks of all shots so far, lazy, as `open_peaks` gives them."""
        return self._store.peaks()


def _plain(value: Any) -> Any:
    """An option as a plan keeps it: arrays by their content."""
    return value if isinstance(value, str | int | float | bool | None) else tokenize(value)
