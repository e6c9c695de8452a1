"""Ragged results: so many pixels or peaks a shot as there are, one lazy CSR block a chunk of shots."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph
from dask.threaded import get as threaded_get
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.execution.blocks import each_block, structures_of, whole_blocks


@dataclass(frozen=True)
class Layout:
    """Names of a ragged table: `pointer` (shot_edge) into columns along `row`, `count` (shot), dtypes by column."""

    row: str
    pointer: str
    count: str
    columns: Mapping[str, np.dtype[Any]]


SHOT_EDGE = "shot_edge"


@dataclass(frozen=True)
class Block:
    """Rows of consecutive shots: how many of each, and the columns."""

    counts: NDArray[np.int64]
    columns: Mapping[str, NDArray[Any]]

    @property
    def pointer(self) -> NDArray[np.uint64]:
        """First row of each shot, and the end."""
        return np.concatenate([[0], np.cumsum(self.counts)]).astype(np.uint64)

    def take(self, shots: NDArray[np.int64]) -> Block:
        """The rows of some of the shots, in the order asked for."""
        edges = self.pointer.astype(np.int64)
        rows = [np.arange(edges[k], edges[k + 1]) for k in shots]
        place = np.concatenate(rows) if rows else np.empty(0, np.int64)
        return Block(self.counts[shots], {name: values[place] for name, values in self.columns.items()})


class Piece(NamedTuple):
    """A block, its rows of per-shot variables, and the block of another table of the same shots, where one is asked."""

    block: Block
    rows: dict[str, NDArray[Any]]
    beside: Block | None = None


class Ragged:
    """A lazy ragged table: known shots, per-shot variables, and rows that are computed a chunk of shots at a time.

    `header` holds what is per shot or per detector; `blocks` is the graph's layer of one `Block` a chunk of shots. It
    is a Dask collection: `dask.compute(one, other)` reads what they share once.
    """

    def __init__(
        self, header: xr.Dataset, blocks: da.Array, layout: Layout, *, wide: Callable[[], Ragged] | None = None
    ):
        self.layout = layout
        self._blocks = blocks
        self._wide = wide
        if layout.count not in header:
            header = header.assign({layout.count: (schema.SHOT, _lazy_counts(blocks))})
        self.header = header

    @property
    def attrs(self) -> dict[str, Any]:
        """Attributes of the table."""
        return dict(self.header.attrs)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Shots of each block."""
        return tuple(self._blocks.chunks[0])

    @property
    def wide(self) -> Ragged:
        """The same table in blocks of more shots, where it comes straight from a file: for what needs no frames."""
        return self._wide() if self._wide is not None else self

    @property
    def block_layer(self) -> da.Array:
        """The blocks: what other graphs go on from. Not an array to compute."""
        return self._blocks

    def __len__(self) -> int:
        return int(self._blocks.shape[0])

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and name in self.header:
            return self.header[name]
        raise AttributeError(f"the ragged table has no {name!r}; .compute() gives the columns of its rows")

    def __getitem__(self, name: str) -> xr.DataArray:
        return self.header[name]

    def isel(self, shot: int | slice | Sequence[int] | NDArray[Any]) -> Ragged:
        """The table of some of the shots, lazily; a single one stays a table of one shot."""
        wanted = np.atleast_1d(np.arange(len(self))[shot])
        edges = np.cumsum([0, *self.chunks])
        chunk = np.searchsorted(edges, wanted, side="right") - 1
        starts = np.flatnonzero(np.diff(chunk, prepend=-1))
        name = f"ragged-take-{tokenize(self._blocks.name, wanted)}"
        graph: dict[Any, Any] = {}
        sizes = []
        for k, run in enumerate(np.split(wanted, starts[1:]) if wanted.size else []):
            source = int(chunk[starts[k]])
            graph[name, k] = (Block.take, (self._blocks.name, source), run - edges[source])
            sizes.append(run.size)
        if not wanted.size:
            graph, sizes = {(name, 0): _empty(self.layout)}, [0]
        in_order = wanted.size > 0 and bool((np.diff(wanted) == 1).all())
        rows = slice(int(wanted[0]), int(wanted[-1]) + 1) if in_order else wanted  # a slice is cheaper for Dask
        return Ragged(self.header.isel(shot=rows), layer_of(name, graph, [self._blocks], sizes), self.layout)

    def pieces(self, *names: str, beside: Ragged | None = None) -> list[Delayed]:
        """Each block with its rows of some of the per-shot variables, a `Piece`: what `run_regions` takes.

        With the blocks `beside`, of as many shots each, both are made in one task, which reads what they share once.
        """
        arrays = [self.header[name].data for name in names]
        source = structures_of(arrays)
        parts = arrays if source is None else [source[0]]
        args: list[Any] = [self._blocks, (0,), *((None, None) if beside is None else (beside.block_layer, (0,)))]
        for k, part in enumerate(parts):
            rows = part if isinstance(part, da.Array) else da.from_array(part, chunks=-1)
            rows = rows.rechunk({0: self.chunks, **dict.fromkeys(range(1, rows.ndim), -1)})
            args += [rows, (0, *range(100 * (k + 1), 100 * (k + 1) + rows.ndim - 1))]
        known = {"names": names, "fields": None if source is None else source[1]}
        # all dims are of the result too, though no block has them: Dask fuses nothing into what contracts a dim
        dims = tuple(dict.fromkeys(dim for index in args[1::2] for dim in index or ()))
        meta = np.empty((0,) * len(dims), object)
        return each_block(da.blockwise(_piece, dims, *args, dtype=object, meta=meta, **known))

    def compute(self, **options: Any) -> xr.Dataset:
        """The whole table as a Dataset in memory; `options` are those of `dask.compute`."""
        import dask

        (done,) = dask.compute(self, **options)
        return done

    def __repr__(self) -> str:
        columns = ", ".join(f"{name} {dtype}" for name, dtype in self.layout.columns.items())
        return f"<Ragged of {len(self)} shots in {len(self.chunks)} blocks: {columns}>\n{self.header!r}"

    def _lazy(self) -> dict[Hashable, da.Array]:
        return {name: v.data for name, v in self.header.variables.items() if isinstance(v.data, da.Array)}

    def __dask_graph__(self) -> HighLevelGraph:
        return HighLevelGraph.merge(self._blocks.dask, *(array.dask for array in self._lazy().values()))

    def __dask_keys__(self) -> list[Any]:
        return [self._blocks.__dask_keys__(), [array.__dask_keys__() for array in self._lazy().values()]]

    def __dask_layers__(self) -> tuple[str, ...]:
        return (self._blocks.name, *(array.name for array in self._lazy().values()))

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return "mrczdask.Ragged", tokenize(self.header), self._blocks.name

    __dask_optimize__ = staticmethod(da.Array.__dask_optimize__)
    __dask_scheduler__ = staticmethod(threaded_get)

    def __dask_postcompute__(self) -> tuple[Any, tuple[Any, ...]]:
        lazy = {name: array.__dask_postcompute__() for name, array in self._lazy().items()}
        return _finalize, (self.header, lazy, self.layout)


