from __future__ import annotations

import logging
import pickle
import struct
import sys
from pathlib import Path
from typing import Any

import dask
import fsspec
import numpy as np
import pytest
import tifffile
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mrczdask as md
from mrczdask.errors import MissingExtraError, MrcFormatError, MrczdaskWarning
from mrczdask.io import tiff_writer
from mrczdask.io.reader import MovieFile
from mrczdask.io.source import Source
from mrczdask.io.tiff import open_tiff, write_tiff


def movie(dtype: str = "u1", shape: tuple[int, int, int] = (5, 60, 44), seed: int = 0) -> np.ndarray:
    counts = np.random.default_rng(seed).poisson(3.0, shape)
    return (counts - 2 * (np.dtype(dtype).kind in "if")).astype(dtype)


def read(
    opened: MovieFile, rows: slice | None = None, cols: slice | None = None, frames: list[int] | None = None
) -> np.ndarray:
    reader = opened.reader
    n, ny, nx = reader.shape
    rows, cols = rows or slice(0, ny), cols or slice(0, nx)
    frames = list(range(n)) if frames is None else frames
    out = np.full((len(frames), rows.stop - rows.start, cols.stop - cols.start), 77, reader.dtype)
    reader.read_into(out, frames, rows, cols)
    return out


def save(path: Path, data: np.ndarray, **options: Any) -> str:
    tifffile.imwrite(path, data, **{"photometric": "minisblack", "metadata": None, **options})
    return str(path)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8", "c8", ">u2", ">f4"])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "zstd"])
def test_dtypes_and_codecs(tmp_path: Path, dtype: str, compression: str | None) -> None:
    data = movie(dtype)
    order = ">" if dtype[0] == ">" else "<"
    opened = open_tiff(save(tmp_path / "a.tif", data, compression=compression, byteorder=order, rowsperstrip=7))
    assert opened.reader.shape == data.shape
    assert opened.reader.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(read(opened), data)
    np.testing.assert_array_equal(read(opened, slice(13, 29), slice(5, 40), [3, 1, 1]), data[[3, 1, 1], 13:29, 5:40])
    assert opened.attrs == {"origin": "upper"}


@pytest.mark.parametrize(
    "options",
    [
        {"tile": (16, 32), "compression": "zlib"},
        {"tile": (16, 16)},
        {"predictor": True, "compression": "lzw"},
        {"bigtiff": True, "compression": "lzw"},
        {"rowsperstrip": 1, "compression": "zlib"},
        {"rowsperstrip": 60},
        {"imagej": True, "metadata": {}},
        {"metadata": {}},
        {"truncate": True, "metadata": {}},
    ],
    ids=str,
)
def test_layouts(tmp_path: Path, options: dict[str, Any]) -> None:
    data = movie("u2")
    opened = open_tiff(save(tmp_path / "a.tif", data, **options))
    np.testing.assert_array_equal(read(opened), data)
    np.testing.assert_array_equal(read(opened, slice(3, 4), slice(31, 33)), data[:, 3:4, 31:33])
    assert read(opened, slice(5, 5), slice(0, 9)).shape == (5, 0, 9)
    assert read(opened, frames=[]).shape == (0, 60, 44)


def test_one_bit_and_four_bit_pixels(tmp_path: Path) -> None:
    data = movie("u1", (3, 20, 31)) & 15
    packed = [np.packbits((page[:, :, None] >> np.arange(3, -1, -1)) & 1, axis=-1) >> 4 for page in data]
    lines = [np.pad(page[:, :, 0], ((0, 0), (0, 1))) for page in packed]
    raw = [((line[:, ::2] << 4) | line[:, 1::2]).astype(np.uint8).tobytes() for line in lines]
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        for page in raw:
            tif.write(
                iter([page]),
                shape=(20, 31),
                dtype=np.uint8,
                bitspersample=4,
                photometric="minisblack",
                metadata=None,
                rowsperstrip=20,
            )
    np.testing.assert_array_equal(read(open_tiff(str(path))), data)
    np.testing.assert_array_equal(read(open_tiff(save(tmp_path / "b.tif", data > 3))), data > 3)


