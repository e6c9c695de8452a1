"""Stores of Zarr of others: zip files, and stores that keep nothing but nodes and chunks, such as icechunk's."""

from __future__ import annotations

import zipfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.sync import sync
from zarr.storage import WrapperStore, ZipStore

from mrczdask.errors import MrcFormatError, MrczdaskError, StoreError

ZIP_SUFFIX: Final = ".zip"
_NODES: Final = ("zarr.json", ".zgroup", ".zarray")


def is_zip(url: str) -> bool:
    """Whether a url names an archive in a zip file."""
    return url.rstrip("/").lower().endswith(ZIP_SUFFIX)


def open_zip(url: str, *, remote: bool = False) -> Store:
    """The store inside a zip file, to be read: its root, or the one folder that was zipped with its name.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    MrcFormatError
        It is not a zip file, or is cut off.
    StoreError
        It lies in a remote store.
    """
    if remote:
        raise StoreError(f"{url}: a zip file is read from a local disk: download it, or unpack it in the store")
    try:
        store = sync(ZipStore.open(url, mode="r"))
    except zipfile.BadZipFile as error:
        raise MrcFormatError(f"not a whole zip file: {error}", url=url) from None
    return _root_of(store)


def _root_of(store: Store) -> Store:
    async def names() -> list[str]:
        return [name.rstrip("/") async for name in store.list_dir("")]

    found = sync(names())
    if len(found) != 1 or found[0] in _NODES:
        return store
    inside = _Inside(store, found[0])
    return inside if any(sync(inside.exists(name)) for name in _NODES) else store


class _Inside(WrapperStore[Store]):
    """A folder of a store as a store."""

    def __init__(self, store: Store, folder: str):
        super().__init__(store)
        self._folder = folder

    def __str__(self) -> str:
        return f"{self._store}/{self._folder}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Inside) and (self._store, self._folder) == (other._store, other._folder)

    __hash__ = None  # type: ignore[assignment]  # as every store of Zarr

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The bytes of a key."""
        return await self._store.get(self._key(key), prototype, byte_range)

    async def exists(self, key: str) -> bool:
        """Whether there is a key."""
        return await self._store.exists(self._key(key))

    async def list(self) -> AsyncIterator[str]:
        """All keys."""
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Keys below a prefix."""
        async for key in self._store.list_prefix(self._key(prefix)):
            yield key.removeprefix(f"{self._folder}/")

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names right below a prefix."""
        async for key in self._store.list_dir(self._key(prefix).rstrip("/")):
            yield key

    def _key(self, key: str) -> str:
        return f"{self._folder}/{key}"


def given_store(store: Store, *, read_only: bool) -> Store:
    """A store that somebody opened, to be read or to be written."""
    if isinstance(store, ZipStore):
        if not read_only:
            raise StoreError(f"{store.path}: a zip file is written whole, and nothing in it can be changed")
        return open_zip(str(store.path.absolute()))
    if not read_only and getattr(getattr(store, "session", None), "read_only", False):
        raise StoreError(f"{type(store).__name__}: its session is read only: give that of a writable session")
    try:
        return store.with_read_only(read_only)
    except NotImplementedError:  # a store that is one or the other
        if store.read_only and not read_only:
            raise StoreError(f"{store}: the store was opened to be read only") from None
        return store
    except ValueError as error:
        raise StoreError(f"{store}: {' '.join(str(error).split())}") from None


def keeps_journal(store: Store) -> bool:
    """Whether a store takes files besides nodes and chunks: icechunk's take none."""
    return not type(store).__module__.startswith("icechunk")


@dataclass(frozen=True)
class PassingJournal:
    """The journal of a store that keeps none: it lasts as long as the call that writes."""

    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __reduce__(self) -> Any:
        raise MrczdaskError(
            "what is written into this store by other processes would not be part of its session: write it by threads, "
            'with dask.config.set(scheduler="threads")'
        )

    def read(self, name: str) -> dict[str, Any] | None:
        """The content of a file."""
        return self.files.get(name)

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Keep a file."""
        self.files[name] = dict(content)

    def create(self, name: str, content: Mapping[str, Any]) -> bool:
        """Keep a file where there is none."""
        return self.files.setdefault(name, kept := dict(content)) is kept

    def remove(self, name: str) -> None:
        """Forget a file."""
        self.files.pop(name, None)
