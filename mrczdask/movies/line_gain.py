"""The gain from means over many movies: of rows and columns, of pixels shrunk scale by scale, and their deviation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import dask
import numpy as np
from numpy.typing import NDArray

from mrczdask.execution.progress import Progress, track
from mrczdask.execution.regions import run_regions
from mrczdask.execution.shared import shared
from mrczdask.kernels.line_means import LEAST_GAIN, MAD_TO_SD, LineMeans, block_variation, line_means, robust_limits
from mrczdask.kernels.shrink import Spectrum, shrink
from mrczdask.movies.ranked_images import NOT_FINITE, Group, Movies

BLOCK_PIXELS: Final = 16
"""Squares whose means tell how much the specimen of a movie varies: larger than the correlation of noise."""
MEDIAN_SD: Final = 1.2533
"""Standard deviation of a median over that of a mean, normal values."""
FEW: Final = 5
"""Movies from which on their scatter, not that of the pixels, gives the error of a line."""
OUTLIER_SD: Final = 6.0
"""A pixel further off is a fact of its own and is not shrunk with the others."""
TARGET_R2: Final = 0.95
FEWEST_IMAGES: Final = 3
"""Images from which a standard deviation has a meaning."""
MOST_TIMES: Final = 1e6
"""Times the movies at hand beyond which the target is called out of reach."""


class MovieLines(NamedTuple):
    """What one movie says: its lines, its sum over its mean, and the variance of a pixel of that."""

    lines: LineMeans
    relative: NDArray[np.float32]
    variance: float


@dataclass
class GainSums:
    """Running sums over movies: a further movie is added, no earlier one is looked at again.

    Two halves, movies taken by turns, are kept apart: what they share is gain, what they do not is noise.
    """

    shape: tuple[int, int]
    rows: list[NDArray[np.float64]] = field(default_factory=list)
    columns: list[NDArray[np.float64]] = field(default_factory=list)
    errors: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = field(default_factory=list)
    weight: list[float] = field(default_factory=lambda: [0.0, 0.0])
    noise: float = 0.0

    def __post_init__(self) -> None:
        self.halves = [np.zeros(self.shape), np.zeros(self.shape)]

    def add(self, movie: MovieLines) -> None:
        """Take in one more movie."""
        half = len(self.rows) % 2
        weight = 1 / movie.variance
        self.halves[half] += weight * movie.relative
        self.weight[half] += weight
        self.rows.append(movie.lines.row)
        self.columns.append(movie.lines.column)
        self.errors.append((movie.lines.row_error, movie.lines.column_error))

    @property
    def pixel_mean(self) -> NDArray[np.float64]:
        """Weighted mean over the movies of each divided by its mean."""
        return np.asarray((self.halves[0] + self.halves[1]) / sum(self.weight))


class Lines(NamedTuple):
    """Gain of rows and columns with standard errors, median over movies."""

    row: NDArray[np.float64]
    column: NDArray[np.float64]
    row_error: NDArray[np.float64]
    column_error: NDArray[np.float64]

    @property
    def gain(self) -> NDArray[np.float64]:
        """(y, x); NaN in lines that do not count."""
        return np.multiply.outer(self.row, self.column)

    @property
    def relative_variance(self) -> NDArray[np.float64]:
        """(y, x) of the gain."""
        return np.add.outer((self.row_error / self.row) ** 2, (self.column_error / self.column) ** 2)


@dataclass(frozen=True)
class HybridGain:
    """A gain to divide by with its uncertainty, and how well it should do."""

    gain: NDArray[np.float64]
    uncertainty: NDArray[np.float64]
    expected_r2: float
    times_to_target: float


def movie_lines(image: Any, mask: NDArray[np.bool_], counts_per_electron: float, reference: Any = None) -> MovieLines:
    """Lines and relative image of one sum of frames (1, y, x), multiplied by `reference` where there is one."""
    total = np.asarray(image[0], np.float64) * (1.0 if reference is None else reference)
    if not np.isfinite(total).all():
        raise ValueError(NOT_FINITE)
    lines = line_means(total, mask)
    if not lines.level > 0:
        raise ValueError(f"the mean of a movie is {lines.level:.3g}: subtract the dark reference or the offset first")
    relative = (total / lines.level).astype(np.float32)
    low, high = robust_limits(relative)
    model = np.nan_to_num(np.multiply.outer(lines.row, lines.column))
    used = (relative >= low) & (relative <= high) & (model > 0)
    flat = np.where(used, relative / np.where(used, model, 1), np.nan)
    specimen = block_variation(flat, max(min(BLOCK_PIXELS, *(n // 2 for n in total.shape)), 1))
    return MovieLines(lines, relative, counts_per_electron / lines.level + specimen)


def gather(movies: Movies, groups: Sequence[Group], progress: Progress, reference: Any = None) -> GainSums:
    """Sum every group and take its lines."""
    task = dask.delayed(movie_lines, pure=False)
    known = shared(movies.mask), movies.counts_per_electron, shared(reference)
    tasks = ((None, task(shared(group.of(movies)), *known)) for group in groups)
    sums = GainSums(movies.shape)
    with track(progress, len(groups), "gain, movies") as advance:
        for _, found in run_regions(tasks, on_done=advance):
            sums.add(found)
    return sums


def movie_groups(movies: Movies) -> list[Group]:
    """A sum a movie; of a single one its even and its odd halves in time, so that noise can be told from gain."""
    n = movies.n_frames
    if movies.n_movies > 1 or n == 1:
        return [Group(m, m + 1, 0, n, True) for m in range(movies.n_movies)]
    return [Group(0, 1, 0, n // 2, True), Group(0, 1, n // 2, n, True)]


def median_lines(sums: GainSums) -> Lines:
    """Median over movies of the gain of rows and columns, each of mean 1."""
    found = [*_median(sums.rows, [e[0] for e in sums.errors]), *_median(sums.columns, [e[1] for e in sums.errors])]
    return Lines(found[0], found[2], found[1], found[3])


def _median(profiles: list[NDArray[np.float64]], errors: list[NDArray[np.float64]]) -> Iterator[NDArray[np.float64]]:
    stack = np.stack(profiles)
    n = len(stack)
    silent = ~np.isfinite(stack).any(axis=0)
    stack[:, silent] = 1.0
    middle = np.nanmedian(stack, axis=0)
    middle[silent] = np.nan
    if n >= FEW:
        spread = MAD_TO_SD * np.nanmedian(np.abs(stack - middle)[:, ~silent], axis=0)
        error = MEDIAN_SD * np.sqrt(np.nanmean(spread**2) / n) * np.ones_like(middle)
    else:
        error = np.sqrt(np.mean(np.square(errors), axis=0) / n)  # NaN of a line silent in one of a few movies
    mean = np.nanmean(middle)
    yield middle / mean
    yield error / mean


def hybrid_gain(sums: GainSums, lines: Lines, mask: NDArray[np.bool_], electrons: float) -> HybridGain:
    """Rows and columns times a residual shrunk scale by scale; `electrons` a pixel in all."""
    good = np.isfinite(lines.gain) & ~mask
    model = np.where(good, lines.gain, 1.0)
    parts = [
        _residual(half / weight, model, good) for half, weight in zip(sums.halves, sums.weight, strict=True) if weight
    ]
    share = sums.weight[0] / sum(sums.weight)
    whole = _residual(sums.pixel_mean, model, good)
    low, high = robust_limits(whole, OUTLIER_SD)
    outlier = good & ((whole < low) | (whole > high))
    inner = [np.where(outlier, 0.0, part) for part in parts]
    second = inner[1] if len(inner) > 1 else None
    smooth, spectrum = shrink(inner[0], second, share, 1 / electrons)
    gain = model * (1 + np.where(outlier, whole, smooth))
    gain /= gain[good].mean()
    local = np.where(outlier, spectrum.noise_variance, spectrum.error()) / np.maximum(gain, LEAST_GAIN)
    variance = np.nan_to_num(lines.relative_variance) + local
    return HybridGain(gain, gain * np.sqrt(variance), *_outlook(lines, spectrum))


def _residual(mean: NDArray[np.float64], model: NDArray[np.float64], good: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What a mean image holds beyond rows and columns, whose own means are taken out again."""
    out = np.where(good, mean / model - 1, 0.0)
    low, high = robust_limits(out)
    for axis in (1, 0):
        used = good & (out >= low) & (out <= high)
        line = np.where(used, out, 0).sum(axis=axis, keepdims=True) / np.maximum(used.sum(axis=axis, keepdims=True), 1)
        out = np.where(good, out - line, 0.0)
    return out