def test_only_the_strips_that_hold_the_rows_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = movie("u2", (4, 512, 256))
    url = save(tmp_path / "a.tif", data, compression="zlib", rowsperstrip=16)
    plain = save(tmp_path / "b.tif", data, rowsperstrip=16)
    opened = {"packed": open_tiff(url), "plain": open_tiff(plain)}
    read_bytes = 0
    from mrczdask.io.source import _LocalSource

    whole = _LocalSource.read_at

    def counting(self: Source, offset: int, size: int) -> bytes:
        nonlocal read_bytes
        data = whole(self, offset, size)
        read_bytes += len(data)
        return data

    monkeypatch.setattr(_LocalSource, "read_at", counting)
    for name, least in (("packed", 0), ("plain", 32 * 512)):
        read_bytes = 0
        np.testing.assert_array_equal(read(opened[name], slice(32, 64), frames=[2]), data[[2], 32:64])
        frame = int(opened["packed"].reader.segments.counts[2].sum()) if name == "packed" else 512 * 512
        directory = 16 << 10  # the directory of the first page, which decodes the others, is read at once
        assert least <= read_bytes <= frame * 32 / 512 * 1.2 + directory * (name == "packed")


def test_reader_is_small_picklable_and_holds_no_file(tmp_path: Path) -> None:
    data = movie()
    opened = open_tiff(save(tmp_path / "a.tif", data, compression="lzw"))
    again = pickle.loads(pickle.dumps(opened))
    np.testing.assert_array_equal(read(again), data)
    assert len(pickle.dumps(opened)) < 4000
    (tmp_path / "a.tif").unlink()
    with pytest.raises(FileNotFoundError):
        read(again)


def test_remote_and_wrapped(tmp_path: Path) -> None:
    import gzip

    data = movie("i2")
    content = Path(save(tmp_path / "a.tif", data, compression="zlib", rowsperstrip=8)).read_bytes()
    fs = fsspec.filesystem("memory")
    fs.pipe("/tiff/a.tif", content)
    opened = open_tiff("memory://tiff/a.tif")
    np.testing.assert_array_equal(read(opened, slice(10, 20)), data[:, 10:20])
    (tmp_path / "a.tif.gz").write_bytes(gzip.compress(content))
    np.testing.assert_array_equal(read(open_tiff(str(tmp_path / "a.tif.gz"))), data)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"resolution": (1e8 / 1.5, 1e8 / 1.5), "resolutionunit": "CENTIMETER"}, 1.5),
        ({"resolution": (2.54e8 / 1.5, 2.54e8 / 1.5), "resolutionunit": "INCH"}, 1.5),
        ({"resolution": (1e8 / 1.5, 1e8 / 3), "resolutionunit": "CENTIMETER"}, [1.5, 3.0]),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"resolution": (1, 1), "resolutionunit": "NONE"}, None),
        ({"resolution": (4, 4), "imagej": True, "metadata": {"unit": "nm"}}, 2.5),
        ({"resolution": (1e4, 1e4), "imagej": True, "metadata": {"unit": "um"}}, 1.0),
        ({"resolution": (4, 4), "imagej": True, "metadata": {"unit": "inch"}}, None),
    ],
    ids=str,
)
def test_pixel_size(tmp_path: Path, options: dict[str, Any], size: Any) -> None:
    opened = open_tiff(save(tmp_path / "a.tif", movie(), **options))
    got = opened.attrs.get("pixel_size_angstrom")
    assert got == (None if size is None else pytest.approx(size, rel=1e-4))


def test_date(tmp_path: Path) -> None:
    url = save(tmp_path / "a.tif", movie(), datetime="2020:01:02 03:04:05")
    assert open_tiff(url).acquired == np.datetime64("2020-01-02T03:04:05")


