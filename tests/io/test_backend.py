"""The xarray engine against the pixels that were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import mrczdask as md


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Path, np.ndarray]:
    frames = md.simulate.poisson((5, 24, 32), mean=2.0, seed=0).values
    md.write_mrcz(frames, tmp_path / "movie.mrcz")
    return tmp_path / "movie.mrcz", frames


def test_engine_reads_the_same(stored: tuple[Path, np.ndarray], no_compute: None) -> None:
    path, frames = stored
    ds = xr.open_dataset(path, engine="mrcz")
    assert list(ds.data_vars) == ["images"]
    assert ds.images.dims == ("frame", "y", "x")
    np.testing.assert_array_equal(ds.images.values, frames)
    assert xr.open_dataset(path, engine="mrcz", chunks={}).images.chunksizes["frame"] == (len(frames),)
    assert xr.open_dataset(path, engine="mrcz", drop_variables="images").data_vars == {}


def test_engine_is_guessed_by_the_suffix(stored: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    path, frames = stored
    for name in ("a.mrcz", "b.MRC", "c.map", "d.st"):
        (tmp_path / name).write_bytes(path.read_bytes())
        np.testing.assert_array_equal(xr.open_dataset(tmp_path / name).images.values, frames)


def test_options_that_other_engines_take(stored: tuple[Path, np.ndarray]) -> None:
    path, frames = stored
    for asked in (True, False):
        ds = xr.open_dataset(path, engine="mrcz", mask_and_scale=asked, decode_times=asked, drop_variables=["no such"])
        assert ds.images.dtype == frames.dtype
        np.testing.assert_array_equal(ds.images, frames)
    assert "movie" not in xr.open_dataset(path, engine="mrcz", drop_variables=["movie"]).coords
    np.testing.assert_array_equal(xr.open_datatree(path, engine="mrcz")["images"], frames)
    np.testing.assert_array_equal(xr.open_groups(path, engine="mrcz")["/"].images, frames)
