"""The images that a gain is estimated from: frames, or sums of them where the dose of a frame is too low to rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import dask
import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.execution.schedulers import n_threads
from mrczdask.execution.shared import shared
from mrczdask.io.movie_array import lazy_source
from mrczdask.kernels.usable import mended_images, unusable
from mrczdask.movies.sums import STREAM_BYTES, float_sum, sum_dtype, sum_frames

SAMPLE_MOVIES: Final = 4
SAMPLE_FRAMES: Final = 2
"""Frames read to learn the dose: it decides how many are summed, to a whole number only."""
REGIONS_PER_THREAD: Final = 3
"""Regions a thread works through: the last ones leave a thread idle for a third of its time at most."""
REGION_BYTES: Final = 256 << 20
"""Most pixels of a region, as stored."""


NEARLY: Final = 0.95
"""Part of the dose asked for that will do: a movie of 20 frames of nominally 2 e/pixel makes 40."""
NOT_FINITE: Final = "frames hold NaN or infinity: fill them first, with fill_outliers for instance"


@dataclass(frozen=True)
class Movies:
    """Movies of one shape (movie, frame, y, x), their labels and the counts that an electron makes."""

    pixels: Any
    labels: xr.DataArray | None
    counts_per_electron: float
    mask: NDArray[np.bool_]
    source: Any | None = None
    """What `pixels` reads from, if it is exactly that: summed frame by frame, whatever the chunks."""

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x)."""
        return self.pixels.shape[-2], self.pixels.shape[-1]

    def names(self, first: int, last: int) -> str:
        """The movies first ... last - 1, by name where they have one."""
        known = self.labels is not None and schema.MOVIE in self.labels.coords
        names = np.atleast_1d(self.labels[schema.MOVIE].values) if known and self.labels is not None else None
        chosen = [f"movie {k}" if names is None else str(names[k]) for k in (first, last - 1)]
        return chosen[0] if last - first == 1 else f"{chosen[0]} to {chosen[1]}"

    @property
    def n_movies(self) -> int:
        """Number of movies."""
        return int(self.pixels.shape[0])

    @property
    def n_frames(self) -> int:
        """Frames of a movie."""
        return int(self.pixels.shape[1])


@dataclass(frozen=True)
class Group:
    """Frames [first, end) of movies [movie, last): ranked one by one, or as their sum."""

    movie: int
    last: int
    first: int
    end: int
    summed: bool

    def of(self, movies: Movies) -> Any:
        """(image, y, x): the frames, or their sum; pixels of floats that are no numbers are refused unless masked."""
        if self.summed and movies.source is not None:
            images: Any = dask.delayed(_streamed, pure=False)(movies.source, self)
        else:
            frames = movies.pixels[self.movie : self.last, self.first : self.end]
            images = sum_frames(frames.reshape(-1, *movies.shape))[None] if self.summed else frames[0]
        if movies.pixels.dtype.kind != "f":
            return images
        hidden = movies.mask if movies.mask.any() else None
        return dask.delayed(_usable, pure=False)(images, shared(hidden), movies.names(self.movie, self.last))


def _usable(images: NDArray[Any], hidden: NDArray[np.bool_] | None, name: str) -> NDArray[Any]:
    """Images whose unusable pixels are filled from their neighbours where the mask names them, else refused."""
    odd = unusable(images)
    if odd is None:
        return images
    new = odd if hidden is None else odd & ~hidden
    if new.any():
        _, y, x = np.argwhere(new)[0].tolist()
        count = np.count_nonzero(new.any(axis=0))
        raise ValueError(
            f"{name}: {count} pixels, such as y={y}, x={x}, are beyond 2**53, NaN or infinity: fill them first, with "
            "fill_outliers for instance, or name them in the coordinate mask"
        )
    return mended_images(images)