def test_as_a_movie(tmp_path: Path, no_compute: None) -> None:
    data = movie("u2")
    url = save(tmp_path / "a.tif", data, compression="lzw")
    (tmp_path / "a.tif.mdoc").write_text("[FrameSet = 0]\nPixelSpacing = 1.25\nNumSubFrames = 5\nExposureDose = 10\n")
    for opened in (md.open_movie(url), xr.open_dataset(url, engine="mrcz", chunks={})["images"]):
        assert opened.dims == ("frame", "y", "x")
        assert opened.attrs["pixel_size_angstrom"] == 1.25
        with dask.config.set(scheduler="threads"):
            np.testing.assert_allclose(opened["dose"], [2, 4, 6, 8, 10])
            np.testing.assert_array_equal(opened.isel(frame=[1, 3], x=slice(2, 40, 3)), data[[1, 3], :, 2:40:3])


# ---- what is no movie


@pytest.mark.parametrize(
    ("pages", "match"),
    [
        ([np.zeros((8, 8), "u1"), np.zeros((8, 9), "u1")], "page 1 is 8 x 9"),
        ([np.zeros((8, 8), "u1"), np.zeros((8, 8), "u2")], "page 1 is 8 x 8 uint16"),
        ([np.zeros((8, 8, 3), "u1")], "3 samples a pixel"),
    ],
)
def test_pages_that_are_no_movie(tmp_path: Path, pages: list[np.ndarray], match: str) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        for page in pages:
            tif.write(page, photometric="rgb" if page.ndim == 3 else "minisblack", metadata=None, contiguous=False)
    with pytest.raises(MrcFormatError, match=rf"a\.tif: .*{match}"):
        open_tiff(str(path))


def test_reduced_pages_are_no_frames(tmp_path: Path) -> None:
    path, data = tmp_path / "a.tif", movie("u2", (2, 8, 8))
    with tifffile.TiffWriter(path) as tif:
        for page in data:
            tif.write(page, photometric="minisblack", metadata=None, contiguous=False)
            tif.write(page[::2, ::2], photometric="minisblack", metadata=None, contiguous=False, subfiletype=1)
    np.testing.assert_array_equal(read(open_tiff(str(path))), data)


