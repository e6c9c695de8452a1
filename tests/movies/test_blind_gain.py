from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr

import mrczdask as md
from mrczdask.kernels.line_means import slow_share
from mrczdask.movies import ranked_images
from mrczdask.simulate import Defects, Gain, Specimen

REFERENCE = Path(__file__).parent.parent / "data" / "sme_reference"
LINES = Gain(column_sd=0.03, row_sd=0.02)
FULL = Gain(column_sd=0.03, row_sd=0.02, pixel_sd=0.02, smooth_sd=0.045)
"""Variance .0042: the pixel means of 1, 10, 100 movies of 40 e/pixel then have an R2 of -5, .4 and .94."""


def response(truth: xr.Dataset) -> np.ndarray:
    """The true gain to divide by, mean 1."""
    values = truth.response.values.astype(float)
    return values / values.mean()


def r2(found: Any, true: np.ndarray) -> float:
    return float(1 - ((np.asarray(found) - true) ** 2).mean() / ((true - true.mean()) ** 2).mean())


def slope(found: Any, true: np.ndarray, axis: int) -> float:
    return float(np.polyfit(true.mean(axis=axis), np.asarray(found).mean(axis=axis), 1)[0])


def divisor(movie: Any, **options: Any) -> np.ndarray:
    return md.estimate_gain(movie, convention="divide", **options).gain.values.astype(float)


@pytest.mark.parametrize("dose", [2, 60])
@pytest.mark.parametrize("sigma", [0, 1])
def test_gives_what_the_published_program_gives(dose: int, sigma: int) -> None:
    given = np.load(REFERENCE / f"poisson_{dose}e_96x128.npz")
    found = md.estimate_gain(given["movie"], method="sme", sigma=sigma, ties="upper", sum_to=None)
    assert found.attrs["convention"] == "multiply"
    assert np.abs(found.gain - given[f"ideal_over_observed_sigma{sigma}"]).max() < 1e-5


@pytest.fixture(scope="module")
def bright() -> tuple[xr.DataArray, np.ndarray]:
    movie, truth = md.simulate.movie((20, 512, 512), dose=60, gain=LINES, seed=1)
    return movie.compute(), response(truth)


def test_ten_iterations_recover_rows_and_columns(bright: tuple[xr.DataArray, np.ndarray]) -> None:
    movie, true = bright
    found = md.estimate_gain(movie, method="sme", iterations=10, sigma=0, convention="divide")
    assert 0.90 < slope(found.gain, true, 0) < 1.05
    assert 0.90 < slope(found.gain, true, 1) < 1.05
    assert r2(found.gain, true) >= 0.80
    assert len(found.attrs["change"]) == 10


def test_a_sequential_pass_recovers_rows_and_columns(bright: tuple[xr.DataArray, np.ndarray]) -> None:
    movie, true = bright
    found = divisor(movie, method="sme", sequential=True)
    assert 0.90 < slope(found, true, 0) < 1.05
    assert 0.90 < slope(found, true, 1) < 1.05
    assert r2(found, true) >= 0.95


def test_one_iteration_recovers_half_and_says_so(bright: tuple[xr.DataArray, np.ndarray]) -> None:
    movie, true = bright
    found = md.estimate_gain(movie, method="sme", convention="divide")
    assert slope(found.gain, true, 0) == pytest.approx(0.5, abs=0.03)
    assert "1 iterations recover 0.5 of the amplitude" in found.attrs["limits"]
    assert found.attrs["electrons_per_image"] == pytest.approx(60, rel=0.01)


def test_the_error_of_sequential_sme_is_its_uncertainty(bright: tuple[xr.DataArray, np.ndarray]) -> None:
    movie, true = bright
    found = md.estimate_gain(movie, method="sme", sequential=True, convention="divide")
    pull = (found.gain - true) / found.uncertainty
    assert 0.8 < float(pull.std()) < 1.25


