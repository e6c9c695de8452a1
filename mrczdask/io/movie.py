"""Open a movie of any format as a lazy DataArray."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal

import xarray as xr
from xarray.core import indexing

from mrczdask import schema
from mrczdask.io.lengths import join
from mrczdask.io.movie_array import MovieArray
from mrczdask.io.notes import warn_of_notes
from mrczdask.io.plain_attrs import plain_attrs
from mrczdask.io.reader import MovieFile
from mrczdask.io.source import absolute, unwrapped_name
from mrczdask.io.suffixes import TIFF_SUFFIXES as TIFF_SUFFIXES
from mrczdask.io.urls import expand_urls

if TYPE_CHECKING:
    from mrczdask.formats.facts import Facts
    from mrczdask.io.mrc_file import Truncated

EER_SUFFIXES: Final = (".eer",)
GAIN_SUFFIX: Final = ".gain"
"""A TIFF whose first page is the gain reference of EER movies."""

Chunks = Literal["auto"] | Mapping[str, Any] | int | None


def open_movie(
    url: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    chunks: Chunks = "auto",
    signed: bool | None = None,
    truncated: Truncated = "error",
    upsampling: int = 1,
    frames_per_fraction: int = 1,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Open an MRC, MRCZ, TIFF or EER movie as a lazy array; no pixel is read.

    Parameters
    ----------
    url : str, path or list of them
        A file, local or at any url fsspec knows ("s3://bucket/movie.mrcz"). `.gz`, `.bz2`, `.xz` and `.zst` are
        unpacked as they are read: for a large movie convert it once. Several files are joined along `frame`, and so
        are those that a pattern ("frame_*.tif") stands for, if each holds one frame.
    chunks : "auto", mapping, int or None
        Dask chunks. "auto": whole frames, 32 to 128 MB a chunk when counted at 4 bytes a pixel. ``{"frame": 1}`` is
        the interactive choice. None: lazy without Dask.
    signed : bool, optional
        Read mode 0 as int8 (True) or uint8 (False), byte by byte as they stand. By default IMOD's rule decides, or
        the label of an MRCZ file; signed bytes of IMOD that hold counts less 128 are read as counts.
    truncated : {"error", "readable"}
        What to do with a file that ends early: refuse it, or give the frames that are whole. MRC and MRCZ only.
    upsampling : {1, 2, 4}
        EER only: the grid on which electrons are rendered; 1 is that of the physical pixels.
    frames_per_fraction : int
        EER only: camera frames summed to one frame of the movie; those left over at the end are not read.
    storage_options : mapping, optional
        Passed to the fsspec file system.

    Returns
    -------
    xarray.DataArray
        `images` with dims (frame, y, x), integers as stored; coordinates `frame` and, where known, `time` (s), `dose`
        (e/angstrom^2), `tilt` (deg); attributes `pixel_size_angstrom`, `voltage_kv`, `spherical_aberration_mm`,
        `counts_per_electron`, `origin`, `metadata`; ``encoding["mrc_header"]``.

    Raises
    ------
    MrcFormatError
        The file is not what its header says; the message names the frame, the byte and the remedy.
    FileNotFoundError
        There is no such file.
    StoreError
        An object store failed after bounded retries.
    ValueError
        `upsampling` or `frames_per_fraction` for a file that is no EER, or an option out of its range.

    Examples
    --------
    >>> import mrczdask as md
    >>> _ = md.write_mrcz(md.simulate.poisson((4, 64, 64), mean=1.0, seed=0), "movie.mrcz")
    >>> movie = md.open_movie("movie.mrcz")
    >>> movie.dims, movie.dtype
    (('frame', 'y', 'x'), dtype('uint8'))
    >>> movie.isel(frame=2, y=slice(0, 16)).compute().shape
    (16, 64)
    """
    ds = movie_dataset(
        url,
        signed=signed,
        truncated=truncated,
        upsampling=upsampling,
        frames_per_fraction=frames_per_fraction,
        storage_options=storage_options,
    )
    name = os.fspath(url) if isinstance(url, str | os.PathLike) else os.fspath(next(iter(url)))
    warn_of_notes([(name, ds[schema.IMAGES].encoding)])
    return chunked(ds[schema.IMAGES], chunks)


def movie_dataset(given: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], **options: Any) -> xr.Dataset:
    """The movie as a Dataset that is lazy without Dask: what an xarray backend gives. Options as for `open_file`."""
    urls = expand_urls(given, options.get("storage_options"))
    url = urls[0]
    parts = [(one, open_file(one, **options)) for one in urls]
    if isinstance(given, str | os.PathLike) and len(parts) > 1 and any(part.shape[0] > 1 for _, part in parts):
        raise ValueError(f"{os.fspath(given)}: {len(parts)} movies match: open_session opens many movies")
    movie = join(parts)
    coords = dict(movie.coords)
    coords.setdefault(schema.FRAME, ((schema.FRAME,), range(movie.reader.shape[0])))
    coords.setdefault(schema.MOVIE, ((), movie_name(url)))
    variable = lazy_variable(MovieArray([movie.reader], session=False), schema.MOVIE_DIMS, movie.attrs, movie.encoding)
    return xr.Dataset({schema.IMAGES: variable}, coords={name: coord_variable(name, c) for name, c in coords.items()})


