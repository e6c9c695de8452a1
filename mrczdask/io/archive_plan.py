"""What a group of an archive is to hold, cut into regions of one shard each, and what of it is there already."""

from __future__ import annotations

import glob
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from dask.base import tokenize
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from mrczdask.errors import StoreError
from mrczdask.execution.resume import Region, digest
from mrczdask.execution.schedulers import check_workers_see
from mrczdask.io.archive_codecs import encoding_of
from mrczdask.io.archive_group import arrays_of, delete_arrays, recorded, writing
from mrczdask.io.movie_array import MovieArray
from mrczdask.io.revisions import changing, renew
from mrczdask.io.shard_encoder import encode_shard
from mrczdask.io.source import absolute, is_remote, without_secrets
from mrczdask.io.stores import (
    JOURNAL,
    METADATA,
    PLAN,
    VERB,
    ArchiveStore,
    Place,
    journal_of,
    name_of,
    open_store,
    stored_places,
)

FORMAT: Final = 1
"""Changes when the bytes of an archive would: one begun by another version is then not gone on with."""
_NUMBERS: Final = "biufcmM"


@dataclass(frozen=True)
class GroupPlan:
    """The variables of a group; those over Dask arrays are written region by region."""

    dataset: xr.Dataset
    place: Place
    group: str
    codec: Any
    sources: Mapping[str, MovieArray]
    """The readers of the variables that are movies straight from their files."""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The group as messages name it."""
        return without_secrets("/".join(part for part in (name_of(self.place).rstrip("/"), self.group) if part))

    @cached_property
    def lazy(self) -> dict[str, xr.DataArray]:
        """The arrays written region by region, in the order of their names."""
        found = {str(n): v for n, v in self.dataset.data_vars.items() if isinstance(v.data, da.Array)}
        return dict(sorted(found.items()))

    @cached_property
    def journal(self) -> Any:
        return journal_of(self.place, self.group, self.options)

    def store(self, *, read_only: bool) -> ArchiveStore:
        return open_store(self.place, self.options, read_only=read_only)

    @cached_property
    def content(self) -> dict[str, Any]:
        """What must be the same to go on; `regions` see to changed pixels of files."""
        codec = self.codec if isinstance(self.codec, str) else str(self.codec.to_dict())
        plan: dict[str, Any] = {"verb": VERB, "format": FORMAT, "codec": codec}
        for name, v in self.lazy.items():
            plan |= {f"{name}.dims": [str(dim) for dim in v.dims], f"{name}.shape": list(v.shape)}
            plan |= {f"{name}.dtype": str(v.dtype), f"{name}.shards": list(v.data.chunksize)}
            if name not in self.sources:
                plan[f"{name}.input"] = v.data.name
        rest = {str(n): v for n, v in self.dataset.variables.items() if n not in self.lazy}
        return plan | {f"{name}.values": digest(str(v.dims), _plain(v)) for name, v in rest.items()}

    def stored(self) -> dict[str, Any] | None:
        """The plan in the store, where the group was created whole."""
        return self.journal.read(_in(next(iter(self.lazy)), PLAN)) if self.lazy else None

    def foreign(self) -> str | None:
        """An array in the group that another program, or another call, has written."""
        if not self.lazy:
            return None
        store = self.store(read_only=True)
        for name, array in arrays_of(store, self.group).items():
            known = name in self.dataset.variables
            if not known or (name in self.lazy and _has_chunks(store, array.path)):
                return f"the array {name!r}"
        return None

    def create(self) -> None:
        """Arrays without pixels, coordinates whole; the plan last: where it is, all is."""
        store = self.store(read_only=False)
        delete_arrays(store, self.group)
        parts = self.group.split("/")
        for depth in range(len(parts) + 1):
            zarr.open_group(store, path="/".join(parts[:depth]), mode="a", zarr_format=3, use_consolidated=False)
        encoding = {name: encoding_of(v, self.codec) for name, v in self.lazy.items()}
        ds = recorded(self.dataset, self.content["codec"])
        with writing():
            ds.to_zarr(
                store,
                group=self.group or None,
                mode="a",
                zarr_format=3,
                consolidated=False,
                compute=False,
                encoding=encoding,
            )
        renew(self.journal, map(str, self.dataset.data_vars))
        for name in reversed(self.lazy):
            self.journal.write(_in(name, PLAN), self.content)

    def check_workers(self) -> None:
        """Raise, before pixels are computed, where a worker does not see the archive or the movies on a local disk."""
        readers = (reader for source in self.sources.values() for reader in source.readers)
        urls = [str(url) for reader in readers if (url := getattr(reader, "url", None)) and not is_remote(str(url))]
        folder = [] if self._folder is None else [self._folder]
        check_workers_see([*folder, *(absolute(url) for url in urls)])

    def changing(self) -> AbstractContextManager[None]:
        """A context in which regions are written."""
        return changing(self.journal, self.lazy)

    def regions(self, wanted: Mapping[str, slice] | None) -> list[Region]:
        """A region a Dask chunk: computed and written as one shard."""
        with writing():
            root = zarr.open_group(
                self.store(read_only=False), path=self.group, mode="r+", use_consolidated=False, zarr_format=3
            )
            targets: dict[str, Any] = {name: root[name] for name in self.lazy}
        found = []
        for name, variable in self.lazy.items():
            there = stored_places(targets[name])
            for at, key, block in _blocks(variable, wanted):
                region = _in(name, ".".join(map(str, at)))
                inputs = _inputs(variable, self.sources.get(name), key)
                arguments = (block, targets[name], key, self._folder)
                found.append(Region(region, inputs, write_shard, arguments, lost=at not in there))
        return found

    @property
    def _folder(self) -> str | None:
        """Where the group lies on a local disk."""
        if isinstance(self.place, Store) or is_remote(os.fspath(self.place)):
            return None
        return os.path.join(absolute(os.fspath(self.place)), self.group).rstrip("/")


def _in(array: str, name: str) -> str:
    return f"{array}/{JOURNAL}/{name}"


def _plain(variable: xr.Variable) -> Any:
    values = variable.values
    return values if values.dtype.kind in _NUMBERS else [str(value) for value in values.ravel()]


def _has_chunks(store: ArchiveStore, path: str) -> bool:
    async def first() -> bool:
        async for _ in store.list_prefix(f"{path}/c/"):
            return True
        return False

    return bool(sync(first()))


def _blocks(
    variable: xr.DataArray, wanted: Mapping[str, slice] | None
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...], Any]]:
    """(place in the grid, region, delayed block) of the Dask chunks asked for."""
    edges = [np.concatenate([[0], np.cumsum(sizes)]).astype(int).tolist() for sizes in variable.data.chunks]
    spans = [_span(dim, edge, wanted) for dim, edge in zip(variable.dims, edges, strict=True)]
    blocks = variable.data.to_delayed()
    for offset in np.ndindex(*(len(span) for span in spans)):
        at = tuple(span[k] for span, k in zip(spans, offset, strict=True))
        yield at, tuple(slice(edge[k], edge[k + 1]) for edge, k in zip(edges, at, strict=True)), blocks[at]


def _span(dim: Any, edges: list[int], wanted: Mapping[str, slice] | None) -> range:
    """Numbers of the shards along a dim that a region asks for, which has to begin and end with a shard."""
    if not wanted or dim not in wanted:
        return range(len(edges) - 1)
    start, stop, step = wanted[dim].indices(edges[-1])
    if step != 1 or start >= stop or start not in edges or stop not in edges:
        size = edges[1]
        raise ValueError(
            f"region={{{dim!r}: slice({start}, {stop})}}: a region is whole shards, "
            f"of {size} along {dim!r}: give multiples of it up to {edges[-1]}"
        )
    return range(edges.index(start), edges.index(stop))


def _inputs(variable: xr.DataArray, source: MovieArray | None, key: tuple[slice, ...]) -> str:
    """What goes into a region: the files of its movies as they are now, or the token of the graph."""
    if source is None:
        return digest(variable.data.name)
    readers = source.readers[key[0]] if source.session else source.readers
    return digest([_stamp(reader) for reader in readers], str(variable.dtype))


def _stamp(reader: Any) -> list[Any]:
    """Without the options of the store: credentials change, the file does not."""
    stamp = getattr(reader, "stamp", "") or tokenize(reader)
    return [without_secrets(str(reader.url)), list(reader.shape), str(reader.dtype), stamp]


def write_shard(block: Any, target: zarr.Array[Any], region: tuple[slice, ...], folder: str | None) -> None:
    """Write a shard whole; what a killed writer left beside it goes."""
    steps = target.shards or target.chunks
    place = tuple(part.start // step for part, step in zip(region, steps, strict=True))
    name = None if folder is None else os.path.join(folder, target.basename, "c", *map(str, place))
    if folder is not None and not os.path.exists(os.path.join(folder, target.basename, METADATA)):
        host = socket.gethostname()
        raise StoreError(f"{folder}: {host} does not see this archive: give a path on a file system that is shared")
    if name is not None:
        for left in glob.glob(f"{glob.escape(name)}.*.partial"):
            os.unlink(left)
    shard = encode_shard(np.asarray(block), target)
    if shard is None:
        target[region] = block
    elif name is not None:
        _put(name, shard)
    else:
        key = target.metadata.encode_chunk_key(place)
        sync((target.store_path / key).set(default_buffer_prototype().buffer.from_bytes(b"".join(shard))))


def _put(path: str, parts: Iterator[bytes]) -> None:
    """A local file that appears whole, written in this thread as its parts are made: Zarr's store takes one buffer."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    beside = f"{path}.{secrets.token_hex(8)}.partial"
    try:
        with open(beside, "xb") as file:
            file.writelines(parts)
        os.replace(beside, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(beside)
        raise
