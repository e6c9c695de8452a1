"""The bytes of chunks inside a shard, by as few requests as there can be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from zarr.abc.store import ByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore

from mrczdask.errors import MrcFormatError
from mrczdask.formats.blosc_frame import MAX_FRAME_BYTES
from mrczdask.formats.frame_index import footer_bytes, parse_footer
from mrczdask.io.source import open_source
from mrczdask.io.stores import ArchiveStore

RUN_BYTES: Final = 4 << 20
"""Chunks side by side in a local shard are read together up to this size, and decoded while they are in the cache."""
_ABSENT: Final = 2**64 - 1
"""Offset and length of a chunk that was not written."""

Chunks = Iterator[tuple[int, memoryview | None]]
"""(position in the numbers asked for, bytes); None for chunks that were not written."""


@dataclass(frozen=True)
class _Run:
    """Chunks side by side: their positions, and where their bytes begin and end."""

    orders: Sequence[int]
    start: int
    stop: int


def read_chunks(store: ArchiveStore, key: str, numbers: Sequence[int], entries: int | None) -> Chunks:
    """The chunks of these numbers of a shard with so many `entries`; where they are None, the object is one chunk.

    A whole shard is one request to an object store; else the index is one, and chunks side by side are one.

    Raises
    ------
    MrcFormatError
        The index is damaged, or the shard missing where `write_archive` should have written it.
    """
    if type(store.store) is LocalStore:
        try:
            yield from _of_file(str(store.store.root / key), numbers, entries, f"{store.name}/{key}")
            return
        except FileNotFoundError:  # the store knows whether it should be there
            pass
    if entries is None or len(numbers) == entries:
        yield from _of_object(_get(store, key), numbers, entries, f"{store.name}/{key}")
        return
    tail = _get(store, key, SuffixByteRequest(footer_bytes(entries)))
    if tail is None:
        yield from _unwritten(numbers)
    else:
        yield from _indexed(tail, lambda runs: _ranges(store, key, runs), numbers, entries, f"{store.name}/{key}")


def _of_file(path: str, numbers: Sequence[int], entries: int | None, name: str) -> Chunks:
    with open_source(path) as source:
        if entries is None:
            yield 0, memoryview(source.read_at(0, source.size))
            return
        tail = source.read_at(max(source.size - footer_bytes(entries), 0), footer_bytes(entries))

        def read(runs: Sequence[_Run]) -> Iterator[bytes]:
            return (source.read_at(run.start, run.stop - run.start) for run in runs)

        yield from _indexed(tail, read, numbers, entries, name, RUN_BYTES)


def _of_object(raw: bytes | None, numbers: Sequence[int], entries: int | None, name: str) -> Chunks:
    if raw is None:
        yield from _unwritten(numbers)
    elif entries is None:
        yield 0, memoryview(raw)
    else:
        view = memoryview(raw)
        tail = raw[-footer_bytes(entries) :]
        yield from _indexed(tail, lambda runs: [view[run.start : run.stop] for run in runs], numbers, entries, name)


def _unwritten(numbers: Sequence[int]) -> Chunks:
    return ((order, None) for order in range(len(numbers)))


def _indexed(
    tail: bytes,
    read: Callable[[Sequence[_Run]], Iterable[bytes | memoryview]],
    numbers: Sequence[int],
    entries: int,
    name: str,
    limit: int = MAX_FRAME_BYTES,
) -> Chunks:
    """Look the chunks up in the index at the end of a shard and read them."""
    table = parse_footer(tail) if len(tail) == footer_bytes(entries) else None
    if table is None:
        raise MrcFormatError("the checksum of the index is wrong: the shard is damaged or truncated", url=name)
    starts, sizes = (values[np.asarray(numbers)].tolist() for values in (table.offsets, table.lengths))
    there = sorted((k for k, size in enumerate(sizes) if size != _ABSENT), key=lambda k: starts[k])
    if any(sizes[k] > MAX_FRAME_BYTES for k in there):
        raise MrcFormatError("a chunk of more than 2 GiB: the index of the shard is corrupt", url=name)
    runs = _runs(there, starts, sizes, limit)
    for run, raw in zip(runs, read(runs), strict=True):
        if len(raw) < run.stop - run.start:
            raise MrcFormatError(f"{len(raw)} bytes are left of {run.stop - run.start}: it is truncated", url=name)
        view = memoryview(raw)
        for k in run.orders:
            yield k, view[starts[k] - run.start : starts[k] - run.start + sizes[k]]
    yield from ((k, None) for k, size in enumerate(sizes) if size == _ABSENT)


def _runs(there: Iterable[int], starts: Sequence[int], sizes: Sequence[int], limit: int) -> list[_Run]:
    runs: list[_Run] = []
    for k in there:
        stop = starts[k] + sizes[k]
        if runs and runs[-1].stop == starts[k] and stop - runs[-1].start <= limit:
            runs[-1] = _Run([*runs[-1].orders, k], runs[-1].start, stop)
        else:
            runs.append(_Run([k], starts[k], stop))
    return runs


def _get(store: ArchiveStore, key: str, part: ByteRequest | None = None) -> bytes | None:
    found: Any = sync(store.get(key, default_buffer_prototype(), part))
    return None if found is None else found.to_bytes()


def _ranges(store: ArchiveStore, key: str, runs: Sequence[_Run]) -> list[bytes]:
    wanted = [(key, RangeByteRequest(run.start, run.stop)) for run in runs]
    parts: Any = sync(store.get_partial_values(default_buffer_prototype(), wanted))
    return [b"" if part is None else part.to_bytes() for part in parts]
