"""Renderers: the raw frames of a scene, what is expected of them, and its still images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.normal import fill_normal
from mrczdask.kernels.poisson import add_counts, flat_counts, image_counts
from mrczdask.simulate.defects import DEAD, HOT, Pixels
from mrczdask.simulate.fields import flat_image
from mrczdask.simulate.flat import COUNTS
from mrczdask.simulate.keys import key_of
from mrczdask.simulate.readout import Readout
from mrczdask.simulate.scene import Image, Scene

Frames = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Raw:
    """The frames as a detector records them."""

    scene: Scene

    def __call__(self, movie: int, frames: Frames, rows: range, cols: range, out: NDArray[Any]) -> None:
        electrons = _Electrons(self.scene, movie, rows, cols)
        charge = _Charge(self.scene, self.scene.readout, movie, rows, cols) if self.scene.readout else None
        for mean, frame, image in zip(electrons.means(frames), frames, out, strict=True):
            if charge is None:
                electrons.draw(mean, int(frame), image)
                continue
            counts = np.empty(image.shape, np.float32)
            electrons.draw(mean, int(frame), counts)
            _store(charge.read(charge.of(counts), int(frame)), image)


class _Electrons:
    """Draws the electrons of one movie in one rectangle: in a counting detector those it records."""

    def __init__(self, scene: Scene, movie: int, rows: range, cols: range):
        self._scene, self._movie, self._rows, self._cols = scene, movie, rows, cols
        name = scene.names[movie]
        self._keys = key_of(scene.seed, name, COUNTS), key_of(scene.seed, name, "hot counts")
        self._hot = hot_pixels(scene, movie, rows, cols)

    def means(self, frames: Frames) -> Iterator[Image]:
        """The mean of each frame; one number seen as an image where all pixels have it."""
        if not self._scene.is_flat:
            return self._scene.means(self._movie, frames, self._rows, self._cols)
        (mean,) = self._scene.means(self._movie, [0], range(1), range(1))
        return repeat(np.broadcast_to(mean, (len(self._rows), len(self._cols))), len(frames))

    def draw(self, mean: Image, frame: int, out: NDArray[Any]) -> None:
        """Fill (ny, nx), clipped to its dtype."""
        corner = self._rows.start, self._cols.start
        if self._scene.is_flat:
            flat_counts(float(mean[0, 0]), self._keys[0], frame, *corner, out)
        else:
            image_counts(mean, self._keys[0], frame, *corner, out)
        y, x, excess = self._hot
        if len(y):
            add_counts(excess, (y, x), mean, self._keys, frame, *corner, out)


class _Charge:
    """What an integrating detector makes of electrons."""

    def __init__(self, scene: Scene, readout: Readout, movie: int, rows: range, cols: range):
        self._readout, self._corner = readout, (rows.start, cols.start)
        self._response, self._pattern = scene.response(movie, rows, cols), scene.pattern_of(movie, rows, cols)
        self._key = np.uint64(key_of(scene.seed, scene.names[movie], "read noise"))

    def of(self, electrons: Image) -> Image:
        """Charge in electrons, without noise."""
        electrons *= self._response
        electrons += self._pattern
        return electrons

    def read(self, charge: Image, frame: int | None = None) -> Image:
        """Digital numbers, with the read noise of a frame."""
        if frame is not None and self._readout.read_noise:
            noise = np.empty_like(charge)
            fill_normal(self._key, frame, *self._corner, noise)
            charge += np.float32(self._readout.read_noise) * noise
        charge *= np.float32(self._readout.counts_per_electron)
        charge += np.float32(self._readout.offset)
        return charge


def hot_pixels(scene: Scene, movie: int, rows: range, cols: range) -> Pixels:
    """The hot pixels of a rectangle; none where none can be."""
    if not scene.defects.has_hot:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    return scene.defects.hot(scene.detector_seed, movie, scene.size, rows, cols)


def _store(values: NDArray[Any], out: NDArray[Any]) -> None:
    if out.dtype.kind in "iu":
        limits = np.iinfo(out.dtype)
        np.clip(np.rint(values, out=values), limits.min, limits.max, out=values)
    out[...] = values


@dataclass(frozen=True, eq=False)
class Expected:
    """The mean of each raw pixel over repetitions, before rounding and clipping."""

    scene: Scene

    def __call__(self, movie: int, frames: Frames, rows: range, cols: range, out: NDArray[Any]) -> None:
        scene = self.scene
        excess = hot_excess(scene, movie, rows, cols)
        charge = _Charge(scene, scene.readout, movie, rows, cols) if scene.readout else None
        for mean, image in zip(scene.means(movie, frames, rows, cols), out, strict=True):
            np.add(mean, excess, out=image)
            if charge is not None:
                charge.read(charge.of(image))


@dataclass(frozen=True, eq=False)
class Still:
    """An image that is one for all frames of a movie."""

    scene: Scene
    image: Callable[[Scene, int, range, range], NDArray[Any]]

    def __call__(self, movie: int, frames: Frames, rows: range, cols: range, out: NDArray[Any]) -> None:
        out[...] = self.image(self.scene, movie, rows, cols)


def response(scene: Scene, movie: int, rows: range, cols: range) -> Image:
    """Response at gamma = 1."""
    return scene.gain.response(scene.detector_seed, scene.size, rows, cols)


def gain(scene: Scene, movie: int, rows: range, cols: range) -> Image:
    """Factor that corrects the response, at gamma = 1."""
    image = response(scene, movie, rows, cols)
    return np.divide(1, image, out=image)


def pattern(scene: Scene, movie: int, rows: range, cols: range) -> Image:
    """Electrons a frame that the electronics add."""
    return scene.pattern_of(movie, rows, cols)


def specimen(scene: Scene, movie: int, rows: range, cols: range) -> Image:
    """Transmission of the specimen before it moves."""
    return scene.transmission(movie, (0.0, 0.0), rows, cols)


def hot_excess(scene: Scene, movie: int, rows: range, cols: range) -> Image:
    """Electrons a frame that hot pixels add."""
    out = flat_image(0.0, rows, cols)
    y, x, excess = hot_pixels(scene, movie, rows, cols)
    out[y - rows.start, x - cols.start] = excess
    return out


def defect_kind(scene: Scene, movie: int, rows: range, cols: range) -> NDArray[np.uint8]:
    """0 good, HOT, DEAD."""
    out = np.where(hot_excess(scene, movie, rows, cols) > 0, HOT, 0).astype(np.uint8)
    if scene.defects.has_dead:
        out[scene.defects.dead(scene.detector_seed, scene.size, rows, cols)] = DEAD
    return out


def mask(scene: Scene, movie: int, rows: range, cols: range) -> NDArray[np.bool_]:
    """True where a pixel is hot or dead."""
    bad: NDArray[np.bool_] = defect_kind(scene, movie, rows, cols) > 0
    return bad
