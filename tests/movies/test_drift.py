from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

import mrczdask as md
from mrczdask.movies import drift as drift_module
from mrczdask.simulate import Defects, Gain, Specimen

SHAPE = (1, 256, 256)
ICE = Specimen(ice_sd=0.03, particles=30, particle_contrast=0.15, carbon=0.15)


def drift(movies: int, seed: int, **options: Any) -> xr.Dataset:
    session, truth = md.simulate.session(movies, SHAPE, dose=40, seed=seed, **options)
    return md.gain_drift(session, truth.gain)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
@pytest.mark.parametrize("specimen", [None, ICE])
def test_a_steady_gain_raises_no_alarm(seed: int, specimen: Specimen | None) -> None:
    found = drift(30, seed, gain=Gain(column_sd=0.03, row_sd=0.02, pixel_sd=0.02), specimen=specimen)
    assert found.attrs["alarm"] is False
    assert found.attrs["changepoint"] == -1
    assert found.attrs["advice"] == "the gain has not changed"


@pytest.mark.parametrize("part", ["column", "row", "pixel"])
def test_a_change_is_found_dated_and_told(part: str) -> None:
    response = Gain(**{f"{part}_sd": 0.08 if part == "pixel" else 0.04})
    found = drift(34, 1, gain=response, gamma=[1.0] * 22 + [1.25] * 12)
    assert found.attrs["alarm"] is True
    assert found.attrs["part"] == part
    assert abs(found.attrs["changepoint"] - 22) <= 1
    name = found.attrs["movie"]
    assert found.attrs["advice"].startswith(f"re-acquire the gain reference from movie {name} (")


def test_a_slow_drift_under_specimens_is_found() -> None:
    gamma = [1.0] * 20 + list(1 + 0.02 * np.arange(20))
    found = drift(40, 1, gain=Gain(column_sd=0.04), gamma=gamma, specimen=ICE)
    assert found.attrs["alarm"]
    assert 20 <= found.attrs["changepoint"] <= 34


@pytest.mark.parametrize("reference", [4, 6, 25])
def test_false_alarms_are_rare_for_any_reference(reference: int) -> None:
    """Deviations of noise alone: the two halves of a fixed reference of 4 alarm in one session of twenty."""
    rng = np.random.default_rng(reference)
    statistics = dict.fromkeys(drift_module.STATISTICS, 1.0)
    alarms, largest = 0, []
    for _ in range(20):
        monitor = md.GainMonitor(reference_movies=reference)
        for k in range(150):
            pixel = rng.normal(0, 0.1, (40, 48)).astype(np.float32)
            lines = rng.normal(0, 0.02, 40), rng.normal(0, 0.02, 48)
            monitor.take(drift_module.MovieSummary(statistics, (pixel, *lines)), str(k))
        found = monitor.report()
        alarms += found.attrs["alarm"]
        largest.append(float(found.cusum.max()))
        assert found.attrs["n_changed_pixels"] == 0
    assert alarms == 0
    assert np.median(largest) < 7


@pytest.mark.parametrize("reference", [4, 10])
def test_no_alarm_in_movies_of_poisson_noise(reference: int) -> None:
    rng = np.random.default_rng(0)
    monitor = md.GainMonitor(reference_movies=reference)
    for _ in range(60):
        monitor.add(rng.poisson(20, (1, 48, 64)).astype(np.uint16))
    assert monitor.report().attrs["alarm"] is False


@pytest.mark.parametrize("seed", [0, 1])
def test_hot_pixels_that_are_born_are_no_change_of_the_gain(seed: int) -> None:
    born = Defects(hot_births=0.0003, hot_lifetime=float("inf"), hot_excess=(2, 40))
    session, truth = md.simulate.session(24, (2, 192, 192), dose=20, seed=seed, defects=born)
    found = md.gain_drift(session)
    assert found.attrs["alarm"] is False
    late = truth.hot_excess.compute().isel(movie=slice(11, None)) > 0
    births = int((late.isel(movie=-1) & ~late.isel(movie=0)).sum())
    assert 0.5 * births < found.attrs["n_changed_pixels"] < 1.3 * births
    assert int(found.changed_pixels.sum()) == found.attrs["n_changed_pixels"]
    assert found.attrs["advice"].startswith("the gain has not changed; ")
    assert "single pixels became hot or dead" in found.attrs["advice"]


