"""Densified frames have the mean and the variance of frames whose variance is not their mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

import mrczdask as md
from mrczdask.diffraction.regrowth import _before_cut, whole_counts
from mrczdask.kernels.places import Places

SHAPE = (160, 160)
GEOMETRY = md.Geometry.flat(SHAPE)
ALIKE = 0.03


def again(frames: NDArray[Any], error_model: str, noise: float = 1.0, **options: Any) -> NDArray[Any]:
    known = {"bins": 12, "unit": "pixel", "error_model": error_model, "noise": noise} | options
    dense: NDArray[Any] = md.densify(md.sparsify(frames, GEOMETRY, **known).compute(), seed=2).values
    return dense


def check(dense: NDArray[Any], truth: NDArray[Any], alike: float = ALIKE) -> None:
    """Five standard errors besides, as both are drawn."""
    values = truth.astype(np.float64)
    std, error = values.std(), 5 * np.sqrt(2 / truth.size)
    if std == 0:
        np.testing.assert_array_equal(dense, truth)
        return
    assert abs(dense.mean(dtype=np.float64) - values.mean()) <= alike * max(abs(values.mean()), std) + error * std
    tails = np.sqrt(max(stats.kurtosis(values, axis=None) + 2, 2) / truth.size) * 5
    assert abs(dense.astype(np.float64).var() / std**2 - 1) <= alike + tails


@settings(max_examples=25, deadline=None)
@given(
    counts=st.sampled_from([0.0, 1.0, 12.0, 100.0, 1000.0]),
    gain=st.sampled_from([0.5, 10.0, 41.0]),
    read=st.floats(0.5, 20.0),
    pedestal=st.sampled_from([0.0, -7.5, 200.0]),
    dtype=st.sampled_from([np.float32, np.int32, np.float64]),
    cutoff=st.sampled_from([2.0, 3.0, 5.0]),
    seed=st.integers(0, 9),
)
def test_frames_of_an_integrating_detector(
    counts: float, gain: float, read: float, pedestal: float, dtype: Any, cutoff: float, seed: int
) -> None:
    """Gain, read noise and pedestal in ADU, as of a Jungfrau; noise below the step of integers is not resolved."""
    assume(np.dtype(dtype).kind == "f" or counts or read >= 2)
    rng = np.random.default_rng(seed)
    frames = gain * rng.poisson(counts, (2, *SHAPE)) + rng.normal(pedestal, read, (2, *SHAPE))
    frames = frames.astype(dtype) if np.dtype(dtype).kind == "f" else np.rint(frames).astype(dtype)
    check(again(frames, "azimuthal", noise=0.0, cutoff_pick=cutoff), frames)


@pytest.mark.parametrize("model", ["poisson", "azimuthal", "hybrid", "count"])
@pytest.mark.parametrize("counts", [0.0, 0.1, 1.0, 30.0, 1000.0])
@pytest.mark.parametrize("dtype", [np.uint32, np.int32])
def test_frames_of_a_counting_detector(model: str, counts: float, dtype: Any) -> None:
    """Of an Eiger or a Pilatus; few counts come back though they were clipped."""
    frames = np.random.default_rng(3).poisson(counts, (2, *SHAPE)).astype(dtype)
    dense = again(frames, model)
    check(dense, frames)
    assert dense.min() >= 0


@pytest.mark.parametrize("model", ["poisson", "count"])
@pytest.mark.parametrize(("counts", "dark"), [(12, 40), (0, 40), (0, 5), (300, 30)])
def test_a_dark_leaves_its_noise(model: str, counts: float, dark: float) -> None:
    """Counts of signal and dark, less the dark: the law is known, to its skewness."""
    frames = np.random.default_rng(4).poisson(counts + dark, (2, *SHAPE)).astype(np.uint16)
    dense = again(frames, model, dark=np.full(SHAPE, dark, np.float32))
    truth = frames - float(dark)
    check(dense, truth)
    assert stats.skew(dense, axis=None) == pytest.approx(stats.skew(truth, axis=None), abs=0.1)


@pytest.mark.parametrize("frames", ["pedestal", "two rates", "negative", "constant"])
def test_integers_of_other_laws(frames: str) -> None:
    rng = np.random.default_rng(5)
    made = {
        "pedestal": np.rint(rng.normal(1000, 5, (2, *SHAPE))).astype(np.uint16),
        "two rates": (10 * rng.poisson(0.5, (2, *SHAPE))).astype(np.uint16),
        "negative": np.rint(rng.normal(-3, 0.5, (2, *SHAPE))).astype(np.int16),
        "constant": np.full((2, *SHAPE), 7, np.uint8),
    }[frames]
    dense = again(made, "azimuthal")
    assert dense.dtype == made.dtype
    if frames == "constant":
        np.testing.assert_array_equal(dense, made)
    else:
        check(dense, made)


def test_pixels_do_not_depend_on_the_chunks() -> None:
    frames = np.random.default_rng(6).normal(5, 4, (3, *SHAPE)).astype(np.float32)
    table = md.sparsify(frames, GEOMETRY, bins=12, unit="pixel", error_model="azimuthal").compute()
    whole = md.densify(table)
    np.testing.assert_array_equal(md.densify(table.isel(shot=slice(None))).values, whole.values)
    one = md.sparsify(whole.chunk(shot=1), GEOMETRY, bins=12, unit="pixel", error_model="azimuthal")
    np.testing.assert_array_equal(md.densify(one).values, md.densify(one.compute()).values)


def test_the_tail_that_is_cut_is_given_back() -> None:
    mean, spread = _before_cut(*(np.array([v]) for v in (0.0, 1.0, 2.0, 1.0)))
    cut = stats.truncnorm(-np.inf, (2 - mean[0]) / spread[0], loc=mean[0], scale=spread[0])
    assert cut.mean() == pytest.approx(0, abs=1e-3)
    assert cut.std() == pytest.approx(1, rel=1e-3)


def test_the_mean_of_clipped_counts() -> None:
    places = Places(np.zeros(500, np.float32), np.empty(0, np.float32))
    counts = np.arange(8)
    chance = np.where(counts <= 1, stats.poisson.pmf(counts, 0.1), 0)
    seen = (counts * chance).sum() / chance.sum()
    found = whole_counts(np.full(1, seen, np.float32), np.full(1, seen**0.5, np.float32), places)
    assert found[0] == pytest.approx(0.1, rel=1e-3)


def test_background_near_the_largest_number_stays_there() -> None:
    for dtype in (np.uint8, np.uint64, np.int64):
        most = np.iinfo(dtype).max
        frames = np.full((1, *SHAPE), most - max(most >> 6, 2), dtype)
        for law in ("poisson", "mean", "fabio"):
            table = md.sparsify(frames, GEOMETRY, bins=12, unit="pixel").compute()
            dense = md.densify(table, background=law).values  # type: ignore[arg-type]
            assert np.quantile(dense.astype(float), 0.01) > 0.7 * float(most)  # a few are the dummy of FabIO's rule
