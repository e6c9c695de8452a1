"""Does the gain change over a session? One pass over each movie as it arrives, running states only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import dask
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from mrczdask import schema
from mrczdask.execution.progress import Progress, track
from mrczdask.execution.regions import run_regions
from mrczdask.execution.shared import shared
from mrczdask.kernels.changes import LIMIT, changepoint, clipped_product, cusum
from mrczdask.kernels.line_means import LEAST_GAIN, line_means, robust_limits
from mrczdask.kernels.midway import Midway
from mrczdask.kernels.residual import NEIGHBOURS, spread
from mrczdask.movies.quality import reference_factor
from mrczdask.movies.ranked_images import Group, Movies, as_movies
from mrczdask.movies.smooth_midway import midway_ratio, midway_sums
from mrczdask.provenance import record

PARTS: Final = ("pixel", "row", "column")
STATISTICS: Final = ("std", "p2_5", "p97_5", "minimum", "maximum")
REFERENCE_MOVIES: Final = 10
"""Movies that define what the gain was: their noise adds a tenth to that of the movie judged."""
FEWEST_REFERENCE: Final = 4
SMOOTH_PIXELS: Final = 8
"""Standard deviation of the Gaussian taken off an image: ice and carbon go, pixels stay."""

Deviations = tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]


class MovieSummary(NamedTuple):
    """What a movie says about the gain: its residual, and how its pixels, rows and columns deviate."""

    statistics: dict[str, float]
    deviations: Deviations


class GainMonitor:
    """Follow the gain movie by movie, with running states only.

    Parameters
    ----------
    gain : DataArray, Dataset or array, optional
        The reference (y, x) that the raw movies are to be corrected with; None: they are corrected.
    reference_movies : int
        The first movies, that define what the gain was.

    Raises
    ------
    ValueError
        Fewer than 4 reference movies.

    Notes
    -----
    See `gain_drift`. Kept are two mean images and the lines of the reference movies, the deviations of the last movie,
    and a few numbers a movie.

    Examples
    --------
    >>> import mrczdask as md
    >>> session, truth = md.simulate.session(12, (2, 64, 64), dose=20)
    >>> monitor = md.GainMonitor(truth.gain, reference_movies=6)
    >>> for k in range(12):
    ...     monitor.add(session.images.isel(movie=k))
    >>> monitor.report().attrs["alarm"]
    False
    """

    def __init__(
        self, gain: xr.DataArray | xr.Dataset | ArrayLike | None = None, *, reference_movies: int = REFERENCE_MOVIES
    ):
        if reference_movies < FEWEST_REFERENCE:
            raise ValueError(f"reference_movies={reference_movies}: give {FEWEST_REFERENCE} at least")
        self._gain, self._n_reference = gain, reference_movies
        self._halves: list[list[Deviations]] = [[], []]
        self._last: Deviations | None = None
        self._names: list[str] = []
        self._statistics: list[dict[str, float]] = []
        self._steps: list[tuple[float, ...]] = []

    def add(self, movie: xr.DataArray | NDArray[Any], *, name: str | None = None) -> None:
        """Take in a movie (frame, y, x): one pass over it."""
        movies = as_movies(movie, "GainMonitor")
        factor, bad = reference_factor(self._gain, movies)
        whole = Group(0, movies.n_movies, 0, movies.n_frames, True).of(movies)
        self.take(summarise(dask.compute(whole)[0], factor, movies.mask | bad), name or _names(movies)[0])

    def take(self, summary: MovieSummary, name: str) -> None:
        """Take in what `summarise` made of a movie."""
        n = len(self._names)
        if n < self._n_reference:
            self._refer(self._halves[n % 2], summary.deviations)
            step: tuple[float, ...] = (np.nan,) * len(PARTS)
        elif n == self._n_reference:
            step = (np.nan,) * len(PARTS)  # the movie before is part of the reference
        else:
            assert self._last is not None
            one, two = self._references()
            pairs = zip(summary.deviations, self._last, one, two, strict=True)
            step = tuple(clipped_product(now - a, before - b) for now, before, a, b in pairs)
        self._last = summary.deviations
        self._names.append(name)
        self._statistics.append(summary.statistics)
        self._steps.append(step)

    @staticmethod
    def _refer(half: list[Deviations], deviations: Deviations) -> None:
        """Add to a half of the reference: a sum of images, and lines one by one, for their median."""
        if not half:
            half.append(deviations)
            return
        image, *lines = half[0]
        half[0] = (image + deviations[0], lines[0], lines[1])
        half.append((deviations[0][:0], *deviations[1:]))

    def _references(self) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
        """Mean image and median lines of both halves."""
        one, two = (
            [half[0][0] / len(half), *(np.median([part[k] for part in half], axis=0) for k in (1, 2))]
            for half in self._halves
        )
        return one, two

    def report(self) -> xr.Dataset:
        """What is known so far, as `gain_drift` returns it."""
        steps = np.array(self._steps).reshape(-1, len(PARTS))
        sums = np.stack([cusum(steps[:, k]) for k in range(len(PARTS))], axis=1)
        found: dict[str, Any] = {name: (schema.MOVIE, [row[name] for row in self._statistics]) for name in STATISTICS}
        found |= {"step": ((schema.MOVIE, "part"), steps), "cusum": ((schema.MOVIE, "part"), sums)}
        ds = xr.Dataset(found, {schema.MOVIE: self._names, "part": list(PARTS)})
        ds.attrs = {"reference_movies": self._n_reference, "limit": LIMIT, **_verdict(steps, sums, self._names)}
        return ds


def _verdict(steps: NDArray[np.float64], sums: NDArray[np.float64], names: Sequence[str]) -> dict[str, Any]:
    """Whether, since when and in which parts the gain has changed."""
    crossed = np.asarray((sums > LIMIT).any(axis=0))
    if not crossed.any():
        return {"alarm": False, "changepoint": -1, "movie": "", "part": "", "advice": "the gain has not changed"}
    clearest = int(np.argmax(np.where(crossed, np.nansum(steps, axis=0), -np.inf)))
    begin = changepoint(steps[:, clearest])
    assert begin is not None
    since = max(begin - 1, 0)  # a step joins a movie and the one before: the first that rises is of the second changed
    parts = [name for name, found in zip(PARTS, crossed, strict=True) if found]
    return {
        "alarm": True,
        "changepoint": since,
        "movie": names[since],
        "part": ", ".join(parts),
        "advice": f"re-acquire the gain reference from movie {names[since]} ({since + 1} of {len(names)}) on: "
        f"its {' and '.join(f'{name}s' for name in parts)} have changed",
    }


def summarise(images: Any, reference: Any, bad: NDArray[np.bool_]) -> MovieSummary:
    """Residual gain and deviations of the sum (1, y, x) of the frames of a movie."""
    raw = np.asarray(images)
    sums = midway_sums(raw, None, Midway((0.0,)), reference)
    lines = line_means(sums.recorded, bad)
    if not lines.level > 0:
        raise ValueError(f"the mean of a movie is {lines.level:.3g}: subtract the dark reference or the offset first")
    residual = np.ones(bad.shape, np.float32)
    defect, _ = midway_ratio(sums.recorded, sums.ideal, bad, residual)
    model = np.nan_to_num(np.multiply.outer(lines.row, lines.column)) * lines.level
    ratio = np.divide(sums.recorded, model, out=np.zeros_like(model), where=model > LEAST_GAIN * lines.level)
    low, high = robust_limits(ratio)
    outlier = bad | defect | (ratio < low) | (ratio > high)
    flat = np.where(outlier, 1.0, ratio)
    flat -= ndimage.gaussian_filter(flat, SMOOTH_PIXELS, mode="mirror", truncate=3)
    pixel = np.where(outlier, 0.0, flat).astype(np.float32)
    found = spread(residual, outlier)
    statistics = dict(zip(STATISTICS, (found.std, found.low, found.high, found.minimum, found.maximum), strict=True))
    return MovieSummary(statistics, (pixel, _detrended(lines.row), _detrended(lines.column)))


def _detrended(profile: NDArray[np.float64]) -> NDArray[np.float64]:
    """A profile less the median around each line: slow changes are the specimen's. Dead lines are 0."""
    filled = np.where(np.isfinite(profile), profile, 1.0)
    out = filled - ndimage.median_filter(filled, min(NEIGHBOURS, filled.size), mode="mirror")
    low, high = robust_limits(out)
    return np.where(np.isfinite(profile), np.clip(out, low, high), 0.0)


