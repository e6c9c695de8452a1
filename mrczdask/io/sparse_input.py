"""Sparse frames as functions are given them: a lazy table, or one in memory."""

from __future__ import annotations

import xarray as xr

from mrczdask.errors import MrczdaskError
from mrczdask.io.ragged import Ragged, split
from mrczdask.io.sparse_table import sparse_layout


def as_sparse(sparse: Ragged | xr.Dataset, shots: int) -> Ragged:
    """As a lazy table; one in memory in blocks of so many shots."""
    if isinstance(sparse, Ragged):
        return sparse
    if not isinstance(sparse, xr.Dataset) or not {"index", "intensity", "frame_ptr"} <= set(sparse.variables):
        raise MrczdaskError(f"a {type(sparse).__name__} is no table of sparse frames: give what sparsify returns")
    return split(sparse, sparse_layout(sparse["intensity"].dtype), shots)