@pytest.mark.parametrize("content", [b"", b"II*\0", b"no TIFF at all", b"II*\0\x08\0\0\0\0\0", bytes(5000)])
def test_no_tiff(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(MrcFormatError, match=r"a\.tif"):
        open_tiff(str(tmp_path / "a.tif"))


@pytest.mark.parametrize(
    "options", [{"compression": "lzw"}, {}, {"bigtiff": True}, {"imagej": True, "metadata": {}}], ids=str
)
def test_truncated_anywhere(tmp_path: Path, options: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    data = movie("u1", (3, 16, 20))
    path = tmp_path / "whole.tif"
    with tifffile.TiffWriter(path, bigtiff=options.get("bigtiff", False), imagej=options.get("imagej", False)) as tif:
        if options.get("imagej"):
            tif.write(data)
        else:
            for page in data:  # each directory before its strip: the next one is lost with the end of the file
                tif.write(page, photometric="minisblack", metadata=None, compression=options.get("compression"))
    whole = path.read_bytes()
    end = max(open_tiff(str(path)).reader.segments.offsets.max() + 1, len(whole) - 30)
    with caplog.at_level(logging.CRITICAL, logger="tifffile"):
        for size in range(0, end, 13):
            (tmp_path / "a.tif").write_bytes(whole[:size])
            try:
                opened = open_tiff(str(tmp_path / "a.tif"))
            except MrcFormatError as error:
                assert "a.tif" in str(error)  # noqa: PT017
            else:  # only what lies behind the last pixel is gone
                np.testing.assert_array_equal(read(opened), data)
                assert size >= int((opened.reader.segments.offsets + opened.reader.segments.counts).max())


def test_a_strip_that_does_not_decode_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    opened = open_tiff(save(path, movie("u1", (3, 64, 64)), compression="zlib", rowsperstrip=16))
    start = int(opened.reader.segments.offsets[2, 1])
    content = bytearray(path.read_bytes())
    content[start : start + 40] = bytes(40)
    path.write_bytes(content)
    byte = f"{start:,}".replace(",", " ")
    with pytest.raises(MrcFormatError, match=rf"a\.tif: frame 2 at byte {byte}: page 2, strip 1"):
        read(opened)
    np.testing.assert_array_equal(read(opened, frames=[0]), movie("u1", (3, 64, 64))[:1])


def test_a_file_that_shrank_since_it_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for compression in (None, "zlib"):
        opened = open_tiff(save(path, movie(), compression=compression))
        path.write_bytes(path.read_bytes()[: int(opened.reader.segments.offsets[4, 0]) + 3])
        with pytest.raises(MrcFormatError, match="has changed"):
            read(opened)


def test_a_lying_size_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    content = bytearray(Path(save(path, movie("u1", (1, 16, 16)), compression="zlib")).read_bytes())
    with tifffile.TiffFile(path) as tif:
        places = [tif.pages[0].tags[name].valueoffset for name in ("ImageWidth", "ImageLength")]
        kinds = [int(tif.pages[0].tags[name].dtype) for name in ("ImageWidth", "ImageLength")]
    for place, kind in zip(places, kinds, strict=True):
        size = 2 if kind == 3 else 4
        content[place : place + size] = struct.pack("<I", 60_000)[:size]
    path.write_bytes(content)
    with pytest.raises(MrcFormatError, match=r"a\.tif"):
        open_tiff(str(path))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_files_raise_nothing_but_format_errors(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "whole.tif"
    if not path.exists():
        save(path, movie("u2", (3, 12, 14)), compression="lzw", rowsperstrip=5)
        logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "a.tif").write_bytes(content)
    try:
        opened = open_tiff(str(tmp_path / "a.tif"))
        read(opened)
    except MrcFormatError as error:
        assert str(tmp_path / "a.tif") in str(error)  # noqa: PT017
    finally:
        logging.getLogger("tifffile").setLevel(logging.NOTSET)


@pytest.mark.parametrize("module", ["tifffile", "imagecodecs"])
def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    url = save(tmp_path / "a.tif", movie())
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mrczdask\[em\]'"):
        open_tiff(url)


# ---- writing


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8", "c8", ">u2", "?"])
@pytest.mark.parametrize("compression", [None, "none", "lzw", "zlib"])
def test_write(tmp_path: Path, dtype: str, compression: Any) -> None:
    data, path = movie(dtype), tmp_path / "a.tif"
    write_tiff(iter(data), path, shape=data.shape, dtype=data.dtype, compression=compression)
    np.testing.assert_array_equal(tifffile.imread(path), data)
    np.testing.assert_array_equal(read(open_tiff(str(path))), data)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.tif"]


def test_attributes_and_coordinates_come_back(tmp_path: Path) -> None:
    data, path = movie(), tmp_path / "a.tif"
    attrs = {"pixel_size_angstrom": 0.83, "voltage_kv": 300.0, "origin": "upper", "metadata": {"grid": "Å"}}
    coords = {"dose": ("frame", np.arange(5.0)), "frame": ("frame", np.arange(10, 15))}
    write_tiff(iter(data), path, shape=data.shape, dtype=data.dtype, attrs=attrs, coords=coords)
    opened = open_tiff(str(path))
    assert dict(opened.attrs) == attrs
    np.testing.assert_array_equal(opened.coords["dose"][1], np.arange(5.0))
    np.testing.assert_array_equal(opened.coords["frame"][1], np.arange(10, 15))
    with tifffile.TiffFile(path) as tif:
        resolution = tif.pages[0].tags["XResolution"].value
        assert int(tif.pages[0].resolutionunit) == 3
        assert 1e8 * resolution[1] / resolution[0] == pytest.approx(0.83)


def test_the_rows_of_an_mrc_movie_are_turned_over_unless_asked(tmp_path: Path) -> None:
    data, path = movie(), tmp_path / "a.tif"
    write_tiff(iter(data), path, shape=data.shape, dtype=data.dtype, attrs={"origin": "lower"})
    np.testing.assert_array_equal(tifffile.imread(path), data[:, ::-1])
    assert open_tiff(str(path)).attrs["origin"] == "upper"
    write_tiff(iter(data), path, shape=data.shape, dtype=data.dtype, attrs={"origin": "lower"}, origin="lower")
    np.testing.assert_array_equal(tifffile.imread(path), data)
    assert open_tiff(str(path)).attrs["origin"] == "lower"


def test_nothing_is_left_of_a_movie_that_fails(tmp_path: Path) -> None:
    data, path = movie(), tmp_path / "a.tif"
    for images, match in ((data[:4], "4 images came"), ([*data, data[0]], "image 5"), (data[:, 1:], "image 0")):
        with pytest.raises(MrcFormatError, match=match):
            write_tiff(iter(images), path, shape=data.shape, dtype=data.dtype)
    with pytest.raises(MrcFormatError, match="no pixels of datetime64"):
        write_tiff(iter(data), path, shape=data.shape, dtype="M8[s]")
    with pytest.raises(ValueError, match="origin"):
        write_tiff(iter(data), path, shape=data.shape, dtype="u1", origin="left")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_big_tiff_where_the_pixels_could_exceed_the_classic_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = movie("u2")
    for limit, big in ((data.nbytes * 2, False), (data.nbytes, True)):
        monkeypatch.setattr(tiff_writer, "CLASSIC_BYTES", limit)
        write_tiff(iter(data), tmp_path / "a.tif", shape=data.shape, dtype=data.dtype)
        with tifffile.TiffFile(tmp_path / "a.tif") as tif:
            assert tif.is_bigtiff is big
        np.testing.assert_array_equal(read(open_tiff(str(tmp_path / "a.tif"))), data)


def test_to_a_store(tmp_path: Path) -> None:
    data = movie()
    write_tiff(iter(data), "memory://written/a.tif", shape=data.shape, dtype=data.dtype)
    np.testing.assert_array_equal(read(open_tiff("memory://written/a.tif")), data)


def test_one_frame_is_in_memory_while_writing(tmp_path: Path) -> None:
    import tracemalloc

    shape = (24, 512, 512)
    frames = (movie("u2", (1, *shape[1:]), seed=k)[0] for k in range(shape[0]))
    tracemalloc.start()
    write_tiff(frames, tmp_path / "a.tif", shape=shape, dtype="u2")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # making a frame takes 8 bytes a pixel here, writing it a few copies; the movie is 24 frames of 2 bytes
    assert peak < 24 * 512 * 512 * 2


# ---- two pixels a byte, as SerialEM writes super-resolution frames

PACKED = "SerialEMCCD: Frames . ., 4 bits packed  r/f 0 need 5\n  SuperRef_x.dm4\n  defects_x.txt"


def packed(path: Path, pixels: np.ndarray, description: str | None = PACKED, **options: Any) -> str:
    """Pixels of 0..15, the even one of each pair in the lower half of a byte."""
    halves = (pixels[:, :, ::2] | pixels[:, :, 1::2] << 4).astype("u1")
    with tifffile.TiffWriter(path) as file:
        for k, page in enumerate(halves):
            text = description if k == 0 else None
            file.write(page, photometric="minisblack", metadata=None, description=text, **options)
    return str(path)


@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
def test_packed_frames_by_their_description(tmp_path: Path, compression: str | None) -> None:
    pixels = np.minimum(movie("u1", (4, 48, 64)), 15)
    resolution = {"resolution": (1e8 / 0.8, 1e8 / 0.8), "resolutionunit": 3}
    opened = open_tiff(packed(tmp_path / "a.tif", pixels, compression=compression, rowsperstrip=10, **resolution))
    assert (opened.reader.shape, opened.reader.dtype) == ((4, 48, 64), np.uint8)
    assert opened.attrs["pixel_size_angstrom"] == 0.8
    assert opened.attrs["rotation_flip"] == 0
    np.testing.assert_array_equal(read(opened), pixels)
    again = pickle.loads(pickle.dumps(opened))
    np.testing.assert_array_equal(read(again, slice(7, 31), slice(5, 12), [2, 0]), pixels[[2, 0], 7:31, 5:12])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), pairs=st.integers(1, 9), ny=st.integers(1, 6), lzw=st.booleans())
