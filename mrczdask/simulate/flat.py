"""Poisson frames without a detector: for benchmarks and codecs."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import DTypeLike, NDArray

from mrczdask import schema
from mrczdask.kernels.poisson import flat_counts
from mrczdask.simulate.checks import check_fits, checked_dtype, checked_shape
from mrczdask.simulate.frames import Chunks, make_grid, movie_name, movie_names
from mrczdask.simulate.keys import key_of

COUNTS = "counts"
"""Purpose of the keys from which the electrons are drawn."""


def poisson(
    shape: Sequence[int],
    mean: float,
    *,
    dtype: DTypeLike = "uint8",
    seed: int = 0,
    chunks: Chunks = "auto",
) -> xr.DataArray:
    """Draw frames of independent Poisson counts of one mean: a perfect detector without specimen.

    Parameters
    ----------
    shape : sequence of int
        (frame, y, x) of a movie or (movie, frame, y, x) of a session.
    mean : float
        Electrons per pixel and frame, 0 or more.
    dtype : dtype
        uint8, int8, uint16, int16 or float32. Counts above the largest value of the dtype are clipped to it.
    seed : int
        Another seed gives other, independent frames.
    chunks : "auto", mapping, int or tuple
        Dask chunks; the pixels do not depend on them. "auto": whole frames, at most 128 MB a chunk when counted at
        4 bytes a pixel.

    Returns
    -------
    xarray.DataArray
        Lazy `images`; coordinates `frame` and `movie` (its name or names), attributes `counts_per_electron` = 1 and
        `origin`.

    Raises
    ------
    ValueError
        The shape, the mean or the dtype cannot be simulated, or the mean is above what the dtype holds.

    Notes
    -----
    Exact for any mean: counts follow the Poisson distribution to the 53 bits of a uniform number. Each pixel is a
    function of (seed, name of the movie, frame, y, x) alone, by the generator Philox4x32-10.

    References
    ----------
    Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11 (2011).
    Hörmann, Insurance: Mathematics and Economics 12 (1993) 39-45, for means above 64.

    Examples
    --------
    >>> import mrczdask as md
    >>> movie = md.simulate.poisson((10, 256, 256), mean=2.0, seed=1)
    >>> movie.dims, movie.dtype
    (('frame', 'y', 'x'), dtype('uint8'))
    >>> f"{float(movie.mean()):.2f} {float(movie.var()):.2f}"
    '2.00 2.00'
    >>> bool((movie.isel(frame=3, y=slice(7, 9)) == movie.compute()[3, 7:9]).all())
    True
    """
    sizes = checked_shape(shape, {3: "(frame, y, x)", 4: "(movie, frame, y, x)"})
    kind = checked_dtype(dtype)
    if not (math.isfinite(mean) and mean >= 0):
        raise ValueError(f"mean={mean}: give electrons per pixel and frame, 0 or more")
    check_fits("mean", mean, kind)
    names = movie_names(sizes[0] if len(sizes) == 4 else 1)
    attrs = {schema.COUNTS_PER_ELECTRON: 1.0, schema.ORIGIN: "lower"}
    grid = make_grid(sizes, names, chunks)
    return grid.array(_Flat(float(mean), operator.index(seed)), schema.SESSION_DIMS, kind, schema.IMAGES, attrs)


@dataclass(frozen=True)
class _Flat:
    """Renders the frames of one mean."""

    mean: float
    seed: int

    def __call__(self, movie: int, frames: NDArray[np.int64], rows: range, cols: range, out: NDArray[Any]) -> None:
        key = key_of(self.seed, movie_name(movie), COUNTS)
        for image, frame in zip(out, frames, strict=True):
            flat_counts(self.mean, key, int(frame), rows.start, cols.start, image)
