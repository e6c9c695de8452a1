"""Levels within the noise: the bounds for every code of 16 bits, and the integer inverse against floats."""

from __future__ import annotations

import numpy as np
import pytest

from mrczdask.kernels import noise_levels as levels

CODES = np.arange(65536)
CAMERAS = [(1.0, 0.0, 0.0), (2.1, 100.0, 1.6), (0.45, 98.7, 0.9), (17.0, 1000.0, 12.0), (1.0, -50.0, 3.0)]


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("q", [0.05, 0.5, 1.0, 2.0, 5.0])
def test_strict_bound_holds_for_every_code(camera: tuple[float, float, float], q: float) -> None:
    noise = levels.Noise(q, *camera)
    level_of, codes = levels.strict_levels(noise, np.dtype("uint16"))
    assert (np.abs(codes[level_of] - CODES) <= q * noise.sigma(CODES) / 2).all()
    assert (np.diff(level_of.astype(int)) >= 0).all()
    assert (np.diff(codes) > 0).all()
    assert level_of[-1] == len(codes) - 1


def test_strict_levels_are_as_few_as_can_be() -> None:
    """An optimal cover by dynamic programming has no fewer levels."""
    noise = levels.Noise(1.0, 2.1, 100.0, 1.6)
    level_of, codes = levels.strict_levels(noise, np.dtype("uint16"))
    half = noise.sigma(CODES) / 2
    low, high = np.ceil(CODES - half), np.floor(CODES + half)
    n = 3000
    best = np.full(n + 1, np.inf)
    best[0] = 0
    for start in range(n):
        top, bottom = high[start], low[start]
        for end in range(start + 1, min(start + 200, n) + 1):
            top, bottom = min(top, high[end - 1]), max(bottom, low[end - 1])
            if bottom > top:
                break
            best[end] = min(best[end], best[start] + 1)
    assert level_of[n - 1] + 1 == best[n]
    assert len(codes) < 1000


def test_no_noise_is_lossless() -> None:
    level_of, codes = levels.strict_levels(levels.Noise(1.0, 1.0, 70000.0, 0.0), np.dtype("uint16"))
    np.testing.assert_array_equal(codes[level_of], CODES)


def test_signed_and_short_types() -> None:
    for dtype in ("int8", "uint8", "int16"):
        info = np.iinfo(dtype)
        noise = levels.Noise(1.0, 1.5, 3.0, 2.0)
        level_of, codes = levels.strict_levels(noise, np.dtype(dtype))
        every = np.arange(info.min, info.max + 1)
        assert (np.abs(codes[level_of] - every) <= noise.sigma(every) / 2).all()


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("q", [0.5, 1.0, 2.0])
def test_stabilised_bound_holds_above_the_offset(camera: tuple[float, float, float], q: float) -> None:
    noise = levels.Noise(q, *camera)
    level_of, codes = levels.stabilised_levels(noise, np.dtype("uint16"))
    error = np.abs(codes[level_of] - CODES)
    bound = q * noise.sigma(CODES) / 2 + camera[0] * q**2 / 16 + 0.5
    above = camera[1] <= CODES
    assert (error <= bound + 1e-9)[above].all()


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("q", [0.25, 1.0, 3.0])
def test_integer_inverse_agrees_with_the_formula(camera: tuple[float, float, float], q: float) -> None:
    noise = levels.Noise(q, *camera)
    inverse = levels.inverse_of(noise, np.dtype("uint16"))
    assert inverse.is_safe
    units = np.linspace(-2000, inverse.top, 20_001).astype(np.int32)
    out = np.empty(units.size, np.uint16)
    levels.restore(units, inverse.scale, inverse.shift, inverse.constant, inverse.top, 0, 65535, out)
    t = np.maximum(units, 0) / 1024 * q
    g, o, s = camera
    expected = ((t + 2 * s) ** 2 / 4 - s**2) * g + o
    # the shift is rounded to 1 / 1024 of a step
    slack = g * q * (t / 2 + s) / 2048 + 65535 / inverse.scale + 0.02
    np.testing.assert_array_less(np.abs(np.clip(expected, 0, 65535) - out), 0.5 + slack)
