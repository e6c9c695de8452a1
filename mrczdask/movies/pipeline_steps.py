"""The three passes of `process_session`, each on what is stored: tasks that read, compute and write one region."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from mrczdask.execution.resume import compute_here
from mrczdask.io.archive_plan import write_shard
from mrczdask.kernels import fill, normalise
from mrczdask.kernels.background import moments, pattern, subtract, wiener_share
from mrczdask.kernels.correlation import add_standardised, mean_correlation
from mrczdask.kernels.outlier_tails import find_by_cdf
from mrczdask.kernels.outliers import DEAD, HOT, Outliers, find_by_fdr
from mrczdask.kernels.usable import NONE_UNUSABLE, Unusable, add_floats, unusable
from mrczdask.kernels.window import KnownMeans, Lacking, Window, fixed_parts, unit_of
from mrczdask.movies.koma_choice import SCALES, contrast
from mrczdask.movies.sums import sum_dtype

FDR_Q: Final = 0.05
CDF_K: Final = 6.0
CDF_RHO: Final = 0.95
REPORT: Final = (
    "level",
    "n_hot",
    "n_dead",
    "threshold_hot",
    "threshold_dark",
    "variance",
    *(f"contrast_{box}" for box in SCALES),
    "correlation_before",
    "judged",
    "n_unlit",
)
"""What the first pass reports of a movie: electrons per pixel, pixels, standard deviations, counts^2, relative, R,
share, pixels."""


class Unread:
    """A movie (frame, y, x) that a task reads itself: no dataclass, in which Dask would find and compute it before."""

    def __init__(self, pixels: da.Array):
        self.pixels = pixels

    def blocks(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """First frame and pixels of each chunk of whole frames."""
        first = 0
        for count in self.pixels.chunks[0]:
            yield first, compute_here(self.pixels[first : first + count])
            first += count


@dataclass(frozen=True)
class Alone:
    """What is done to a movie without the others."""

    exponent: float
    outliers: str | None
    per_electron: float

    def factor(self, gain: NDArray[np.float32] | None, size: tuple[int, ...]) -> NDArray[np.float32]:
        """The factor of every pixel."""
        if gain is None:
            return np.ones(size, np.float32)
        return gain if self.exponent == 1 else np.power(gain, np.float32(self.exponent))

    def find(self, image: NDArray[np.float64], bad: NDArray[np.bool_] | None) -> Outliers | None:
        """Outliers of a corrected sum."""
        electrons = image / self.per_electron if self.per_electron != 1 else image
        if self.outliers is None:
            return None
        if self.outliers == "fdr":
            return find_by_fdr(electrons, FDR_Q, bad)
        return find_by_cdf(electrons, CDF_K, CDF_RHO, bad)


def sum_movie(
    movie: Unread,
    place: int,
    alone: Alone,
    gain: NDArray[np.float32] | None,
    dark: NDArray[np.float32] | None,
    known: NDArray[np.bool_] | None,
    arrays: dict[str, Any],
) -> None:
    """First pass: sum a movie, find its outliers, fill them in the sum, and store all of it."""
    total, frames, correlation, first = _sum(movie)
    corrected = np.empty((1, *total.shape))
    shadow = None if dark is None else dark * np.float64(frames)
    normalise.correct(total[None], alone.factor(gain, total.shape), shadow, corrected)
    odd = unusable(corrected[0]) if total.dtype.kind == "f" else None
    bad = known if odd is None else odd if known is None else known | odd
    found = alone.find(_judged(corrected[0], odd), bad)
    kind = np.zeros(total.shape, np.uint8) if found is None else found.kind
    weight = None if found is None else found.weight
    if bad is not None:
        kind[bad] = DEAD
        weight = None if weight is None else np.where(bad, np.float32(0), weight)
    filled = np.empty_like(corrected)
    fill.fill(corrected, fill.make_plan(kind > 0, weight), filled)
    if odd is not None and bad is not None and bad.all():
        filled[:] = np.nan  # nothing to fill it from: it takes no part in any window
    arrays["sums"][place] = total
    arrays["corrected"][place] = filled[0]
    arrays["defect_kind"][place] = kind
    if "weight" in arrays and weight is not None:
        arrays["weight"][place] = weight
    if "unusable" in arrays:
        arrays["unusable"][place] = np.array([0 if odd is None else np.count_nonzero(odd), *first[1:]])
    hot, dark_at = (np.nan, np.nan) if found is None else (found.threshold_hot, found.threshold_dark)
    counts = np.bincount(kind.ravel(), minlength=3)
    electrons = filled[0] / alone.per_electron
    numbers = [float(electrons.mean()), counts[HOT], counts[DEAD], hot, dark_at, moments(filled[0], known).variance]
    judged = (np.nan, np.nan) if found is None else (found.judged, found.unlit)
    arrays["report"][place] = np.array([*numbers, *(contrast(electrons, box) for box in SCALES), correlation, *judged])


def _judged(image: NDArray[np.float64], odd: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """An image whose outliers are looked for: its median stands where it is no number."""
    if odd is None:
        return image
    return np.where(odd, 0.0 if odd.all() else np.median(image[~odd]), image)


def _sum(movie: Unread) -> tuple[NDArray[Any], int, float, Unusable]:
    """Sum of the frames, their number, their mean correlation and the first value that is no number, in one pass."""
    size = movie.pixels.shape[1:]
    total, standard = np.zeros(size, sum_dtype(movie.pixels.dtype)), np.zeros(size)
    frames, first = 0, NONE_UNUSABLE
    for start, block in movie.blocks():
        if block.dtype.kind == "f":
            found = add_floats(block, total)
            if found.values and not first.values:
                first = found._replace(frame=start + found.frame)
        else:
            total += block.sum(axis=0, dtype=total.dtype)
        add_standardised(block, standard)
        frames += len(block)
    return total, frames, mean_correlation(standard, frames), first


def members_of(window: Window, places: Sequence[int]) -> list[int]:
    """The movies whose sums are averaged in a window."""
    return [places[rank] for rank in range(window.start, window.stop) if rank != window.own]


def make_windows(
    rows: slice, windows: Sequence[Window], places: Sequence[int], group: int, corrected: Any, reference: Any
) -> None:
    """Second pass: the means of the windows in a band of rows, moving from movie to movie."""
    unit = unit_of(corrected.dtype)
    held: dict[int, tuple[NDArray[np.int64], Lacking | None]] = {}

    def parts(rank: int) -> tuple[NDArray[np.int64], Lacking | None]:
        if rank not in held:
            held[rank] = fixed_parts(corrected[places[rank], rows])
        return held[rank]

    moving = KnownMeans(lambda rank: parts(rank)[0], lambda rank: parts(rank)[1], unit)
    for first in range(0, len(windows), group):
        means = []
        for window in windows[first : first + group]:
            means.append(moving.mean(window))
            for rank in [rank for rank in held if rank < window.start - 1]:
                del held[rank]
        reference[first : first + len(means), rows] = np.stack(means)


@dataclass(frozen=True)
class Background:
    """What is subtracted from a movie: where its reference is stored, and the spread of the sums in it."""

    single: float
    size: int
    plain: bool


def correct_movie(
    movie: Unread,
    place: int,
    alone: Alone,
    background: Background | None,
    gain: NDArray[np.float32] | None,
    dark: NDArray[np.float32] | None,
    known: NDArray[np.bool_] | None,
    arrays: dict[str, Any],
) -> None:
    """Third pass: read a movie again, and store it corrected."""
    kind = arrays["defect_kind"][place]
    weight = arrays["weight"][place] if "weight" in arrays else None
    plan = fill.make_plan(kind > 0, weight)
    factor = alone.factor(gain, kind.shape)
    frames = movie.pixels.shape[0]
    taken = None
    if background is not None:
        reference = arrays["reference"][place]
        level, variance = moments(reference, known)
        share = 1.0 if background.plain else wiener_share(variance, background.single, background.size)
        taken = pattern(reference, level, share / frames)
    images, standard = arrays["images"], np.zeros(kind.shape)
    gained, filled = np.empty((1, *kind.shape), np.float32), np.empty((1, *kind.shape), np.float32)
    corrected = np.empty((1, max(movie.pixels.chunks[0], default=0), *kind.shape), np.float32)
    for first, block in movie.blocks():
        shard = corrected[:, : len(block)]
        for k in range(len(block)):  # one frame stays in the cache until it is done
            out = shard[:, k]
            normalise.correct(block[k : k + 1], factor, dark, gained)
            fill.fill(gained, plan, filled)
            subtract(filled, taken, out)
            add_standardised(out, standard, known)
        check_range(shard, images.dtype, place)
        region = (slice(place, place + 1), slice(first, first + len(block)), *map(slice, (0, 0), kind.shape))
        write_shard(shard.astype(images.dtype, copy=False), images, region, None)
    arrays["correlation_after"][place] = mean_correlation(standard, frames, known)


def check_range(pixels: NDArray[np.float32], dtype: np.dtype[Any], place: int) -> None:
    """Refuse pixels that a smaller dtype would make infinite."""
    if dtype.itemsize >= pixels.dtype.itemsize:
        return
    largest = np.finfo(dtype).max
    over = np.isfinite(pixels) & (np.abs(pixels) > largest)
    if over.any():
        _, _, y, x = np.argwhere(over)[0].tolist()
        raise ValueError(
            f"process_session: movie {place} has {pixels[over][0]:g} at y={y}, x={x}, and {dtype} ends at {largest:g}: "
            'give dtype="float32" and resume=False (--dtype float32 --no-resume)'
        )
