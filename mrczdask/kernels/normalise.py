"""Dark and gain: (raw - dark) x factor."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit
from mrczdask.kernels.usable import LARGEST, unusable

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
    """The gain with its defects replaced by the mean of good neighbours, and the defects.

    A gain is a defect that is not above 0, no number, or beyond 2**53 either way: its reciprocal has a place too.
    """
    gain = np.asarray(gain)
    with np.errstate(invalid="ignore"):  # a NaN that signals
        bad = ~((gain >= 1 / LARGEST) & (gain <= LARGEST))
    return _replaced(gain, bad, 1.0), bad


def usable_dark(dark: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """A dark reference whose unusable pixels have the mean of good neighbours, and those; None for none."""
    bad = unusable(np.asarray(dark))
    return (np.asarray(dark, np.float32), None) if bad is None else (_replaced(np.asarray(dark), bad, 0.0), bad)


def _replaced(image: NDArray[Any], bad: NDArray[np.bool_], otherwise: float) -> NDArray[np.float32]:
    if not bad.any():
        return np.asarray(image, np.float32)
    clean = np.where(bad, 0, image).astype(np.float32)
    filled = clean.copy()
    good = clean[~bad]
    _replace(clean, bad, np.flatnonzero(bad), np.float32(good.mean() if good.size else otherwise), filled)
    return filled


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
