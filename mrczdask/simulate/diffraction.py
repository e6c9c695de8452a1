"""Stills of serial crystallography: Bragg peaks of known place on the scattering of a solvent, lazy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import DTypeLike, NDArray

from mrczdask import schema
from mrczdask.kernels.philox import uniforms
from mrczdask.kernels.poisson import image_counts
from mrczdask.simulate.checks import check_count, check_range, checked_shape
from mrczdask.simulate.keys import key_of

_REACH: Final = 4
"""Standard deviations over which a spot is drawn."""
_FALL_OFF, _RING, _RING_WIDTH, _RING_HEIGHT, _FLOOR = 0.25, 0.45, 0.07, 0.6, 0.05
"""Of the background: length of the exponential, place and width of the solvent's ring (in half widths of the detector),
its height and that of what is everywhere (in those of the exponential at the centre)."""
_HALF: Final = 0.5
"""A pixel's centre is half a pixel from its outer edge."""
_DRAW_HIT, _DRAW_PLACE, _DRAW_COUNTS = 1, 2, 3


@dataclass(frozen=True)
class SimulatedStills:
    """Simulated frames and what was in them."""

    frames: xr.DataArray
    """Lazy counts (shot, y, x)."""
    background: NDArray[np.float64]
    """Expected counts of the background, (y, x)."""
    scene: _Scene
    """What the frames are computed from."""

    def truth(self, shot: int) -> NDArray[np.float64]:
        """(n, 3) y and x in pixels (an integer is the centre of one) and expected counts of the spots of a shot."""
        return self.scene.spots(shot)


def stills(
    n: int,
    shape: Sequence[int] = (512, 512),
    *,
    hit_rate: float = 0.5,
    spots: int = 60,
    strength: float = 300.0,
    width: float = 0.9,
    background: float = 20.0,
    beam_center: tuple[float, float] | None = None,
    dtype: DTypeLike = "uint16",
    seed: int = 0,
) -> SimulatedStills:
    """Simulate stills of crystals that hit the beam now and then, counted by a perfect detector.

    Parameters
    ----------
    n : int
        Shots.
    shape : sequence of int
        (y, x) of the detector.
    hit_rate : float
        Share of the shots with a crystal in the beam; the others are blank.
    spots : int
        Bragg peaks of a hit, at random places.
    strength : float
        Mean of the counts of a peak; they are exponentially distributed, as intensities of acentric crystals are
        (Wilson).
    width : float
        Standard deviation of a peak in pixels.
    background : float
        Counts a pixel at the centre: an exponential, a solvent ring and a floor.
    beam_center : (y, x), optional
        In pixels from the outer edge of the first, as `Geometry` has it; the middle of the detector where None.
    dtype : dtype
        An integer type; counts above its largest value are clipped to it.
    seed : int
        Another seed gives other shots.

    Returns
    -------
    SimulatedStills
        `frames`, lazy, one chunk a shot; `background`; `truth(shot)`, the peaks of a shot.

    Raises
    ------
    ValueError
        A parameter cannot be simulated.

    References
    ----------
    Wilson, Acta Cryst. 2 (1949) 318.

    Examples
    --------
    >>> import mrczdask as md
    >>> run = md.simulate.stills(4, (128, 128), seed=1)
    >>> run.frames.dims, [len(run.truth(shot)) for shot in range(4)]
    (('shot', 'y', 'x'), [0, 0, 60, 0])
    """
    ny, nx = checked_shape(shape, {2: "(y, x)"})
    check_count("stills", {"n": n, "spots": spots})
    check_range("stills", {"hit_rate": hit_rate}, 0, 1)
    check_range("stills", {"strength": strength, "background": background}, 0)
    check_range("stills", {"width": width}, 0.1)
    kind = np.dtype(dtype)
    if kind.kind not in "iu":
        raise ValueError(f"dtype={kind.name}: counts are integers")
    y0, x0 = (at - _HALF for at in beam_center or (ny / 2, nx / 2))  # from the centre of the first pixel
    key = key_of(seed, "stills", "counts")
    scene = _Scene(ny, nx, y0, x0, hit_rate, spots, strength, width, background, kind, key)
    data = da.map_blocks(
        scene.render,
        da.from_array(np.arange(n), chunks=1),
        chunks=((1,) * n, ny, nx),
        new_axis=(1, 2),
        dtype=kind,
        meta=np.empty((0, 0, 0), kind),
    )
    frames = xr.DataArray(data, {schema.SHOT: np.arange(n)}, (schema.SHOT, schema.Y, schema.X), schema.IMAGES)
    return SimulatedStills(frames, scene.background(), scene)


@dataclass(frozen=True)
class _Scene:
    ny: int
    nx: int
    y0: float
    x0: float
    hit_rate: float
    count: int
    strength: float
    width: float
    level: float
    dtype: np.dtype[Any]
    key: int

    def background(self) -> NDArray[np.float64]:
        y, x = np.ogrid[: self.ny, : self.nx]
        radius = np.hypot(y - self.y0, x - self.x0) / (min(self.ny, self.nx) / 2)
        ring = _RING_HEIGHT * np.exp(-(((radius - _RING) / _RING_WIDTH) ** 2))
        mean: NDArray[np.float64] = self.level * (np.exp(-radius / _FALL_OFF) + ring + _FLOOR)
        return mean

    def spots(self, shot: int) -> NDArray[np.float64]:
        key = np.uint64(self.key)
        if uniforms(1, shot, _DRAW_HIT, key)[0, 0] >= self.hit_rate:
            return np.empty((0, 3))
        margin = _REACH * self.width
        sizes = np.maximum(np.array([self.ny, self.nx]) - 1 - 2 * margin, 0)
        places = margin + uniforms(self.count, shot, _DRAW_PLACE, key) * sizes
        counts = -self.strength * np.log(uniforms(self.count, shot, _DRAW_COUNTS, key)[:, 0])
        return np.column_stack([places, counts])

    def render(self, shots: NDArray[Any]) -> NDArray[Any]:
        """The counts of some shots."""
        out = np.empty((shots.size, self.ny, self.nx), self.dtype)
        for image, shot in zip(out, shots, strict=True):
            mean = self.background()
            for y, x, counts in self.spots(int(shot)):
                self._draw(mean, y, x, counts)
            image_counts(mean, self.key, int(shot), 0, 0, image)
        return out

    def _draw(self, mean: NDArray[np.float64], y: float, x: float, counts: float) -> None:
        reach = _REACH * self.width
        parts, profiles = [], []
        for centre, size in ((y, self.ny), (x, self.nx)):
            pixels = np.arange(max(int(centre - reach), 0), min(int(centre + reach) + 2, size))
            parts.append(slice(pixels[0], pixels[-1] + 1))
            profiles.append(np.exp(-((pixels - centre) ** 2) / (2 * self.width**2)))
        profile = np.outer(*profiles)
        mean[tuple(parts)] += counts * profile / profile.sum()
