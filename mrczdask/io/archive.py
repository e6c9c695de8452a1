"""Zarr v3 archives: written shard by shard by the workers, opened lazily."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeVar

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from dask.delayed import delayed
from fsspec.core import url_to_fs
from zarr.abc.codec import ArrayBytesCodec
from zarr.codecs import BloscCodec

from mrczdask import schema
from mrczdask.errors import MrczdaskError
from mrczdask.execution.progress import Progress, track
from mrczdask.execution.regions import run_regions
from mrczdask.io.encode import Encoding, choose_blosc

T = TypeVar("T", xr.DataArray, xr.Dataset)

UNNAMED: Final = "data"
"""Name in the archive of a DataArray without one."""
_ZARR_SHUFFLE: Final[dict[str, Any]] = {"none": "noshuffle", "byte": "shuffle", "bit": "bitshuffle"}
MIN_SHARD_BYTES: Final = 1 << 20
"""An array smaller than this is stored as one chunk without shards."""

ArchiveCodec = Literal["auto", "zstd", "none"]


def write_archive(
    obj: T,
    url: str | os.PathLike[str],
    *,
    group: str | None = None,
    codec: ArchiveCodec | Any = "auto",
    frames_per_shard: int | None = None,
    progress: Progress = None,
    storage_options: Mapping[str, Any] | None = None,
) -> T:
    """Write lazy or in-memory data to a Zarr v3 archive and return it, opened from there.

    One Dask chunk becomes one shard, one frame one chunk inside it: a frame is read by two requests, and no shard is
    ever written by two tasks. Shards are computed, compressed and written in parallel by the threads, or by the
    workers of the client in force.

    Parameters
    ----------
    obj : DataArray or Dataset
        A movie, a session, sums, masks: anything on labelled dims.
    url : str or path
        The archive: a local folder or an object store ("s3://bucket/run.zarr").
    group : str, optional
        Group inside the archive, such as "derived/sums"; what stands in it is replaced.
    codec : {"auto", "zstd", "none"} or Zarr codec
        "auto" measures on a frame whether a bit shuffle pays before Blosc-zstd; "zstd" always shuffles bits. A Zarr v3
        array-to-bytes codec is used as the serializer, a bytes-to-bytes codec as the compressor.
    frames_per_shard : int, optional
        Frames in one shard; by default those of a Dask chunk.
    progress : None, True or callable
        True shows a bar; a callable gets (done, total, label).
    storage_options : mapping, optional
        For the fsspec file system.

    Returns
    -------
    DataArray or Dataset
        What was given, lazy, read from the archive.

    Raises
    ------
    MrczdaskError
        The object holds no array.

    Examples
    --------
    >>> import mrczdask as md
    >>> movie = md.simulate.poisson((4, 32, 32), mean=1.0, seed=0)
    >>> sums = md.write_archive(md.sum_frames(movie), "run.zarr", group="derived/sums")
    >>> int(sums.sum()) == int(movie.sum())
    True
    """
    ds = _as_dataset(obj)
    store = os.fspath(url)
    lazy = {
        str(name): _aligned(v, frames_per_shard) for name, v in ds.data_vars.items() if isinstance(v.data, da.Array)
    }
    ds = _with_long_strings(ds.assign(lazy))
    encoding = {name: _encoding(variable, codec) for name, variable in lazy.items()}
    for variable in ds.variables.values():
        variable.encoding = {}
    options: dict[str, Any] = {"storage_options": dict(storage_options)} if storage_options else {}
    ds.to_zarr(
        store, group=group, mode="w", zarr_format=3, consolidated=False, compute=False, encoding=encoding, **options
    )
    root = zarr.open_group(store, path=group or "", mode="r+", use_consolidated=False, **options)
    tasks = [task for name, variable in lazy.items() for task in _tasks(_array(root, name), variable)]
    with track(progress, len(tasks), f"{os.path.basename(store.rstrip('/'))}/{group or ''}") as advance:
        for _ in run_regions(tasks, ordered=False, on_done=advance):
            pass
    opened = _open_group(store, group, options)
    return opened if isinstance(obj, xr.Dataset) else opened[obj.name or UNNAMED]


def open_archive(
    url: str | os.PathLike[str], group: str | None = None, *, storage_options: Mapping[str, Any] | None = None
) -> xr.DataTree | xr.Dataset:
    """Open a Zarr archive lazily.

    Parameters
    ----------
    url : str or path
        A local folder or an object store.
    group : str, optional
        One group of it.
    storage_options : mapping, optional
        For the fsspec file system.

    Returns
    -------
    xarray.DataTree or xarray.Dataset
        All groups, or the one named. Dask chunks are the shards.

    Raises
    ------
    FileNotFoundError
        There is no archive, or no such group in it.

    Examples
    --------
    >>> import mrczdask as md
    >>> movie = md.simulate.poisson((4, 32, 32), mean=1.0, seed=0)
    >>> _ = md.write_archive(movie, "movies.zarr", group="movies")
    >>> md.open_archive("movies.zarr")["movies"]["images"].shape
    (4, 32, 32)
    """
    store = os.fspath(url)
    options: dict[str, Any] = {"storage_options": dict(storage_options)} if storage_options else {}
    if group is not None:
        return _open_group(store, group, options)
    root = zarr.open_group(store, mode="r", use_consolidated=False, **options)
    paths = ["/", *(f"/{path}" for path, node in root.members(max_depth=None) if isinstance(node, zarr.Group))]
    return xr.DataTree.from_dict({path: _open_group(store, path.strip("/") or None, options) for path in paths})


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
    ds = _with_long_strings(templates)
    encoding = {
        name: {
            "chunks": inner[name],
            "shards": _shard(ds[name].data.chunksize, inner[name]),
            **_codecs(ds[name], codec),
        }
        for name in inner
    }
    for variable in ds.variables.values():
        variable.encoding = {}
    options: dict[str, Any] = {"storage_options": dict(storage_options)} if storage_options else {}
    ds.to_zarr(
        url, group=group, mode="w", zarr_format=3, consolidated=False, compute=False, encoding=encoding, **options
    )
    return open_arrays(url, group, list(inner), storage_options)


def _shard(chunk: tuple[int, ...], inner: tuple[int, ...]) -> tuple[int, ...]:
    """A chunk, enlarged beyond the border of the array to whole inner chunks."""
    return tuple(-(-size // part) * part for size, part in zip(chunk, inner, strict=True))


def open_arrays(
    url: str, group: str, names: Sequence[str], storage_options: Mapping[str, Any] | None = None
) -> dict[str, zarr.Array[Any]]:
    """The arrays of a group, to be read and written."""
    options: dict[str, Any] = {"storage_options": dict(storage_options)} if storage_options else {}
    root = zarr.open_group(url, path=group, mode="r+", use_consolidated=False, **options)
    return {name: _array(root, name) for name in names}


def add_coords(coords: xr.Dataset, url: str, group: str, options: Mapping[str, Any]) -> None:
    """Write coordinates into a group that lacks them."""
    ds = _with_long_strings(coords)
    for variable in ds.variables.values():
        variable.encoding = {}
    ds.to_zarr(url, group=group, mode="a", zarr_format=3, consolidated=False, **options)


def holds_data(url: str, storage_options: Mapping[str, Any] | None = None) -> bool:
    """Whether there is anything at the place of an archive."""
    fs, path = url_to_fs(url, **dict(storage_options or {}))
    return bool(fs.exists(path) and (not fs.isdir(path) or fs.ls(path)))


def _as_dataset(obj: xr.DataArray | xr.Dataset) -> xr.Dataset:
    ds = obj if isinstance(obj, xr.Dataset) else obj.to_dataset(name=obj.name or UNNAMED)
    if not ds.variables:
        raise MrczdaskError("write_archive: the object holds no array")
    return ds.copy()


def _with_long_strings(ds: xr.Dataset) -> xr.Dataset:
    """Names as strings of any length: Zarr v3 has no specification for numpy's fixed-width ones."""
    fixed = {name: ds[name].astype(np.dtypes.StringDType()) for name, v in ds.variables.items() if v.dtype.kind == "U"}
    in_coords = {name: v for name, v in fixed.items() if name in ds.coords}
    return ds.assign_coords(in_coords).assign({name: v for name, v in fixed.items() if name not in in_coords})


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


