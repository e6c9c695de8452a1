"""Levels of boxes and parabolas through them against numpy, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrczdask.kernels.local_level import (
    HIGH,
    LOW,
    TILE,
    extremes,
    parabolas,
    screen,
    surroundings,
    tile_caps,
    tile_sums,
)

NONE = np.zeros(0, np.int64)


def no_caps(image: np.ndarray) -> np.ndarray:
    return np.full(tuple(-(-n // TILE) for n in image.shape), np.inf, np.float32)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([4, 8]), st.integers(0, 2**32))
def test_far_pixels_are_flagged(ny: int, nx: int, radius: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.poisson(50, (ny, nx)).astype(np.float32)
    image[rng.random((ny, nx)) < 0.05] *= 3
    out, suspect = rng.random((ny, nx)) < 0.1, (rng.random((ny, nx)) < 0.1).astype(np.uint8)
    flags, tiles = screen(image, out, suspect, no_caps(image), radius, 4.0, 1.0, NONE, 1.0)
    used, total = ~out & (suspect == 0), 0.0
    for y in range(ny):
        for x in range(nx):
            box = np.s_[max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1]
            n = used[box].sum() - used[y, x]
            if out[y, x] or n < 8:
                assert flags[y, x] == 0
                continue
            level = (image[box][used[box]].sum() - used[y, x] * image[y, x]) / n
            width, middle = 4 * np.sqrt(level * (1 + 1 / n)), level + 2.5
            high, low = middle + width - 0.5, middle - width + 0.5
            if min(abs(image[y, x] - high), abs(image[y, x] - low)) > 1e-2:
                assert flags[y, x] == (HIGH if image[y, x] > high else LOW if image[y, x] < low and level > 8 else 0)
            if used[y, x] and flags[y, x] == 0:
                total += level
    assert tiles[1].sum() == pytest.approx(total, rel=1e-3, abs=200)


@pytest.mark.parametrize("size", [(0, 0), (1, 1), (33, 70), (64, 64)])
def test_sums_of_tiles(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).poisson(3, size).astype(np.float32)
    found = tile_sums(image)
    assert found.sum() == image.sum()
    if image.size:
        assert found[0, 0] == image[:TILE, :TILE].sum()
        assert (tile_caps(image, np.zeros(size, bool)) > 3).all()


def test_hot_pixels_do_not_raise_the_caps() -> None:
    image = np.full((64, 64), 5, np.float32)
    image[::7, ::7] = 1e9
    assert tile_caps(image, np.zeros(image.shape, bool)).max() < 60


def test_what_is_around_a_pixel() -> None:
    y, x = np.mgrid[:30, :30] - 12.0
    image = (100 + 2 * x - y + 0.3 * x * x + 0.1 * x * y).astype(np.float32)
    out, suspect = np.zeros(image.shape, bool), np.zeros(image.shape, np.uint8)
    out[10, 10], suspect[14, 13] = True, HIGH
    suspect[13, 13], suspect[11, 13] = LOW, LOW
    image[11, 13] = 0
    place = np.array([12 * 30 + 12])
    used = ~out & (suspect == 0)
    used[12, 12] = False
    box = image[8:17, 8:17][used[8:17, 8:17]]
    total, number, n, square = surroundings(image, out, suspect, place, 4, False)[0]
    assert (total, number, n) == (pytest.approx(box.sum()), box.size, box.size)
    assert square == pytest.approx(((box - box.mean()) ** 2).sum(), rel=1e-6)
    assert surroundings(image, out, suspect, place, 4, True)[0, 2] == box.size + 1  # dark, and not 0
    bent, middle, share = parabolas(image, out, suspect, place, 4, False)[0]
    assert bent == pytest.approx(0, abs=1e-2)
    assert middle == pytest.approx(100, abs=1e-3)
    assert 0.03 < share < 0.12
    high, quarter = extremes(image, out, suspect, place, 4, False)[0]
    assert (high, quarter) == (pytest.approx(np.sort(box)[-int(quarter) :].sum()), -(-box.size // 4))
