"""Functions of whole frames as tasks of a graph, and fewer of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Final, TypeVar

import dask.array as da
from dask.blockwise import optimize_blockwise
from dask.core import flatten
from dask.delayed import Delayed

T = TypeVar("T")
_SOURCE: Final = "structures"


def whole_blocks(function: Callable[..., T]) -> Callable[..., T]:
    """Let `dask.array.blockwise` call a function that takes whole arrays along the dims it contracts.

    Such a task gets nested lists of one block. `concatenate=True` would join them, which copies every frame.
    """

    @wraps(function)
    def on_blocks(*blocks: Any, **constants: Any) -> T:
        return function(*(_only(block) for block in blocks), **constants)

    return on_blocks


def _only(block: Any) -> Any:
    while isinstance(block, list):
        (block,) = block
    return block


def fields_of(table: da.Array) -> dict[str, da.Array]:
    """The fields of an array of structures; each remembers the array, so that a task that needs two takes it whole.

    What is written into a field has another name, and is no field any more.
    """
    found = {name: table[name] for name in table.dtype.names or ()}
    for name, one in found.items():
        setattr(one, _SOURCE, (table, name, one.name))
    return found


def structures_of(fields: Sequence[Any]) -> tuple[da.Array, list[str]] | None:
    """The array of structures of which all are fields, as `fields_of` made them, and their names; None for others."""
    sources = [getattr(field, _SOURCE, (None, "", "")) for field in fields]
    table = sources[0][0] if sources else None
    known = (source is table and field.name == key for field, (source, _, key) in zip(fields, sources, strict=True))
    return (table, [name for _, name, _ in sources]) if table is not None and all(known) else None


def each_block(made: da.Array) -> list[Delayed]:
    """Every block of an array as an object of its own, in order: cut to it, a graph of many costs what one of few does.

    Layers are fused once for all of them; a Delayed is not fused by Dask.
    """
    keys = list(flatten(made.__dask_keys__()))
    graph = optimize_blockwise(made.dask, keys)
    return [Delayed(key, graph, layer=made.name) for key in keys]