def _streamed(source: Any, group: Group) -> NDArray[Any]:
    """Sum of the frames of a group (1, y, x), a few read at a time."""
    ny, nx = source.shape[-2:]
    total = np.zeros((ny, nx), sum_dtype(source.dtype))
    step = max(STREAM_BYTES // (4 * ny * nx), 1)
    for movie in range(group.movie, group.last):
        which = (movie,) if len(source.shape) == 4 else ()
        for first in range(group.first, group.end, step):
            part = slice(first, min(first + step, group.end))
            frames = np.asarray(source[(*which, part, slice(0, ny), slice(0, nx))])
            total += float_sum(frames, 0) if frames.dtype.kind == "f" else frames.sum(axis=0, dtype=total.dtype)
    return total[None]


def as_movies(movie: Any, verb: str) -> Movies:
    """Take a movie or a session, labelled or not; refuse what cannot hold a gain."""
    images = movie[schema.IMAGES] if isinstance(movie, xr.Dataset) else movie
    labels = images if isinstance(images, xr.DataArray) else None
    if labels is not None:
        wanted = [dim for dim in schema.SESSION_DIMS if dim != schema.MOVIE or dim in labels.dims]
        if set(labels.dims) != set(wanted):
            raise ValueError(
                f"{verb} needs the dims (movie, frame, y, x) or (frame, y, x), the array has {labels.dims}"
            )
        images = labels.transpose(*wanted).data
    if not hasattr(images, "shape") or not hasattr(images, "dtype"):
        images = np.asarray(images)
    if images.ndim not in (3, 4):
        raise ValueError(f"{verb} needs (frame, y, x) or (movie, frame, y, x), the array has the shape {images.shape}")
    if images.dtype.kind not in "biuf":
        raise ValueError(f"{verb} needs real pixels, the array holds {images.dtype}")
    pixels = images[None] if images.ndim == 3 else images
    if min(pixels.shape[:2]) < 1 or min(pixels.shape[2:]) < 2:
        raise ValueError(
            f"{verb} compares rows with rows and columns with columns: it needs at least 2 of each and a frame, "
            f"the array has the shape {images.shape}"
        )
    attrs = {} if labels is None else labels.attrs
    counts = float(attrs.get(schema.COUNTS_PER_ELECTRON) or 1.0)
    source = lazy_source(images) if isinstance(images, da.Array) else None
    return Movies(pixels, labels, counts, _mask_of(labels, pixels.shape), source)


def _mask_of(labels: xr.DataArray | None, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Pixels that are bad in any movie, by the coordinate `mask`."""
    if labels is None or "mask" not in labels.coords:
        return np.zeros(shape[-2:], bool)
    mask = labels.coords["mask"]
    others = [dim for dim in mask.dims if dim not in (schema.Y, schema.X)]
    return np.asarray(mask.astype(bool).any(others).transpose(schema.Y, schema.X).values)


def electrons_per_frame(movies: Movies, verb: str) -> float:
    """Electrons per pixel and frame, from a few frames."""
    n_movies, n_frames = movies.n_movies, movies.n_frames
    chosen = np.unique(np.linspace(0, n_movies - 1, min(SAMPLE_MOVIES, n_movies)).astype(int))
    frames = np.unique(np.linspace(0, n_frames - 1, min(SAMPLE_FRAMES, n_frames)).astype(int))
    means = [_mean(np.asarray(movies.pixels[m, f])) for m in chosen for f in frames]
    if not np.isfinite(means).all():
        raise ValueError(f"{verb}: {NOT_FINITE}")
    if not np.mean(means) > 0:
        raise ValueError(
            f"{verb}: the mean of the frames is {np.mean(means):.3g}: a gain needs counts above 0, "
            "subtract the dark reference or the offset first"
        )
    return float(np.mean(means)) / movies.counts_per_electron


def _mean(frame: NDArray[Any]) -> float:
    """Mean of the pixels that are numbers; NaN for none."""
    odd = unusable(frame)
    if odd is not None and odd.all():
        return float("nan")
    return float((frame if odd is None else frame[~odd]).mean(dtype="f8"))


def groups_of(movies: Movies, frame_dose: float, sum_to: float | None) -> list[Group]:
    """Groups of frames to rank one by one, or of frames to sum to `sum_to` e/pixel first."""
    n_movies, n_frames = movies.n_movies, movies.n_frames
    needed = 1 if sum_to is None else int(np.ceil(NEARLY * sum_to / frame_dose))
    if needed <= 1:
        return [Group(m, m + 1, a, b, False) for m in range(n_movies) for a, b in _runs(n_frames, _block(movies))]
    if needed <= n_frames:
        parts = [(part[0], part[-1] + 1) for part in np.array_split(np.arange(n_frames), n_frames // needed)]
        return [Group(m, m + 1, int(a), int(b), True) for m in range(n_movies) for a, b in parts]
    together = min(-(-needed // n_frames), n_movies)
    edges = np.linspace(0, n_movies, n_movies // together + 1).astype(int)
    return [Group(int(a), int(b), 0, n_frames, True) for a, b in pairwise(edges)]


def _block(movies: Movies) -> int:
    """Frames in one region."""
    frame_bytes = movies.pixels.dtype.itemsize * movies.shape[0] * movies.shape[1]
    wanted = -(-movies.n_frames * movies.n_movies // (REGIONS_PER_THREAD * n_threads()))
    return max(1, min(wanted, REGION_BYTES // frame_bytes))


def _runs(total: int, size: int) -> Iterator[tuple[int, int]]:
    return ((a, min(a + size, total)) for a in range(0, total, size))


def electrons_per_image(groups: Sequence[Group], frame_dose: float) -> float:
    """Mean dose of what is ranked."""
    if not groups[0].summed:
        return frame_dose
    return frame_dose * float(np.mean([(g.last - g.movie) * (g.end - g.first) for g in groups]))
