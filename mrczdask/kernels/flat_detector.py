"""Radii of the pixels of a flat detector across the beam, and how near and far its good pixels are from a beam.

With s the square of the distance from the beam in the plane of the detector and d the distance of the sample: r =
sqrt(s), 2 theta = atan2(r, d), and sin(theta) = r / sqrt(2 h (h + d)) with h = sqrt(s + d^2), which needs no tables.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit

LENGTH: Final = 0
ANGLE: Final = 1
SINE: Final = 2
"""What the radius is: r, 2 theta, or sin(theta) times a factor."""


@njit(nogil=True, cache=True, error_model="numpy")
def flat_radius(
    y: NDArray[np.float64], x: NDArray[np.float64], depth: float, kind: int, factor: float
) -> NDArray[np.float64]:
    """Radius (y, x) of pixels at the offsets `y` and `x` from the beam."""
    out = np.empty((y.size, x.size))
    for i in range(y.size):
        row, across = out[i], y[i] * y[i]
        if kind == LENGTH:
            for j in range(x.size):
                row[j] = math.sqrt(across + x[j] * x[j])
        elif kind == ANGLE:
            for j in range(x.size):
                row[j] = math.atan2(math.sqrt(across + x[j] * x[j]), depth)
        else:
            for j in range(x.size):
                s = across + x[j] * x[j]
                h = math.sqrt(s + depth * depth)
                row[j] = factor * math.sqrt(s) / math.sqrt(2.0 * h * (h + depth))
    return out


@njit(nogil=True, cache=True, error_model="numpy")
def flat_correction(
    y: NDArray[np.float64], x: NDArray[np.float64], depth: float, solid_angle: bool, polarized: bool, factor: float
) -> NDArray[np.float64]:
    """Solid angle and polarization of pixels at the offsets `y` and `x` from the beam, multiplied as asked for.

    cos(2 theta)^3 and (1 + cos(2 theta)^2 - factor cos(2 chi) sin(2 theta)^2) / 2, with chi the azimuth.
    """
    out = np.empty((y.size, x.size))
    square = depth * depth
    for i in range(y.size):
        y2 = y[i] * y[i]
        for j in range(x.size):
            x2 = x[j] * x[j]
            whole = y2 + x2 + square
            cos2 = square / whole
            solid = cos2 * math.sqrt(cos2) if solid_angle else 1.0
            out[i, j] = solid * (0.5 + 0.5 * (square - factor * (x2 - y2)) / whole) if polarized else solid
    return out


@njit(nogil=True, cache=True, error_model="numpy")
def shown_radius(radius: NDArray[np.float64], bad: NDArray[np.bool_], scale: float) -> NDArray[np.float32]:
    """Radii (y, x) times a scale, NaN where bad."""
    out = np.empty(radius.shape, np.float32)
    for i in range(radius.shape[0]):
        for j in range(radius.shape[1]):
            out[i, j] = np.float32(np.nan) if bad[i, j] else np.float32(radius[i, j] * scale)
    return out


@njit(nogil=True, cache=True, error_model="numpy")
def nearest_and_farthest(
    good: NDArray[np.bool_], edge: NDArray[np.int64], centers: NDArray[np.float64], sizes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Offsets (y, x) of the pixel of `good` that is nearest to any of the centres (n, 2), and of the farthest.

    `edge` (n, 2), in order, are the good pixels with a bad neighbour, or none. The pixel below a beam is the nearest;
    of a beam over none, it is an edge, in rows no farther away than what was found before. The farthest is the first or
    last of its row, in a frame whose corners are farther than what was found before.
    """
    near, far, ends = np.inf, -1.0, np.zeros((2, 2))
    if not edge.size:
        return ends
    rows = np.searchsorted(edge[:, 0], np.arange(good.shape[0] + 1))
    top, bottom, left, right = edge[0, 0], edge[-1, 0], edge[:, 1].min(), edge[:, 1].max()
    for k in range(centers.shape[0]):
        cy, cx = centers[k, 0], centers[k, 1]
        i, j = math.floor(cy), math.floor(cx)
        if 0 <= i < good.shape[0] and 0 <= j < good.shape[1] and good[int(i), int(j)]:
            y, x = (i + 0.5 - cy) * sizes[0], (j + 0.5 - cx) * sizes[1]
            if y * y + x * x < near:
                near, ends[0, 0], ends[0, 1] = y * y + x * x, y, x
        else:
            reach = math.sqrt(near) / sizes[0] + 1.0
            first, last = max(cy - reach, 0.0), min(cy + reach + 1.0, float(good.shape[0]))
            for e in range(rows[int(first)] if first <= last else 0, rows[int(last)] if first <= last else 0):
                y, x = (edge[e, 0] + 0.5 - cy) * sizes[0], (edge[e, 1] + 0.5 - cx) * sizes[1]
                if y * y + x * x < near:
                    near, ends[0, 0], ends[0, 1] = y * y + x * x, y, x
        y, x = max(cy - top, bottom + 1 - cy) * sizes[0], max(cx - left, right + 1 - cx) * sizes[1]
        if y * y + x * x > far:
            for row in range(good.shape[0]):
                for e in (rows[row], rows[row + 1] - 1) if rows[row] < rows[row + 1] else (0, 0):
                    y, x = (edge[e, 0] + 0.5 - cy) * sizes[0], (edge[e, 1] + 0.5 - cx) * sizes[1]
                    if y * y + x * x > far:
                        far, ends[1, 0], ends[1, 1] = y * y + x * x, y, x
    return ends
