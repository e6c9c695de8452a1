from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import mrczdask as md
from mrczdask.movies.sums import STREAM_BYTES, sum_dtype
from tests.mrc_bytes import blosc1, counts, mrc_bytes

SHAPE = (6, 16, 20)
MODES = {"i1": 0, "i2": 1, "f4": 2, "c8": 4, "u2": 6, "u4": 8, "f2": 12}


def file_of(folder: Path, dtype: str, name: str = "a.mrcz", seed: int = 0, shape: Any = SHAPE) -> np.ndarray:
    frames = counts(shape, dtype, seed=seed)
    (folder / name).write_bytes(mrc_bytes(frames, MODES[dtype], chunk=blosc1(), compressor=6, labels=(b"MRCZ0.6.0",)))
    return frames


@pytest.mark.parametrize("dtype", list(MODES))
def test_a_movie_from_its_file(tmp_path: Path, dtype: str) -> None:
    frames = file_of(tmp_path, dtype)
    total = md.sum_frames(md.open_movie(tmp_path / "a.mrcz"))
    assert total.dims == ("y", "x")
    assert total.dtype == sum_dtype(np.dtype(dtype))
    assert total.n_frames == 6
    if np.dtype(dtype).kind in "iu":
        np.testing.assert_array_equal(total.values, frames.sum(axis=0, dtype="i8"))
    else:
        np.testing.assert_allclose(total.values, frames.astype(total.dtype).sum(axis=0), rtol=1e-12)


@settings(max_examples=15, deadline=None)
@given(chunks=st.tuples(*[st.integers(1, n) for n in SHAPE]))
def test_sums_of_integers_are_the_same_for_any_chunks(
    tmp_path_factory: pytest.TempPathFactory, chunks: tuple[int, ...]
) -> None:
    folder = tmp_path_factory.mktemp("sums")
    frames = file_of(folder, "i2")
    by_chunk = dict(zip(("frame", "y", "x"), chunks, strict=True))
    for movie in (
        md.open_movie(folder / "a.mrcz", chunks=by_chunk),
        md.open_movie(folder / "a.mrcz", chunks=by_chunk) + np.int16(0),
        xr.DataArray(da.from_array(frames, chunks=chunks), dims=("frame", "y", "x")),
    ):
        np.testing.assert_array_equal(md.sum_frames(movie).values, frames.sum(axis=0, dtype="i8"))


def test_sums_do_not_overflow() -> None:
    bright = np.full((300, 2, 2), 255, "u1")
    assert (md.sum_frames(bright) == 300 * 255).all()
    brighter = np.full((4, 2, 2), 2**32 - 1, "u4")
    assert (md.sum_frames(brighter) == 4 * (2**32 - 1)).all()
    assert (md.sum_frames(np.ones((9, 2, 2), bool)) == 9).all()


def test_numpy_dask_and_xarray_give_what_they_got(no_compute: None) -> None:
    frames = counts(SHAPE, "i2")
    assert isinstance(md.sum_frames(frames), np.ndarray)
    lazy = da.from_array(frames, chunks=2)
    assert isinstance(md.sum_frames(lazy), da.Array)
    movie = xr.DataArray(lazy, dims=("frame", "y", "x"), coords={"x": np.arange(20)}, attrs={"voltage_kv": 300.0})
    total = md.sum_frames(movie)
    assert isinstance(total.data, da.Array)
    assert total.attrs["voltage_kv"] == 300.0
    assert "sum_frames" in total.attrs["history"]
    assert list(total.x.values) == list(range(20))
    with pytest.raises(ValueError, match="needs the dim 'frame'"):
        md.sum_frames(movie.rename(frame="z"))


