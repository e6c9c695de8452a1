"""Sums of frames: exact integers, one image a movie."""

from __future__ import annotations

from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.io.movie_array import lazy_source
from mrczdask.kernels.statistics import add_frames
from mrczdask.kernels.usable import add_floats
from mrczdask.provenance import record

STREAM_BYTES: Final = 64 << 20
"""Pixels read at once while summing, counted at 4 bytes each: one 4k frame, or many small ones."""
GROUP_BYTES: Final = 8 << 20
"""Sums in one chunk, where they are many: reading and writing a chunk takes a millisecond whatever it holds."""
LEAST_CHUNKS: Final = 48
"""Chunks that a session is left with, for every thread to have some."""


def sum_frames(movie: xr.DataArray | xr.Dataset | NDArray[Any]) -> xr.DataArray | NDArray[Any]:
    """Sum the frames of a movie, or of every movie of a session.

    Parameters
    ----------
    movie : DataArray, Dataset or array
        (..., frame, y, x), in memory or Dask; of a Dataset its variable `images`.

    Returns
    -------
    DataArray or array
        (..., y, x); int64 for integers and bool, float64 for floats: sums of integers are exact in any order. A
        float that is NaN, infinite or beyond 2**53 in any frame makes the sum of its pixel NaN, and no other: it is
        found by `find_outliers` and filled by `fill_outliers`. A DataArray has the coordinate `n_frames`.

    Raises
    ------
    ValueError
        A DataArray has no dim `frame`.

    Notes
    -----
    Movies straight from `open_movie` or `open_session` are summed by one streaming task a movie, or for several small
    ones, which holds one frame and one accumulator a movie. Sums of anything else are a tree over the chunks.

    Examples
    --------
    >>> import mrczdask as md
    >>> movie = md.simulate.poisson((4, 16, 16), mean=1.0, seed=0)
    >>> total = md.sum_frames(movie)
    >>> total.dims, total.dtype, int(total.n_frames)
    (('y', 'x'), dtype('int64'), 4)
    """
    images = movie[schema.IMAGES] if isinstance(movie, xr.Dataset) else movie
    if not isinstance(images, xr.DataArray):
        return _sum(images, images.ndim - 3)
    if schema.FRAME not in images.dims:
        raise ValueError(f"sum_frames needs the dim 'frame', the array has {images.dims}")
    axis = images.get_axis_num(schema.FRAME)
    dims = tuple(dim for dim in images.dims if dim != schema.FRAME)
    coords = {name: c for name, c in images.coords.items() if schema.FRAME not in c.dims}
    coords.setdefault(schema.N_FRAMES, xr.DataArray(images.sizes[schema.FRAME]))
    return xr.DataArray(_sum(images.data, axis), coords, dims, images.name, record(images.attrs, "sum_frames"))


def _sum(pixels: Any, axis: int) -> Any:
    dtype = sum_dtype(pixels.dtype)
    source = lazy_source(pixels) if isinstance(pixels, da.Array) and axis == pixels.ndim - 3 else None
    if source is None:
        return _sum_of_floats(pixels, axis) if dtype.kind == "f" else pixels.sum(axis=axis, dtype=dtype)
    sums = _FrameSums(source, dtype, pixels.name)
    image_bytes = max(sums.shape[-2] * sums.shape[-1] * dtype.itemsize, 1)
    together = max(min(GROUP_BYTES // image_bytes, sums.shape[0] // LEAST_CHUNKS), 1) if axis == 1 else 1
    chunks = (together,) * axis + sums.shape[axis:]
    return da.from_array(sums, chunks=chunks, meta=np.empty((0,) * len(chunks), dtype))


def _sum_of_floats(pixels: Any, axis: int) -> Any:
    if not isinstance(pixels, da.Array):
        return float_sum(np.asarray(pixels), axis)
    return da.reduction(pixels, _part_of_sum, np.sum, axis=axis, dtype=np.float64)


def _part_of_sum(block: NDArray[Any], axis: tuple[int, ...], keepdims: bool) -> NDArray[np.float64]:
    total = float_sum(block, axis[0])
    return np.expand_dims(total, axis) if keepdims else total


def float_sum(frames: NDArray[Any], axis: int) -> NDArray[np.float64]:
    """Sum of floats along an axis, NaN where one of them is NaN, infinite or beyond 2**53."""
    first = np.moveaxis(frames, axis, 0)
    total = np.zeros(first.shape[1:])
    if first.size:
        line = max(first.shape[-1], 1)
        add_floats(first.reshape(len(first), -1, line), total.reshape(-1, line))
    return total


def sum_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which pixels are summed: exact for integers."""
    kinds = {"b": "i8", "i": "i8", "u": "i8", "f": "f8", "c": "c16"}
    return np.dtype(kinds[dtype.kind])


class _FrameSums:
    """An array whose items are sums over the frames of another, read a few frames at a time.

    `root` is the graph layer of the frames: a graph over these sums reads them too.
    """

    def __init__(self, source: Any, dtype: np.dtype[Any], token: str):
        self._source, self._token = source, token
        self.root = f"original-{token}"
        self.shape = (*source.shape[:-3], *source.shape[-2:])
        self.ndim, self.dtype = len(self.shape), dtype

    def __dask_tokenize__(self) -> tuple[str, ...]:
        gate = ("usable",) if self.dtype.kind == "f" else ()
        return "mrczdask.sum_frames", self._token, *gate

    def __getitem__(self, key: tuple[Any, ...]) -> NDArray[Any]:
        if self.ndim == 3 and isinstance(key[0], slice):
            movies = range(*key[0].indices(self.shape[0]))
            return np.stack([self._sum((movie, *key[1:])) for movie in movies]) if len(movies) > 1 else self._sum(key)
        return self._sum(key)

    def _sum(self, key: tuple[Any, ...]) -> NDArray[Any]:
        n_frames, ny, nx = self._source.shape[-3:]
        step = max(STREAM_BYTES // (4 * ny * nx), 1)
        total = self._part(key, slice(0, step))
        for first in range(step, n_frames, step):
            total += self._part(key, slice(first, first + step))
        return total

    def _part(self, key: tuple[Any, ...], frames: slice) -> NDArray[Any]:
        """Sum of some frames: their pixels are let go before the next are read."""
        *batch, rows, cols = key
        axis = sum(not isinstance(part, int | np.integer) for part in batch)  # Dask fuses integers into the key
        block = np.asarray(self._source[(*batch, frames, rows, cols)])
        if self.dtype.kind == "f":
            return float_sum(block, axis)
        if block.ndim != axis + 3 or block.dtype.kind not in "iu" or not block.dtype.isnative:
            return np.asarray(block.sum(axis=axis, dtype=self.dtype))
        total = np.zeros(block.shape[:axis] + block.shape[axis + 1 :], np.int64)
        for place in np.ndindex(block.shape[:axis]):
            add_frames(block[place], total[place])
        return total