def test_any_columns_of_any_packed_width(tmp_path: Path, data: st.DataObject, pairs: int, ny: int, lzw: bool) -> None:
    """Odd numbers of bytes, odd first and last columns, none at all."""
    pixels = np.random.default_rng(pairs + 100 * ny).integers(0, 16, (3, ny, 2 * pairs)).astype("u1")
    opened = open_tiff(packed(tmp_path / "a.tif", pixels, compression="lzw" if lzw else None))
    first = data.draw(st.integers(0, 2 * pairs))
    last = data.draw(st.integers(first, 2 * pairs))
    cols, rows = slice(first, last), slice(0, data.draw(st.integers(1, ny)))
    np.testing.assert_array_equal(read(opened, rows, cols, [2, 1]), pixels[[2, 1], rows, cols])
    lazy = md.open_movie(tmp_path / "a.tif")
    np.testing.assert_array_equal(lazy[1, :, first:last].values, pixels[1, :, first:last])


@pytest.mark.parametrize(("nx", "ny"), [(3838, 7420), (3712, 7678), (5760, 8184), (4092, 11520)])
def test_packed_frames_by_their_size(tmp_path: Path, nx: int, ny: int) -> None:
    """As IMOD knows them: no detector has frames of half a side."""
    halves = np.zeros((1, ny, nx), "u1")
    halves[0, 1, 2] = 0x21
    opened = open_tiff(save(tmp_path / "a.tif", halves, compression="lzw"))
    assert opened.reader.shape == (1, ny, 2 * nx)
    np.testing.assert_array_equal(read(opened, slice(1, 2), slice(3, 7))[0, 0], [0, 1, 2, 0])
    assert "two pixels a byte" in opened.encoding["notes"][0]


