"""The one-pass mean correlation against all pairs."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import mrczdask as md

RNG = np.random.default_rng(0)
FRAMES = RNG.poisson(3 + RNG.random((30, 40)), (2, 5, 30, 40)).astype(np.uint8)


def all_pairs(frames: np.ndarray) -> float:
    return float(np.corrcoef(frames.reshape(len(frames), -1))[np.triu_indices(len(frames), 1)].mean())


def test_is_the_mean_over_pairs() -> None:
    np.testing.assert_allclose(md.frame_correlation(FRAMES), [all_pairs(movie) for movie in FRAMES], rtol=1e-10)
    assert float(md.frame_correlation(FRAMES[0])) == pytest.approx(all_pairs(FRAMES[0]), rel=1e-10)


@settings(max_examples=10, deadline=None)
@given(st.tuples(st.integers(1, 2), st.integers(1, 5), st.integers(8, 30), st.integers(9, 40)))
def test_chunks_change_nothing(chunks: tuple[int, ...]) -> None:
    np.testing.assert_allclose(
        md.frame_correlation(da.from_array(FRAMES, chunks)), md.frame_correlation(FRAMES), rtol=1e-12
    )


def test_masked_pixels_are_left_out() -> None:
    movie = xr.DataArray(FRAMES[0].copy(), dims=("frame", "y", "x"))
    mask = RNG.random((30, 40)) < 0.1
    movie.values[:, mask] = 200
    masked = movie.assign_coords(mask=(("y", "x"), mask))
    pieces = movie.chunk(frame=2, y=17).assign_coords(mask=(("x", "y"), da.from_array(mask.T, (11, 13))))
    for given_mask in (masked, pieces):
        found = float(md.frame_correlation(given_mask))
        assert found == pytest.approx(all_pairs(FRAMES[0][:, ~mask]), rel=1e-10)


def test_white_noise_has_the_stated_spread() -> None:
    session = md.simulate.poisson((24, 6, 64, 64), mean=2.0)
    found = md.frame_correlation(session)
    values = found.values
    assert abs(values.mean()) < 4 * found.attrs["noise"] / np.sqrt(24)
    assert values.std() == pytest.approx(found.attrs["noise"], rel=0.5)


def test_one_frame_has_no_correlation() -> None:
    assert np.isnan(md.frame_correlation(FRAMES[0, :1]))


@pytest.mark.usefixtures("no_compute")
def test_nothing_is_computed() -> None:
    assert md.frame_correlation(md.simulate.poisson((3, 4, 32, 32), mean=1.0)).dims == ("movie",)


def test_frames_are_needed() -> None:
    with pytest.raises(ValueError, match="needs the dim 'frame'"):
        md.frame_correlation(xr.DataArray(np.ones((3, 3)), dims=("y", "x")))
