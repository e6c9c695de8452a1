"""Many MRC, MRCZ and HDF5 files as one Zarr array, without copying a pixel."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numcodecs
import xarray as xr

from mrczdask import schema
from mrczdask.codecs import B3DNumcodec, BloscFrameNumcodec, PixelHistogramNumcodec
from mrczdask.errors import MissingExtraError, MrcFormatError
from mrczdask.execution.progress import Progress
from mrczdask.io.movie_array import CHUNK_BYTES
from mrczdask.io.session import Order
from mrczdask.io.source import is_remote, local_path, open_source
from mrczdask.io.sparse_blocks import KeptBlocks
from mrczdask.io.virtual_files import KeptFiles
from mrczdask.io.virtual_refs import (
    MAX_METADATA_BYTES,
    JsonReferences,
    ParquetReferences,
    References,
    ReferenceStore,
)
from mrczdask.io.virtual_table import VirtualTable, read_table
from mrczdask.io.virtual_writer import write_json, write_parquet

JSON_SUFFIX, PARQUET_SUFFIX, ICECHUNK_SUFFIX = ".json", ".parquet", ".icechunk"
SUFFIXES: Final = (JSON_SUFFIX, PARQUET_SUFFIX, ICECHUNK_SUFFIX)

for _codec in (BloscFrameNumcodec, PixelHistogramNumcodec, B3DNumcodec):
    numcodecs.register_codec(_codec)


def virtualize(
    urls: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    to: str | os.PathLike[str],
    *,
    order: Order = "time",
    resume: bool = False,
    progress: Progress = None,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Make one Zarr array (movie, frame, y, x) of MRC, MRCZ or HDF5 files as they are: no pixel is copied.

    Parameters
    ----------
    urls : str, path or list of them
        Files of one shape and pixel type, or patterns such as "s3://bucket/*.mrcz".
    to : str or path
        What to write, by its suffix: ".json" and ".parquet" are references of kerchunk (Zarr v2), ".icechunk" a
        repository of icechunk (Zarr v3).
    order : {"time", "name", "given"}
        Of the movies, as in `open_session`; "time" leaves HDF5 files, which tell none, as given.
    resume : bool
        Keep what is known of each file in the folder TO.files until all are indexed: a run that was killed goes on
        with those that are not there, or have changed since. A target that is whole is made anew.
    progress : None, True or callable
        True shows a bar; a callable gets (done, total, label) as files are indexed.
    storage_options : mapping, optional
        For the fsspec file system of the files. They are not written anywhere.

    Returns
    -------
    xarray.Dataset
        `images` (movie, frame, y, x) with the coordinates of `open_session`, lazy, read through the references.

    Raises
    ------
    MrcFormatError
        A file is damaged, or its pixels do not lie in chunks that Zarr can read: the message says why.
    MissingExtraError
        Parquet needs fastparquet, icechunk needs icechunk and virtualizarr: the extra `virtual`.
    ValueError
        The suffix of `to` is none of the three.

    Notes
    -----
    A compressed frame is one chunk, an uncompressed frame as many as its rows make 4 MB. Blosc chunks of version 2
    are read by every reader of Zarr, version 5 by the codec `mrczdask.blosc_frame`. References hold absolute urls;
    `open_archive` follows only those below the folder of the references and those that `allow=` names.

    Examples
    --------
    >>> import mrczdask as md
    >>> for k in (1, 2):
    ...     _ = md.write_mrcz(md.simulate.poisson((4, 16, 16), mean=1.0, seed=k), f"movie_{k}.mrcz")
    >>> cube = md.virtualize("movie_*.mrcz", "session.json", order="name")
    >>> cube.images.shape, cube.movie.values.tolist()
    ((2, 4, 16, 16), ['movie_1', 'movie_2'])
    """
    target = os.fspath(to)
    suffix = _suffix(target)
    kept = KeptFiles(KeptBlocks(_beside(target), storage_options or {})) if resume else None
    label = target.rstrip("/").rsplit("/", 1)[-1]
    table = read_table(urls, order=order, kept=kept, progress=progress, label=label, storage_options=storage_options)
    written = write_table(table, target, suffix, storage_options)
    if kept is not None:
        kept.blocks.remove()
    return written


