from __future__ import annotations

import pickle
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dask
import fsspec
import numpy as np
import pytest
import tifffile
import xarray as xr

import mrczdask as md
from mrczdask.errors import MissingExtraError, MrcFormatError
from mrczdask.io.eer import open_eer

SCHEMES = {65000: (8, 2, 2), 65001: (7, 2, 2), 65002: (6, 3, 1)}
PIXEL_ANGSTROM = 0.75


@dataclass
class Electrons:
    """Where electrons hit one camera frame: pixel in raster order, and place inside the pixel, in 16 x 16."""

    pixel: np.ndarray
    x: np.ndarray
    y: np.ndarray


def camera_frames(n: int, shape: tuple[int, int], seed: int = 0, rate: float = 0.05) -> list[Electrons]:
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n):
        pixels = np.flatnonzero(rng.random(shape[0] * shape[1]) < rate)
        frames.append(Electrons(pixels, rng.integers(0, 16, len(pixels)), rng.integers(0, 16, len(pixels))))
    return frames


def encode(frame: Electrons, n_pixels: int, bits: tuple[int, int, int]) -> bytes:
    """Run length of empty pixels, then the place inside the pixel, least significant bit first; a run of ones goes on.

    The first bit of each place is stored inverted (format description 3.0, section 4).
    """
    skip, across, down = bits
    longest = (1 << skip) - 1
    stream: list[str] = []

    def put(value: int, width: int) -> None:
        stream.append(format(value, f"0{width}b")[::-1])

    def run(length: int) -> None:
        for _ in range(length // longest):
            put(longest, skip)
        put(length % longest, skip)

    place = 0
    for pixel, x, y in zip(frame.pixel.tolist(), frame.x.tolist(), frame.y.tolist(), strict=True):
        run(pixel - place)
        put((x >> (4 - across)) ^ (1 << (across - 1)), across)
        put((y >> (4 - down)) ^ (1 << (down - 1)), down)
        place = pixel + 1
    run(n_pixels - place)
    put(0, across + down)
    text = "".join(stream)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[k : k + 8][::-1], 2) for k in range(0, len(text), 8))


def render(frames: Sequence[Electrons], shape: tuple[int, int], upsampling: int) -> np.ndarray:
    """Electrons counted on the grid, one image a camera frame."""
    up = upsampling.bit_length() - 1
    out = np.zeros((len(frames), shape[0] * upsampling, shape[1] * upsampling), np.uint16)
    for image, frame in zip(out, frames, strict=True):
        y, x = np.divmod(frame.pixel, shape[1])
        np.add.at(image, ((y << up) + (frame.y >> (4 - up)), (x << up) + (frame.x >> (4 - up))), 1)
    return out


def xml(**items: tuple[object, str] | object) -> bytes:
    lines = []
    for name, item in items.items():
        value, unit = item if isinstance(item, tuple) else (item, "")
        lines.append(f'<item name="{name.replace("__", ".")}" unit="{unit}">{value}</item>')
    return f"<metadata>{''.join(lines)}</metadata>".encode()


Tags = dict[int, tuple[int, int, bytes | int]]
"""(type, count, value) by code; bytes stand outside of the directory."""


def big_tiff(pages: Sequence[tuple[Tags, bytes]]) -> bytes:
    """Pages of one strip, each behind its strip, as libtiff lays them out; tifffile writes no EER strips."""
    out = bytearray(b"II" + struct.pack("<HHHQ", 43, 8, 0, 0))
    pointer = 8
    for tags, strip in pages:
        tags = {**tags, 273: (16, 1, len(out)), 279: (16, 1, len(strip))}
        out += strip + b"\0" * (-len(strip) % 2)
        entries = b""
        for code, (kind, count, value) in sorted(tags.items()):
            field = struct.pack("<Q", value if isinstance(value, int) else len(out))
            if isinstance(value, bytes):
                short = len(value) <= 8
                field = value.ljust(8, b"\0") if short else field
                out += b"" if short else value + b"\0" * (-len(value) % 2)
            entries += struct.pack("<HHQ", code, kind, count) + field
        out[pointer : pointer + 8] = struct.pack("<Q", len(out))
        out += struct.pack("<Q", len(tags)) + entries
        pointer = len(out)
        out += struct.pack("<Q", 0)
    return bytes(out)


