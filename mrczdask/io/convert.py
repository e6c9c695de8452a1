"""One movie from one format to another, by the suffixes of the files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.errors import MrcFormatError
from mrczdask.execution.progress import Progress, track
from mrczdask.execution.regions import run_regions
from mrczdask.io.movie import TIFF_SUFFIXES, open_movie

RAW_SUFFIXES: Final = (".mrc", ".mrcs", ".map", ".st")
COMPRESSED_SUFFIXES: Final = (".mrcz",)
ARCHIVE_SUFFIXES: Final = (".zarr",)


def open_any(url: str, **options: Any) -> xr.DataArray:
    """The pixels of a movie file, or of the one movie or session in a Zarr archive."""
    if not _suffix(url, ARCHIVE_SUFFIXES):
        return open_movie(url, **options)
    found = [node[name] for node in _nodes(url) for name in (schema.IMAGES,) if name in node.data_vars]
    if len(found) != 1:
        raise MrcFormatError(f"the archive holds {len(found)} arrays named 'images': name the group", url=url)
    return found[0]


def _nodes(url: str) -> list[xr.Dataset]:
    from mrczdask.io.archive import open_archive

    archive = open_archive(url)
    if isinstance(archive, xr.DataTree):
        return [node.to_dataset() for node in archive.subtree]
    assert isinstance(archive, xr.Dataset)
    return [archive]


def convert(
    source: str,
    target: str,
    *,
    codec: str | None = None,
    level: int = 1,
    mode: int | None = None,
    resume: bool = False,
    progress: Progress = None,
    **options: Any,
) -> xr.DataArray:
    """Write `source` in the format that the suffix of `target` names; return it opened.

    Between MRC and TIFF or EER the rows are turned over: MRC begins with the lowest row of the picture, the others
    with the highest, so that every program shows the same picture. Pixels are never changed.

    Parameters
    ----------
    source : str
        MRC, MRCZ, TIFF, EER or a Zarr archive with one movie.
    target : str
        .mrc and the like (not compressed), .mrcz, .zarr, .tif or .tiff.
    codec : str, optional
        Blosc codec of .mrcz ("zstd"), or codec of .zarr ("auto").
    level, mode
        As in `write_mrcz`.
    resume : bool
        Go on with a .zarr that was begun; else what is there is replaced.
    progress : None, True or callable
    **options
        Passed to `open_movie`: chunks, signed, truncated, storage_options.

    Raises
    ------
    MrcFormatError
        The source is damaged, or the target cannot hold its pixels.
    ValueError
        The suffix of the target is not known.
    """
    if resume and not _suffix(target, ARCHIVE_SUFFIXES):
        raise ValueError(f"{target}: only a .zarr can be gone on with: other files are replaced when they are whole")
    if os.path.abspath(source) == os.path.abspath(target):
        raise ValueError(f"{target}: source and target are the same file")
    movie = open_any(source, **options)
    if _suffix(target, RAW_SUFFIXES + COMPRESSED_SUFFIXES):
        movie = bottom_up(movie)
    if _suffix(target, ARCHIVE_SUFFIXES):
        from mrczdask.io.archive import write_archive

        return write_archive(movie, target, codec=codec or "auto", resume=resume, progress=progress)
    if _suffix(target, TIFF_SUFFIXES):
        return _to_tiff(movie, target, progress)
    from mrczdask.io.mrcz_writer import write_mrcz

    if _suffix(target, COMPRESSED_SUFFIXES):
        return write_mrcz(movie, target, codec=codec or "zstd", level=level, mode=mode, progress=progress)  # type: ignore[arg-type]
    if _suffix(target, RAW_SUFFIXES):
        return write_mrcz(movie, target, codec=None, mode=mode, progress=progress)
    known = ", ".join((*RAW_SUFFIXES, *COMPRESSED_SUFFIXES, *ARCHIVE_SUFFIXES, *TIFF_SUFFIXES))
    raise ValueError(f"{target}: the suffix names no format that is written; choose one of {known}")


def bottom_up(movie: xr.DataArray) -> xr.DataArray:
    """The movie with its rows as MRC has them, the lowest first: TIFF and EER have the highest first."""
    if movie.attrs.get(schema.ORIGIN) != "upper":
        return movie
    return movie.isel({schema.Y: slice(None, None, -1)}).assign_attrs({schema.ORIGIN: "lower"})


def _suffix(url: str, suffixes: tuple[str, ...]) -> bool:
    return url.rstrip("/").lower().endswith(suffixes)


def _to_tiff(movie: xr.DataArray, target: str, progress: Progress) -> xr.DataArray:
    from mrczdask.io.mrcz_plan import as_movie
    from mrczdask.io.tiff import write_tiff

    frames = as_movie(movie)
    frames = frames.chunk({frames.dims[1]: -1, frames.dims[2]: -1})
    blocks = frames.data.to_delayed().ravel()
    with track(progress, len(blocks), os.path.basename(target)) as advance:

        def images() -> Iterator[NDArray[Any]]:
            for _, block in run_regions(enumerate(blocks), on_done=advance):
                yield from np.asarray(block)

        write_tiff(images(), target, shape=frames.shape, dtype=frames.dtype, attrs=frames.attrs, coords=frames.coords)
    return open_movie(target)
