"""What KOMA should average: how many movies, and which not."""

from __future__ import annotations

from typing import Any, Final

import dask
import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.execution.blocks import whole_blocks
from mrczdask.kernels.usable import mended, unusable
from mrczdask.movies.arrays import movie_names

SCALES: Final = (4, 32)
"""Sides of the boxes in pixels whose means are compared: crystalline ice is fine, the edge of a film is coarse."""
DEVIATIONS: Final = 5.0
LEAST_CONTRAST: Final = 0.02
"""A movie stands out by 5 robust standard deviations, by half of the median, and by 2 % of the mean intensity."""
_MAD: Final = 1.4826
_DECAYS: Final = (0.289, 1.0, 2.0)
"""Exponents by which the pattern is let decay: that of [M], eq. 12, as of one lifetime, and as of a slow drift."""
_FEWEST_LAGS: Final = 6
SAMPLED_PIXELS: Final = 1 << 20
"""Pixels of each sum that are compared with those of the others, in whole lines."""


def find_high_contrast(sums: xr.DataArray) -> xr.Dataset:
    """Find the movies whose contrast stands out, such as those of carbon film and crystalline ice.

    Parameters
    ----------
    sums : DataArray
        (movie, y, x), sums of frames, corrected by gain and for outliers. Pixels that are NaN, infinite or beyond 2**53
        take the value that their neighbours expect.

    Returns
    -------
    xarray.Dataset
        `contrast` (movie, box): standard deviation between the means of boxes, without that of the electrons, relative
        to the mean, NaN where no pixel is a number; `high_contrast` (movie) bool, for ``koma(..., exclude=)``, True for
        such a movie too. The attribute `names` lists them.

    Raises
    ------
    ValueError
        The sums are not (movie, y, x).

    Notes
    -----
    A movie stands out where its contrast at either scale is above the median of the session by 5 robust standard
    deviations, by half the median and by 0.02. In a session whose movies are mostly of high contrast none stands out.

    References
    ----------
    McLeod et al., MRCZ, section 5.2: "automated detection of such high-contrast micrographs remains a subject of future
    work".

    Examples
    --------
    >>> import mrczdask as md
    >>> film = md.simulate.Specimen(carbon=["movie_0003"])
    >>> session, _ = md.simulate.session(8, (4, 128, 128), dose=5, specimen=film)
    >>> md.find_high_contrast(md.sum_frames(session)).attrs["names"]
    ['movie_0003']
    """
    stack = _stack(sums, "find_high_contrast")
    per_movie = da.blockwise(
        _contrasts,
        (schema.MOVIE, "box"),
        stack.data,
        stack.dims,
        new_axes={"box": len(SCALES)},
        per_electron=float(stack.attrs.get(schema.COUNTS_PER_ELECTRON, 1.0)),
        dtype=float,
        meta=np.empty((0, 0)),
    )
    contrasts = np.asarray(per_movie)
    high, limit = stands_out(contrasts)
    names = movie_names(stack)
    return xr.Dataset(
        {
            "contrast": ((schema.MOVIE, "box"), contrasts),
            "high_contrast": (schema.MOVIE, high),
            "limit": ("box", limit),
        },
        {schema.MOVIE: names, "box": ("box", list(SCALES), {"units": "pixel"})},
        {"names": [name for name, is_high in zip(names, high, strict=True) if is_high]},
    )


