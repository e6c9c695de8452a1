"""Names of the columns of sparse frames."""

from __future__ import annotations

from typing import Any

import numpy as np

from mrczdask.io.ragged import Layout


def sparse_layout(dtype: np.dtype[Any]) -> Layout:
    """Of stored pixels: flat index and intensity."""
    columns = {"index": np.dtype(np.uint32), "intensity": np.dtype(dtype)}
    return Layout(row="pixel", pointer="frame_ptr", count="n_pixels", columns=columns)
