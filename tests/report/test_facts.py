"""What is told of a movie is what its file says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import mrczdask as md
from mrczdask.report.facts import Facts, describe, frame_bytes, header_facts, name_of


@pytest.fixture
def movie(tmp_path: Path) -> xr.DataArray:
    frames = md.simulate.poisson((6, 64, 80), mean=1.5, seed=1)
    frames = frames.assign_attrs(pixel_size_angstrom=1.06, voltage_kv=300.0, spherical_aberration_mm=2.7)
    return md.write_mrcz(frames, tmp_path / "grid.mrcz", codec="lz4", metadata={"grid": 7})


def test_facts_are_a_mapping_with_units() -> None:
    facts = Facts({"voltage": (300.0, "kV"), "labels": (("a", "b"), "")})
    assert dict(facts) == {"voltage": 300.0, "labels": ("a", "b")}
    assert facts.unit("voltage") == "kV"
    assert repr(facts) == "voltage  300 kV\nlabels   a; b"
    assert repr(Facts({})) == "nothing is known"


def test_html_of_facts_is_escaped_and_not_too_long() -> None:
    html = Facts({"<i>": ("<b>&" + "x" * 500, "Å")})._repr_html_()
    assert "&lt;i&gt;" in html
    assert "&lt;b&gt;&amp;xxx" in html
    assert "<b>" not in html
    assert "x" * 200 not in html


def test_header_holds_what_the_file_says(movie: xr.DataArray) -> None:
    header = header_facts(movie)
    expected = {
        "shape": (6, 64, 80),
        "mode": 0,
        "compression": "lz4",
        "byte order": "little-endian",
        "pixel size": (1.06, 1.06, 1.06),
        "voltage": 300.0,
        "spherical aberration": 2.7,
        "minimum": float(movie.min()),
        "maximum": float(movie.max()),
    }
    assert {name: header[name] for name in expected} == expected
    assert header["mean"] == pytest.approx(float(movie.mean()))
    assert [header.unit(name) for name in ("pixel size", "voltage", "spherical aberration")] == ["Å", "kV", "mm"]
    assert header["labels"][0].startswith("MRCZ")


def test_every_golden_header_is_shown(golden: Path) -> None:
    files = sorted(golden.glob("*.mrc*"))
    manifest = (golden / "manifest.json").read_text()
    assert len(files) > 10
    assert json.loads(manifest)
    for file in files:
        movie = md.open_movie(file)
        header = header_facts(movie)
        assert header["shape"] == movie.shape[:3], file
        assert repr(header)
        assert repr(describe(movie))
        sizes = frame_bytes(movie)
        assert (sizes is None) == (header["compression"] == "none"), file


def test_without_a_file_the_optics_are_told() -> None:
    images = xr.DataArray(np.zeros((2, 2)), attrs={"voltage_kv": 200.0, "other": 1})
    assert dict(header_facts(images)) == {"voltage": 200.0}
    assert dict(header_facts(xr.DataArray(np.zeros(3)))) == {}


def test_a_movie_is_described(movie: xr.DataArray, no_compute: None) -> None:
    about = describe(movie.assign_coords(dose=("frame", np.arange(1, 7) * 1.5, {"units": "e/angstrom^2"})))
    assert about["shape"] == "frame 6, y 64, x 80"
    assert about["pixels"] == "uint8, 30.7 kB"
    assert about["chunks"] == "1 of 6 × 64 × 80, 30.7 kB"
    assert (about["pixel size"], about.unit("pixel size")) == (1.06, "Å")
    assert (about["dose"], about.unit("dose")) == ("1.5 to 9", "e/Å²")
    assert about["metadata"] == {"grid": 7}
    assert name_of(movie) == "grid"


def test_stored_size_is_that_of_the_chunks(movie: xr.DataArray) -> None:
    lengths = md.frame_index(movie.encoding["source"]).length.values
    np.testing.assert_array_equal(frame_bytes(movie), [lengths])
    assert describe(movie)["stored"].endswith(f"{movie.nbytes / lengths.sum():.1f} times smaller")
    assert frame_bytes(movie[1:]) is None
    assert frame_bytes(movie + 1) is None
    assert frame_bytes(movie.compute()) is None


def test_a_session_is_described(movie: xr.DataArray) -> None:
    other = md.write_mrcz(movie, Path(movie.encoding["source"]).with_name("other.mrcz"))
    session = md.open_session([movie.encoding["source"], other.encoding["source"]], order="given").images
    session = session.assign_coords(acquired=("movie", np.array(["2024-01-01", "2024-01-02"], "M8[ns]")))
    about = describe(session)
    assert about["acquired"] == "2024-01-01 00:00:00 to 2024-01-02 00:00:00"
    assert "url" not in about
    sizes = frame_bytes(session)
    assert sizes is not None
    assert sizes.shape == (2, 6)
    assert name_of(session) == ""


def test_what_was_not_understood_is_told(movie: xr.DataArray) -> None:
    movie.encoding["notes"] = ("the mdoc says nothing",)
    assert describe(movie)["not understood"] == ("the mdoc says nothing",)
