"""Names of the columns of peaks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask.io.ragged import Block, Layout, join

IMAGE: Final = "image"
"""Coordinate (shot) of the file of each frame; as attribute, the only one."""
EVENT: Final = "event"
"""Coordinate (shot): number of the frame in its file."""
EVENT_NAME: Final = "event_name"
"""Coordinate (shot) of a CrystFEL stream: the event as it stands there."""
PEAK_FILE: Final = "peak_file"
"""Attribute: the .cxi file whose rows the shots are."""
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


def peaks_table(
    counts: NDArray[Any], columns: Mapping[str, NDArray[Any]], coords: Mapping[str, Any], attrs: Mapping[str, Any]
) -> xr.Dataset:
    """Peaks in memory, of so many a shot, as the Dataset that `find_peaks(...).compute()` is."""
    header = xr.Dataset(coords=dict(coords), attrs=dict(attrs))
    return join(header, [Block(counts.astype(np.int64), columns)], PEAKS)
