from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

import mrczdask as md
from mrczdask.simulate import Gain, Specimen

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
