"""Movies as lazily indexed arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import dask.array as da
import numpy as np
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from mrczdask.io.reader import FrameReader

CHUNK_BYTES: Final = 64 << 20
"""Size aimed at for a Dask chunk, counted at 4 bytes a pixel: most results are float32."""
MAX_CHUNK_BYTES: Final = 128 << 20
_FLOAT_BYTES: Final = 4


class MovieArray(BackendArray):
    """One lazy array over the frames of one movie, (frame, y, x), or of a session, (movie, frame, y, x).

    It is never concatenated of others: only so is a selection pushed down to the bytes of the frames it needs.
    """

    def __init__(self, readers: Sequence[FrameReader], *, session: bool, dtype: np.dtype[Any] | None = None):
        self.readers = tuple(readers)
        self.session = session
        self.dtype = np.dtype(dtype or self.readers[0].dtype)
        self.shape = (len(self.readers),) * session + tuple(self.readers[0].shape)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> NDArray[Any]:
        if not isinstance(key, indexing.VectorizedIndexer):  # xarray's adapter fails on empty slices of negative step
            return self._read(key.tuple)
        support = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        if not self.session:
            key = (0, *key)
        movies = _positions(key[0], len(self.readers))
        frames = _positions(key[1], self.readers[0].shape[0])
        rows, row_key = _span(key[2], self.readers[0].shape[1])
        cols, col_key = _span(key[3], self.readers[0].shape[2])
        bands = self.readers[0].shape[3:]
        out = np.empty((len(movies), len(frames), rows.stop - rows.start, cols.stop - cols.start, *bands), self.dtype)
        self._fill(out, movies, frames, rows, cols)
        out = out[:, :, row_key][:, :, :, col_key]
        drop = tuple(axis for axis, part in enumerate(key[:2]) if isinstance(part, int | np.integer))
        return _squeeze(out, drop, key)

    def read_into(self, out: NDArray[Any], region: tuple[slice, ...]) -> None:
        """Read a block into `out`, which has its shape."""
        if not self.session:
            out, region = out[None], (slice(0, 1), *region)
        movies, frames = (range(part.start, part.stop) for part in region[:2])
        self._fill(out, movies, frames, region[2], region[3])

    def _fill(self, out: NDArray[Any], movies: Sequence[int], frames: Sequence[int], rows: slice, cols: slice) -> None:
        """Read a block (movie, frame, y, x) into `out`."""
        for place, movie in enumerate(movies):
            if out.size:
                self.readers[movie].read_into(out[place], frames, rows, cols)


def lazy_source(pixels: da.Array) -> Any | None:
    """The array a Dask array was made from, if it is exactly that: nothing sliced, computed or concatenated."""
    layers = dict(pixels.dask.layers)
    own = layers.pop(pixels.name, None)
    if own is None or len(layers) != 1:
        return None
    ((name, layer),) = layers.items()
    source = layer.get(name) if name == f"original-{pixels.name}" else None
    source = getattr(source, "value", source)  # Dask wraps data in a node
    return source if getattr(source, "shape", None) == pixels.shape else None


def movie_array(pixels: da.Array) -> MovieArray | None:
    """The reader behind a Dask array straight from `open_movie` or `open_session`, else None."""
    source = getattr(lazy_source(pixels), "array", None)
    if not isinstance(source, indexing.LazilyIndexedArray) or not isinstance(source.array, MovieArray):
        return None
    return source.array if source.shape == source.array.shape else None


def _squeeze(out: NDArray[Any], drop: tuple[int, ...], key: tuple[Any, ...]) -> NDArray[Any]:
    axes = drop + tuple(axis for axis in (2, 3) if isinstance(key[axis], int | np.integer))
    out = out.squeeze(axis=axes)
    return out[(..., *key[4:])] if len(key) > 4 else out


def _positions(key: Any, size: int) -> list[int]:
    """The positions an integer, slice or vector selects."""
    if isinstance(key, slice):
        return list(range(*key.indices(size)))
    return [int(k) + size * (k < 0) for k in np.atleast_1d(np.asarray(key))]


def _span(key: Any, size: int) -> tuple[slice, slice | NDArray[np.intp]]:
    """The smallest range of lines that holds a selection, and the selection inside it."""
    if isinstance(key, slice) and key.step in (None, 1):
        start, stop, _ = key.indices(size)
        return slice(start, max(start, stop)), slice(None)
    chosen = _positions(key, size)
    if not chosen:
        return slice(0, 0), slice(None)
    first, last = min(chosen), max(chosen) + 1
    if chosen == list(range(first, last)):
        return slice(first, last), slice(None)
    return slice(first, last), np.asarray(chosen) - first


def preferred_chunks(shape: Sequence[int], *, wrapped: bool = False) -> dict[str, int]:
    """Frames and rows of a Dask chunk: 32 to 128 MB at 4 bytes a pixel."""
    n, ny, nx = shape[:3]
    line = max(nx * _FLOAT_BYTES, 1)
    if wrapped:  # every read unpacks the file from its beginning
        return {"frame": n, "y": ny, "x": nx}
    frames = min(max(CHUNK_BYTES // (ny * line), 1), n)
    rows = ny if ny * line <= MAX_CHUNK_BYTES else max(CHUNK_BYTES // line, 1)
    return {"frame": frames, "y": rows, "x": nx}
