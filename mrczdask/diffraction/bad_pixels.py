"""Pixels that are too dark or too bright in frame after frame: the shadow of the beamstop, hot and dead pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import ndimage, stats

from mrczdask import schema
from mrczdask.diffraction.background import separate_background
from mrczdask.diffraction.beams import center_rows
from mrczdask.diffraction.maps import bin_rows, split_rows
from mrczdask.diffraction.shots import as_shots, on_workers
from mrczdask.diffraction.sparsify import Picking, picking_of
from mrczdask.execution.blocks import whole_blocks
from mrczdask.io.geometry import Geometry
from mrczdask.kernels.places import filled, interpolate_image, levels
from mrczdask.provenance import record

HOT: Final = 1
SHADOW: Final = 2
FALSE_RATE: Final = 0.05
"""Expected number of good pixels that are marked, in a frame size."""
MOST_DEVIATION: Final = 6.0
"""What one frame may say of a pixel: a reflection that falls into a shadow must not outweigh the other frames."""
MOST_RELATIVE: Final = 2.0
LEAST_SHARE: Final = 0.5
"""Of frames in which a hot pixel stands out: reflections move on, hot pixels stay."""


@dataclass(frozen=True)
class _Watch:
    """How frames are looked at: maps are flat, as in `sparsify`."""

    picking: Picking
    cutoff: float


def find_bad_pixels(
    frames: Any,
    geometry: Geometry,
    *,
    cutoff: float = 3.0,
    share: float = LEAST_SHARE,
    grow: int = 1,
    **options: Any,
) -> xr.Dataset:
    """Find the shadow of the beamstop and hot pixels: outliers of the background that repeat from frame to frame.

    Parameters
    ----------
    frames : DataArray, dask or numpy array
        (shot, y, x) in counts; tens of shots, better blank ones.
    geometry : Geometry
        Of the detector.
    cutoff : float
        A pixel stands out of a frame this far above the background of its radius, in deviations.
    share : float
        Of the frames in which a hot pixel stands out.
    grow : int
        Pixels by which shadows, not hot pixels, are widened: their edge is soft.
    **options : dict, optional
        Of `separate_background`.

    Returns
    -------
    Dataset
        Lazy (y, x): `mask` bool, True = bad, `defect_kind` uint8 (0 good, 1 hot, 2 shadow), `deviation` float32, the
        mean over the frames of (b - background) / std times sqrt(frames): NaN where the geometry is masked.

    Raises
    ------
    MrczdaskError
        Frames, geometry or a map differ in shape.
    ValueError
        `share` is not between 0 and 1, `cutoff` or `grow` is negative, or an option is not known.

    Notes
    -----
    With z = sum(min((b - background) / std, 6)) / sqrt(n), a standard normal number for a good pixel: shadow where
    z < -t and the pixel lies below half of the background on average (a frame counts as 2 at most); hot where z > t
    and it stands out of at least `share` of the frames. t leaves 0.05 good pixels of the frame. Reflections of a
    crystal that turns stand out of few frames.
    A ring that lies mostly in the shadow has no background to compare with: mask it by hand.

    References
    ----------
    Kieffer et al., J. Appl. Cryst. 58 (2025): pixels far from the mean of their ring are outliers.

    Examples
    --------
    >>> import numpy as np
    >>> import mrczdask as md
    >>> frames = np.random.default_rng(0).poisson(5.0, (20, 64, 64))
    >>> frames[:, 40:44, 10] = 0
    >>> frames[:, 8, 9] += 30
    >>> bad = md.find_bad_pixels(frames, md.Geometry.flat((64, 64)), bins=16, unit="pixel", grow=0).compute()
    >>> bad.defect_kind.values[[8, 41, 50], [9, 10, 10]].tolist(), int(bad.mask.sum())
    ([1, 2, 0], 5)
    """
    if not 0 < share <= 1 or not cutoff >= 0 or not grow >= 0:
        raise ValueError(f"share={share}, cutoff={cutoff}, grow={grow}: share in (0, 1], the others 0 or more")
    images = as_shots(frames)
    background = separate_background(images, geometry, **options)
    how = _Watch(picking_of(background, images, cutoff), float(cutoff))
    parts = da.blockwise(
        _watch_chunk,
        "scyx",
        images.data,
        "syx",
        *bin_rows(background, images),
        *center_rows(background, images.data.chunks[0]),
        how=on_workers(how),
        new_axes={"c": 4},
        adjust_chunks={"s": 1},
        dtype=np.float32,
        meta=np.empty((0, 0, 0, 0), np.float32),
    )
    totals = parts.sum(axis=0)
    maps = da.map_blocks(_judge, totals, share, grow, dtype=np.float32, meta=np.empty((0, 0, 0), np.float32))
    plane = (schema.Y, schema.X)
    kind = maps[0].astype(np.uint8)
    values = {"mask": (plane, kind > 0), "defect_kind": (plane, kind), "deviation": (plane, maps[1])}
    settings = {"cutoff": cutoff, "share": share, "grow": grow}
    found = xr.Dataset(values, attrs=record(background.attrs, "find_bad_pixels", settings))
    found.defect_kind.attrs = {"flag_values": [0, HOT, SHADOW], "flag_meanings": "good hot shadow"}
    return found


@whole_blocks
def _watch_chunk(
    frames: NDArray[Any],
    average: NDArray[Any],
    deviation: NDArray[np.float32] | None,
    centers: NDArray[np.float64] | None,
    how: _Watch,
) -> NDArray[np.float32]:
    """(1, 4, y, x): sums over the shots of a chunk of z, of standing out, of b / background, and of being valid."""
    average, deviation = split_rows(average, deviation)
    ny, nx = frames.shape[1:]
    total = np.zeros((1, 4, ny * nx), np.float32)
    for k, image in enumerate(frames):
        if not np.isfinite(average[k]).any():
            continue
        frame = np.ascontiguousarray(how.picking.judge.plain(image)).reshape(-1)
        picking = how.picking.at(None if centers is None else centers[k])
        level = interpolate_image(levels(average[k]), picking.places)
        std = interpolate_image(filled(deviation[k]), picking.places)
        add_evidence(frame, level, std, picking, how.cutoff, total[0])
    return total.reshape(1, 4, ny, nx)


def add_evidence(
    frame: NDArray[Any],
    level: NDArray[np.float32],
    std: NDArray[np.float32],
    picking: Picking,
    cutoff: float,
    total: NDArray[np.float32],
) -> None:
    """Add what one frame says of each pixel."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        raw = frame.astype(np.float32)
        b = ((raw - picking.dark) if picking.dark.size else raw) / picking.norm
        z = (b - level) / std
        valid = np.isfinite(z) & picking.judge.counts(frame)
        total[0] += np.where(valid, np.minimum(z, MOST_DEVIATION), 0)
        total[1] += valid & (b - level > np.maximum(picking.noise, cutoff * np.hypot(std, picking.noise)))
        total[2] += np.where(level > 0, np.where(valid, np.minimum(b / level, MOST_RELATIVE), 0), valid)
    total[3] += valid


def _judge(totals: NDArray[np.float32], share: float, grow: int) -> NDArray[np.float32]:
    """(2, y, x): kind and deviation of each pixel."""
    z, above, relative, n = totals
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation = z / np.sqrt(n)
        limit = stats.norm.isf(FALSE_RATE / max(n.size, 1))
        hot = (deviation > limit) & (above >= share * n)
        shadow = (deviation < -limit) & (relative < 0.5 * n)
    if grow and shadow.any():
        shadow = ndimage.binary_dilation(shadow, iterations=grow) & (n > 0) & ~hot
    kind = np.where(hot, HOT, np.where(shadow, SHADOW, 0))
    return np.stack([kind.astype(np.float32), deviation])