def _encoding(variable: xr.DataArray, codec: Any) -> dict[str, Any]:
    shard = variable.data.chunksize
    inner = (1,) * (variable.ndim - 2) + shard[-2:]
    encoding: dict[str, Any] = {"chunks": inner}
    if variable.nbytes < MIN_SHARD_BYTES or shard == inner:
        encoding["chunks"] = shard
    else:
        encoding["shards"] = shard
    return encoding | _codecs(variable, codec)


def _codecs(variable: xr.DataArray, codec: Any) -> dict[str, Any]:
    if not isinstance(codec, str):
        is_serializer = isinstance(codec, ArrayBytesCodec)
        return {"serializer": codec, "compressors": None} if is_serializer else {"compressors": (codec,)}
    if codec == "none":
        return {"compressors": None}
    if codec not in ("auto", "zstd"):
        raise ValueError(f'codec {codec!r}: give "auto", "zstd", "none" or a Zarr codec')
    shuffle = "bit" if codec == "zstd" or variable.ndim < 2 or not variable.size else _measured_shuffle(variable)
    return {"compressors": (BloscCodec(cname="zstd", clevel=1, shuffle=_ZARR_SHUFFLE[shuffle]),)}


def _measured_shuffle(variable: xr.DataArray) -> str:
    """The Blosc filter that makes the first image smallest."""
    first = variable.data[(0,) * (variable.ndim - 2)]
    ((_, image),) = run_regions([(0, first)])
    image = np.asarray(image)
    if image.dtype.kind not in "iufcb":
        return "byte"
    return choose_blosc([image], Encoding(0, image.dtype, "zstd"), None, None).shuffle


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    assert isinstance(array, zarr.Array)
    return array


def _tasks(target: zarr.Array[Any], variable: xr.DataArray) -> Iterator[tuple[Any, Any]]:
    """A task a Dask chunk: computes it and writes it where it belongs."""
    write = delayed(_write_shard, pure=False)
    blocks = variable.data.to_delayed()
    for place in np.ndindex(blocks.shape):
        region = tuple(
            slice(sum(sizes[:k]), sum(sizes[: k + 1])) for sizes, k in zip(variable.data.chunks, place, strict=True)
        )
        yield (target.name, place), write(blocks[place], target, region)


def _write_shard(block: Any, target: zarr.Array[Any], region: tuple[slice, ...]) -> None:
    target[region] = block


def _open_group(store: str, group: str | None, options: Mapping[str, Any]) -> xr.Dataset:
    ds = xr.open_zarr(store, group=group, chunks=None, consolidated=False, zarr_format=3, **options)
    chunks = {name: _shard_chunks(variable) for name, variable in ds.data_vars.items()}
    return ds.assign({name: ds[name].chunk(sizes) for name, sizes in chunks.items()})


def _shard_chunks(variable: xr.DataArray) -> dict[Any, int]:
    sizes: Sequence[int] = variable.encoding.get("shards") or variable.encoding.get("chunks") or variable.shape
    return dict(zip(variable.dims, sizes, strict=True))