def test_nothing_is_computed_or_read_when_the_graph_is_built(
    tmp_path: Path, no_compute: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(3):
        file_of(tmp_path, "i2", f"m{k}.mrcz", k)
    session = md.open_session(f"{tmp_path}/*.mrcz", order="name")
    monkeypatch.setattr("mrczdask.io.source._LocalSource.read_at", None)
    sums = md.sum_frames(session)
    assert sums.dims == ("movie", "y", "x")
    assert sums.chunksizes["movie"] == (1, 1, 1)


def test_a_session_is_one_streaming_task_a_movie(tmp_path: Path) -> None:
    movies = [file_of(tmp_path, dtype, f"m{k}.mrcz", k) for k, dtype in enumerate(("i1", "i2", "u2"))]
    session = md.open_session(f"{tmp_path}/*.mrcz", order="name")
    sums = md.sum_frames(session)
    np.testing.assert_array_equal(sums.values, np.stack([movie.sum(axis=0, dtype="i8") for movie in movies]))
    (optimised,) = dask.optimize(sums.data)
    assert len(dict(optimised.dask)) <= 3 * len(movies)
    assert len(pickle.dumps(sums.data.dask)) < 100_000


def test_small_movies_are_summed_several_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    movies = [file_of(tmp_path, "i2", f"m{k}.mrcz", k) for k in range(5)]
    session = md.open_session(f"{tmp_path}/*.mrcz", order="name")
    alone = md.sum_frames(session)
    monkeypatch.setattr("mrczdask.movies.sums.LEAST_CHUNKS", 2)
    together = md.sum_frames(session)
    assert (alone.chunksizes["movie"], together.chunksizes["movie"]) == ((1,) * 5, (2, 2, 1))
    expected = np.stack([movie.sum(axis=0, dtype="i8") for movie in movies])
    np.testing.assert_array_equal(together.values, expected)
    for part in (slice(1, 4), slice(None, None, -1), 3, [0, 3]):
        np.testing.assert_array_equal(together.isel(movie=part).values, expected[part])
    known = together.compute()
    outcomes = [md.koma(session, sums=known.chunk(movie=n), radius=1) for n in (1, 2)]
    np.testing.assert_array_equal(outcomes[0].images.values, outcomes[1].images.values)


def test_the_frames_are_streamed(tmp_path: Path) -> None:
    shape = (400, 256, 256)
    frame = counts(shape[1:], "i2")
    (tmp_path / "a.mrc").write_bytes(mrc_bytes(np.broadcast_to(frame, shape), 1))
    total = md.sum_frames(md.open_movie(tmp_path / "a.mrc"))
    step = STREAM_BYTES // (4 * 256 * 256)
    assert step < shape[0]
    tracemalloc.start()
    try:
        values = total.values
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(values, 400 * frame.astype("i8"))
    assert (
        peak < 1.3 * (2 * 256 * 256 * step) + 4 * 8 * 256 * 256
    )  # one block of int16 and a few sums; the movie is 52 MB


def test_tiles_of_large_frames(tmp_path: Path) -> None:
    frames = file_of(tmp_path, "i2")
    total = md.sum_frames(md.open_movie(tmp_path / "a.mrcz", chunks={"y": 4}))
    expected = frames.sum(axis=0)
    np.testing.assert_array_equal(total.values, expected)
    np.testing.assert_array_equal(total.isel(y=slice(5, 9), x=3).values, expected[5:9, 3])
    np.testing.assert_array_equal(total.isel(y=3, x=[7, 1]).values, expected[3, [7, 1]])
    assert total.isel(y=3, x=4).values == expected[3, 4]


def test_sums_of_selected_frames(tmp_path: Path) -> None:
    frames = file_of(tmp_path, "i2")
    movie = md.open_movie(tmp_path / "a.mrcz", chunks={"frame": 2})
    total = md.sum_frames(movie.isel(frame=slice(1, 4)))
    assert total.n_frames == 3
    np.testing.assert_array_equal(total.values, frames[1:4].sum(axis=0))


def test_changed_files_are_summed_anew(tmp_path: Path) -> None:
    first = file_of(tmp_path, "i2", seed=0)
    one = md.sum_frames(md.open_movie(tmp_path / "a.mrcz"))
    np.testing.assert_array_equal(one.values, first.sum(axis=0))
    second = file_of(tmp_path, "i2", seed=1)
    two = md.sum_frames(md.open_movie(tmp_path / "a.mrcz"))
    assert one.data.name != two.data.name
    np.testing.assert_array_equal(two.values, second.sum(axis=0))


def test_any_selection_of_the_sums_of_a_session(tmp_path: Path) -> None:
    frames = np.stack([file_of(tmp_path, "i2", f"m{k}.mrcz", k) for k in range(3)]).sum(axis=1)
    sums = md.sum_frames(md.open_session(f"{tmp_path}/*.mrcz", order="name"))
    for key in (np.s_[1], np.s_[:, 4], np.s_[2, :, 5], np.s_[0, 3, 2], np.s_[::-1, 2:9:3, -1], np.s_[[2, 0], 1:3]):
        np.testing.assert_array_equal(sums[key].values, frames[key])
