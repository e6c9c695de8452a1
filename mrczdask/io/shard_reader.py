"""Pixels of Zarr arrays, read and decoded in the thread that asks for them: Zarr hands every chunk to other threads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

from mrczdask.errors import CodecError, MissingShardError, MrcFormatError
from mrczdask.io.archive_codecs import configuration_of
from mrczdask.io.movie_array import lazy_source
from mrczdask.io.shard_bytes import read_chunks
from mrczdask.io.shard_decoder import Decode, decoder
from mrczdask.io.stores import ERROR, MISSING, ArchiveStore

Region = tuple[slice, ...]


@dataclass(frozen=True)
class Layout:
    """How an array is cut: objects of the store of `outer` pixels, each of chunks of `inner`, found by an index."""

    outer: tuple[int, ...]
    inner: tuple[int, ...]
    indexed: bool
    decode: Decode

    @property
    def grid(self) -> tuple[int, ...]:
        """Chunks of an object along each axis."""
        return tuple(n // c for n, c in zip(self.outer, self.inner, strict=True))


def layout_of(array: zarr.Array[Any]) -> Layout | None:
    """The layout of an array that is decoded here; None for what is left to Zarr."""
    codecs: Sequence[Any] = array.metadata.codecs  # type: ignore[union-attr]
    sharding = codecs[0] if len(codecs) == 1 and isinstance(codecs[0], ShardingCodec) else None
    if not isinstance(array.store, ArchiveStore) or not array.ndim or (array.shards is not None and sharding is None):
        return None
    if sharding is not None:
        index = [type(one) for one in sharding.index_codecs]
        if configuration_of(sharding)["index_location"] != "end" or index != [BytesCodec, Crc32cCodec]:
            return None
    decode = decoder(codecs if sharding is None else sharding.codecs, np.dtype(array.dtype))
    return None if decode is None else Layout(array.shards or array.chunks, array.chunks, sharding is not None, decode)


class ShardArray(BackendArray):
    """A Zarr array for xarray: blocks of it are decoded here, what is indexed otherwise is left to Zarr."""

    def __init__(self, by_zarr: Any, array: zarr.Array[Any], layout: Layout):
        self._by_zarr, self._array, self._layout = by_zarr, array, layout
        self.shape, self.dtype = tuple(array.shape), np.dtype(array.dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> NDArray[Any]:
        region = _region(key.tuple, self.shape)
        if region is None or isinstance(key, indexing.VectorizedIndexer):
            return np.asarray(self._by_zarr[key])
        out = np.empty([part.stop - part.start for part in region], self.dtype)
        self.read_into(out, region)
        return out.squeeze(tuple(axis for axis, part in enumerate(key.tuple) if not isinstance(part, slice)))

    def read_into(self, out: NDArray[Any], region: Region) -> None:
        """Read a block into `out`, which has its shape."""
        spans = [range(p.start // n, -(-p.stop // n)) for p, n in zip(region, self._layout.outer, strict=True)]
        for place in product(*spans) if out.size else ():
            starts = [k * n for k, n in zip(place, self._layout.outer, strict=True)]
            inside, target = _overlap(region, starts, self._layout.outer)
            self._read_object(place, inside, out[target])

    def _read_object(self, place: Sequence[int], region: Region, out: NDArray[Any]) -> None:
        """A block of one shard."""
        layout, key = self._layout, self._key(place)
        spans = [range(p.start // n, -(-p.stop // n)) for p, n in zip(region, layout.inner, strict=True)]
        found = list(product(*spans))
        numbers = np.ravel_multi_index(tuple(np.array(found).T), layout.grid).tolist()
        entries = math.prod(layout.grid) if layout.indexed else None
        for order, chunk in read_chunks(self._store, key, numbers, entries):
            at = found[order]
            inside, target = _overlap(region, [k * n for k, n in zip(at, layout.inner, strict=True)], layout.inner)
            self._decode(chunk, inside, out[target], f"{key}: chunk {at}")

    def _decode(self, chunk: memoryview | None, inside: Region, out: NDArray[Any], name: str) -> None:
        if chunk is None:
            if self._array.attrs.get(MISSING) == ERROR:
                raise MissingShardError(f"{name} is not in the shard: it is lost", url=self._store.name)
            out[...] = self._array.fill_value
            return
        whole = out.shape == self._layout.inner and out.flags.c_contiguous
        pixels = out if whole else np.empty(self._layout.inner, self.dtype)
        try:
            self._layout.decode(chunk, pixels)
        except CodecError as error:
            raise MrcFormatError(f"{name}: {error}", url=self._store.name) from None
        if not whole:
            out[...] = pixels[inside]

    @property
    def _store(self) -> ArchiveStore:
        store = self._array.store
        assert isinstance(store, ArchiveStore)
        return store

    def _key(self, place: Sequence[int]) -> str:
        return f"{self._array.path}/{self._array.metadata.encode_chunk_key(tuple(place))}".lstrip("/")


def with_shard_readers(ds: xr.Dataset) -> xr.Dataset:
    """The same variables straight from a Zarr store, decoded here where they are stored as they are."""
    made = {name: array for name, v in ds.data_vars.items() if (array := _shard_array(v.variable))}
    lazy = {name: indexing.LazilyIndexedArray(array) for name, array in made.items()}
    return ds.assign({n: (ds[n].dims, data, ds[n].attrs, ds[n].encoding) for n, data in lazy.items()})


def _shard_array(variable: xr.Variable) -> ShardArray | None:
    """A reader for a variable that is an array of Zarr and nothing else: neither scaled nor decoded."""
    source = _innermost(variable._data)
    array = source.get_array() if hasattr(source, "get_array") else None
    layout = layout_of(array) if isinstance(array, zarr.Array) else None
    return ShardArray(source, array, layout) if layout is not None and array is not None else None


def stored_array(pixels: da.Array) -> ShardArray | None:
    """The reader behind a Dask array straight from `open_archive`, else None."""
    source = _innermost(getattr(lazy_source(pixels), "array", None))
    return source if isinstance(source, ShardArray) else None


def _innermost(data: Any) -> Any:
    """What the layers of xarray that change nothing are around."""
    while isinstance(data, indexing.MemoryCachedArray | indexing.CopyOnWriteArray):
        data = data.array
    is_whole = isinstance(data, indexing.LazilyIndexedArray) and data.shape == data.array.shape
    return data.array if is_whole else None


def _region(key: tuple[Any, ...], shape: Sequence[int]) -> Region | None:
    """A block as slices; None for steps and lists of places."""
    found = []
    for part, n in zip(key, shape, strict=True):
        if isinstance(part, int | np.integer):
            at = int(part) + n * (part < 0)
            found.append(slice(at, at + 1))
        elif isinstance(part, slice) and part.step in (None, 1):
            start, stop, _ = part.indices(n)
            found.append(slice(start, max(start, stop)))
        else:
            return None
    return tuple(found)


def _overlap(region: Region, starts: Sequence[int], sizes: Sequence[int]) -> tuple[Region, Region]:
    """Where a region meets a box: counted from the box, and from the region."""
    inside, target = [], []
    for part, at, n in zip(region, starts, sizes, strict=True):
        low, high = max(part.start, at), min(part.stop, at + n)
        inside.append(slice(low - at, high - at))
        target.append(slice(low - part.start, high - part.start))
    return tuple(inside), tuple(target)