def _outlook(lines: Lines, spectrum: Spectrum) -> tuple[float, float]:
    """Expected R2 of the gain, and how many times the movies at hand reach the target; NaN where there is no gain."""
    noise = float(np.nanmean(lines.row_error**2) + np.nanmean(lines.column_error**2))
    signal = max(float(np.nanvar(lines.row) + np.nanvar(lines.column)) - noise, 0.0) + spectrum.variance
    if signal <= 0:
        return np.nan, np.nan

    def r2(times: float) -> float:
        return 1 - (noise / times + spectrum.error(times)) / signal

    if r2(MOST_TIMES) < TARGET_R2:
        return r2(1), np.inf
    low, high = 0.0, np.log(MOST_TIMES)
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if r2(np.exp(middle)) >= TARGET_R2 else (middle, high)
    return r2(1), 1.0 if r2(1) >= TARGET_R2 else float(np.exp(high))


def pixel_deviation(
    movies: Movies, groups: Sequence[Group], progress: Progress
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Standard deviation of every pixel over the images, each divided by its mean; and its standard error."""
    task = dask.delayed(_moments, pure=False)
    n, total, squares = 0, np.zeros(movies.shape), np.zeros(movies.shape)
    with track(progress, len(groups), "gain, deviation") as advance:
        for _, part in run_regions(((None, task(shared(g.of(movies)))) for g in groups), on_done=advance):
            n, total, squares = n + part[0], total + part[1], squares + part[2]
    if n < FEWEST_IMAGES:
        raise ValueError(
            f'method="deviation" needs {FEWEST_IMAGES} images and has {n}: give more movies, or sum_to=None to take '
            "every frame as an image"
        )
    deviation = np.sqrt(np.maximum(squares - total**2 / n, 0) / (n - 1))
    if not deviation.any():
        raise ValueError("no pixel varies: all images are the same")
    deviation /= deviation.mean()
    return deviation, deviation / np.sqrt(2 * (n - 1))


def _moments(images: Any) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
    """Number, sum and sum of squares of images of mean 1."""
    total, squares = np.zeros(images.shape[1:]), np.zeros(images.shape[1:])
    for image in images:
        relative = image / image.mean()
        if not np.isfinite(relative).all():
            raise ValueError(NOT_FINITE)
        total += relative
        squares += relative * relative
    return len(images), total, squares
