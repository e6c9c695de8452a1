"""What the verbs on movies share: any kind of input, labels along `movie`, large parameters in one chunk."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, TypeVar

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.errors import MrczdaskWarning
from mrczdask.execution.shared import shared

Movie = TypeVar("Movie", xr.DataArray, xr.Dataset, NDArray[Any], da.Array)
Labelled = TypeVar("Labelled", xr.DataArray, xr.Dataset)

_PACKAGE: Final = os.path.dirname(os.path.dirname(__file__))


def on_images(obj: Movie, verb: Callable[[xr.DataArray], xr.DataArray]) -> Movie:
    """Apply a verb on a DataArray to what was given, and give back the same kind.

    Arrays without labels are (y, x), (frame, y, x) or (movie, frame, y, x). What is in memory is computed.
    """
    if isinstance(obj, xr.Dataset):
        return obj.assign({schema.IMAGES: on_images(obj[schema.IMAGES], verb)})
    if not isinstance(obj, xr.DataArray):
        if obj.ndim not in (2, 3, 4):
            raise ValueError(f"the array has {obj.ndim} dims: give (y, x), (frame, y, x) or (movie, frame, y, x)")
        return on_images(xr.DataArray(obj, dims=schema.SESSION_DIMS[-obj.ndim :]), verb).data
    missing = {schema.Y, schema.X} - set(obj.dims)
    if missing:
        raise ValueError(f"the images have the dims {obj.dims}: {' and '.join(sorted(missing))} is missing")
    if isinstance(obj.data, da.Array):
        with dask.config.set({"array.rechunk.method": "tasks"}):  # peer to peer fails where workers come and go
            return verb(obj)
    in_memory = obj.copy(data=da.from_array(obj.data, chunks=_whole_frames(obj), name=False))
    return on_images(in_memory, verb).compute()


def _whole_frames(images: xr.DataArray) -> tuple[int, ...]:
    """Chunks of one frame, of about 64 MB at 4 bytes a pixel where frames are small."""
    size = images.sizes[schema.Y] * images.sizes[schema.X]
    frames = max((64 << 20) // max(4 * size, 1), 1)
    length = {schema.MOVIE: 1, schema.FRAME: frames}
    return tuple(min(length.get(str(dim), n), n) for dim, n in images.sizes.items())


def whole_images(images: xr.DataArray) -> xr.DataArray:
    """The images in chunks that hold y and x whole: what needs neighbours or the mean of an image."""
    ordered = images.transpose(..., schema.Y, schema.X)
    return ordered.copy(data=ordered.data.rechunk({ordered.ndim - 2: -1, ordered.ndim - 1: -1}))


def one_chunk(values: NDArray[Any] | da.Array) -> da.Array:
    """A parameter as a Dask array of one chunk over y and x, sent to the workers once where it is large."""
    if isinstance(values, da.Array):
        return values.rechunk({values.ndim - 2: -1, values.ndim - 1: -1})
    sent = shared(values)
    if sent is not values:
        return da.from_delayed(sent, values.shape, values.dtype, meta=np.empty((0,) * values.ndim, values.dtype))
    return da.from_array(values, chunks=-1, name=f"parameter-{tokenize(values)}")


def movie_names(array: xr.DataArray | xr.Dataset) -> list[str]:
    """Names of the movies, whatever dtype of strings a file or an archive gave them."""
    return [str(name) for name in np.atleast_1d(array[schema.MOVIE].values)]


def pick_movies(parts: Labelled, names: list[str]) -> Labelled:
    """The movies of these names, along `movie` in this order; ValueError names the first that is lacking."""
    own = movie_names(parts)
    if own == names:
        return parts
    place = {name: k for k, name in enumerate(own)}
    lacking = [name for name in names if name not in place]
    if lacking:
        raise ValueError(f"{len(lacking)} of the movies are lacking, such as {lacking[0]}")
    return parts.isel({schema.MOVIE: [place[name] for name in names]})


def of_movies(parameter: xr.DataArray, images: xr.DataArray, what: str) -> xr.DataArray:
    """A parameter that differs between movies, for the movies of `images`, matched by label."""
    if schema.MOVIE not in parameter.dims:
        return parameter
    if schema.MOVIE not in images.coords:
        raise ValueError(f"the {what} has one image a movie, the images do not name their movies")
    names = movie_names(images)
    if schema.MOVIE in parameter.coords:
        try:
            parameter = pick_movies(parameter, names)
        except ValueError as error:
            raise ValueError(f"the {what} does not fit: {error}") from None
    elif parameter.sizes[schema.MOVIE] != len(names):
        raise ValueError(f"the {what} is of {parameter.sizes[schema.MOVIE]} movies, the images of {len(names)}")
    return parameter if schema.MOVIE in images.dims else parameter.isel({schema.MOVIE: 0})


def check_size(parameter: xr.DataArray, images: xr.DataArray, what: str) -> None:
    """Refuse a parameter of another size than the images."""
    size, wanted = _size(parameter), _size(images)
    if size != wanted:
        raise ValueError(f"the {what} is {size[0]} x {size[1]}, the images are {wanted[0]} x {wanted[1]} (y, x)")


def _size(array: xr.DataArray) -> tuple[int, int]:
    return array.sizes[schema.Y], array.sizes[schema.X]


def labelled(values: Any, *, name: str) -> xr.DataArray:
    """A parameter with dims: (y, x) or (movie, y, x) where it has none."""
    if isinstance(values, xr.DataArray):
        if not {schema.Y, schema.X} <= set(values.dims):
            raise ValueError(f"the {name} has the dims {values.dims}: y and x are needed")
        return values.squeeze([d for d in values.dims if d not in (schema.MOVIE, schema.Y, schema.X)])
    values = values if isinstance(values, da.Array) else np.asarray(values)
    if values.ndim not in (2, 3):
        raise ValueError(f"the {name} has the shape {values.shape}: give (y, x) or (movie, y, x)")
    return xr.DataArray(values, dims=(schema.MOVIE, schema.Y, schema.X)[-values.ndim :])


def blockwise(
    function: Callable[..., NDArray[Any]],
    images: xr.DataArray,
    *parameters: tuple[Any, tuple[Hashable, ...]] | None,
    dtype: Any,
    **constants: Any,
) -> da.Array:
    """Apply function(block, *parameter blocks) to every chunk; parameters are (array, dims), or None."""
    args: list[Any] = [images.data, images.dims]
    for parameter in parameters:
        args += [None, None] if parameter is None else list(parameter)
    meta = np.empty((0,) * images.ndim, dtype)
    return da.blockwise(function, images.dims, *args, dtype=dtype, meta=meta, align_arrays=True, **constants)


def placed(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Of the attributes of images those of any image of the same pixels: which row comes first, and their size."""
    return {name: attrs[name] for name in (schema.ORIGIN, schema.PIXEL_SIZE) if name in attrs}


