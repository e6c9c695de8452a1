"""Dark and gain: (raw - dark) x factor."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

_REACH: Final = 8
"""Neighbours of a defect of the gain are looked for in growing boxes up to this half side."""


def correct(frames: NDArray[Any], factor: NDArray[Any], dark: NDArray[Any] | None, out: NDArray[Any]) -> None:
    """Fill `out` (n, y, x) with (frames - dark) * factor."""
    if not frames.size:
        return
    if dark is None:
        _multiply(frames, np.ascontiguousarray(factor), out)
    else:
        _subtract_multiply(frames, np.ascontiguousarray(factor), np.ascontiguousarray(dark), out)


@njit(nogil=True, cache=True)
def _multiply(frames: Any, factor: Any, out: Any) -> None:
    for f in range(frames.shape[0]):
        for y in range(frames.shape[1]):
            for x in range(frames.shape[2]):
                out[f, y, x] = frames[f, y, x] * factor[y, x]


@njit(nogil=True, cache=True)
def _subtract_multiply(frames: Any, factor: Any, dark: Any, out: Any) -> None:
    for f in range(frames.shape[0]):
        for y in range(frames.shape[1]):
            for x in range(frames.shape[2]):
                out[f, y, x] = (frames[f, y, x] - dark[y, x]) * factor[y, x]


def usable_gain(gain: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The gain with its defects (<= 0, NaN, infinite) replaced by the mean of good neighbours, and the defects."""
    gain = np.asarray(gain, np.float32)
    bad = ~(np.isfinite(gain) & (gain > 0))
    if not bad.any():
        return gain, bad
    filled = gain.copy()
    places = np.flatnonzero(bad)
    good = gain[~bad]
    _replace(gain, bad, places, np.float32(good.mean() if good.size else 1), filled)
    return filled, bad


@njit(nogil=True, cache=True)
def _replace(gain: Any, bad: NDArray[np.bool_], places: NDArray[np.int64], far: Any, out: Any) -> None:
    ny, nx = gain.shape
    for place in places:
        y, x = place // nx, place % nx
        out[y, x] = far
        for reach in range(1, _REACH + 1):
            total, count = 0.0, 0
            for v in range(max(y - reach, 0), min(y + reach + 1, ny)):
                for u in range(max(x - reach, 0), min(x + reach + 1, nx)):
                    if not bad[v, u]:
                        total += gain[v, u]
                        count += 1
            if count:
                out[y, x] = total / count
                break
