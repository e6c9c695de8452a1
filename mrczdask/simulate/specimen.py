"""What the electrons meet: ice, particles, carbon film. Evaluated at any position, so drift is exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.philox import uniforms
from mrczdask.kernels.scenery import add_waves, shade_film, shade_particles
from mrczdask.simulate.checks import check_count, check_range
from mrczdask.simulate.fields import flat_image, smooth_waves
from mrczdask.simulate.keys import key_of

ICE_WAVELENGTHS: Final = (1 / 6, 2.0)
"""Shortest and longest, in sizes of the frame."""
GRAIN_PIXELS: Final = (4.0, 24.0)
GRAIN_SD: Final = 0.2
"""Wavelengths of the grain of the film, and its standard deviation relative to the contrast of the film."""
FILM_EDGE_PIXELS: Final = 6.0


@dataclass(frozen=True, kw_only=True)
class Specimen:
    """Relative transmission of a specimen, another one for each movie.

    Parameters
    ----------
    ice_sd : float
        Standard deviation of the slow variations of the ice.
    particles : int
        Number of particles a movie, at random places.
    particle_diameter : float
        Diameter in pixels.
    particle_contrast : float
        Share of the electrons that are missing in the middle of a particle, 0 to 1.
    carbon : float or sequence of str
        Movies with carbon film around a hole: each with this probability, or those named.
    carbon_contrast : float
        Share of the electrons that are missing behind the film, 0 to 1.

    Raises
    ------
    ValueError
        A parameter is out of its range.

    Notes
    -----
    transmission = (1 + ice)(1 - particle_contrast exp(-(r / radius)**4))(1 - carbon_contrast film), the ice a sum of
    12 plane waves, the film 1 outside of a hole whose edge is in the field of view, with a fine grain. Which movies
    have film depends on seed and name of the movie alone.

    Examples
    --------
    >>> import mrczdask as md
    >>> ice = md.simulate.Specimen(ice_sd=0.05, particles=20, particle_contrast=0.2, carbon=0.1)
    >>> session, truth = md.simulate.session(20, (4, 256, 256), dose=2, specimen=ice)
    >>> int(truth.carbon.sum()) in range(0, 7)
    True
    >>> truth.specimen.dims
    ('movie', 'y', 'x')
    """

    ice_sd: float = 0.0
    particles: int = 0
    particle_diameter: float = 40.0
    particle_contrast: float = 0.1
    carbon: float | Sequence[str] = 0.0
    carbon_contrast: float = 0.4

    def __post_init__(self) -> None:
        check_range("Specimen", {"ice_sd": self.ice_sd}, 0, 0.5)
        check_count("Specimen", {"particles": self.particles})
        check_range("Specimen", {"particle_diameter": self.particle_diameter}, 1)
        contrasts = {"particle_contrast": self.particle_contrast, "carbon_contrast": self.carbon_contrast}
        check_range("Specimen", contrasts, 0, 1)
        if isinstance(self.carbon, int | float):
            check_range("Specimen", {"carbon": self.carbon}, 0, 1)
        else:
            names = (self.carbon,) if isinstance(self.carbon, str) else tuple(self.carbon)
            object.__setattr__(self, "carbon", names)

    def has_carbon(self, seed: int, name: str) -> bool:
        """Whether the movie of this name shows carbon film."""
        if isinstance(self.carbon, tuple):
            return name in self.carbon
        assert isinstance(self.carbon, int | float)
        return bool(_draws(1, seed, name, "carbon")[0, 0] < self.carbon)

    def image(
        self, seed: int, name: str, size: tuple[int, int], rows: range, cols: range, shift: tuple[float, float]
    ) -> NDArray[np.float32]:
        """(len(rows), len(cols)) of the frame in which the specimen has moved by `shift` (y, x) pixels."""
        at = (rows.start, cols.start, *shift)
        out = flat_image(1.0, rows, cols)
        if self.ice_sd:
            shortest, longest = (share * max(size) for share in ICE_WAVELENGTHS)
            add_waves(smooth_waves(key_of(seed, name, "ice"), self.ice_sd, shortest, longest), *at, out)
        if self.has_carbon(seed, name):
            grain = flat_image(0.0, rows, cols)
            add_waves(smooth_waves(key_of(seed, name, "grain"), GRAIN_SD, *GRAIN_PIXELS), *at, grain)
            shade_film(_hole(seed, name, size), grain, self.carbon_contrast, *at, out)
        if self.particles:
            centres = _draws(self.particles, seed, name, "particles") * size
            shade_particles(centres, self.particle_diameter / 2, self.particle_contrast, *at, out)
        return np.maximum(out, 0, out=out)


def _hole(seed: int, name: str, size: tuple[int, int]) -> NDArray[np.float64]:
    """A hole of 0.5 to 1 times the frame, its edge through the inner half of the frame."""
    u = _draws(2, seed, name, "hole").ravel()
    radius, direction = max(size) * (0.5 + 0.5 * u[0]), 2 * np.pi * u[1]
    edge = np.array(size) / 2 * (0.5 + u[2:])
    centre = edge - radius * np.array([np.sin(direction), np.cos(direction)])
    return np.array([*centre, radius, FILM_EDGE_PIXELS])


def _draws(count: int, seed: int, name: str, purpose: str) -> NDArray[np.float64]:
    return uniforms(count, 0, 0, np.uint64(key_of(seed, name, purpose)))