def gain_drift(
    session: xr.DataArray | xr.Dataset | NDArray[Any],
    gain: xr.DataArray | xr.Dataset | ArrayLike | None = None,
    *,
    reference_movies: int = REFERENCE_MOVIES,
    progress: Progress = None,
) -> xr.Dataset:
    """Find whether, and from which movie on, the gain of a detector has changed.

    Parameters
    ----------
    session : Dataset, DataArray or array
        (movie, frame, y, x) in order of acquisition; raw where `gain` is given.
    gain : DataArray, Dataset or array, optional
        The reference (y, x) in the convention of its attribute `convention`, else to multiply with.
    reference_movies : int
        The first movies, that define what the gain was; 4 at least.
    progress : None, True or callable
        True shows a bar; a callable gets (done, total, label).

    Returns
    -------
    Dataset
        Along `movie`: `std`, `p2_5`, `p97_5`, `minimum`, `maximum` of the residual gain of the movie (one iteration of
        SME on its sum, mean 1, outliers left out of the first three): the curves of the paper's Figure 2. `step` and
        `cusum` (movie, part), part "pixel", "row" or "column". Attributes: `alarm` (bool), `changepoint` (index of the
        first movie with another gain, -1 for none), `movie` (its name), `part` (those that changed), `advice`.

    Raises
    ------
    ValueError
        Fewer movies than reference_movies + 2; the gain does not fit; all that `estimate_gain` raises.

    Notes
    -----
    Each movie gives the relative deviations of its pixels (about rows, columns and a smooth background), rows and
    columns (about their neighbours). Those of movie m, less those of one half of the reference movies (mean of pixels,
    median of lines), times those of movie m - 1, less those of the other half, have the mean 0 as long as the gain is
    the same: neither noise nor specimen is shared by two movies. Divided by its standard deviation this is `step`;
    Page's cumulative sum of it, max(0, sum + min(step, 4) - 0.5), raises the alarm above 12. The change is dated to the
    step since the sum last was 0 from which on the mean step is the least likely to be 0.
    A change of gain that varies slowly over the detector cannot be told from ice. A movie costs one pass over it;
    `GainMonitor` takes them one by one as they arrive.

    References
    ----------
    Sorzano et al., section 3 and Figure 2; Page, Biometrika 41 (1954) 100-115.

    Examples
    --------
    >>> import mrczdask as md
    >>> gamma = [1.0] * 15 + [1.3] * 10  # the response of later movies is response**1.3
    >>> response = md.simulate.Gain(column_sd=0.04)
    >>> session, truth = md.simulate.session(25, (2, 128, 128), dose=20, gain=response, gamma=gamma)
    >>> found = md.gain_drift(session, truth.gain)
    >>> found.attrs["part"], abs(found.attrs["changepoint"] - 15) <= 1
    ('column', True)
    """
    movies = as_movies(session, "gain_drift")
    if movies.n_movies < reference_movies + 2:
        raise ValueError(
            f"gain_drift compares movies with the first {reference_movies} of the session: it needs "
            f"{reference_movies + 2} at least and has {movies.n_movies}; reference_movies= takes fewer"
        )
    monitor = GainMonitor(gain, reference_movies=reference_movies)
    factor, bad = reference_factor(gain, movies)
    known = shared(factor), shared(movies.mask | bad)
    task = dask.delayed(summarise, pure=False)
    groups = [Group(m, m + 1, 0, movies.n_frames, True) for m in range(movies.n_movies)]
    tasks = ((group.movie, task(shared(group.of(movies)), *known)) for group in groups)
    names = _names(movies)
    with track(progress, len(groups), "gain drift") as advance:
        for m, summary in run_regions(tasks, on_done=advance):
            monitor.take(summary, names[m])
    report = monitor.report()
    report.attrs = record(report.attrs, "gain_drift", {"reference_movies": reference_movies})
    return report


def _names(movies: Movies) -> list[str]:
    """Names of the movies, or their numbers."""
    if movies.labels is not None and schema.MOVIE in movies.labels.coords:
        return [str(name) for name in np.atleast_1d(movies.labels[schema.MOVIE].values)]
    return [str(k) for k in range(movies.n_movies)]
