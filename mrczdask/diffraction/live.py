"""Peaks of an experiment that is running: frames as they arrive, peaks and hit rate a moment later."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xarray as xr
from dask.tokenize import tokenize
from numpy.typing import ArrayLike

from mrczdask import schema
from mrczdask.diffraction.beams import shot_centers
from mrczdask.diffraction.peaks import find_peaks
from mrczdask.diffraction.runs import within_run
from mrczdask.diffraction.shots import as_shots
from mrczdask.diffraction.veto import hit_rate
from mrczdask.errors import MrczdaskError
from mrczdask.execution.regions import run_regions
from mrczdask.execution.resume import digest
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
        frame are added, or a pattern of their names.
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
    beam_centers : array, optional
        (shot, 2) float, (y, x) of the beam in each frame that will come, as in `separate_background`: bins span the
        radii of them all from the first block on, so that the peaks are those that `find_peaks` finds in the whole run.
    **options : dict, optional
        Of `find_peaks` and `separate_background`.

    Raises
    ------
    MrczdaskError
        A beam centre is not finite, or the geometry is not one whose beam moves.
    ResumeError
        `out` was begun with another source, other options or other beam centres.

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
        beam_centers: ArrayLike | None = None,
        **options: Any,
    ):
        if block < 1:
            raise ValueError(f"block={block}: give at least one frame")
        self._frames = GrowingFrames(source, dataset=dataset, settle_s=settle_s)
        self._geometry, self._block, self._options = geometry, block, options
        self._min_peaks = min_peaks
        self._centers = None if beam_centers is None else shot_centers(beam_centers, _shots(beam_centers))
        plan: dict[str, Any] = {
            "source": [os.path.abspath(one) for one in source] if isinstance(source, list | tuple) else str(source),
            "geometry": tokenize(geometry),
            "options": {name: _plain(value) for name, value in sorted(options.items())},
        }
        settings = {name: value for name, value in options.items() if isinstance(value, str | int | float)}
        settings["radius_unit"] = options.get("unit", "q_A^-1")
        if self._centers is not None:
            geometry.moved(geometry.beam_center)
            plan["beam_centers"] = digest(self._centers)
        self._store = PeakStore(os.fspath(out), plan, settings, has_centers=self._centers is not None)
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
            The source has fewer frames than before, or more than there are beam centres.
        """
        frames = self._frames.frames(self._store.shots, self._block)
        if frames is None:
            return
        found = self._search(frames)
        edges = np.cumsum([0, *found.chunks])
        pieces = ((k, found.isel(slice(edges[k], edges[k + 1]))) for k in range(len(found.chunks)))
        for _, table in run_regions(pieces):
            self._store.append(table)
            counts = table["n_peaks"].values
            hits = int((counts >= self._min_peaks).sum())
            total = self._state
            self._state = HitRate(total.shots + counts.size, total.hits + hits, counts.size, hits)
            yield self._state

    def _search(self, frames: xr.DataArray) -> Ragged:
        """The peaks of new frames."""
        centers, images = self._centers, as_shots(frames)
        if centers is None:
            return find_peaks(images, self._geometry, **self._options)
        place = np.arange(self._store.shots, self._store.shots + len(images))
        if place[-1] >= len(centers):
            n = len(centers)
            raise MrczdaskError(f"there is no beam centre of shot {n}: beam_centers are of {n} shots, give more")
        whole, order = within_run(images, centers, place)
        return find_peaks(whole, self._geometry, beam_centers=order, **self._options).isel(slice(len(images)))

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
            The source has fewer frames than before, or more than there are beam centres.
        """
        last = time.monotonic()
        while idle_s is None or time.monotonic() - last < idle_s:
            for state in self.update():
                last = time.monotonic()
                yield state
            time.sleep(poll_s)

    def peaks(self) -> Ragged:
        """The peaks of all shots so far, lazy, as `open_peaks` gives them, with the files of their frames."""
        found = self._store.peaks()
        coords, attrs = self._frames.identity(found.header[schema.SHOT].values)
        return Ragged(found.header.assign_coords(coords).assign_attrs(attrs), found.block_layer, found.layout)


def _shots(beam_centers: ArrayLike) -> int:
    """How many shots centres are given for, with scan dims in front or not."""
    return int(np.prod(np.shape(beam_centers)[:-1]))


def _plain(value: Any) -> Any:
    """An option as a plan keeps it: arrays by their content."""
    return value if isinstance(value, str | int | float | bool | None) else tokenize(value)
