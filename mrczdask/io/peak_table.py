"""Names of the columns of peaks."""

from __future__ import annotations

from typing import Final

import numpy as np

from mrczdask.io.ragged import Layout

FLOATS: Final = ("y", "x", "radius", "intensity", "sigma", "sigma_background")

PEAKS: Final = Layout(
    row="peak",
    pointer="peak_ptr",
    count="n_peaks",
    columns={
        **{name: np.dtype(np.float32) for name in FLOATS},
        "n_pixels": np.dtype(np.int32),
        "index": np.dtype(np.uint32),
    },
)
"""Of peaks: centroid in pixels (an integer is the centre of a pixel), radius, sum and its deviations, pixels above the
cutoff, and flat index of the maximum."""
