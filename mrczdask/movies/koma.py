"""Knock-out moving average: subtract what the neighbouring movies have in common."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, Final, Literal, get_args

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import provenance, schema
from mrczdask.errors import MrczdaskWarning
from mrczdask.execution.blocks import whole_blocks
from mrczdask.kernels.background import moments, pattern, subtract, wiener_share
from mrczdask.kernels.usable import unusable
from mrczdask.kernels.window import Window, knock_out_windows
from mrczdask.movies.arrays import (
    Labelled,
    as_session,
    blockwise,
    check_size,
    movie_names,
    on_images,
    one_chunk,
    pick_movies,
    warn_if_unstored,
    warned,
    whole_images,
)
from mrczdask.movies.gain import MASK
from mrczdask.movies.neighbours import neighbour_sums

Method = Literal["plain", "wiener"]
_OF_STORAGE: Final = {"sum_frames", "simulate"}
"""Operations that sums and movies need not share."""
Excluded = Iterable[Hashable] | xr.DataArray | None


def koma(
    movies: Labelled,
    *,
    sums: xr.DataArray | xr.Dataset,
    radius: int = 12,
    method: Method = "wiener",
    exclude: Excluded = None,
) -> Labelled:
    """Subtract from every frame the mean of the neighbouring movies, without the movie itself; nothing is computed.

    Parameters
    ----------
    movies : DataArray or Dataset
        (movie, frame, y, x), or one movie (frame, y, x) with the coordinate `movie`; corrected by gain and for
        outliers.
    sums : DataArray or Dataset
        (movie, y, x), sums of the frames of all movies in order of acquisition, corrected in the same way, with the
        coordinates `movie` and `n_frames`; best stored with `write_archive`. Pixels in their coordinate `mask`,
        (y, x) or (movie, y, x), are left out of the level and the variances of the averages; those of one movie also of
        the averages that other movies are corrected with, and so are pixels that are NaN, infinite or beyond 7e10.
    radius : int
        Half the number of movies averaged. Near the ends the window shifts inwards, so that their number stays the
        same; with fewer movies all others are averaged.
    method : {"wiener", "plain"}
        "plain": subtract the mean. "wiener": subtract the share of it that is a pattern and not noise.
    exclude : names of movies, or DataArray of bool along movie, optional
        Movies left out of all windows: carbon film, crystalline ice (`find_high_contrast`). They are corrected too.

    Returns
    -------
    DataArray or Dataset
        What was given, float32; the level is kept, and values below zero too.

    Raises
    ------
    ValueError
        The radius is below 1, there are fewer than two movies, the movies have no sums, or differ in their number of
        frames or size.

    Warns
    -----
    MrczdaskWarning
        Movies and sums were corrected in different ways, or the sums are an unstored graph over the frames.

    Notes
    -----
    out = frame - beta (K - <K>), K = sum of the window / (2 a F), averaged pixel by pixel over the movies that know the
    pixel; a pixel that all of them mask has the mean of what stands there. What is measured is what the movies share,
    the pattern of the detector, and with it whatever of the illumination stays the same: both are subtracted. "plain"
    is beta = 1: of white noise with F frames a movie the mean correlation between frames becomes 1 / (2 a F + 1), and
    the noise variance of the sum of frames is multiplied by 1 + 1 / (2 a); a movie whose correlation is below
    1 / (2 a F) becomes worse. "wiener" is beta = max(var(K) - between / (2 a), 0) / var(K), with the variance between
    the movies of the window, each less its own mean, averaged over pixels; it does not raise the correlation. Windows
    are sums of integers, floats in units of 2**-20: exact in any order and for any chunks.

    References
    ----------
    McLeod et al., MRCZ, section 5.2.

    Examples
    --------
    >>> import mrczdask as md
    >>> pattern = md.simulate.Pattern(pixel_sd=0.3)
    >>> session, _ = md.simulate.session(9, (8, 128, 128), dose=2, pattern=pattern)
    >>> sums = md.sum_frames(session).compute()
    >>> corrected = md.koma(session, sums=sums, radius=4)
    >>> raw, left = (float(md.frame_correlation(s).mean()) for s in (session, corrected))
    >>> raw > 0.03, left < 0.02
    (True, True)
    """
    if radius < 1 or method not in get_args(Method):
        raise ValueError(f'koma: radius={radius}, method={method!r}: give a radius of 1 or more, "plain" or "wiener"')
    total = sums[schema.IMAGES] if isinstance(sums, xr.Dataset) else sums
    _check_sums(total)

    def verb(given: xr.DataArray) -> xr.DataArray:
        whole = whole_images(given)
        _check_alike(whole, total)
        warn_if_unstored(whole, total, "sum of the frames")
        _warn_if_corrected_differently(given, total)
        out = whole.copy(data=_subtracted(whole, total, radius, method, exclude))
        called = {"radius": radius, "method": method, "excluded": excluded_names(exclude, total)}
        out.attrs = provenance.record(given.attrs, "koma", called)
        return out

    return on_images(movies, verb)


def _check_sums(sums: xr.DataArray) -> None:
    if schema.MOVIE not in sums.dims or schema.FRAME in sums.dims:
        raise ValueError(f"koma: the sums have the dims {sums.dims}: give (movie, y, x)")
    if sums.sizes[schema.MOVIE] < 2:
        raise ValueError("koma: there is one movie: there must be others to average")
    counts = np.unique(sums[schema.N_FRAMES].values) if schema.N_FRAMES in sums.coords else np.array([0])
    if len(counts) > 1:
        raise ValueError(f"koma: the movies have {counts.min()} to {counts.max()} frames: average movies of one length")


def _check_alike(movies: xr.DataArray, sums: xr.DataArray) -> None:
    check_size(sums, movies, "sum of the frames")
    count = int(np.atleast_1d(sums[schema.N_FRAMES].values)[0]) if schema.N_FRAMES in sums.coords else None
    if schema.N_FRAMES not in sums.coords:
        raise ValueError("koma: the sums lack the coordinate n_frames: make them with sum_frames")
    if schema.MOVIE not in movies.coords or schema.MOVIE not in sums.coords:
        raise ValueError("koma: movies and sums are matched by the coordinate movie, which is missing")
    own = np.atleast_1d(movies.coords[schema.N_FRAMES].values)[0] if schema.N_FRAMES in movies.coords else count
    if own != count:
        raise ValueError(f"koma: the movies have {own} frames, the sums are of {count}")


def _warn_if_corrected_differently(movies: xr.DataArray, sums: xr.DataArray) -> None:
    ways = [
        [entry["operation"] for entry in provenance.records(array.attrs) if entry["operation"] not in _OF_STORAGE]
        for array in (movies, sums)
    ]
    if ways[0] != ways[1]:
        done = [", ".join(way) or "nothing" for way in ways]
        warned(
            f"koma: the movies went through {done[0]}, their sums through {done[1]}: what is averaged is not what is "
            "corrected",
            MrczdaskWarning,
        )


def excluded_names(exclude: Excluded, sums: xr.DataArray) -> list[str]:
    """Names of the movies to leave out of the windows."""
    if exclude is None:
        return []
    if isinstance(exclude, xr.DataArray) and exclude.dtype == bool:
        names = [name for name, out in zip(movie_names(exclude), exclude.values, strict=True) if out]
    else:
        names = [str(name) for name in (exclude.values if isinstance(exclude, xr.DataArray) else exclude)]
    unknown = sorted(set(names) - set(movie_names(sums)))
    if unknown:
        raise ValueError(f"koma: exclude names {unknown[0]}, which is not among the movies")
    return names


def accepted_movies(exclude: Excluded, sums: xr.DataArray) -> NDArray[np.bool_]:
    """Whether each movie takes part in windows; two must."""
    accepted = ~np.isin(movie_names(sums), excluded_names(exclude, sums))
    if accepted.sum() < 2:
        raise ValueError(f"koma: {int(accepted.sum())} movies are left to average: exclude fewer")
    return accepted


def _subtracted(movies: xr.DataArray, sums: xr.DataArray, radius: int, method: str, exclude: Excluded) -> da.Array:
    stack = sums.transpose(schema.MOVIE, schema.Y, schema.X)
    data = stack.data if isinstance(stack.data, da.Array) else da.from_array(stack.data, (1, -1, -1), name=False)
    data = data.rechunk((1, -1, -1))
    accepted = accepted_movies(exclude, stack)
    windows = knock_out_windows(2 * radius, accepted)
    bad = _bad(stack)
    own = None if bad is None or schema.MOVIE not in bad.dims else bad.data
    reference = neighbour_sums(data, windows, accepted, mean=True, bad=own)
    spreads = _spreads(data, bad, windows, accepted, measure=method == "wiener")
    parts = xr.Dataset(
        {"reference": (stack.dims, reference), "spread": ((schema.MOVIE, "kind"), spreads)},
        {schema.MOVIE: movie_names(stack)},
    )
    if bad is not None:
        parts = parts.assign(bad=bad)
    parts = _of_movies(parts, movies)
    return blockwise(
        _correct,
        movies,
        *((part.data, part.dims) for part in parts.data_vars.values()),
        *([] if bad is not None else [None]),
        dtype=np.float32,
        dims=movies.dims,
        n_frames=int(np.atleast_1d(stack[schema.N_FRAMES].values)[0]),
        plain=method == "plain",
    )


def _bad(sums: xr.DataArray) -> xr.Variable | None:
    """The mask of the sums: in pieces it would cut the images, whose means and variances are those of whole ones."""
    if MASK not in sums.coords:
        return None
    mask = sums.coords[MASK].variable.transpose(..., schema.Y, schema.X)
    return xr.Variable(mask.dims, one_chunk(mask.data.astype(bool)))


def _of_movies(parts: xr.Dataset, movies: xr.DataArray) -> xr.Dataset:
    """What belongs to the movies that are corrected."""
    try:
        found = pick_movies(parts, movie_names(movies))
    except ValueError as error:
        raise ValueError(f"koma: sums are missing: {error}") from None
    return found if schema.MOVIE in movies.dims else found.isel({schema.MOVIE: 0})


def _spreads(
    sums: da.Array,
    bad: xr.Variable | None,
    windows: list[Window],
    accepted: NDArray[np.bool_],
    *,
    measure: bool,
) -> da.Array:
    """For each movie the mean variance over pixels of the sums in its window, where it is needed, and their number."""
    if not measure:
        sizes = np.array([[0.0, window.size] for window in windows])
        return da.from_array(sizes, chunks=(1, 2))
    dims = (schema.MOVIE, schema.Y, schema.X)
    mask = (None, None) if bad is None else (bad.data, bad.dims)
    own = da.blockwise(_variance, (schema.MOVIE,), sums, dims, *mask, dtype=float, meta=np.empty(0)).rechunk(-1)
    means = own.map_blocks(
        _window_means, windows, accepted, new_axis=1, chunks=((len(windows),), (2,)), dtype=float, meta=np.empty((0, 0))
    )
    return means.rechunk((1, 2))


@whole_blocks
def _variance(block: NDArray[Any], bad: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    masks = [None if bad is None else bad.reshape(image.shape) for image in block]
    return np.array([variance_of(image, mask) for image, mask in zip(block, masks, strict=True)], float)


def variance_of(image: NDArray[Any], bad: NDArray[np.bool_] | None) -> float:
    """Variance over the good pixels of an image; NaN where none is a number: it takes no part in a mean of them."""
    odd = unusable(image)
    return float("nan") if odd is not None and odd.all() else moments(image, bad).variance


def _window_means(values: NDArray[np.float64], windows: list[Window], accepted: NDArray[np.bool_]) -> NDArray[Any]:
    taken = values[accepted]
    known = np.isfinite(taken)
    taken = np.where(known, taken, 0.0)
    out = []
    for w in windows:
        own = (taken[w.own], known[w.own]) if w.own >= 0 else (0.0, 0)
        total, size = taken[w.start : w.stop].sum() - own[0], int(known[w.start : w.stop].sum() - own[1])
        out.append([total / max(size, 1), size])
    return np.array(out)


@whole_blocks
def _correct(
    block: NDArray[Any],
    reference: NDArray[Any],
    spread: NDArray[Any],
    bad: NDArray[np.bool_] | None,
    *,
    dims: tuple[Hashable, ...],
    n_frames: int,
    plain: bool,
) -> NDArray[np.float32]:
    out = np.empty(block.shape, np.float32)
    if not block.size:
        return out
    frames, target = as_session(block, dims), as_session(out, dims)
    references, spreads = reference.reshape(-1, *frames.shape[-2:]), spread.reshape(-1, 2)
    masks = None if bad is None else bad.reshape(-1, *frames.shape[-2:])
    for k in range(len(frames)):
        mask = None if masks is None else masks[min(k, len(masks) - 1)]
        level, variance = moments(references[k], mask)
        share = 1.0 if plain else wiener_share(variance, float(spreads[k, 0]), int(spreads[k, 1]))
        subtract(frames[k], pattern(references[k], level, share / n_frames), target[k])
    return out
