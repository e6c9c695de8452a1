"""Windows and moving sums against slices written out."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mrczdask.kernels.background import moments, pattern, subtract, wiener_share
from mrczdask.kernels.window import MovingSum, fixed, knock_out_sums, knock_out_windows, unit_of


@given(st.integers(1, 12), st.lists(st.booleans(), min_size=1, max_size=30))
def test_windows_hold_the_nearest_others(size: int, accepted: list[bool]) -> None:
    places = np.flatnonzero(accepted)
    for movie, window in enumerate(knock_out_windows(size, accepted)):
        members = [int(places[k]) for k in range(window.start, window.stop) if k != window.own]
        assert window.size == len(members) == min(size, len(places) - accepted[movie])
        assert movie not in members
        before, after = sum(m < movie for m in members), sum(m > movie for m in members)
        there = [sum(places < movie), sum(places > movie)]
        if size % 2 == 0 and len(members) == size:
            assert (before, after) == (
                min(there[0], max(size // 2, size - there[1])),
                min(there[1], max(size // 2, size - there[0])),
            )


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(2, 20), st.integers(0, 2**32))
def test_sums_are_exact(size: int, n: int, seed: int) -> None:
    images = np.random.default_rng(seed).integers(0, 2**40, (n, 3, 4))
    windows = knock_out_windows(size, [True] * n)
    found = knock_out_sums(lambda k: fixed(images[k]), windows, 1.0, mean=False)
    for k, window in enumerate(windows):
        expected = images[window.start : window.stop].sum(axis=0) - images[k]
        np.testing.assert_array_equal(found[k], expected)


def test_moves_do_not_drift() -> None:
    images = np.random.default_rng(0).normal(400, 20, (2000, 2, 2))
    moving = MovingSum(lambda k: fixed(images[k]))
    for window in knock_out_windows(24, [True] * len(images)):
        last = moving.without(window) * unit_of(images.dtype)
    np.testing.assert_allclose(last, images[-25:-1].sum(axis=0), atol=24 * 2**-20)


def test_empty_windows_are_nan() -> None:
    assert np.isnan(
        knock_out_sums(lambda k: np.ones((2, 2), np.int64), knock_out_windows(4, [True]), 1.0, mean=True)
    ).all()


def test_wiener_share_is_the_definition() -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(0, 0.5, (1, 200, 200)) + rng.normal(0, 1, (6, 200, 200)) + np.arange(6)[:, None, None]
    reference = images.mean(axis=0)
    centred = images - images.mean(axis=(1, 2), keepdims=True)
    between = centred.var(axis=0, ddof=1).mean()
    expected = (reference.var() - between / 6) / reference.var()
    share = wiener_share(moments(reference).variance, np.mean([moments(i).variance for i in images]), 6)
    np.testing.assert_allclose(share, expected, rtol=1e-10)


def test_wiener_share_of_noise_and_of_one_image() -> None:
    assert wiener_share(0.9, 6.0, 6) == 0
    assert wiener_share(1.0, 1.0, 1) == 0
    assert wiener_share(0.0, 0.0, 5) == 0


def test_subtract_keeps_the_level() -> None:
    frames = np.full((2, 3, 4), 5, np.uint8)
    reference = np.arange(12, dtype=np.float32).reshape(3, 4)
    out = np.empty(frames.shape, np.float32)
    subtract(frames, pattern(reference, float(reference.mean()), 1.0), out)
    np.testing.assert_allclose(out[0], 5 - (reference - 5.5))
    subtract(frames, pattern(reference, 0.0, 0.0), out)
    np.testing.assert_array_equal(out, frames)