def test_low_dose_frames_are_summed_and_iterations_stay_put() -> None:
    movie, truth = md.simulate.movie((20, 512, 512), dose=2, gain=LINES, seed=1)
    true, movie = response(truth), movie.compute()
    found = md.estimate_gain(movie, method="sme", iterations=10, convention="divide")
    assert found.attrs["electrons_per_image"] == pytest.approx(40, rel=0.01)
    assert r2(found.gain, true) >= 0.55
    assert 0.90 < slope(found.gain, true, 0) < 1.05
    assert max(found.attrs["change"][5:]) < found.attrs["change"][0] / 10
    unsummed = md.estimate_gain(movie, method="sme", iterations=5, sigma=0, sum_to=None, convention="divide")
    assert r2(unsummed.gain, true) < 0  # ties of integers: why frames are summed
    assert "images of 2 e/pixel were ranked" in unsummed.attrs["limits"]


def test_iterations_end_when_they_converge() -> None:
    movie, _ = md.simulate.movie((4, 128, 128), dose=60, gain=LINES, seed=1)
    found = md.estimate_gain(movie, method="sme", sigma=0, iterations="converge")
    change = found.attrs["change"]
    assert 5 < len(change) <= 30
    assert change[-1] < 1e-3


def test_sme_is_blind_to_gain_of_pixels() -> None:
    movie, truth = md.simulate.movie((8, 256, 256), dose=60, gain=Gain(pixel_sd=0.03), seed=2)
    found = divisor(movie, method="sme", iterations=3, sigma=0)
    assert np.corrcoef(found.ravel(), response(truth).ravel())[0, 1] ** 2 < 0.01


@pytest.fixture(scope="module")
def hundred() -> tuple[xr.DataArray, np.ndarray]:
    session, truth = md.simulate.session(100, (4, 256, 256), dose=10, gain=FULL, seed=3)
    return session.images.compute(), response(truth)


@pytest.mark.parametrize(("movies", "least"), [(1, 0.72), (10, 0.85), (100, 0.90)])
def test_hybrid_reaches_its_r2_and_knows_it(
    hundred: tuple[xr.DataArray, np.ndarray], movies: int, least: float
) -> None:
    images, true = hundred
    found = md.estimate_gain(images.isel(movie=slice(0, movies)), convention="divide")
    reached = r2(found.gain, true)
    assert reached >= least
    assert found.attrs["expected_r2"] == pytest.approx(reached, abs=0.05 if movies == 1 else 0.02)
    pull = (found.gain - true) / found.uncertainty
    assert 0.8 < float(pull.std()) < 1.2
    assert ("one movie" in found.attrs["limits"]) == (movies == 1)


def test_hybrid_tells_how_many_more_movies_it_needs(hundred: tuple[xr.DataArray, np.ndarray]) -> None:
    images, true = hundred
    more = int(md.estimate_gain(images.isel(movie=slice(0, 30))).attrs["movies_to_r2_95"])
    assert 10 < more < 60
    assert r2(divisor(images.isel(movie=slice(0, 30 + more))), true) == pytest.approx(0.95, abs=0.01)
    assert md.estimate_gain(images).attrs["movies_to_r2_95"] == 0


def test_means_give_rows_and_columns_with_their_error() -> None:
    session, truth = md.simulate.session(10, (4, 256, 256), dose=10, gain=LINES, seed=5)
    found = md.estimate_gain(session, method="means", convention="divide")
    true = response(truth)
    assert r2(found.gain, true) > 0.97
    pull = (found.gain - true) / found.uncertainty
    assert 0.7 < float(pull.std()) < 1.3
    one = md.estimate_gain(session.isel(movie=0), method="means", convention="divide")
    assert 0.7 < float(((one.gain - true) / one.uncertainty).std()) < 1.3


def test_a_tenth_of_carbon_movies_does_not_matter() -> None:
    carbon = Specimen(carbon=("movie_0003", "movie_0011"), carbon_contrast=0.4, ice_sd=0.02)
    session, truth = md.simulate.session(20, (1, 512, 512), dose=40, gain=LINES, specimen=carbon, seed=6)
    images, columns = session.images.compute(), response(truth).mean(axis=0)
    for method in ("means", "hybrid"):
        assert np.corrcoef(divisor(images, method=method).mean(axis=0), columns)[0, 1] >= 0.99


