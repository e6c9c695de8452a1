"""Single pixels that become hot or dead, or cease to be, told from a gain that changes."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.line_means import robust_limits

TWICE_SD: Final = 3.0
"""Deviation of a pixel in two successive movies, with one sign: noise does that in 4 pixels of a million."""
TREND_SD: Final = 6.0
"""Deviation of the running mean of a pixel: noise does that in 2 pixels of 1000 million, counts somewhat more."""
NEWEST: Final = 0.25
"""Weight of the newest movie in the running mean, which so is over some seven."""
SETTLED: Final = 4
"""Movies until the first one, with which the mean begins, counts no more than the newest."""
MOST_AT_ONCE: Final = 0.01
"""Share of the pixels that can change their kind from one movie to the next: more are another gain."""


class ChangedPixels:
    """Follow the deviations of pixels from a reference; one running mean and one mask are kept."""

    def __init__(self) -> None:
        self._trend: NDArray[np.float32] | None = None
        self._n_movies = 0
        self._known: NDArray[np.bool_] = np.zeros(0, bool)

    def update(self, now: NDArray[np.floating], before: NDArray[np.floating]) -> int:
        """Take in the deviations (y, x) of a movie and of the one before; returns how many pixels have changed."""
        if self._trend is None:
            self._trend, self._known = np.array(before, np.float32), np.zeros(before.shape, bool)
        self._trend += np.float32(NEWEST) * (now - self._trend).astype(np.float32)
        self._n_movies += 1
        low, high = robust_limits(self._trend, TREND_SD)
        new = ((self._trend < low) | (self._trend > high)) & ~self._known
        if self._n_movies < SETTLED or low >= high or new.mean() > MOST_AT_ONCE:
            return 0
        self._known |= new
        return int(new.sum())

    def without(self, now: NDArray[Any], before: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """The two deviations with 0 in pixels that have changed."""
        (low, high), (least, most) = robust_limits(now, TWICE_SD), robust_limits(before, TWICE_SD)
        twice = ((now > high) & (before > most)) | ((now < low) & (before < least))
        off = self._known | twice if twice.mean() <= MOST_AT_ONCE else self._known
        return np.where(off, 0.0, now), np.where(off, 0.0, before)
