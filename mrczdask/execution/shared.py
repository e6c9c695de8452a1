"""Large parameters of many tasks: sent to the workers once, not with every task."""

from __future__ import annotations

from typing import Any, Final

from mrczdask.execution.schedulers import current_client

SCATTER_BYTES: Final = 4 << 20
"""A smaller array travels with the task: a transfer of its own would cost more."""


def shared(array: Any) -> Any:
    """The array itself, or its place on the workers of the client in force: an argument for `dask.delayed`."""
    client = current_client()
    if client is None or getattr(array, "nbytes", 0) <= SCATTER_BYTES:
        return array
    return client.scatter(array, hash=False)
