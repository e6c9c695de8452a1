"""Virtual arrays in icechunk repositories (Zarr v3), and the parser by which VirtualiZarr reads MRC and MRCZ."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr

from mrczdask import schema
from mrczdask.errors import MissingExtraError, MrcFormatError
from mrczdask.io.source import is_remote, local_path, without_secrets
from mrczdask.io.virtual_files import plain
from mrczdask.io.virtual_refs import _folder, checked_url
from mrczdask.io.virtual_table import VirtualTable, read_table

if TYPE_CHECKING:
    from virtualizarr.manifests import ManifestArray, ManifestStore

BRANCH: Final = "main"


def _icechunk(*, to_write: bool = False) -> Any:
    """The package; reading needs no VirtualiZarr, which takes 20 MB."""
    try:
        import icechunk

        if to_write:
            import virtualizarr  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(f"{error.name} is not installed: pip install 'mrczdask[virtual]'") from None
    return icechunk


def manifest_array(table: VirtualTable) -> ManifestArray:
    """The chunks as an array of VirtualiZarr."""
    from virtualizarr.manifests import ChunkManifest, ManifestArray
    from zarr.core.dtype import parse_data_type
    from zarr.core.metadata.v3 import ArrayV3Metadata

    grid = table.offsets.shape
    paths: Any = np.array(table.urls, np.dtypes.StringDType()).reshape(-1, *([1] * (len(grid) - 1)))
    described = ArrayV3Metadata(
        shape=table.shape,
        data_type=parse_data_type(table.stored.newbyteorder("="), zarr_format=3),
        chunk_grid={"name": "regular", "configuration": {"chunk_shape": table.chunk}},
        chunk_key_encoding={"name": "default"},
        fill_value=0,
        codecs=_codecs_v3(table),
        attributes={},
        dimension_names=schema.SESSION_DIMS,
        storage_transformers=None,
    )
    all_paths: Any = np.broadcast_to(paths, grid).copy()
    manifest = ChunkManifest.from_arrays(
        paths=all_paths,
        offsets=table.offsets,
        lengths=np.ascontiguousarray(table.lengths),
        validate_paths=False,
    )
    return ManifestArray(metadata=described, chunkmanifest=manifest)


def _codecs_v3(table: VirtualTable) -> list[dict[str, Any]]:
    order = "big" if table.stored.byteorder == ">" else "little"
    plain: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": order}}]
    if table.codecs.kind == "blosc":
        settings = {"cname": "zstd", "clevel": 1, "shuffle": "bitshuffle", "blocksize": 0}
        return [*plain, {"name": "blosc", "configuration": settings | {"typesize": table.stored.itemsize}}]
    if table.codecs.kind == "blosc_frame":
        return [*plain, {"name": "mrczdask.blosc_frame", "configuration": {"nbytes": table.chunk_bytes}}]
    if table.codecs.kind == "hdf5":
        raise MrcFormatError(
            "gzip and shuffle of HDF5 are no codecs of Zarr v3: name it .json or .parquet",
            url=table.urls[0],
        )
    return plain


def virtual_dataset(table: VirtualTable) -> xr.Dataset:
    """The cube over VirtualiZarr's array, its labels in memory."""
    attrs = {name: plain(value) for name, value in table.attrs.items()}
    images = xr.Variable(schema.SESSION_DIMS, manifest_array(table), attrs)
    return xr.Dataset({schema.IMAGES: images}, coords=_labels(table).coords)


def _labels(table: VirtualTable) -> xr.Dataset:
    labels = {}
    for name, coord in table.coords.variables.items():
        if coord.dtype.kind in "UTO":
            names = np.array([without_secrets(str(v)) for v in coord.values.ravel()], np.dtypes.StringDType())
            labels[name] = xr.Variable(coord.dims, names.reshape(coord.shape), coord.attrs)
        else:
            labels[name] = coord.load()
    return xr.Dataset(coords=labels)


def write_icechunk(table: VirtualTable, to: str, folders: Sequence[str], options: Mapping[str, Any] | None) -> None:
    """Write a repository; a local one takes its name when it is whole."""
    ice = _icechunk(to_write=True)
    target = to if is_remote(to) else local_path(to).rstrip("/")
    beside = target if is_remote(to) else f"{target}.{os.getpid()}.part"
    dataset = virtual_dataset(table)
    config = ice.RepositoryConfig.default()
    for folder in folders:
        config.set_virtual_chunk_container(
            ice.VirtualChunkContainer(_folder_url(folder), _chunk_store(folder, options))
        )
    access = {_folder_url(folder): _access(folder, options) for folder in folders}
    repository = ice.Repository.create(
        _storage(beside, options), config, authorize_virtual_chunk_access=ice.containers_credentials(access)
    )
    session = repository.writable_session(BRANCH)
    (dataset.vz if hasattr(dataset, "vz") else dataset.virtualize).to_icechunk(session.store)
    session.commit("virtualize")
    if beside != target:
        if os.path.isdir(target):
            shutil.rmtree(target)
        os.replace(beside, target)


