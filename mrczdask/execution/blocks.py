"""Functions of whole frames as tasks of a graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

T = TypeVar("T")


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
