"""Sums of standardised frames, from which their mean correlation follows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


def add_standardised(frames: NDArray[Any], total: NDArray[np.float64], bad: NDArray[np.bool_] | None = None) -> None:
    """Add frames (n, y, x), each less its mean and divided by its standard deviation over the good pixels."""
    if frames.size:
        none = np.zeros((1, 1), np.bool_)
        _add(np.ascontiguousarray(frames), total, none if bad is None else np.ascontiguousarray(bad), bad is not None)


@njit(nogil=True, cache=True)
def _add(frames: Any, total: NDArray[np.float64], bad: NDArray[np.bool_], masked: bool) -> None:
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
        scale = np.sqrt(count / square) if square > 0 else np.nan
        for y in range(ny):
            for x in range(nx):
                if not masked or not bad[y, x]:
                    total[y, x] += (np.float64(frames[f, y, x]) - mean) * scale


def mean_correlation(total: NDArray[np.float64], n: int, bad: NDArray[np.bool_] | None = None) -> float:
    """(mean(S**2) - n) / (n (n - 1)) of the sum S of n standardised frames; NaN for fewer than two."""
    values = total if bad is None else total[~bad]
    if n < 2 or not values.size:
        return float("nan")
    return (float(np.mean(values * values)) - n) / (n * (n - 1))
