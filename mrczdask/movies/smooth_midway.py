"""The gain by smooth midway equalisation (SME) of frames: rows and columns should have the same histogram."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import dask
import numpy as np
from numpy.typing import NDArray

from mrczdask.execution.progress import Progress, track
from mrczdask.execution.regions import run_regions
from mrczdask.execution.shared import shared
from mrczdask.kernels.gain_ratio import line_moments, ratio_of_sums, relative_error, scatter_about_lines
from mrczdask.kernels.midway import Midway, Workspace, add_midway
from mrczdask.movies.ranked_images import NOT_FINITE, Group, Movies

MOST_ITERATIONS: Final = 30
CONVERGED: Final = 1e-4
"""Root mean square change of the gain at which iterations end: below any residual that the alarms judge."""


class MidwaySums(NamedTuple):
    """Running sums over images: what was recorded, what it should have been, the sigmas taken.

    Of one region they are small: fresh memory costs as much as the work on it. Over regions they are float64.
    """

    recorded: NDArray[Any]
    ideal: NDArray[np.floating]
    sigmas: list[tuple[float, float]]


@dataclass(frozen=True)
class MidwayGain:
    """A gain to divide by, mean 1 over good pixels; `change` is the root mean square change of each iteration."""

    gain: NDArray[np.float32]
    uncertainty: NDArray[np.floating]
    defect: NDArray[np.bool_]
    change: list[float]
    sigma: tuple[float, float]


def midway_sums(
    images: Any, gain: NDArray[np.float32] | None, how: Midway, reference: NDArray[np.float32] | None = None
) -> MidwaySums:
    """Sums over images (image, y, x), multiplied by `reference`, of themselves and of their equalised forms (eq. 7)."""
    dtype = images.dtype if reference is None else np.result_type(images.dtype, np.float32)
    recorded, ideal = np.zeros(images.shape[1:], _sum_dtype(dtype)), np.zeros(images.shape[1:], np.float32)
    work, sigmas = Workspace(), []
    for raw in images:
        image = raw if reference is None else raw * reference
        recorded += image
        corrected = image if gain is None else image / gain
        if corrected.dtype.kind == "f" and not np.isfinite(corrected).all():
            raise ValueError(NOT_FINITE)
        sigmas.append(add_midway(corrected, how, ideal, work))
    return MidwaySums(recorded, ideal, sigmas)


def _sum_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Exact for the integers of a region: it holds 256 MB at most, so 2**16 frames of at least 2**12 pixels."""
    return np.dtype(np.int32 if dtype.kind in "bui" and dtype.itemsize == 1 else np.float64)


def midway_ratio(recorded: Any, ideal: Any, mask: Any, gain: NDArray[np.float32]) -> tuple[NDArray[np.bool_], float]:
    """Equation 7 into `gain`, mean 1 over good pixels; the pixels without one, whose gain is 1, and the change."""
    defect = np.empty(recorded.shape, np.bool_)
    n_good, change = ratio_of_sums(recorded, ideal, mask, gain, defect)
    if not n_good:
        raise ValueError("no pixel is good: all are masked or have counted nothing")
    return defect, float(change)


def midway_gain(
    movies: Movies,
    groups: Sequence[Group],
    how: Midway,
    *,
    iterations: int | str = 1,
    progress: Progress = None,
    reference: Any = None,
) -> MidwayGain:
    """Iterate equation 7 from a gain of 1, on images multiplied by `reference` where there is one."""
    gain, defect = np.ones(movies.shape, np.float32), np.zeros(movies.shape, bool)
    change: list[float] = []
    factor = shared(reference)
    for n in range(MOST_ITERATIONS if iterations == "converge" else int(iterations)):
        known = None if n == 0 else shared(gain)
        with track(progress, len(groups), f"gain, iteration {n + 1}") as advance:
            sums = _all_sums(movies, groups, (known, how, factor), advance)
        defect, step = midway_ratio(sums.recorded, sums.ideal, movies.mask, gain)
        change.append(step)
        if iterations == "converge" and change[-1] < CONVERGED:
            break
    share = 1.0 if how.sequential else 1 - 0.5 ** len(change)
    sigma_x, sigma_y = np.median(sums.sigmas, axis=0)
    uncertainty = _uncertainty(gain, sums.recorded, ~(defect | movies.mask), share)
    return MidwayGain(gain, uncertainty, defect, change, (float(sigma_x), float(sigma_y)))


def _all_sums(
    movies: Movies, groups: Sequence[Group], known: tuple[Any, ...], advance: Callable[[], None]
) -> MidwaySums:
    region = dask.delayed(midway_sums, pure=False)
    tasks = ((group, region(shared(group.of(movies)), *known)) for group in groups)
    total: MidwaySums | None = None
    for _, part in run_regions(tasks, on_done=advance):
        if total is None:
            total = MidwaySums(part.recorded.astype(np.float64), part.ideal.astype(np.float64), part.sigmas)
        else:
            np.add(total.recorded, part.recorded, out=total.recorded)
            np.add(total.ideal, part.ideal, out=total.ideal)
            total.sigmas.extend(part.sigmas)
    assert total is not None
    return total


def _uncertainty(gain: Any, recorded: Any, good: Any, share: float) -> NDArray[np.floating]:
    """Standard error: of the means of a row and a column, and the scatter of the pixels about them."""
    by_row, by_column = line_moments(recorded, gain, good)
    n, first, second, _ = by_row.sum(axis=0)
    level = first / n
    usual = max(second / n - level**2, 0.0)
    row, column = (share**2 * _mean_variance(moments, usual) / level**2 for moments in (by_row, by_column))
    means = [moments[:, 3] / np.maximum(moments[:, 0], 1) for moments in (by_row, by_column)]
    return np.asarray(relative_error(gain, row, column, scatter_about_lines(gain, means[0], means[1], good)))


def _mean_variance(moments: NDArray[np.float64], usual: float) -> NDArray[np.float64]:
    """Variance of the means of lines; that of a whole image for lines with fewer than two good pixels."""
    n = np.maximum(moments[:, 0], 1)
    variance = np.where(moments[:, 0] > 1, moments[:, 2] / n - (moments[:, 1] / n) ** 2, usual)
    return np.asarray(np.maximum(variance, 0) / n)
