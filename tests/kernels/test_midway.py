from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from benchmarks import sme_numpy
from mrczdask.kernels import histogram_match as match
from mrczdask.kernels import midway
from mrczdask.kernels.midway import Midway, equalised

REFERENCE = Path(__file__).parent.parent / "data" / "sme_reference"
SIGMAS = tuple(np.arange(0, 3.01, 0.5))


def frames() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    shape = (70, 93)
    return {
        "counting": rng.poisson(2.0, shape).astype(np.uint8),
        "signed": rng.poisson(60.0, shape).astype(np.int16) - 50,
        "hot": np.where(rng.random(shape) < 0.01, 4000, rng.poisson(2.0, shape)).astype(np.uint16),
        "wide": rng.integers(0, 30_000, shape),
        "float": rng.normal(60, 8, shape).astype(np.float32),
        "integers in float": np.round(rng.normal(60, 8, shape)).astype(np.float32),
        "skewed": np.exp(rng.normal(0, 4, shape)).astype(np.float32),
    }


@pytest.mark.parametrize("name", frames())
@pytest.mark.parametrize(("upper", "single"), list(product((False, True), (False, True))))
def test_equals_the_sorting_form(name: str, upper: bool, single: bool) -> None:
    frame = frames()[name]
    for sigma in (0.0, 1.0, 2.5):
        want = sme_numpy.equalised(frame, (sigma,), upper=upper, single=single)
        np.testing.assert_allclose(equalised(frame, Midway((sigma,), single, upper)), want, rtol=3e-7, atol=1e-6)


@pytest.mark.parametrize("name", ["counting", "hot", "float"])
@pytest.mark.parametrize("single", [True, False])
def test_takes_the_sigma_of_least_total_variation(name: str, single: bool) -> None:
    frame = frames()[name]
    frame[:, ::7] = frame[:, ::7] * 2
    want = sme_numpy.equalised(frame, SIGMAS, single=single)
    np.testing.assert_allclose(equalised(frame, Midway(SIGMAS, single)), want, rtol=3e-7, atol=1e-6)
    total = np.zeros(frame.shape)
    chosen = midway.add_midway(frame, Midway(SIGMAS, single), total)
    tried = [
        sme_numpy.variation_of_columns(sme_numpy.equalised_columns(frame, sigma, single=single)) for sigma in SIGMAS
    ]
    assert tried[SIGMAS.index(chosen[0])] == pytest.approx(min(tried), rel=1e-6)


def test_sequential_equalises_columns_then_rows_of_the_result() -> None:
    for frame in frames().values():
        columns = sme_numpy.equalised_columns(frame, 1.0).astype(np.float32)
        want = sme_numpy.equalised_columns(columns.T, 1.0).T
        np.testing.assert_allclose(equalised(frame, Midway((1.0,), sequential=True)), want, rtol=1e-6, atol=1e-6)


def test_sequential_removes_row_and_column_factors_at_once_and_the_mean_form_half_of_them() -> None:
    rng = np.random.default_rng(0)
    ideal = rng.normal(100, 10, (400, 300))
    column, row = 1 + 0.03 * rng.normal(size=300), 1 + 0.02 * rng.normal(size=(400, 1))
    recorded = (ideal * column * row).astype(np.float32)

    def slope(how: Midway) -> float:
        gain = recorded / equalised(recorded, how)
        return float(np.polyfit(column, gain.mean(axis=0), 1)[0])

    assert slope(Midway(sequential=True)) == pytest.approx(1, abs=0.02)
    assert slope(Midway()) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("dose", [2, 60])
@pytest.mark.parametrize("sigma", [0, 1])
def test_reproduces_the_published_program(dose: int, sigma: int) -> None:
    given_ = np.load(REFERENCE / f"poisson_{dose}e_96x128.npz")
    how = Midway((float(sigma),), single_reference=True, upper=True)
    ratio = sum(equalised(frame, how) for frame in given_["movie"]) / given_["movie"].sum(axis=0)
    assert np.abs(ratio / ratio.mean() - given_[f"ideal_over_observed_sigma{sigma}"]).max() < 1e-5


@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 255)),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_histograms_and_sorting_agree(frame: np.ndarray, single: bool, upper: bool) -> None:
    how = Midway((0.0, 0.5, 1.5), single, upper)
    counted, ordered = equalised(frame, how), equalised(frame.astype(np.float32), how)
    np.testing.assert_allclose(counted, ordered, rtol=3e-7)
    assert counted.min() >= frame.min() - 1e-4
    assert counted.max() <= frame.max() + 1e-4


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.integers(2, 40)),
        elements=st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False),
    )
)
@settings(max_examples=60, deadline=None)
def test_lines_are_sorted_exactly(lines: np.ndarray) -> None:
    n, length = lines.shape
    ordered, codes = np.empty_like(lines), np.empty(lines.shape, np.uint32)
    runs = np.empty((lines.size, 2), np.int32)
    n_runs, references = match.sort_lines(lines, midway._buckets(lines), np.full((n, 1), 1 / n), ordered, codes, runs)
    np.testing.assert_array_equal(ordered, np.sort(lines, axis=1))
    rank = np.where(codes < length, codes, runs[np.maximum(codes.astype(int) - length, 0), 0])
    np.testing.assert_array_equal(np.take_along_axis(ordered, rank.astype(int), 1), lines)
    np.testing.assert_allclose(references[:, 0], ordered.mean(axis=0, dtype=float), rtol=1e-9, atol=1e22)
    assert n_runs <= lines.size // 2


def test_a_line_far_from_the_others_is_sorted_too() -> None:
    lines = np.random.default_rng(1).normal(size=(40, 4096)).astype(np.float32)
    lines[3] *= 1e6  # all in the first and the last bucket
    ordered, codes = np.empty_like(lines), np.empty(lines.shape, np.uint32)
    match.sort_lines(lines, midway._buckets(lines), np.ones((40, 1)), ordered, codes, np.empty((9, 2), np.int32))
    np.testing.assert_array_equal(ordered, np.sort(lines, axis=1))


def test_constant_frames_stay_as_they_are() -> None:
    for dtype in (np.uint8, np.int16, np.float32):
        np.testing.assert_array_equal(equalised(np.full((5, 7), 3, dtype), Midway(SIGMAS)), 3)


def test_weights_of_lines_are_those_of_the_smoothed_mean() -> None:
    for n, sigma in product((1, 3, 40), (0.0, 0.5, 3.0)):
        identity = np.eye(n)  # the mean over columns of smoothed unit columns is the weight of each
        np.testing.assert_allclose(midway.line_weights(n, sigma), sme_numpy.smooth(identity, sigma).mean(axis=1))


def test_codes_are_dense_and_keep_the_values() -> None:
    frame = np.array([[-3, 70_000], [5, 5]])
    codes, values = midway.integer_codes(frame)
    assert codes is not None
    np.testing.assert_array_equal(values[codes], frame)
    assert midway.integer_codes(np.arange(300).reshape(3, 100))[0] is None
    assert midway.integer_codes(np.array([[0, 1 << 40]]))[0] is None
    assert midway.integer_codes(np.zeros((2, 2)))[0] is None
