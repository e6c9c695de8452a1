"""Fluorescence images of a camera with known truth: a grid of single molecules, and cells."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import erf

from mrczdask import schema
from mrczdask.kernels.normal import fill_normal
from mrczdask.kernels.poisson import image_counts
from mrczdask.simulate.checks import check_range, checked_shape
from mrczdask.simulate.fields import normal_image
from mrczdask.simulate.flat import COUNTS
from mrczdask.simulate.frames import Chunks, make_grid, movie_name, movie_names
from mrczdask.simulate.keys import key_of
from mrczdask.simulate.readout import Readout

CAMERA: Final = Readout(counts_per_electron=2.1, offset=100.0, read_noise=1.6)
"""A scientific CMOS camera: typical numbers of the data sheets."""
_STEP: Final = 0.1
"""Pixels by which the centre of each spot is further off the pixel grid than that of the spot before it ([B])."""


@dataclass(frozen=True)
class Fluorescence:
    """Simulated images and their truth.

    Parameters
    ----------
    images : xarray.DataArray
        Lazy uint16 (frame, y, x), digital numbers.
    means : numpy.ndarray
        (y, x) float64, electrons expected; the same in every frame.
    positions : numpy.ndarray
        (spot, 2) float64, centres (y, x) in pixels; empty without spots.
    readout : Readout
        The camera.

    Examples
    --------
    >>> import mrczdask as md
    >>> md.simulate.localisation(4, spots=(2, 3)).positions.shape
    (6, 2)
    """

    images: xr.DataArray
    means: NDArray[np.float64]
    positions: NDArray[np.float64]
    readout: Readout


def localisation(
    n_frames: int = 100,
    spots: Sequence[int] = (10, 10),
    *,
    photons: float = 500.0,
    background: float = 10.0,
    sigma: float = 1.0,
    spacing: int = 16,
    readout: Readout = CAMERA,
    seed: int = 0,
    chunks: Chunks = "auto",
) -> Fluorescence:
    """Single molecules on a grid, each at another offset from the pixels.

    Parameters
    ----------
    n_frames : int
        Images of the same molecules.
    spots : sequence of int
        Rows and columns of spots.
    photons, background : float
        Electrons expected of a spot, and of the background in a pixel.
    sigma : float
        Standard deviation of a spot, pixels.
    spacing : int
        Distance of the spots, pixels.
    readout : Readout
        The camera.
    seed : int
        Another seed gives other, independent noise.
    chunks : "auto", mapping, int or tuple
        Dask chunks of (frame, y, x); the pixels do not depend on them.

    Returns
    -------
    Fluorescence
        Images, means and positions.

    Raises
    ------
    ValueError
        A parameter is out of its range.

    Notes
    -----
    A pixel expects photons * E_y * E_x + background electrons, E the integral of a normal density over the pixel.
    Spot (i, j) is (0.1 i, 0.1 j) pixels off the centre of its pixel, modulo 1.

    References
    ----------
    Balazs et al., "A real-time compression library for microscopy images", online methods: simulation of
    single-molecule localisation data.

    Examples
    --------
    >>> import mrczdask as md
    >>> truth = md.simulate.localisation(5, (4, 4), photons=300)
    >>> truth.images.shape, truth.positions[5].tolist()
    ((5, 64, 64), [24.1, 24.1])
    """
    rows, columns = checked_shape(spots, {2: "(rows, columns) of spots"})
    limits = {"photons": photons, "background": background, "spacing": spacing - 1, "sigma": sigma}
    check_range("localisation", limits, 0)
    i, j = np.divmod(np.arange(rows * columns), columns)
    positions = np.stack([i * spacing + spacing // 2 + _STEP * i % 1, j * spacing + spacing // 2 + _STEP * j % 1], 1)
    means = photons * _spots(positions, (rows * spacing, columns * spacing), sigma) + background
    return _recorded(operator.index(n_frames), means, positions, readout, seed, chunks)


def fluorescence(
    shape: Sequence[int] = (8, 512, 512),
    *,
    dim: float = 5.0,
    bright: float = 200.0,
    readout: Readout = CAMERA,
    seed: int = 0,
    chunks: Chunks = "auto",
) -> Fluorescence:
    """Smooth bright structures on a dim background, as cells under a fluorescence microscope.

    Parameters
    ----------
    shape : sequence of int
        (frame, y, x).
    dim, bright : float
        Electrons a pixel expects in the background and in the brightest structures.
    readout : Readout
        The camera.
    seed : int
        Another seed gives another specimen and other noise.
    chunks : "auto", mapping, int or tuple
        Dask chunks; the pixels do not depend on them.

    Returns
    -------
    Fluorescence
        Images and means; no positions.

    Raises
    ------
    ValueError
        A parameter is out of its range.

    Examples
    --------
    >>> import mrczdask as md
    >>> cells = md.simulate.fluorescence((2, 64, 64))
    >>> cells.images.dtype, bool(cells.means.min() >= 5)
    (dtype('uint16'), True)
    """
    n_frames, ny, nx = checked_shape(shape, {3: "(frame, y, x)"})
    check_range("fluorescence", {"dim": dim, "bright": bright - dim}, 0)
    means = dim + (bright - dim) * _cells(seed, ny, nx)
    return _recorded(n_frames, means, np.empty((0, 2)), readout, seed, chunks)


def _recorded(
    n_frames: int,
    means: NDArray[np.float64],
    positions: NDArray[np.float64],
    readout: Readout,
    seed: int,
    chunks: Chunks,
) -> Fluorescence:
    attrs = {schema.COUNTS_PER_ELECTRON: readout.counts_per_electron, schema.ORIGIN: "lower"}
    grid = make_grid((n_frames, *means.shape), movie_names(1), chunks)
    camera = _Camera(means, readout, operator.index(seed))
    images = grid.array(camera, schema.SESSION_DIMS, np.dtype("uint16"), schema.IMAGES, attrs)
    return Fluorescence(images, means, positions, readout)


def _spots(positions: NDArray[np.float64], shape: tuple[int, int], sigma: float) -> NDArray[np.float64]:
    """Sum of unit Gaussians integrated over the pixels."""
    edges = [(np.arange(n + 1) - 0.5 - positions[:, axis, None]) / (sigma * np.sqrt(2)) for axis, n in enumerate(shape)]
    rows, columns = (np.diff(erf(edge), axis=1) / 2 for edge in edges)
    total = np.zeros(shape)
    for row, column in zip(rows, columns, strict=True):  # in a fixed order: the same sum everywhere
        y, x = np.flatnonzero(row > 1e-12), np.flatnonzero(column > 1e-12)
        total[y[0] : y[-1] + 1, x[0] : x[-1] + 1] += row[y, None] * column[x]
    return total


@lru_cache(maxsize=2)
def _cells(seed: int, ny: int, nx: int) -> NDArray[np.float64]:
    """Smooth structures at two scales, from 0 to 1."""
    parts = []
    for scale in (2.5, 12.0):
        noise = normal_image(key_of(seed, "cells", str(scale)), range(ny), range(nx)).astype(float)
        smooth = gaussian_filter(noise, scale, mode="wrap")
        parts.append(smooth / max(float(smooth.std()), 1e-12))
    cells = np.exp(0.5 * parts[0] + 1.2 * parts[1])
    cells /= cells.max()
    cells.flags.writeable = False
    return cells


@dataclass(frozen=True, eq=False)
class _Camera:
    """Renders frames of the same means."""

    means: NDArray[np.float64]
    readout: Readout
    seed: int

    def __call__(self, movie: int, frames: NDArray[np.int64], rows: range, cols: range, out: NDArray[Any]) -> None:
        name = movie_name(movie)
        electrons, noise = (key_of(self.seed, name, purpose) for purpose in (COUNTS, "read noise"))
        means = self.means[rows.start : rows.stop, cols.start : cols.stop]
        counts, read = np.empty(means.shape, np.int64), np.empty(means.shape)
        limits = np.iinfo(out.dtype)
        for image, frame in zip(out, frames, strict=True):
            image_counts(means, electrons, int(frame), rows.start, cols.start, counts)
            fill_normal(np.uint64(noise), int(frame), rows.start, cols.start, read)
            charge = self.readout.counts_per_electron * (counts + self.readout.read_noise * read) + self.readout.offset
            image[...] = np.clip(np.rint(charge), limits.min, limits.max)