def write_eer(
    path: Path,
    frames: Sequence[Electrons],
    shape: tuple[int, int],
    *,
    scheme: int = 65001,
    acquisition: bytes | None = None,
    doses: Sequence[float] | None = None,
    final_image: bool = False,
) -> Path:
    """A movie as the Falcon writes it."""
    size: Tags = {256: (3, 1, shape[1]), 257: (3, 1, shape[0]), 278: (3, 1, shape[0])}
    pages: list[tuple[Tags, bytes]] = []
    if final_image:
        pages.append(({**size, 258: (3, 1, 16), 259: (3, 1, 1), 262: (3, 1, 1)}, bytes(2 * shape[0] * shape[1])))
    for k, frame in enumerate(frames):
        tags: Tags = {**size, 259: (3, 1, scheme)}
        if scheme == 65002:
            tags |= {65007 + i: (3, 1, value) for i, value in enumerate(SCHEMES[scheme])}
        if doses is not None:
            text = xml(frameID=k, dose=(doses[k], "e/pixel"))
            tags[65002] = (7, len(text), text)
        pages.append((tags, encode(frame, shape[0] * shape[1], SCHEMES[scheme])))
    if acquisition is not None:
        pages[0][0][65001] = (7, len(acquisition), acquisition)
    path.write_bytes(big_tiff(pages))
    return path


def read(movie: object, rows: slice | None = None, cols: slice | None = None, frames: Sequence[int] | None = None):
    reader = movie.reader
    n, ny, nx = reader.shape
    frames, rows, cols = frames or list(range(n)), rows or slice(0, ny), cols or slice(0, nx)
    out = np.full((len(frames), rows.stop - rows.start, cols.stop - cols.start), 99, reader.dtype)
    reader.read_into(out, frames, rows, cols)
    return out


SHAPE = (48, 64)


@pytest.mark.parametrize("scheme", [65000, 65001])
@pytest.mark.parametrize("upsampling", [1, 2, 4])
def test_frames(tmp_path: Path, scheme: int, upsampling: int) -> None:
    frames = camera_frames(5, SHAPE)
    path = write_eer(tmp_path / "a.eer", frames, SHAPE, scheme=scheme)
    movie = open_eer(str(path), upsampling=upsampling)
    want = render(frames, SHAPE, upsampling)
    assert movie.reader.dtype == np.uint8
    assert want.sum() > 100
    np.testing.assert_array_equal(read(movie), want)
    np.testing.assert_array_equal(read(movie, slice(7, 30), slice(11, 12), [3, 0]), want[[3, 0], 7:30, 11:12])
    assert movie.attrs["origin"] == "upper"


def test_bits_from_the_tags(tmp_path: Path) -> None:
    frames = camera_frames(3, SHAPE)
    path = write_eer(tmp_path / "a.eer", frames, SHAPE, scheme=65002)
    np.testing.assert_array_equal(read(open_eer(str(path))), render(frames, SHAPE, 1))
    with pytest.raises(MrcFormatError, match=r"3 \+ 1 bits.*upsampling=1"):
        open_eer(str(path), upsampling=2)


@pytest.mark.parametrize("upsampling", [1, 2, 4])
def test_against_tifffile(tmp_path: Path, upsampling: int) -> None:
    # imagecodecs takes an even number of bytes, and tifffile gives it what is there
    frames = [frame for frame in camera_frames(20, SHAPE) if len(encode(frame, 48 * 64, (7, 2, 2))) % 2 == 0]
    assert 3 < len(frames) < 20
    path = write_eer(tmp_path / "a.eer", frames, SHAPE, acquisition=xml(numberOfFrames=len(frames)))
    theirs = tifffile.imread(path, superres=upsampling.bit_length() - 1)
    np.testing.assert_array_equal(read(open_eer(str(path), upsampling=upsampling)), theirs)


