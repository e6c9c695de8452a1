"""Fills against the definition written out pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrczdask.kernels.fill import PSF, fill, fill_whole, make_plan


def by_hand(frame: np.ndarray, bad: np.ndarray, weight: np.ndarray) -> np.ndarray:
    ny, nx = frame.shape
    out = frame.astype(float)
    yy, xx = np.mgrid[:ny, :nx]
    for y, x in np.argwhere(bad | (weight < 1)):
        away = np.maximum(abs(yy - y), abs(xx - x))
        near = (away <= 2) & (away > 0)
        share = np.zeros(frame.shape)
        if not (bad[y, x] and (bad & near).any()):
            inside = near & ~bad
            share[inside] = PSF[yy[inside] - y + 2, xx[inside] - x + 2]
        reach = 2
        if not (~bad & (away > 0)).any():
            continue
        while not share.any():
            share = ((away <= reach) & (away > 0) & ~bad).astype(float)
            reach += 1
        out[y, x] = weight[y, x] * frame[y, x] + (1 - weight[y, x]) * (share * frame).sum() / share.sum()
    return out


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 14), st.integers(3, 14), st.floats(0.02, 0.95), st.integers(0, 2**32))
def test_definition(ny: int, nx: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bad = rng.random((ny, nx)) < share
    bad[rng.integers(ny), rng.integers(nx)] = False
    weight = np.where(bad, rng.choice([0, 0.3], (ny, nx)), rng.choice([1, 1, 0.8], (ny, nx))).astype(np.float32)
    frames = rng.poisson(20, (2, ny, nx)).astype(np.uint8)
    out = np.empty(frames.shape, np.float32)
    fill(frames, make_plan(bad, weight), out)
    for frame, filled in zip(frames, out, strict=True):
        np.testing.assert_allclose(filled, by_hand(frame, bad, weight), rtol=1e-6)


def test_point_spread_sums_to_what_the_paper_lists() -> None:
    assert PSF.sum() == pytest.approx(1.336)
    np.testing.assert_array_equal(PSF, PSF.T)


def test_nothing_good_leaves_the_frame() -> None:
    frame = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    out = np.empty(frame.shape, np.float32)
    fill(frame, make_plan(np.ones((3, 4), bool)), out)
    np.testing.assert_array_equal(out, frame)


def test_a_lone_good_pixel_keeps_its_value() -> None:
    bad = np.ones((4, 5), bool)
    bad[1, 1] = False
    frame = np.arange(20, dtype=np.uint8).reshape(1, 4, 5)
    out = np.empty(frame.shape, np.float32)
    fill(frame, make_plan(bad, np.where(bad, 0, 0.5).astype(np.float32)), out)
    np.testing.assert_array_equal(out, 6)


def test_empty() -> None:
    out = np.empty((0, 5, 5), np.float32)
    fill(np.empty((0, 5, 5), np.uint8), make_plan(np.eye(5, dtype=bool)), out)
    plan = make_plan(np.empty((0, 0), bool))
    assert fill_whole(np.empty((3, 0, 0), np.uint8), plan, 1, np.arange(3)).shape == (3, 0, 0)


def test_whole_fills_are_neighbours_with_their_probabilities() -> None:
    bad = np.zeros((5, 5), bool)
    bad[2, 2] = True
    frames = np.broadcast_to(np.arange(25, dtype=np.uint8).reshape(5, 5), (40_000, 5, 5))
    drawn = fill_whole(np.ascontiguousarray(frames), make_plan(bad), 5, np.arange(len(frames)))[:, 2, 2]
    expected = PSF.ravel() / PSF.sum() * len(frames)
    seen = np.bincount(drawn, minlength=25)
    assert seen[12] == 0
    others = expected > 0
    chi_square = ((seen - expected)[others] ** 2 / expected[others]).sum()
    assert chi_square < 52  # 23 degrees of freedom, p = 5e-4


def test_whole_fills_depend_on_key_and_number_alone() -> None:
    rng = np.random.default_rng(0)
    frames, bad = rng.poisson(3, (6, 20, 20)).astype(np.uint16), rng.random((20, 20)) < 0.2
    plan = make_plan(bad)
    whole = fill_whole(frames, plan, 9, np.arange(6))
    assert whole.dtype == np.uint16
    np.testing.assert_array_equal(fill_whole(frames[3:], plan, 9, np.arange(3, 6)), whole[3:])
    assert (fill_whole(frames, plan, 10, np.arange(6)) != whole).any()
    np.testing.assert_array_equal(whole[:, ~bad], frames[:, ~bad])
