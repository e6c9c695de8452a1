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
from mrczdask.kernels.changes import LIMIT, changepoint, cusum, shared_deviation
from mrczdask.kernels.line_means import LEAST_GAIN, line_means, robust_limits
from mrczdask.kernels.midway import Midway
from mrczdask.kernels.residual import NEIGHBOURS, spread
from mrczdask.movies.changed_pixels import ChangedPixels
from mrczdask.movies.quality import reference_factor
from mrczdask.movies.ranked_images import Group, Movies, as_movies
from mrczdask.movies.smooth_midway import midway_ratio, midway_sums
from mrczdask.provenance import record

PARTS: Final = ("pixel", "row", "column")
STATISTICS: Final = ("std", "p2_5", "p97_5", "minimum", "maximum")
REFERENCE_MOVIES: Final = 10
"""Movies that are taken as they are: their noise adds a tenth to that of the first movie judged."""
FEWEST_REFERENCE: Final = 4
BY_CHANCE: Final = 1e-5
"""Share of the pixels that the specimen may make look changed in a movie: 10**-6 under ice and carbon, simulated."""
LONGEST_REFERENCE: Final = 60
"""Movies up to which the reference grows. What the noise of its two halves shares by chance is in every step: 1 / 3 of
a standard deviation for 4 movies, 1 / 31 for 60. Were it to stay as it is at 4, one session in twenty would alarm."""
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
        The first movies, that are taken as they are: they, and later ones up to 60 in all, define what the gain was.

    Raises
    ------
    ValueError
        Fewer than 4 reference movies.

    Notes
    -----
    See `gain_drift`, also for the rate of false alarms. Kept are four images (two halves of the reference, the movie
    before, and a running mean of the deviations), a mask, and a few numbers a movie.

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
        self._halves: list[list[NDArray[Any]]] = [[], []]
        self._in_half = [0, 0]
        self._last: Deviations | None = None
        self._changed = ChangedPixels()
        self._names: list[str] = []
        self._statistics: list[dict[str, float]] = []
        self._steps: list[tuple[float, ...]] = []
        self._changes: list[int] = []

    def add(self, movie: xr.DataArray | NDArray[Any], *, name: str | None = None) -> None:
        """Take in a movie (frame, y, x): one pass over it."""
        movies = as_movies(movie, "GainMonitor")
        factor, bad = reference_factor(self._gain, movies)
        whole = Group(0, movies.n_movies, 0, movies.n_frames, True).of(movies)
        self.take(summarise(dask.compute(whole)[0], factor, movies.mask | bad), name or _names(movies)[0])

    def take(self, summary: MovieSummary, name: str) -> None:
        """Take in what `summarise` made of a movie."""
        n, now = len(self._names), summary.deviations
        step, changed = (np.nan,) * len(PARTS), 0
        if n > self._n_reference:  # the movie before is part of the reference until then
            assert self._last is not None
            one, two = (
                [part / count for part in half] for half, count in zip(self._halves, self._in_half, strict=True)
            )
            both = zip(map(np.asarray, now), map(np.asarray, self._last), one, two, strict=True)
            pairs = [(a - r, b - q) for a, b, r, q in both]
            changed = self._changed.update(*pairs[0])
            pairs[0] = self._changed.without(*pairs[0])
            step = tuple(shared_deviation(*pair) for pair in pairs)
        if self._last is not None and n <= max(self._n_reference, LONGEST_REFERENCE):
            self._refer(n - 1, self._last)
        self._last = now
        self._names.append(name)
        self._statistics.append(summary.statistics)
        self._steps.append(step)
        self._changes.append(changed)

    def _refer(self, n: int, deviations: Deviations) -> None:
        """Add movie n to its half of the reference."""
        half, parts = self._halves[n % 2], [np.asarray(part) for part in deviations]
        self._halves[n % 2] = [part + new for part, new in zip(half, parts, strict=True)] if half else parts
        self._in_half[n % 2] += 1

    def report(self) -> xr.Dataset:
        """What is known so far, as `gain_drift` returns it."""
        steps = np.array(self._steps).reshape(-1, len(PARTS))
        sums = np.stack([cusum(steps[:, k]) for k in range(len(PARTS))], axis=1)
        found: dict[str, Any] = {name: (schema.MOVIE, [row[name] for row in self._statistics]) for name in STATISTICS}
        found |= {"step": ((schema.MOVIE, "part"), steps), "cusum": ((schema.MOVIE, "part"), sums)}
        found |= {"changed_pixels": (schema.MOVIE, np.array(self._changes, np.int64))}
        ds = xr.Dataset(found, {schema.MOVIE: self._names, "part": list(PARTS)})
        verdict = _verdict(steps, sums, self._names)
        changed = sum(self._changes)
        if self._last is not None and changed > BY_CHANCE * self._last[0].size * len(self._names):
            verdict["advice"] += (
                f"; {changed} single pixels became hot or dead, or ceased to be: find_outliers(window=...) finds them "
                "movie by movie"
            )
        ds.attrs = {"reference_movies": self._n_reference, "limit": LIMIT, **verdict, "n_changed_pixels": changed}
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
    off = np.where(bad, 0.0, np.clip(ratio, low, high) - 1)  # a hot or dead pixel is as far off in each movie
    pixel = np.where(outlier, off, flat).astype(np.float32)
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
        The first movies, that are taken as they are; 4 at least. Later ones join them, up to 60 in all.
    progress : None, True or callable
        True shows a bar; a callable gets (done, total, label).

    Returns
    -------
    Dataset
        Along `movie`: `std`, `p2_5`, `p97_5`, `minimum`, `maximum` of the residual gain of the movie (one iteration of
        SME on its sum, mean 1, outliers left out of the first three): the curves of the paper's Figure 2. `step` and
        `cusum` (movie, part), part "pixel", "row" or "column"; `changed_pixels` (movie), pixels that became hot or
        dead, or ceased to be. Attributes: `alarm` (bool), `changepoint` (index of the first movie with another gain, -1
        for none), `movie` (its name), `part` (those that changed), `n_changed_pixels`, `advice`.

    Raises
    ------
    ValueError
        Fewer movies than reference_movies + 2; the gain does not fit; all that `estimate_gain` raises.

    Notes
    -----
    Each movie gives the relative deviations of its pixels (about rows, columns and a smooth background), rows and
    columns (about their neighbours). Those of movie m, less those of one half of the reference (its mean), times those
    of movie m - 1, less those of the other half, have the mean 0 as long as the gain is the same: neither noise nor
    specimen is shared by two movies. The reference is all movies before these two, up to 60. The sum of the products
    over the root of the sum of the squares of the sums of its blocks is `step`; Page's cumulative sum of it,
    max(0, sum + min(step, 4) - 0.5), raises the alarm above 12. The change is dated to the step since the sum last was
    0 from which on the mean step is the least likely to be 0.

    Single pixels that become hot or dead, or cease to be, are no change of the gain: those that are off by 3 standard
    deviations in two successive movies are left out of the step, and those whose running mean (a quarter of the newest
    movie) is off by 6 are left out from then on and counted, in `changed_pixels`, unless there is one in a hundred in
    a movie.

    False alarms are fewer than 1 in 1000 movies, for any `reference_movies`: there was none in 1760 movies of noise and
    as many in which hot pixels are born (sessions of 25 to 120 movies of 64 x 96 pixels, 4 and 10 reference movies;
    largest sum 6), nor in 880 with particles and 880 with ice, particles and carbon (largest sum 10).
    `benchmarks/gain_drift.py` repeats it with sessions of up to 2000 movies.
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