def test_the_final_image_is_no_frame(tmp_path: Path) -> None:
    frames = camera_frames(3, SHAPE)
    path = write_eer(tmp_path / "a.eer", frames, SHAPE, final_image=True)
    np.testing.assert_array_equal(read(open_eer(str(path))), render(frames, SHAPE, 1))


@pytest.mark.parametrize("group", [1, 2, 3, 7])
def test_fractions(tmp_path: Path, group: int) -> None:
    frames = camera_frames(7, SHAPE)
    path = write_eer(tmp_path / "a.eer", frames, SHAPE)
    movie = open_eer(str(path), frames_per_fraction=group)
    n = 7 // group
    want = render(frames, SHAPE, 1)[: n * group].reshape(n, group, *SHAPE).sum(axis=1)
    assert movie.reader.shape == (n, *SHAPE)
    np.testing.assert_array_equal(read(movie), want)


def test_more_than_255_camera_frames_a_fraction_do_not_overflow(tmp_path: Path) -> None:
    everywhere = Electrons(np.arange(64), np.zeros(64, int), np.zeros(64, int))
    path = write_eer(tmp_path / "a.eer", [everywhere] * 300, (8, 8))
    movie = open_eer(str(path), frames_per_fraction=300)
    assert movie.reader.dtype == np.uint16
    assert (read(movie) == 300).all()


def test_metadata(tmp_path: Path) -> None:
    acquisition = b"<?xml encoding='utf - 8'?>" + xml(
        sensorPixelSize__width=(PIXEL_ANGSTROM * 1e-10, "m"),
        sensorPixelSize__height=(PIXEL_ANGSTROM * 1e-10, "m"),
        exposureTime=(2.0, "s"),
        numberOfFrames=1,
        totalDose=(9.0, "e/pixel"),
        meanDoseRate=(4.5, "e/pixel/s"),
        timestamp="2025-03-14T17:40:48.482908+01:00",
        commercialName="Falcon 4i",
    )
    path = write_eer(tmp_path / "a.eer", camera_frames(8, SHAPE), SHAPE, acquisition=acquisition, final_image=False)
    movie = open_eer(str(path), upsampling=2, frames_per_fraction=2)
    assert movie.attrs["pixel_size_angstrom"] == pytest.approx(PIXEL_ANGSTROM / 2)
    assert movie.attrs["camera"] == "Falcon 4i"
    assert movie.attrs["exposure_time_s"] == 2
    assert movie.session == {"dose_rate": 4.5, "utc_offset": 60}
    assert movie.acquired == np.datetime64("2025-03-14T17:40:48.482908")
    np.testing.assert_allclose(movie.coords["time"][1], [0, 0.5, 1, 1.5])
    np.testing.assert_allclose(movie.coords["dose"][1], np.array([2.25, 4.5, 6.75, 9]) / PIXEL_ANGSTROM**2)


def test_dose_of_the_frames_is_preferred(tmp_path: Path) -> None:
    acquisition = xml(
        sensorPixelSize__width=("1e-10", "m"), sensorPixelSize__height=("1e-10", "m"), totalDose=("9", "e/pixel")
    )
    path = write_eer(
        tmp_path / "a.eer", camera_frames(3, SHAPE), SHAPE, acquisition=acquisition, doses=[0.5, 0.25, 0.25]
    )
    np.testing.assert_allclose(open_eer(str(path)).coords["dose"][1], [0.5, 0.75, 1.0])


