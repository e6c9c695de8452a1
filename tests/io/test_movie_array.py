from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import mrczdask as md
from mrczdask.io.movie_array import CHUNK_BYTES, MAX_CHUNK_BYTES, preferred_chunks
from tests.mrc_bytes import blosc1, counts, mrc_bytes

SHAPE = (5, 12, 9)
Key = int | slice | list[int]
KINDS = ["raw", "zstd", "packed4", "rgb"]


@pytest.fixture(scope="module", params=KINDS)
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A file of each layout, and its pixels."""
    kind = request.param
    path = tmp_path_factory.mktemp(kind) / "a.mrcz"
    frames = counts((*SHAPE, 3) if kind == "rgb" else SHAPE, "u1" if kind in ("rgb", "packed4") else "i2")
    mode = {"rgb": 16, "packed4": 101}.get(kind, 1)
    chunk = blosc1("zstd", block=64) if kind == "zstd" else None
    path.write_bytes(mrc_bytes(frames, mode, chunk=chunk, compressor=6 * (kind == "zstd")))
    return path, frames


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], np.ndarray]:
    """Three movies, two compressed and one not, of three integer dtypes."""
    folder = tmp_path_factory.mktemp("session")
    movies = [counts(SHAPE, dtype, seed=k) for k, dtype in enumerate(("i1", "i2", "u2"))]
    urls = []
    for k, (frames, mode) in enumerate(zip(movies, (0, 1, 6), strict=True)):
        chunk = blosc1("lz4", block=32) if k else None
        urls.append(folder / f"m{k}.mrcz")
        urls[-1].write_bytes(mrc_bytes(frames, mode, chunk=chunk, compressor=2 * bool(k), labels=(b"MRCZ0.6.0",)))
    return urls, np.stack(movies).astype("i4")


def selections(size: int) -> st.SearchStrategy[Key]:
    """Integers, slices of any step and vectors of positions, negative ones too, with repeats and empty."""
    places = st.integers(-size, size - 1)
    return st.one_of(places, st.slices(size), st.lists(places, max_size=size + 3))


def outer(pixels: np.ndarray, keys: Sequence[Key]) -> np.ndarray:
    """Selections of each axis for itself, last axis first: an integer takes its axis away."""
    for axis, key in reversed(list(enumerate(keys))):
        pixels = pixels[(slice(None),) * axis + (np.array(key, int) if isinstance(key, list) else key,)]
    return pixels


@settings(max_examples=50, deadline=None)
@given(keys=st.tuples(*map(selections, SHAPE)))
def test_any_outer_selection_is_that_of_numpy(stored: tuple[Path, np.ndarray], keys: tuple[Key, ...]) -> None:
    path, frames = stored
    lazy = md.open_movie(path, chunks=None)
    part = lazy.isel(dict(zip(("frame", "y", "x"), keys, strict=True)))
    expected = outer(frames, keys)
    assert part.shape == expected.shape
    np.testing.assert_array_equal(part.values, expected)
    assert part.dtype == frames.dtype


@settings(max_examples=50, deadline=None)
@given(keys=st.tuples(*map(selections, (3, *SHAPE))))
def test_any_outer_selection_of_a_session(session: tuple[list[Path], np.ndarray], keys: tuple[Key, ...]) -> None:
    urls, pixels = session
    lazy = md.open_session(urls, order="given", chunks=None).images
    assert lazy.dtype == np.int32
    part = lazy.isel(dict(zip(("movie", "frame", "y", "x"), keys, strict=True)))
    np.testing.assert_array_equal(part.values, outer(pixels, keys))


@pytest.mark.parametrize(
    "rows", [[0, 1, 3, 2], [0, 1, 1, 3], [0, 1, 2, 2], [3, 2, 1, 0], [5], [-1, 0], [], slice(None, None, -1)]
)
def test_rows_in_any_order(stored: tuple[Path, np.ndarray], rows: list[int] | slice) -> None:
    path, frames = stored
    key = np.array(rows, int) if isinstance(rows, list) else rows
    np.testing.assert_array_equal(md.open_movie(path).isel(y=rows).values, frames[:, key])


@settings(max_examples=20, deadline=None)
@given(chunks=st.tuples(*[st.integers(1, n + 2) for n in SHAPE]))
def test_the_pixels_do_not_depend_on_the_chunks(stored: tuple[Path, np.ndarray], chunks: tuple[int, int, int]) -> None:
    path, frames = stored
    opened = md.open_movie(path, chunks=dict(zip(("frame", "y", "x"), chunks, strict=True)))
    assert opened.chunksizes["frame"][0] == min(chunks[0], SHAPE[0])
    np.testing.assert_array_equal(opened.values, frames)
    np.testing.assert_array_equal(
        opened.isel(frame=slice(1, None, 2), y=[4, 0], x=-1).values,
        outer(frames, [slice(1, None, 2), [4, 0], -1]),
    )


def test_pointwise_and_boolean_selections(stored: tuple[Path, np.ndarray]) -> None:
    path, frames = stored
    opened = md.open_movie(path, chunks=None)
    where = xr.DataArray([3, 0, 4], dims="spot"), xr.DataArray([11, 2, 7], dims="spot")
    np.testing.assert_array_equal(opened.isel(frame=where[0], y=where[1]).values, frames[[3, 0, 4], [11, 2, 7]])
    keep = np.arange(SHAPE[0]) % 2 == 0
    np.testing.assert_array_equal(opened[keep].values, frames[keep])
    np.testing.assert_array_equal(opened.sel(frame=[4, 2]).values, frames[[4, 2]])


@pytest.mark.parametrize(
    "shape", [(60, 3838, 3710), (400, 64, 64), (1, 8, 8), (10, 11_520, 8184), (3, 40_000, 40_000), (1000, 4096, 4096)]
)
def test_chunks_are_32_to_128_megabytes_of_float32(shape: tuple[int, int, int]) -> None:
    chunks = preferred_chunks(shape)
    size = 4 * chunks["frame"] * chunks["y"] * chunks["x"]
    whole = 4 * shape[0] * shape[1] * shape[2]
    assert size <= MAX_CHUNK_BYTES
    assert size >= min(CHUNK_BYTES // 2, whole)
    assert chunks["x"] == shape[2]


def test_a_wrapped_file_is_one_chunk() -> None:
    assert preferred_chunks((60, 3838, 3710), wrapped=True) == {"frame": 60, "y": 3838, "x": 3710}
