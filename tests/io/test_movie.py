from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import mrczdask as md
from mrczdask.errors import MrcFormatError
from mrczdask.io.movie import movie_name
from tests.mrc_bytes import blosc1, counts, mrc_bytes

FRAMES = counts((6, 16, 20), "i2")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    raw = mrc_bytes(
        FRAMES,
        1,
        chunk=blosc1("zstd"),
        compressor=6,
        cella=(30.0, 24.0, 6.0),
        optics=(300.0, 2.7, 7.5),
        labels=(b"MRCZ0.6.0",),
        extended=b'{"grid": "7"}',
        exttyp=b"json",
        m=(0, 0, 0),
    )
    (tmp_path / "movie_7.mrcz").write_bytes(raw)
    return tmp_path / "movie_7.mrcz"


def test_data_model(path: Path, no_compute: None) -> None:
    movie = md.open_movie(path)
    assert isinstance(movie, xr.DataArray)
    assert movie.name == "images"
    assert movie.dims == ("frame", "y", "x")
    assert movie.frame.values.tolist() == [0, 1, 2, 3, 4, 5]
    assert movie.movie.item() == "movie_7"
    assert movie.attrs == {
        "origin": "lower",
        "pixel_size_angstrom": 1.5,
        "voltage_kv": 300.0,
        "spherical_aberration_mm": 2.7,
        "counts_per_electron": 7.5,
        "metadata": '{"grid": "7"}',
    }
    assert movie.encoding["mrc_header"].mrcz_version == (0, 6, 0)


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [("auto", (6,)), ({"frame": 1}, (1,) * 6), ({"frame": 4}, (4, 2)), (2, (2, 2, 2)), ({"y": 8}, (6,)), (-1, (6,))],
)
def test_chunks(path: Path, chunks: object, expected: tuple[int, ...]) -> None:
    movie = md.open_movie(path, chunks=chunks)  # type: ignore[arg-type]
    assert movie.chunksizes["frame"] == expected
    np.testing.assert_array_equal(movie.values, FRAMES)


def test_without_dask_it_is_lazy_too(path: Path) -> None:
    movie = md.open_movie(path, chunks=None)
    assert not movie.chunks
    assert not movie.variable._in_memory
    np.testing.assert_array_equal(movie[2].values, FRAMES[2])
    assert not movie.variable._in_memory


def test_one_chunk_is_at_most_two_tasks(path: Path) -> None:
    movie = md.open_movie(path, chunks={"frame": 1})
    assert len(movie.data.dask) <= 2 * 6 + 1


def test_bad_arguments(path: Path) -> None:
    with pytest.raises(ValueError, match="chunks name"):
        md.open_movie(path, chunks={"frames": 1})
    with pytest.raises(ValueError, match='give "error" or "readable"'):
        md.open_movie(path, truncated="yes")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        md.open_movie(path.parent / "nothing.mrc")


def test_errors_are_one_line_with_file_place_and_remedy(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(MrcFormatError) as caught:
        md.open_movie(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: frame 5 at byte ")
    assert text.endswith('open_movie(..., truncated="readable") gives the first 5 frames')


@pytest.mark.parametrize(
    ("url", "name"),
    [("a/movie_1.mrcz", "movie_1"), ("s3://b/c/x.y.mrc", "x.y"), ("m.mrc.gz", "m"), ("/x/plain", "plain")],
)
def test_movie_name(url: str, name: str) -> None:
    assert movie_name(url) == name


def test_same_name_same_graph_other_content_other_graph(path: Path) -> None:
    first = md.open_movie(path)
    again = md.open_movie(path)
    assert first.data.name == again.data.name
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(1, 1))
    assert md.open_movie(path).data.name != first.data.name
