"""The gain of a detector from the movies themselves, without a flat field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.execution.progress import Progress
from mrczdask.kernels.gain_ratio import in_convention
from mrczdask.kernels.line_means import LEAST_GAIN, slow_share
from mrczdask.kernels.midway import Midway
from mrczdask.movies import line_gain
from mrczdask.movies.ranked_images import (
    NEARLY,
    Group,
    Movies,
    as_movies,
    electrons_per_frame,
    electrons_per_image,
    groups_of,
)
from mrczdask.movies.smooth_midway import midway_gain
from mrczdask.provenance import record

Method = Literal["hybrid", "sme", "means", "deviation"]
METHODS: Final = ("hybrid", "sme", "means", "deviation")
MOST_SLOW: Final = 0.2
"""Share of a gain that a beam may have made, above which its R2 is not known; smooth gains have 0.01 to 0.1."""
RANKED_DOSE: Final = 40.0
"""Electrons per pixel that an image needs for its pixels to be ranked: below, ties of integers mislead iterations."""


@dataclass(frozen=True)
class Estimate:
    """A gain to divide by and what is known about it; `about` becomes attributes."""

    gain: NDArray[np.floating]
    uncertainty: NDArray[np.floating]
    defect: NDArray[np.bool_]
    about: dict[str, Any]
    limits: tuple[str, ...]


def estimate_gain(
    movie_or_session: xr.DataArray | xr.Dataset | NDArray[Any],
    *,
    method: Method = "hybrid",
    iterations: int | Literal["converge"] = 1,
    sigma: float | None = None,
    max_sigma: float = 3.0,
    sigma_step: float = 0.5,
    single_reference: bool = True,
    sequential: bool = False,
    ties: Literal["mid", "upper"] = "mid",
    sum_to: float | None = RANKED_DOSE,
    convention: Literal["multiply", "divide"] = "multiply",
    progress: Progress = None,
) -> xr.Dataset:
    """Estimate the gain of a detector from movies taken with it.

    Parameters
    ----------
    movie_or_session : DataArray, Dataset or array
        (frame, y, x) or (movie, frame, y, x), not corrected for the gain; in memory or Dask, any real dtype. Pixels
        under a coordinate `mask` (True = bad) are left out of the normalisation and of means. An attribute
        `counts_per_electron` scales counts to electrons.
    method : {"hybrid", "sme", "means", "deviation"}
        "hybrid": row and column means times a residual shrunk scale by scale; the best at any number of movies.
        "sme": smooth midway equalisation, the published one; it sees what differs between rows and between columns.
        "means": row and column means, median over movies. "deviation": standard deviation of each pixel over the
        images (Afanasyev et al.), for comparison.
    iterations : int or "converge"
        Of "sme". One recovers half of the amplitude of rows and columns, n of them 1 - 2**-n; "converge" goes on until
        the gain changes by less than 1e-4 (root mean square), 30 times at most.
    sigma : float, optional
        Width in lines of the Gaussian over neighbouring histograms; 0 smooths none. None: of 0, `sigma_step`, ...,
        `max_sigma` the one with the least total variation, for each image and direction.
    max_sigma, sigma_step : float
        The sigmas tried.
    single_reference : bool
        One reference histogram for all lines (as published), or for each the smoothed one of its neighbours.
    sequential : bool
        Columns, then rows of the result, instead of the mean of both: the whole amplitude in one pass.
    ties : {"mid", "upper"}
        Equal pixels take the mean over their ranks, or the last rank as the published program does.
    sum_to : float or None
        Frames are summed to this dose in electrons per pixel (95 % of it will do) before they are ranked, or not at
        all (None).
    convention : {"multiply", "divide"}
        Whether pixels are to be multiplied or divided by the gain.
    progress : None, True or callable
        True shows a bar; a callable gets (done, total, label).

    Returns
    -------
    Dataset
        `gain` (y, x) float32, mean 1 over good pixels; `uncertainty` (y, x) float32, its standard error, NaN where
        there is no gain; `mask` (y, x) bool, True where a pixel has counted nothing and its gain is set to 1.
        Attributes: `convention`, `method`, `n_movies`, `n_frames`, `electrons_per_pixel` (of all movies),
        `electrons_per_image`, `limits` (what this estimate cannot see), and by method `sigma_x`, `sigma_y`, `change`
        (of each iteration), or `expected_r2` and `movies_to_r2_95`, the number of further movies until the expected R2
        is 0.95 (infinity: it never is). Both are NaN where no gain is seen, and where more than a fifth of its
        variance is one slow curve over the detector: fixed illumination and gain are then the same to any number of
        movies.

    Raises
    ------
    ValueError
        A parameter is unknown; fewer than 2 rows or columns; NaN; a mean of the counts not above 0.

    Notes
    -----
    SME. For each column c of an image with the inverse cumulative histogram H_c^-1 (its pixels in order), the smoothed
    one is sum_k g_k H_{c+k}^-1 / sum_k g_k, g_k = exp(-k**2 / (2 sigma**2)), over the columns that exist; the single
    reference is its mean over c. Each pixel takes the value of the reference at its rank. Rows alike; SME is the mean
    of both, and G = sum_i I_i / sum_i SME(I_i / G), starting from 1, divided by its mean. Integer images are matched by
    histograms, which is exact; others by sorting in float32, a relative error of 6e-8. SME is blind to gain that
    differs from pixel to pixel, and not valid for phase-plate images, whose rows and columns have unlike histograms.

    Hybrid. Each movie gives row and column means without far-off pixels; their medians over movies are the lines of the
    gain. The mean over movies (weights: inverse variance, counting noise plus specimen) over the lines, minus 1, is the
    residual. Its cosine transform, ring by ring of spatial frequency, is multiplied by S / (S + N), S the mean product
    of two halves of the movies, N what the power exceeds it by. Pixels further than 6 standard deviations off are
    kept as measured. The uncertainty is the square root of the error of lines plus S N / (S + N), which also gives the
    expected R2 for any number of movies. One movie is halved in time: what stays in it, its specimen, counts as gain.
    Illumination that is the same in all movies is gain to every method: a polynomial of the second degree in y and x is
    fitted to the gain, and its share of the variance told in `limits` where it is large.

    References
    ----------
    Sorzano et al., Blind estimation of DED camera gain in electron microscopy, equations 1 to 7; Afanasyev et al.,
    Scientific Reports 5 (2015) 10317.

    Examples
    --------
    >>> import mrczdask as md
    >>> response = md.simulate.Gain(column_sd=0.03, row_sd=0.02)
    >>> movie, truth = md.simulate.movie((20, 256, 256), dose=60, gain=response)
    >>> found = md.estimate_gain(movie, method="sme", sequential=True)
    >>> found.gain.dims, found.attrs["convention"]
    (('y', 'x'), 'multiply')
    >>> error = found.gain - truth.gain / truth.gain.mean()
    >>> bool(error.std() < 0.2 * truth.gain.std())
    True
    """
    called = {name: value for name, value in locals().items() if name not in ("movie_or_session", "progress")}
    how = _midway(called)
    movies = as_movies(movie_or_session, "estimate_gain")
    dose = electrons_per_frame(movies, "estimate_gain")
    groups = groups_of(movies, dose, sum_to) if method in ("sme", "deviation") else line_gain.movie_groups(movies)
    if method == "sme":
        estimate = by_midway(movies, groups, dose, how, iterations=iterations, progress=progress)
    elif method == "deviation":
        estimate = _by_deviation(movies, groups, progress)
    else:
        estimate = _by_means(movies, groups, dose, method, progress)
    about = {
        "method": method,
        "n_movies": movies.n_movies,
        "n_frames": movies.n_frames,
        "electrons_per_pixel": dose * movies.n_frames * movies.n_movies,
        "electrons_per_image": electrons_per_image(groups, dose),
    }
    return _dataset(movies, estimate, convention, about, called)


def _midway(called: dict[str, Any]) -> Midway:
    """Check every choice; the ones of equalisation."""
    allowed = {"method": METHODS, "ties": ("mid", "upper"), "convention": ("multiply", "divide")}
    for name, values in allowed.items():
        if called[name] not in values:
            raise ValueError(f"estimate_gain: {name}={called[name]!r}: give one of {', '.join(map(repr, values))}")
    iterations, sigma = called["iterations"], called["sigma"]
    if iterations != "converge" and not (isinstance(iterations, int | np.integer) and iterations >= 1):
        raise ValueError(f'estimate_gain: iterations={iterations!r}: give a whole number from 1, or "converge"')
    if called["sum_to"] is not None and not called["sum_to"] > 0:
        raise ValueError(f"estimate_gain: sum_to={called['sum_to']!r}: give electrons per pixel above 0, or None")
    if sigma is None and not called["sigma_step"] > 0:
        raise ValueError(f"estimate_gain: sigma_step={called['sigma_step']!r}: give a number above 0")
    n = 0 if sigma is not None else int(np.floor(called["max_sigma"] / called["sigma_step"] + 1e-9))
    sigmas = tuple(float(sigma or 0.0) + float(k * called["sigma_step"]) for k in range(n + 1))
    if not sigmas or not min(sigmas) >= 0:
        raise ValueError(f"estimate_gain: sigma={sigma!r}, max_sigma={called['max_sigma']!r}: give numbers from 0")
    return Midway(sigmas, called["single_reference"], called["ties"] == "upper", called["sequential"])


def by_midway(movies: Movies, groups: list[Group], dose: float, how: Midway, **options: Any) -> Estimate:
    """SME, and what limits it."""
    found = midway_gain(movies, groups, how, **options)
    limits = ["sees what differs between rows and between columns, no gain of single pixels"]
    if not how.sequential:
        share = 1 - 0.5 ** len(found.change)
        limits.append(f"{len(found.change)} iterations recover {share:.4g} of the amplitude of rows and columns")
    ranked = electrons_per_image(groups, dose)
    if ranked < NEARLY * RANKED_DOSE:
        limits.append(f"images of {ranked:.3g} e/pixel were ranked, below {RANKED_DOSE:g} ties of counts mislead it")
    about = {"change": found.change, "sigma_x": found.sigma[0], "sigma_y": found.sigma[1]}
    return Estimate(found.gain, found.uncertainty, found.defect, about, tuple(limits))


def _by_means(movies: Movies, groups: list[Group], dose: float, method: str, progress: Progress) -> Estimate:
    sums = line_gain.gather(movies, groups, progress)
    lines = line_gain.median_lines(sums)
    limits = ["what all movies share counts as gain: illumination that stays as it is, such as the profile of the beam"]
    if movies.n_movies == 1:
        limits.append("one movie: what its specimen holds still counts as gain")
    if method == "means":
        gain, uncertainty = lines.gain, lines.gain * np.sqrt(lines.relative_variance)
        limits.append("rows and columns only, no gain of single pixels")
        return Estimate(gain, uncertainty, ~np.isfinite(gain), {}, tuple(limits))
    electrons = dose * movies.n_frames * movies.n_movies
    found = line_gain.hybrid_gain(sums, lines, movies.mask, electrons)
    more = movies.n_movies * (found.times_to_target - 1)
    about = {
        "expected_r2": found.expected_r2,
        "movies_to_r2_95": float(np.ceil(max(more - 1e-6, 0.0))) if np.isfinite(more) else more,
    }
    defect = ~np.isfinite(lines.gain) | (found.gain < LEAST_GAIN)
    share = slow_share(found.gain, defect | movies.mask)
    if share > MOST_SLOW:
        limits.append(
            f"{100 * share:.0f} % of its variance is one slow slope or curve over the detector, as of uneven "
            "illumination: expected_r2 is not claimed"
        )
        about = dict.fromkeys(about, np.nan)
    return Estimate(found.gain, found.uncertainty, defect, about, tuple(limits))


def _by_deviation(movies: Movies, groups: list[Group], progress: Progress) -> Estimate:
    deviation, error = line_gain.pixel_deviation(movies, groups, progress)
    limits = ("the standard deviation of a pixel holds noise and specimen as well as gain",)
    return Estimate(deviation, error, deviation < LEAST_GAIN, {}, limits)


def _dataset(
    movies: Movies, estimate: Estimate, convention: str, about: dict[str, Any], called: dict[str, Any]
) -> xr.Dataset:
    """Gain, uncertainty and mask in the convention asked for."""
    dims = (schema.Y, schema.X)
    found = (estimate.gain, estimate.uncertainty, estimate.defect, movies.mask)
    gain, uncertainty = in_convention(*found, convention == "multiply")
    labels = {} if movies.labels is None else movies.labels.coords
    coords = {name: labels[name].variable for name in dims if name in labels}
    inherited = {} if movies.labels is None else movies.labels.attrs
    names = (schema.ORIGIN, schema.PIXEL_SIZE, schema.ROTATION_FLIP)
    kept = {name: inherited[name] for name in names if name in inherited}
    attrs = {**kept, schema.CONVENTION: convention, **about, **estimate.about, "limits": "; ".join(estimate.limits)}
    return xr.Dataset(
        {
            "gain": (dims, gain, {**kept, schema.CONVENTION: convention}),
            "uncertainty": (dims, uncertainty, kept),
            "mask": (dims, estimate.defect, kept),
        },
        coords,
        record(attrs, "estimate_gain", called),
    )
