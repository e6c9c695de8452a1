from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from mrczdask.errors import MrcFormatError
from mrczdask.io.json_header import kept_attrs, kept_coords, kept_dtype, pack_json, split_json
from tests.mrc_bytes import counts

N = 3


def movie(**coords: Any) -> xr.DataArray:
    return xr.DataArray(counts((N, 4, 5), "i2"), dims=("frame", "y", "x"), coords=coords)


COORDS = {
    "time": ("frame", np.array([0.0, 0.5, np.nan])),
    "frame": ("frame", np.array([4, 5, 9])),
    "when": ("frame", np.array(["2026-01-01", "NaT", "2026-01-03T12:00:00.5"], "datetime64[ns]")),
    "wait": ("frame", np.array([1, 2, 3], "timedelta64[ms]")),
    "note": ("frame", np.array(["a", "", "größer"])),
    "good": ("frame", np.array([True, False, True])),
    "dose_rate": 7.25,
    "acquired": np.datetime64("2026-01-01T10:00:00", "ns"),
    "grid": "seven",
}


@pytest.mark.parametrize("name", list(COORDS))
def test_coordinates_come_back(name: str) -> None:
    written = movie(**{name: COORDS[name]})
    user, own = split_json(json.loads(pack_json(written, None)))
    assert user == {}
    dims, data, attrs = kept_coords(own, N)[name]
    assert dims == written[name].dims
    assert data.dtype == written[name].dtype
    np.testing.assert_array_equal(data, written[name].values)
    assert attrs == {}


def test_a_coordinate_keeps_its_attributes() -> None:
    written = movie(time=("frame", np.arange(3.0), {"units": "s"}))
    own = split_json(json.loads(pack_json(written, None)))[1]
    assert kept_coords(own, N)["time"][2] == {"units": "s"}


def test_coordinates_of_pixels_and_of_the_file_are_not_kept() -> None:
    written = movie(x=("x", np.arange(5)), mask=(("y", "x"), np.zeros((4, 5), bool)), url="a.mrc", movie="a")
    assert kept_coords(split_json(json.loads(pack_json(written, None)))[1], N) == {}


def test_metadata_and_attributes() -> None:
    written = movie()
    written.attrs = {"metadata": {"a": 1}, "voltage_kv": 300.0, "sizes": np.arange(2), "n": np.int64(3)}
    user, own = split_json(json.loads(pack_json(written, None)))
    assert user == {"a": 1}
    assert kept_attrs(own) == {"voltage_kv": 300.0, "sizes": [0, 1], "n": 3}
    assert split_json(json.loads(pack_json(written, {"b": 2})))[0] == {"b": 2}
    assert len(pack_json(written, None)) % 16 == 0


def test_what_is_no_json_is_refused_by_name() -> None:
    with pytest.raises(MrcFormatError, match="metadata cannot be written as JSON: object is no JSON type"):
        pack_json(movie(), {"a": object()})


@pytest.mark.parametrize(
    ("name", "stored", "kept"),
    [
        ("uint8", "i1", "uint8"),
        ("uint8", "<u2", "uint8"),
        ("bool", "i1", "bool"),
        ("uint8", "<i2", None),
        ("uint8", "<f4", None),
        ("int8", "i1", None),
        ("uint64", "<u2", None),
        ("no dtype", "i1", None),
        (5, "i1", None),
        (None, "i1", None),
    ],
)
def test_dtype_is_restored_only_where_the_file_can_hold_it(name: Any, stored: str, kept: str | None) -> None:
    assert kept_dtype({"dtype": name}, np.dtype(stored)) == (None if kept is None else np.dtype(kept))


BAD = [
    {"dims": ["frame"], "data": [1, 2], "dtype": "<i8", "attrs": {}},  # of another number of frames
    {"dims": ["y"], "data": [1, 2, 3], "dtype": "<i8", "attrs": {}},
    {"dims": ["frame"], "data": [[1], [2], [3]], "dtype": "<i8", "attrs": {}},
    {"dims": ["frame"], "data": [1, [2], 3], "dtype": "<i8", "attrs": {}},
    {"dims": ["frame"], "data": ["a", "b", "c"], "dtype": "<f8", "attrs": {}},
    {"dims": ["frame"], "data": [1, 2, 3], "dtype": "<U9", "attrs": {}},
    {"dims": ["frame"], "data": [1, 2, 3], "dtype": "|O", "attrs": {}},
    {"dims": ["frame"], "data": [1, 2, 3], "dtype": "|V8", "attrs": {}},
    {"dims": ["frame"], "data": [1, 2, 3], "dtype": "<i8"},
    {"dims": ["frame"], "data": [1, 2, 3], "dtype": "<i8", "attrs": 5},
    {"dims": 5, "data": [1, 2, 3], "dtype": "<i8", "attrs": {}},
    {"dims": ["frame"], "data": [10**30, 2, 3], "dtype": "<i8", "attrs": {}},
    {"dims": ["frame"], "data": ["2026-01-01T00:00Z", "NaT", "NaT"], "dtype": "<M8[ns]", "attrs": {}},
    {"dims": ["frame"], "data": ["2026-99-01", "NaT", "NaT"], "dtype": "<M8[ns]", "attrs": {}},
    {"dims": ["frame"], "data": ["a" * (17 << 20), "", ""], "dtype": "<U5", "attrs": {}},
    {"dims": ["frame"], "data": [1, 2, 3], "dtype": "<U999999999999", "attrs": {}},
    {"dims": [], "data": None, "dtype": "<i8", "attrs": {}},
    [],
    None,
    5,
]


@pytest.mark.parametrize("entry", BAD, ids=[str(k) for k in range(len(BAD))])
def test_broken_coordinates_are_left_out(entry: Any) -> None:
    good = {"dims": ["frame"], "data": [1, 2, 3], "dtype": "<i8", "attrs": {}}
    assert list(kept_coords({"coords": {"bad": entry, "good": good}}, N)) == ["good"]


@pytest.mark.parametrize("name", ["images", "x", "y"])
def test_names_of_the_pixels_are_no_coordinates(name: str) -> None:
    good = {"dims": ["frame"], "data": [1, 2, 3], "dtype": "<i8", "attrs": {}}
    assert kept_coords({"coords": {name: good}}, N) == {}
    scalar = {"dims": [], "data": 1, "dtype": "<i8", "attrs": {}}
    assert kept_coords({"coords": {"frame": scalar}}, N) == {}


def test_not_a_number_in_an_integer_coordinate_makes_no_warning() -> None:
    entry = {"dims": ["frame"], "data": [float("nan"), 1, 2], "dtype": "<i4", "attrs": {}}
    assert kept_coords({"coords": {"a": entry}}, N)["a"][1].dtype == np.int32


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.dictionaries(
        st.sampled_from(["dims", "data", "dtype", "attrs"]), json_values | st.sampled_from(["<i8", "frame", ["frame"]])
    ),
    json_values,
    json_values,
)
def test_no_json_breaks_a_reader(entry: Any, coords: Any, attrs: Any) -> None:
    for own in ({"coords": {"a": entry}, "attrs": attrs}, {"coords": coords, "attrs": attrs, "dtype": attrs}):
        kept_coords(own, N)
        kept_attrs(own)
        kept_dtype(own, np.dtype("i1"))
    split_json({"mrczdask": coords})
