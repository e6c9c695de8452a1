"""Find hot and dead pixels in the sums of movies."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final, Literal

import dask
import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.kernels.outlier_tails import find_by_cdf
from mrczdask.kernels.outliers import BINS, DEAD, GOOD, HOT, Outliers, find_by_fdr, local_levels, strong
from mrczdask.kernels.window import knock_out_windows
from mrczdask.movies.arrays import labelled, of_movies, one_chunk, placed
from mrczdask.movies.gain import MASK
from mrczdask.movies.masks import MAX_BAD, plausible
from mrczdask.movies.neighbours import neighbour_sums
from mrczdask.movies.sums import sum_frames
from mrczdask.provenance import record

STRICT: Final = 6.0
"""Deviation of a pixel in the movie itself that makes it an outlier whatever the neighbouring movies say."""
CALM: Final = 3.0
"""A pixel is born or dies where one of two successive movies has it above STRICT and the other below this."""

NUMBERS: Final = {
    "threshold_hot": "standard deviations; NaN: none found",
    "threshold_dark": "standard deviations; NaN: none found",
    "mu": "electrons/pixel",
    "sigma": "electrons/pixel",
    "level": "electrons/pixel",
    "n_hot": "pixel",
    "n_dead": "pixel",
    "n_born": "pixel",
    "n_died": "pixel",
    "dispersion": "electrons",
    "judged": "share of the pixels",
    "n_unlit": "pixel",
}
"""Numbers of each movie, and their units."""
CURVES: Final = {
    "deviation": "right edges of the bins in standard deviations",
    "histogram": "pixels in each bin",
    "residual": "normal model less observed cumulative histogram in standard deviations",
}

Method = Literal["fdr", "cdf"]


def find_outliers(
    sums: xr.DataArray | xr.Dataset | NDArray[Any],
    *,
    method: Method = "fdr",
    window: int | None = None,
    q: float = 0.05,
    k: float = 6.0,
    rho: float = 0.95,
    mask: xr.DataArray | NDArray[Any] | None = None,
    max_bad: float = MAX_BAD,
) -> xr.Dataset:
    """Find the outlier pixels of each movie in the sum of its frames; nothing is computed.

    Parameters
    ----------
    sums : DataArray, Dataset or array
        (movie, y, x) or (y, x), gain-corrected and not aligned, in counts (the attribute `counts_per_electron` makes
        them electrons). Movies (..., frame, y, x) are summed first.
    method : {"fdr", "cdf"}
        "fdr": what stands out of the local level at a false discovery rate `q`. "cdf": the fat tails of the cumulative
        histogram, with logistic weights, as published.
    window : int, optional
        Find the outliers of each movie in the sum of this many neighbouring movies without itself: nothing is selected
        by the noise of the movie that is corrected, and weak pixels that stay hot are found. Pixels above 6 standard
        deviations in the movie itself are added. Fewer other movies: all of them.
    q : float
        False discovery rate in each tail, for "fdr".
    k, rho : float
        Steepness of the weights and relaxation of the thresholds, for "cdf".
    mask : DataArray or array of bool, optional
        Pixels known to be bad, (y, x) or (movie, y, x), such as of `open_defects`; they, and those in the coordinate
        `mask` of the sums, count as dead.
    max_bad : float
        Share of the pixels (y, x) above which a given mask is refused, as one that marks the good ones.

    Returns
    -------
    xarray.Dataset
        `mask` bool, `defect_kind` uint8 (0 good, 1 hot, 2 dead) and `weight` float32, (movie, y, x) or (y, x). For each
        movie `threshold_hot`, `threshold_dark`, `mu`, `sigma`, `level` (electrons per pixel in the sum), `n_hot`,
        `n_dead`, with a window also `n_born` and `n_died` (strong ones that were not in the movie before, or are
        there no more), else NaN; `dispersion`, variance over mean of the noise; `judged`, the share of the pixels so
        bright that a dead one among them is told by itself; `n_unlit`, pixels of empty areas that are no blocks of a
        read-out and were left alone; `deviation`, `histogram`, `residual` (movie, bin), from which Fig. 5 of the paper
        is drawn.

    Raises
    ------
    ValueError
        The method is unknown, a parameter is out of its range, a window is asked for of a single sum, or the mask
        calls more than `max_bad` of the pixels bad.

    Notes
    -----
    "fdr": the probability of a pixel with k counts beside n others (of its 9 x 9 box; 17 x 17 below 1 electron per
    pixel) with T counts in all is that of the binomial distribution: P(>= k) = I_p(k, T + 1), P(<= k) =
    I_(1 - p)(T, k + 1), p = 1/(n + 1), I the regularised incomplete beta function. It needs no estimate of the level
    and is exact at any dose. Other pixels that stand out (by more than 4 standard deviations), and dead lines and
    blocks, are left out of T. Where counts vary more than Poisson ones, by the variance over the mean of good pixels
    (`dispersion`), they are negative binomial; sums in other units are brought to counts first. Where the box is
    uneven a parabola through it gives the level; at edges a pixel must stand out of the quarter of its neighbours that
    is most like it. In each tail the largest P with N P / n(<= P) <= q is the limit.

    An empty pixel is dead where exp(-level) is below that limit: in a dim image no single pixel is (`judged` is 0).
    Lines and blocks of a read-out are told by exp(-level area), whatever their width, if the pixels along them count;
    other empty areas are shadows, or where no beam was (`n_unlit`): nothing in them is dead.

    On simulated movies of 0.01 to 1000 electrons per pixel the false discovery rate is below 2 q on flat images and
    under slopes, ice, particles, carbon film and half in the dark.

    "cdf": a normal CDF is fitted to that of S; r = (S - mu)/sigma - sqrt(2) erfinv(2 CDF - 1); the zeros of straight
    lines through r > 0.5 (hot) and r < -0.5 (dark) are the thresholds t, or 3.25 and -4 where a tail cannot be fitted;
    u = (S - mu)/sigma has the weight expit(k (u - rho t_dark)) expit(-k (u - rho t_hot)). Its recall is .99,
    its precision about .3: one good pixel in a hundred is touched, which makes the frames of a clean movie slightly
    anti-correlated. Below 10 electrons per pixel the thresholds are at least where Poisson counts have tails of 1e-4.

    References
    ----------
    McLeod et al., MRCZ, section 4, eqs. 1 to 6. Benjamini and Hochberg, J. R. Statist. Soc. B 57 (1995) 289-300.
    Przyborowski and Wilenski, Biometrika 31 (1940) 313-323: the ratio of two Poisson counts, given their sum.

    Examples
    --------
    >>> import mrczdask as md
    >>> bad = md.simulate.Defects(hot_fraction=0.005, dead_columns=1)
    >>> movie, truth = md.simulate.movie((20, 256, 256), dose=2, defects=bad)
    >>> found = md.find_outliers(md.sum_frames(movie)).compute()
    >>> bool((found.mask & truth.mask).sum() > 0.9 * found.mask.sum())
    True
    >>> int(found.n_dead) >= 256
    True
    """
    _check(method, window, q, k, rho)
    given = sums[schema.IMAGES] if isinstance(sums, xr.Dataset) else sums
    images = given if isinstance(given, xr.DataArray) else labelled(given, name="sums")
    if schema.FRAME in images.dims:
        images = _summed(images)
    options: dict[str, Any] = {"method": method, "window": window}
    options |= {"q": q} if method == "fdr" else {"k": k, "rho": rho}
    with dask.config.set({"array.rechunk.method": "tasks"}):
        lazy = isinstance(images.data, da.Array)
        known = None if mask is None else plausible(labelled(mask, name="mask"), "find_outliers", max_bad)
        found = _found(images if lazy else images.copy(data=da.from_array(images.data, name=False)), known, options)
    return found if lazy else found.compute()


def _summed(movie: xr.DataArray) -> xr.DataArray:
    total = sum_frames(movie)
    assert isinstance(total, xr.DataArray)
    return total


def _check(method: str, window: int | None, q: float, k: float, rho: float) -> None:
    if method not in ("fdr", "cdf"):
        raise ValueError(f'find_outliers: method={method!r}: give "fdr" or "cdf"')
    if window is not None and window < 1:
        raise ValueError(f"find_outliers: window={window}: give a number of neighbouring movies, 1 or more")
    if not 0 < q < 1:
        raise ValueError(f"find_outliers: q={q}: give a false discovery rate between 0 and 1")
    if k <= 0 or rho <= 0:
        raise ValueError(f"find_outliers: k={k}, rho={rho}: give numbers above 0")


def _found(images: xr.DataArray, mask: Any, options: dict[str, Any]) -> xr.Dataset:
    alone = schema.MOVIE not in images.dims
    stack = (images.expand_dims(schema.MOVIE) if alone else images).transpose(schema.MOVIE, schema.Y, schema.X)
    data = stack.data.rechunk((1, -1, -1))
    if options["window"] and len(stack) < 2:
        raise ValueError("find_outliers: a window needs the sums of two movies or more along the dim movie")
    dims = (schema.MOVIE, schema.Y, schema.X)
    bad = _known_bad(stack, mask)
    args: list[Any] = [data, dims, *([None, None] if bad is None else [bad.data, bad.dims])]
    if options["window"]:
        everyone = np.ones(len(stack), bool)
        around = neighbour_sums(data, knock_out_windows(options["window"], everyone), everyone, mean=False)
        args += [around, dims, da.concatenate([data[:1], data[:-1]]).rechunk((1, -1, -1)), dims]
    results = da.blockwise(
        _search,
        dims,
        *args,
        dtype=object,
        meta=np.empty((0, 0, 0), object),
        per_electron=float(stack.attrs.get(schema.COUNTS_PER_ELECTRON, 1.0)),
        **{name: value for name, value in options.items() if name != "window"},
    )
    found = _dataset(results, stack, options)
    return found.isel({schema.MOVIE: 0}) if alone else found


def _known_bad(stack: xr.DataArray, mask: xr.DataArray | None) -> xr.DataArray | None:
    """The union of the given masks, (y, x) or (movie, y, x)."""
    parts = [stack.coords[MASK].drop_vars(MASK)] if MASK in stack.coords else []
    if mask is not None:
        parts.append(of_movies(mask, stack, "mask"))
    if not parts:
        return None
    union = parts[0].variable if len(parts) == 1 else parts[0].variable | parts[1].variable
    size = union.sizes[schema.Y], union.sizes[schema.X]
    if size != stack.shape[-2:]:
        raise ValueError(f"find_outliers: the mask is {size}, the sums are {stack.shape[-2:]} (y, x)")
    union = union.transpose(*(dim for dim in (schema.MOVIE, schema.Y, schema.X) if dim in union.dims))
    return xr.DataArray(one_chunk(union.data.astype(bool)), dims=union.dims)


def _search(
    block: NDArray[Any],
    bad: NDArray[np.bool_] | None,
    around: NDArray[Any] | None = None,
    before: NDArray[Any] | None = None,
    *,
    method: str,
    per_electron: float,
    **options: float,
) -> Any:
    """Outliers of the one movie of a block, and the numbers about it: a tuple, packed where Dask expects an array."""
    known = None if bad is None else bad.reshape(block.shape[-2:])
    own, known = _electrons(block[0], per_electron, known)
    image = own if around is None else _electrons(around[0], per_electron, known)[0]
    find = find_by_fdr if method == "fdr" else find_by_cdf
    found = find(image, bad=known, **options)
    kind, born, died = found.kind, np.nan, np.nan
    if before is not None:
        previous, _ = _electrons(before[0], per_electron, known)
        born, died = _add_own(kind, own, previous, known)
    if known is not None:
        kind[known] = DEAD
        if found.weight is not None:
            found.weight[known] = 0
    level = float(own.mean()) if own.size else 0.0
    thresholds = found.threshold_hot, found.threshold_dark, found.mu, found.sigma, level
    counts = np.bincount(kind.ravel(), minlength=3)[[HOT, DEAD]]
    judged = found.dispersion, found.judged, found.unlit
    return _Packed(found, np.array([*thresholds, *counts, born, died, *judged], float))


class _Packed:
    """A result that Dask carries as the block of an array."""

    def __init__(self, found: Outliers, numbers: NDArray[np.float64]):
        self.found, self.numbers = found, numbers


def _electrons(
    image: NDArray[Any], per_electron: float, bad: NDArray[np.bool_] | None
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """The image in electrons; what is not finite becomes the median and is bad."""
    electrons = image / per_electron if per_electron != 1 else image
    if electrons.dtype.kind != "f":
        return electrons, bad
    odd = ~np.isfinite(electrons)
    if odd.any():
        electrons = np.where(odd, np.median(electrons[~odd]) if not odd.all() else 0, electrons)
        bad = odd if bad is None else bad | odd
    return electrons, bad


def _add_own(
    kind: NDArray[np.uint8], own: NDArray[Any], before: NDArray[Any], bad: NDArray[np.bool_] | None
) -> tuple[int, int]:
    """Add the strong outliers of the movie itself; return how many were born and died since the one before."""
    (found, usual), (previous, calm) = (
        [strong(levels, limit) for limit in (STRICT, CALM)]
        for levels in (local_levels(own, bad), local_levels(before, bad))
    )
    kind[kind == GOOD] = found[kind == GOOD]
    return int(((found > 0) & (calm == 0)).sum()), int(((previous > 0) & (usual == 0)).sum())


def _dataset(results: da.Array, stack: xr.DataArray, options: dict[str, Any]) -> xr.Dataset:
    dims = (schema.MOVIE, schema.Y, schema.X)
    kind = _part(results, _kind, dims, np.uint8)
    weight = _part(results, _weight, dims, np.float32)
    numbers = _part(results, _numbers, (schema.MOVIE, "number"), np.float64, number=len(NUMBERS))
    curves = _part(results, _curves, (schema.MOVIE, "curve", "bin"), np.float64, curve=len(CURVES), bin=BINS)
    flags = {"flag_values": np.array([GOOD, HOT, DEAD], np.uint8), "flag_meanings": "good hot dead"}
    variables: dict[str, Any] = {
        "mask": (dims, kind > 0),
        "defect_kind": (dims, kind, flags),
        "weight": (dims, weight),
        **{name: (schema.MOVIE, numbers[:, k], {"units": unit}) for k, (name, unit) in enumerate(NUMBERS.items())},
        **{name: ((schema.MOVIE, "bin"), curves[:, k], {"long_name": t}) for k, (name, t) in enumerate(CURVES.items())},
    }
    for name in ("mask", "defect_kind", "weight"):
        values, *attrs = variables[name][1:]
        variables[name] = (dims, values, {**placed(stack.attrs), **(attrs[0] if attrs else {})})
    coords = {name: c for name, c in stack.coords.items() if name != MASK}
    kept = {
        name: value for name, value in stack.attrs.items() if name in (schema.ORIGIN, schema.HISTORY, schema.PROVENANCE)
    }
    attrs = record(kept, "find_outliers", options)
    return xr.Dataset(variables, coords, {**attrs, "method": options["method"]})


def _part(results: da.Array, take: Any, dims: tuple[Hashable, ...], dtype: Any, **sizes: int) -> da.Array:
    """One array out of the packed results."""
    return da.blockwise(
        take,
        dims,
        results,
        (schema.MOVIE, schema.Y, schema.X),
        new_axes=sizes,
        dtype=dtype,
        meta=np.empty((0,) * len(dims), dtype),
        align_arrays=False,
    )


def _single(packed: Any) -> _Packed:
    """Dask wraps blocks along dims that a result loses in lists."""
    while isinstance(packed, list):
        packed = packed[0]
    assert isinstance(packed, _Packed)
    return packed


def _kind(packed: Any) -> NDArray[np.uint8]:
    return _single(packed).found.kind[None]


def _weight(packed: Any) -> NDArray[np.float32]:
    found = _single(packed).found
    return (((found.kind == GOOD).astype(np.float32)) if found.weight is None else found.weight)[None]


def _numbers(packed: Any) -> NDArray[np.float64]:
    return _single(packed).numbers[None]


def _curves(packed: Any) -> NDArray[np.float64]:
    found = _single(packed).found
    return np.stack([found.edges, found.counts, found.residual])[None]
