"""Open the movies of a session as one lazy array."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeVar, get_args

import numpy as np
import xarray as xr

from mrczdask import schema
from mrczdask.errors import MrcFormatError, MrczdaskWarning
from mrczdask.formats.epu import gain_stem, movie_stem
from mrczdask.io.lengths import Lengths, aborted, checked_lengths, cut
from mrczdask.io.movie import Chunks, chunked, coord_variable, lazy_variable, open_file
from mrczdask.io.movie_array import MovieArray
from mrczdask.io.notes import warn_of_notes
from mrczdask.io.reader import MovieFile
from mrczdask.io.source import unwrapped_name
from mrczdask.io.urls import expand_urls as expand_urls
from mrczdask.io.urls import natural_key as natural_key

if TYPE_CHECKING:
    from mrczdask.io.mrc_file import Truncated

OPEN_THREADS: Final = 16
"""Movies opened at the same time: opening waits for the store, not for the processor."""
_LISTED: Final = 5
"""Movies named in an error before "and n more"."""

Order = Literal["time", "name", "given"]


def open_session(
    urls: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    order: Order = "time",
    errors: Literal["raise", "skip"] = "raise",
    lengths: Lengths = "same",
    chunks: Chunks = "auto",
    signed: bool | None = None,
    truncated: Truncated = "error",
    upsampling: int = 1,
    frames_per_fraction: int = 1,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Open many movies of one shape as one lazy array (movie, frame, y, x); no pixel is read.

    Parameters
    ----------
    urls : str, path or iterable of them
        Files, or patterns such as "session/*.mrcz" or "s3://bucket/session/*.mrcz". Gain references that EPU put beside
        the movies (`..._gain.tiff`) are no movies: they are named in `gain_reference`.
    order : {"time", "name", "given"}
        By time of acquisition (mdoc, EPU's XML and names, extended header, JSON), else by natural name order with a
        warning: movie_2 comes before movie_10. Neighbours in this order are what KOMA averages.
    errors : {"raise", "skip"}
        What to do with movies that cannot be opened or have another shape than most: an error that lists them, or a
        warning that does and a session without them.
    lengths : {"same", "shortest"}
        What to do where the numbers of frames differ, as those of EER movies do by one or two: refuse, or take as many
        frames of each movie as the shortest has. One with less than half the frames of most does not fit.
    chunks : "auto", mapping, int or None
        As in `open_movie`; a chunk never holds more than one movie.
    signed : bool, optional
        As in `open_movie`.
    truncated : {"error", "readable"}
        As in `open_movie`.
    upsampling, frames_per_fraction : int
        As in `open_movie`.
    storage_options : mapping, optional
        Passed to the fsspec file system.

    Returns
    -------
    xarray.Dataset
        `images` (movie, frame, y, x); along `movie` the coordinates `movie` (unique names; parent folders are taken in
        until they are), `url`, `n_frames`, and where known `acquired` by the clock of the microscope, `utc_offset`
        (minutes), `dose_rate`, `gain_reference`, `rotation_flip` (-1: not known). Integer dtypes are promoted to one
        that holds them all.

    Raises
    ------
    FileNotFoundError
        No file matches.
    MrcFormatError
        With ``errors="raise"``: movies that cannot be opened or do not fit.
    ValueError
        `order` or `lengths` is none of those listed, or an option for EER is given for other files.

    Notes
    -----
    Select in one step: ``images[1, 3]`` reads one frame, ``images[1][3]`` the Dask chunk of movie 1 that holds it,
    because Dask hands only the first selection down to the reader.

    Examples
    --------
    >>> import mrczdask as md
    >>> for k in (2, 10, 1):
    ...     _ = md.write_mrcz(md.simulate.poisson((4, 16, 16), mean=1.0, seed=k), f"movie_{k}.mrcz")
    >>> session = md.open_session("movie_*.mrcz", order="name")
    >>> session.movie.values.tolist()
    ['movie_1', 'movie_2', 'movie_10']
    >>> dict(session.sizes)
    {'movie': 3, 'frame': 4, 'y': 16, 'x': 16}
    """
    checked_order(order)
    checked_lengths(lengths)
    found = without_gains(expand_urls(urls, storage_options))
    opener = partial(
        open_file,
        signed=signed,
        truncated=truncated,
        upsampling=upsampling,
        frames_per_fraction=frames_per_fraction,
        storage_options=storage_options,
    )
    opened = open_all(found, errors, opener)
    opened = _shortened(opened, errors) if lengths == "shortest" else opened
    opened = of_one_shape(opened, errors)
    opened = ordered(opened, order)
    warn_of_notes((url, movie.encoding) for url, movie in opened)
    return _dataset(opened, chunks)


