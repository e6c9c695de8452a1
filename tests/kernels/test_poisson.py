"""Poisson counts against SciPy's distribution; each pixel a function of its own place alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from mrczdask.kernels.philox import fill_words
from mrczdask.kernels.poisson import TABLE_MEAN, add_counts, flat_counts, image_counts, mean_table

SMALLEST_P = 1e-4
"""Of about a hundred tests with fixed seeds."""
LOW_MEANS = [0.003, 0.1, 0.5, 1.0, 2.0, 4.0, 10.0, 37.3, 63.99, 64.0]
HIGH_MEANS = [64.01, 100.0, 1e3, 1e5]


def flat(mean: float, shape: tuple[int, int] = (1024, 1024), key: int = 1, frame: int = 0) -> NDArray[Any]:
    out = np.empty(shape, np.int32)
    flat_counts(mean, key, frame, 0, 0, out)
    return out


def chi_square_p(counts: NDArray[Any], mean: float) -> float:
    """Probability of a worse agreement with the Poisson distribution, bins of at least 10 expected counts."""
    low, high = stats.poisson.ppf([10 / counts.size, 1 - 10 / counts.size], mean).astype(int)
    edges = np.unique(np.linspace(low, high, 200).astype(int))
    expected = np.diff(np.concatenate([[0], stats.poisson.cdf(edges, mean), [1]])) * counts.size
    observed = np.bincount(np.searchsorted(edges, counts.ravel()), minlength=len(edges) + 1)
    keep = expected > 0
    assert not observed[~keep].any()
    return float(stats.chisquare(observed[keep], expected[keep], sum_check=False).pvalue)


@pytest.mark.parametrize("mean", LOW_MEANS + HIGH_MEANS)
def test_flat_counts_are_poisson(mean: float) -> None:
    counts = flat(mean)
    assert chi_square_p(counts, mean) > SMALLEST_P
    n = counts.size
    assert abs(counts.mean() - mean) < 4.5 * (mean / n) ** 0.5
    assert abs(counts.var() - mean) < 4.5 * ((mean + 2 * mean**2) / n) ** 0.5


@pytest.mark.parametrize("mean", LOW_MEANS + HIGH_MEANS)
def test_image_and_flat_counts_agree(mean: float) -> None:
    out = np.empty((200, 333), np.int32)
    image_counts(np.full(out.shape, mean), 1, 0, 0, 0, out)
    assert np.array_equal(out, flat(mean, (200, 333)))


def test_counts_are_the_exact_inverse_of_the_uniform_numbers() -> None:
    """The table, the guide and the search all give scipy.stats.poisson.ppf of the pixel's own uniform number."""
    mean = np.random.default_rng(0).uniform(0, TABLE_MEAN, (64, 512))
    out = np.empty(mean.shape, np.int32)
    image_counts(mean, 11, 3, 0, 0, out)
    first, rest = (np.empty((64, 512)) for _ in range(2))
    words = np.empty((4, 128), np.uint32)
    for draw, unit in enumerate((first, rest)):
        for row in range(64):
            fill_words(words, 0, row, 3, draw, np.uint64(11))
            unit[row] = words.T.ravel()
    u = (first + np.floor(rest / 2**11) / 2**21) / 2**32
    assert np.array_equal(out, stats.poisson.ppf(u, mean))


def test_no_cell_of_the_table_is_wrong() -> None:
    """Every cell that names a count: that count is right in all four corners, so (monotone) everywhere in it."""
    table = mean_table()
    rows, cells = table.shape
    picked = np.random.default_rng(1).integers(0, [rows, cells], (40_000, 2))
    count = table[picked[:, 0], picked[:, 1]]
    sure = count < 255
    assert 0.8 < sure.mean() < 1
    low, high = picked[sure, 0] * TABLE_MEAN / rows, (picked[sure, 0] + 1) * TABLE_MEAN / rows
    first, last = picked[sure, 1] / cells, (picked[sure, 1] + 1) / cells
    named = count[sure].astype(int)
    assert (stats.poisson.cdf(named - 1, low) <= first + 1e-12).all()
    assert (stats.poisson.cdf(named, high) >= last - 1e-12).all()


@pytest.mark.parametrize("scale", [0.05, 2.0, 30.0, 400.0])
def test_images_of_varying_means(scale: float) -> None:
    """The randomised probability integral transform of every pixel is uniform."""
    rng = np.random.default_rng(2)
    mean = scale * rng.gamma(8.0, 1 / 8, (512, 512)).astype(np.float32)
    out = np.empty(mean.shape, np.int32)
    image_counts(mean, 5, 1, 0, 0, out)
    below, at = stats.poisson.cdf(out - 1, mean), stats.poisson.pmf(out, mean)
    assert stats.kstest((below + at * rng.random(mean.shape)).ravel(), "uniform").pvalue > SMALLEST_P
    z = (out - mean) / np.sqrt(mean)
    assert abs((z**2).mean() - 1) < 5 * ((2 + 1 / mean).mean() / z.size) ** 0.5


