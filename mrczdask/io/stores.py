"""Zarr stores that ask again where a store stumbles, and never take a lost shard for zeros."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import numpy as np
from zarr.abc.store import ByteRequest, RangeByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.core.sync import sync
from zarr.registry import register_codec
from zarr.storage import FsspecStore, LocalStore, ZipStore

from mrczdask.codecs import B3D, BloscFrame, PixelHistogram
from mrczdask.errors import MissingShardError, StoreError
from mrczdask.io.given_stores import PassingJournal, given_store, is_zip, keeps_journal, open_zip
from mrczdask.io.journal import StoreJournal
from mrczdask.io.source import TRIES, absolute, fails_in_passing, gave_up, is_remote, local_path, pause_s

T = TypeVar("T")

JOURNAL: Final = ".journal"
"""Folder of the plan and the marks, inside that of an array: readers of Zarr do not look there for nodes."""
PLAN: Final = "plan.json"
METADATA: Final = "zarr.json"
STATE: Final = "blocks.json"
"""Of a ragged table, in the journal of its pointers: the plan, the shots of each block, how many blocks are whole."""
VERB: Final = "write_archive"
_CHUNKS: Final = "/c/"
BESIDE: Final = ".replacing"
"""Group, inside the one whose arrays are replaced, in which the new ones are written."""
CREATING: Final = ".creating.lock"
"""Held in a group while it is created."""
MISSING, ERROR = "missing_chunks", "error"
"""Attribute of an array, and its value where each chunk was written: one that is missing is not the fill value."""

for _codec in (PixelHistogram, B3D, BloscFrame):  # also where the package runs from its sources: no entry points
    register_codec(_codec.codec_name, _codec)

Place = str | os.PathLike[str] | Store
"""A folder, a url, or a store of Zarr."""


class ArchiveStore(Store):
    """A store in which every request is tried again after a growing pause, a bounded number of times.

    Read only, it raises where a chunk is missing that must be there: Zarr gives the fill value for it. That is each
    chunk of an array whose attribute `missing_chunks` is "error", as all have that this package writes, and any chunk
    of an array that is itself not there any more.
    """

    supports_writes = True
    supports_deletes = True
    supports_listing = True

    def __init__(self, store: Store, name: str, *, read_only: bool | None = None):
        super().__init__(read_only=store.read_only if read_only is None else read_only)
        self.store, self.name = store, name
        self._keeps_journal = keeps_journal(store)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ArchiveStore) and self.store == other.store

    __hash__ = None  # type: ignore[assignment]  # as every store of Zarr

    def __str__(self) -> str:
        return self.name

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return "mrczdask.ArchiveStore", self.name

    def with_read_only(self, read_only: bool = False) -> ArchiveStore:
        """The same store, to be read only or written."""
        return type(self)(given_store(self.store, read_only=read_only), self.name, read_only=read_only)

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The bytes of a key."""
        wanted = prototype or default_buffer_prototype()
        found = await self._again(lambda: self._get(key, wanted, byte_range), key)
        if found is None and self.read_only and _CHUNKS in f"/{key}/":
            await self._explain(key)
        return found

    async def _get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None) -> Buffer | None:
        if not self._keeps_journal and "/." in f"/{key}":
            return None
        found = await self.store.get(key, prototype, byte_range)
        if found is not None and isinstance(byte_range, RangeByteRequest):
            asked = byte_range.end - byte_range.start
            if len(found) != asked:
                raise StoreError(f"asked for {asked} bytes from {byte_range.start} on, got {len(found)}")
        return found

    async def _explain(self, key: str) -> None:
        """Raise for a chunk that must be there; asked only where one is missing."""
        array = f"/{key}".partition(_CHUNKS)[0].lstrip("/")
        raw = await self._again(
            lambda: self.store.get(f"{array}/{METADATA}".lstrip("/"), default_buffer_prototype()), key
        )
        if raw is None:
            raise MissingShardError(
                f"the array {array or '/'} is not there any more{self._seen_from}: the archive was moved, emptied "
                "or is not mounted: open it where it is",
                url=self.name,
            )
        metadata = json.loads(raw.to_bytes())
        if metadata.get("attributes", {}).get(MISSING) == ERROR or await self._is_planned(array):
            raise MissingShardError(
                f"{key}: this shard is missing{_place_of(key, metadata)}: it is lost or not yet written. The verb that "
                "wrote the archive (write_archive, process_session), called again with resume=True, writes it",
                url=self.name,
            )

    @property
    def _seen_from(self) -> str:
        return f", seen from {socket.gethostname()}" if isinstance(self.store, LocalStore) else ""

    async def _is_planned(self, array: str) -> bool:
        """Whether `write_archive` of an earlier version wrote the array, which marked it in a hidden file alone."""
        raw = await self.store.get(f"{array}/{JOURNAL}/{PLAN}".lstrip("/"), default_buffer_prototype())
        return raw is not None and json.loads(raw.to_bytes()).get("verb") == VERB

    async def set(self, key: str, value: Buffer) -> None:
        """Write a key whole."""
        await self._again(lambda: self.store.set(key, value), key)

    async def delete(self, key: str) -> None:
        """Remove a key."""
        await self._again(lambda: self.store.delete(key), key)

    async def delete_dir(self, prefix: str) -> None:
        """Remove all keys below a prefix."""
        await self._again(lambda: self.store.delete_dir(prefix), prefix)

    async def exists(self, key: str) -> bool:
        """Whether there is a key."""
        return await self._again(lambda: self.store.exists(key), key)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Several ranges of several keys."""
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def list(self) -> AsyncIterator[str]:
        """All keys."""
        for key in await self._listed(self.store.list, ""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Keys below a prefix."""
        node = prefix if self._keeps_journal else re.split(r"/c/|/\.", f"/{prefix}")[0].lstrip("/")
        for key in await self._listed(lambda: self.store.list_prefix(node), prefix):
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names right below a prefix, without those by which a group is created or replaced."""
        for key in await self._listed(lambda: self.store.list_dir(prefix), prefix):
            if not key.startswith((BESIDE, CREATING)):
                yield key

    async def _listed(self, start: Callable[[], AsyncIterator[str]], prefix: str) -> Sequence[str]:
        async def collect() -> Sequence[str]:
            return [key async for key in start()]

        return await self._again(collect, prefix)

    async def _again(self, call: Callable[[], Awaitable[T]], key: str) -> T:
        for attempt in range(TRIES):
            try:
                return await call()
            except Exception as error:
                if not fails_in_passing(error):
                    raise
                if attempt == TRIES - 1:
                    raise gave_up(error, f"{self.name}/{key}") from None
                await asyncio.sleep(pause_s(attempt))
        raise AssertionError("unreachable")


class _WholeStore(ArchiveStore):
    """A store of arrays that are written whole: every chunk that is missing was lost."""

    async def _explain(self, key: str) -> None:
        raise MissingShardError(f"{key}: this chunk is missing: it is lost", url=self.name)


def whole_store(url: str, storage_options: Mapping[str, Any] | None = None) -> ArchiveStore:
    """A store to read, in which a chunk that is missing is an error."""
    one = open_store(url, storage_options, read_only=True)
    return _WholeStore(one.store, one.name)


def open_store(place: Place, storage_options: Mapping[str, Any] | None = None, *, read_only: bool) -> ArchiveStore:
    """The store at a place, which need not be there yet."""
    if isinstance(place, Store):
        inner = place.store if isinstance(place, ArchiveStore) else place
        return ArchiveStore(given_store(inner, read_only=read_only), name_of(place), read_only=read_only)
    url = os.fspath(place)
    if is_zip(url):
        where = url if is_remote(url) else absolute(url)
        return ArchiveStore(open_zip(where, remote=is_remote(url)), where)
    if is_remote(url):
        options = dict(storage_options or {})
        return ArchiveStore(FsspecStore.from_url(url, storage_options=options, read_only=read_only), url.rstrip("/"))
    url = absolute(url)  # a task reads it from another folder than this one
    return ArchiveStore(LocalStore(local_path(url), read_only=read_only), url)


def _place_of(key: str, metadata: Mapping[str, Any]) -> str:
    """Where a chunk lies in its array, as messages say it: " (movie 1, frame 0 to 5)"."""
    names = metadata.get("dimension_names") or ()
    step = metadata.get("chunk_grid", {}).get("configuration", {}).get("chunk_shape") or ()
    at = key.rpartition(_CHUNKS)[2].split("/")
    if not len(names) == len(step) == len(at) == len(metadata["shape"]) or not all(part.isdigit() for part in at):
        return ""
    spans = [(int(k) * n, min((int(k) + 1) * n, size)) for k, n, size in zip(at, step, metadata["shape"], strict=True)]
    cut = [(name, span) for name, span, size in zip(names, spans, metadata["shape"], strict=True) if span != (0, size)]
    said = [f"{name} {first}" + (f" to {stop - 1}" if stop - first > 1 else "") for name, (first, stop) in cut]
    return f" ({', '.join(said)})" if said else ""


def list_dir(store: Store, folder: str) -> list[str]:
    """The names right below a folder of a store."""

    async def listed() -> list[str]:
        return [name async for name in store.list_dir(folder)]

    return sync(listed())


def delete_dir(store: Store, folder: str) -> None:
    """Delete all below a folder of a store."""
    sync(store.delete_dir(folder))


def stored_places(array: Any) -> set[tuple[int, ...]]:
    """The places in the grid of an array of Zarr v3 whose chunks, or shards, are stored."""
    prefix = f"{array.path}/c".lstrip("/")

    async def listed() -> Sequence[str]:
        return [key.removeprefix(prefix).strip("/") async for key in array.store.list_prefix(f"{prefix}/")]

    if not array.ndim:
        return {()} if sync(array.store.exists(prefix)) else set()
    if not sync(_lists(array.store, f"{array.path}/".lstrip("/"))):  # a web server: each is asked for by name

        async def asked() -> set[tuple[int, ...]]:
            places = all_places(array)
            keys = [f"{array.path}/{array.metadata.encode_chunk_key(place)}".lstrip("/") for place in places]
            there = await asyncio.gather(*map(array.store.exists, keys))
            return {place for place, found in zip(places, there, strict=True) if found}

        return sync(asked())
    return {tuple(map(int, parts)) for key in sync(listed()) if all(map(str.isdigit, parts := key.split("/")))}


async def _lists(store: Store, prefix: str) -> bool:
    """Whether a store tells what is below a prefix, of which something is known to be there."""
    try:
        async for _ in store.list_prefix(prefix):
            return True
    except (OSError, NotImplementedError):
        return False
    return False


def all_places(array: Any) -> list[tuple[int, ...]]:
    """The places in the grid of an array, stored or not."""
    steps = array.shards or array.chunks
    return list(np.ndindex(*(-(-n // step) for n, step in zip(array.shape, steps, strict=True))))


def name_of(place: Place) -> str:
    """A place as messages name it."""
    if isinstance(place, Store):
        if isinstance(place, ZipStore):
            return str(place.path.absolute())
        return place.name if isinstance(place, ArchiveStore) else f"{type(place).__name__} given"
    return os.fspath(place)


class ZarrJournal:
    """A journal in a store of Zarr; see `Journal`."""

    def __init__(self, store: ArchiveStore, folder: str):
        self._store, self._folder = store, folder.strip("/")

    def read(self, name: str) -> dict[str, Any] | None:
        """The content of a file, or None where there is none or it is torn."""
        raw: Any = sync(self._store.get(self._key(name)))
        try:
            content = None if raw is None else json.loads(raw.to_bytes())
        except ValueError:
            return None
        return content if isinstance(content, dict) else None

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a file, in place of an old one."""
        sync(self._store.set(self._key(name), json_buffer(content)))

    def create(self, name: str, content: Mapping[str, Any]) -> bool:
        """Write a file where there is none; the store does not tell whose it is, its content does."""
        sync(self._store.store.set_if_not_exists(self._key(name), json_buffer(content)))
        return self.read(name) == dict(content)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        sync(self._store.delete(self._key(name)))

    def _key(self, name: str) -> str:
        return f"{self._folder}/{name}".lstrip("/")


def json_buffer(content: Mapping[str, Any]) -> Buffer:
    """The bytes of a small JSON file as stores take them."""
    return default_buffer_prototype().buffer.from_bytes(json.dumps(content).encode())


def journal_of(
    place: Place, group: str, storage_options: Mapping[str, Any] | None
) -> StoreJournal | ZarrJournal | PassingJournal:
    """The journal of a group; its names begin with that of an array."""
    if isinstance(place, Store) and not keeps_journal(place):
        return PassingJournal()
    if isinstance(place, Store):
        return ZarrJournal(open_store(place, read_only=False), group)
    return StoreJournal(
        "/".join(part for part in (absolute(os.fspath(place)).rstrip("/"), group) if part), storage_options or {}
    )