def test_a_change_is_found_among_births() -> None:
    born = Defects(hot_births=0.0003, hot_lifetime=float("inf"), hot_excess=(2, 40))
    found = drift(34, 1, gain=Gain(pixel_sd=0.08), gamma=[1.0] * 22 + [1.25] * 12, defects=born)
    assert (found.attrs["alarm"], found.attrs["part"]) == (True, "pixel")
    assert abs(found.attrs["changepoint"] - 22) <= 5  # weak births before it count towards it
    assert found.attrs["n_changed_pixels"] > 0


def test_percentiles_widen_with_the_residual() -> None:
    found = drift(24, 0, gain=Gain(column_sd=0.1), gamma=[1.0] * 12 + [1.6] * 12)
    before, after = found.isel(movie=slice(0, 12)), found.isel(movie=slice(12, None))
    assert float(after.p97_5.mean()) > float(before.p97_5.mean()) + 0.03
    assert float(after.p2_5.mean()) < float(before.p2_5.mean()) - 0.03
    assert float(after["std"].mean()) > 2 * float(before["std"].mean())
    want = md.gain_quality(*_first(24, gain=Gain(column_sd=0.1), gamma=[1.0] * 12 + [1.6] * 12), sum_to=1e9).attrs[
        "p97_5"
    ]
    assert float(found.p97_5[0]) == pytest.approx(want, abs=2e-3)


def _first(movies: int, **options: Any) -> tuple[xr.DataArray, xr.DataArray]:
    session, truth = md.simulate.session(movies, SHAPE, dose=40, seed=0, **options)
    return session.images.isel(movie=0), truth.gain


def test_movies_one_by_one_give_what_the_session_gives() -> None:
    session, truth = md.simulate.session(
        14, (2, 96, 96), dose=20, gain=Gain(column_sd=0.04), gamma=[1.0] * 9 + [1.4] * 5
    )
    want = md.gain_drift(session.chunk({"movie": 3, "y": 40}), truth.gain, reference_movies=6)
    monitor = md.GainMonitor(truth.gain, reference_movies=6)
    for k in range(14):
        monitor.add(session.images.isel(movie=k))
    found = monitor.report()
    xr.testing.assert_allclose(found, want)
    assert found.attrs["advice"] == want.attrs["advice"]
    assert found.movie.values.tolist() == session.movie.values.tolist()


def test_a_monitor_reports_before_its_reference_is_whole() -> None:
    monitor = md.GainMonitor()
    monitor.add(np.full((2, 32, 32), 20, np.uint8), name="first")
    found = monitor.report()
    assert found.movie.values.tolist() == ["first"]
    assert found.attrs["alarm"] is False


def test_bad_inputs() -> None:
    movies = np.full((8, 1, 16, 16), 20, np.uint8)
    with pytest.raises(ValueError, match="needs 12 at least and has 8; reference_movies= takes fewer"):
        md.gain_drift(movies)
    with pytest.raises(ValueError, match="give 4 at least"):
        md.gain_drift(movies, reference_movies=3)
    assert md.gain_drift(movies, reference_movies=4).attrs["alarm"] is False
    dark = movies.copy()
    dark[5] = 0
    with pytest.raises(ValueError, match="subtract the dark"):
        md.gain_drift(dark, reference_movies=4)
    with pytest.raises(ValueError, match="NaN or infinity"):
        md.gain_drift(np.where(np.arange(8)[:, None, None, None] == 6, np.nan, movies), reference_movies=4)


def test_progress_counts_movies() -> None:
    seen: list[tuple[int, int, str]] = []
    md.gain_drift(np.full((6, 1, 16, 16), 20, np.uint8), reference_movies=4, progress=lambda *step: seen.append(step))
    assert seen[-1] == (6, 6, "gain drift")
