"""Sums of standardised frames, from which their mean correlation follows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit
from mrczdask.kernels.usable import LARGEST


def add_standardised(frames: NDArray[Any], total: NDArray[np.float64], bad: NDArray[np.bool_] | None = None) -> None:
    """Add frames (n, y, x), each less its mean and divided by its standard deviation over the good pixels.

    A float that is no number, or beyond LARGEST, counts for neither and makes the total of its pixel NaN.
    """
    if frames.size:
        none = np.zeros((1, 1), np.bool_)
        mask = none if bad is None else np.ascontiguousarray(bad)
        wide = frames.astype(np.float32) if frames.dtype == np.float16 else frames
        _add(np.ascontiguousarray(wide), total, mask, bad is not None, LARGEST if frames.dtype.kind == "f" else np.inf)


@njit(nogil=True, cache=True)
def _add(frames: Any, total: NDArray[np.float64], bad: NDArray[np.bool_], masked: bool, largest: float) -> None:
    """Sums go down the columns: so they are made of several columns at once, and always in the same order."""
    n, ny, nx = frames.shape
    count = float(max(ny * nx - (np.count_nonzero(bad) if masked else 0), 1))
    column = np.empty(nx)
    for f in range(n):
        column[:] = 0.0
        for y in range(ny):
            for x in range(nx):
                if not masked or not bad[y, x]:
                    column[x] += np.float64(frames[f, y, x])
        mean = column.sum() / count
        column[:] = 0.0
        for y in range(ny):
            for x in range(nx):
                if not masked or not bad[y, x]:
                    away = np.float64(frames[f, y, x]) - mean
                    column[x] += away * away
        square = column.sum()
        if not (abs(mean) <= largest / 2 and square <= largest / 2 * (largest / 2)):
            _add_usable(frames[f], total, bad, masked, largest)  # a pixel beyond stood out of such sums
            continue
        scale = np.sqrt(count / square) if square > 0 else np.nan
        for y in range(ny):
            for x in range(nx):
                if not masked or not bad[y, x]:
                    total[y, x] += (np.float64(frames[f, y, x]) - mean) * scale


@njit(nogil=True, cache=True)
def _add_usable(frame: Any, total: NDArray[np.float64], bad: NDArray[np.bool_], masked: bool, largest: float) -> None:
    """One frame some of whose pixels are no numbers."""
    count, mean, square = 0, 0.0, 0.0
    for y in range(frame.shape[0]):
        for x in range(frame.shape[1]):
            if not (masked and bad[y, x]) and abs(frame[y, x]) <= largest:
                mean += np.float64(frame[y, x])
                count += 1
    mean /= max(count, 1)
    for y in range(frame.shape[0]):
        for x in range(frame.shape[1]):
            if not (masked and bad[y, x]) and abs(frame[y, x]) <= largest:
                square += (np.float64(frame[y, x]) - mean) ** 2
    scale = np.sqrt(count / square) if square > 0 else np.nan
    for y in range(frame.shape[0]):
        for x in range(frame.shape[1]):
            if not (masked and bad[y, x]):
                usable = abs(frame[y, x]) <= largest
                total[y, x] += (np.float64(frame[y, x]) - mean) * scale if usable else np.nan


def mean_square(total: NDArray[np.float64]) -> float:
    """Mean of the squares of what is not NaN; NaN for nothing."""
    found = float(np.mean(total * total)) if total.size else np.nan
    if np.isfinite(found):
        return found
    left = total[np.isfinite(total)]
    return float(np.mean(left * left)) if left.size else float("nan")


def mean_correlation(total: NDArray[np.float64], n: int, bad: NDArray[np.bool_] | None = None) -> float:
    """(mean(S**2) - n) / (n (n - 1)) of the sum S of n standardised frames; NaN for fewer than two."""
    return (mean_square(total if bad is None else total[~bad]) - n) / (n * (n - 1)) if n > 1 else float("nan")
