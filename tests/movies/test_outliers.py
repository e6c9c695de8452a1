"""Outliers of simulated detectors: what is found, what is filled, lazily, and the same for any chunks."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import mrczdask as md
from mrczdask.errors import MrczdaskWarning

ELECTRONS = 40
DEFECTS = md.simulate.Defects(hot_fraction=0.005, hot_excess=(0.2, 8.0))
SHAPE = (20, 512, 512)
MOVIE, TRUTH = md.simulate.movie(SHAPE, dose=ELECTRONS / SHAPE[0], defects=DEFECTS, seed=5)
SUMS = md.sum_frames(MOVIE).compute()


def scores(
    found: np.ndarray, truth: xr.Dataset, frames: int = SHAPE[0], total: float = ELECTRONS
) -> tuple[float, float]:
    """Precision of all that is found, recall of hot pixels above 5 standard deviations."""
    bad, excess = truth.mask.values, truth.hot_excess.values * frames
    strong = excess > 5 * np.sqrt(total)
    return float((found & bad).sum() / max(found.sum(), 1)), float((found & strong).sum() / strong.sum())


@pytest.mark.parametrize("total", [40, 350])
def test_fdr_precision_and_recall(total: int) -> None:
    movie, truth = md.simulate.movie((20, 512, 512), dose=total / 20, defects=DEFECTS, seed=total, dtype="uint16")
    found = md.find_outliers(md.sum_frames(movie).compute())
    precision, recall = scores(found.mask.values, truth, 20, total)
    assert precision >= 0.85
    assert recall >= 0.93


def test_paper_mode_recall() -> None:
    found = md.find_outliers(SUMS, method="cdf")
    assert scores(found.mask.values, TRUTH)[1] >= 0.99
    assert 1.5 < float(found.threshold_hot) < 4
    assert float(found.threshold_dark) == -4.0  # no dark tail


def test_neighbouring_movies_find_weak_static_pixels() -> None:
    weak = md.simulate.Defects(hot_fraction=0.005, hot_excess=(0.6, 1.5))
    session, truth = md.simulate.session(6, (20, 256, 256), dose=2, defects=weak)
    sums = md.sum_frames(session).compute()
    hot = truth.mask.values

    def precision_recall(window: int | None) -> tuple[float, float]:
        mask = md.find_outliers(sums, window=window).mask.values
        return (mask & hot).sum() / mask.sum(), (mask & hot).sum() / hot.sum()

    precision, recall = precision_recall(5)
    assert precision >= 0.9
    assert recall >= 0.93
    assert recall > precision_recall(None)[1] + 0.2


def test_births_and_deaths_are_counted() -> None:
    moving = md.simulate.Defects(hot_births=0.002, hot_lifetime=3, hot_excess=(6.0, 8.0))
    session, truth = md.simulate.session(5, (20, 256, 256), dose=2, defects=moving, seed=1)
    found = md.find_outliers(md.sum_frames(session), window=4).compute()
    hot = truth.mask.values
    born = [(hot[k] & ~hot[k - 1]).sum() for k in range(1, 5)]
    np.testing.assert_allclose(found.n_born[1:], born, atol=4)
    died = [(hot[k - 1] & ~hot[k]).sum() for k in range(1, 5)]
    np.testing.assert_allclose(found.n_died[1:], died, atol=4)
    recall = [(found.mask.values[k] & hot[k]).sum() / hot[k].sum() for k in range(5)]
    assert min(recall) > 0.97  # those born in the movie itself too


def test_filled_frames_correlate_as_clean_ones_do() -> None:
    clean = float(md.frame_correlation(TRUTH.clean))
    found = md.find_outliers(SUMS)
    assert float(md.frame_correlation(MOVIE)) > 0.015
    assert abs(float(md.frame_correlation(md.fill_outliers(MOVIE, found))) - clean) <= 0.001


def test_clean_movie_is_left_alone() -> None:
    filled = md.fill_outliers(TRUTH.clean, md.find_outliers(md.sum_frames(TRUTH.clean).compute()))
    assert abs(float(md.frame_correlation(filled)) - float(md.frame_correlation(TRUTH.clean))) <= 2e-4


def test_the_report_draws_figure_5() -> None:
    found = md.find_outliers(SUMS, method="cdf")
    assert found.histogram.sum() == pytest.approx(SUMS.size, rel=0.01)
    fitted = found.residual.where((found.deviation > 0) & (found.residual > 0.5)).dropna("bin")
    assert len(fitted) > 10
    assert found.attrs["method"] == "cdf"
    assert list(found.defect_kind.flag_values) == [0, 1, 2]


def test_given_defects_and_those_of_the_gain_are_bad() -> None:
    mask = np.zeros(SHAPE[1:], bool)
    mask[100, 3] = True
    gain = np.ones(SHAPE[1:], np.float32)
    gain[7, 8] = 0
    found = md.find_outliers(md.apply_gain(SUMS, gain), mask=mask)
    assert found.defect_kind.values[100, 3] == found.defect_kind.values[7, 8] == 2
    assert found.weight.values[7, 8] == 0
    gained = md.apply_gain(MOVIE.isel(frame=0), gain)
    assert float(md.fill_outliers(gained, mask).values[7, 8]) != float(gained.values[7, 8])


def test_counts_per_electron_scale_the_noise() -> None:
    scaled = (SUMS * 37).assign_attrs(counts_per_electron=37.0)
    np.testing.assert_array_equal(md.find_outliers(scaled).mask, md.find_outliers(SUMS).mask)


def test_low_dose_is_seen_in_the_level() -> None:
    found = md.find_outliers(md.simulate.poisson((2, 64, 64), mean=1.0)).compute()
    assert float(found.level) == pytest.approx(2.0, abs=0.1)
    assert (float(found.judged), float(found.dispersion)) == (0, 1)
    assert float(md.find_outliers(SUMS).judged) == 1


@pytest.mark.parametrize("dose", [0.002, 0.02, 0.05, 0.2, 0.4])
@pytest.mark.parametrize("window", [None, 2])
def test_dim_movies_keep_their_electrons(dose: float, window: int | None) -> None:
    ice = md.simulate.Specimen(ice_sd=0.1)
    session, _ = md.simulate.session(3, (10, 128, 128), dose=dose, specimen=ice, seed=2)
    sums = md.sum_frames(session).compute()
    found = md.find_outliers(sums, window=window)
    assert float(found.mask.mean()) < 1e-4
    assert float(md.fill_outliers(sums, found).mean()) == pytest.approx(float(sums.mean()), rel=5e-3)


def test_masks_of_good_pixels_are_refused() -> None:
    good = np.ones(SHAPE[1:], bool)
    good[5, 6] = False
    lazy = xr.DataArray(da.from_array(good, chunks=100), dims=("y", "x"))
    for mask in (good, lazy):
        with pytest.raises(ValueError, match="find_outliers: the mask calls 100% of the pixels bad"):
            md.find_outliers(SUMS, mask=mask).compute()
        with pytest.raises(ValueError, match="fill_outliers: the mask calls 100% of the pixels bad"):
            np.asarray(md.fill_outliers(MOVIE.isel(frame=[0]), mask))
    quarter = np.zeros(SHAPE[1:], bool)
    quarter[:256, :256] = True
    with pytest.raises(ValueError, match=r"25% .*max_bad=0.25"):
        md.find_outliers(SUMS, mask=quarter)
    assert int(md.find_outliers(SUMS, mask=quarter, max_bad=0.25).n_dead) >= quarter.sum()
    with pytest.raises(ValueError, match="above 0 and up to 1"):
        md.find_outliers(SUMS, mask=quarter, max_bad=25)


@pytest.mark.parametrize("frames", [1, 3])
def test_empty_and_one_frame_movies(frames: int) -> None:
    movie = xr.DataArray(np.zeros((frames, 40, 50), np.uint8), dims=("frame", "y", "x"))
    for method in ("fdr", "cdf"):
        found = md.find_outliers(movie, method=method)
        assert not found.mask.any()
        np.testing.assert_array_equal(md.fill_outliers(movie, found), 0)


@pytest.mark.usefixtures("no_compute")
def test_nothing_is_computed() -> None:
    session, _ = md.simulate.session(4, (3, 64, 64))
    sums = md.sum_frames(session)
    for options in ({}, {"method": "cdf"}, {"window": 3}):
        found = md.find_outliers(sums, **options)
        assert all(isinstance(v.data, da.Array) for v in found.data_vars.values())
    mask = xr.DataArray(da.zeros((4, 64, 64), dtype=bool), dims=("movie", "y", "x"))
    for keep in (False, True):
        assert isinstance(md.fill_outliers(session, mask, keep_integers=keep).images.data, da.Array)


SMALL, SMALL_TRUTH = md.simulate.session(3, (4, 40, 36), dose=3, defects=md.simulate.Defects(hot_fraction=0.05))
MASK = SMALL_TRUTH.mask.compute()


@settings(max_examples=10, deadline=None)
@given(st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(9, 40), st.integers(9, 36)), st.booleans())
def test_chunks_change_nothing(chunks: tuple[int, ...], keep: bool) -> None:
    whole = md.fill_outliers(SMALL.compute(), MASK, keep_integers=keep)
    pieces = SMALL.chunk(dict(zip(("movie", "frame", "y", "x"), chunks, strict=True)))
    lazy_mask = MASK.copy(data=da.from_array(MASK.values, chunks[-MASK.ndim :]))
    filled = md.fill_outliers(pieces, lazy_mask, keep_integers=keep)
    xr.testing.assert_equal(filled.images.compute().drop_attrs(), whole.images.drop_attrs())
    sums = md.sum_frames(pieces)
    one = md.find_outliers(md.sum_frames(SMALL.compute()), window=2)
    xr.testing.assert_equal(md.find_outliers(sums, window=2).compute().drop_attrs(), one.drop_attrs())


def test_a_selection_draws_the_same_neighbours() -> None:
    whole = md.fill_outliers(SMALL, MASK, keep_integers=True).images
    part = md.fill_outliers(SMALL.isel(movie=1, frame=[3, 1]), MASK, keep_integers=True).images
    np.testing.assert_array_equal(part, whole.isel(movie=1, frame=[3, 1]))


def test_fill_commutes_with_the_sum() -> None:
    sums = md.sum_frames(SMALL)
    filled = md.fill_outliers(sums, MASK)
    np.testing.assert_allclose(filled, md.fill_outliers(SMALL, MASK).images.sum("frame", dtype=float), rtol=1e-5)


def test_integers_keep_their_mean() -> None:
    movie, truth = md.simulate.movie((400, 32, 32), dose=2, defects=md.simulate.Defects(hot_fraction=0.1))
    mask = truth.mask.compute()
    kept = md.fill_outliers(movie, mask, keep_integers=True)
    assert kept.dtype == np.uint8
    expected = md.fill_outliers(md.sum_frames(movie), mask, keep_integers=True) / 400
    left = (kept.mean("frame") - expected).where(mask)
    assert abs(float(left.mean())) < 0.02
    assert float(left.std()) < 2 * np.sqrt(2 / 400)


def test_unstored_masks_warn() -> None:
    with dask.config.set(scheduler="sync"):
        found = md.find_outliers(md.sum_frames(SMALL))
        with pytest.warns(MrczdaskWarning, match="store it first"):
            md.fill_outliers(SMALL, found)
        stored = found.compute()
        md.fill_outliers(SMALL, stored)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "paper"}, "fdr"),
        ({"window": 0}, "1 or more"),
        ({"q": 1.5}, "between 0 and 1"),
        ({"k": 0}, "above 0"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        md.find_outliers(SUMS, **options)


def test_bad_masks() -> None:
    with pytest.raises(ValueError, match="two movies or more"):
        md.find_outliers(SUMS, window=2)
    with pytest.raises(ValueError, match="the mask is 3 x 3"):
        md.fill_outliers(MOVIE, np.zeros((3, 3), bool))
    with pytest.raises(ValueError, match="give bool"):
        md.fill_outliers(MOVIE, np.zeros(SHAPE[1:], int))
    with pytest.raises(ValueError, match="needs integers"):
        md.fill_outliers(MOVIE.astype("float32"), np.zeros(SHAPE[1:], bool), keep_integers=True)
