"""How many pixels of pure background a cutoff keeps: what "3 sd" means at the counts of a frame."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import stats

from mrczdask import schema
from mrczdask.diffraction.maps import RADIUS
from mrczdask.errors import MrczdaskError
from mrczdask.provenance import record

COUNTED: Final = ("poisson", "hybrid", "count")
NEEDED: Final = ("background_avg", "background_std", "pixel_radius", RADIUS)


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
        where a bin is empty; `threshold_counts` (shot, radius) float32, what a pixel of the ring must exceed;
        `expected_pixels` (shot) float32, how many pixels of background are kept of a frame: rings are counted about the
        geometry's own beam centre.

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
    pixels, norm = _rings(background)
    counted = background.attrs.get("error_model", "poisson") in COUNTED
    tables = [da.asarray(background[name].data) for name in NEEDED[:2]]
    like = {"dtype": np.float32, "meta": np.empty((0, 0), np.float32)}
    threshold = da.map_blocks(partial(_threshold, norm=norm, cutoff=cutoff_pick, noise=noise), *tables, **like)
    rate = da.map_blocks(partial(_rate, norm=norm, counted=counted), *tables, threshold, **like)
    dims = (schema.SHOT, RADIUS)
    values = {
        "false_positive_rate": (dims, rate),
        "threshold_counts": (dims, threshold),
        "expected_pixels": ((schema.SHOT,), da.nansum(rate * pixels.astype(np.float32), axis=1)),
    }
    coords = {name: background.coords[name] for name in (schema.SHOT, RADIUS)}
    settings = {"cutoff_pick": cutoff_pick, "noise": noise}
    return xr.Dataset(values, coords, record(background.attrs, "false_picks", settings))


def _rings(background: xr.Dataset) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pixels of each ring, and their mean normalization (1 for none)."""
    centres, radius = background[RADIUS].values, background["pixel_radius"].values
    step = (centres[-1] - centres[0]) / max(centres.size - 1, 1) or 1.0
    good = np.isfinite(radius)
    ring = np.clip(np.rint((radius[good] - centres[0]) / step), 0, centres.size - 1).astype(np.int64)
    pixels = np.bincount(ring, minlength=centres.size)
    if "normalization" not in background.coords:
        return pixels, np.ones(centres.size)
    total = np.bincount(ring, background["normalization"].values[good], centres.size)
    return pixels, np.where(pixels > 0, total / np.maximum(pixels, 1), 1.0)


def _threshold(average: Any, deviation: Any, norm: NDArray[Any], cutoff: float, noise: float) -> NDArray[np.float32]:
    least = np.maximum(noise, cutoff * np.hypot(deviation, noise))
    return np.asarray(((average + least) * norm[: average.shape[1]]).astype(np.float32))


def _rate(average: Any, deviation: Any, threshold: Any, norm: NDArray[Any], counted: bool) -> NDArray[np.float32]:
    w = norm[: average.shape[1]]
    with np.errstate(invalid="ignore", divide="ignore"):
        if counted:
            rate = stats.poisson.sf(threshold, np.maximum(average * w, 0))
        else:
            rate = stats.norm.sf((threshold / w - average) / deviation)
    return np.where(np.isnan(average), np.nan, rate).astype(np.float32)