def _beside(target: str) -> str:
    """The folder of the files that are indexed."""
    return (target if is_remote(target) else local_path(target)).rstrip("/") + ".files"


def write_table(table: VirtualTable, target: str, suffix: str, options: Mapping[str, Any] | None) -> xr.Dataset:
    """Write an index and open what was written."""
    folders = sorted({url.rsplit("/", 1)[0] for url in table.urls})
    if suffix == ICECHUNK_SUFFIX:
        from mrczdask.io.virtual_icechunk import write_icechunk

        write_icechunk(table, target, folders, options)
    elif is_remote(target):
        raise ValueError(f"{target}: references are written to a local file: copy it to the store when it is whole")
    elif suffix == JSON_SUFFIX:
        write_json(table, local_path(target))
    else:
        _need("fastparquet")
        write_parquet(table, local_path(target))
    return open_virtual(target, allow=folders, storage_options=options)


def open_virtual(
    url: str, *, allow: Sequence[str] = (), storage_options: Mapping[str, Any] | None = None
) -> xr.Dataset:
    """Open what `virtualize` wrote; see `open_archive`."""
    suffix = _suffix(url)
    # the folder of the references is the store the user named
    folders = [
        url.rstrip("/").rpartition("/")[0] if is_remote(url) else os.path.dirname(os.path.abspath(local_path(url)))
    ]
    stamp = None  # a repository of icechunk is read as it was at one moment
    if suffix == ICECHUNK_SUFFIX:
        from mrczdask.io.virtual_icechunk import open_icechunk

        ds = open_icechunk(url, [*folders, *allow], storage_options)
    else:
        references, stamp = _references(url, suffix, storage_options)
        store = ReferenceStore(references, url, [*folders, *allow], storage_options)
        ds = xr.open_zarr(store, chunks=None, consolidated=True, zarr_format=2)
    tokens = {name: None if stamp is None else f"{url} {name} {stamp}" for name in ds.data_vars}
    return ds.assign({name: v.chunk(_chunks(v), token=tokens[name]) for name, v in ds.data_vars.items()})


def _suffix(url: str) -> str:
    found = next((suffix for suffix in SUFFIXES if url.rstrip("/").lower().endswith(suffix)), None)
    if found is None:
        raise ValueError(f"{url}: name it .json, .parquet (references of kerchunk) or .icechunk")
    return found


def _references(url: str, suffix: str, options: Mapping[str, Any] | None) -> tuple[References, str]:
    """The references, and what changes when they do."""
    place = url if suffix == JSON_SUFFIX else f"{url.rstrip('/')}/.zmetadata"
    with open_source(place, options) as source:
        if source.size > MAX_METADATA_BYTES:
            raise MrcFormatError(f"{source.size} bytes of references are refused: use .parquet", url=url)
        raw = source.read_at(0, source.size)
        stamp = f"{source.fingerprint} {hashlib.blake2b(raw).hexdigest()}"
    if suffix == JSON_SUFFIX:
        return JsonReferences(raw, url), stamp
    _need("fastparquet")
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        raise MrcFormatError("this is no folder of references: its .zmetadata are no JSON", url=url) from None
    return ParquetReferences(document, url, options), stamp


def _need(name: str) -> None:
    import importlib.util

    if importlib.util.find_spec(name) is None:
        raise MissingExtraError(f"{name} is not installed: pip install 'mrczdask[virtual]'")


def _chunks(variable: xr.DataArray) -> dict[Any, int]:
    """Whole Zarr chunks, 64 MB of them counted at 4 bytes a pixel, of one movie."""
    own = variable.encoding.get("chunks") or variable.shape
    sizes = list(own)
    room = max(CHUNK_BYTES // max(4 * variable.sizes.get(schema.Y, 1) * variable.sizes.get(schema.X, 1), 1), 1)
    if schema.FRAME in variable.dims and schema.Y in variable.dims:
        axis = variable.dims.index(schema.FRAME)
        sizes[axis] = min(max(room // own[axis], 1) * own[axis], variable.shape[axis])
        sizes[variable.dims.index(schema.Y)] = variable.sizes[schema.Y]
    return dict(zip(variable.dims, sizes, strict=True))
