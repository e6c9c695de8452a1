"""The additive pattern, and how its correlation falls with the dose."""

from __future__ import annotations

import math

import numpy as np
import pytest
import xarray as xr

import mrczdask as md
from mrczdask.simulate import Pattern


def patterns(pattern: Pattern, movies: int = 2, side: int = 256, dose: float = 10.0) -> xr.DataArray:
    return md.simulate.session(movies, (2, side, side), dose=dose, pattern=pattern, seed=3).truth.pattern.compute()


def test_parts_have_the_asked_deviations() -> None:
    image = patterns(Pattern(level=0.5, column_sd=0.3, row_sd=0.2, pixel_sd=0.1))[0]
    assert abs(image.mean() - 0.5) < 0.15
    assert abs(image.mean("y").std() - 0.3) < 0.05
    assert abs(image.mean("x").std() - 0.2) < 0.04
    rest = image - image.mean("y") - image.mean("x")
    assert abs(rest.std() - 0.1) < 0.003


def test_a_stable_pattern_never_changes() -> None:
    found = patterns(Pattern(column_sd=0.3, row_sd=0.2, pixel_sd=0.1), movies=3)
    assert np.array_equal(found[0], found[2])


@pytest.mark.parametrize("part", ["column_sd", "row_sd", "pixel_sd"])
def test_correlations_follow_the_law(part: str) -> None:
    """Means over four detectors: a line of 4096 values alone knows its correlation to 0.016 only."""
    pattern = Pattern(stable=0.4, lifetime=300.0, decay=0.289, **{part: 0.2})
    shape = (2, 128, 128) if part == "pixel_sd" else (2, 2, 4096) if part == "column_sd" else (2, 4096, 2)
    found = []
    for seed in range(4):
        truth = md.simulate.session(8, shape, dose=100.0, pattern=pattern, seed=seed).truth
        values = truth.pattern.values.reshape(8, -1)
        found.append(np.corrcoef(values)[0])
    law = [pattern.correlation(2 * 100.0 * k) for k in range(8)]
    assert np.abs(np.mean(found, axis=0) - law).max() < 0.03
    assert law[0] == 1
    assert abs(law[7] - (0.4 + 0.6 / (1 + (1400 / 300) ** 0.289))) < 1e-12


def test_stack_sums_follow_equation_12() -> None:
    """Sums of movies against the first: R = 0.0308 d**-0.289 + 0.0317, d taken in electrons per pixel."""
    movies, frames, dose, side, lifetime = 40, 20, 7.0, 256, 0.01
    share = 0.0308 * lifetime**-0.289 + 0.0317  # of the variance of a sum that is pattern
    pattern = Pattern(
        pixel_sd=math.sqrt(share / (1 - share) * dose / frames), stable=0.0317 / share, lifetime=lifetime, decay=0.289
    )
    d = dose * frames * np.arange(1, movies)
    published = 0.0308 * d**-0.289 + 0.0317
    law = share * np.array([pattern.correlation(x) for x in d])
    assert np.abs(law / published - 1).max() < 0.03
    session, _ = md.simulate.session(movies, (frames, side, side), dose=dose, pattern=pattern)
    found = np.corrcoef(session.images.sum("frame").values.reshape(movies, -1))[0, 1:]
    z = (found - law) * side
    assert abs(z.mean()) < 4 / len(z) ** 0.5
    assert abs((z**2).mean() - 1) < 5 * (2 / len(z)) ** 0.5


def test_counts_of_a_pattern_below_zero_are_zero() -> None:
    movie, truth = md.simulate.movie((50, 64, 64), dose=0.05, pattern=Pattern(pixel_sd=0.2), dtype="uint8")
    total, expected = movie.sum("frame").values, truth.expected[0].values
    assert expected.min() == 0
    assert total[expected == 0].max() == 0
    assert abs(total.mean() / 50 - expected.mean()) < 5 * (expected.mean() / 50 / 4096) ** 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixel_sd": -0.1}, "Pattern: pixel_sd=-0.1"),
        ({"level": -1.0}, "Pattern: level=-1.0"),
        ({"stable": 1.1}, "Pattern: stable=1.1: give a number from 0 to 1"),
        ({"lifetime": 0.0}, "Pattern: lifetime=0.0"),
        ({"decay": 2.5}, "Pattern: decay=2.5: give a number from 0.05 to 2"),
    ],
)
def test_ranges(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pattern(**options)
