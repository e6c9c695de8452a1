"""Files of other programs against what those programs read from them, and every mode against pixels made here."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import tracemalloc
from pathlib import Path
from typing import Any

import mrcfile
import mrcz
import numpy as np
import pytest

import mrczdask as md
from mrczdask.errors import AmbiguousFileWarning, MrcFormatError
from tests.mrc_bytes import blosc1, blosc2_chunks, counts, mrc_bytes

pytestmark = pytest.mark.filterwarnings(
    "ignore:Setting the dtype on a NumPy array:DeprecationWarning"
)  # mrcfile 1.5 with NumPy >= 2.5

GOLDEN = Path(__file__).parents[1] / "data" / "mrcz_golden"
MANIFEST = {entry["file"]: entry for entry in json.loads((GOLDEN / "manifest.json").read_text())}
TRUTH_OF = {"i1": "i1", "i2": "i2", "u2": "u2", "f4": "f4", "c8": "c8", "uint4": "i1", "list2d": "u2", "list3d": "u2"}


@pytest.fixture(scope="module")
def truth() -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN / "truth.npz"))


@pytest.mark.parametrize("name", sorted(MANIFEST))
def test_golden_files(name: str, truth: dict[str, np.ndarray]) -> None:
    entry = MANIFEST[name]
    movie = md.open_movie(GOLDEN / name)
    expected = truth[TRUTH_OF[name.split("_")[1].split(".")[0]]][: entry["shape"][0]]
    np.testing.assert_array_equal(movie.values, expected)
    assert list(movie.shape) == entry["shape"]
    assert movie.dtype == np.dtype(entry["dtype"]).newbyteorder("=")
    assert movie.dtype.isnative
    header = movie.encoding["mrc_header"]
    assert (header.mode + 1000 * header.compressor, header.nsymbt) == (entry["mode"], entry["nsymbt"])
    assert header.labels == (entry["label"],)
    assert movie.attrs["pixel_size_angstrom"] == [1.5, 1.25]
    assert (movie.attrs["voltage_kv"], movie.attrs["spherical_aberration_mm"]) == (300.0, 2.7)
    assert (movie.attrs["counts_per_electron"], movie.attrs["origin"]) == (7.5, "lower")
    if entry["nsymbt"]:
        assert movie.em.metadata["seed"] == 20240917
    np.testing.assert_array_equal(movie.isel(frame=1, y=slice(5, 11)).values, expected[1, 5:11])


@pytest.mark.parametrize("name", [name for name in MANIFEST if "list3d" in name])
def test_lists_of_3d_frames_say_volume_and_section(name: str) -> None:
    movie = md.open_movie(GOLDEN / name)
    assert movie.volume.values.tolist() == [0, 0, 1, 1]
    assert movie.section.values.tolist() == [0, 1, 0, 1]
    theirs, _ = mrcz.readMRC(str(GOLDEN / name))
    for k, volume in enumerate(theirs):
        np.testing.assert_array_equal(movie[movie.volume == k].values, volume)


@pytest.mark.parametrize("chunk", [None, blosc1("zstd"), blosc2_chunks("lz4")], ids=["raw", "version 2", "version 5"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("mode", [0, 1, 2, 3, 4, 6, 7, 8, 12, 16, 101])
@pytest.mark.parametrize("nx", [10, 11])
def test_every_mode_in_both_byte_orders(tmp_path: Path, mode: int, order: str, chunk: Any, nx: int) -> None:
    dtype = {0: "i1", 1: "i2", 2: "f4", 3: "c8", 4: "c8", 6: "u2", 7: "i4", 8: "u4", 12: "f2", 16: "u1", 101: "u1"}[
        mode
    ]
    shape = (3, 8, nx, 3) if mode == 16 else (3, 8, nx)
    frames = counts(shape, dtype)
    path = tmp_path / "a.mrc"
    raw = mrc_bytes(frames, mode, order=order, chunk=chunk, compressor=6 * (chunk is not None), labels=(b"MRCZ0.6.0",))
    path.write_bytes(raw)
    movie = md.open_movie(path)
    assert movie.dtype == np.dtype(dtype)
    assert movie.dims == (("frame", "y", "x", "band") if mode == 16 else ("frame", "y", "x"))
    np.testing.assert_array_equal(movie.values, frames)
    np.testing.assert_array_equal(
        movie.isel(frame=[2, 0], y=slice(2, 5), x=slice(1, -1)).values, frames[[2, 0], 2:5, 1:-1]
    )


@pytest.mark.parametrize("mode", [0, 1, 2, 4, 6, 12])
@pytest.mark.parametrize("order", "<>")
def test_files_of_mrcfile(tmp_path: Path, mode: int, order: str) -> None:
    frames = counts((3, 8, 10), mrcfile.utils.dtype_from_mode(mode)).astype(
        np.dtype(mrcfile.utils.dtype_from_mode(mode)).newbyteorder(order)
    )
    with mrcfile.new(tmp_path / "a.mrc") as mrc:
        mrc.set_data(frames)
        mrc.voxel_size = (1.5, 1.5, 2.0)
    movie = md.open_movie(tmp_path / "a.mrc")
    np.testing.assert_array_equal(movie.values, frames)
    assert movie.attrs["pixel_size_angstrom"] == 1.5


def test_volume_stacks(tmp_path: Path) -> None:
    volumes = counts((2, 3, 8, 10), "i2")
    with mrcfile.new(tmp_path / "a.mrc") as mrc:
        mrc.set_data(volumes)
    movie = md.open_movie(tmp_path / "a.mrc")
    np.testing.assert_array_equal(movie.values, volumes.reshape(6, 8, 10))
    np.testing.assert_array_equal(movie.volume, [0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize("map_id", [b"MAP ", b"MAP\x00", b""])
@pytest.mark.parametrize("stamp", [b"\x44\x44\x00\x00", b"\x44\x41\x00\x00", b"\x44\x20\x20\x20", bytes(4)])
def test_missing_map_and_odd_stamps(tmp_path: Path, map_id: bytes, stamp: bytes) -> None:
    frames = counts((3, 8, 10), "i2")
    (tmp_path / "a.mrc").write_bytes(mrc_bytes(frames, 1, map_id=map_id, stamp=stamp))
    np.testing.assert_array_equal(md.open_movie(tmp_path / "a.mrc").values, frames)


@pytest.mark.parametrize("packed", ["flag", "label"])
def test_packed_mode_0(tmp_path: Path, packed: str) -> None:
    nx, ny = (16, 6) if packed == "flag" else (3710, 7676)
    shape = (2, 6, 32) if packed == "flag" else (1, ny, 2 * nx)
    frames = np.resize(counts((6, 32), "u1"), shape)
    body = mrc_bytes(frames, 101)[1024:]
    extra: dict[str, Any] = {"imod_flags": 16} if packed == "flag" else {"labels": (b"SerialEM: 4 bits packed",)}
    empty = mrc_bytes(np.zeros((0, ny, nx), "i1"), 0, **extra)
    path = tmp_path / "a.mrc"
    path.write_bytes(empty[:8] + shape[0].to_bytes(4, "little") + empty[12:] + body)
    movie = md.open_movie(path)
    assert movie.dtype == np.uint8
    for rows in (slice(2, 5), slice(-3, None)):
        np.testing.assert_array_equal(movie.isel(y=rows).values, frames[:, rows])


def test_sign_of_mode_0(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    frames = np.arange(-20, 20, dtype="i1").reshape(2, 4, 5)
    path.write_bytes(mrc_bytes(frames, 0))
    with pytest.warns(AmbiguousFileWarning, match=r"signed=False\) reads 0..255"):
        np.testing.assert_array_equal(md.open_movie(path).values, frames)
    np.testing.assert_array_equal(md.open_movie(path, signed=True).values, frames)
    np.testing.assert_array_equal(md.open_movie(path, signed=False).values, frames.view("u1"))
    path.write_bytes(mrc_bytes(frames, 0, imod_flags=0))
    np.testing.assert_array_equal(md.open_movie(path).values, frames.view("u1"))
    path.write_bytes(mrc_bytes(np.abs(frames), 0))
    np.testing.assert_array_equal(md.open_movie(path).values, np.abs(frames))  # no warning: both readings agree


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
@pytest.mark.parametrize("chunk", [None, blosc1("zstd")], ids=["raw", "zstd"])
def test_wrappers(tmp_path: Path, suffix: str, pack: Any, chunk: Any) -> None:
    frames = counts((6, 16, 20), "i2")
    raw = mrc_bytes(frames, 1, chunk=chunk, compressor=6 * (chunk is not None))
    (tmp_path / f"movie.mrc{suffix}").write_bytes(pack(raw))
    movie = md.open_movie(tmp_path / f"movie.mrc{suffix}")
    assert movie.movie.item() == "movie"
    np.testing.assert_array_equal(movie.values, frames)
    np.testing.assert_array_equal(movie.isel(frame=[4, 1], y=slice(3, 5)).values, frames[[4, 1], 3:5])
    (tmp_path / f"cut.mrc{suffix}").write_bytes(pack(raw[:-1]))
    with pytest.raises(MrcFormatError, match="truncated"):
        md.open_movie(tmp_path / f"cut.mrc{suffix}")


@pytest.mark.parametrize("chunk", [None, blosc1("zstd")], ids=["raw", "zstd"])
def test_truncated_and_growing_files(tmp_path: Path, chunk: Any) -> None:
    frames = counts((6, 16, 20), "i2")
    raw = mrc_bytes(frames, 1, chunk=chunk, compressor=6 * (chunk is not None), extended=b" " * 32)
    path = tmp_path / "growing.mrcz"
    whole = 0
    for size in range(1024 + 32, len(raw), 97):
        path.write_bytes(raw[:size])
        with pytest.raises(MrcFormatError, match=r"growing\.mrcz: frame (\d) at byte .*first \1 frames") as caught:
            md.open_movie(path)
        assert whole <= caught.value.frame <= 5
        whole = caught.value.frame
        if whole:
            np.testing.assert_array_equal(md.open_movie(path, truncated="readable").values, frames[:whole])
        else:
            with pytest.raises(MrcFormatError, match="not one whole frame"):
                md.open_movie(path, truncated="readable")
    assert whole == 5
    path.write_bytes(raw)
    assert md.open_movie(path).sizes["frame"] == 6


def test_trailing_bytes_are_ignored(tmp_path: Path) -> None:
    frames = counts((3, 8, 10), "i2")
    for chunk in (None, blosc1("zstd")):
        raw = mrc_bytes(frames, 1, chunk=chunk, compressor=6 * (chunk is not None), tail=b"anything at all" * 9)
        (tmp_path / "a.mrcz").write_bytes(raw)
        np.testing.assert_array_equal(md.open_movie(tmp_path / "a.mrcz").values, frames)


@pytest.mark.parametrize(
    ("place", "value"),
    [(8, 2**31 - 1), (0, 2**31 - 1), (4, 2**30), (92, 2**30), (92, 5000), (92, -1), (12, 999), (12, 14000)],
)
@pytest.mark.parametrize("chunk", [None, blosc1("zstd")], ids=["raw", "zstd"])
def test_lying_headers_are_refused_before_memory_is_asked_for(
    tmp_path: Path, place: int, value: int, chunk: Any
) -> None:
    if place == 92 and chunk is not None:
        pytest.skip("a chunk where the extended header should be: see test_nsymbt")
    # a byte behind the frames: NSYMBT alone is wrong, and not so that the file ends with its pixels
    raw = bytearray(mrc_bytes(counts((3, 8, 10), "i2"), 1, chunk=chunk, compressor=6 * (chunk is not None), tail=b"x"))
    raw[place : place + 4] = value.to_bytes(4, "little", signed=True)
    path = tmp_path / "lying.mrc"
    path.write_bytes(raw)
    tracemalloc.start()
    try:
        with pytest.raises(MrcFormatError, match=r"lying\.mrc: "):
            md.open_movie(path)
        if place == 8:  # NZ alone is wrong: the frames that are there can be read
            assert md.open_movie(path, truncated="readable").sizes["frame"] == 3
        else:
            with pytest.raises(MrcFormatError, match=r"lying\.mrc: "):
                md.open_movie(path, truncated="readable").compute()
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


REAL = [
    "EMD-3001.map",
    "EMD-3001.map.bz2",
    "EMD-3197.map",
    "emd_3197.map.gz",
    "HAADFscan.mrc",
    "float16.mrc",
    "ROI_Random_Scan_movie.mrc",
]


@pytest.mark.real_data
@pytest.mark.parametrize("name", REAL)
def test_real_files_against_mrcfile(data_dir: Path, name: str) -> None:
    path = data_dir / "real" / "mrc" / name
    movie = md.open_movie(path)
    with mrcfile.open(path, permissive=True) as mrc:
        theirs = np.asarray(mrc.data)
        voxel = float(mrc.voxel_size.x)
    theirs = theirs if theirs.ndim == 3 else theirs[None]
    assert movie.shape == theirs.shape
    np.testing.assert_array_equal(movie.values, theirs)
    if voxel > 0:
        assert np.ravel(movie.attrs["pixel_size_angstrom"])[0] == pytest.approx(voxel, rel=1e-3)
    rows = slice(movie.sizes["y"] // 3, movie.sizes["y"] // 2)
    np.testing.assert_array_equal(movie.isel(frame=-1, y=rows).values, theirs[-1, rows])


@pytest.mark.real_data
def test_real_extended_header_of_a_velox_image(data_dir: Path) -> None:
    movie = md.open_movie(data_dir / "real" / "mrc" / "HAADFscan.mrc")
    with mrcfile.open(data_dir / "real" / "mrc" / "HAADFscan.mrc", permissive=True) as mrc:
        record = mrc.indexed_extended_header[0]
        assert movie.attrs["voltage_kv"] == pytest.approx(float(record["HT"]) / 1000)
        assert movie.attrs["pixel_size_angstrom"] == pytest.approx(float(record["Pixel size X"]) * 1e10)


@pytest.mark.real_data
def test_real_symmetry_records(data_dir: Path) -> None:
    movie = md.open_movie(data_dir / "real" / "mrc" / "EMD-3001.map")
    assert [line.replace(" ", "") for line in json.loads(movie.attrs["symmetry"])] == ["X,Y,Z", "-X,Y+1/2,-Z"]
