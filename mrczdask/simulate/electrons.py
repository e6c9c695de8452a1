"""Raw frames of a counting camera: single electrons whose charge spreads over pixels, with their true places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.kernels.normal import fill_normal
from mrczdask.kernels.philox import uniforms
from mrczdask.simulate.checks import check_range, checked_shape
from mrczdask.simulate.keys import key_of

_MOYAL_MEAN: Final = 1.2703628454614782
"""Mean of the standard Moyal distribution: Euler's constant + ln 2."""
_LEAST: Final = 0.2
"""Of the mean charge: an electron gives off no less."""
_REACH: Final = 3
"""Pixels on each side over which a charge is spread."""


@dataclass(frozen=True)
class ElectronFrames:
    """Simulated frames and what was in them."""

    raw: xr.DataArray
    """Lazy (frame, y, x) float32."""
    scene: _Scene
    """What the frames are computed from."""

    def truth(self, frame: int) -> NDArray[np.float64]:
        """(n, 2) y and x of the electrons of a frame, in pixels; an integer is the centre of one."""
        return self.scene.electrons(frame)[0]


def electron_frames(
    shape: Sequence[int],
    dose: float,
    *,
    charge: float = 100.0,
    landau: float = 0.15,
    spread: float = 0.45,
    read_noise: float = 3.0,
    seed: int = 0,
) -> ElectronFrames:
    """Simulate what a fast direct detector reads before electrons are counted.

    Parameters
    ----------
    shape : sequence of int
        (frame, y, x).
    dose : float
        Electrons a pixel and frame.
    charge : float
        Mean signal of an electron, all pixels together.
    landau : float
        Width of the distribution of charges (Moyal's approximation to Landau's), in mean charges.
    spread : float
        Standard deviation of the charge cloud, in pixels.
    read_noise : float
        Standard deviation of the noise of a pixel.
    seed : int
        Another seed gives other frames.

    Returns
    -------
    ElectronFrames
        `raw`, lazy, one chunk a frame; `truth(frame)` the places of its electrons.

    Raises
    ------
    ValueError
        The shape or a parameter cannot be simulated.

    References
    ----------
    Moyal, Phil. Mag. 46 (1955) 263.

    Examples
    --------
    >>> import mrczdask as md
    >>> frames = md.simulate.electron_frames((2, 64, 64), 0.01, seed=1)
    >>> frames.raw.dims, len(frames.truth(0))
    (('frame', 'y', 'x'), 29)
    """
    sizes = checked_shape(shape, {3: "(frame, y, x)"})
    for name, value in {"dose": dose, "read_noise": read_noise, "landau": landau}.items():
        check_range("electron_frames", {name: value}, 0)
    check_range("electron_frames", {"charge": charge, "spread": spread}, 1e-6)
    scene = _Scene(sizes[1], sizes[2], dose, charge, landau, spread, read_noise, key_of(seed, "electrons", "raw"))
    data = da.map_blocks(
        scene.render,
        da.from_array(np.arange(sizes[0]), chunks=1),
        chunks=((1,) * sizes[0], sizes[1], sizes[2]),
        new_axis=(1, 2),
        dtype=np.float32,
        meta=np.empty((0, 0, 0), np.float32),
    )
    raw = xr.DataArray(data, {schema.FRAME: np.arange(sizes[0])}, schema.MOVIE_DIMS, schema.IMAGES)
    return ElectronFrames(raw.assign_attrs({schema.COUNTS_PER_ELECTRON: charge}), scene)


@dataclass(frozen=True)
class _Scene:
    ny: int
    nx: int
    dose: float
    charge: float
    landau: float
    spread: float
    read_noise: float
    key: int

    def electrons(self, frame: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Places (n, 2) and charges (n,) of one frame."""
        from scipy import special, stats

        count = int(stats.poisson.ppf(uniforms(1, frame, 1, np.uint64(self.key))[0, 0], self.dose * self.ny * self.nx))
        places = uniforms(count, frame, 2, np.uint64(self.key)) * (self.ny, self.nx) - 0.5
        tail = uniforms(count, frame, 3, np.uint64(self.key))[:, 0]
        moyal = -2 * np.log(special.erfcinv(tail) * np.sqrt(2))  # quantiles of Moyal's distribution
        charges = self.charge * np.maximum(1 + self.landau * (moyal - _MOYAL_MEAN), _LEAST)
        return places, charges

    def render(self, numbers: NDArray[Any]) -> NDArray[np.float32]:
        """Frames of some numbers."""
        out = np.zeros((numbers.size, self.ny, self.nx), np.float32)
        for image, number in zip(out, numbers, strict=True):
            fill_normal(np.uint64(self.key), int(number), 0, 0, image)
            image *= np.float32(self.read_noise)
            self._add(image, *self.electrons(int(number)))
        return out

    def _add(self, image: NDArray[np.float32], places: NDArray[np.float64], charges: NDArray[np.float64]) -> None:
        from scipy.special import erf

        near = np.rint(places).astype(np.intp)
        edges = np.arange(-_REACH, _REACH + 2) - 0.5
        shares = []
        for axis in (0, 1):
            offset = edges[None, :] - (places[:, axis] - near[:, axis])[:, None]
            shares.append(np.diff(erf(offset / (self.spread * np.sqrt(2))) / 2, axis=1))
        for i in range(2 * _REACH + 1):
            for j in range(2 * _REACH + 1):
                y, x = near[:, 0] + i - _REACH, near[:, 1] + j - _REACH
                inside = (y >= 0) & (y < self.ny) & (x >= 0) & (x < self.nx)
                values = charges * shares[0][:, i] * shares[1][:, j]
                np.add.at(image, (y[inside], x[inside]), values[inside].astype(np.float32))
