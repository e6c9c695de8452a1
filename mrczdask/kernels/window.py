"""Moving sums over images: exact, because they are sums of integers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

FIXED_POINT: Final = 1 << 20
"""Units in which floats are added: 1e-6 of a count, and sums stay below 2**63 up to 8e12 counts a pixel."""


class Window(NamedTuple):
    """Places start ... stop - 1 in the order of the movies taken part, less the place `own` (-1: none)."""

    start: int
    stop: int
    own: int

    @property
    def size(self) -> int:
        """Number of movies in it."""
        return self.stop - self.start - (self.own >= 0)


def knock_out_windows(size: int, accepted: Sequence[bool] | NDArray[np.bool_]) -> list[Window]:
    """The window of each movie: the `size` nearest accepted ones without itself, shifted inwards at the ends.

    Half of them (rounded down) lie before the movie. Places count the accepted movies only; a movie that is left out
    of the windows has one too.
    """
    taken = np.asarray(accepted, bool)
    total = int(taken.sum())
    place = np.cumsum(taken) - taken
    windows = []
    for k, own in enumerate(place.tolist()):
        length = min(size + int(taken[k]), total)
        start = min(max(own - size // 2, 0), total - length)
        windows.append(Window(start, start + length, own if taken[k] else -1))
    return windows


def fixed(image: NDArray[Any]) -> NDArray[np.int64]:
    """Integers as they are, floats in units of 1 / FIXED_POINT: their sums do not depend on the order."""
    if image.dtype.kind in "iub":
        return image.astype(np.int64, copy=False)
    return np.rint(image * float(FIXED_POINT)).astype(np.int64)


def unit_of(dtype: np.dtype[Any]) -> float:
    """What 1 in the sum of `fixed` images stands for."""
    return 1.0 if np.dtype(dtype).kind in "iub" else 1.0 / FIXED_POINT


class MovingSum:
    """The sum of the images at places start ... stop - 1, moved by adding and dropping one at a time."""

    def __init__(self, image: Callable[[int], NDArray[np.int64]]):
        self._image = image
        self._start = self._stop = 0
        self._total: NDArray[np.int64] | None = None

    def without(self, window: Window) -> NDArray[np.int64]:
        """The sum over a window. The array is overwritten by the next call."""
        total = self._move(window.start, window.stop)
        return total if window.own < 0 else total - self._image(window.own)

    def mean(self, window: Window, unit: float, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """The mean over a window that holds a movie."""
        total = self._move(window.start, window.stop)
        own = total[:0] if window.own < 0 else self._image(window.own)
        out = np.empty(total.shape, np.float32) if out is None else out
        _scale(total, own, unit / window.size, out)
        return out

    def _move(self, start: int, stop: int) -> NDArray[np.int64]:
        apart = start >= self._stop or stop <= self._start
        if self._total is None or apart:
            self._total = np.zeros_like(self._image(start))
            self._start = self._stop = start
        enters = [*range(self._stop, stop), *range(start, self._start)]
        leaves = [*range(self._start, start), *range(stop, self._stop)]
        while enters and leaves:
            _exchange(self._total, self._image(enters.pop()), self._image(leaves.pop()))
        for place in enters:
            self._total += self._image(place)
        for place in leaves:
            self._total -= self._image(place)
        self._start, self._stop = start, stop
        return self._total


@njit(nogil=True, cache=True)
def _exchange(total: NDArray[np.int64], enters: NDArray[np.int64], leaves: NDArray[np.int64]) -> None:
    for y in range(total.shape[0]):
        for x in range(total.shape[1]):
            total[y, x] += enters[y, x] - leaves[y, x]


@njit(nogil=True, cache=True)
def _scale(total: NDArray[np.int64], own: NDArray[np.int64], scale: float, out: NDArray[np.float32]) -> None:
    """out = (total - own) * scale; an empty `own` is left out."""
    for y in range(total.shape[0]):
        if own.shape[0]:
            for x in range(total.shape[1]):
                out[y, x] = np.float32((total[y, x] - own[y, x]) * scale)
        else:
            for x in range(total.shape[1]):
                out[y, x] = np.float32(total[y, x] * scale)


def knock_out_sums(
    images: Callable[[int], NDArray[np.int64]], windows: Sequence[Window], unit: float, *, mean: bool
) -> NDArray[Any]:
    """(len(windows), y, x): the sum over each window, or its mean as float32; NaN for an empty one."""
    moving = MovingSum(images)
    out = np.empty((len(windows), *images(max(windows[0].own, 0)).shape), np.float32 if mean else np.float64)
    for k, window in enumerate(windows):
        if not window.size:
            out[k] = np.nan
        elif mean:
            moving.mean(window, unit, out[k])
        else:
            out[k] = moving.without(window) * unit
    return out
