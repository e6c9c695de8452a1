"""Levels within the noise: the bounds for every code of 16 bits, and the integer inverse against floats."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

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
@pytest.mark.parametrize("q", [0.02, 0.25, 1.0, 3.0])
def test_integer_inverse_gives_every_code_back(camera: tuple[float, float, float], q: float) -> None:
    """Also where the scale is a small number, 419 of 2**20 and 188: rounding it off is a step that is finer by that."""
    noise = levels.Noise(q, *camera)
    inverse, values = levels.inverse_of(noise, np.dtype("uint16"))
    assert inverse.is_safe
    above = camera[1] <= CODES
    wanted = noise.stabilised(CODES) * 1024
    assert (values >= wanted * (1 - 1e-9))[above].all()
    np.testing.assert_allclose(values, wanted, rtol=1 / inverse.scale + 1e-9, atol=2)
    units = np.rint(values).astype(np.int32)
    for moved, bound in ((0, 0.0005), (512, 0.5005), (-512, 0.5005)):
        out = np.empty(units.size, np.uint16)
        levels.restore(
            units + np.int32(moved), inverse.scale, inverse.shift, inverse.constant, inverse.top, 0, 65535, out
        )
        error = np.abs(out - CODES)
        assert (error <= bound * q * noise.sigma(CODES) + camera[0] * (bound * q) ** 2 / 4 + 0.5)[above].all()


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("q", [0.05, 0.5, 1.0, 2.0, 5.0])
def test_balanced_levels_keep_the_strict_bound(camera: tuple[float, float, float], q: float) -> None:
    noise = levels.Noise(q, *camera)
    level_of, codes, parts = levels.balanced_levels(noise, np.dtype("uint16"))
    for decoded in (codes, codes + (parts > 0)):
        assert (np.abs(decoded[level_of] - CODES) <= q * noise.sigma(CODES) / 2).all()
    assert set(np.unique(np.diff(level_of.astype(int)))) <= {0, 1}
    assert level_of[-1] == len(codes) - 1
    assert len(codes) < 1.12 * len(levels.strict_levels(noise, np.dtype("uint16"))[1])


@pytest.mark.parametrize(("q", "most"), [(0.5, 0.008), (1.0, 0.015)])
@pytest.mark.parametrize("camera", [(1.0, 0.0, 0.0), (1.0, 0.0, 1.0), (0.45, 98.7, 0.9), (10.0, 100.0, 1.5)])
def test_balanced_levels_leave_little_bias_in_averages(
    camera: tuple[float, float, float], q: float, most: float
) -> None:
    noise = levels.Noise(q, *camera)
    plain_of, plain = levels.strict_levels(noise, np.dtype("uint16"))
    level_of, codes, parts = levels.balanced_levels(noise, np.dtype("uint16"))
    means = {"plain": plain[plain_of], "balanced": (codes + parts / 256)[level_of]}
    worst = dict.fromkeys(means, 0.0)
    for electrons in (1, 2, 4, 7, 15, 40):
        p = distribution(electrons, *camera)
        sigma = camera[0] * np.sqrt(electrons + camera[2] ** 2)
        for name, mean in means.items():
            worst[name] = max(worst[name], abs(float(p @ (mean[: p.size] - CODES[: p.size]))) / sigma)
    assert worst["balanced"] < most
    if q == 1.0:
        assert worst["plain"] > 1.3 * worst["balanced"]


def distribution(electrons: float, g: float, o: float, s: float) -> np.ndarray:
    """Probability of each code below 2048 of a pixel: Poisson counts, normal read noise, rounding."""
    edges = np.arange(2049) - 0.5
    edges[0] = -np.inf
    counts = np.arange(int(electrons + 9 * np.sqrt(electrons)) + 9)
    centres = g * counts + o
    below = stats.norm.cdf(edges[:, None], centres, g * s) if s else (edges[:, None] >= centres).astype(float)
    return np.asarray(np.diff(below, axis=0) @ stats.poisson.pmf(counts, electrons))


def test_dither_takes_the_part_that_it_is_told() -> None:
    parts = np.array([0, 64, 128, 255], np.uint8)
    found = np.empty(400_000, np.uint16)
    level = np.arange(found.size, dtype=np.uint16) % 4
    levels.dithered(level, np.array([10, 20, 30, 40]), parts, 12345, found)
    up = found.reshape(-1, 4) - np.array([10, 20, 30, 40])
    assert set(np.unique(up)) == {0, 1}
    np.testing.assert_allclose(up.mean(axis=0), parts / 256, atol=0.005)
    other = np.empty_like(found)
    levels.dithered(level, np.array([10, 20, 30, 40]), parts, 54321, other)
    assert abs(np.corrcoef(up[:, 2], other.reshape(-1, 4)[:, 2])[0, 1]) < 0.02