def test_a_description_of_frames_that_were_unpacked_since(tmp_path: Path) -> None:
    for name, shape, dtype in (("a.tif", (1, 30, 40), "u2"), ("b.tif", (1, 7420, 7676), "u1")):
        pixels = np.zeros(shape, dtype)
        opened = open_tiff(save(tmp_path / name, pixels, description=PACKED, compression="lzw"))
        assert opened.reader.shape == shape
        assert "read as they stand" in opened.encoding["notes"][0]


def test_the_first_page_alone(tmp_path: Path) -> None:
    pages = [movie("f4", (1, 12, 20))[0], np.ones((5, 7), "u1")]
    with tifffile.TiffWriter(tmp_path / "a.gain") as file:
        for page in pages:
            file.write(page, photometric="minisblack", metadata=None)
    opened = open_tiff(str(tmp_path / "a.gain"), first_page=True)
    np.testing.assert_array_equal(read(opened)[0], pages[0])
    assert opened.encoding["notes"] == ("the file has 2 pages: the first one is read",)
    with pytest.warns(MrczdaskWarning, match="2 pages"):
        gain = md.open_gain(tmp_path / "a.gain")
    np.testing.assert_array_equal(gain.values, pages[0])
    np.testing.assert_array_equal(gain.values, tifffile.imread(tmp_path / "a.gain", key=0))
