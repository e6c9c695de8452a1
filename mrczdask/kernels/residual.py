"""What a residual gain image looks like: its spread, its broken lines, the specimen in it."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mrczdask.kernels.line_means import MAD_TO_SD

NEIGHBOURS: Final = 31
"""Lines whose median a line is compared with: a line is broken against those around it, not against a slow trend."""
BROKEN_SD: Final = 6.0
BROKEN_LEAST: Final = 0.05
"""Robust standard deviations, and relative gain, by which a broken line is off."""
_ACROSS: Final = 128
"""Squares across an image in which structures are looked for."""
_FINE, _COARSE = 1.0, 8.0
"""Band of sizes of the structures, in squares: particles are 1 to 10 % of a micrograph across."""


class Spread(NamedTuple):
    """Statistics that the alarms judge."""

    std: float
    percentile_ratio: float
    max_ratio: float
    std_all: float
    low: float
    high: float
    minimum: float
    maximum: float


def spread(gain: NDArray[np.floating], bad: NDArray[np.bool_]) -> Spread:
    """Deviation and percentiles of good pixels, maximum and deviation of all; the gain is scaled to mean 1 first."""
    scaled = gain / gain[~bad].mean()
    good = scaled[~bad]
    low, high = (float(v) for v in np.percentile(good, (2.5, 97.5)))
    top = float(scaled.max())
    ratios = high / low if low > 0 else np.inf, top / high if high > 0 else np.inf
    return Spread(float(good.std()), *ratios, float(scaled.std()), low, high, float(scaled.min()), top)


def broken_lines(profile: NDArray[np.floating], error: NDArray[np.floating]) -> NDArray[np.int64]:
    """Lines that are dead (NaN) or far off their neighbours."""
    dead = ~np.isfinite(profile)
    if dead.all():
        return np.flatnonzero(dead)
    filled = np.where(dead, np.nanmedian(profile), profile)
    off = filled - ndimage.median_filter(filled, min(NEIGHBOURS, filled.size), mode="mirror")
    usual = MAD_TO_SD * float(np.median(np.abs(off[~dead])))
    limit = np.maximum(BROKEN_SD * np.maximum(usual, np.nan_to_num(error)), BROKEN_LEAST)
    return np.flatnonzero(dead | (np.abs(off) > limit))


class Structure(NamedTuple):
    """How alike residual gain and specimen are, and how much more the residual varies than white noise would."""

    correlation: float
    excess: float


def structure(gain: NDArray[np.floating], image: NDArray[np.floating], bad: NDArray[np.bool_]) -> Structure:
    """Compare a residual gain with the mean image in the band of sizes where particles are.

    Rows and columns are taken out first, bad pixels take the mean.
    """
    size = max(min(image.shape) // _ACROSS, 1)
    flat = [_without_lines(np.where(bad, np.nan, array)) for array in (gain, image)]
    residual, specimen = (_band(_binned(array, size)) for array in flat)
    if not (residual.std() > 0 and specimen.std() > 0):
        return Structure(0.0, 0.0)
    white = flat[0].std() / size * _white_response()
    return Structure(float(np.corrcoef(residual.ravel(), specimen.ravel())[0, 1]), float(residual.std() / white))


def histogram_spread(image: NDArray[np.floating], bad: NDArray[np.bool_]) -> float:
    """How much more the variances of lines differ than samples of one histogram do; the larger of rows and columns."""
    return max(_variance_ratio(np.where(bad, np.nan, image), axis) for axis in (0, 1))


def _variance_ratio(image: NDArray[np.floating], axis: int) -> float:
    count = np.isfinite(image).sum(axis=axis, keepdims=True)
    whole = (count > image.shape[axis] // 2).squeeze()
    if whole.sum() < 2:
        return 1.0
    n = np.maximum(count, 1)
    mean = np.nansum(image, axis=axis, keepdims=True) / n
    centred = np.nan_to_num(image - mean)
    # counting noise has a variance in proportion to the gain of the line: that is no unlike histogram
    variance = ((centred**2).sum(axis=axis, keepdims=True) / n / np.where(mean > 0, mean, 1)).squeeze()[whole]
    fourth = ((centred**4).sum(axis=axis, keepdims=True) / n / np.where(mean > 0, mean, 1) ** 2).squeeze()[whole]
    level = variance.mean()
    expected = (fourth.mean() - level**2) / n.mean()
    return float(variance.var() / expected) if expected > 0 else 1.0


def _without_lines(image: NDArray[np.floating]) -> NDArray[np.floating]:
    out = image
    for axis in (1, 0):
        n = np.maximum(np.isfinite(out).sum(axis=axis, keepdims=True), 1)
        out = out - np.nansum(out, axis=axis, keepdims=True) / n
    return np.nan_to_num(out)


def _binned(image: NDArray[np.floating], size: int) -> NDArray[np.floating]:
    ny, nx = (n - n % size for n in image.shape)
    return image[:ny, :nx].reshape(ny // size, size, nx // size, size).mean(axis=(1, 3))


def _band(image: NDArray[np.floating]) -> NDArray[np.floating]:
    smooth = [ndimage.gaussian_filter(image, sigma, mode="mirror") for sigma in (_FINE, _COARSE)]
    return np.asarray(smooth[0] - smooth[1])


def _white_response() -> float:
    """Standard deviation of the band of white noise of deviation 1."""
    impulse = np.zeros((_ACROSS, _ACROSS))
    impulse[_ACROSS // 2, _ACROSS // 2] = 1
    return float(np.sqrt((_band(impulse) ** 2).sum()))
