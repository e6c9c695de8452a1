"""One simulation, whole: everything that decides a pixel, and the images it is made of."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrczdask.kernels.normal import normal_vector
from mrczdask.simulate.checks import check_range
from mrczdask.simulate.defects import Defects
from mrczdask.simulate.fields import flat_image
from mrczdask.simulate.gain import Gain
from mrczdask.simulate.keys import key_of
from mrczdask.simulate.pattern import Pattern
from mrczdask.simulate.readout import Readout
from mrczdask.simulate.specimen import Specimen

Image = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """Parameters of all movies; those in tuples are per movie, `seen` is the dose of the detector at its middle."""

    seed: int
    detector_seed: int
    names: tuple[str, ...]
    n_frames: int
    size: tuple[int, int]
    dose: tuple[float, ...]
    dose_rate: tuple[float, ...]
    gamma: tuple[float, ...]
    seen: tuple[float, ...]
    gain: Gain
    pattern: Pattern
    defects: Defects
    specimen: Specimen | None
    readout: Readout | None
    drift: float | NDArray[np.float64]
    coincidence_time: float

    @property
    def is_flat(self) -> bool:
        """Whether all pixels of a frame have one mean."""
        return self.gain.is_flat and self.pattern.is_flat and self.specimen is None and not self.defects.has_dead

    def response(self, movie: int, rows: range, cols: range) -> Image:
        """Response at the dose rate of the movie."""
        image = self.gain.response(self.detector_seed, self.size, rows, cols)
        return image if self.gamma[movie] == 1 else np.power(image, np.float32(self.gamma[movie]), out=image)

    def pattern_of(self, movie: int, rows: range, cols: range) -> Image:
        """What the electronics add, in electrons."""
        return self.pattern.image(self.detector_seed, self.seen[movie], rows, cols)

    def shifts(self, movie: int) -> NDArray[np.float64]:
        """(frame, 2) movement y, x of the specimen since the first frame, in pixels."""
        if isinstance(self.drift, np.ndarray):
            return self.drift[min(movie, len(self.drift) - 1)]
        if not self.drift:
            return np.zeros((self.n_frames, 2))
        steps = normal_vector(key_of(self.seed, self.names[movie], "drift"), 2 * self.n_frames).reshape(-1, 2)
        steps[0] = 0
        return self.drift * np.cumsum(steps, axis=0)

    def transmission(self, movie: int, shift: Iterable[float], rows: range, cols: range) -> Image:
        """The specimen, moved."""
        if self.specimen is None:
            return flat_image(1.0, rows, cols)
        dy, dx = map(float, shift)
        return self.specimen.image(self.seed, self.names[movie], self.size, rows, cols, (dy, dx))

    def detectable(self, movie: int, shift: Iterable[float], rows: range, cols: range) -> Image:
        """Electrons a frame that a detector without gain and defects finds at this dose rate."""
        seen = self.transmission(movie, shift, rows, cols)
        if self.coincidence_time:
            met = np.maximum(seen * np.float32(self.coincidence_time * self.dose_rate[movie]), np.float32(1e-6))
            seen *= -np.expm1(-met) / met
        seen *= np.float32(self.dose[movie])
        return seen

    def means(self, movie: int, frames: Iterable[int], rows: range, cols: range) -> Iterator[Image]:
        """What is expected in each frame without hot pixels: counts, or the electrons that will be read out.

        The same array again while the specimen does not move.
        """
        counting = self.readout is None
        response = self.response(movie, rows, cols) if counting and not self.gain.is_flat else None
        pattern = self.pattern_of(movie, rows, cols) if counting and not self.pattern.is_zero else None
        dead = self.defects.dead(self.detector_seed, self.size, rows, cols) if self.defects.has_dead else None
        shifts, last, mean = self.shifts(movie), None, None
        for frame in frames:
            if mean is None or (shifts[frame] != last).any():
                last = shifts[frame]
                mean = self.detectable(movie, last, rows, cols)
                if response is not None:
                    mean *= response
                if pattern is not None:
                    mean += pattern
                    np.maximum(mean, 0, out=mean)
                if dead is not None:
                    mean[dead] = 0
            yield mean


def make_scene(
    names: tuple[str, ...],
    sizes: tuple[int, ...],
    *,
    dose: float | Sequence[float],
    dose_rate: float | Sequence[float],
    gain: Gain | None,
    gamma: float | Sequence[float] | Callable[[float], float],
    pattern: Pattern | None,
    defects: Defects | None,
    specimen: Specimen | None,
    drift: float | ArrayLike,
    coincidence_time: float,
    readout: Readout | None,
    seed: int,
    detector_seed: int | None,
) -> Scene:
    """A scene of checked parameters."""
    given = {Gain: gain, Pattern: pattern, Defects: defects, Specimen: specimen, Readout: readout}
    for kind, value in given.items():
        if not (value is None or isinstance(value, kind)):
            name = kind.__name__
            raise TypeError(f"{name.lower()}={value!r}: give a simulate.{name}(...) or None")
    check_range("simulate", {"coincidence_time": coincidence_time}, 0)
    doses = _per_movie("dose", dose, len(names), 0)
    rates = _per_movie("dose_rate", dose_rate, len(names), 1e-9)
    gammas = [float(gamma(rate)) for rate in rates] if callable(gamma) else gamma
    total = np.array(doses) * sizes[0]
    return Scene(
        seed=operator.index(seed),
        detector_seed=operator.index(seed if detector_seed is None else detector_seed),
        names=names,
        n_frames=sizes[0],
        size=(sizes[1], sizes[2]),
        dose=doses,
        dose_rate=rates,
        gamma=_per_movie("gamma", gammas, len(names), -10, 10),
        seen=tuple((np.cumsum(total) - total / 2).tolist()),
        gain=gain or Gain(),
        pattern=pattern or Pattern(),
        defects=defects or Defects(),
        specimen=specimen,
        readout=readout,
        drift=_positions(drift, len(names), sizes[0]),
        coincidence_time=float(coincidence_time),
    )


def _per_movie(name: str, value: Any, count: int, low: float, high: float = math.inf) -> tuple[float, ...]:
    values = np.asarray(value, float)
    if values.ndim > 1 or (values.ndim == 1 and len(values) != count):
        raise ValueError(f"{name} has the shape {values.shape}: give one number, or one for each of {count} movies")
    for one in np.unique(values):
        check_range("simulate", {name: one}, low, high)
    return tuple(np.broadcast_to(values, count).tolist())


def _positions(drift: float | ArrayLike, movies: int, frames: int) -> float | NDArray[np.float64]:
    """The step of a random walk, or (1 or movie, frame, 2) positions."""
    values = np.asarray(drift, float)
    if values.ndim == 0:
        check_range("simulate", {"drift": float(values)}, 0)
        return float(values)
    if values.shape not in ((frames, 2), (movies, frames, 2)) or not np.isfinite(values).all():
        wanted = f"a number, or finite positions ({frames}, 2) or ({movies}, {frames}, 2)"
        raise ValueError(f"drift has the shape {values.shape}: give {wanted}")
    return values.reshape(-1, frames, 2)
