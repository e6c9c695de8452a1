"""Random processes with a power-law correlation against the law itself."""

from __future__ import annotations

import numpy as np
import pytest

from mrczdask.kernels.wander import fill_wander

SIDE = 300


def values(t: float, index: float, terms: int = 4, shape: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    out = np.empty(shape)
    fill_wander(np.uint64(7), t, index, terms, 0, 0, out)
    return out


@pytest.mark.parametrize("index", [0.289, 1.0, 2.0])
@pytest.mark.parametrize("lag", [0.0, 0.05, 1.0, 20.0])
def test_correlation_follows_the_law_anywhere_on_the_axis(index: float, lag: float) -> None:
    first = values(13.7, index)
    expected = 1 / (1 + lag**index)
    for second in (values(13.7 + lag, index), values(13.7 - lag, index)):
        assert abs((first * second).mean() - expected) < 5 * 1.5 / SIDE


@pytest.mark.parametrize("terms", [1, 4, 16])
def test_mean_0_and_variance_1(terms: int) -> None:
    pixels = values(1e5, 0.289, terms)
    assert abs(pixels.mean()) < 5 / SIDE
    assert abs(pixels.var() - 1) < 5 * 2**0.5 / SIDE


def test_pixels_are_independent() -> None:
    pixels = values(3.0, 0.5)
    assert abs((pixels[1:] * pixels[:-1]).mean()) < 5 / SIDE
    assert abs((pixels[:, 1:] * pixels[:, :-1]).mean()) < 5 / SIDE


def test_any_rectangle() -> None:
    part = np.empty((5, 6))
    fill_wander(np.uint64(7), 2.0, 0.289, 4, 3, 8, part)
    assert np.array_equal(part, values(2.0, 0.289)[3:8, 8:14])
    fill_wander(np.uint64(7), 2.0, 0.289, 4, 3, 8, np.empty((0, 4)))
