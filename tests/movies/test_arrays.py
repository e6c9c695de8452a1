"""What the verbs on movies share: images in one chunk reach functions as they are, none is joined from one."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import mrczdask as md

SESSION, TRUTH = md.simulate.session(
    5, (3, 40, 36), dose=3, gain=md.simulate.Gain(pixel_sd=0.05), defects=md.simulate.Defects(hot_fraction=0.02)
)
SUMS = md.sum_frames(SESSION).compute()
MASK = TRUTH.mask.values


def in_pieces(values: np.ndarray, *dims: str) -> xr.DataArray:
    """Images in several chunks along each dim."""
    chunks = [{"y": 22, "x": 30}.get(dim, 2) for dim in dims]
    return xr.DataArray(da.from_array(values, chunks), {"movie": SESSION.movie.values}, dims)


def results(gain: np.ndarray) -> list[Any]:
    sums = in_pieces(SUMS.values, "movie", "y", "x").assign_coords(n_frames=SUMS.n_frames)
    sums = sums.assign_coords(mask=in_pieces(MASK, "movie", "y", "x").variable)
    pieces = SESSION.images.chunk({"movie": 2, "frame": 2, "y": 22, "x": 30})
    weighted = md.find_outliers(SUMS, method="cdf").chunk({"movie": 2, "y": 22, "x": 30})
    return [
        md.koma(pieces, sums=sums, radius=1),
        md.find_high_contrast(sums.drop_vars("mask")).contrast,
        md.fill_outliers(pieces, weighted),
        md.frame_correlation(pieces.assign_coords(mask=sums.mask)),
        md.recover_integers(pieces[0].astype("f4") * gain, gain).n_inexact,
    ]


@pytest.mark.filterwarnings("ignore:koma. the movies went through")
def test_nothing_is_joined_from_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask would copy each image by its `concatenate_axes`."""
    gain = TRUTH.gain.values
    joined = [np.asarray(found) for found in results(gain)]

    def refuse(*_: Any) -> None:
        raise AssertionError("an image of one chunk was copied")

    monkeypatch.setattr("dask.array.core.concatenate_axes", refuse)
    for found, expected in zip(results(gain), joined, strict=True):
        np.testing.assert_array_equal(np.asarray(found), expected)
