"""4D-STEM scans of a crystal: convergent-beam patterns with known means, lazy, the same counts for any chunking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import DTypeLike, NDArray

from mrczdask.kernels.poisson import image_counts
from mrczdask.simulate.checks import check_range, checked_shape
from mrczdask.simulate.flat import COUNTS
from mrczdask.simulate.keys import key_of

SCAN_DIMS: Final = ("scan_y", "scan_x", "ky", "kx")
_ORDERS: Final = 2
"""Reflections up to this order along both axes: 25 disks."""
_SPACING, _RADIUS, _EDGE = 0.17, 0.062, 0.0055
"""Distance and radius of the disks and the width of their edges, in widths of the detector."""
_FALL_OFF: Final = 0.9
_MODULATION: Final = 0.15
"""Neighbouring disks interfere where they overlap: intensities swing this much as the probe crosses a cell."""
_CELL: Final = 8.0
"""Probe positions a unit cell."""
_DIFFUSE, _DIFFUSE_WIDTH = 0.15, 0.11
"""Share and half width of the diffuse scattering, a squared Lorentzian."""


@dataclass(frozen=True)
class StemScan:
    """A simulated scan and what was expected of it."""

    counts: xr.DataArray
    """Lazy electrons (scan_y, scan_x, ky, kx)."""
    means: xr.DataArray
    """Lazy expected electrons, float64."""


def stem(
    scan_shape: Sequence[int] = (16, 32),
    detector_shape: Sequence[int] = (128, 128),
    *,
    electrons_per_pattern: float = 1e4,
    dtype: DTypeLike = "uint16",
    seed: int = 0,
    chunks: Any = None,
) -> StemScan:
    """Convergent-beam electron diffraction patterns of a scanned crystal, counted by a perfect detector.

    Parameters
    ----------
    scan_shape, detector_shape : sequence of int
        (scan_y, scan_x) and (ky, kx).
    electrons_per_pattern : float
        Electrons expected in each pattern.
    dtype : dtype
        An integer type; counts above its largest value are clipped to it.
    seed : int
        Another seed gives other, independent counts of the same means.
    chunks : optional
        Dask chunks of (scan_y, scan_x, ky, kx); the pixels do not depend on them. None: whole scan lines.

    Returns
    -------
    StemScan
        `counts` and `means`, both lazy.

    Raises
    ------
    ValueError
        A shape, the dose or the dtype cannot be simulated.

    Notes
    -----
    The mean pattern at probe position r is proportional to sum_g exp(-0.9 |g|^2) (1 + 0.15 cos(2 pi g r)) D(k - g)
    plus 15 % of a squared Lorentzian; D is a disk with soft edges, g has the orders -2..2. It is a caricature of a
    multislice simulation, with the statistics that matter to codecs: independent Poisson counts around smooth means.

    Examples
    --------
    >>> import mrczdask as md
    >>> scan = md.simulate.stem((2, 3), (64, 64), electrons_per_pattern=1000)
    >>> scan.counts.dims
    ('scan_y', 'scan_x', 'ky', 'kx')
    >>> scan.means.sum(("ky", "kx")).round(3).values.tolist()
    [[1000.0, 1000.0, 1000.0], [1000.0, 1000.0, 1000.0]]
    """
    shape = (
        *checked_shape(scan_shape, {2: "(scan_y, scan_x)"}),
        *checked_shape(detector_shape, {2: "(ky, kx)"}),
    )
    check_range("stem", {"electrons_per_pattern": electrons_per_pattern}, 0)
    kind = np.dtype(dtype)
    if kind.kind not in "iu":
        raise ValueError(f"dtype={kind.name}: counts are integers")
    crystal = _Crystal(shape[2], shape[3], float(electrons_per_pattern))
    chunks = chunks if chunks is not None else (1, -1, -1, -1)
    counts = _Scan(shape, kind, crystal, key_of(seed, "stem", COUNTS))
    means = _Scan(shape, np.dtype(float), crystal, None)
    return StemScan(_labelled(counts, "counts", chunks), _labelled(means, "means", chunks))


def _labelled(scan: _Scan, name: str, chunks: Any) -> xr.DataArray:
    lazy = da.from_array(scan, chunks, meta=np.empty((0,) * 4, scan.dtype), asarray=False)
    return xr.DataArray(lazy, dims=SCAN_DIMS, name=name)


@dataclass(frozen=True)
class _Crystal:
    """Mean patterns of one detector and dose."""

    ny: int
    nx: int
    electrons: float

    def mean(self, y: int, x: int) -> NDArray[np.float64]:
        """Expected electrons of one probe position; summed in a fixed order, so that it is the same everywhere."""
        total = np.zeros((self.ny, self.nx))
        disks, diffuse = _scattering(self.ny, self.nx)
        for (h, k), disk in disks:
            total += disk * (1 + _MODULATION * np.cos(2 * np.pi * (h * y + k * x) / _CELL))
        return self.electrons * ((1 - _DIFFUSE) * total / total.sum() + diffuse)


@lru_cache(maxsize=2)
def _scattering(ny: int, nx: int) -> tuple[list[tuple[tuple[int, int], NDArray[np.float64]]], NDArray[np.float64]]:
    """((h, k), disk) of every reflection, and the diffuse scattering."""
    y, x = ((np.arange(n) + 0.5) / n - 0.5 for n in (ny, nx))
    disks = []
    for h in range(-_ORDERS, _ORDERS + 1):
        for k in range(-_ORDERS, _ORDERS + 1):
            radius = np.hypot(y[:, None] - h * _SPACING, x - k * _SPACING)
            fall = np.exp(-_FALL_OFF * (h * h + k * k))
            disks.append(((h, k), fall / (1 + np.exp((radius - _RADIUS) / _EDGE))))
    diffuse = (1 + np.hypot(y[:, None], x) ** 2 / _DIFFUSE_WIDTH**2) ** -2
    return disks, _DIFFUSE * diffuse / diffuse.sum()


@dataclass(frozen=True)
class _Scan:
    """An array that is computed when it is indexed; without a key the means."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    crystal: _Crystal
    key: int | None

    ndim = 4

    def __getitem__(self, index: Any) -> NDArray[Any]:
        index = index if isinstance(index, tuple) else (index,)
        index += (slice(None),) * (4 - len(index))
        ys, xs, *pixels = (np.atleast_1d(np.arange(n)[part]) for n, part in zip(self.shape, index, strict=True))
        out = np.empty([len(part) for part in (ys, xs, *pixels)], self.dtype)
        for j, y in enumerate(ys):
            for i, x in enumerate(xs):
                out[j, i] = self._pattern(int(y), int(x))[np.ix_(*pixels)]
        scalar = (isinstance(part, int | np.integer) for part in index)
        return np.asarray(out[tuple(0 if one else slice(None) for one in scalar)])

    def _pattern(self, y: int, x: int) -> NDArray[Any]:
        mean = self.crystal.mean(y, x)
        if self.key is None:
            return mean
        counts = np.empty(mean.shape, self.dtype)
        image_counts(mean, self.key, y * self.shape[1] + x, 0, 0, counts)
        return counts
