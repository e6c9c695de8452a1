"""Zarr v3 archives: written shard by shard by the workers, gone on with after any interruption, opened lazily."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

import dask.array as da
import xarray as xr
import zarr
from zarr.abc.store import Store

from mrczdask import schema
from mrczdask.errors import MrczdaskError, ResumeError
from mrczdask.execution.progress import Progress
from mrczdask.execution.resume import run_resumable
from mrczdask.execution.schedulers import current_client
from mrczdask.io.archive_codecs import ArchiveCodec, check_codec, codecs_of, enlarged
from mrczdask.io.archive_group import open_group, open_node, renew_consolidated, whole, with_plain_labels, writing
from mrczdask.io.archive_plan import GroupPlan
from mrczdask.io.given_stores import keeps_journal
from mrczdask.io.movie_array import MovieArray, movie_array
from mrczdask.io.ragged import Ragged
from mrczdask.io.ragged_archive import RaggedPlan, as_ragged, holds_ragged, open_ragged
from mrczdask.io.replacing import prepared, put_in_place
from mrczdask.io.source import absolute
from mrczdask.io.stores import Place, open_store
from mrczdask.io.suffixes import check_archive
from mrczdask.io.virtual import SUFFIXES, open_virtual
from mrczdask.io.zip_archive import packed, zip_target

T = TypeVar("T", xr.DataArray, xr.Dataset, xr.DataTree, Ragged)

UNNAMED: Final = "data"
"""Name in the archive of a DataArray without one."""
MOVIES, REFERENCE, DERIVED, PEAKS, SPARSE = "movies", "reference", "derived", "peaks", "sparse"
"""Groups of the archive of a session."""


def write_archive(
    obj: T,
    url: Place,
    *,
    group: str | None = None,
    codec: ArchiveCodec | Any = "auto",
    frames_per_shard: int | None = None,
    resume: bool = True,
    overwrite: bool = False,
    create_only: bool = False,
    region: Mapping[str, slice] | None = None,
    consolidate: bool = False,
    progress: Progress = None,
    storage_options: Mapping[str, Any] | None = None,
) -> T:
    """Write lazy or in-memory data to a Zarr v3 archive and return it, opened from there.

    One Dask chunk becomes one shard, one frame (or a block of patterns of a scan) one chunk inside it with a checksum
    of its own: a frame is read by two requests, and no shard is ever written by two tasks. Shards are computed,
    compressed and written in parallel by the threads, or by the workers of the client in force.

    Parameters
    ----------
    obj : DataArray, Dataset, DataTree or Ragged
        A movie, a session, sums, masks: anything on labelled dims. Each node of a tree becomes a group. Sparse frames
        and peaks, lazy or computed, are written block by block in the order of the shots.
    url : str, path or Zarr store
        The archive: a local folder, an object store ("s3://bucket/run.zarr"), or any store of Zarr, such as
        ``zarr.storage.ObjectStore`` over obstore and the store of an icechunk session, which you commit. A zip file
        ("run.zip", or a ``zarr.storage.ZipStore``, which is closed) is packed from the folder "run.zip.part.zarr".
    group : str, optional
        Group inside the archive, such as "derived/sums". By default "movies" for a session (movie, frame, y, x),
        "sparse" and "peaks" for these, the root for all else.
    codec : {"auto", "zstd", "pixel_histogram", "b3d", "none"} or Zarr codec
        "auto" measures on two chunks: Blosc-zstd with the best shuffle, or `codecs.PixelHistogram` or lossless
        `codecs.B3D` where one of them needs 5 % less; 64-bit integers, which sums are, get Blosc-lz4, the fastest to
        read. "zstd" is Blosc-zstd with shuffled bits. A Zarr v3 array-to-bytes codec is used as the serializer, a
        bytes-to-bytes codec as the compressor.
    frames_per_shard : int, optional
        Frames in one shard; by default those of a Dask chunk.
    resume : bool
        Go on with what was begun with the same parameters, or do nothing where all is there; shards of movies whose
        files changed are written again. False: write the group anew. Its old arrays stay until the new ones, written
        beside them, are whole, so that these may be computed from them.
    overwrite : bool
        With ``resume=False``: replace also what another verb or program has written into the group.
    create_only : bool
        Create the arrays and write no pixels: the first step of a job array.
    region : mapping of str to slice, optional
        Write only these shards, such as ``{"movie": slice(0, 100)}``, of an archive created before: one step of a job
        array, whose jobs run side by side.
    consolidate : bool
        Copy the metadata of all groups into the root, so that other programs open the archive by one request. It is
        no part of Zarr v3 yet. An archive that has the copy keeps it, renewed by each write but those of regions.
    progress : None, True or callable
        True shows a bar; a callable gets (done, total, label).
    storage_options : mapping, optional
        For the fsspec file system. They are not written anywhere.

    Returns
    -------
    DataArray, Dataset, DataTree or Ragged
        What was given, lazy, read from the archive.

    Raises
    ------
    ResumeError
        The group was begun with other parameters, which are named, or is not one of this verb.
    MrczdaskError
        The object holds no array.
    ValueError
        The codec is not known, the region does not consist of whole shards, or a part of a ragged table is asked for.
    StoreError
        An object store failed after bounded retries; what is written stays, resume goes on.

    Notes
    -----
    Two regions are never the same shard, so any number of processes may write one archive. Each shard is marked in the
    folder `.journal` of its array when it is whole; whoever writes it holds a lock, which is free when its process is
    dead or silent for a minute.

    Examples
    --------
    >>> import mrczdask as md
    >>> movie = md.simulate.poisson((4, 32, 32), mean=1.0, seed=0)
    >>> sums = md.write_archive(md.sum_frames(movie), "run.zarr", group="derived/sums")
    >>> int(sums.sum()) == int(movie.sum())
    True
    """
    check_codec(codec)
    if (path := zip_target(url)) is not None:
        if create_only or region is not None:
            raise ValueError(f"{path}: create_only= and region= are for archives in folders: a zip is written whole")
        given: dict[str, Any] = {"codec": codec, "frames_per_shard": frames_per_shard, "consolidate": consolidate}
        with packed(url, path, replace=overwrite and not resume) as folder:
            write_archive(obj, folder, group=group, progress=progress, **given)
        return _reopened(obj, path, list(_nodes(obj, group)), None)
    check_archive(url)
    current_client()  # refused before anything is computed where it cannot be waited for
    if frames_per_shard is not None and frames_per_shard < 1:
        raise ValueError(f"frames_per_shard={frames_per_shard}: give at least 1")
    nodes = _nodes(obj, group)
    options = dict(storage_options or {})
    tables = {where: table for where, node in nodes.items() if (table := as_ragged(node)) is not None}
    if tables and (create_only or region is not None):
        raise ValueError("create_only= and region= are for arrays: one process writes a ragged table, in order")
    if tables and isinstance(url, Store) and not keeps_journal(url):
        raise MrczdaskError(f"{type(url).__name__}: ragged tables are written to folders, urls and zip files")
    plans = [
        GroupPlan(_stored_form(ds, frames_per_shard), url, where, codec, _sources(ds), options)
        for where, ds in nodes.items()
        if where not in tables
    ]
    for plan in plans:
        if region is not None and plan.stored() is None:
            raise ResumeError(f"{plan.name}: a region needs an archive: write_archive(..., create_only=True) makes it")
        chosen = prepared(plan, resume=resume or region is not None, overwrite=overwrite, in_place=create_only)
        if not create_only:
            label = plan.name.rsplit("/", 1)[-1]
            chosen.check_workers()
            run_resumable(
                chosen.regions(region), chosen.journal, progress=progress, label=label, inside=chosen.changing
            )
        if chosen.group != plan.group:
            put_in_place(plan.store(read_only=False), plan.group)
    for where, table in tables.items():
        ragged = RaggedPlan(table, url, where, options)
        written = prepared(ragged, resume=resume, overwrite=overwrite)
        written.write(progress)
        if written.group != where:
            put_in_place(open_store(url, options, read_only=False), where)
    if region is None:
        renew_consolidated(open_store(url, options, read_only=False), wanted=consolidate)
    return _reopened(obj, url, list(nodes), storage_options)


def _nodes(obj: Any, group: str | None) -> dict[str, Any]:
    """The Datasets and tables to write, by group."""
    table = as_ragged(obj)
    if table is not None:
        nodes: dict[str, Any] = {
            (PEAKS if table.layout.row == "peak" else SPARSE) if group is None else group.strip("/"): table
        }
    elif isinstance(obj, xr.DataTree):
        base = (group or "").strip("/")
        found = {f"{base}{node.path}".strip("/"): node.to_dataset(inherit=False) for node in obj.subtree}
        nodes = {where: ds for where, ds in found.items() if ds.variables}
    else:
        ds = obj if isinstance(obj, xr.Dataset) else obj.to_dataset(name=obj.name or UNNAMED)
        session = any(set(v.dims) == set(schema.SESSION_DIMS) for v in ds.data_vars.values())
        where = (MOVIES if session else "") if group is None else group.strip("/")
        nodes = {where: ds} if ds.variables else {}
    if not nodes:
        raise MrczdaskError("write_archive: the object holds no array")
    return nodes


def _stored_form(ds: xr.Dataset, frames_per_shard: int | None) -> xr.Dataset:
    """Pixels as Dask arrays of even chunks, labels in memory, names as strings of any length, units where known."""
    ds = ds.copy()
    for name, variable in ds.data_vars.items():
        if variable.dtype.kind in "biufc" and variable.ndim:
            data = variable if isinstance(variable.data, da.Array) else variable.chunk()
            ds[name] = _aligned(data, frames_per_shard)
        else:
            ds[name] = variable.load()
    for name, coord in list(ds.coords.items()):
        known = {"units": schema.UNITS[str(name)]} if name in schema.UNITS and coord.dtype.kind not in "mM" else {}
        if isinstance(coord.data, da.Array) or (known and "units" not in coord.attrs):
            ds = ds.assign_coords({name: coord.load().assign_attrs(known | coord.attrs)})
    return with_plain_labels(ds)


def _sources(ds: xr.Dataset) -> dict[str, MovieArray]:
    lazy = {str(name): movie_array(v.data) for name, v in ds.data_vars.items() if isinstance(v.data, da.Array)}
    return {name: source for name, source in lazy.items() if source is not None}


def _reopened(obj: Any, url: Place, groups: Sequence[str], options: Mapping[str, Any] | None) -> Any:
    if isinstance(obj, xr.DataTree):
        return open_archive(url, storage_options=options)
    if isinstance(obj, Ragged):
        return open_ragged(url, groups[0], options)
    opened = open_group(open_store(url, options, read_only=True), groups[0])
    return opened if isinstance(obj, xr.Dataset) else opened[obj.name or UNNAMED]


def open_archive(
    url: Place,
    group: str | None = None,
    *,
    allow: Sequence[str] = (),
    storage_options: Mapping[str, Any] | None = None,
) -> xr.DataTree | xr.Dataset | Ragged:
    """Open a Zarr archive lazily.

    Parameters
    ----------
    url : str, path or Zarr store
        A local folder, an object store, a zip file, any store of Zarr, or what `virtualize` wrote (.json, .parquet,
        .icechunk).
    group : str, optional
        One group of it.
    allow : list of str, optional
        Folders and urls, besides the folder of the references, in which references may lie that are read. Others are
        refused: a file of references from elsewhere cannot make you read what you did not name.
    storage_options : mapping, optional
        For the fsspec file system.

    Returns
    -------
    xarray.DataTree, xarray.Dataset or Ragged
        All groups, or the one named: of a session `movies`, `reference`, `derived`, `peaks`, `sparse`, those that
        were written. Dask chunks are the shards. Sparse frames and peaks are Datasets of pointers and columns in the
        tree, and a Ragged where their group is named.

    Raises
    ------
    FileNotFoundError
        There is no archive, or no such group in it.
    MrcFormatError
        The metadata ask for chunks or labels too large to be true. Reading pixels: a shard is missing or corrupt.
    StoreError
        An object store failed after bounded retries.

    Examples
    --------
    >>> import mrczdask as md
    >>> movie = md.simulate.poisson((4, 32, 32), mean=1.0, seed=0)
    >>> _ = md.write_archive(movie, "movies.zarr", group="movies")
    >>> md.open_archive("movies.zarr")["movies"]["images"].shape
    (4, 32, 32)
    """
    if isinstance(url, str | os.PathLike) and os.fspath(url).rstrip("/").lower().endswith(SUFFIXES):
        return open_virtual(absolute(os.fspath(url)), allow=allow, storage_options=storage_options)
    store = open_store(url, storage_options, read_only=True)
    if group is not None:
        return open_ragged(url, group, storage_options) if holds_ragged(store, group) else open_group(store, group)
    root = open_node(store, "")
    groups = {path: node for path, node in root.members(max_depth=None) if isinstance(node, zarr.Group)}
    nodes = {"": root} | dict(sorted(groups.items()))
    return xr.DataTree.from_dict({f"/{path}": open_group(store, path, node=node) for path, node in nodes.items()})


def create_arrays(
    templates: xr.Dataset,
    url: str,
    group: str,
    *,
    inner: Mapping[str, tuple[int, ...]],
    codec: ArchiveCodec | Any = "zstd",
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, zarr.Array[Any]]:
    """Create the arrays of a group without their pixels, for tasks that write a shard each.

    Parameters
    ----------
    templates : Dataset
        Lazy arrays of the wanted shape, dtype and chunks, which become shards, and coordinates in memory.
    url, group
        Where; what stands in the group is replaced.
    inner : mapping
        Chunks inside the shards, by name.
    codec, storage_options
        As of `write_archive`.
    """
    ds = whole(with_plain_labels(templates))
    encoding = {
        name: {
            "chunks": inner[name],
            "shards": enlarged(ds[name].data.chunksize, inner[name]),
            **codecs_of(ds[name], "zstd" if codec == "auto" else codec, inner[name]),
        }
        for name in inner
    }
    options: dict[str, Any] = {"storage_options": dict(storage_options)} if storage_options else {}
    with writing():
        ds.to_zarr(
            url, group=group, mode="w", zarr_format=3, consolidated=False, compute=False, encoding=encoding, **options
        )
    return open_arrays(url, group, list(inner), storage_options)


def open_arrays(
    url: str, group: str, names: Sequence[str], storage_options: Mapping[str, Any] | None = None
) -> dict[str, zarr.Array[Any]]:
    """The arrays of a group, to be read and written."""
    options: dict[str, Any] = {"storage_options": dict(storage_options)} if storage_options else {}
    with writing():
        root = zarr.open_group(url, path=group, mode="r+", use_consolidated=False, **options)
        return {name: _array(root, name) for name in names}


def add_coords(coords: xr.Dataset, url: str, group: str, options: Mapping[str, Any]) -> None:
    """Write coordinates into a group that lacks them."""
    with writing():
        ds = whole(with_plain_labels(coords))
        ds.to_zarr(url, group=group, mode="a", zarr_format=3, consolidated=False, **options)


def _aligned(variable: xr.DataArray, frames_per_shard: int | None) -> xr.DataArray:
    """The variable with chunks of one size (but the last), as Zarr needs them."""
    if frames_per_shard is not None and schema.FRAME in variable.dims:
        variable = variable.chunk({schema.FRAME: frames_per_shard})
    uneven = {
        dim: max(sizes)
        for dim, sizes in zip(variable.dims, variable.data.chunks, strict=True)
        if len(set(sizes[:-1])) > 1 or sizes[-1] > sizes[0]
    }
    return variable.chunk(uneven) if uneven else variable


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    assert isinstance(array, zarr.Array)
    return array
