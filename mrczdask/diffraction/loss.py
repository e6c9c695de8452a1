"""What a cutoff costs and saves before a file is written: pixels, bytes and signal that are kept, from a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import blosc2
import dask
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import ndimage, stats

from mrczdask import schema
from mrczdask.diffraction.beams import center_rows, shot_centers
from mrczdask.diffraction.checks import number, whole_number
from mrczdask.diffraction.maps import NEEDED, RADIUS, like_frames
from mrczdask.diffraction.runs import within_run
from mrczdask.diffraction.shells import Shells, shells_of
from mrczdask.diffraction.shots import as_shots, on_workers
from mrczdask.diffraction.sparsify import Picking, background_of, picking_of
from mrczdask.errors import MrczdaskError
from mrczdask.execution.progress import Progress, track
from mrczdask.execution.regions import run_regions
from mrczdask.io.geometry import Geometry
from mrczdask.kernels.places import filled, interpolate_image, levels

CUTOFFS: Final = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 10.0)
SIGNAL_CUTOFF: Final = 5.0
"""Deviations above which a pixel belongs to a peak: the cutoff of peak finding for serial crystallography."""
BLOCK_BYTES: Final = 8192
"""Of the blocks of bitshuffle-LZ4 in HDF5."""
_LZ4_LEVEL: Final = 9
"""At which Blosc calls LZ4 as the HDF5 filter does: without acceleration."""


@dataclass(frozen=True)
class _Sampling:
    """How a frame is judged."""

    picking: Picking
    shells: Shells
    cutoffs: tuple[float, ...]
    signal_cutoff: float


def loss_budget(
    frames: Any,
    geometry: Geometry | None = None,
    *,
    background: xr.Dataset | None = None,
    cutoffs: Sequence[float] = CUTOFFS,
    shells: int = 10,
    sample: int = 16,
    signal_cutoff: float = SIGNAL_CUTOFF,
    progress: Progress = None,
    **options: Any,
) -> xr.Dataset:
    """Measure on a sample of frames what `sparsify` would keep at each cutoff, and what that would take.

    Parameters
    ----------
    frames : DataArray, dask or numpy array
        (shot, y, x), or (y, x), or with scan dims in front, in counts.
    geometry : Geometry, optional
        Of the detector, where no `background` is given.
    background : Dataset, optional
        What `separate_background` gave for these frames.
    cutoffs : sequence of float
        Values of `cutoff_pick`, in deviations.
    shells : int
        Shells of equal width in the unit of the radius, about the beam of each shot.
    sample : int
        Shots that are looked at, evenly spaced.
    signal_cutoff : float
        Pixels this far above the background, in deviations, and their eight neighbours are the signal.
    progress : bool or callable, optional
        Show a bar, or call progress(done, total, label) as chunks are done.
    **options : dict, optional
        Of `separate_background`, where no `background` is given.

    Returns
    -------
    Dataset
        In memory. Along `cutoff`: `kept_fraction` of the valid pixels, `expected_fraction` of a normal background,
        `frame_bytes` of a sparse frame with its background, packed; `ratio` of the packed dense frame to it. Along
        `cutoff` and `shell`: `kept_signal`, NaN in a shell without signal. Coordinates `radius_low`, `radius_high`
        (shell); attributes `n_shots`, `dense_bytes` (of a packed dense frame) and `unit`.

    Raises
    ------
    MrczdaskError
        The background is not of these frames, or neither it nor a geometry is given.
    ValueError
        A number is out of its range.

    Notes
    -----
    Signal is the sum of b - background over the signal pixels, the tails of the peaks included; `kept_signal` is the
    part of it in pixels that are kept. It may exceed 1 a little, by noise. Bytes are those of bitshuffle-LZ4, as Eiger
    detectors and `write_sparse` pack them; the maps of the detector, written once a file, are not counted.

    References
    ----------
    Kieffer et al., J. Appl. Cryst. 58 (2025): fractions of 16, 2.3 and 0.13 % at 1, 2 and 3 deviations.

    Examples
    --------
    >>> import numpy as np
    >>> import mrczdask as md
    >>> frames = np.random.default_rng(0).poisson(50.0, (2, 64, 64))
    >>> frames[:, 30:33, 40:43] += 200
    >>> budget = md.loss_budget(frames, md.Geometry.flat((64, 64)), bins=16, unit="pixel", cutoffs=(1, 2, 3))
    >>> budget.kept_fraction.values.round(2).tolist()
    [0.16, 0.03, 0.01]
    """
    cuts = tuple(float(cutoff) for cutoff in cutoffs)
    if (
        not cuts
        or not all(cut >= 0 for cut in cuts)
        or list(cuts) != sorted(cuts)
        or not shells >= 1
        or not sample >= 1
    ):
        raise ValueError("give rising cutoffs of 0 or more, and at least one shell and one shot")
    signal_cutoff = number("signal_cutoff", signal_cutoff)
    shells, sample = whole_number("shells", shells, 1), whole_number("sample", sample, 1)
    images = as_shots(frames)
    shots = len(images)
    if not shots:
        raise MrczdaskError("there are no frames to take a sample of")
    place = np.unique(np.linspace(0, shots - 1, sample).round().astype(int))
    images = images.isel({schema.SHOT: place})
    given = None if background is None else background.isel({schema.SHOT: place})
    whole = images
    if given is None and options.get("beam_centers") is not None:
        whole, options["beam_centers"] = within_run(images, shot_centers(options["beam_centers"], shots), place)
    found = background_of(whole, geometry, given, options, "loss_budget").isel({schema.SHOT: slice(len(images))})
    how = _Sampling(picking_of(found, images, 0.0), shells_of(found, shells), cuts, signal_cutoff)
    totals = _totals(images, found, how, progress)
    return _budget(totals, how, found)


def pick_cutoff(budget: xr.Dataset, ratio: float) -> float:
    """Choose the lowest cutoff at which frames shrink by a ratio.

    Parameters
    ----------
    budget : Dataset
        What `loss_budget` gave.
    ratio : float
        Size of the packed dense frames over that of the sparse ones.

    Returns
    -------
    float
        Interpolated in the logarithm of the ratio between the cutoffs of the budget.

    Raises
    ------
    MrczdaskError
        No cutoff of the budget reaches it.
    ValueError
        The ratio is negative or no number.

    Examples
    --------
    >>> import numpy as np
    >>> import mrczdask as md
    >>> frames = np.random.default_rng(0).poisson(50.0, (2, 64, 64))
    >>> budget = md.loss_budget(frames, md.Geometry.flat((64, 64)), bins=16, unit="pixel")
    >>> 0.5 < md.pick_cutoff(budget, 3.0) < 3
    True
    """
    number("ratio", ratio)
    reached, cutoffs = np.maximum.accumulate(budget["ratio"].values), budget["cutoff"].values
    if ratio > reached[-1]:
        raise MrczdaskError(f"a ratio of {ratio:g} is not reached: {reached[-1]:.1f} at a cutoff of {cutoffs[-1]:g}")
    rising = np.concatenate([[True], np.diff(reached) > 0])
    return float(np.interp(np.log(ratio), np.log(reached[rising]), cutoffs[rising]))


Totals = dict[str, Any]


def _totals(images: xr.DataArray, background: xr.Dataset, how: _Sampling, progress: Progress) -> Totals:
    """Sums over all shots of the sample, a chunk of them at a time."""
    tables = [like_frames(background[name].data, images).to_delayed().ravel() for name in NEEDED[:2]]
    blocks = images.data.to_delayed().ravel()
    rows, _ = center_rows(background, images.data.chunks[0])
    centers = [None] * len(blocks) if rows is None else rows.to_delayed().ravel()
    sent = on_workers(how)
    judge = dask.delayed(_judge, pure=False)
    chunks = zip(blocks, *tables, centers, strict=True)
    tasks = [(k, judge(*parts, sent)) for k, parts in enumerate(chunks)]
    totals: Totals = {}
    with track(progress, len(tasks), "loss budget") as advance:
        for _, part in run_regions(tasks, on_done=advance):
            totals = {name: value + totals.get(name, 0) for name, value in part.items()}
    return totals


def _judge(
    frames: NDArray[Any],
    average: NDArray[np.float32],
    deviation: NDArray[np.float32],
    centers: NDArray[np.float64] | None,
    how: _Sampling,
) -> Totals:
    """What is kept of the frames of a chunk at each cutoff."""
    n = len(how.cutoffs)
    kept, size = np.zeros(n, np.int64), np.zeros(n, np.int64)
    signal, held = np.zeros(len(how.shells)), np.zeros((n, len(how.shells)))
    valid_pixels = dense = 0
    for k, image in enumerate(frames):
        frame = np.ascontiguousarray(image).reshape(-1)
        dense += packed_bytes(frame)
        if not np.isfinite(average[k]).any():
            continue
        center = None if centers is None else centers[k]
        picking, shell = how.picking.at(center), how.shells.at(center).reshape(-1)
        plain = how.picking.judge.plain(image).reshape(-1)
        raw, above, ratio = _excess(plain, levels(average[k]), filled(deviation[k]), picking)
        valid = np.isfinite(ratio)
        valid_pixels += int(valid.sum())
        strong = np.where(valid, ratio, 0).reshape(image.shape) >= how.signal_cutoff
        peaks = np.flatnonzero(ndimage.binary_dilation(strong, np.ones((3, 3), bool)).reshape(-1) & valid)
        signal += np.bincount(shell[peaks], above[peaks], len(how.shells))
        for c, cutoff in enumerate(how.cutoffs):
            keep = (ratio > cutoff) & (above > how.picking.noise)
            index = np.flatnonzero(keep).astype(np.uint32)
            kept[c] += index.size
            size[c] += packed_bytes(index) + packed_bytes(raw[index].astype(how.picking.dtype))
            inside = peaks[keep[peaks]]
            held[c] += np.bincount(shell[inside], above[inside], len(how.shells))
    tables = sum(packed_bytes(np.stack([filled(row) for row in table])) for table in (average, deviation))
    return {
        "shots": len(frames),
        "valid": valid_pixels,
        "dense": dense,
        "kept": kept,
        "size": size + tables,
        "signal": signal,
        "held": held,
    }


def _excess(
    frame: NDArray[Any], average: NDArray[np.float32], deviation: NDArray[np.float32], picking: Picking
) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32]]:
    """Raw less dark, b - background, and the latter in deviations; the last is NaN where a pixel is not valid."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        raw = frame.astype(np.float32)
        if picking.dark.size:
            raw = raw - picking.dark
        above = (raw / picking.norm - interpolate_image(average, picking.places)).astype(np.float32)
        spread = np.hypot(interpolate_image(deviation, picking.places), picking.noise)
        ratio = np.where(spread > 0, above / spread, np.where(above > 0, np.inf, -np.inf)).astype(np.float32)
        bad = np.isnan(picking.places.radial) | ~(picking.norm > 0) | ~np.isfinite(raw)
        bad |= ~picking.judge.counts(frame)
    ratio[bad] = np.nan
    above[bad] = 0
    return raw if picking.dark.size else frame, above, ratio


