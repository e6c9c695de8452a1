"""The knock-out moving average while movies arrive: one in, one out."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from mrczdask import provenance, schema
from mrczdask.kernels.background import moments, pattern, subtract, wiener_share
from mrczdask.kernels.window import KnownMeans, Lacking, Window, fixed_parts, unit_of
from mrczdask.movies.arrays import blockwise, check_size, labelled, on_images, whole_images
from mrczdask.movies.gain import MASK
from mrczdask.movies.koma import Method, variance_of
from mrczdask.movies.sums import sum_frames


@dataclass
class _Waiting:
    """A movie that waits for the ones after it."""

    movie: xr.DataArray
    bad: NDArray[np.bool_] | None
    rank: int
    accepted: bool


class KomaStream:
    """Knock-out moving average of movies that are added one at a time.

    Parameters
    ----------
    radius : int
        Half the number of movies averaged.
    method : {"wiener", "plain"}
        As of `koma`.
    mask : DataArray or array of bool, optional
        (y, x), True = bad in every movie; taken together with the coordinate `mask` of the movies or their sums.

    Raises
    ------
    ValueError
        The radius is below 1, the method unknown, or the mask no image.

    Notes
    -----
    The numbers are those of `koma` on the whole session. It holds 2 radius + 2 sums and adds and drops one of them a
    movie, so its cost does not depend on the radius. A movie comes out when the window around it can no longer shift:
    `radius` movies later, or for the first ones when 2 radius + 1 are there. All of this is in memory: a stream that is
    begun again takes the movies again.

    Bad pixels count neither for the level of the mean nor for its variance or that of the sums, as in `koma` with the
    coordinate `mask` of the sums; they are corrected too. Each movie may have a mask of its own: its pixels, and those
    that are NaN, infinite or beyond 7e10, are left out of the means that other movies are corrected with.

    References
    ----------
    McLeod et al., MRCZ, section 5.2.

    Examples
    --------
    >>> import mrczdask as md
    >>> session, _ = md.simulate.session(7, (4, 32, 32), dose=2)
    >>> stream = md.KomaStream(radius=2)
    >>> done = [movie for k in range(7) for movie in stream.add(session.images.isel(movie=k))]
    >>> len(done), len(stream.finish())
    (5, 2)
    """

    def __init__(self, radius: int = 12, method: Method = "wiener", *, mask: xr.DataArray | ArrayLike | None = None):
        if radius < 1 or method not in get_args(Method):
            raise ValueError(
                f'KomaStream: radius={radius}, method={method!r}: give a radius of 1 or more, "plain" or "wiener"'
            )
        self._radius, self._method = radius, method
        self._mask = None if mask is None else labelled(mask, name="mask").astype(bool).compute()
        if self._mask is not None and self._mask.ndim != 2:
            raise ValueError(f"KomaStream: the mask has the dims {self._mask.dims}: give (y, x)")
        self._waiting: deque[_Waiting] = deque()
        self._sums: dict[int, NDArray[np.int64]] = {}
        self._variances: dict[int, float] = {}
        self._first: xr.DataArray | None = None
        self._unit, self._accepted, self._finished = 1.0, 0, False
        self._lacking: dict[int, Lacking | None] = {}
        self._moving = KnownMeans(self._sums.__getitem__, self._lacking.__getitem__, 1.0)

    def add(
        self, movie: xr.DataArray, *, total: xr.DataArray | None = None, exclude: bool = False
    ) -> list[xr.DataArray]:
        """Add the next movie and return those that are corrected now.

        Parameters
        ----------
        movie : DataArray
            (frame, y, x), corrected by gain and for outliers. Lazy frames stay lazy; their sum and mask are computed.
        total : DataArray, optional
            (y, x), the sum of its frames, where it is known. Its coordinate `mask` goes before that of the movie.
        exclude : bool
            Leave it out of the windows: carbon film, crystalline ice. It is corrected too.

        Returns
        -------
        list of DataArray
            Movies in the order in which they were added.

        Raises
        ------
        ValueError
            The movie has another shape than the first, its sum or the mask another one than it, or the stream was
            finished.
        """
        if self._finished:
            raise ValueError("KomaStream: it was finished: begin a new one")
        self._check(movie, total)
        bad = self._bad(movie if total is None or MASK not in total.coords else total)
        if not exclude:
            self._take(sum_frames(movie) if total is None else total, bad)
        self._waiting.append(_Waiting(movie, bad, self._accepted - (not exclude), not exclude))
        return self._release(last=False)

    def finish(self) -> list[xr.DataArray]:
        """Return the movies that still waited for others, and end the stream."""
        self._finished = True
        if self._waiting and self._accepted - self._waiting[0].accepted < 1:
            raise ValueError("KomaStream: there is one movie: there must be others to average")
        return self._release(last=True)

    def _check(self, movie: xr.DataArray, total: xr.DataArray | None) -> None:
        if set(movie.dims) != set(schema.MOVIE_DIMS):
            raise ValueError(f"KomaStream: the movie has the dims {movie.dims}: give (frame, y, x)")
        self._first = movie if self._first is None else self._first
        check_size(movie, self._first, "movie")
        for image, what in ((total, "sum of the frames"), (self._mask, "mask")):
            if image is not None:
                check_size(image, movie, what)
        if movie.sizes[schema.FRAME] != self._first.sizes[schema.FRAME]:
            counts = movie.sizes[schema.FRAME], self._first.sizes[schema.FRAME]
            raise ValueError(f"KomaStream: the movie has {counts[0]} frames, the first one {counts[1]}")

    def _bad(self, images: xr.DataArray) -> NDArray[np.bool_] | None:
        """The mask of a movie or its sum, and that of all movies; one that changes with the frame is of no sum."""
        own = images.coords.get(MASK)
        known = [mask for mask in (self._mask, own) if mask is not None and schema.FRAME not in mask.dims]
        found = [np.asarray(mask.variable.transpose(schema.Y, schema.X), bool) for mask in known]
        return np.logical_or.reduce(found) if found else None

    def _take(self, total: Any, bad: NDArray[np.bool_] | None) -> None:
        image = np.asarray(total.variable.transpose(schema.Y, schema.X))
        unit = unit_of(image.dtype)
        if self._accepted and unit != self._unit:
            raise ValueError("KomaStream: some sums are of integers and some of floats: correct all movies alike")
        if not self._accepted:
            self._unit = unit
            self._moving = KnownMeans(self._sums.__getitem__, self._lacking.__getitem__, unit)
        self._sums[self._accepted], self._lacking[self._accepted] = fixed_parts(image, bad)
        self._variances[self._accepted] = variance_of(image, bad)
        self._accepted += 1

    def _window(self, waiting: _Waiting, *, last: bool) -> Window | None:
        """The window, or None while it may still shift."""
        size = 2 * self._radius + waiting.accepted
        start = max(waiting.rank - self._radius, 0)
        if start + size > self._accepted:
            if not last:
                return None
            size = min(size, self._accepted)
            start = self._accepted - size
        return Window(start, start + size, waiting.rank if waiting.accepted else -1)

    def _release(self, *, last: bool) -> list[xr.DataArray]:
        done = []
        while self._waiting and (window := self._window(self._waiting[0], last=last)) is not None:
            done.append(self._corrected(self._waiting.popleft(), window))
            # the window of a movie that is left out is one shorter: at the end the next may begin one place before it
            for rank in [rank for rank in self._sums if rank < window.start - 1]:
                del self._sums[rank], self._variances[rank], self._lacking[rank]
        return done

    def _corrected(self, waiting: _Waiting, window: Window) -> xr.DataArray:
        movie, reference = waiting.movie, self._moving.mean(window)
        level, variance = moments(reference, waiting.bad)
        members = [self._variances[rank] for rank in range(window.start, window.stop) if rank != window.own]
        known = [value for value in members if np.isfinite(value)]
        single = sum(known) / max(len(known), 1)
        share = 1.0 if self._method == "plain" else wiener_share(variance, single, len(known))
        options = {"level": level, "share": share / movie.sizes[schema.FRAME]}

        def verb(given: xr.DataArray) -> xr.DataArray:
            whole = whole_images(given)
            image = (reference, (schema.Y, schema.X))
            out = whole.copy(data=blockwise(_subtract, whole, image, dtype=np.float32, **options))
            out.attrs = provenance.record(given.attrs, "koma", {"radius": self._radius, "method": self._method})
            return out

        return on_images(movie, verb)


def _subtract(block: NDArray[Any], reference: NDArray[Any], *, level: float, share: float) -> NDArray[np.float32]:
    out = np.empty(block.shape, np.float32)
    subtract(block, pattern(reference, level, share), out)
    return out