def test_hot_pixels_are_kept_as_measured_and_dead_ones_marked() -> None:
    bad = Defects(hot_fraction=0.002, hot_excess=(20, 20), dead_fraction=0.002, dead_columns=1, dead_rows=1)
    session, truth = md.simulate.session(10, (4, 128, 128), dose=10, gain=LINES, defects=bad, seed=7)
    found = md.estimate_gain(session, convention="divide")
    kind = truth.defect_kind.isel(movie=0).values
    np.testing.assert_array_equal(found.mask, kind == 2)
    assert (found.gain.values[kind == 2] == 1).all()
    assert np.isnan(found.uncertainty.values[kind == 2]).all()
    np.testing.assert_allclose(found.gain.values[kind == 1], 3, rtol=0.2)
    assert float(found.gain.where(~found.mask).mean()) == pytest.approx(1, abs=1e-4)


def test_conventions_are_reciprocal() -> None:
    movie, _ = md.simulate.movie((4, 64, 64), dose=40, gain=LINES)
    multiply, divide = (md.estimate_gain(movie, convention=c) for c in ("multiply", "divide"))
    product = multiply.gain * divide.gain
    np.testing.assert_allclose(product, product.mean(), rtol=1e-5)
    assert (multiply.gain.attrs["convention"], divide.gain.attrs["convention"]) == ("multiply", "divide")


def test_deviation_is_the_standard_deviation_of_pixels() -> None:
    session, _ = md.simulate.session(3, (10, 64, 64), dose=40, gain=LINES)
    found = divisor(session, method="deviation", sum_to=None)
    images = session.images.values.reshape(30, 64, 64).astype(float)
    want = (images / images.mean(axis=(1, 2), keepdims=True)).std(axis=0, ddof=1)
    np.testing.assert_allclose(found, want / want.mean(), rtol=1e-5)
    with pytest.raises(ValueError, match="needs 3 images and has 1"):
        md.estimate_gain(session.isel(movie=0, frame=0).expand_dims("frame"), method="deviation")


@pytest.mark.parametrize("method", ["sme", "hybrid", "means", "deviation"])
def test_chunks_and_schedulers_do_not_matter(method: Any) -> None:
    session, _ = md.simulate.session(4, (6, 96, 80), dose=8, gain=FULL, seed=8)
    options: dict[str, Any] = {"method": method, "sum_to": None if method == "deviation" else 40}
    want = md.estimate_gain(session.images.compute(), **options)
    cut = session.images.chunk({"movie": 2, "frame": 4, "y": 50, "x": 33})
    for scheduler in ("threads", "sync"):
        with dask.config.set(scheduler=scheduler):
            found = md.estimate_gain(cut, **options)
            np.testing.assert_allclose(found.gain, want.gain, rtol=1e-5)
            np.testing.assert_allclose(found.uncertainty, want.uncertainty, rtol=1e-4)


def test_runs_on_a_cluster() -> None:
    from distributed import Client, LocalCluster

    session, _ = md.simulate.session(3, (8, 512, 520), dose=10, gain=LINES)  # more than 4 MB: sent once
    forms: dict[str, dict[str, Any]] = {"sme": {"iterations": 2, "sigma": 0}, "hybrid": {}}
    want = {method: md.estimate_gain(session, method=method, **options) for method, options in forms.items()}
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as cluster,
        Client(cluster),
    ):
        for method, options in forms.items():
            for images in (session, session.images.compute()):
                found = md.estimate_gain(images, method=method, **options)
                xr.testing.assert_allclose(found.gain, want[method].gain, rtol=1e-5)


def test_sums_are_streamed_straight_from_the_reader_only() -> None:
    for images in (md.simulate.session(4, (6, 40, 40), dose=10)[0], md.simulate.movie((6, 40, 40), dose=10)[0]):
        direct, cut = (ranked_images.as_movies(part, "x") for part in (images, images.isel(x=slice(0, 39))))
        assert direct.source is not None
        assert cut.source is None
        group = ranked_images.Group(0, 1, 1, 5, True)
        (streamed,) = dask.compute(group.of(direct))
        np.testing.assert_array_equal(streamed[:, :, :39], group.of(cut).compute())
        np.testing.assert_array_equal(streamed[0], np.asarray(direct.pixels)[0, 1:5].sum(axis=0))


