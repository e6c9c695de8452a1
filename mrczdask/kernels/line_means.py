"""Means of rows and columns that a few hot or dead pixels do not move."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

CLIP_SD: Final = 6.0
"""Pixels further from the median, in robust standard deviations, are left out: 2e-9 of normal ones."""
LEAST_GAIN: Final = 0.05
"""A line or pixel that counts less than this part of the others is dead."""
_SAMPLE: Final = 1 << 16
"""Pixels from which median and deviation are taken: 0.4 % of a standard deviation off."""
_GRID: Final = 32
"""Blocks across a gain to which a slow curve is fitted."""
_TERMS: Final = 6
_TIES: Final = 0.15
"""Share of pixels with the same value above which they are small integers: Poisson counts of 7 and fewer."""
MAD_TO_SD: Final = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


class LineMeans(NamedTuple):
    """Relative gain of rows (ny) and columns (nx), NaN where it is dead, and the noise of each.

    `row_error` and `column_error` are standard errors from the scatter of the pixels; `level` is the mean of the
    pixels that were used.
    """

    row: NDArray[np.float64]
    column: NDArray[np.float64]
    row_error: NDArray[np.float64]
    column_error: NDArray[np.float64]
    level: float


def robust_limits(image: NDArray[np.floating], clip_sd: float = CLIP_SD) -> tuple[float, float]:
    """Values within `clip_sd` robust standard deviations of the median, from a sample; finite pixels only."""
    step = max(image.size // _SAMPLE, 1) | 1  # odd: no line is sampled alone
    sample = image.reshape(-1)[::step]
    sample = sample[np.isfinite(sample)]
    if sample.size == 0:
        return 0.0, 0.0
    centre = float(np.median(sample))
    if np.count_nonzero(sample == centre) > _TIES * sample.size:
        return _limits_of_few_counts(sample, clip_sd)
    spread = MAD_TO_SD * float(np.median(np.abs(sample - centre)))
    return centre - clip_sd * spread, centre + clip_sd * spread


def _limits_of_few_counts(sample: NDArray[np.floating], clip_sd: float) -> tuple[float, float]:
    """The same of small integers, whose median and its deviations are those of no normal distribution.

    Mean and variance without the highest 1 %, and as much more above as Poisson counts are skew.
    """
    above = sample[sample > sample.min()]
    step = float(above.min() - sample.min()) if above.size else 0.0
    capped = np.minimum(sample, max(float(np.quantile(sample, 0.99)), sample.min() + step))
    centre, spread = float(capped.mean()), float(capped.std())
    spread = spread or float(np.sqrt(abs(centre)))  # of one value only
    return centre - clip_sd * spread, centre + clip_sd * spread + clip_sd**2 / 6 * step


def line_means(image: NDArray[np.floating], mask: NDArray[np.bool_] | None = None) -> LineMeans:
    """Fit image = level * row * column to the pixels that are good and not far off.

    Parameters
    ----------
    image : (y, x) float array
        A sum of frames.
    mask : (y, x) bool array, optional
        True = bad.
    """
    low, high = robust_limits(image)
    good = (image >= low) & (image <= high)
    if mask is not None:
        good &= ~mask
    used = np.where(good, image, 0).astype(np.float64)
    n_row, n_column = (np.maximum(good.sum(axis=axis), 0) for axis in (1, 0))
    total = n_row.sum()
    level = float(used.sum() / total) if total else 0.0
    if level <= 0:
        nothing = np.full(image.shape[0], np.nan), np.full(image.shape[1], np.nan)
        return LineMeans(*nothing, *nothing, level)
    weight = good.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        row = used.sum(axis=1) / n_row / level
        for _ in range(2):  # pixels left out make rows and columns not quite independent
            column = used.sum(axis=0) / (np.nan_to_num(row) @ weight) / level
            row = used.sum(axis=1) / (weight @ np.nan_to_num(column)) / level
        model = level * np.multiply.outer(row, column)
        residual = np.where(good & (model > 0), used / model - 1, 0.0)
        variance = float((residual**2).sum() / total)
        errors = row * np.sqrt(variance / n_row), column * np.sqrt(variance / n_column)
    for line in (row, column):
        line[~(line > LEAST_GAIN)] = np.nan
    return LineMeans(row, column, *errors, level)


def block_variation(image: NDArray[np.floating], size: int) -> float:
    """Variance between means of squares of `size` pixels, above what the scatter within them explains."""
    ny, nx = (n - n % size for n in image.shape)
    blocks = image[:ny, :nx].reshape(ny // size, size, nx // size, size)
    count = np.isfinite(blocks).sum(axis=(1, 3))
    used = count > size * size // 2
    if used.sum() < 2:
        return 0.0
    n = np.maximum(count, 1)
    mean = np.nansum(blocks, axis=(1, 3)) / n
    within = np.maximum(np.nansum(blocks**2, axis=(1, 3)) / n - mean**2, 0)
    return max(float(mean[used].var() - (within / n)[used].mean()), 0.0)


def slow_share(gain: NDArray[np.floating], bad: NDArray[np.bool_]) -> float:
    """Part of the variance of the good pixels of a gain that one polynomial of the second degree explains."""
    steps = [max(n // _GRID, 1) for n in gain.shape]
    ny, nx = (n - n % step for n, step in zip(gain.shape, steps, strict=True))
    blocks = (ny // steps[0], steps[0], nx // steps[1], steps[1])
    good = ~bad[:ny, :nx]
    count = good.reshape(blocks).sum(axis=(1, 3))
    mean = np.where(good, gain[:ny, :nx], 0.0).reshape(blocks).sum(axis=(1, 3)) / np.maximum(count, 1)
    total = float(np.var(gain[~bad])) if good.any() else 0.0
    used = count > 0
    if total <= 0 or used.sum() < _TERMS + 1:
        return 0.0
    y, x = (c[used] for c in np.meshgrid(*(np.linspace(-1, 1, n) for n in mean.shape), indexing="ij"))
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1) * np.sqrt(count[used])[:, None]
    fit = terms @ np.linalg.lstsq(terms, mean[used] * np.sqrt(count[used]), rcond=None)[0] / np.sqrt(count[used])
    weight = count[used] / count[used].sum()
    return float((weight * (fit - weight @ fit) ** 2).sum() / total)