def open_icechunk(url: str, allow: Sequence[str], options: Mapping[str, Any] | None) -> xr.Dataset:
    """Open a repository; chunks outside it are read from allowed folders only."""
    ice = _icechunk()
    if not is_remote(url) and not os.path.isdir(local_path(url)):
        raise FileNotFoundError(url)
    storage = _storage(url if is_remote(url) else local_path(url), options)
    config = ice.Repository.fetch_config(storage)
    containers = (config.virtual_chunk_containers if config else None) or {}
    folders = tuple(map(_folder, allow))
    for prefix in containers:
        checked_url(f"{prefix}x", folders, url)
    access = {prefix: _access(prefix, options) for prefix in containers}
    repository = ice.Repository.open(storage, authorize_virtual_chunk_access=ice.containers_credentials(access))
    store = repository.readonly_session(BRANCH).store
    return xr.open_zarr(store, chunks=None, consolidated=False, zarr_format=3)


def _folder_url(url: str) -> str:
    return url.rstrip("/") + "/"


def _storage(place: str, options: Mapping[str, Any] | None) -> Any:
    ice = _icechunk()
    if not is_remote(place):
        return ice.local_filesystem_storage(os.path.abspath(place))
    if not place.startswith("s3://"):
        raise MrcFormatError("an icechunk repository lies in a local folder or in S3 here", url=place)
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    return ice.s3_storage(bucket=bucket, prefix=prefix.rstrip("/"), **_s3(options), **_keys(options))


def _chunk_store(folder: str, options: Mapping[str, Any] | None) -> Any:
    ice = _icechunk()
    if folder.startswith("s3://"):
        return ice.s3_store(**_s3(options))
    if is_remote(folder):
        raise MrcFormatError("icechunk refers to local files and S3 here: name the references .json", url=folder)
    return ice.local_filesystem_store(local_path(folder))


def _access(folder: str, options: Mapping[str, Any] | None) -> Any:
    ice = _icechunk()
    if not folder.startswith("s3://"):
        return getattr(ice.credentials, "LocalFileSystemAccess", None)
    keys = _keys(options)
    if keys.pop("anonymous", False):
        return ice.s3_anonymous_credentials()
    return ice.s3_credentials(**keys) if keys.get("access_key_id") else ice.s3_from_env_credentials()


def _s3(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Where the store is, from the options of s3fs."""
    given = dict(options or {})
    region = given.get("client_kwargs", {}).get("region_name") or given.get("region") or "us-east-1"
    endpoint = given.get("endpoint_url") or given.get("client_kwargs", {}).get("endpoint_url")
    plain = {"endpoint_url": endpoint, "allow_http": endpoint.startswith("http://")} if endpoint else {}
    return {"region": region, "force_path_style": bool(endpoint), **plain}


def _keys(options: Mapping[str, Any] | None) -> dict[str, Any]:
    given = dict(options or {})
    if given.get("anon"):
        return {"anonymous": True}
    if not given.get("key"):
        return {"from_env": True}
    found = {"access_key_id": given["key"], "secret_access_key": given["secret"], "session_token": given.get("token")}
    return {name: value for name, value in found.items() if value}


class MrcParser:
    """Parser of VirtualiZarr for MRC, MRCZ and HDF5 frames.

    Parameters
    ----------
    storage_options : mapping, optional
        For the fsspec file system by which the header and the index are read.

    Examples
    --------
    >>> import mrczdask as md
    >>> from mrczdask.io.virtual_icechunk import MrcParser
    >>> _ = md.write_mrcz(md.simulate.poisson((4, 16, 16), mean=1.0, seed=0), "movie.mrcz")
    >>> MrcParser()("movie.mrcz", registry=None).to_virtual_dataset().images.shape
    (1, 4, 16, 16)
    """

    def __init__(self, storage_options: Mapping[str, Any] | None = None):
        self._options = storage_options

    def __call__(self, url: str, registry: Any) -> ManifestStore:
        """The chunks of one file as (movie, frame, y, x)."""
        from virtualizarr.manifests import ManifestGroup, ManifestStore

        table = read_table(url, order="given", storage_options=self._options)
        group = ManifestGroup(arrays={schema.IMAGES: manifest_array(table)}, attributes={})
        return ManifestStore(group=group, registry=registry)
