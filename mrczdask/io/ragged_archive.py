"""Ragged tables in Zarr archives: sparse frames and peaks, appended block by block and gone on with after a kill."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from dask.base import tokenize
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from mrczdask import schema
from mrczdask.errors import MrcFormatError, ResumeError
from mrczdask.execution.progress import Progress, track
from mrczdask.execution.regions import run_regions
from mrczdask.execution.resume import digest, region_lock
from mrczdask.io.archive_group import (
    EVERY_CHUNK,
    arrays_of,
    delete_arrays,
    in_chunks,
    open_group,
    recorded,
    with_plain_labels,
    writing,
)
from mrczdask.io.peak_table import PEAKS
from mrczdask.io.ragged import SHOT_EDGE, Block, Layout, Ragged, layer_of, split
from mrczdask.io.revisions import changing, revisions
from mrczdask.io.source import without_secrets
from mrczdask.io.sparse_blocks import FRAMES_TOKEN
from mrczdask.io.sparse_table import sparse_layout
from mrczdask.io.stores import (
    ERROR,
    JOURNAL,
    MISSING,
    STATE,
    VERB,
    ArchiveStore,
    Place,
    ZarrJournal,
    journal_of,
    name_of,
    open_store,
)

LAYOUT: Final = "ragged_layout"
"""Attribute of a group that holds a ragged table: the names of its columns."""
ROWS: Final = 1 << 18
SHOTS: Final = 512
"""Rows and shots of a Zarr chunk, and shots of a block of a table in memory."""
_FORMAT: Final = 1


def as_ragged(obj: Any) -> Ragged | None:
    """A ragged table, lazy or as the Dataset that computing it gives; None for anything else."""
    if isinstance(obj, Ragged):
        return obj
    if not isinstance(obj, xr.Dataset):
        return None
    if PEAKS.pointer in obj and all(name in obj for name in PEAKS.columns):
        return split(obj, PEAKS, SHOTS)
    if all(name in obj for name in ("frame_ptr", "index", "intensity")) and SHOT_EDGE in obj["frame_ptr"].dims:
        return split(obj, sparse_layout(obj["intensity"].dtype), SHOTS)
    return None


@dataclass(frozen=True)
class RaggedPlan:
    """A table to be written into a group of an archive, its blocks in order."""

    table: Ragged
    place: Place
    group: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The group as messages name it."""
        return without_secrets("/".join(part for part in (name_of(self.place).rstrip("/"), self.group) if part))

    @property
    def layout(self) -> Layout:
        return self.table.layout

    @cached_property
    def per_shot(self) -> list[str]:
        """Variables along shots that are computed with the blocks, besides the count."""
        header = self.table.header
        lazy = [str(n) for n, v in header.data_vars.items() if v.dims[:1] == (schema.SHOT,) and n != self.layout.count]
        return sorted(lazy)

    @property
    def _counted(self) -> list[str]:
        return [*self.per_shot, self.layout.count]

    @cached_property
    def content(self) -> dict[str, Any]:
        """What must be the same to go on."""
        header = self.table.header.drop_vars(self._counted, errors="ignore")
        settings = {name: value for name, value in header.attrs.items() if name not in ("history", "provenance")}
        return {
            "verb": VERB,
            "format": _FORMAT,
            "columns": {name: np.dtype(dtype).str for name, dtype in self.layout.columns.items()},
            "shots": len(self.table),
            "blocks": digest(list(self.table.chunks)),
            "input": self.table.header.encoding.get(FRAMES_TOKEN) or self.table.block_layer.name,
            "labels": digest(*(np.asarray(v.values).astype(str) for v in header.variables.values())),
            "parameters": digest(settings),
        }

    @property
    def _state(self) -> str:
        return f"{self.layout.pointer}/{JOURNAL}/{STATE}"

    def stored(self) -> dict[str, Any] | None:
        """The plan in the store, where the group was created whole."""
        state = journal_of(self.place, self.group, self.options).read(self._state)
        return None if state is None else state["plan"]

    def write(self, progress: Progress) -> None:
        """Write the blocks that are not there, under a lock.

        Raises
        ------
        ResumeError
            Another process writes the table.
        """
        journal = journal_of(self.place, self.group, self.options)
        with region_lock(journal, f"{self._state}.lock") as mine:
            if not mine:
                raise ResumeError(f"{self.name}: another process writes this table: wait for it")
            stored = journal.read(self._state)
            if stored is None:
                raise ResumeError(f"{self.name}: another process replaced this table: call again")
            with track(progress, len(self.table.chunks), self.name.rsplit("/", 1)[-1]) as advance:
                for _ in range(stored["done"]):
                    advance()
                if stored["done"] < len(self.table.chunks):
                    with changing(journal, (*self.layout.columns, self.layout.pointer, *self._counted)):
                        self._append(journal, stored, advance)

    def foreign(self) -> str | None:
        """An array in the group that another program, or another call, has written."""
        arrays = arrays_of(open_store(self.place, self.options, read_only=True), self.group)
        ours = {*map(str, self.table.header.variables), self.layout.pointer, self.layout.count, *self.layout.columns}
        for name, array in arrays.items():
            if name not in ours or (name in self.layout.columns and array.shape != (0,)):
                return f"the array {name!r}"
        return None

    def create(self) -> None:
        """What is known beforehand whole, and the arrays of the blocks, empty; the plan last."""
        self._create_arrays()
        state = {"plan": self.content, "shots": list(self.table.chunks), "done": 0}
        journal_of(self.place, self.group, self.options).write(self._state, state)

    def _create_arrays(self) -> None:
        store = open_store(self.place, self.options, read_only=False)
        delete_arrays(store, self.group)
        table, layout, n = self.table, self.layout, len(self.table)
        fixed = with_plain_labels(table.header.drop_vars(self._counted, errors="ignore").load())
        fixed = recorded(fixed, "zstd")
        columns = {name: np.dtype(dtype).str for name, dtype in layout.columns.items()}
        names = {"row": layout.row, "pointer": layout.pointer, "count": layout.count}
        fixed.attrs[LAYOUT] = names | {"columns": columns}
        with writing():
            fixed.to_zarr(store, group=self.group or None, mode="a", zarr_format=3, consolidated=False)
        self._array(store, layout.pointer, (n + 1,), "u8", [SHOT_EDGE])
        self._array(store, layout.count, (n,), "i8", [schema.SHOT])
        for name in self.per_shot:
            v = table.header[name]
            self._array(store, name, v.shape, v.dtype, list(map(str, v.dims)), dict(v.attrs))
        for name, dtype in columns.items():
            self._array(store, name, (0,), dtype, [layout.row])

    def _array(
        self, store: ArchiveStore, name: str, shape: Any, dtype: Any, dims: list[str], attrs: Any = None
    ) -> None:
        chunk = ROWS if dims[0] == self.layout.row else min(SHOTS, max(shape[0], 1))
        zarr.create_array(
            store,
            name=f"{self.group}/{name}".lstrip("/"),
            shape=shape,
            chunks=(chunk, *(max(size, 1) for size in shape[1:])),
            dtype=dtype,
            compressors=(BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"), Crc32cCodec()),
            dimension_names=dims,
            attributes={**(attrs or {}), MISSING: ERROR},
            fill_value=0,
            config={"write_empty_chunks": True},
        )

    def _append(self, journal: Any, stored: dict[str, Any], advance: Any) -> None:
        layout = self.layout
        edges = np.cumsum([0, *self.table.chunks]).tolist()
        wanted = list(enumerate(self.table.pieces(*self.per_shot)))[stored["done"] :]
        with zarr.config.set(EVERY_CHUNK):
            store = open_store(self.place, self.options, read_only=False)
            root = zarr.open_group(store, path=self.group, mode="r+", use_consolidated=False, zarr_format=3)
            arrays: dict[str, Any] = dict(root.arrays())
            rows = int(arrays[layout.pointer][edges[stored["done"]]])
            for name in layout.columns:  # what a killed process wrote of the next block goes
                arrays[name].resize((rows,))
            for k, piece in run_regions(wanted, on_done=advance):
                block, per_shot = piece.block, piece.rows
                span, n = slice(edges[k], edges[k + 1]), int(block.counts.sum())
                for name in layout.columns if n else ():
                    arrays[name].resize((rows + n,))
                    arrays[name][rows:] = block.columns[name]
                known = per_shot | {layout.count: block.counts}
                for name in self._counted if span.stop > span.start else ():
                    arrays[name][span] = known[name]
                arrays[layout.pointer][span.start : span.stop + 1] = block.pointer + np.uint64(rows)
                rows += n
                journal.write(self._state, stored | {"done": k + 1})


def holds_ragged(store: ArchiveStore, group: str) -> bool:
    """Whether a group is a ragged table."""
    return LAYOUT in zarr.open_group(store, path=group, mode="r", use_consolidated=False, zarr_format=3).attrs


def open_ragged(place: Place, group: str, options: Mapping[str, Any] | None = None) -> Ragged:
    """The table in a group of an archive, lazy, in the blocks in which it was written.

    Raises
    ------
    MrcFormatError
        It is not whole, or its pointers lead nowhere.
    """
    store = open_store(place, options, read_only=True)
    node = zarr.open_group(store, path=group, mode="r", use_consolidated=False, zarr_format=3)
    url = f"{store.name.rstrip('/')}/{group}".rstrip("/")
    try:
        said: Any = node.attrs[LAYOUT]
        columns = {name: np.dtype(dtype) for name, dtype in said["columns"].items()}
        layout = Layout(said["row"], said["pointer"], said["count"], columns)
        arrays: dict[str, Any] = {name: node[name] for name in (layout.pointer, *columns)}
    except (KeyError, TypeError, AttributeError):
        raise MrcFormatError("the group holds no ragged table, or a part of it is lost", url=url) from None
    state = ZarrJournal(store, group).read(f"{layout.pointer}/{JOURNAL}/{STATE}") or {}
    sizes = [int(n) for n in state.get("shots", [arrays[layout.pointer].shape[0] - 1])]
    if state.get("done", len(sizes)) != len(sizes):
        raise MrcFormatError(
            f"{state['done']} of {len(sizes)} blocks are written: write_archive(..., resume=True) goes on", url=url
        )
    pointer = np.asarray(arrays[layout.pointer][...]).astype(np.int64)
    stored = min(int(arrays[name].shape[0]) for name in columns)
    if sum(sizes) != pointer.size - 1 or pointer[0] or (np.diff(pointer) < 0).any() or pointer[-1] > stored:
        raise MrcFormatError(f"the pointers of the shots do not rise from 0 to {stored}: it is damaged", url=url)
    ds = open_group(store, group, lazy=False).drop_vars([layout.pointer, *columns])
    per_shot = [str(name) for name in ds.data_vars if ds[name].ndim]
    stamps = revisions(store, {name: node[name] for name in (*columns, *per_shot)})  # type: ignore[misc]
    header = in_chunks(ds, {name: {schema.SHOT: tuple(sizes)} for name in per_shot}, stamps)
    header.attrs.pop(LAYOUT)
    header.encoding[FRAMES_TOKEN] = state.get("plan", {}).get("input", "")
    shape = header.attrs.get("shape")
    pixels = math.prod(map(int, shape)) if shape is not None and "index" in columns else None
    reader = _Columns({name: arrays[name] for name in columns}, pixels, url)
    return Ragged(header, _blocks(reader, pointer, sizes, [stamps[name] for name in columns]), layout)


def _blocks(columns: _Columns, pointer: NDArray[np.int64], sizes: list[int], stamps: list[str]) -> da.Array:
    edges = np.cumsum([0, *sizes]).tolist()
    name = f"ragged-{tokenize(columns.url, pointer, sizes, stamps)}"
    graph: dict[Any, Any] = {
        (name, k): (columns.block, pointer[a : b + 1], a) for k, (a, b) in enumerate(pairwise(edges))
    }
    return layer_of(name, graph, [], sizes)


@dataclass(frozen=True)
class _Columns:
    """The columns of a table in a store; `pixels` of a frame, where an index says in which of them a row is."""

    arrays: Mapping[str, Any]
    pixels: int | None
    url: str

    def block(self, pointer: NDArray[np.int64], shot: int) -> Block:
        """The rows of consecutive shots from `shot` on; refuses pixels off the frame."""
        rows = slice(int(pointer[0]), int(pointer[-1]))
        columns = {name: np.asarray(array[rows]) for name, array in self.arrays.items()}
        if self.pixels is not None and columns["index"].size and int(columns["index"].max()) >= self.pixels:
            raise MrcFormatError(
                f"a row has the index {columns['index'].max()}, a frame has {self.pixels} pixels: it is damaged",
                url=self.url,
                frame=shot,
            )
        return Block(np.diff(pointer), columns)