def without_gains(urls: Sequence[str]) -> list[str]:
    """The files that are not gain references of EPU beside movies among the others."""
    named = [url.rpartition("/") for url in urls]
    movies = {folder + slash + stem for folder, slash, name in named if (stem := movie_stem(unwrapped_name(name)))}
    gains = [gain_stem(unwrapped_name(name)) for _, _, name in named]
    return [
        url
        for url, (folder, slash, _), gain in zip(urls, named, gains, strict=True)
        if gain is None or folder + slash + gain not in movies
    ]


def _shortened(opened: Sequence[tuple[str, MovieFile]], errors: str) -> list[tuple[str, MovieFile]]:
    """The movies with as many frames as the shortest of those that were not stopped."""
    stopped = aborted([movie for _, movie in opened])
    short = [f"{url} {movie.shape[0]} frames" for (url, movie), bad in zip(opened, stopped, strict=True) if bad]
    if short:
        _refuse_or_skip(errors, "have less than half the frames of most", short)
    whole = [one for one, bad in zip(opened, stopped, strict=True) if not bad]
    n_frames = min(movie.shape[0] for _, movie in whole)
    return [(url, cut(movie, n_frames)) for url, movie in whole]


def unique_names(urls: Sequence[str]) -> list[str]:
    """File names without suffix; parent folders are taken in until all differ, then the suffix."""
    parts = [unwrapped_name(url).split("://")[-1].replace(os.sep, "/").strip("/").split("/") for url in urls]
    stems = [[*part[:-1], os.path.splitext(part[-1])[0]] for part in parts]
    for depth in range(1, max(map(len, stems)) + 1):
        names = ["/".join(stem[-depth:]) for stem in stems]
        if len(set(names)) == len(names):
            return names
    return list(urls)


