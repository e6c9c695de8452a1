"""How many pixels of pure background a cutoff keeps: what "3 sd" means at the counts of a frame."""

from __future__ import annotations

from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import stats

from mrczdask import schema
from mrczdask.diffraction.beams import center_rows
from mrczdask.diffraction.maps import NEEDED, RADIUS, PixelMaps, pixel_maps
from mrczdask.diffraction.shots import on_workers, shot_map
from mrczdask.errors import MrczdaskError
from mrczdask.execution.blocks import whole_blocks
from mrczdask.io.sparse_table import SECTOR
from mrczdask.provenance import record

COUNTED: Final = ("poisson", "hybrid", "count")
_RINGS: Final = np.dtype([("pixels", np.float32), ("norm", np.float64)])


def false_picks(background: xr.Dataset, *, cutoff_pick: float = 3.0, noise: float | None = None) -> xr.Dataset:
    """Predict the share of background pixels that `sparsify` keeps at a cutoff.

    Parameters
    ----------
    background : Dataset
        What `separate_background` gave.
    cutoff_pick : float
        As in `sparsify`, in deviations.
    noise : float, optional
        Deviation of the detector, in counts; that of the background by default.

    Returns
    -------
    Dataset
        Lazy. `false_positive_rate` (shot, radius) float32, the probability that a pixel without signal is kept, NaN
        where a bin is empty; `threshold_counts` (shot, radius) float32, what a pixel of the ring must exceed; both are
        (shot, sector, radius) where the background is. `expected_pixels` (shot) float32, how many pixels of background
        are kept of a frame: rings are counted about the beam of each shot.

    Raises
    ------
    MrczdaskError
        The background lacks something.
    ValueError
        `cutoff_pick` or `noise` is negative.

    Notes
    -----
    With w the mean normalization of the ring, B the background and t = w (B + max(noise, cutoff_pick sqrt(std^2 +
    noise^2))): P(X > t) of a Poisson count X of mean w B, for the models that count; for "azimuthal" that of a normal
    number of mean B and deviation std. With a noise of 1, "3 sd" of 0.2 counts are t = 3.4 counts.

    References
    ----------
    Kieffer et al., J. Appl. Cryst. 58 (2025): 16, 2.3 and 0.13 % of a normal background at 1, 2 and 3 deviations.

    Examples
    --------
    >>> import numpy as np
    >>> import mrczdask as md
    >>> frames = np.random.default_rng(0).poisson(0.2, (2, 128, 128))
    >>> background = md.separate_background(frames, md.Geometry.flat((128, 128)), bins=8, unit="pixel", noise=0.0,
    ...     error_model="count")
    >>> rate = md.false_picks(background, cutoff_pick=3.0).false_positive_rate
    >>> round(float(rate.mean()), 3)
    0.018
    """
    missing = [name for name in NEEDED if name not in background.variables]
    if missing:
        raise MrczdaskError(f"the background lacks {', '.join(missing)}: give what separate_background returns")
    noise = float(background.attrs.get("noise", 0.0)) if noise is None else float(noise)
    if cutoff_pick < 0 or noise < 0:
        raise ValueError(f"cutoff_pick={cutoff_pick}, noise={noise}: neither may be negative")
    counted = background.attrs.get("error_model", "poisson") in COUNTED
    dims = background["background_avg"].dims
    average, deviation = (da.asarray(background[name].data) for name in NEEDED[:2])
    whole = dict.fromkeys(range(1, len(dims)), -1)
    average = average.rechunk(whole)
    deviation = deviation.rechunk({0: average.chunks[0], **whole})
    rings = _rings(background, average)
    like = {"dtype": np.float32, "meta": np.empty((0,) * len(dims), np.float32)}
    limits = {"cutoff": cutoff_pick, "noise": noise}
    threshold = da.map_blocks(_threshold, average, deviation, rings["norm"], **limits, **like)
    rate = da.map_blocks(_rate, average, deviation, threshold, rings["norm"], counted=counted, **like)
    values = {
        "false_positive_rate": (dims, rate),
        "threshold_counts": (dims, threshold),
        "expected_pixels": ((schema.SHOT,), da.nansum(rate * rings["pixels"], axis=tuple(range(1, len(dims))))),
    }
    coords = {name: background.coords[name] for name in (schema.SHOT, SECTOR, RADIUS) if name in background.coords}
    settings = {"cutoff_pick": cutoff_pick, "noise": noise}
    return xr.Dataset(values, coords, record(background.attrs, "false_picks", settings))


def _rings(background: xr.Dataset, average: da.Array) -> da.Array:
    """`_RINGS` of each bin: (shot, ...) in the chunks of the averages, or of one shot for all where the beam stands."""
    maps, shape = pixel_maps(background), average.shape[1:]
    rows, _ = center_rows(background, average.chunks[0])
    if rows is None:
        return da.from_array(_counted(maps).reshape(1, *shape), chunks=-1)
    return shot_map(_count_chunk, rows, shape=shape, dtype=_RINGS, maps=on_workers(maps))


@whole_blocks
def _count_chunk(centers: NDArray[np.float64], *, maps: PixelMaps) -> NDArray[Any]:
    found = np.stack([_counted(maps.at(center)) for center in centers])
    return found if maps.sectors > 1 else found[:, 0]


def _counted(maps: PixelMaps) -> NDArray[Any]:
    """(sector, radius) of pixels, and of their mean normalization (1 for none)."""
    places, n = maps.places(), maps.centres.size
    good = np.isfinite(places.radial)
    cell = np.clip(np.rint(places.radial[good]), 0, n - 1).astype(np.int64)
    if maps.sectors > 1:
        cell += n * (np.rint(places.azimuthal[good]).astype(np.int64) % maps.sectors)
    pixels = np.bincount(cell, minlength=n * maps.sectors)
    total = np.bincount(cell, maps.norm.reshape(-1)[good], pixels.size)
    found = np.empty((maps.sectors, n), _RINGS)
    found["pixels"] = pixels.reshape(found.shape)
    found["norm"] = np.where(pixels > 0, total / np.maximum(pixels, 1), 1.0).reshape(found.shape)
    return found


def _threshold(average: Any, deviation: Any, norm: NDArray[Any], cutoff: float, noise: float) -> NDArray[np.float32]:
    least = np.maximum(noise, cutoff * np.hypot(deviation, noise))
    return np.asarray(((average + least) * norm).astype(np.float32))


def _rate(average: Any, deviation: Any, threshold: Any, norm: NDArray[Any], counted: bool) -> NDArray[np.float32]:
    with np.errstate(invalid="ignore", divide="ignore"):
        if counted:
            rate = stats.poisson.sf(threshold, np.maximum(average * norm, 0))
        else:
            rate = stats.norm.sf((threshold / norm - average) / deviation)
    return np.where(np.isnan(average), np.nan, rate).astype(np.float32)
