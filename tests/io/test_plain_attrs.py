"""Attributes that other formats of arrays take, and movies, sessions and sums saved by xarray itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mrcz
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import netcdf_file

import mrczdask as md
from mrczdask.io.plain_attrs import metadata_of, plain_attrs

META = {"Microscope": {"kV": 300, "stage": [[1, 2], [3, 4]]}, "grid": "größer", "names": ["a", "b"], "none": None}
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**31), 2**31 - 1)
    | st.floats(allow_nan=False)
    | st.text("aä7 ", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture
def movies(tmp_path: Path) -> Path:
    for k in range(2):
        mrcz.writeMRC(np.full((3, 8, 8), k, np.int8), str(tmp_path / f"m{k}.mrcz"), meta=META, compressor="zstd")
    return tmp_path


def opened(folder: Path) -> dict[str, Any]:
    movie = md.open_movie(folder / "m0.mrcz")
    session = md.open_session(f"{folder}/m*.mrcz", order="name")
    return {
        "movie": movie,
        "session": session,
        "engine": xr.open_dataset(folder / "m0.mrcz", engine="mrcz"),
        "sums": md.sum_frames(movie).astype("f4"),
        "archive": md.write_archive(session, str(folder / "a.zarr"), codec="zstd"),
        "references": md.virtualize(f"{folder}/m*.mrcz", str(folder / "r.json"), order="name"),
    }


def test_xarray_saves_all_that_is_opened(movies: Path) -> None:
    for name, one in opened(movies).items():
        path = movies / f"{name}.nc"
        one.to_netcdf(path, engine="scipy")
        with xr.open_dataset(path, engine="scipy") as back:
            expected = one if isinstance(one, xr.Dataset) else one.to_dataset(name=one.name)
            for variable in expected.data_vars:
                np.testing.assert_array_equal(back[variable], expected[variable])
        with netcdf_file(str(path), mmap=False) as file:
            pixels = next(v for v in file.variables.values() if len(v.shape) > 1 and v.dimensions[-1] == "x")
            assert json.loads(pixels.metadata) == META, name


def test_metadata_are_python_objects_in_the_accessor(movies: Path) -> None:
    movie = md.open_movie(movies / "m0.mrcz")
    assert movie.em.metadata == META
    again = md.write_mrcz(movie, movies / "again.mrcz")
    assert again.em.metadata == META
    assert mrcz.readMRC(str(movies / "again.mrcz"))[1]["Microscope"] == META["Microscope"]
    assert md.open_movie(md_without(movies)).em.metadata == {}


def md_without(folder: Path) -> Path:
    md.write_mrcz(np.ones((2, 4, 4), np.int8), folder / "plain.mrcz")
    return folder / "plain.mrcz"


@settings(max_examples=40, deadline=None)
@given(value=VALUES)
def test_any_json_value_becomes_what_netcdf_takes(value: Any) -> None:
    kept = plain_attrs({"metadata": value})["metadata"]
    flat = kept if isinstance(kept, list) else [kept]
    assert flat
    assert all(isinstance(one, str | int | float) and not isinstance(one, bool) for one in flat)
    assert plain_attrs({"metadata": kept}) == {"metadata": kept}
    if isinstance(value, dict):
        assert metadata_of({"metadata": kept}) == value
