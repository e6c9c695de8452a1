"""What `process_session` is given, checked before any pixel is read."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import dask
import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.errors import MrczdaskError, MrczdaskWarning
from mrczdask.execution.schedulers import check_workers_see
from mrczdask.io.movie import lazy_variable
from mrczdask.io.movie_array import MovieArray, movie_array
from mrczdask.io.source import absolute, is_remote, open_source
from mrczdask.movies.arrays import labelled
from mrczdask.movies.gain import gain_factor, usable_darks
from mrczdask.movies.gamma import gamma as gamma_of_rate
from mrczdask.movies.koma import Method
from mrczdask.movies.masks import MAX_BAD, checked
from mrczdask.movies.orientation import misfit
from mrczdask.movies.sums import sum_frames

_THREADS: Final = 16
Dtype = Literal["float16", "float32", "float64"]


def checked_session(
    images: xr.DataArray, radius: int | None, method: str, outliers: str | None, dtype: str
) -> xr.DataArray:
    """The session in whole frames, one movie a chunk; what does not fit is refused."""
    if set(images.dims) != set(schema.SESSION_DIMS):
        raise ValueError(f"process_session: the session has the dims {images.dims}: give (movie, frame, y, x)")
    if radius is not None and radius < 1:
        raise ValueError(f"process_session: koma={radius}: give a radius of 1 or more, or None")
    if radius is not None and images.sizes[schema.MOVIE] < 2:
        raise ValueError("process_session: KOMA averages other movies and there is one: give koma=None")
    if method not in get_args(Method):
        raise ValueError(f'process_session: method={method!r}: give "plain" or "wiener"')
    if outliers not in ("fdr", "cdf", None):
        raise ValueError(f'process_session: outliers={outliers!r}: give "fdr", "cdf" or None')
    if dtype not in get_args(Dtype):
        raise ValueError(f"process_session: dtype={dtype!r}: give one of {', '.join(get_args(Dtype))}")
    ordered = images.transpose(*schema.SESSION_DIMS)
    if not isinstance(ordered.data, da.Array):
        return ordered.copy(data=da.from_array(ordered.data, chunks=(1, "auto", -1, -1), name=False))
    with dask.config.set({"array.rechunk.method": "tasks"}):
        return ordered.copy(data=ordered.data.rechunk({0: 1, 2: -1, 3: -1}))


@dataclass(frozen=True)
class References:
    """Factor, dark and known bad pixels in memory."""

    gain: NDArray[np.float32] | None
    dark: NDArray[np.float32] | None
    bad: NDArray[np.bool_] | None


def read_references(
    images: xr.DataArray, gain: Any, dark: Any, mask: Any, orientation: Any, max_bad: float = MAX_BAD
) -> References:
    """References of the right size, in memory."""
    size = images.sizes[schema.Y], images.sizes[schema.X]
    bad = np.zeros(size, bool)
    factor = shadow = None
    for name, image in (("gain", gain), ("dark", dark), ("mask", mask)):
        if image is not None and schema.MOVIE in labelled(image, name=name).dims:
            raise ValueError(f"process_session: the {name} has one image a movie: give one for all (y, x)")
    if gain is not None:
        lazy, defects = gain_factor(gain, images, None, orientation, None)
        factor = np.asarray(lazy, np.float32)
        bad |= False if defects is None else np.asarray(defects)
    for name, image in (("dark", dark), ("mask", mask)):
        if image is not None and np.shape(image) != size:
            raise ValueError(f"process_session: the {name} is {np.shape(image)}, the images are {size} (y, x)")
    if mask is not None:
        bad |= checked(np.asarray(mask, bool), "process_session", max_bad)
    if dark is not None:
        shadow, lost = usable_darks(np.asarray(dark))
        bad |= False if lost is None else lost
    return References(factor, shadow, bad if bad.any() else None)


def check_turn(images: xr.DataArray, gain: Any, dark: NDArray[np.float32] | None, orientation: Any) -> None:
    """Compare the gain with the sum of the first movie that can be read, turned as it is to be applied.

    Raises
    ------
    ValueError
        It fits some other way, and none was given. Where one was given there is a warning.
    """
    if gain is None or isinstance(orientation, xr.Dataset):
        return
    raw = _first_sum(images)
    if raw is None:
        return  # the first pass tells why
    if dark is not None:
        raw = raw.copy(data=raw.values - images.sizes[schema.FRAME] * dark.astype(np.float64))
    reference = labelled(gain, name="gain")
    found = misfit(raw, reference, orientation, reference.attrs.get(schema.CONVENTION))
    if not found:
        return
    remedy = (
        'orientation= (--orientation) takes this turn, or "as stored"; orient_gain(images, gain), or '
        "--orientation find, also tells whether the gain multiplies"
    )
    if orientation is None:
        raise ValueError(f"process_session: {found}: {remedy}")
    warnings.warn(f"process_session: {found}: {remedy}", MrczdaskWarning, stacklevel=3)


def _first_sum(images: xr.DataArray) -> xr.DataArray | None:
    """Sum (y, x) of the first movie that can be read."""
    for k in range(images.sizes[schema.MOVIE]):
        try:
            return (
                xr.DataArray(sum_frames(images.isel({schema.MOVIE: k}))).astype(np.float64, keep_attrs=True).compute()
            )
        except (MrczdaskError, OSError):
            continue
    return None


def checked_exponents(images: xr.DataArray, dose_rate: Any, exponent: Any) -> list[float]:
    """The exponent of the gain of each movie."""
    if dose_rate is not None and exponent is not None:
        raise ValueError("process_session: give dose_rate or gamma, not both")
    if dose_rate is not None:
        exponent = gamma_of_rate(np.asarray(dose_rate, float))
    values = np.asarray(1.0 if exponent is None else exponent, float)
    n = images.sizes[schema.MOVIE]
    if values.ndim and values.shape != (n,):
        raise ValueError(f"process_session: gamma has the shape {values.shape}: give one number, or one for {n} movies")
    if not np.isfinite(values).all():
        raise ValueError("process_session: a dose rate or gamma is not a finite number")
    return [float(value) for value in np.broadcast_to(values, n)]


def each_movie(images: xr.DataArray) -> list[da.Array]:
    """The movies, each with a graph of its own that holds no other."""
    source = movie_array(images.data)
    if source is None:
        return list(dask.optimize(*(images.data[k] for k in range(len(images)))))
    frames = images.data.chunks[1]
    return [_opened_movie(MovieArray([reader], session=False, dtype=source.dtype), frames) for reader in source.readers]


def some_movies(images: xr.DataArray, places: list[int]) -> xr.DataArray:
    """Some movies of a session; of one straight from its files one straight from theirs."""
    picked = images.isel({schema.MOVIE: places})
    source = movie_array(images.data)
    if source is None:
        return picked
    array = MovieArray([source.readers[k] for k in places], session=True, dtype=source.dtype)
    chunks = dict(zip(images.dims, images.data.chunks, strict=True)) | {schema.MOVIE: 1}
    return picked.copy(data=lazy_variable(array, schema.SESSION_DIMS, {}, {}).chunk(chunks, inline_array=False).data)


def _opened_movie(array: MovieArray, frames: tuple[int, ...]) -> da.Array:
    variable = lazy_variable(array, schema.MOVIE_DIMS, {}, {})
    return variable.chunk({schema.FRAME: frames, schema.Y: -1, schema.X: -1}, inline_array=True).data


def fingerprints(images: xr.DataArray) -> list[Any]:
    """What changes when a movie does: its file, or the token of its graph."""
    source = movie_array(images.data)
    if source is None:
        return [images.data.name] * len(images)

    def stamp(reader: Any) -> Any:
        with open_source(reader.url, getattr(reader, "storage_options", None)) as file:
            return [reader.url, file.fingerprint]

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(stamp, source.readers))


def check_places(url: str, images: xr.DataArray) -> None:
    """Refuse workers that do not see the archive or a file of the session."""
    source = movie_array(images.data)
    urls = [url, *(reader.url for reader in (() if source is None else source.readers))]
    check_workers_see(absolute(one) for one in urls if not is_remote(one))