def open_file(
    url: str,
    *,
    signed: bool | None = None,
    truncated: str = "error",
    upsampling: int = 1,
    frames_per_fraction: int = 1,
    storage_options: Mapping[str, Any] | None = None,
) -> MovieFile:
    """Open by suffix, and take in the mdoc beside the file; what is not TIFF or EER is read as MRC."""
    from mrczdask.io.sidecar import read_sidecar

    if truncated not in ("error", "readable"):
        raise ValueError(f'truncated={truncated!r}: give "error" or "readable"')
    url = absolute(url)  # a task reads it from another folder than this one
    name = unwrapped_name(url).lower()
    if (upsampling, frames_per_fraction) != (1, 1) and not name.endswith(EER_SUFFIXES):
        raise ValueError(f"{url}: upsampling and frames_per_fraction are for EER movies, this file is none")
    if name.endswith((*TIFF_SUFFIXES, GAIN_SUFFIX)):
        from mrczdask.io.tiff import open_tiff

        movie = open_tiff(url, first_page=name.endswith(GAIN_SUFFIX), storage_options=storage_options)
    elif name.endswith(EER_SUFFIXES):
        from mrczdask.io.eer import open_eer

        movie = open_eer(
            url,
            upsampling=upsampling,
            frames_per_fraction=frames_per_fraction,
            storage_options=storage_options,
        )
    else:
        from mrczdask.io.mrc_file import open_mrc

        movie = open_mrc(url, signed=signed, truncated=truncated, storage_options=storage_options)  # type: ignore[arg-type]
    movie = with_facts(movie, read_sidecar(url, movie.reader.shape[0], storage_options))
    return replace(movie, attrs=plain_attrs(movie.attrs))


def with_facts(movie: MovieFile, facts: Facts) -> MovieFile:
    """Add what files beside the movie say: an MRC header and an EER file are trusted more than they, TIFF tags less.

    A title in the movie itself tells best how its frames are turned: RotationAndFlip of an mdoc is the turn of the
    camera also where the frames were saved as they were read.
    """
    own_first = schema.MRC_HEADER in movie.encoding or schema.EER in movie.encoding
    attrs = {**facts.attrs, **movie.attrs} if own_first else {**movie.attrs, **facts.attrs}
    notes = (*movie.encoding.get(schema.NOTES, ()), *facts.notes)
    turn, said = movie.attrs.get(schema.ROTATION_FLIP), facts.attrs.get(schema.ROTATION_FLIP)
    if turn is not None:
        attrs[schema.ROTATION_FLIP] = turn
        if said is not None and said != turn and said != movie.attrs.get("rotation_flip_needed"):
            notes += (f"the title says r/f {turn}, the mdoc file RotationAndFlip = {said}: the title is taken",)
    session = {**facts.session, **movie.session}
    if schema.ROTATION_FLIP in attrs:
        session[schema.ROTATION_FLIP] = attrs[schema.ROTATION_FLIP]
    return replace(
        movie,
        coords={**{name: ((schema.FRAME,), values) for name, values in facts.per_frame.items()}, **movie.coords},
        attrs=attrs,
        encoding={**movie.encoding, **({schema.NOTES: tuple(dict.fromkeys(notes))} if notes else {})},
        acquired=facts.acquired if movie.acquired is None else movie.acquired,
        session=session,
    )


def movie_name(url: str) -> str:
    """The name of a movie: its file without folder and suffix."""
    return os.path.splitext(os.path.basename(unwrapped_name(url.rstrip("/"))))[0]


def coord_variable(name: str, coord: tuple[Any, ...]) -> xr.Variable:
    """A coordinate with its unit."""
    dims, data, *attrs = coord
    unit = {"units": schema.UNITS[name]} if name in schema.UNITS else {}
    return xr.Variable(dims, data, attrs={**unit, **(plain_attrs(attrs[0]) if attrs else {})})


def lazy_variable(
    array: MovieArray, dims: tuple[str, ...], attrs: Mapping[str, Any], encoding: Mapping[str, Any]
) -> xr.Variable:
    """A variable that reads when it is indexed."""
    bands = ("band",) * (len(array.shape) - len(dims))
    return xr.Variable(dims + bands, indexing.LazilyIndexedArray(array), attrs=attrs, encoding=encoding)


def chunked(images: xr.DataArray, chunks: Chunks) -> xr.DataArray:
    """Turn a lazily indexed array into a Dask array; "auto" takes the reader's own chunks."""
    if chunks is None:
        return images
    wanted = dict(images.encoding[schema.PREFERRED_CHUNKS])
    if isinstance(chunks, Mapping):
        unknown = set(chunks) - set(images.dims)
        if unknown:
            raise ValueError(f"chunks name {sorted(map(str, unknown))}, the dims are {images.dims}")
        wanted |= chunks
    elif chunks != "auto":
        wanted = dict.fromkeys(wanted, chunks)
    return images.copy(data=images.variable.chunk(wanted, inline_array=False).data)
