"""Fill outlier pixels from their good neighbours in the same frame."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.execution.blocks import whole_blocks
from mrczdask.kernels import fill
from mrczdask.kernels.usable import fill_around
from mrczdask.movies.arrays import (
    Movie,
    as_session,
    blockwise,
    check_size,
    labelled,
    movie_names,
    of_movies,
    on_images,
    one_chunk,
    result_dtype,
    warn_if_unstored,
    whole_images,
)
from mrczdask.movies.gain import MASK
from mrczdask.movies.masks import MAX_BAD, plausible
from mrczdask.provenance import record


def fill_outliers(
    images: Movie,
    outliers: xr.Dataset | xr.DataArray | NDArray[Any],
    *,
    keep_integers: bool = False,
    seed: int = 0,
    max_bad: float = MAX_BAD,
) -> Movie:
    """Replace outlier pixels of movies or of their sums by what their neighbours expect there; nothing is computed.

    Parameters
    ----------
    images : DataArray, Dataset or array
        Movies (..., frame, y, x) or sums (..., y, x).
    outliers : Dataset, DataArray or array
        What `find_outliers` found, or a mask of bool, (y, x) or (movie, y, x), matched by label. Pixels in the
        coordinate `mask` of the images are filled too. Outliers of the method "cdf" have weights between 0 and 1.
    keep_integers : bool
        Give each outlier the value of one good neighbour, drawn anew in each frame, so that a counted movie stays one
        of integers and compresses; sums get the expected value of that. For movies before the gain.
    seed : int
        Another seed draws other neighbours.
    max_bad : float
        Share of the pixels (y, x) above which a mask given as an array is refused, as one that marks the good ones.

    Returns
    -------
    DataArray, Dataset or array
        What was given: float32 (float64 for sums), or with `keep_integers` movies in their own dtype. A frame without
        a good pixel stays as it is.

    Raises
    ------
    ValueError
        The mask has another size or lacks a movie, calls more than `max_bad` of the pixels bad, or integers are to be
        kept of a movie of floats.

    Warns
    -----
    MrczdaskWarning
        The outliers are an unstored graph over the frames themselves.

    Notes
    -----
    out = w frame + (1 - w) fill. An outlier without another one in its 5 x 5 neighbourhood, and a good pixel of w < 1,
    is filled by the mean of the good neighbours weighted by the point spread of the paper's table 1, normalised over
    them; an outlier of a cluster by the plain mean of the good pixels of the neighbourhood, which grows until there is
    one. The fill is linear in the frame: it commutes with the sum. With `keep_integers` a neighbour is drawn with the
    probability of its weight, by a generator keyed by (seed, name of the movie, value of `frame`, pixel).

    References
    ----------
    McLeod et al., MRCZ, section 4, step 5, eq. 6 and table 1.

    Examples
    --------
    >>> import mrczdask as md
    >>> bad = md.simulate.Defects(hot_fraction=0.005)
    >>> movie, truth = md.simulate.movie((8, 128, 128), dose=2, defects=bad)
    >>> filled = md.fill_outliers(movie, truth.mask)
    >>> bool((filled == movie).where(~truth.mask, True).all())
    True
    >>> md.fill_outliers(movie, truth.mask, keep_integers=True).dtype
    dtype('uint8')
    """

    def verb(given: xr.DataArray) -> xr.DataArray:
        whole = whole_images(given)
        bad, weight = _effective(outliers, whole, max_bad)
        warn_if_unstored(whole, bad, "mask")
        as_integers = keep_integers and schema.FRAME in whole.dims
        if as_integers and whole.dtype.kind not in "iu":
            raise ValueError(
                f"fill_outliers: keep_integers=True needs integers, the movie is {whole.dtype}: fill first"
            )
        dtype = whole.dtype if as_integers else result_dtype(whole.dtype)
        labels = _labels(whole, seed) if as_integers else (None, None)
        plans = _plans(bad, weight, whole, listed=as_integers)
        data = blockwise(_fill, whole, plans, *labels, dtype=dtype, dims=whole.dims, to=dtype)
        out = whole.copy(data=data)
        out.attrs = record(given.attrs, "fill_outliers", _called(outliers, keep_integers, seed))
        return out

    return on_images(images, verb)


def _called(outliers: Any, keep_integers: bool, seed: int) -> dict[str, Any]:
    method = outliers.attrs.get("method") if isinstance(outliers, xr.Dataset) else "mask"
    return {"outliers": method} | ({"keep_integers": True, "seed": seed} if keep_integers else {})


def _effective(outliers: Any, images: xr.DataArray, max_bad: float) -> tuple[xr.DataArray, xr.DataArray | None]:
    """All bad pixels, and the weights where they are not just 0 and 1."""
    weight = None
    if isinstance(outliers, xr.Dataset):
        mask = outliers["mask"]
        if outliers.attrs.get("method") == "cdf":
            weight = _parameter(outliers["weight"], images, "weight")
    else:
        mask = plausible(labelled(outliers, name="mask"), "fill_outliers", max_bad)
    bad = _parameter(mask, images, "mask")
    if bad.dtype != bool:
        raise ValueError(f"fill_outliers: the mask is {bad.dtype}: give bool, True = bad")
    if MASK in images.coords:
        known = images.coords[MASK].variable
        data = one_chunk(known.data)
        bad = bad | xr.DataArray(data, dims=known.dims)
        bad = bad.transpose(*(dim for dim in (schema.MOVIE, schema.Y, schema.X) if dim in bad.dims))
    return bad, weight


def _parameter(values: Any, images: xr.DataArray, what: str) -> xr.DataArray:
    array = of_movies(labelled(values, name=what), images, what)
    check_size(array, images, what)
    array = array.transpose(..., schema.Y, schema.X)
    return xr.DataArray(one_chunk(array.data), dims=array.dims)


def _labels(images: xr.DataArray, seed: int) -> tuple[tuple[da.Array, tuple[str, ...]], ...]:
    """Keys of the movies and numbers of the frames, chunked as the images."""
    names = movie_names(images) if schema.MOVIE in images.coords else [""]
    if schema.MOVIE in images.dims and len(names) != images.sizes[schema.MOVIE]:
        names = [str(k) for k in range(images.sizes[schema.MOVIE])]
    keys = np.array([_key(seed, name) for name in names], np.uint64)
    frames = images[schema.FRAME].values.astype(np.int64)
    dims = (schema.MOVIE,) if schema.MOVIE in images.dims else ()
    sizes = dict(zip(images.dims, images.data.chunks, strict=True))
    movie = da.from_array(keys, chunks=(sizes[schema.MOVIE],)) if dims else da.from_array(keys[0], chunks=())
    return (movie, dims), (da.from_array(frames, chunks=(sizes[schema.FRAME],)), (schema.FRAME,))


def _key(seed: int, name: str) -> int:
    digest = hashlib.blake2b(f"{int(seed)}\0{name}\0fill_outliers".encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def _plans(
    bad: xr.DataArray, weight: xr.DataArray | None, images: xr.DataArray, *, listed: bool
) -> tuple[da.Array, tuple[Hashable, ...]]:
    """How to fill each movie: made once for all its chunks. A block holds the plans of its movies."""
    dims = tuple(dim for dim in bad.dims if dim == schema.MOVIE)
    args: list[Any] = []
    for parameter in (bad, weight):
        chunks = dict(zip(images.dims, images.data.chunks, strict=True))
        args += [None, None]
        if parameter is not None:
            along = {k: chunks[dim] for k, dim in enumerate(parameter.dims) if dim == schema.MOVIE}
            args[-2:] = [parameter.data.rechunk(along), parameter.dims]
    if weight is not None and schema.MOVIE in weight.dims:
        dims = (schema.MOVIE,)
    meta = np.empty((0,) * len(dims), object)
    plans = da.blockwise(_make_plans, dims, *args, dtype=object, meta=meta, listed=listed)
    return plans, dims


class _Plans:
    """Plans that Dask carries as the block of an array."""

    def __init__(self, plans: list[fill.Plan]):
        self.plans = plans


@whole_blocks
def _make_plans(bad: NDArray[np.bool_], weight: NDArray[np.float32] | None, *, listed: bool) -> Any:
    masks = bad.reshape(-1, *bad.shape[-2:])
    weights = [None] if weight is None else list(weight.reshape(-1, *weight.shape[-2:]))
    movies = range(max(len(masks), len(weights)))
    each = [(masks[min(k, len(masks) - 1)], weights[min(k, len(weights) - 1)]) for k in movies]
    return _Plans([fill.make_plan(*parts, listed=listed) for parts in each])


def _fill(
    block: NDArray[Any],
    plans: Any,
    keys: NDArray[np.uint64] | None,
    numbers: NDArray[np.int64] | None,
    *,
    dims: tuple[Hashable, ...],
    to: np.dtype[Any],
) -> NDArray[Any]:
    out = np.empty(block.shape, to)
    frames, target = as_session(block, dims), as_session(out, dims)
    if not block.size:
        return out
    for k in range(len(frames)):
        plan = plans.plans[min(k, len(plans.plans) - 1)]
        if keys is None or numbers is None:
            fill_around(frames[k], plan, target[k])
        else:
            target[k] = fill.fill_whole(frames[k], plan, int(np.atleast_1d(keys)[k]), numbers)
    return out
