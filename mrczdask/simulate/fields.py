"""Random images shared by gain, pattern and specimen."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.normal import fill_normal
from mrczdask.kernels.philox import uniforms

WAVES: Final = 12
"""Plane waves of a smooth field."""


@lru_cache(maxsize=2)
def normal_image(key: int, rows: range, cols: range) -> NDArray[np.float32]:
    """Standard normal deviates of a rectangle of pixels; kept for the next frames of the same detector."""
    out = np.empty((len(rows), len(cols)), np.float32)
    fill_normal(np.uint64(key), 0, rows.start, cols.start, out)
    out.flags.writeable = False
    return out


def smooth_waves(key: int, sd: float, shortest: float, longest: float) -> NDArray[np.float64]:
    """(amplitude, ky, kx, phase) of WAVES plane waves of random direction that sum to a field of this sd."""
    u = uniforms(2 * WAVES, 0, 0, np.uint64(key)).reshape(WAVES, 4)
    wavelength = shortest * (longest / shortest) ** u[:, 0]
    wave_number, direction = 2 * math.pi / wavelength, math.pi * u[:, 1]
    amplitude = np.full(WAVES, sd * math.sqrt(2 / WAVES))
    return np.stack(
        [amplitude, wave_number * np.sin(direction), wave_number * np.cos(direction), 2 * math.pi * u[:, 2]], axis=1
    )


def flat_image(value: float, rows: range, cols: range) -> NDArray[Any]:
    """A float32 image of one value."""
    return np.full((len(rows), len(cols)), value, np.float32)