def as_session(block: NDArray[Any], dims: tuple[Hashable, ...]) -> NDArray[Any]:
    """A block of images or of a parameter as (movie, frame, y, x)."""
    return block[tuple(slice(None) if dim in dims else np.newaxis for dim in schema.SESSION_DIMS)]


def result_dtype(dtype: Any) -> np.dtype[Any]:
    """float32 for pixels of at most 16 bits and float32, float64 for sums."""
    return np.result_type(dtype, np.float32)


def warned(message: str, category: type[Warning]) -> None:
    """Warn at the line outside of this package that called a verb."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level - 1)


def warn_if_unstored(images: xr.DataArray, other: xr.DataArray, what: str) -> None:
    """Warn where `other` would be computed from the frames of `images` in the same graph."""
    if not (isinstance(images.data, da.Array) and isinstance(other.data, da.Array)):
        return
    if _roots(images.data, images.ndim) & _roots(other.data, 3):
        warned(
            f"the {what} is computed from the frames that it is applied to: they stay in memory until it is known, or "
            f"are read twice; store it first with write_archive and give what that returns",
            MrczdaskWarning,
        )


def _roots(array: da.Array, ndim: int) -> set[str]:
    """Names of the layers that read or hold arrays of `ndim` dims or more and depend on nothing."""
    graph = array.dask
    found = set()
    for name, needs in graph.dependencies.items():
        if needs:
            continue
        values = [getattr(value, "value", value) for value in graph.layers[name].values()][:1]
        if values and getattr(values[0], "ndim", 0) >= ndim:
            found.add(getattr(values[0], "root", name))
    return found
