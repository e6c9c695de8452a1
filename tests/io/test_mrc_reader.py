from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mrczdask as md
from mrczdask.errors import MrcFormatError
from mrczdask.io.source import _LocalSource
from tests.mrc_bytes import blosc1, blosc2_chunks, counts, mrc_bytes

ROWS, NX, N = 256, 128, 6
MODE = {"i1": 0, "i2": 1, "f4": 2, "c8": 4}
COMPRESSOR = {"blosclz": 1, "lz4": 2, "lz4hc": 3, "zlib": 5, "zstd": 6}


class Reads:
    """Every read of local files since the last `clear`."""

    def __init__(self) -> None:
        self.ranges: list[tuple[int, int]] = []

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.ranges)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    seen = Reads()
    real = _LocalSource.read_at

    def read_at(self: _LocalSource, offset: int, size: int) -> bytes:
        data = real(self, offset, size)
        seen.ranges.append((offset, len(data)))
        return data

    monkeypatch.setattr(_LocalSource, "read_at", read_at)
    return seen


def noise(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Pixels of which no codec makes less: chunks are stored."""
    raw = np.random.default_rng(5).integers(0, 256, (*shape, np.dtype(dtype).itemsize), np.uint8)
    return raw.view(dtype)[..., 0]


def movie(path: Path, frames: np.ndarray, dtype: str, chunk: Any, codec: str = "zstd") -> Any:
    raw = mrc_bytes(frames, MODE[dtype], chunk=chunk, compressor=COMPRESSOR[codec], labels=(b"MRCZ0.6.0",))
    path.write_bytes(raw)
    return md.open_movie(path)


SELECTIONS = [slice(0, 1), slice(3, 9), slice(100, 101), slice(200, 256), slice(255, 256), slice(0, 255)]


@pytest.mark.parametrize("block", [1024, 8192, 60_000])
@pytest.mark.parametrize("shuffle", ["none", "byte", "bit"])
@pytest.mark.parametrize("codec", list(COMPRESSOR))
@pytest.mark.parametrize("dtype", list(MODE))
def test_rows_of_blosc_frames(tmp_path: Path, dtype: str, codec: str, shuffle: str, block: int) -> None:
    frames = counts((2, ROWS, NX), dtype)
    movie(tmp_path / "a.mrcz", frames, dtype, blosc1(codec, shuffle=shuffle, block=block), codec)
    lazy = md.open_movie(tmp_path / "a.mrcz", chunks=None)
    for rows in SELECTIONS:
        np.testing.assert_array_equal(lazy[1, rows].values, frames[1, rows])


@pytest.mark.parametrize("dtype", list(MODE))
@pytest.mark.parametrize(
    "chunk",
    [blosc2_chunks("zstd"), blosc2_chunks("lz4", shuffle="none", block=4096), blosc1("lz4", level=0)],
    ids=["version 5", "version 5 lz4", "stored"],
)
def test_rows_of_chunks_that_are_unpacked_whole(tmp_path: Path, dtype: str, chunk: Any) -> None:
    for k, frames in enumerate(
        (counts((2, ROWS, NX), dtype), noise((2, ROWS, NX), dtype), np.zeros((2, ROWS, NX), dtype))
    ):
        movie(tmp_path / f"{k}.mrcz", frames, dtype, chunk)
        lazy = md.open_movie(tmp_path / f"{k}.mrcz", chunks=None)
        for rows in (slice(3, 9), slice(None)):
            np.testing.assert_array_equal(lazy[:, rows].values, frames[:, rows])


def test_a_session_reads_only_the_blocks_of_the_rows(tmp_path: Path, reads: Reads) -> None:
    image = counts((2048, 256), "i2")
    frames = np.stack([np.roll(image, 7 * k, axis=1) for k in range(20)])
    for k in range(3):
        movie(tmp_path / f"movie_{k}.mrcz", frames + np.int16(k), "i2", blosc1("zstd", block=1 << 15))
    index = md.frame_index(tmp_path / "movie_1.mrcz")
    first, length = int(index.offset[17]), int(index.length[17])

    reads.ranges.clear()
    session = md.open_session(str(tmp_path / "*.mrcz"), order="name")
    assert reads.bytes < 3 * (1024 + 2 * 16 * 20 + 8 + 16)  # headers, the search for an index and the walk: no pixel

    reads.ranges.clear()
    part = session.images.isel(movie=1, frame=17, y=slice(0, 512)).compute()
    np.testing.assert_array_equal(part, frames[17, :512] + 1)
    assert all(first <= offset and offset + size <= first + length for offset, size in reads.ranges)
    # 512 of 2048 rows are 8 of 32 blocks; the 4096 bytes with the table of blocks are read besides
    assert reads.bytes < 0.25 * 1.02 * length + 4096


def test_raw_rows_read_exactly_their_bytes(tmp_path: Path, reads: Reads) -> None:
    frames = counts((4, 300, 100), "i2")
    (tmp_path / "a.mrc").write_bytes(mrc_bytes(frames, 1))
    opened = md.open_movie(tmp_path / "a.mrc")
    assert reads.bytes <= 1024
    reads.ranges.clear()
    np.testing.assert_array_equal(opened.isel(frame=2, y=slice(50, 60)).values, frames[2, 50:60])
    assert reads.ranges == [(1024 + 2 * 60_000 + 50 * 200, 10 * 200)]


def test_opening_reads_no_pixel_byte(tmp_path: Path, reads: Reads, no_compute: None) -> None:
    frames = counts((30, 64, 64), "i2")
    stored = np.asarray(frames)
    raw = mrc_bytes(stored, 1, chunk=blosc1("zstd"), compressor=6)
    (tmp_path / "a.mrcz").write_bytes(raw)
    opened = md.open_movie(tmp_path / "a.mrcz")
    assert opened.shape == frames.shape
    index = [(0, 1024)]
    position = 1024
    for _ in range(30):
        index.append((position, 16))
        position += int.from_bytes(raw[position + 12 : position + 16], "little")
    footer = 16 * 30 + 4
    allowed = {*index, (1024, 0), (len(raw) - footer, footer)}  # no extended header; looked for a footer
    assert set(reads.ranges) <= allowed


@pytest.mark.parametrize("wrong", ["cut", "changed"])
def test_file_that_changed_since_it_was_opened(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "a.mrcz"
    opened = movie(path, counts((4, 64, 64), "i2"), "i2", blosc1("zstd"))
    raw = path.read_bytes()
    path.write_bytes(raw[:-100] if wrong == "cut" else raw[:1024] + bytes(len(raw) - 1024))
    with pytest.raises(MrcFormatError, match=r"a\.mrcz: frame \d at byte [\d ]+: ") as caught:
        opened.compute()
    assert ("open it again" if wrong == "cut" else "no Blosc chunk") in str(caught.value)
    with pytest.raises(MrcFormatError):
        opened.isel(frame=3, y=slice(0, 4)).compute()


def test_raw_file_that_was_cut_since_it_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    path.write_bytes(mrc_bytes(counts((4, 64, 64), "i2"), 1))
    opened = md.open_movie(path)
    path.write_bytes(path.read_bytes()[:-1])
    np.testing.assert_array_equal(opened[:3].values, counts((4, 64, 64), "i2")[:3])
    with pytest.raises(MrcFormatError, match=r"frame 3 at byte .*: the file has changed, open it again"):
        opened.compute()


@pytest.mark.parametrize("place", [30, -3])
def test_corrupt_chunk_names_frame_and_byte(tmp_path: Path, place: int) -> None:
    path = tmp_path / "a.mrcz"
    opened = movie(path, counts((3, 64, 64), "i2"), "i2", blosc1("zstd"))
    index = md.frame_index(path)
    raw = bytearray(path.read_bytes())
    start, size = int(index.offset[1]), int(index.length[1])
    at = start + (place if place > 0 else size + place)
    raw[at : at + 3] = bytes(255 - byte for byte in raw[at : at + 3])
    path.write_bytes(raw)
    np.testing.assert_array_equal(opened[2].values, counts((3, 64, 64), "i2")[2])
    with pytest.raises(MrcFormatError, match="frame 1 at byte") as caught:
        opened[1].compute()
    assert (caught.value.frame, caught.value.byte) == (1, start)


@pytest.mark.parametrize(("flags", "name"), [(2 << 5, "snappy"), (5 << 5, "Blosc codec 5"), (7 << 5, "Blosc codec 7")])
@pytest.mark.parametrize("version", [2, 5])
def test_codecs_that_are_not_here_are_named(tmp_path: Path, flags: int, name: str, version: int) -> None:
    path = tmp_path / "a.mrcz"
    make = blosc1 if version == 2 else blosc2_chunks
    opened = movie(path, counts((2, 64, 64), "i2"), "i2", make("zstd"))
    raw = bytearray(path.read_bytes())
    raw[1026] = raw[1026] & 0x1F | flags
    path.write_bytes(raw)
    with pytest.raises(MrcFormatError, match=f"packed by {name}, which is not read here"):
        opened.compute()


def test_readers_are_picklable_and_small(tmp_path: Path) -> None:
    frames = counts((4, 64, 64), "i2")
    opened = movie(tmp_path / "a.mrcz", frames, "i2", blosc1("zstd"))
    again = pickle.loads(pickle.dumps(opened))
    np.testing.assert_array_equal(again.values, frames)
    lazy = md.open_movie(tmp_path / "a.mrcz", chunks=None)
    blob = pickle.dumps(lazy)
    assert len(blob) < 20_000
    np.testing.assert_array_equal(pickle.loads(blob).values, frames)