@pytest.mark.parametrize(
    "text", [b"", b"<metadata><item", b"\xff\xfe", xml(totalDose=("nan", "e/pixel"), timestamp="soon")]
)
def test_metadata_that_say_nothing(tmp_path: Path, text: bytes) -> None:
    path = write_eer(tmp_path / "a.eer", camera_frames(2, SHAPE), SHAPE, acquisition=text or None)
    movie = open_eer(str(path))
    assert movie.coords == {}
    assert movie.attrs == {"origin": "upper"}


def test_the_sidecar_is_read(tmp_path: Path) -> None:
    path = write_eer(tmp_path / "a.eer", camera_frames(4, SHAPE), SHAPE)
    (tmp_path / "a.eer.mdoc").write_text(
        "[FrameSet = 0]\nPixelSpacing = 1.5\nNumSubFrames = 4\nExposureDose = 4\nDoseRate = 6\nGainReference = x.gain\n"
    )
    movie = open_eer(str(path), upsampling=2, frames_per_fraction=2)
    assert movie.attrs["pixel_size_angstrom"] == 0.75
    np.testing.assert_allclose(movie.coords["dose"][1], [2, 4])
    assert movie.session == {"dose_rate": 6.0, "gain_reference": "x.gain"}


def test_remote_and_pickled(tmp_path: Path) -> None:
    frames = camera_frames(4, SHAPE)
    path = write_eer(tmp_path / "a.eer", frames, SHAPE)
    fsspec.filesystem("memory").pipe("/eer/a.eer", path.read_bytes())
    movie = open_eer("memory://eer/a.eer")
    again = pickle.loads(pickle.dumps(movie))
    np.testing.assert_array_equal(read(again), render(frames, SHAPE, 1))


def test_as_a_movie(tmp_path: Path, no_compute: None) -> None:
    frames = camera_frames(4, SHAPE)
    path = write_eer(tmp_path / "a.eer", frames, SHAPE)
    movie = md.open_movie(path)
    assert (movie.dims, movie.shape, movie.dtype) == (("frame", "y", "x"), (4, *SHAPE), np.uint8)
    with dask.config.set(scheduler="threads"):
        np.testing.assert_array_equal(movie.isel(frame=2, y=slice(3, 9)), render(frames, SHAPE, 1)[2, 3:9])


def test_grid_and_fractions_of_a_movie_and_a_session(tmp_path: Path) -> None:
    frames = camera_frames(4, SHAPE)
    path = write_eer(tmp_path / "a.eer", frames, SHAPE)
    options = {"upsampling": 2, "frames_per_fraction": 2}
    want = render(frames, SHAPE, 2).reshape(2, 2, 2 * SHAPE[0], 2 * SHAPE[1]).sum(axis=1)
    np.testing.assert_array_equal(md.open_movie(path, **options), want)
    np.testing.assert_array_equal(md.open_session([path], order="name", **options).images[0], want)
    np.testing.assert_array_equal(xr.open_dataset(path, engine="mrcz", **options).images, want)
    md.write_mrcz(want.astype(np.uint8), tmp_path / "a.mrc", codec=None)
    with pytest.raises(ValueError, match=r"a\.mrc: upsampling and frames_per_fraction are for EER"):
        md.open_movie(tmp_path / "a.mrc", **options)


@pytest.mark.parametrize("options", [{"upsampling": 3}, {"frames_per_fraction": 0}, {"frames_per_fraction": 5}])
def test_wrong_parameters(tmp_path: Path, options: dict[str, int]) -> None:
    path = write_eer(tmp_path / "a.eer", camera_frames(4, SHAPE), SHAPE)
    with pytest.raises(ValueError, match=next(iter(options))):
        open_eer(str(path), **options)


