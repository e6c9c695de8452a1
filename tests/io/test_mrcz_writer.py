"""What is written is read back by this package, by python-mrcz and by mrcfile; a file appears whole or not at all."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import mrcfile
import mrcz
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import mrczdask as md
from mrczdask.errors import MrcFormatError
from mrczdask.io import mrcz_writer
from tests.mrc_bytes import counts

pytestmark = pytest.mark.filterwarnings(
    "ignore:Setting the dtype on a NumPy array:DeprecationWarning"
)  # mrcfile 1.5 with NumPy >= 2.5

DTYPES = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "f2", "f4", "c8"]
CODECS = [None, "none", "zstd", "zlib", "lz4", "lz4hc", "blosclz"]
MRCZ_DTYPES = {"i1", "i2", "u2", "i4", "u4", "f4", "c8"}


def movie_of(dtype: str, shape: tuple[int, int, int] = (5, 12, 10)) -> np.ndarray:
    return counts(shape, "u1").astype("?") if dtype == "?" else counts(shape, dtype)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_codec(tmp_path: Path, dtype: str, codec: Any) -> None:
    frames = movie_of(dtype)
    path = tmp_path / "a.mrcz"
    stored = md.write_mrcz(frames, path, codec=codec)
    assert stored.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(stored.values, frames)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mrcz"]
    in_file = {"?": "i1", "u1": "i1"}.get(dtype, dtype)
    if in_file in MRCZ_DTYPES:
        theirs, meta = mrcz.readMRC(str(path))
        np.testing.assert_array_equal(theirs, frames.astype(in_file))
        assert meta["compressor"] == (None if codec in (None, "none") else codec)
    if codec in (None, "none") and dtype not in ("i4", "u4"):
        with mrcfile.open(path) as mrc:
            np.testing.assert_array_equal(mrc.data, frames)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("codec", [None, "zstd"])
def test_other_memory_layouts(tmp_path: Path, order: str, codec: Any) -> None:
    frames = counts((5, 12, 10), "i2").astype(order + "i2")
    for k, pixels in enumerate((frames, np.asfortranarray(frames), frames[:, ::2], frames.transpose(0, 2, 1))):
        stored = md.write_mrcz(pixels, tmp_path / f"{k}.mrcz", codec=codec)
        np.testing.assert_array_equal(stored.values, pixels)


@pytest.mark.parametrize("chunks", [(5, 12, 10), (1, 12, 10), (2, 5, 10), (3, 4, 3), (1, 1, 1)])
@pytest.mark.parametrize("codec", [None, "lz4"])
def test_the_file_does_not_depend_on_the_chunks(tmp_path: Path, chunks: tuple[int, ...], codec: Any) -> None:
    frames = counts((5, 12, 10), "i2")
    whole = tmp_path / "whole.mrcz"
    md.write_mrcz(frames, whole, codec=codec)
    md.write_mrcz(da.from_array(frames, chunks=chunks), tmp_path / "parts.mrcz", codec=codec)
    assert (tmp_path / "parts.mrcz").read_bytes() == whole.read_bytes()


@settings(max_examples=25, deadline=None)
@given(
    frames=st.sampled_from(DTYPES).flatmap(
        lambda dtype: hnp.arrays(
            dtype,
            hnp.array_shapes(min_dims=3, max_dims=3, max_side=9),
            elements=st.integers(0, 127) if dtype in ("u1", "i1") else None,
        )
    ),
    codec=st.sampled_from(["none", "zstd", "lz4"]),
    level=st.integers(0, 9),
    index=st.booleans(),
    as_list=st.booleans(),
    shuffle=st.sampled_from([None, "none", "byte", "bit"]),
    blocksize=st.sampled_from([None, 128, 5000]),
)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, frames: np.ndarray, **options: Any) -> None:
    path = tmp_path_factory.mktemp("trip") / "a.mrcz"
    stored = md.write_mrcz(frames, path, **options)
    assert stored.dtype == frames.dtype
    np.testing.assert_array_equal(stored.values, frames)
    assert md.validate(path).ok


def test_one_image_is_a_movie_of_one_frame(tmp_path: Path) -> None:
    image = counts((12, 10), "i2")
    assert md.write_mrcz(image, tmp_path / "a.mrc", codec=None).shape == (1, 12, 10)
    with mrcfile.open(tmp_path / "a.mrc") as mrc:
        np.testing.assert_array_equal(np.squeeze(mrc.data), image)


def test_statistics_are_those_of_all_pixels(tmp_path: Path) -> None:
    frames = counts((7, 30, 20), "i2")
    header = md.write_mrcz(frames, tmp_path / "a.mrc", codec=None).encoding["mrc_header"]
    stats = header.statistics
    expected = (frames.min(), frames.max(), frames.mean(), frames.std())
    assert (stats.minimum, stats.maximum, stats.mean, stats.rms) == pytest.approx(expected, rel=1e-6)
    said = io.StringIO()
    mrcfile.validate(tmp_path / "a.mrc", print_file=said)
    assert said.getvalue().splitlines()[1:] == ["Extended header type is undefined or unrecognised: exttyp = 'json'"]
    for pixels in (frames.astype("c8"), np.full((2, 3, 4), np.nan, "f4")):
        assert md.write_mrcz(pixels, tmp_path / "b.mrc", codec=None).encoding["mrc_header"].statistics is None


def test_uint8_restarts_at_the_first_pixel_above_127(tmp_path: Path) -> None:
    frames = counts((40, 12, 10), "u1")
    at = 23  # no frame that is sampled beforehand
    calls: list[int] = []

    def block(part: np.ndarray, block_info: Any = None) -> np.ndarray:
        calls.append(block_info[None]["chunk-location"][0])
        return part

    bright = frames.copy()
    bright[at, 3, 4] = 128
    for codec in (None, "zstd"):
        for pixels, mode in ((frames, 0), (bright, 6)):
            calls.clear()
            lazy = da.from_array(pixels, chunks=(4, -1, -1)).map_blocks(
                block, dtype="u1", meta=np.empty((0, 0, 0), "u1")
            )
            stored = md.write_mrcz(lazy, tmp_path / "a.mrcz", codec=codec)  # type: ignore[arg-type]
            assert stored.encoding["mrc_header"].mode == mode
            assert stored.dtype == np.uint8
            np.testing.assert_array_equal(stored.values, pixels)
            assert [p.name for p in tmp_path.iterdir()] == ["a.mrcz"]
            theirs, _ = mrcz.readMRC(str(tmp_path / "a.mrcz"))
            np.testing.assert_array_equal(theirs, pixels)


def test_uint8_that_is_bright_in_a_sample_is_not_begun_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    real = mrcz_writer.create_file
    monkeypatch.setattr(mrcz_writer, "create_file", lambda *args: begun.append(1) or real(*args))
    stored = md.write_mrcz(np.full((3, 4, 5), 200, "u1"), tmp_path / "a.mrcz")
    assert begun == [1]
    assert stored.encoding["mrc_header"].mode == 6


def test_mode_asked_for(tmp_path: Path) -> None:
    bytes_ = counts((3, 4, 5), "u1")
    for mode, dtype in ((0, "i1"), (1, "i2"), (2, "f4"), (6, "u2"), (7, "i4"), (8, "u4"), (12, "f2")):
        stored = md.write_mrcz(bytes_, tmp_path / "a.mrc", mode=mode, codec=None)
        assert stored.encoding["mrc_header"].mode == mode
        np.testing.assert_array_equal(stored.values, bytes_)
        np.testing.assert_array_equal(md.open_movie(tmp_path / "a.mrc", signed=True).values, bytes_.astype(dtype))


def test_4_bit_files_are_read_by_python_mrcz(tmp_path: Path) -> None:
    for nx in (10, 11):
        frames = counts((3, 6, nx), "u1")
        stored = md.write_mrcz(frames, tmp_path / "a.mrc", mode=101, codec=None)
        np.testing.assert_array_equal(stored.values, frames)
        assert (tmp_path / "a.mrc").stat().st_size == 1024 + stored.encoding["mrc_header"].nsymbt + 3 * 6 * (
            (nx + 1) // 2
        )
        if nx % 2 == 0:
            np.testing.assert_array_equal(mrcz.readMRC(str(tmp_path / "a.mrc"))[0], frames)


@pytest.mark.parametrize(
    ("pixels", "options", "said"),
    [
        (np.full((2, 3, 4), 0.1, "f8"), {}, "does not fit float32 to the last digit"),
        (np.full((2, 3, 4), 2**31, "i8"), {}, "does not fit int32 to the last digit"),
        (np.zeros((2, 3, 4), "c16"), {}, "no MRC mode holds complex128"),
        (np.zeros((2, 3, 4), "M8[ns]"), {}, "no MRC mode holds datetime64"),
        (np.zeros((2, 3, 4), "i2"), {"mode": 0}, "mode 0 stores int8, which does not hold every int16"),
        (np.zeros((2, 3, 4), "i2"), {"mode": 6}, "does not hold every int16"),
        (np.zeros((2, 3, 4), "i2"), {"mode": 3}, "mode 3 is not written"),
        (np.zeros((2, 3, 4), "i2"), {"mode": 5}, "mode 5 is not written"),
        (np.zeros((2, 3, 4), "u1"), {"mode": 101, "codec": "zstd"}, "not compressed"),
        (np.full((2, 3, 4), 16, "u1"), {"mode": 101, "codec": None}, "one is 16"),
        (np.full((2, 3, 4), 200, "u1"), {"mode": 0}, "above 127"),
        (np.zeros((2, 3, 4), "i2"), {"codec": "lzma"}, "codec 'lzma' is not one of"),
        (np.zeros((2, 3, 4), "i2"), {"codec": "snappy"}, "snappy"),
        (np.zeros((2, 0, 4), "i2"), {}, "at least one pixel"),
        (np.zeros((2, 3, 4, 5), "i2"), {}, "select one movie"),
        (np.zeros((2, 3, 4), "i2"), {"metadata": {"a": object()}}, "cannot be written as JSON"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(
    tmp_path: Path, pixels: np.ndarray, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(MrcFormatError, match=said):
        md.write_mrcz(pixels, tmp_path / "a.mrc", **options)
    assert list(tmp_path.iterdir()) == []


def test_wrapped_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MrcFormatError, match="read, not written"):
        md.write_mrcz(counts((2, 3, 4), "i2"), tmp_path / "a.mrc.gz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError("detector on fire"), KeyboardInterrupt()])
@pytest.mark.parametrize("existed", [False, True])
@pytest.mark.parametrize("codec", [None, "zstd"])
def test_an_error_midway_leaves_what_was_there(tmp_path: Path, error: BaseException, existed: bool, codec: Any) -> None:
    path = tmp_path / "a.mrcz"
    if existed:
        md.write_mrcz(counts((2, 12, 10), "i2"), path)
    before = path.read_bytes() if existed else None

    def fail(part: np.ndarray, block_info: Any = None) -> np.ndarray:
        if block_info and block_info[None]["chunk-location"][0] == 13:
            raise error
        return part

    lazy = da.from_array(counts((40, 12, 10), "i2"), chunks=(2, -1, -1)).map_blocks(fail, dtype="i2")
    with pytest.raises(type(error)):
        md.write_mrcz(lazy, path, codec=codec)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mrcz"] * existed
    if existed:
        assert path.read_bytes() == before


def test_ctrl_c_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int, label: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    lazy = da.from_array(counts((40, 12, 10), "i2"), chunks=(2, -1, -1))
    with pytest.raises(KeyboardInterrupt):
        md.write_mrcz(lazy, tmp_path / "a.mrcz", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_disk_full_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mrczdask.io.write.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        md.write_mrcz(counts((3, 4, 5), "i2"), tmp_path / "a.mrcz")
    assert list(tmp_path.iterdir()) == []


def test_attributes_coordinates_and_metadata_are_kept(tmp_path: Path) -> None:
    movie = xr.DataArray(
        counts((3, 4, 6), "u1"),
        dims=("frame", "y", "x"),
        coords={
            "dose": ("frame", [1.0, 2.0, 3.0]),
            "frame": [0, 2, 4],
            "acquired": np.datetime64("2026-01-02T03:04:05"),
        },
        attrs={"pixel_size_angstrom": 1.25, "voltage_kv": 200.0, "counts_per_electron": 32.0, "note": "größer"},
    )
    for codec in ("zstd", None):
        stored = md.write_mrcz(movie, tmp_path / "a.mrcz", codec=codec, metadata={"grid": 7})  # type: ignore[arg-type]
        assert stored.attrs == {**movie.attrs, "origin": "lower", "metadata": '{"grid": 7}'}
        np.testing.assert_array_equal(stored.dose, [1, 2, 3])
        assert stored.frame.values.tolist() == [0, 2, 4]
        assert stored.acquired.values == np.datetime64("2026-01-02T03:04:05")
        again = md.write_mrcz(stored, tmp_path / "b.mrcz")
        assert again.attrs == stored.attrs
        xr.testing.assert_identical(again.drop_vars("movie").compute(), stored.drop_vars("movie").compute())
    _, meta = mrcz.readMRC(str(tmp_path / "a.mrcz"))
    assert (meta["grid"], meta["voltage"], meta["gain"]) == (7, 200.0, 32.0)
    np.testing.assert_allclose(meta["pixelsize"][1:], 1.25)
    md.write_mrcz(movie, tmp_path / "c.mrc", codec=None)
    with mrcfile.open(tmp_path / "c.mrc") as mrc:
        assert mrc.voxel_size.tolist() == pytest.approx((1.25, 1.25, 1.25))


@pytest.mark.parametrize(("as_list", "kind"), [(True, list), (False, np.ndarray)])
def test_python_mrcz_gets_a_list_or_an_array(tmp_path: Path, as_list: bool, kind: type) -> None:
    frames = counts((3, 4, 6), "i2")
    md.write_mrcz(frames, tmp_path / "a.mrcz", as_list=as_list)
    theirs, _ = mrcz.readMRC(str(tmp_path / "a.mrcz"))
    assert isinstance(theirs, kind)
    np.testing.assert_array_equal(np.asarray(theirs), frames)


@pytest.mark.parametrize("meta", [None, {"grid": 7}])
@pytest.mark.parametrize("codec", [None, "zstd", "lz4hc", "zlib", "blosclz"])
@pytest.mark.parametrize("backend", ["blosc1", "blosc2"])
def test_files_of_python_mrcz_today(tmp_path: Path, meta: Any, codec: Any, backend: str) -> None:
    for k, dtype in enumerate(sorted(MRCZ_DTYPES)):
        frames = counts((4, 64, 60), dtype)
        path = str(tmp_path / f"{k}.mrcz")
        mrcz.writeMRC(frames, path, meta=meta, compressor=codec, backend=backend, pixelsize=[1.0, 2.0, 2.0])
        movie = md.open_movie(path)
        np.testing.assert_array_equal(movie.values, frames)
        assert movie.attrs["pixel_size_angstrom"] == 2.0
        assert (movie.em.metadata or None) == meta


def test_a_movie_is_written_in_bounded_memory(tmp_path: Path) -> None:
    frame_bytes = 256 * 256 * 2
    lazy = da.zeros((400, 256, 256), chunks=(4, -1, -1), dtype="i2")  # 52 MB
    noisy = lazy + da.arange(256, dtype="i2")
    with dask.config.set(num_workers=2):
        md.write_mrcz(noisy[:8], tmp_path / "warm.mrc", codec=None)
        tracemalloc.start()
        try:
            md.write_mrcz(noisy, tmp_path / "a.mrc", codec=None)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 60 * frame_bytes  # 4 regions of 4 frames, each as pixels and as bytes; the movie has 400


def test_progress_counts_regions(tmp_path: Path) -> None:
    said: list[tuple[int, int, str]] = []
    lazy = da.from_array(counts((7, 12, 10), "i2"), chunks=(2, 5, 5))
    md.write_mrcz(lazy, tmp_path / "a.mrcz", progress=lambda *args: said.append(args))
    assert said == [(k, 4, "a.mrcz") for k in range(5)]


def test_building_the_graph_computes_nothing_but_writing_does(tmp_path: Path) -> None:
    computed = []
    lazy = da.from_array(counts((4, 12, 10), "i2"), chunks=(1, -1, -1)).map_blocks(
        lambda part: computed.append(1) or part, dtype="i2", meta=np.empty((0, 0, 0), "i2")
    )
    movie = xr.DataArray(lazy, dims=("frame", "y", "x"))
    assert computed == []
    md.write_mrcz(movie, tmp_path / "a.mrcz")
    assert len(computed) == 3 + 4  # three samples, then every frame once


def test_source_and_target_may_be_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mrcz"
    frames = counts((4, 12, 10), "i2")
    movie = md.write_mrcz(frames, path, codec="lz4")
    again = md.write_mrcz(movie + np.int16(1), path, codec="zstd")
    np.testing.assert_array_equal(again.values, frames + 1)