def stands_out(contrasts: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which movies (movie, box) stand out in contrast, and the limit at each scale."""
    empty = np.isnan(contrasts).any(axis=1)
    known = contrasts[~empty] if not empty.all() else np.zeros_like(contrasts)
    median = np.median(known, axis=0)
    spread = _MAD * np.median(np.abs(known - median), axis=0)
    limit = median + np.maximum.reduce([DEVIATIONS * spread, median / 2, np.full_like(median, LEAST_CONTRAST)])
    return empty | (contrasts > limit).any(axis=1), limit


def _stack(sums: xr.DataArray, verb: str) -> xr.DataArray:
    if set(sums.dims) != {schema.MOVIE, schema.Y, schema.X}:
        raise ValueError(f"{verb}: the sums have the dims {sums.dims}: give (movie, y, x)")
    stack = sums.transpose(schema.MOVIE, schema.Y, schema.X)
    if schema.MOVIE not in stack.coords:
        stack = stack.assign_coords({schema.MOVIE: np.arange(len(stack))})
    data = stack.data if isinstance(stack.data, da.Array) else da.from_array(stack.data, (1, -1, -1), name=False)
    with dask.config.set({"array.rechunk.method": "tasks"}):
        return stack.copy(data=data.rechunk((1, -1, -1)))


@whole_blocks
def _contrasts(block: NDArray[Any], *, per_electron: float) -> NDArray[np.float64]:
    return np.array([[contrast(image / per_electron, box) for box in SCALES] for image in block]).reshape(
        -1, len(SCALES)
    )


def contrast(electrons: NDArray[Any], box: int) -> float:
    """Standard deviation of the means of boxes over the mean, less the part of Poisson noise; NaN without a number."""
    electrons, bad = mended(electrons)
    if bad is not None and bad.all():
        return float("nan")
    ny, nx = (n // box for n in electrons.shape)
    mean = float(electrons.mean()) if electrons.size else 0.0
    if ny * nx < 2 or mean <= 0:
        return 0.0
    means = electrons[: ny * box, : nx * box].reshape(ny, box, nx, box).mean(axis=(1, 3))
    return float(np.sqrt(max(means.var() - mean / box**2, 0.0))) / mean


def koma_radius(sums: xr.DataArray, *, noise_budget: float = 0.05, largest: int = 50) -> xr.Dataset:
    """Choose how many movies KOMA should average, from how long the pattern of the detector lives.

    Parameters
    ----------
    sums : DataArray
        (movie, y, x), sums of frames in order of acquisition with the coordinate `n_frames`, corrected by gain and for
        outliers. Movies without specimen, or of low contrast, tell most. Pixels that are NaN, infinite or beyond 2**53
        count as the mean of their movie.
    noise_budget : float
        Largest share by which the noise variance of a sum of frames may grow, 1 / (2 radius).
    largest : int
        Largest radius considered.

    Returns
    -------
    xarray.Dataset
        `radius` along which `correlation` is the expected mean correlation between corrected frames, and `floor` what
        it were for a pattern that never changes, 1 / (2 a F + 1); `lag` along which `covariance` is that of the sums of
        movies so far apart, electrons^2. Attributes: `radius`, the choice; `raw`, the expected correlation without
        KOMA; `lifetime`, the lag in movies at which the covariance has fallen to half, infinity where it has not;
        `helps`, whether KOMA lowers the correlation.

    Raises
    ------
    ValueError
        There are fewer than four sums, they lack `n_frames`, the budget is not above 0, or a movie has no pixel that
        is a number; it is named.

    Notes
    -----
    With the covariance P(l) of the patterns l movies apart (their noise is independent, so that the sums measure it
    without a bias; P(0) is that of the laws c + a / (1 + (l / t)**b) through the others, averaged by how well they
    fit), the variance of pattern and reference noise that is left in a frame is

        P(0) - 2 mean_i P(i) + mean_ij P(i - j) + s**2 / (2 a F),  0 < \\|i\\|, \\|j\\| <= a,

    s**2 the noise variance of a frame. The smallest radius is taken that stays within the noise budget and comes
    within 5 % of the noise floor of the best.

    References
    ----------
    McLeod et al., MRCZ, section 5.2, eq. 12 and Figs. 11 and 12.

    Examples
    --------
    >>> import mrczdask as md
    >>> fixed = md.simulate.Pattern(pixel_sd=0.3)
    >>> session, _ = md.simulate.session(30, (4, 64, 64), dose=2, pattern=fixed)
    >>> chosen = md.koma_radius(md.sum_frames(session))
    >>> chosen.attrs["radius"] >= 10, chosen.attrs["helps"]
    (True, True)
    """
    stack = _stack(sums, "koma_radius")
    n = len(stack)
    if n < 4 or schema.N_FRAMES not in stack.coords:
        raise ValueError("koma_radius: give the sums of four movies or more, with the coordinate n_frames")
    if noise_budget <= 0 or largest < 1:
        raise ValueError(f"koma_radius: noise_budget={noise_budget}, largest={largest}: give numbers above 0")
    frames = int(np.atleast_1d(stack[schema.N_FRAMES].values)[0])
    covariance, variance = _covariances(stack / frames)
    pattern = np.concatenate([[_at_zero(covariance, n)], covariance[1:]])
    noise = max(variance - pattern[0], 0.0) * frames
    radii = np.arange(1, min(largest, (n - 1) // 2) + 1)
    left = np.array([_left(pattern, int(a)) for a in radii]) + noise / (2 * radii * frames)
    correlation, floor = left / (left + noise), 1 / (2 * radii * frames + 1)
    allowed = np.maximum(1 / (2 * radii) <= noise_budget, radii == radii[-1])
    best = left[allowed].min()
    chosen = int(radii[allowed & (left <= best + 0.05 * noise / (2 * radii * frames))][0])
    low = np.flatnonzero(pattern < pattern[0] / 2)
    attrs = {
        "radius": chosen,
        "raw": float(pattern[0] / max(pattern[0] + noise, 1e-30)),
        "lifetime": float(low[0]) if len(low) and pattern[0] > 0 else float("inf"),
        "helps": bool(left[chosen - 1] < pattern[0]),
    }
    variables = {"correlation": ("radius", correlation), "floor": ("radius", floor), "covariance": ("lag", pattern)}
    return xr.Dataset(variables, {"radius": radii, "lag": np.arange(len(pattern))}, attrs)


def _covariances(means: xr.DataArray) -> tuple[NDArray[np.float64], float]:
    """Covariance over pixels of images each lag apart, averaged over the pairs; and the mean variance."""
    ny, nx = means.shape[-2:]
    step = max(ny * nx // SAMPLED_PIXELS, 1)
    sample = np.asarray(means.data[:, ::step]).reshape(len(means), -1)
    odd = unusable(sample)
    sample = (sample if odd is None else np.where(odd, 0, sample)).astype(np.float32)
    if odd is None:
        centre = sample.mean(axis=1, dtype=np.float64, keepdims=True)
    else:
        good = (~odd).sum(axis=1, keepdims=True)
        if not good.all():
            name = movie_names(means)[int(np.argmin(good))]
            raise ValueError(f"koma_radius: no pixel of {name} is a number: leave that movie out")
        centre = sample.sum(axis=1, dtype=np.float64, keepdims=True) / good
    sample = sample - centre.astype(np.float32)
    if odd is not None:
        sample[odd] = 0
    gram = (sample @ sample.T).astype(np.float64) / max(sample.shape[1], 1)
    lags = range(max(len(means) - 2, 3))
    return np.array([np.diagonal(gram, lag).mean() for lag in lags]), float(np.trace(gram) / len(means))


def _at_zero(covariance: NDArray[np.float64], n: int) -> float:
    """The covariance of the pattern of a movie with itself, from the lags, weighted by their number of pairs: c + a of
    the laws c + a / (1 + (lag / t)**b), averaged by how well they fit; a straight line where few lags are known.
    """
    lags, values = np.arange(1, len(covariance)), covariance[1:]
    if len(lags) < _FEWEST_LAGS:
        return float(max(2 * values[0] - values[1], values[0]))
    weight = (n - lags).astype(float)
    middle = float(np.average(values, weights=weight))
    misfits, begins = [float(((values - middle) ** 2 * weight).sum())], [middle]
    for decay in _DECAYS:
        for lifetime in np.geomspace(0.5, 4 * n, 12):
            law = 1 / (1 + (lags / lifetime) ** decay)
            level = float(np.average(law, weights=weight))
            spread = float(((law - level) ** 2 * weight).sum())
            a = float(((law - level) * values * weight).sum()) / max(spread, 1e-30)
            c = middle - a * level
            if c < 0 < a:
                a, c = float((law * values * weight).sum() / (law * law * weight).sum()), 0.0
            if a > 0:
                misfits.append(float(((c + a * law - values) ** 2 * weight).sum()))
                begins.append(c + a)
    least = min(misfits)
    chance = np.exp(-(np.array(misfits) - least) / max(2 * least / (len(lags) - 3), 1e-30))
    return float(np.average(begins, weights=chance))


def _left(pattern: NDArray[np.float64], radius: int) -> float:
    """Variance of the pattern that is left after subtracting the mean of the radius movies on either side."""
    places = np.array([k for k in range(-radius, radius + 1) if k])
    reach = len(pattern) - 1
    apart = np.minimum(np.abs(places), reach)
    between = np.minimum(np.abs(places[:, None] - places), reach)
    return max(float(pattern[0] - 2 * pattern[apart].mean() + pattern[between].mean()), 0.0)
