"""Bright pixels against their definition, pixel by pixel, on detectors with gaps of all widths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mrczdask.kernels.bright_pixels import SEGMENT, Detector, find_bright, segments_of
from mrczdask.kernels.places import Places
from mrczdask.kernels.valid import FINITE

BINS, CUTOFF, NOISE, DUMMY = 40, 3.0, 0.5, 65535.0
AVERAGE, DEVIATION = (np.linspace(*ends, BINS, dtype=np.float32) for ends in ((20, 2), (4, 1)))


def detector_of(shape: tuple[int, int], seed: int, dark: float) -> Detector:
    """Rings across rows, columns that are not searched or have no place, 1 to 20 wide, and single pixels of both."""
    random = np.random.default_rng(seed)
    y, x = np.indices(shape)
    place = (np.hypot(y - 3, x - shape[1] / 3) / 4).astype(np.float32)
    searched = random.random(shape) > 0.02
    for width in [width for width in (1, 3, 4, 5, 20) if width < shape[1] / 3]:
        column = random.integers(0, shape[1])
        searched[:, column : column + width] = False
        place[:, column + 30 : column + 30 + width] = np.nan
    place[random.random(shape) < 0.02] = np.nan
    norm = random.uniform(0.5, 1.5, shape).astype(np.float32).ravel()
    darks = random.uniform(0, dark, shape).astype(np.float32).ravel() if dark else np.empty(0, np.float32)
    places = Places(place.ravel(), np.empty(0, np.float32))
    return Detector(shape[1], places, searched.ravel(), norm, darks, FINITE._replace(high=np.float32(DUMMY - 1)))


def by_definition(frame: NDArray[Any], where: Detector, average: NDArray[np.float32]) -> NDArray[np.intp]:
    place = np.nan_to_num(where.places.radial)
    dark = where.dark if where.dark.size else 0
    d = (frame.astype(np.float64) - dark) / where.norm - np.interp(place, np.arange(BINS), average)
    u = np.hypot(np.interp(place, np.arange(BINS), DEVIATION), NOISE)
    seen = where.searched & ~np.isnan(where.places.radial) & (frame != DUMMY)
    return np.flatnonzero(seen & (d > 0) & (d >= CUTOFF * u))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(4, 12), (9, 7), (40, 63), (30, 64), (31, 200)])
@pytest.mark.parametrize("level", [0.0, -60.0])  # of the background: thresholds below all that integers hold
def test_bright_pixels_are_those_of_the_definition(shape: tuple[int, int], dtype: Any, level: float) -> None:
    for seed, dark in enumerate((0.0, 3.0)):
        where = detector_of(shape, seed, dark)
        random = np.random.default_rng(seed)
        frame = random.poisson(np.exp(random.normal(2.5, 1, shape))).astype(dtype).ravel()
        frame[~where.searched | np.isnan(where.places.radial)] = DUMMY
        frame[random.random(frame.size) < 0.01] = DUMMY
        average = AVERAGE + np.float32(level)
        index, above = np.empty(frame.size + 1, np.uint32), np.empty(frame.size + 1, np.float32)
        segments = segments_of(where, BINS)
        n = find_bright(frame, where, segments, CUTOFF, NOISE, average, DEVIATION, index, above)
        wanted = by_definition(frame, where, average)
        assert n == wanted.size > 0
        np.testing.assert_array_equal(index[:n], wanted)


def test_segments_leave_out_wide_gaps_and_cover_the_rest() -> None:
    where = detector_of((31, 500), 3, 0.0)
    segments = segments_of(where, BINS)
    own = np.zeros(where.searched.size, int)
    for window, begin, end in zip(segments.window, segments.begin, segments.end, strict=True):
        assert begin < end <= SEGMENT
        own[int(window) + int(begin) : int(window) + int(end)] += 1
        assert window + SEGMENT <= where.searched.size
    used = where.searched & ~np.isnan(where.places.radial)
    assert own.max() == 1
    assert own[used].all()
    unused = "".join("01"[int(flag)] for flag in ~used & (own > 0))
    assert "1" in unused
    assert "1111" not in unused
