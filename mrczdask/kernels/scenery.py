"""Smooth fields, holes and particles, evaluated at any position: a shifted scene is exact, not interpolated.

out[0, 0] is the pixel (y0, x0) of a frame in which the scene has moved by (dy, dx) pixels. Positions are taken from
the pixel's own index, so that they round alike for any rectangle.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit

_REACH: Final = 1.8
"""A particle ends at 1.8 radii: exp(-1.8**4) = 3e-5."""


@njit(nogil=True, cache=True)
def add_waves(waves: NDArray[np.float64], y0: int, x0: int, dy: float, dx: float, out: Any) -> None:
    """Add a sum of plane waves to (ny, nx); `waves` rows are (amplitude, ky, kx, phase)."""
    ny, nx = out.shape
    cosines, sines = np.empty((len(waves), nx)), np.empty((len(waves), nx))
    for k in range(len(waves)):
        for col in range(nx):
            angle = waves[k, 2] * (x0 + col - dx)
            cosines[k, col], sines[k, col] = math.cos(angle), math.sin(angle)
    line = np.empty(nx)
    for row in range(ny):
        line[:] = 0.0
        for k in range(len(waves)):
            angle = waves[k, 1] * (y0 + row - dy) + waves[k, 3]
            c, s = waves[k, 0] * math.cos(angle), waves[k, 0] * math.sin(angle)
            for col in range(nx):
                line[col] += c * cosines[k, col] - s * sines[k, col]
        for col in range(nx):
            out[row, col] += line[col]


@njit(nogil=True, cache=True)
def shade_film(
    hole: NDArray[np.float64], grain: Any, contrast: float, y0: int, x0: int, dy: float, dx: float, out: Any
) -> None:
    """Multiply by 1 - contrast (1 + grain) outside of a hole (y, x, radius, width of its edge)."""
    for row in range(out.shape[0]):
        y = (y0 + row - dy) - hole[0]
        for col in range(out.shape[1]):
            x = (x0 + col - dx) - hole[1]
            depth = (math.sqrt(y * y + x * x) - hole[2]) / hole[3] + 0.5
            depth = min(max(depth, 0.0), 1.0)
            out[row, col] *= 1.0 - contrast * (1.0 + grain[row, col]) * depth * depth * (3.0 - 2.0 * depth)


@njit(nogil=True, cache=True)
def shade_particles(
    centres: NDArray[np.float64], radius: float, contrast: float, y0: int, x0: int, dy: float, dx: float, out: Any
) -> None:
    """Multiply by 1 - contrast exp(-(r / radius)**4) around each centre (y, x)."""
    ny, nx = out.shape
    reach = _REACH * radius
    for k in range(len(centres)):
        cy, cx = centres[k, 0] + dy, centres[k, 1] + dx
        for y in range(max(math.ceil(cy - reach), y0), min(math.floor(cy + reach) + 1, y0 + ny)):
            for x in range(max(math.ceil(cx - reach), x0), min(math.floor(cx + reach) + 1, x0 + nx)):
                square = ((y - cy) ** 2 + (x - cx) ** 2) / (radius * radius)
                out[y - y0, x - x0] *= 1.0 - contrast * math.exp(-square * square)
