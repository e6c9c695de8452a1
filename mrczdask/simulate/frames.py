"""Frames that are computed when they are indexed, and the labelled arrays around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Protocol

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import DTypeLike, NDArray

from mrczdask import schema

CHUNK_BYTES: Final = 128 << 20
"""Largest chunk of whole frames, counted at 4 bytes a pixel."""
DTYPES: Final = ("uint8", "int8", "uint16", "int16", "float32")

Chunks = Literal["auto"] | Mapping[str, Any] | int | tuple[Any, ...]


class Renderer(Protocol):
    """What computes the pixels: small, picklable, the same for every block."""

    def __call__(self, movie: int, frames: NDArray[np.int64], rows: range, cols: range, out: NDArray[Any]) -> None:
        """Fill (len(frames), len(rows), len(cols)) with these frames of one movie."""


class LazyFrames:
    """An array (movie, frame, y, x) or (frame, y, x) over a renderer: an index computes what it selects."""

    def __init__(self, render: Renderer, shape: tuple[int, ...], dtype: DTypeLike):
        self._render = render
        self.shape, self.ndim, self.dtype = shape, len(shape), np.dtype(dtype)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return "mrczdask.simulate", repr(self._render), self.shape, str(self.dtype)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        key = key if isinstance(key, tuple) else (key,)
        key += (slice(None),) * (self.ndim - len(key))
        chosen = [np.atleast_1d(np.arange(n)[part]) for n, part in zip(self.shape, key, strict=True)]
        movies, (frames, rows, cols) = chosen[0] if self.ndim == 4 else np.array([-1]), chosen[-3:]
        out = np.empty((len(movies), len(frames), len(rows), len(cols)), self.dtype)
        if out.size:
            for block, movie in zip(out, movies, strict=True):
                self._fill(block, max(int(movie), 0), frames, rows, cols)
        kept = out if self.ndim == 4 else out[0]
        return kept[tuple(0 if np.ndim(part) == 0 and not isinstance(part, slice) else slice(None) for part in key)]

    def _fill(self, out: NDArray[Any], movie: int, frames: Any, rows: Any, cols: Any) -> None:
        """Render the smallest rectangle of the frame around the selected rows and columns."""
        height, width = (range(int(part.min()), int(part.max()) + 1) for part in (rows, cols))
        if (len(rows), len(cols)) == (len(height), len(width)) and _ascending(rows) and _ascending(cols):
            self._render(movie, frames, height, width, out)
            return
        whole = np.empty((len(frames), len(height), len(width)), self.dtype)
        self._render(movie, frames, height, width, whole)
        out[...] = whole[:, rows - height.start][:, :, cols - width.start]


def _ascending(index: NDArray[np.int64]) -> bool:
    return bool((np.diff(index) == 1).all())


def lazy_images(
    render: Renderer,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    names: Sequence[str],
    chunks: Chunks,
    attrs: Mapping[str, Any],
) -> xr.DataArray:
    """The `images` of a movie or a session; a task a chunk, which holds nothing but its slice."""
    dims = schema.SESSION_DIMS[-len(shape) :]
    data = da.from_array(
        LazyFrames(render, shape, dtype),
        chunks=_chunks(chunks, dims, shape),
        meta=np.empty((0,) * len(shape), dtype),
    )
    coords = {
        schema.FRAME: (schema.FRAME, np.arange(shape[-3])),
        schema.MOVIE: (schema.MOVIE, np.array(names)) if len(shape) == 4 else ((), names[0]),
    }
    return xr.DataArray(data, coords, dims, schema.IMAGES, dict(attrs))


def movie_name(number: int) -> str:
    """movie_0000, movie_0001, ...: the same names for the first movies of any session."""
    return f"movie_{number:04d}"


def movie_names(count: int) -> list[str]:
    """The names of the first movies."""
    return [movie_name(number) for number in range(count)]


def _chunks(chunks: Chunks, dims: Sequence[str], shape: tuple[int, ...]) -> tuple[Any, ...]:
    auto = _auto_chunks(shape)
    if chunks == "auto":
        return auto
    if isinstance(chunks, Mapping):
        unknown = set(chunks) - set(dims)
        if unknown:
            raise ValueError(f"chunks name {sorted(map(str, unknown))}, the dims are {tuple(dims)}")
        return tuple(chunks.get(dim, default) for dim, default in zip(dims, auto, strict=True))
    return (chunks,) * len(shape) if isinstance(chunks, int) else tuple(chunks)


def _auto_chunks(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A movie, as many whole frames as CHUNK_BYTES hold."""
    frames = min(max(CHUNK_BYTES // (4 * shape[-2] * shape[-1]), 1), shape[-3])
    return (1,) * (len(shape) - 3) + (frames, *shape[-2:])


def checked_shape(shape: Sequence[int], kinds: Mapping[int, str]) -> tuple[int, ...]:
    """The shape as integers, or an error that says what is wanted."""
    sizes = tuple(int(n) for n in shape)
    if len(sizes) not in kinds or min(sizes) < 1:
        raise ValueError(f"shape={tuple(shape)}: give {' or '.join(kinds.values())}, all at least 1")
    return sizes


def checked_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """One of DTYPES."""
    kind = np.dtype(dtype)
    if kind.name not in DTYPES:
        raise ValueError(f"dtype={kind.name}: a simulated movie is one of {', '.join(DTYPES)}")
    return kind
