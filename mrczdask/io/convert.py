"""One movie from one format to another, by the suffixes of the files."""

from __future__ import annotations

import os
from typing import Any

import xarray as xr

from mrczdask import schema
from mrczdask.errors import MrcFormatError
from mrczdask.execution.progress import Progress
from mrczdask.io.movie import open_movie
from mrczdask.io.suffixes import ARCHIVE_SUFFIXES, format_of


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

    Between MRC and TIFF or EER the rows are turned over, as `write_mrcz` does it: MRC begins with the lowest row of the
    picture, the others with the highest, so that every program shows the same picture. Pixels are never changed.

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
    kind = format_of(target, ("mrc", "mrcz", "zarr", "tiff"))
    if resume and kind != "zarr":
        raise ValueError(f"{target}: only a .zarr can be gone on with: other files are replaced when they are whole")
    if os.path.abspath(source) == os.path.abspath(target):
        raise ValueError(f"{target}: source and target are the same file")
    if not 0 <= level <= 9:
        raise ValueError(f"level={level}: give 0 to 9")
    movie = open_any(source, **options)
    if kind == "zarr":
        from mrczdask.io.archive import write_archive

        return write_archive(movie, target, codec=codec or "auto", resume=resume, progress=progress)
    from mrczdask.io.mrcz_writer import write_mrcz

    if kind == "tiff":
        return write_mrcz(movie, target, progress=progress)
    return write_mrcz(movie, target, codec=codec or "auto", level=level, mode=mode, progress=progress)  # type: ignore[arg-type]


def _suffix(url: str, suffixes: tuple[str, ...]) -> bool:
    return url.rstrip("/").lower().endswith(suffixes)