def test_no_eer_file(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.eer", np.zeros((3, 8, 8), np.uint8), photometric="minisblack")
    with pytest.raises(MrcFormatError, match=r"a\.eer: no page holds electron events"):
        open_eer(str(tmp_path / "a.eer"))
    (tmp_path / "b.eer").write_bytes(b"nothing")
    with pytest.raises(MrcFormatError, match=r"b\.eer"):
        open_eer(str(tmp_path / "b.eer"))


def test_a_corrupt_frame_is_named(tmp_path: Path) -> None:
    path = write_eer(tmp_path / "a.eer", camera_frames(3, SHAPE), SHAPE)
    movie = open_eer(str(path), frames_per_fraction=3)
    start, count = int(movie.reader.segments.offsets[1, 0]), int(movie.reader.segments.counts[1, 0])
    data = bytearray(path.read_bytes())
    data[start : start + count] = b"\xff" * count  # runs beyond the last pixel
    path.write_bytes(data)
    with pytest.raises(MrcFormatError, match=r"a\.eer: frame 0 at byte .*camera frame 1"):
        read(movie)


def test_truncated_anywhere(tmp_path: Path) -> None:
    whole = write_eer(tmp_path / "a.eer", camera_frames(4, SHAPE), SHAPE).read_bytes()
    for size in range(0, len(whole) - 1, 37):
        (tmp_path / "b.eer").write_bytes(whole[:size])
        with pytest.raises(MrcFormatError, match=r"b\.eer"):
            open_eer(str(tmp_path / "b.eer"))


def test_without_imagecodecs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_eer(tmp_path / "a.eer", camera_frames(1, SHAPE), SHAPE)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(MissingExtraError, match=r"mrczdask\[em\]"):
        open_eer(str(path))


# ---- bits of the place inside a pixel


def with_bits(
    path: Path, frames: Sequence[Electrons], bits: Sequence[tuple[int, int, int]], leave_out: int = 0
) -> Path:
    """A movie of compression 65002, whose frames say their bits in tags, but for the tag `leave_out`."""
    pages: list[tuple[Tags, bytes]] = []
    for frame, own in zip(frames, bits, strict=True):
        tags: Tags = {256: (3, 1, SHAPE[1]), 257: (3, 1, SHAPE[0]), 278: (3, 1, SHAPE[0]), 259: (3, 1, 65002)}
        tags |= {65007 + i: (3, 1, value) for i, value in enumerate(own) if 65007 + i != leave_out}
        pages.append((tags, encode(frame, SHAPE[0] * SHAPE[1], own)))
    path.write_bytes(big_tiff(pages))
    return path


@pytest.mark.parametrize("bits", [(7, 1, 1), (8, 1, 1), (6, 2, 2), (7, 1, 2), (7, 2, 1), (7, 3, 1), (7, 4, 4)])
def test_the_grid_is_no_finer_than_the_bits(tmp_path: Path, bits: tuple[int, int, int]) -> None:
    frames = camera_frames(3, SHAPE)
    path = str(with_bits(tmp_path / "a.eer", frames, [bits] * 3))
    finest = 2 ** min(bits[1:]) if max(bits[1:]) <= 2 else 1
    for upsampling in (1, 2, 4):
        if upsampling <= finest:
            np.testing.assert_array_equal(
                read(open_eer(path, upsampling=upsampling)), render(frames, SHAPE, upsampling)
            )
        else:
            with pytest.raises(MrcFormatError, match=rf"{bits[1]} \+ {bits[2]} bits.*upsampling={finest} reads"):
                open_eer(path, upsampling=upsampling)


def test_bits_that_are_not_all_told(tmp_path: Path) -> None:
    frames = camera_frames(2, SHAPE)
    for tag in (65007, 65008, 65009):
        path = with_bits(tmp_path / f"{tag}.eer", frames, [(6, 1, 1)] * 2, leave_out=tag)
        with pytest.raises(MrcFormatError, match=f"lacks the tag {tag}"):
            open_eer(str(path))
        assert md.validate(path).codes == ("not-opened",)
    path = with_bits(tmp_path / "a.eer", frames, [(7, 2, 2), (7, 1, 1)])
    with pytest.raises(MrcFormatError, match="in frame 0"):
        open_eer(str(path))