@pytest.mark.parametrize("mean", [0.2, 2.0, 100.0])
def test_pixels_frames_and_movies_are_independent(mean: float) -> None:
    first = flat(mean).astype(float)
    others = {
        "next frame": flat(mean, frame=1),
        "a frame far on": flat(mean, frame=1 << 20),
        "next key": flat(mean, key=2),
        "a key far on": flat(mean, key=1 + (1 << 40)),
    }
    bound = 5 / first.size**0.5
    for what, other in others.items():
        assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < bound, what
    whitened = first - first.mean()
    power = np.abs(np.fft.rfft2(whitened)) ** 2
    correlation = np.fft.irfft2(power) / (whitened**2).sum()
    correlation[0, 0] = 0
    assert np.abs(correlation).max() < 6.5 / first.size**0.5  # the largest of 1e6 lags: 5.5 are expected


@pytest.mark.parametrize("mean", [1.0, 3.0])
@pytest.mark.parametrize("step", [(0, 1), (0, 2), (0, 4), (1, 0), (4, 4)])
def test_neighbours_are_independent_not_only_uncorrelated(mean: float, step: tuple[int, int]) -> None:
    counts = np.minimum(flat(mean), 4)
    dy, dx = step
    pairs = counts[: 1024 - dy, : 1024 - dx] * 5 + counts[dy:, dx:]
    table = np.bincount(pairs.ravel(), minlength=25).reshape(5, 5)
    assert stats.chi2_contingency(table).pvalue > SMALLEST_P


@given(
    st.integers(0, 40),
    st.integers(0, 60),
    st.integers(1, 30),
    st.integers(1, 40),
    st.sampled_from([1.5, 70.0]),
    st.integers(0, 2**64 - 1),
)
@settings(deadline=None, max_examples=60)
def test_any_rectangle_holds_the_pixels_of_the_frame(y0: int, x0: int, ny: int, nx: int, mean: float, key: int) -> None:
    whole, image = np.empty((80, 100), np.uint8), np.linspace(0, 2 * mean, 8000).reshape(80, 100)
    part, flat_whole, flat_part = np.empty((ny, nx), np.uint8), np.empty_like(whole), np.empty((ny, nx), np.uint8)
    image_counts(image, key, 7, 0, 0, whole)
    image_counts(image[y0 : y0 + ny, x0 : x0 + nx].copy(), key, 7, y0, x0, part)
    assert np.array_equal(part, whole[y0 : y0 + ny, x0 : x0 + nx])
    flat_counts(mean, key, 7, 0, 0, flat_whole)
    flat_counts(mean, key, 7, y0, x0, flat_part)
    assert np.array_equal(flat_part, flat_whole[y0 : y0 + ny, x0 : x0 + nx])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32"])
def test_counts_are_clipped_to_the_dtype(dtype: str) -> None:
    wide, out = flat(120.0, (64, 64)), np.empty((64, 64), dtype)
    flat_counts(120.0, 1, 0, 0, 0, out)
    limit = np.iinfo(dtype).max if out.dtype.kind in "iu" else np.inf
    assert (wide > 127).any()
    assert np.array_equal(out, np.minimum(wide, limit))


def test_nothing_comes_from_nothing() -> None:
    out = np.full((8, 8), 7, np.uint8)
    flat_counts(0.0, 1, 0, 0, 0, out)
    assert not out.any()
    out[:] = 7
    image_counts(np.array([[-1.0, 0.0, np.nan, -0.0]] * 8, np.float32).repeat(2, 1), 1, 0, 0, 0, out)
    assert not out.any()


def test_empty_blocks() -> None:
    out = np.empty((0, 5), np.uint8)
    flat_counts(1.0, 1, 0, 0, 0, out)
    image_counts(np.empty((0, 5), np.float32), 1, 0, 0, 0, out)
    empty = np.empty(0, np.int64)
    add_counts(np.empty(0), (empty, empty), np.empty((0, 5), np.float32), (1, 2), 0, 0, 0, out)


@pytest.mark.parametrize("mean", [0.0, 3.0, 90.0])
def test_added_counts_are_poisson_and_leave_the_rest(mean: float) -> None:
    base, extra = flat(mean, (400, 500)), 5.0
    y, x = (part.ravel() for part in np.mgrid[50:150, 20:400:3])
    out = np.empty((350, 490), np.int32)
    image_counts(np.full(out.shape, mean), 1, 0, 10, 5, out)
    add_counts(np.full(len(y), extra), (y, x), np.full(out.shape, mean), (1, 2), 0, 10, 5, out)
    added = np.zeros_like(base)
    added[10:360, 5:495] = out - base[10:360, 5:495]
    assert chi_square_p(added[y, x], extra) > SMALLEST_P
    assert abs(np.corrcoef(added[y, x], flat(3.0, (400, 500))[y, x])[0, 1]) < 5 / len(y) ** 0.5
    added[y, x] = 0
    assert not added.any()


def test_sums_are_clipped_after_adding() -> None:
    mean = np.full((32, 32), 100.0, np.float32)
    out = np.empty((32, 32), np.int8)
    image_counts(mean, 1, 0, 0, 0, out)
    at = np.arange(32)
    add_counts(np.full(32, 60.0), (at, at), mean, (1, 2), 0, 0, 0, out)
    assert out[at, at].min() > 100
    assert out[at, at].max() == 127
