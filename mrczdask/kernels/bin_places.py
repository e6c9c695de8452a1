"""Where radii and azimuths stand among the bins of a background; without numba, as files need it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def radial_places(radius: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.float32]:
    """Places of radii among the centres of bins of equal width, 0 being the first; NaN where a radius is."""
    step = (centres[-1] - centres[0]) / max(centres.size - 1, 1) or np.float32(1)
    return np.asarray((radius - centres[0]) / step)


def sector_numbers(azimuth: NDArray[np.float32], sectors: int) -> NDArray[np.int32]:
    """In which of the equal sectors around the beam, from -180 degrees on, an azimuth in degrees lies."""
    return np.minimum((azimuth + 180) * (sectors / 360), sectors - 1).astype(np.int32)
