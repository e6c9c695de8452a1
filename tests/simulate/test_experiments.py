"""The experiments of the papers can be simulated, and give what their noise laws say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import mrczdask as md
from mrczdask.simulate import Defects, Gain, Pattern, Specimen


def frame_correlation(frames: NDArray[Any]) -> float:
    """Mean Pearson correlation of all pairs of frames."""
    matrix = np.corrcoef(frames.reshape(len(frames), -1).astype("f8"))
    return float(matrix[np.triu_indices(len(frames), 1)].mean())


@pytest.mark.parametrize(
    ("options", "low", "high"),
    [
        ({"pattern": Pattern(pixel_sd=0.10), "defects": Defects(hot_fraction=0.005)}, 0.035, 0.045),  # table: .0395
        ({"pattern": Pattern(pixel_sd=0.30)}, 0.0415, 0.0445),  # table: .0432; 0.09 / (2 + 0.09) = .0431
        ({}, -0.0006, 0.0006),
    ],
)
def test_vacuum_sessions_of_61_movies(options: dict[str, Any], low: float, high: float) -> None:
    session, truth = md.simulate.session(61, (20, 256, 256), dose=2.0, **options)
    raw = [frame_correlation(session.images[movie].values) for movie in (0, 30, 60)]
    assert low < np.mean(raw) < high
    if "defects" in options:  # without them only the pattern is left
        clean = frame_correlation(truth.clean[30].values)
        assert abs(clean - 0.01 / 2.01) < 0.0005


def test_columns_and_rows_of_a_gain_from_20_movies_of_60_electrons() -> None:
    gain = Gain(column_sd=0.03, row_sd=0.02)
    session, truth = md.simulate.session(20, (1, 512, 512), dose=60.0, gain=gain)
    total = session.images.mean(("movie", "frame")).values / 60
    response = truth.response.values
    for axis in (0, 1):
        found, true = total.mean(axis), response.mean(axis)
        slope = np.cov(found, true)[0, 1] / true.var(ddof=1)
        assert abs(slope - 1) < 0.02
    noise = np.var(total / response)
    assert abs(noise * 20 * 60 - 1) < 0.02


@pytest.mark.parametrize(("movies", "expected"), [(10, 0.32), (100, 0.93)])
def test_pixel_gain_from_movies_of_40_electrons(movies: int, expected: float) -> None:
    """R2 = 1 - 1 / (40 movies sd**2) of the pixel means, 6 % of gain."""
    session, truth = md.simulate.session(movies, (20, 256, 256), dose=2.0, gain=Gain(pixel_sd=0.06))
    mean = session.images.sum("frame").mean("movie").values / 40
    response = truth.response.values
    r2 = 1 - ((mean - response) ** 2).mean() / response.var()
    assert abs(r2 - expected) < 0.02


def test_a_session_with_a_tenth_of_carbon() -> None:
    session, truth = md.simulate.session(
        60, (4, 128, 128), dose=10.0, specimen=Specimen(ice_sd=0.02, carbon=0.1), gain=Gain(column_sd=0.03), drift=0.3
    )
    deviations = session.images.sum("frame").std(("y", "x")).values
    film = truth.carbon.values
    assert 0 < film.sum() < 15
    assert deviations[film].min() > 1.3 * np.median(deviations[~film])


def test_weak_hot_pixels_appear_above_the_noise_of_many_movies_only() -> None:
    weak = Defects(hot_fraction=0.005, hot_excess=(0.3, 0.6))
    session, truth = md.simulate.session(9, (20, 256, 256), dose=2.0, defects=weak)
    hot = truth.mask[0].values
    sums = session.images.sum("frame").values.astype("f8")
    one, all_of_them = (sums[0] - 40) / 40**0.5, (sums.sum(0) - 360) / 360**0.5
    assert (one[hot] > 4).mean() < 0.1
    assert (all_of_them[hot] > 4).mean() > 0.5
    assert (all_of_them[~hot] > 4.5).mean() < 1e-4
    assert not truth.hot_excess.diff("movie").any()
