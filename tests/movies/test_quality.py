from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

import mrczdask as md
from mrczdask.simulate import Defects, Gain, Specimen

LINES = Gain(column_sd=0.03, row_sd=0.02, pixel_sd=0.01)
SHAPE = (20, 512, 512)


def alarms(*given: Any, **options: Any) -> list[str]:
    found: list[str] = md.gain_quality(*given, **options).attrs["alarms"]
    return found


@pytest.mark.parametrize("seed", [1, 2])
def test_a_corrected_movie_of_two_electrons_raises_no_alarm(seed: int) -> None:
    movie, truth = md.simulate.movie(SHAPE, dose=2, gain=LINES, seed=seed)
    found = md.gain_quality(movie, truth.gain)
    assert found.attrs["alarms"] == []
    assert found.attrs["valid"]
    assert found.attrs["std"] < 0.015
    assert found.attrs["percentile_ratio"] < 1.06
    assert found.attrs["electrons_per_image"] == pytest.approx(40, rel=0.02)


def test_single_frames_of_two_electrons_do_which_is_why_they_are_summed() -> None:
    movie, truth = md.simulate.movie((4, 256, 256), dose=2, gain=LINES)
    assert alarms(movie, truth.gain, sum_to=None)


@pytest.mark.parametrize("seed", [1, 2])
def test_eight_percent_of_residual_columns_raise_the_alarm(seed: int) -> None:
    movie, _ = md.simulate.movie(SHAPE, dose=2, gain=Gain(column_sd=0.08), seed=seed)
    found = alarms(movie)
    assert any(text.startswith("std ") for text in found)
    assert any(text.startswith("percentile ratio") for text in found)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_thousandth_of_hot_pixels_raises_the_alarm_of_all_pixels_only(seed: int) -> None:
    hot = Defects(hot_fraction=0.001, hot_excess=(14, 14))  # 8 x the dose of 2
    movie, truth = md.simulate.movie(SHAPE, dose=2, gain=LINES, defects=hot, seed=seed)
    found = md.gain_quality(movie, truth.gain)
    assert any(text.startswith("std all") for text in found.attrs["alarms"])
    assert found.attrs["std"] < 0.04
    assert found.attrs["percentile_ratio"] < 1.15
    assert found.attrs["max_ratio"] > 3
    np.testing.assert_array_equal(found.mask, truth.hot_excess > 0)


def test_broken_lines_are_named() -> None:
    bad = Defects(dead_columns=2, dead_rows=1)
    movie, truth = md.simulate.movie((10, 256, 256), dose=4, defects=bad)
    frames = movie.compute()
    frames[:, :, 77] //= 2
    dead = truth.defect_kind.values == 2
    columns, rows = (np.flatnonzero(dead.all(axis=axis)).tolist() for axis in (0, 1))
    found = md.gain_quality(frames)
    assert found.column_broken.values.nonzero()[0].tolist() == sorted([*columns, 77])
    assert f"broken rows: {rows[0]}" in found.attrs["alarms"]
    assert f"broken columns: {', '.join(map(str, sorted([*columns, 77])))}" in found.attrs["alarms"]
    assert float(found.column_gain[77]) == pytest.approx(0.44, abs=0.05)


def test_lines_come_with_error_bars() -> None:
    movie, truth = md.simulate.movie((10, 256, 256), dose=4, gain=Gain(column_sd=0.02))
    found = md.gain_quality(movie)
    true = truth.response.values[0] / truth.response.values[0].mean()
    pull = (found.column_gain - true) / found.column_error
    assert 0.7 < float(pull.std()) < 1.3
    assert float((found.row_gain - 1).std()) < 2 * float(found.row_error.mean())


def test_particles_in_the_residual_are_flagged() -> None:
    strong = Specimen(particles=60, particle_contrast=0.2)
    movie, truth = md.simulate.movie(SHAPE, dose=2, gain=LINES, specimen=strong)
    found = md.gain_quality(movie, truth.gain)
    assert found.attrs["particles_visible"]
    assert any("particles are visible" in note for note in found.attrs["notes"])
    clean, truth = md.simulate.movie(SHAPE, dose=2, gain=LINES, specimen=Specimen(ice_sd=0.03))
    assert not md.gain_quality(clean, truth.gain).attrs["particles_visible"]


def test_unlike_histograms_make_it_invalid() -> None:
    plate = Specimen(particles=60, particle_contrast=0.5)
    movie, _ = md.simulate.movie(SHAPE, dose=2, specimen=plate)
    found = md.gain_quality(movie)
    assert not found.attrs["valid"]
    assert any("unlike histograms" in note for note in found.attrs["notes"])