class Described(Protocol):
    """What a file says of the movie in it."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def coords(self) -> Mapping[str, tuple[tuple[str, ...], Any]]: ...

    @property
    def attrs(self) -> Mapping[str, Any]: ...

    @property
    def acquired(self) -> np.datetime64 | None: ...

    @property
    def session(self) -> Mapping[str, Any]: ...


T = TypeVar("T")
D = TypeVar("D", bound=Described)


def checked_order(order: str) -> None:
    """Raise unless it is an order of movies."""
    if order not in get_args(Order):
        raise ValueError(f'order={order!r}: give "time", "name" or "given"')


def open_all(
    urls: Sequence[str], errors: str, opener: Callable[[str], T], on_done: Callable[[], None] = lambda: None
) -> list[tuple[str, T]]:
    """Open many files at once; those that cannot be are listed in one error, or left out."""
    opened: dict[str, T] = {}
    failed: dict[str, Exception] = {}
    pool = ThreadPoolExecutor(OPEN_THREADS)
    try:
        waiting = {pool.submit(opener, url): url for url in urls}
        for future in as_completed(waiting):
            try:
                opened[waiting[future]] = future.result()
            except (MrcFormatError, OSError) as error:
                failed[waiting[future]] = error
            on_done()
    finally:
        pool.shutdown(cancel_futures=True)
    listed = [failed[url] for url in urls if url in failed]
    if listed and not opened:
        raise listed[0]
    if listed:
        _refuse_or_skip(errors, "cannot be opened", [str(error) for error in listed])
    return [(url, opened[url]) for url in urls if url in opened]


def of_one_shape(opened: Sequence[tuple[str, D]], errors: str) -> list[tuple[str, D]]:
    """The movies of the commonest shape."""
    shapes = [movie.shape for _, movie in opened]
    common = max(dict.fromkeys(shapes), key=shapes.count)
    odd = [f"{url} {movie.shape}" for url, movie in opened if movie.shape != common]
    if odd:
        longer = {movie.shape[1:] for _, movie in opened} == {common[1:]}
        also = ', lengths="shortest" (--lengths shortest) takes the first frames of all' if longer else ""
        _refuse_or_skip(errors, f"do not have the shape {common} of the others", odd, also)
    return [(url, movie) for url, movie in opened if movie.shape == common]


def _refuse_or_skip(errors: str, why: str, listed: Sequence[str], also: str = "") -> None:
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    text = f"{len(listed)} movies {why}: {'; '.join(listed[:_LISTED])}{more}"
    if errors != "skip":
        raise MrcFormatError(f'{text}. open_session(..., errors="skip") (--skip-unfit) leaves them out{also}')
    warnings.warn(f"{text}: left out", MrczdaskWarning, stacklevel=4)


def ordered(opened: Sequence[tuple[str, D]], order: Order) -> list[tuple[str, D]]:
    """Movies by their time of acquisition, by name, or as they are."""
    if order == "given":
        return list(opened)
    by_name = sorted(opened, key=lambda entry: natural_key(entry[0]))
    if order == "name":
        return by_name
    unknown = [url for url, movie in opened if movie.acquired is None]
    if unknown:
        if len(opened) > 1:
            warnings.warn(
                f"{len(unknown)} of {len(opened)} movies do not say when they were acquired ({unknown[0]}): "
                'the session is ordered by name; order="name" says so without this warning',
                MrczdaskWarning,
                stacklevel=3,
            )
        return by_name
    zones = all(movie.session.get(schema.UTC_OFFSET) is not None for _, movie in opened)
    return sorted(by_name, key=lambda entry: _moment(entry[1], zones))


def _moment(movie: Described, zones: bool) -> np.datetime64:
    """When a movie was acquired: in UTC where all movies tell their zone, since clocks are set back in autumn."""
    local = movie.acquired or np.datetime64("NaT")
    return local - np.timedelta64(int(movie.session[schema.UTC_OFFSET]), "m") if zones else local


def _dataset(opened: Sequence[tuple[str, MovieFile]], chunks: Chunks) -> xr.Dataset:
    urls = [url for url, _ in opened]
    movies = [movie for _, movie in opened]
    dtype = np.result_type(*{movie.reader.dtype for movie in movies})
    array = MovieArray([movie.reader for movie in movies], session=True, dtype=dtype)
    encoding = {
        schema.PREFERRED_CHUNKS: {schema.MOVIE: 1, **movies[0].encoding.get(schema.PREFERRED_CHUNKS, {})},
    }
    variable = lazy_variable(array, schema.SESSION_DIMS, common_attrs(movies), encoding)
    ds = xr.Dataset({schema.IMAGES: variable}, coords=coords_of(urls, movies))
    ds[schema.IMAGES] = chunked(ds[schema.IMAGES], chunks)
    return ds


def common_attrs(movies: Sequence[Described]) -> dict[str, Any]:
    """Attributes on which all movies agree."""
    first = movies[0].attrs
    return {k: v for k, v in first.items() if all(_same(movie.attrs.get(k), v) for movie in movies[1:])}


def _same(a: Any, b: Any) -> bool:
    return a is b or (type(a) is type(b) and bool(np.array_equal(a, b)))


def coords_of(urls: Sequence[str], movies: Sequence[Described]) -> dict[str, xr.Variable]:
    """Coordinates of a session."""
    n_frames = movies[0].shape[0]
    names = np.array(unique_names(urls))
    along: dict[str, Any] = {
        schema.MOVIE: names,
        schema.URL: np.array(urls),
        schema.N_FRAMES: np.array([movie.shape[0] for movie in movies]),
    }
    if all(movie.acquired is not None for movie in movies):
        along[schema.ACQUIRED] = np.array([movie.acquired for movie in movies], "datetime64[ns]")
    for name in (schema.DOSE_RATE, schema.GAIN_REFERENCE, schema.UTC_OFFSET, schema.ROTATION_FLIP):
        values = [movie.session.get(name) for movie in movies]
        if any(value is not None for value in values):
            along[name] = np.array([_missing(name) if value is None else value for value in values])
    coords = {name: coord_variable(name, ((schema.MOVIE,), values)) for name, values in along.items()}
    coords[schema.FRAME] = xr.Variable((schema.FRAME,), np.arange(n_frames))
    return coords | _frame_coords(movies, n_frames)


def _missing(name: str) -> Any:
    return {schema.GAIN_REFERENCE: "", schema.ROTATION_FLIP: -1}.get(name, np.nan)


def _frame_coords(movies: Sequence[Described], n_frames: int) -> dict[str, xr.Variable]:
    """time, dose and tilt: along `frame` where all movies agree, else along (movie, frame)."""
    coords = {}
    for name in (schema.TIME, schema.DOSE, schema.TILT):
        values = [movie.coords[name][1] for movie in movies if name in movie.coords]
        if len(values) != len(movies) or any(np.shape(value) != (n_frames,) for value in values):
            continue
        table = np.stack([np.asarray(value) for value in values])
        dims: tuple[str, ...] = (schema.MOVIE, schema.FRAME)
        if (table == table[0]).all():
            table, dims = table[0], (schema.FRAME,)
        coords[name] = coord_variable(name, (dims, table))
    return coords