def test_frames_are_summed_in_even_parts_and_movies_where_one_is_too_short() -> None:
    movies = ranked_images.as_movies(np.zeros((6, 20, 4, 4), np.uint8), "x")
    groups = ranked_images.groups_of(movies, 5.0, 40)
    assert [(g.first, g.end) for g in groups[:2]] == [(0, 10), (10, 20)]
    assert all(g.summed for g in groups)
    across = ranked_images.groups_of(movies, 1.0, 40)
    assert [(g.movie, g.last) for g in across] == [(0, 2), (2, 4), (4, 6)]
    alone = ranked_images.groups_of(movies, 50.0, 40)
    assert not any(g.summed for g in alone)
    assert sum(g.end - g.first for g in alone) == 120
    assert len(ranked_images.groups_of(movies, 0.01, 40)) == 1


def test_electrons_are_counts_over_counts_per_electron() -> None:
    movie, _ = md.simulate.movie((4, 64, 64), dose=10, gain=LINES)
    counts = (movie * 5).assign_attrs(counts_per_electron=5.0)
    assert md.estimate_gain(counts).attrs["electrons_per_pixel"] == pytest.approx(40, rel=0.02)


def test_provenance_and_progress() -> None:
    movie, _ = md.simulate.movie((4, 64, 64), dose=40, gain=LINES)
    seen: list[tuple[int, int, str]] = []
    found = md.estimate_gain(movie, method="sme", iterations=2, progress=lambda *step: seen.append(step))
    assert "estimate_gain(method='sme', iterations=2" in found.attrs["history"]
    assert found.attrs["origin"] == "lower"
    assert seen[0][2] == "gain, iteration 1"
    assert seen[-1][0] == seen[-1][1]


# ---------------------------------------------------------------------------------------------------- bad inputs


def test_constant_frames_have_a_flat_gain() -> None:
    for method in ("sme", "means", "hybrid"):
        found = md.estimate_gain(np.full((3, 8, 9), 7, np.uint8), method=method)
        np.testing.assert_allclose(found.gain, 1)
    assert np.isnan(md.estimate_gain(np.full((3, 8, 9), 7, np.uint8)).attrs["expected_r2"])


@pytest.mark.parametrize("method", ["sme", "means", "hybrid"])
def test_columns_of_zeros_are_defects(method: Any) -> None:
    movie, _ = md.simulate.movie((4, 64, 64), dose=40, gain=LINES)
    frames = movie.values.copy()
    frames[:, :, 5] = 0
    frames[:, :, 40:43] = 0
    found = md.estimate_gain(frames, method=method)
    assert found.mask.values.all(axis=0).nonzero()[0].tolist() == [5, 40, 41, 42]
    assert int(found.mask.sum()) == 4 * 64
    assert np.isfinite(found.gain).all()
    good = found.gain.values[~found.mask.values]
    assert abs(good - 1).max() < 0.4


def test_negative_values_are_taken_as_they_are() -> None:
    rng = np.random.default_rng(0)
    column = 1 + 0.05 * rng.normal(size=64)
    frames = rng.normal(20, 12, (60, 64, 64)) * column
    assert frames.min() < 0
    for dtype in (np.float32, np.int16):
        found = divisor(frames.astype(dtype), method="means")
        assert np.corrcoef(found.mean(axis=0), column)[0, 1] > 0.95
        assert np.isfinite(divisor(frames.astype(dtype), method="sme", sequential=True)).all()


def test_frames_of_one_electron_give_a_result_with_its_limits() -> None:
    movie, truth = md.simulate.movie((4, 256, 256), dose=1, gain=LINES)
    found = md.estimate_gain(movie, method="sme", sequential=True, convention="divide")
    assert np.isfinite(found.gain).all()
    assert "images of 4 e/pixel were ranked" in found.attrs["limits"]
    assert float(found.uncertainty.mean()) > 0.02
    assert np.corrcoef(found.gain.mean("y"), response(truth).mean(axis=0))[0, 1] > 0.6


