"""Dark and gain against the formula; lazy, the same for any chunks, and it commutes with the sum over frames."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import mrczdask as md
from mrczdask.errors import MrczdaskWarning

SHAPE = (3, 4, 24, 32)
RNG = np.random.default_rng(7)
RAW = RNG.poisson(6, SHAPE).astype(np.uint8)
GAIN = RNG.uniform(0.8, 1.2, SHAPE[-2:]).astype(np.float32)
DARK = RNG.uniform(0, 0.5, SHAPE[-2:]).astype(np.float32)
NAMES = ["a", "b", "c"]


def session(chunks: object = (1, 2, -1, -1), raw: NDArray[np.generic] = RAW) -> xr.DataArray:
    dims = ("movie", "frame", "y", "x")
    coords = {"movie": NAMES, "frame": range(raw.shape[1]), "dose_rate": ("movie", [1.0, 2.0, 4.0])}
    return xr.DataArray(da.from_array(raw, chunks), coords, dims, "images", {"origin": "lower"})


def expected(exponent: object = 1.0) -> NDArray[np.float64]:
    power = np.asarray(exponent, float).reshape(-1, 1, 1, 1)
    return (RAW.astype(float) - DARK) * GAIN.astype(float) ** power


def test_formula() -> None:
    np.testing.assert_allclose(md.apply_gain(session(), GAIN, dark=DARK), expected(), rtol=2e-6)
    np.testing.assert_allclose(md.apply_gain(session(), GAIN, dark=DARK, gamma=0.85), expected(0.85), rtol=2e-6)


def test_gamma_of_each_movie_from_its_dose_rate() -> None:
    images = session()
    rates = images.dose_rate
    corrected = md.apply_gain(images, GAIN, dark=DARK, dose_rate=rates)
    np.testing.assert_allclose(corrected, expected(md.gamma(rates.values)), rtol=2e-6)
    one = md.apply_gain(images.isel(movie=1), GAIN, dark=DARK, dose_rate=rates.isel(movie=1))
    np.testing.assert_array_equal(one, corrected.isel(movie=1))


def test_a_gain_for_each_movie_is_matched_by_label() -> None:
    gains = xr.DataArray(np.stack([GAIN, 2 * GAIN, 3 * GAIN]), {"movie": ["c", "b", "a"]}, ("movie", "y", "x"))
    corrected = md.apply_gain(session(), gains)
    np.testing.assert_allclose(corrected.sel(movie="a"), RAW[0] * 3.0 * GAIN, rtol=2e-6)
    np.testing.assert_allclose(corrected.sel(movie="c"), RAW[2] * 1.0 * GAIN, rtol=2e-6)
    with pytest.raises(ValueError, match="the gain does not fit: 1 of the movies are lacking, such as c"):
        md.apply_gain(session(), gains.isel(movie=slice(1, None)))


@settings(max_examples=15, deadline=None)
@given(st.tuples(*(st.integers(-(-n // 4), n) for n in SHAPE)))
def test_chunks_change_nothing(chunks: tuple[int, ...]) -> None:
    whole = md.apply_gain(session(-1), GAIN, dark=DARK, gamma=0.9).values
    np.testing.assert_array_equal(md.apply_gain(session(chunks), GAIN, dark=DARK, gamma=0.9), whole)


def test_commutes_with_the_sum() -> None:
    images = session()
    of_sums = md.apply_gain(md.sum_frames(images), GAIN, dark=DARK, gamma=0.9)
    assert of_sums.dtype == np.float64
    np.testing.assert_allclose(of_sums, md.apply_gain(images, GAIN, dark=DARK, gamma=0.9).sum("frame"), rtol=1e-5)


@pytest.mark.usefixtures("no_compute")
def test_nothing_is_computed() -> None:
    lazy_gain = xr.DataArray(da.from_array(GAIN, 8), dims=("y", "x"))
    for gain in (GAIN, lazy_gain):
        corrected = md.apply_gain(session().to_dataset(), gain, dark=DARK, dose_rate=4.5)
        assert isinstance(corrected.images.data, da.Array)


@pytest.mark.parametrize("lazy", [False, True])
def test_defects_of_the_gain_are_filled_and_named(lazy: bool) -> None:
    gain = GAIN.copy()
    gain[5, 7], gain[0, 0], gain[20, 3] = 0, np.nan, -1
    given_gain = xr.DataArray(da.from_array(gain, 12) if lazy else gain, dims=("y", "x"))
    corrected = md.apply_gain(session(), given_gain)
    assert sorted(map(tuple, np.argwhere(corrected.mask.values))) == [(0, 0), (5, 7), (20, 3)]
    around = [gain[y, x] for y in (4, 5, 6) for x in (6, 7, 8) if (y, x) != (5, 7)]
    np.testing.assert_allclose(corrected[:, :, 5, 7], RAW[:, :, 5, 7] * np.mean(around), rtol=1e-6)
    assert np.isfinite(corrected).all()


def test_divide_and_orientation() -> None:
    stored = xr.DataArray(np.rot90(1 / GAIN, -1), dims=("y", "x"), attrs={"convention": "divide"})
    with pytest.raises(ValueError, match="turned by a quarter"):
        md.apply_gain(session(), stored)
    corrected = md.apply_gain(session(), stored, orientation="rot90")
    np.testing.assert_allclose(corrected, RAW * GAIN, rtol=2e-6)


def test_another_origin_needs_an_orientation() -> None:
    gain = xr.DataArray(GAIN[::-1], dims=("y", "x"), attrs={"origin": "upper"})
    with pytest.raises(ValueError, match="upper"):
        md.apply_gain(session(), gain)
    np.testing.assert_allclose(md.apply_gain(session(), gain, orientation="flip y"), RAW * GAIN, rtol=2e-6)


@pytest.mark.parametrize(
    ("size", "message"),
    [((48, 64), "2 times finer"), ((12, 16), "images are 2 times finer"), ((25, 32), "another detector")],
)
def test_a_wrong_size_is_named(size: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        md.apply_gain(session(), np.ones(size, np.float32))


def test_arrays_give_arrays_and_history_is_kept() -> None:
    plain = md.apply_gain(RAW[0], GAIN)
    assert isinstance(plain, np.ndarray)
    assert plain.dtype == np.float32
    assert isinstance(md.apply_gain(da.from_array(RAW[0]), GAIN), da.Array)
    assert "apply_gain(gain='array float32 (24, 32)', gamma=0.9)" in md.apply_gain(session(), GAIN, gamma=0.9).history


def test_both_exponents_are_refused() -> None:
    with pytest.raises(ValueError, match="not both"):
        md.apply_gain(session(), GAIN, dose_rate=4, gamma=1)


def test_a_dark_of_sums_needs_the_number_of_frames() -> None:
    with pytest.raises(ValueError, match="n_frames"):
        md.apply_gain(session().sum("frame"), GAIN, dark=DARK)


class TestGamma:
    """Eq. 11 and its fit."""

    @pytest.mark.parametrize(("rate", "value"), [(1.0, 0.12035633 - 0.03363192 + 1.03902726), (7.0, 0.8195)])
    def test_formula(self, rate: float, value: float) -> None:
        assert md.gamma(rate) == pytest.approx(value, abs=5e-4)

    def test_extrapolation_warns(self) -> None:
        with pytest.warns(MrczdaskWarning, match=r"0.25 to 9"):
            md.gamma([1.0, 20.0])

    def test_no_rate_is_refused(self) -> None:
        with pytest.raises(ValueError, match="above 0"):
            md.gamma(0.0)

    @pytest.mark.parametrize("true", [0.75, 0.95, 1.2])
    def test_fit(self, true: float) -> None:
        shape, gain = (10, 768, 768), md.simulate.Gain(smooth_sd=0.05, pixel_sd=0.02)
        flat, truth = md.simulate.movie(shape, dose=10, gain=gain, gamma=true, seed=3)
        assert md.fit_gamma(flat, truth.gain) == pytest.approx(true, abs=0.01)

    def test_a_constant_gain_is_refused(self) -> None:
        with pytest.raises(ValueError, match="constant"):
            md.fit_gamma(np.ones((200, 200)), np.ones((200, 200)))

    def test_a_small_image_is_refused(self) -> None:
        with pytest.raises(ValueError, match="smaller than two boxes"):
            md.fit_gamma(RAW[0], GAIN)
