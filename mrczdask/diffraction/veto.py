"""The veto: which shots show a crystal, what a threshold saves and what it loses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.diffraction.identity import stream_places
from mrczdask.errors import MrczdaskError
from mrczdask.execution.progress import Progress, track
from mrczdask.execution.regions import run_regions
from mrczdask.io.peak_table import PEAKS
from mrczdask.io.ragged import Block, Ragged, split

SHOTS: Final = 4096
_REACH: Final = 0.95
"""Share of the peaks within `reach`: the outermost few are noise."""
_THRESHOLDS: Final = 60
_Z95: Final = 1.959964
_INV_ANGSTROM: Final = {"q_A^-1": 1.0, "q_nm^-1": 0.1}
STATISTICS: Final = ("n_peaks", "total_intensity", "median_intensity", "median_snr", "reach")


def veto(
    peaks: Ragged | xr.Dataset,
    *,
    min_peaks: int = 20,
    max_peaks: int | None = None,
    thresholds: Sequence[int] | None = None,
    indexed: Any = None,
    scan_shape: tuple[int, int] | None = None,
    snake: bool = False,
    progress: Progress = None,
) -> xr.Dataset:
    """Tell hits from blanks by their number of peaks, and what every other threshold would give.

    Parameters
    ----------
    peaks : Ragged or Dataset
        As `find_peaks` or `open_peaks` gives them.
    min_peaks : int
        A shot of at least so many peaks is a hit.
    max_peaks : int, optional
        A shot of more is none: salt, ice or a damaged frame.
    thresholds : sequence of int, optional
        Thresholds of the sweep; 0 to 60 by default.
    indexed : array of bool, Ragged or Dataset, optional
        Which shots were indexed: (shot,), a DataArray by its labels, or what `open_peaks` gave for a CrystFEL stream,
        whose frames are matched by file and event, in whatever order they are. Where the peaks do not say their files,
        the event numbers of a stream of one file are the labels of the shots, and frames of several files follow one
        another in natural order of the names.
    scan_shape : (int, int), optional
        (scan_y, scan_x) of a grid scan: adds the map of peak counts.
    snake : bool
        Every second row of the scan runs backwards.
    progress : bool or callable, optional
        Show a bar, or call progress(done, total, label) as blocks are done.

    Returns
    -------
    Dataset
        In memory. Over `shot`: `hit` bool, `n_peaks` int64, `total_intensity`, `median_intensity`, `median_snr`
        (intensity / sigma) and `reach` (the radius within which 95 % of the peaks are) float32, and
        `resolution_angstrom` (2 pi / reach) where radii are q. `hit_rate` with `hit_rate_low`, `hit_rate_high` (Wilson
        interval, 95 %). Over `threshold`: `n_hits`, `saved` (share of the frames left out) and, with `indexed`:
        `indexed_of_hits`, `indexed_of_blanks` (shares of each that were indexed), `lost` (share of the indexed shots
        left out). `peak_map` (scan_y, scan_x).

    Raises
    ------
    MrczdaskError
        `indexed` or the scan is of another number of shots, or a stream has events that are no shots, or twice.
    ValueError
        A threshold is negative, or max_peaks below min_peaks.

    References
    ----------
    Kieffer et al., J. Appl. Cryst. 58 (2025), section 4 and figure 12.
    Wilson, J. Am. Stat. Assoc. 22 (1927) 209.

    Examples
    --------
    >>> import numpy as np
    >>> import mrczdask as md
    >>> frames = np.full((3, 64, 64), 3, np.uint16)
    >>> frames[1, 10:12, 12:14] = 900
    >>> peaks = md.find_peaks(frames, md.Geometry.flat((64, 64)), bins=16, unit="pixel")
    >>> md.veto(peaks, min_peaks=1).hit.values.tolist()
    [False, True, False]
    """
    if min_peaks < 0 or (max_peaks is not None and max_peaks < min_peaks):
        raise ValueError(f"min_peaks={min_peaks}, max_peaks={max_peaks}: the second may not be below the first, nor 0")
    table = peaks if isinstance(peaks, Ragged) else split(peaks, PEAKS, SHOTS)
    found = _statistics(table, progress)
    counts = found["n_peaks"].values
    hit = (counts >= min_peaks) & (counts <= (np.inf if max_peaks is None else max_peaks))
    found["hit"] = (schema.SHOT, hit)
    rate, low, high = hit_rate(int(hit.sum()), hit.size)
    found = found.assign(hit_rate=rate, hit_rate_low=low, hit_rate_high=high)
    scale = _INV_ANGSTROM.get(str(table.attrs.get("radius_unit", "")))
    if scale is not None:
        with np.errstate(divide="ignore"):
            found["resolution_angstrom"] = (schema.SHOT, 2 * np.pi / (scale * found["reach"].values))
    known = None if indexed is None else indexed_shots(indexed, table)
    found = found.merge(sweep(counts, range(_THRESHOLDS + 1) if thresholds is None else thresholds, known))
    if known is not None:
        found["indexed"] = (schema.SHOT, known)
    if scan_shape is not None:
        found["peak_map"] = (("scan_y", "scan_x"), grid_map(counts, scan_shape, snake=snake))
    found.attrs = {"min_peaks": int(min_peaks), "radius_unit": table.attrs.get("radius_unit", "")}
    return found


def hit_rate(hits: int, shots: int) -> tuple[float, float, float]:
    """Share of hits, and its 95 % interval; NaN for no shots."""
    if not shots:
        return np.nan, np.nan, np.nan
    rate, z2 = hits / shots, _Z95**2
    centre = (rate + z2 / (2 * shots)) / (1 + z2 / shots)
    half = _Z95 / (1 + z2 / shots) * float(np.sqrt(rate * (1 - rate) / shots + z2 / (4 * shots**2)))
    return rate, max(centre - half, 0.0), min(centre + half, 1.0)


def sweep(counts: NDArray[Any], thresholds: Sequence[int], indexed: NDArray[np.bool_] | None) -> xr.Dataset:
    """Hits by threshold, and what became of the indexed shots."""
    levels = np.asarray(thresholds, np.int64)
    if levels.ndim != 1 or (levels < 0).any():
        raise ValueError("thresholds: give a sequence of numbers that are not negative")
    hits = counts >= levels[:, None]
    n_hits, shots = hits.sum(1), max(counts.size, 1)
    values: dict[str, Any] = {"n_hits": ("threshold", n_hits), "saved": ("threshold", 1 - n_hits / shots)}
    if indexed is not None:
        kept, known = (hits & indexed).sum(1), int(indexed.sum())
        with np.errstate(divide="ignore", invalid="ignore"):
            values["indexed_of_hits"] = ("threshold", kept / n_hits)
            values["indexed_of_blanks"] = ("threshold", (known - kept) / (counts.size - n_hits))
            values["lost"] = ("threshold", (known - kept) / np.float64(known))
    return xr.Dataset(values, {"threshold": levels})


def indexed_shots(indexed: Any, peaks: Ragged | xr.Dataset) -> NDArray[np.bool_]:
    """Which shots of the peaks were indexed."""
    shots = np.asarray(peaks[schema.SHOT].values)
    if isinstance(indexed, Ragged | xr.Dataset):
        found = np.zeros(shots.size, bool)
        place = stream_places(peaks, indexed)
        found[place] = np.asarray(indexed["indexed"].values, bool)
        return found
    array = np.asarray(indexed, bool).reshape(-1)
    if array.size != shots.size:
        raise MrczdaskError(f"indexed is of {array.size} shots, the peaks are of {shots.size}")
    if not isinstance(indexed, xr.DataArray) or schema.SHOT not in indexed.coords:
        return array
    labels = indexed[schema.SHOT].values
    if np.unique(labels).size != labels.size or not np.array_equal(np.sort(labels), np.sort(shots)):
        raise MrczdaskError("indexed has other labels of its shots than the peaks: give those of the same shots")
    order = np.argsort(labels)
    return array[order[np.searchsorted(labels[order], shots)]]


def grid_map(counts: NDArray[Any], scan_shape: tuple[int, int], *, snake: bool = False) -> NDArray[np.int64]:
    """Counts of shots on the grid of a scan."""
    if counts.size != scan_shape[0] * scan_shape[1]:
        raise MrczdaskError(f"a scan of {scan_shape} has {scan_shape[0] * scan_shape[1]} shots, not {counts.size}")
    grid = counts.reshape(scan_shape).copy()
    if snake:
        grid[1::2] = grid[1::2, ::-1]
    return grid


def _statistics(table: Ragged, progress: Progress) -> xr.Dataset:
    """Of each shot, a block at a time."""
    label = xr.Dataset(coords={schema.SHOT: table.header[schema.SHOT]})
    pieces = table.pieces()
    with track(progress, len(pieces), "peaks") as advance:
        rows = [shot_statistics(piece.block) for _, piece in run_regions(enumerate(pieces), on_done=advance)]
    return label.assign({name: (schema.SHOT, np.concatenate([row[name] for row in rows])) for name in STATISTICS})


def shot_statistics(block: Block) -> dict[str, NDArray[Any]]:
    """`STATISTICS` of the shots of a block; NaN where a shot has no peak."""
    counts, edges = block.counts, block.pointer.astype(np.int64)
    intensity, sigma, radius = (block.columns[name] for name in ("intensity", "sigma", "radius"))
    found = {name: np.full(counts.size, np.nan, np.float32) for name in STATISTICS[1:]}
    found["total_intensity"][:] = 0
    for k in np.flatnonzero(counts):
        rows = slice(edges[k], edges[k + 1])
        found["total_intensity"][k] = intensity[rows].sum()
        found["median_intensity"][k] = np.median(intensity[rows])
        found["median_snr"][k] = np.median(intensity[rows] / sigma[rows])
        known = radius[rows][np.isfinite(radius[rows])]
        found["reach"][k] = np.quantile(known, _REACH) if known.size else np.nan
    return {"n_peaks": counts.astype(np.int64), **found}