BAD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "NaN": (np.array([[[1, np.nan], [1, 1]]]), {}, "NaN or infinity: fill them"),
    "a single row": (np.ones((4, 1, 64)), {}, "at least 2 of each"),
    "nothing counted": (np.zeros((4, 8, 8), np.uint8), {}, "a gain needs counts above 0"),
    "negative mean": (np.full((4, 8, 8), -3.0), {}, "subtract the dark"),
    "no frame": (np.zeros((0, 8, 8)), {}, "and a frame"),
    "an image": (np.ones((8, 8)), {}, "(frame, y, x)"),
    "complex": (np.ones((2, 8, 8), complex), {}, "complex128"),
    "method": (np.ones((2, 8, 8)), {"method": "best"}, "method='best'"),
    "ties": (np.ones((2, 8, 8)), {"ties": "lower"}, "'mid', 'upper'"),
    "iterations": (np.ones((2, 8, 8)), {"iterations": 0}, "whole number from 1"),
    "sum_to": (np.ones((2, 8, 8)), {"sum_to": -1}, "above 0, or None"),
    "sigma": (np.ones((2, 8, 8)), {"sigma": -1}, "numbers from 0"),
    "sigma_step": (np.ones((2, 8, 8)), {"sigma_step": 0}, "sigma_step=0"),
    "max_sigma": (np.ones((2, 8, 8)), {"max_sigma": -1}, "numbers from 0"),
    "dims": (xr.DataArray(np.ones((2, 8, 8)), dims=("shot", "y", "x")), {}, "('shot', 'y', 'x')"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_in_one_line(case: str) -> None:
    movie, options, message = BAD[case]
    with pytest.raises(ValueError) as caught:
        md.estimate_gain(movie, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nan_in_a_frame_that_was_not_sampled_is_found_too() -> None:
    movie = np.ones((9, 8, 8), np.float32)
    movie[3, 2, 2] = np.nan
    for method in ("sme", "hybrid", "deviation"):
        with pytest.raises(ValueError, match="NaN or infinity"):
            md.estimate_gain(movie, method=method, sum_to=None)


def test_masked_pixels_are_left_out() -> None:
    movie, truth = md.simulate.movie((8, 64, 64), dose=40, gain=LINES)
    frames = movie.compute()
    frames[:, 10:20, 10:20] = 200
    mask = np.zeros((64, 64), bool)
    mask[10:20, 10:20] = True
    found = md.estimate_gain(frames.assign_coords(mask=(("y", "x"), mask)), method="means", convention="divide")
    assert r2(found.gain, response(truth)) > 0.9


def test_no_warning_escapes() -> None:
    bad = Defects(hot_fraction=0.01, dead_fraction=0.01, dead_columns=3)
    movie, _ = md.simulate.movie((4, 64, 64), dose=5, defects=bad)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for method in ("sme", "means", "hybrid", "deviation"):
            md.estimate_gain(movie, method=method, sum_to=None)


@pytest.mark.parametrize(("falls", "claimed"), [(0.0, True), (0.15, False)])
def test_fixed_illumination_is_told_and_no_r2_is_claimed(falls: float, claimed: bool) -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    own = 1 + 0.02 * rng.normal(size=(128, 128))
    movies = rng.poisson(20 * np.exp(-falls * (y**2 + x**2)) * own, (12, 2, 128, 128))
    found = md.estimate_gain(movies, convention="divide")
    assert "illumination that stays as it is" in found.attrs["limits"]
    assert ("expected_r2 is not claimed" in found.attrs["limits"]) is not claimed
    assert np.isfinite(found.attrs["expected_r2"]) == np.isfinite(found.attrs["movies_to_r2_95"]) == claimed
    if claimed:
        assert found.attrs["expected_r2"] == pytest.approx(r2(found.gain, own / own.mean()), abs=0.05)
    else:
        assert r2(found.gain, own / own.mean()) < 0.5  # what would have been claimed is 0.9


def test_masked_pixels_are_in_no_slow_curve() -> None:
    gain, bad = 1 + 0.01 * np.random.default_rng(0).normal(size=(90, 70)), np.zeros((90, 70), bool)
    bad[:40, :30] = True
    assert slow_share(np.where(bad, 50.0, gain), bad) < 0.01
    tilted = gain + np.linspace(-0.1, 0.1, 70)
    assert slow_share(np.where(bad, np.nan, tilted), bad) > 0.9
    assert slow_share(gain, np.ones_like(bad)) == 0
