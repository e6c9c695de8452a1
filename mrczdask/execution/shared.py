"""Large parameters of many tasks: sent to the workers once, not with every task."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from mrczdask.execution.schedulers import client_to_scatter

SCATTER_BYTES: Final = 4 << 20
"""A smaller array travels with the task: a transfer of its own would cost more."""


def shared(array: Any) -> Any:
    """What is given, or of a large array in memory its place on the workers: an argument for `dask.delayed`."""
    client = client_to_scatter()
    if client is None or not isinstance(array, np.ndarray) or array.nbytes <= SCATTER_BYTES:
        return array
    return client.scatter(array, hash=False)