def test_thresholds_of_a_camera_are_those_of_its_good_sessions() -> None:
    reports = []
    for seed in range(5):
        movie, truth = md.simulate.movie((20, 256, 256), dose=2, gain=LINES, seed=seed, detector_seed=9)
        reports.append(md.gain_quality(movie, truth.gain))
    ours = md.GainThresholds.calibrated(reports)
    assert ours.std < 0.02
    assert ours.percentile_ratio < 1.1
    again, truth = md.simulate.movie((20, 256, 256), dose=2, gain=LINES, seed=77, detector_seed=9)
    assert alarms(again, truth.gain, thresholds=ours) == []
    drifted, _ = md.simulate.movie((20, 256, 256), dose=2, gain=Gain(column_sd=0.04), seed=3)
    assert alarms(drifted) == []
    assert alarms(drifted, thresholds=ours)
    with pytest.raises(ValueError, match=r"2 reports: .* need 3"):
        md.GainThresholds.calibrated(reports[:2])


def test_conventions_origins_and_sizes_are_checked() -> None:
    movie, truth = md.simulate.movie((4, 64, 64), dose=10, gain=LINES)
    multiply, divide = md.gain_quality(movie, truth.gain), md.gain_quality(movie, truth.response)
    xr.testing.assert_allclose(multiply.residual, divide.residual, rtol=1e-5)
    plain = md.gain_quality(movie.values, truth.gain.values)
    np.testing.assert_allclose(plain.residual, multiply.residual)
    with pytest.raises(ValueError, match=r"the gain is \(32, 64\), the movies are \(64, 64\)"):
        md.gain_quality(movie, truth.gain[::2])
    with pytest.raises(ValueError, match="orient_gain"):
        md.gain_quality(movie, truth.gain.assign_attrs(origin="upper"))
    with pytest.raises(ValueError, match="the mask is"):
        md.gain_quality(movie, mask=np.zeros((3, 3)))


def test_an_estimate_serves_as_the_reference() -> None:
    session, _ = md.simulate.session(8, (4, 128, 128), dose=10, gain=Gain(column_sd=0.1, row_sd=0.05))
    assert alarms(session)
    assert alarms(session, md.estimate_gain(session)) == []


def test_masked_and_defect_pixels_do_not_count() -> None:
    movie, truth = md.simulate.movie((10, 128, 128), dose=4, gain=LINES)
    frames = movie.compute()
    frames[:, 5, 5:25] = 200
    mask = np.zeros((128, 128), bool)
    mask[5, 5:25] = True
    found = md.gain_quality(frames, truth.gain, mask=mask)
    assert found.mask.values[5, 5:25].all()
    gain = truth.gain.values.copy()
    gain[9, 9] = 0
    assert bool(md.gain_quality(movie, gain).mask[9, 9])


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.full((3, 8, 8), np.nan), "NaN"),
        (np.ones((3, 1, 8)), "at least 2"),
        (np.zeros((3, 8, 8)), "counts above 0"),
    ],
)
def test_bad_movies_are_refused(frames: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        md.gain_quality(frames)


def test_constant_movies_pass() -> None:
    assert alarms(np.full((3, 16, 16), 40, np.uint8)) == []


@pytest.mark.parametrize("electrons", [0.1, 0.3, 0.5, 0.7, 1.0])
def test_sums_of_few_electrons_have_an_answer(electrons: float) -> None:
    """The median of such counts is 0, and so is their median deviation: the mean is not."""
    counts = np.random.default_rng(0).poisson(electrons, (1, 128, 128)).astype(np.uint16)
    found = md.gain_quality(counts)
    np.testing.assert_allclose(found.column_gain.mean(), 1, atol=0.02)
    assert found.attrs["electrons_per_image"] == pytest.approx(electrons, rel=0.1)


@pytest.mark.parametrize("electrons", [0.2, 0.5, 2.0, 6.0])
def test_pixels_of_dim_movies_are_not_dead(electrons: float) -> None:
    frames = np.random.default_rng(0).poisson(electrons, (1, 256, 256)).astype(np.uint16)
    frames[0, 5, 7] = 100
    frames[:, :, 40] = 0
    found = md.gain_quality(xr.DataArray(frames, dims=("frame", "y", "x")))
    wanted = np.zeros((256, 256), bool)
    wanted[5, 7] = wanted[:, 40] = True
    assert (found.mask.values != wanted).sum() <= 3
    assert found.column_broken.values[40]
