"""One group of a Zarr archive as a Dataset."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import numpy as np
import xarray as xr
import zarr
from xarray.backends import ZarrStore
from zarr.core.sync import sync
from zarr.errors import ZarrUserWarning
from zarr.storage import LocalStore

from mrczdask import provenance
from mrczdask.errors import MrcFormatError
from mrczdask.io.plain_attrs import plain_attrs
from mrczdask.io.revisions import revisions
from mrczdask.io.shard_reader import with_shard_readers
from mrczdask.io.source import without_secrets
from mrczdask.io.stores import ERROR, MISSING, VERB, ArchiveStore

MAX_CHUNK_BYTES: Final = (1 << 31) - 1
"""Unpacked chunks above the limit of Blosc and numcodecs are refused before memory is asked for."""
EVERY_CHUNK: Final = {"array.write_empty_chunks": True}
"""Configuration of Zarr for all that is written here: a chunk that equals the fill value is stored as well."""
_TEXT_WARNING: Final = "The data type .FixedLengthUTF32"
"""Its form in Zarr v3 stands in the extensions of the specification; versions of zarr-python from 3.1 on have it."""
MAX_LABELS: Final = 1 << 28
"""Labels along one dim: they are read when an archive is opened."""


def open_node(store: ArchiveStore, group: str) -> zarr.Group:
    """A group of an archive; of one in a store, where requests cost, by the copied metadata if they list it."""
    if not isinstance(store.store, LocalStore):
        with suppress(FileNotFoundError, KeyError):
            root = zarr.open_group(store, mode="r", zarr_format=3)
            node = root[group] if group else root
            if isinstance(node, zarr.Group) and root.metadata.consolidated_metadata is not None:
                return node
    return zarr.open_group(store, path=group, mode="r", use_consolidated=False, zarr_format=3)


def open_group(store: ArchiveStore, group: str, *, lazy: bool = True, node: zarr.Group | None = None) -> xr.Dataset:
    """The variables over Dask arrays, whose chunks are the shards; not `lazy`: over what Dask would read."""
    node = open_node(store, group) if node is None else node
    arrays = _checked_arrays(store, node)
    ds = with_shard_readers(xr.open_dataset(ZarrStore(node, mode="r"), engine="store"))
    for variable in ds.variables.values():
        variable.attrs.pop(MISSING, None)  # how the array is stored: the store and the readers of shards heed it
        variable.attrs = plain_attrs(variable.attrs)
    ds.attrs = plain_attrs(ds.attrs)
    if not lazy:
        return ds
    chunks = {str(name): _shard_chunks(variable) for name, variable in ds.data_vars.items()}
    return in_chunks(ds, chunks, revisions(store, {name: arrays[name] for name in chunks}))


def in_chunks(ds: xr.Dataset, chunks: Mapping[str, Any], stamps: Mapping[str, str]) -> xr.Dataset:
    """Some variables over Dask arrays, named for what changes when they do."""
    return ds.assign({name: ds[name].chunk(sizes, token=stamps[name]) for name, sizes in chunks.items()})


def _checked_arrays(store: ArchiveStore, node: zarr.Group) -> dict[str, zarr.Array[Any]]:
    """The arrays; refuses metadata by which reading a label or a chunk would ask for memory that no real one needs."""
    arrays = dict(node.arrays())
    for name, array in arrays.items():
        itemsize = getattr(array.dtype, "itemsize", 1) or 1
        if math.prod(array.chunks) * itemsize > MAX_CHUNK_BYTES:
            raise MrcFormatError(f"{name}: chunks of {array.chunks} {array.dtype}: more than 2 GiB", url=store.name)
        if array.ndim == 1 and name in (array.metadata.dimension_names or ()) and array.size > MAX_LABELS:  # type: ignore[union-attr]
            raise MrcFormatError(f"{name}: {array.size} labels along one dim: the metadata are corrupt", url=store.name)
    return arrays


def _shard_chunks(variable: xr.DataArray) -> dict[Any, int]:
    sizes: Sequence[int] = variable.encoding.get("shards") or variable.encoding.get("chunks") or variable.shape
    return dict(zip(variable.dims, sizes, strict=True))


def arrays_of(store: ArchiveStore, group: str) -> dict[str, zarr.Array[Any]]:
    """The arrays that a group holds; none where there is no such group."""
    try:
        node = zarr.open_group(store, path=group, mode="r", use_consolidated=False, zarr_format=3)
    except FileNotFoundError:
        return {}
    return dict(node.arrays())


def delete_arrays(store: ArchiveStore, group: str) -> None:
    """Make room for other arrays in a group."""
    for array in arrays_of(store, group).values():
        sync(store.delete_dir(array.path))


def recorded(ds: xr.Dataset, codec: Any) -> xr.Dataset:
    """A Dataset as it is stored: without the encodings of where it was, with its record, without passwords."""
    ds = whole(ds)
    attrs = provenance.record(ds.attrs, VERB, {"codec": codec})
    ds.attrs = {k: without_secrets(v) if isinstance(v, str) else v for k, v in attrs.items()}
    return ds


def whole(ds: xr.Dataset) -> xr.Dataset:
    """A Dataset without the encodings of where it was, whose arrays say that no chunk of them may be missing."""
    ds = ds.copy()
    for variable in ds.variables.values():
        variable.encoding = {}
        variable.attrs = {**variable.attrs, MISSING: ERROR}
    return ds


def renew_consolidated(store: ArchiveStore, *, wanted: bool) -> None:
    """Copy the metadata into the root where that is wanted, or where an older copy there would tell of what was."""
    raw = sync(store.get("zarr.json"))
    if not wanted and (raw is None or not json.loads(raw.to_bytes()).get("consolidated_metadata")):
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part", ZarrUserWarning)
        warnings.filterwarnings("ignore", _TEXT_WARNING)
        zarr.consolidate_metadata(store, zarr_format=3)


@contextmanager
def writing() -> Iterator[None]:
    """A context in which arrays are created and written: each chunk is stored, and texts are of one length."""
    with zarr.config.set(EVERY_CHUNK), warnings.catch_warnings():
        warnings.filterwarnings("ignore", _TEXT_WARNING)
        yield


def with_plain_labels(ds: xr.Dataset) -> xr.Dataset:
    """Texts of one length, that of the longest, in UTF-32: every reader of Zarr by numpy has them, and Dask can tell
    their size, as it has to for ``chunks="auto"``; as texts of any length xarray reads them into Python objects.
    """
    texts = {name: _plain_texts(ds[name]) for name, v in ds.variables.items() if _is_text(v)}
    in_coords = {name: v for name, v in texts.items() if name in ds.coords}
    return ds.assign_coords(in_coords).assign({name: v for name, v in texts.items() if name not in in_coords})


def _is_text(variable: xr.Variable) -> bool:
    kind = variable.dtype.kind
    return kind in "UT" or (kind == "O" and all(isinstance(value, str) for value in variable.values.ravel()))


def _plain_texts(texts: xr.DataArray) -> xr.DataArray:
    """Without passwords and signatures of urls."""
    kept = [without_secrets(str(text)) for text in texts.values.ravel()]
    return texts.copy(data=np.array(kept, f"<U{max(map(len, kept), default=0) or 1}").reshape(texts.shape))
