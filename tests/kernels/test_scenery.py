"""Fields, films and particles against their formulas in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from mrczdask.kernels.scenery import add_waves, shade_film, shade_particles

Y, X = np.mgrid[0:90.0, 0:120.0]
SHIFTS = [(0.0, 0.0), (0.5, -3.25), (-7.125, 2.0)]


@pytest.mark.parametrize(("dy", "dx"), SHIFTS)
def test_waves(dy: float, dx: float) -> None:
    waves = np.array([[0.3, 0.1, 0.05, 1.0], [0.2, -0.7, 0.3, 4.0]])
    out = np.ones((90, 120))
    add_waves(waves, 0, 0, dy, dx, out)
    expected = 1 + sum(a * np.cos(ky * (Y - dy) + kx * (X - dx) + phase) for a, ky, kx, phase in waves)
    assert np.allclose(out, expected, atol=1e-12)


@pytest.mark.parametrize(("dy", "dx"), SHIFTS)
def test_film(dy: float, dx: float) -> None:
    hole, grain = np.array([40.0, 70.0, 30.0, 6.0]), np.random.default_rng(0).normal(0, 0.2, (90, 120))
    out = np.full((90, 120), 2.0)
    shade_film(hole, grain, 0.4, 0, 0, dy, dx, out)
    depth = np.clip((np.hypot(Y - dy - 40, X - dx - 70) - 30) / 6 + 0.5, 0, 1)
    assert np.allclose(out, 2 * (1 - 0.4 * (1 + grain) * (3 * depth**2 - 2 * depth**3)))
    assert out[40, 70] == 2.0


@pytest.mark.parametrize(("dy", "dx"), SHIFTS)
def test_particles(dy: float, dx: float) -> None:
    centres = np.array([[20.3, 30.7], [22.0, 36.0], [88.0, 119.0], [-4.0, 50.0]])
    out = np.ones((90, 120))
    shade_particles(centres, 8.0, 0.3, 0, 0, dy, dx, out)
    expected = np.ones_like(out)
    for cy, cx in centres:
        square = ((Y - dy - cy) ** 2 + (X - dx - cx) ** 2) / 64
        expected *= 1 - 0.3 * np.exp(-(square**2))
    assert np.allclose(out, expected, atol=3e-5)  # particles end at 1.8 radii


@pytest.mark.parametrize(("dy", "dx"), SHIFTS)
def test_a_rectangle_is_bit_equal_to_the_whole(dy: float, dx: float) -> None:
    def scene(y0: int, x0: int, shape: tuple[int, int]) -> np.ndarray:
        out, grain = np.ones(shape, np.float32), np.zeros(shape, np.float32)
        add_waves(np.array([[0.3, 0.1, 0.05, 1.0]]), y0, x0, dy, dx, grain)
        shade_film(np.array([40.0, 70.0, 30.0, 6.0]), grain, 0.4, y0, x0, dy, dx, out)
        shade_particles(np.array([[20.3, 30.7], [22.0, 36.0]]), 8.0, 0.3, y0, x0, dy, dx, out)
        return out

    assert np.array_equal(scene(17, 21, (31, 53)), scene(0, 0, (90, 120))[17:48, 21:74])
    assert scene(3, 3, (0, 5)).shape == (0, 5)
