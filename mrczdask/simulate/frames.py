"""Arrays that are computed when they are indexed, and the labels around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import DTypeLike, NDArray

from mrczdask import schema

CHUNK_BYTES: Final = 128 << 20
"""Largest chunk of whole frames, counted at 4 bytes a pixel."""

Chunks = Literal["auto"] | Mapping[str, Any] | int | tuple[Any, ...]


class Renderer(Protocol):
    """What computes the pixels: small, picklable, the same object for every block."""

    def __call__(self, movie: int, frames: NDArray[np.int64], rows: range, cols: range, out: NDArray[Any]) -> None:
        """Fill (len(frames), len(rows), len(cols)) with these frames of one movie."""


class LazyFrames:
    """An array over a renderer: an index computes what it selects, in the rectangle around the selected pixels."""

    def __init__(self, render: Renderer, dims: Sequence[str], sizes: Mapping[str, int], dtype: DTypeLike):
        self._render, self._dims = render, tuple(dims)
        self.shape = tuple(sizes[dim] for dim in dims)
        self.ndim, self.dtype = len(self.shape), np.dtype(dtype)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return "mrczdask.simulate", self._render, self._dims, self.shape, str(self.dtype)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        key = key if isinstance(key, tuple) else (key,)
        key += (slice(None),) * (self.ndim - len(key))
        chosen = {
            dim: np.atleast_1d(np.arange(n)[part]) for dim, n, part in zip(self._dims, self.shape, key, strict=True)
        }
        movies, frames, rows, cols = (chosen.get(dim, np.array([0])) for dim in schema.SESSION_DIMS)
        out = np.empty((len(movies), len(frames), len(rows), len(cols)), self.dtype)
        if out.size:
            for block, movie in zip(out, movies, strict=True):
                self._fill(block, int(movie), frames, rows, cols)
        scalar = {dim for dim, part in zip(self._dims, key, strict=True) if isinstance(part, int | np.integer)}
        kept = tuple(0 if dim in scalar or dim not in chosen else slice(None) for dim in schema.SESSION_DIMS)
        return np.asarray(out[kept])

    def _fill(
        self,
        out: NDArray[Any],
        movie: int,
        frames: NDArray[np.int64],
        rows: NDArray[np.int64],
        cols: NDArray[np.int64],
    ) -> None:
        height, width = (range(int(part.min()), int(part.max()) + 1) for part in (rows, cols))
        if np.array_equal(rows, height) and np.array_equal(cols, width):
            self._render(movie, frames, height, width, out)
            return
        whole = np.empty((len(frames), len(height), len(width)), self.dtype)
        self._render(movie, frames, height, width, whole)
        out[...] = whole[:, rows - height.start][:, :, cols - width.start]


@dataclass(frozen=True)
class Grid:
    """Sizes, chunks and coordinates that the arrays of one simulation share; a movie has no dim `movie`."""

    sizes: Mapping[str, int]
    chunks: Mapping[str, Any]
    coords: Mapping[str, xr.Variable]

    def array(
        self, render: Renderer, dims: Sequence[str], dtype: DTypeLike, name: str, attrs: Mapping[str, Any]
    ) -> xr.DataArray:
        """A lazy array with those of `dims` that the grid has; one task a chunk, which holds its slice alone."""
        dims = tuple(dim for dim in dims if dim in self.sizes)
        data = da.from_array(
            LazyFrames(render, dims, self.sizes, dtype),
            chunks=tuple(self.chunks[dim] for dim in dims),
            meta=np.empty((0,) * len(dims), dtype),
        )
        coords = {label: coord for label, coord in self.coords.items() if set(coord.dims) <= set(dims)}
        return xr.DataArray(data, coords, dims, name, dict(attrs))


def make_grid(shape: tuple[int, ...], names: Sequence[str], chunks: Chunks) -> Grid:
    """The grid of a movie (frame, y, x) or of a session (movie, frame, y, x)."""
    dims = schema.SESSION_DIMS[-len(shape) :]
    coords = {
        schema.FRAME: xr.Variable((schema.FRAME,), np.arange(shape[-3])),
        schema.MOVIE: xr.Variable((schema.MOVIE,), np.array(names)) if len(shape) == 4 else xr.Variable((), names[0]),
    }
    return Grid(dict(zip(dims, shape, strict=True)), _chunks(chunks, dims, shape), coords)


def movie_name(number: int) -> str:
    """movie_0000, movie_0001, ...: the same names for the first movies of any session."""
    return f"movie_{number:04d}"


def movie_names(count: int) -> list[str]:
    """The names of the first movies."""
    return [movie_name(number) for number in range(count)]


def _chunks(chunks: Chunks, dims: Sequence[str], shape: tuple[int, ...]) -> dict[str, Any]:
    auto = dict(zip(dims, _auto_chunks(shape), strict=True))
    if isinstance(chunks, str):
        if chunks != "auto":
            raise ValueError(f'chunks={chunks!r}: give "auto", a mapping of {tuple(dims)}, a number or a tuple')
        return auto
    if isinstance(chunks, Mapping):
        unknown = set(chunks) - set(dims)
        if unknown:
            raise ValueError(f"chunks name {sorted(map(str, unknown))}, the dims are {tuple(dims)}")
        return auto | dict(chunks)
    parts = (chunks,) * len(shape) if isinstance(chunks, int) else tuple(chunks)
    if len(parts) != len(dims):
        raise ValueError(f"chunks={chunks!r}: give {len(dims)}, one for each of {tuple(dims)}")
    return dict(zip(dims, parts, strict=True))


def _auto_chunks(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A movie, as many whole frames as CHUNK_BYTES hold."""
    frames = min(max(CHUNK_BYTES // (4 * shape[-2] * shape[-1]), 1), shape[-3])
    return (1,) * (len(shape) - 3) + (frames, *shape[-2:])
