"""Marks of what was last written into the arrays of an archive: another one, other pixels."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

import zarr
from zarr.core.sync import sync
from zarr.storage import LocalStore

from mrczdask.execution.resume import Journal
from mrczdask.io.stores import JOURNAL, ArchiveStore

REVISION: Final = "revision.json"
"""In the journal of an array; drawn anew by each call that writes into it."""
_METADATA: Final = ("zarr.json", ".zarray")
"""Of an array of Zarr v3 and v2."""


def renew(journal: Journal, arrays: Iterable[str]) -> None:
    """Mark arrays of a group as written just now."""
    drawn = {"id": secrets.token_hex(16)}
    for name in arrays:
        journal.write(f"{name}/{JOURNAL}/{REVISION}", drawn)


@contextmanager
def changing(journal: Journal, arrays: Iterable[str]) -> Iterator[None]:
    """Mark arrays before and after they are written: a writer that is killed leaves another mark than it found."""
    names = list(arrays)
    renew(journal, names)
    try:
        yield
    finally:
        renew(journal, names)


def revisions(store: ArchiveStore, arrays: Mapping[str, zarr.Array[Any]]) -> dict[str, str]:
    """By name what changes when an array does: its place, its metadata and its mark.

    Without a mark, as other programs leave it, only the metadata tell, and on a local disk when they were written.
    """

    async def read(array: zarr.Array[Any]) -> str:
        raw = await store.get(f"{array.path}/{JOURNAL}/{REVISION}".lstrip("/"))
        return _written(store, array.path) if raw is None else raw.to_bytes().decode(errors="replace")

    async def read_all() -> list[str]:
        return list(await asyncio.gather(*map(read, arrays.values())))

    marks = dict(zip(arrays, sync(read_all()), strict=True))
    return {name: f"{store.name} {array.path} {_described(array)} {marks[name]}" for name, array in arrays.items()}


def _described(array: zarr.Array[Any]) -> str:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The data type")  # of texts of one length, when they are described
        return json.dumps(array.metadata.to_dict(), sort_keys=True, default=str)


def _written(store: ArchiveStore, path: str) -> str:
    inner = store.store
    if isinstance(inner, LocalStore):
        for name in _METADATA:
            with suppress(OSError):
                return str(os.stat(inner.root / path / name).st_mtime_ns)
    packed: Any = getattr(getattr(inner, "_store", inner), "path", None)  # of a zip file
    if isinstance(packed, os.PathLike):
        with suppress(OSError):
            return str(os.stat(packed).st_mtime_ns)
    return str(inner)
