"""Moving sums over images: exact, because they are sums of integers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit

FIXED_POINT: Final = 1 << 20
"""Units in which floats are added: 1e-6 of a count, and sums stay below 2**63 up to 8e12 counts a pixel."""
LARGEST: Final = 2.0**36
"""Largest float taken into a window, 7e10 counts: a hundred of them stay below 2**63. What lies beyond is no count."""


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
    """Integers as they are, floats in units of 1 / FIXED_POINT: their sums do not depend on the order.

    0 for a float that is NaN, infinite or beyond LARGEST.
    """
    return _fixed(image)[0]


def _fixed(image: NDArray[Any]) -> tuple[NDArray[np.int64], bool]:
    """And whether every pixel is a number."""
    if image.dtype.kind in "iub":
        return image.astype(np.int64, copy=False), True
    whole = np.empty(image.shape, np.int64)
    wide = np.ascontiguousarray(image, image.dtype if image.dtype == np.float32 else np.float64)
    return whole, _fix(wide.reshape(-1), whole.reshape(-1), LARGEST, float(FIXED_POINT))


@njit(nogil=True, cache=True)
def _fix(values: NDArray[Any], out: NDArray[np.int64], largest: float, unit: float) -> bool:
    odd = 0
    for k in range(values.size):
        value = np.float64(values[k])
        good = abs(value) <= largest
        odd += not good
        out[k] = np.int64(np.rint(value * unit)) if good else 0
    return odd == 0


class Lacking(NamedTuple):
    """Places of an image (flat) that take no part in a mean, what stands there (`fixed`), whether it is a number."""

    place: NDArray[np.int64]
    value: NDArray[np.int64]
    known: NDArray[np.bool_]


def fixed_parts(image: NDArray[Any], bad: NDArray[np.bool_] | None = None) -> tuple[NDArray[np.int64], Lacking | None]:
    """An image as `fixed` makes it, 0 where it is bad too; and the pixels that are bad or no numbers, None for none."""
    whole, is_whole = _fixed(image)
    known = None if is_whole else np.abs(image) <= LARGEST
    hidden = bad if known is None else ~known if bad is None else bad | ~known
    place = np.empty(0, np.int64) if hidden is None else np.flatnonzero(hidden)
    if hidden is None or not place.size:
        return whole, None
    is_number = np.ones(len(place), bool) if known is None else known.ravel()[place]
    return np.where(hidden, 0, whole), Lacking(place, whole.ravel()[place], is_number)


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


class KnownMeans:
    """Means over windows of images some of whose pixels are not known: there the others are averaged.

    `image` gives `fixed` images, `lacks` what of them takes no part. A pixel that is bad in every image of a window has
    the mean of all that stands there, and NaN where that is no number.
    """

    def __init__(self, image: Callable[[int], NDArray[np.int64]], lacks: Callable[[int], Lacking | None], unit: float):
        self._moving, self._lacks, self._unit = MovingSum(image), lacks, unit

    def mean(self, window: Window, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """The mean over a window that holds a movie."""
        out = self._moving.mean(window, self._unit, out)
        self._mend(window, out, 1.0)
        return out

    def total(self, window: Window, out: NDArray[np.float64]) -> None:
        """The sum over a window; of a pixel that some images lack as many times its mean."""
        out[...] = self._moving.without(window) * self._unit
        self._mend(window, out, float(window.size))

    def _mend(self, window: Window, out: NDArray[Any], times: float) -> None:
        found = [self._lacks(rank) for rank in range(window.start, window.stop) if rank != window.own]
        parts = [part for part in found if part is not None]
        if not parts:
            return
        absent = np.zeros(out.size, np.int32)
        for part in parts:
            absent[part.place] += 1
        places = np.flatnonzero(absent)
        count, total = window.size - absent[places], self._moving.without(window).ravel()[places]
        if not count.all():
            value, number = np.zeros(out.size, np.int64), np.zeros(out.size, np.int32)
            for part in parts:
                value[part.place] += part.value
                number[part.place] += part.known
            none = count == 0
            total[none], count[none] = value[places[none]], number[places[none]]
        means = np.where(count > 0, total * (self._unit / np.maximum(count, 1)) * times, np.nan)
        out.reshape(-1)[places] = means


def knock_out_sums(
    images: Callable[[int], NDArray[np.int64]],
    windows: Sequence[Window],
    unit: float,
    *,
    mean: bool,
    lacks: Callable[[int], Lacking | None] = lambda _: None,
) -> NDArray[Any]:
    """(len(windows), y, x): the sum over each window, or its mean as float32; NaN for an empty one."""
    moving = KnownMeans(images, lacks, unit)
    out = np.empty((len(windows), *images(max(windows[0].own, 0)).shape), np.float32 if mean else np.float64)
    for k, window in enumerate(windows):
        if not window.size:
            out[k] = np.nan
        elif mean:
            moving.mean(window, out[k])
        else:
            moving.total(window, out[k])
    return out
