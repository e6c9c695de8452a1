"""Correlated noise: what successive frames have in common besides the image."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.execution.blocks import whole_blocks
from mrczdask.kernels.correlation import add_standardised, mean_square
from mrczdask.movies.arrays import one_chunk, whole_images
from mrczdask.movies.gain import MASK
from mrczdask.provenance import record


def frame_correlation(movie: xr.DataArray | xr.Dataset | NDArray[Any]) -> xr.DataArray | NDArray[Any]:
    """Mean Pearson correlation between the frames of a movie, or of each movie of a session; nothing is computed.

    Parameters
    ----------
    movie : DataArray, Dataset or array
        (..., frame, y, x); of a Dataset its variable `images`. Pixels in the coordinate `mask` are left out, and those
        that are NaN, infinite or beyond 2**53 in a frame.

    Returns
    -------
    DataArray or array
        float64, one number a movie; NaN for fewer than two frames or where a frame is constant. The attribute
        `noise` is the standard deviation it has for frames of white noise.

    Raises
    ------
    ValueError
        There is no dim `frame`.

    Notes
    -----
    One pass and one image: with z_i the frames less their mean, divided by their standard deviation, and S their sum,

        R = (mean(S**2) - n) / (n (n - 1))

    is the mean of eq. 7 over all pairs of the n frames, exactly. Of white noise its mean is 0 and its standard
    deviation sqrt(2 / (n (n - 1) pixels)); after KOMA of radius a over movies of F frames its floor is 1 / (2 a F + 1).

    References
    ----------
    McLeod et al., MRCZ, eq. 7, Figs. 7c and 12.

    Examples
    --------
    >>> import mrczdask as md
    >>> pattern = md.simulate.Pattern(pixel_sd=0.3)
    >>> movie, _ = md.simulate.movie((8, 128, 128), dose=2, pattern=pattern)
    >>> bool(abs(md.frame_correlation(movie) - 0.09 / 2.09) < 0.005)
    True
    """
    images = movie[schema.IMAGES] if isinstance(movie, xr.Dataset) else movie
    if not isinstance(images, xr.DataArray):
        dims = schema.SESSION_DIMS[-images.ndim :]
        found = frame_correlation(xr.DataArray(images, dims=dims))
        assert isinstance(found, xr.DataArray)
        return np.asarray(found) if isinstance(images, np.ndarray) else found.data
    if schema.FRAME not in images.dims:
        raise ValueError(f"frame_correlation needs the dim 'frame', the array has {images.dims}")
    lazy = isinstance(images.data, da.Array)
    with dask.config.set({"array.rechunk.method": "tasks"}):
        whole = whole_images(images if lazy else images.copy(data=_frames(images)))
        found = _correlation(whole.transpose(..., schema.FRAME, schema.Y, schema.X))
    return found if lazy else found.compute()


def _frames(images: xr.DataArray) -> da.Array:
    return da.from_array(images.data, [1 if dim == schema.FRAME else n for dim, n in images.sizes.items()], name=False)


def _correlation(images: xr.DataArray) -> xr.DataArray:
    n = images.sizes[schema.FRAME]
    pixels = images.sizes[schema.Y] * images.sizes[schema.X]
    lead = images.dims[:-3]
    good = None if MASK not in images.coords else ~images.coords[MASK].variable.transpose(..., schema.Y, schema.X)
    parts = da.blockwise(
        _standard_sum,
        (*lead, schema.FRAME, schema.Y, schema.X),
        images.data,
        images.dims,
        *([None, None] if good is None else [one_chunk(good.data), good.dims]),
        adjust_chunks={schema.FRAME: 1},
        dtype=np.float64,
        meta=np.empty((0,) * images.ndim),
    )
    total = parts.sum(axis=-3, split_every=4)
    dims = (*lead, schema.Y, schema.X)
    square = da.blockwise(_mean_squares, lead, total, dims, dtype=float, meta=np.empty((0,) * len(lead)))
    r = (square - n) / (n * (n - 1)) if n > 1 else square * np.nan
    coords = {name: c for name, c in images.coords.items() if set(c.dims) <= set(lead)}
    attrs = record(images.attrs, "frame_correlation")
    attrs["noise"] = float(np.sqrt(2 / max(n * (n - 1) * pixels, 1)))
    return xr.DataArray(r, coords, lead, "frame_correlation", attrs)


@whole_blocks
def _mean_squares(total: NDArray[np.float64]) -> NDArray[np.float64]:
    found = np.empty(total.shape[:-2])
    for place in np.ndindex(found.shape):
        found[place] = mean_square(total[place])
    return found


def _standard_sum(block: NDArray[Any], good: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Sum of the standardised frames of a block, NaN in bad pixels."""
    total = np.zeros((*block.shape[:-3], 1, *block.shape[-2:]))
    masks = None if good is None else np.broadcast_to(~good, block.shape[:-3] + block.shape[-2:])
    for lead in np.ndindex(block.shape[:-3]):
        add_standardised(block[lead], total[lead][0], None if masks is None else masks[lead])
    if masks is not None:
        total[..., 0, :, :][masks] = np.nan
    return total