def packed_bytes(values: NDArray[Any]) -> int:
    """Bytes that bitshuffle and LZ4 pack an array to."""
    if not values.size:
        return 0
    packed = blosc2.compress2(
        np.ascontiguousarray(values),
        codec=blosc2.Codec.LZ4,
        clevel=_LZ4_LEVEL,
        typesize=values.dtype.itemsize,
        filters=[blosc2.Filter.BITSHUFFLE],
        filters_meta=[0],
        splitmode=blosc2.SplitMode.NEVER_SPLIT,
        blocksize=BLOCK_BYTES,
        nthreads=1,
    )
    return len(packed)


def _budget(totals: Totals, how: _Sampling, background: xr.Dataset) -> xr.Dataset:
    shots, edges = totals["shots"], how.shells.edges
    signal = np.where(totals["signal"] > 0, totals["signal"], np.nan)
    values = {
        "kept_fraction": ("cutoff", totals["kept"] / max(totals["valid"], 1)),
        "expected_fraction": ("cutoff", stats.norm.sf(np.array(how.cutoffs))),
        "frame_bytes": ("cutoff", totals["size"] / shots),
        "ratio": ("cutoff", totals["dense"] / np.maximum(totals["size"], 1)),
        "kept_signal": (("cutoff", "shell"), totals["held"] / signal),
    }
    unit = background[RADIUS].attrs.get("units", "")
    coords = {
        "cutoff": np.array(how.cutoffs),
        "shell": np.arange(len(how.shells)),
        "radius_low": ("shell", edges[:-1], {"units": unit}),
        "radius_high": ("shell", edges[1:], {"units": unit}),
    }
    attrs = {"n_shots": shots, "dense_bytes": totals["dense"] / shots, "unit": unit}
    return xr.Dataset(values, coords, attrs)