def join(header: xr.Dataset, blocks: Sequence[Block], layout: Layout) -> xr.Dataset:
    """The table of blocks in a row."""
    counts = np.concatenate([np.empty(0, np.int64), *(block.counts for block in blocks)])
    pointer = np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64)
    columns = {
        name: (layout.row, np.concatenate([np.empty(0, dtype), *(block.columns[name] for block in blocks)]))
        for name, dtype in layout.columns.items()
    }
    return header.assign(
        {layout.count: (schema.SHOT, counts), layout.pointer: (SHOT_EDGE, pointer), **columns},
    )


def split(table: xr.Dataset, layout: Layout, shots: int | Sequence[int]) -> Ragged:
    """A table in memory as a ragged one, in blocks of so many shots, or of so many each."""
    pointer = table[layout.pointer].values.astype(np.int64)
    n = pointer.size - 1
    name = f"ragged-split-{tokenize(table, shots)}"
    sizes = [min(shots, n - first) for first in range(0, n, shots)] if isinstance(shots, int) else list(shots)
    graph: dict[Any, Any] = {}
    for k, (first, last) in enumerate(pairwise(np.cumsum([0, *sizes]).tolist())):
        edges = pointer[first : last + 1]
        columns = {column: table[column].values[edges[0] : edges[-1]] for column in layout.columns}
        graph[name, k] = Block(np.diff(edges), columns)
    if not sizes:
        graph[name, 0] = _empty(layout)
    header = table.drop_vars([layout.pointer, layout.count, *layout.columns], errors="ignore")
    return Ragged(header, layer_of(name, graph, [], sizes or [0]), layout)


def layer_of(name: str, graph: dict[Any, Any], needs: list[Any], sizes: Sequence[int]) -> da.Array:
    """A layer of blocks of so many shots each, for `Ragged`; `graph` makes the k-th under the key (name, k)."""
    built = HighLevelGraph.from_collections(name, graph, dependencies=needs)
    return da.Array(built, name, chunks=(tuple(sizes),), dtype=object, meta=np.empty(0, object))


def _empty(layout: Layout) -> Block:
    return Block(np.empty(0, np.int64), {name: np.empty(0, dtype) for name, dtype in layout.columns.items()})


def _lazy_counts(blocks: da.Array) -> da.Array:
    """Rows of each shot. As plain tasks: Dask would fuse the blocks into these, and not find them any more."""
    name = f"ragged-counts-{tokenize(blocks.name)}"
    graph: dict[Any, Any] = {(name, k): (_counts, (blocks.name, k)) for k in range(blocks.numblocks[0])}
    needs: list[Any] = [blocks]
    built = HighLevelGraph.from_collections(name, graph, dependencies=needs)
    return da.Array(built, name, blocks.chunks, np.int64, np.empty(0, np.int64))


def _counts(block: Block) -> NDArray[np.int64]:
    return block.counts


@whole_blocks
def _piece(
    block: Block, beside: Block | None, *parts: NDArray[Any], names: Sequence[str], fields: Sequence[str] | None
) -> Piece:
    """The parts are the variables, or one array of structures whose `fields` they are."""
    rows = parts if fields is None else [parts[0][field] for field in fields]
    return Piece(block, dict(zip(names, rows, strict=True)), beside)


def _finalize(results: Any, header: xr.Dataset, lazy: Mapping[Hashable, Any], layout: Layout) -> xr.Dataset:
    """The Dataset of a computed table; as `dask.compute` calls it."""
    blocks, parts = results
    for (name, (finish, extra)), part in zip(lazy.items(), parts, strict=True):
        variable = header.variables[name]
        header = header.assign({name: (variable.dims, finish(part, *extra), variable.attrs)})
    return join(header, blocks, layout)
