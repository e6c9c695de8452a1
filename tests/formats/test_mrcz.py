from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrczdask.errors import MrcFormatError
from mrczdask.formats.mrc import MrcHeader, parse_header
from mrczdask.formats.mrcz import FrameTable, check_table, raw_table, walk_chunks
from tests.mrc_bytes import blosc1, blosc2_chunks, counts, mrc_bytes


class FakeStore:
    """Bytes that count how they are asked for."""

    def __init__(self, raw: bytes):
        self.raw, self.rounds, self.requests, self.bytes = raw, 0, 0, 0

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        self.rounds += 1
        self.requests += len(ranges)
        parts = [self.raw[offset : offset + size] for offset, size in ranges]
        self.bytes += sum(map(len, parts))
        return parts


def movie_file(n: int = 9, *, chunk=None, dtype: str = "i2", shape: tuple[int, int] = (16, 20)) -> bytes:  # type: ignore[no-untyped-def]
    frames = counts((n, *shape), dtype)
    mode = {"i1": 0, "i2": 1, "f4": 2}[dtype]
    return mrc_bytes(frames, mode, chunk=chunk or blosc1("zstd"), compressor=6, extended=b"x" * 48)


def chunk_starts(raw: bytes, n: int) -> list[int]:
    """Offsets by a walk written here, for comparison."""
    starts, position = [], 1024 + 48
    for _ in range(n):
        starts.append(position)
        position += int.from_bytes(raw[position + 12 : position + 16], "little")
    return starts


@pytest.mark.parametrize("chunk", [blosc1("zstd"), blosc1("lz4", level=0), blosc2_chunks("lz4")])
@pytest.mark.parametrize("speculate", [False, True])
def test_walk_finds_every_chunk(chunk, speculate: bool) -> None:  # type: ignore[no-untyped-def]
    raw = movie_file(chunk=chunk)
    table = walk_chunks(parse_header(raw), len(raw), FakeStore(raw).read_ranges, speculate=speculate)
    starts = chunk_starts(raw, 9)
    assert table.offsets.tolist() == starts
    assert table.end == len(raw)
    assert (table.offsets + table.lengths).tolist() == [*starts[1:], len(raw)]


@pytest.mark.parametrize("speculate", [False, True])
def test_walk_continues_where_it_stopped(speculate: bool) -> None:
    raw = movie_file()
    header = parse_header(raw)
    whole = walk_chunks(header, len(raw), FakeStore(raw).read_ranges)
    known = FrameTable(whole.offsets[:5], whole.lengths[:5])
    store = FakeStore(raw)
    table = walk_chunks(header, len(raw), store.read_ranges, speculate=speculate, start=known)
    assert table.offsets.tolist() == whole.offsets.tolist()
    assert store.requests <= 4


def synthetic(n: int, mean: float, spread: float, seed: int = 0) -> tuple[MrcHeader, bytes]:
    """A file of chunk headers alone, whose lengths vary as those of a movie do; the chunks hold zeros."""
    rng = np.random.default_rng(seed)
    sizes = np.maximum(rng.normal(mean, spread * mean, n), 16).astype(int)
    header = MrcHeader(shape=(n, 3838, 3710), mode=0, compressor=6)
    raw = bytearray(1024 + int(sizes.sum()))
    position = 1024
    for size in sizes.tolist():
        head = bytes([2, 1, 0x91, 1]) + header.frame_bytes.to_bytes(4, "little") + (1 << 16).to_bytes(4, "little")
        raw[position : position + 16] = head + size.to_bytes(4, "little")
        position += size
    return header, bytes(raw)


@pytest.mark.parametrize(("n", "rounds"), [(40, 5), (400, 8)])
def test_speculation_takes_a_handful_of_rounds(n: int, rounds: int) -> None:
    header, raw = synthetic(n, 60_000, 0.003)
    plain = FakeStore(raw)
    truth = walk_chunks(header, len(raw), plain.read_ranges)
    assert plain.rounds == n
    store = FakeStore(raw)
    table = walk_chunks(header, len(raw), store.read_ranges, speculate=True)
    assert table.offsets.tolist() == truth.offsets.tolist()
    assert store.rounds <= rounds
    assert store.bytes < 0.6 * len(raw)


@settings(max_examples=25, deadline=None)
@given(spread=st.floats(0, 1.5), seed=st.integers(0, 100), n=st.integers(1, 60))
def test_speculation_is_right_whatever_the_sizes(spread: float, seed: int, n: int) -> None:
    header, raw = synthetic(n, 3000, spread, seed)
    truth = walk_chunks(header, len(raw), FakeStore(raw).read_ranges)
    store = FakeStore(raw)
    table = walk_chunks(header, len(raw), store.read_ranges, speculate=True)
    assert table.offsets.tolist() == truth.offsets.tolist()
    assert store.rounds <= n


@pytest.mark.parametrize("speculate", [False, True])
@pytest.mark.parametrize("cut", [1, 10, 17, 500])
def test_truncated_file_says_where_and_keeps_the_whole_frames(speculate: bool, cut: int) -> None:
    raw = movie_file()
    header, whole = parse_header(raw), walk_chunks(parse_header(raw), len(raw), FakeStore(raw).read_ranges)
    short = raw[:-cut]
    n = int((whole.offsets + whole.lengths <= len(short)).sum())
    with pytest.raises(MrcFormatError, match=f"gives the first {n} frames") as caught:
        walk_chunks(header, len(short), FakeStore(short).read_ranges, speculate=speculate)
    assert caught.value.frame == n
    assert caught.value.byte == int(whole.offsets[n])
    read = FakeStore(short).read_ranges
    table = walk_chunks(header, len(short), read, speculate=speculate, readable=True)
    assert table.offsets.tolist() == whole.offsets[:n].tolist()


@pytest.mark.parametrize("speculate", [False, True])
@pytest.mark.parametrize(
    ("place", "value", "said"),
    [(12, 0, "header alone has 16"), (4, 7, "unpacks to 7 bytes"), (12, 2**31, "truncated"), (0, 99, "no Blosc chunk")],
)
def test_lying_chunk_is_named(speculate: bool, place: int, value: int, said: str) -> None:
    raw = bytearray(movie_file())
    start = chunk_starts(bytes(raw), 9)[4]
    size = 1 if place == 0 else 4
    raw[start + place : start + place + size] = value.to_bytes(size, "little")
    with pytest.raises(MrcFormatError, match=said) as caught:
        walk_chunks(parse_header(raw), len(raw), FakeStore(bytes(raw)).read_ranges, speculate=speculate)
    assert (caught.value.frame, caught.value.byte) == (4, start)


@pytest.mark.parametrize(
    ("header", "size", "said"),
    [
        (MrcHeader(shape=(2**31 - 1, 8, 8), mode=0, compressor=6), 1024, "the file ends behind 0"),
        (MrcHeader(shape=(2, 65536, 65536), mode=0, compressor=6), 2048, "over the limit"),
        (MrcHeader(shape=(2, 8, 8), mode=0, compressor=6, nsymbt=5000), 2048, "NSYMBT"),
        (MrcHeader(shape=(2, 8, 8), mode=0, compressor=14), 2048, "'j2k'"),
        (MrcHeader(shape=(2, 8, 8), mode=0, compressor=11), 2048, "'openhtj2k'"),
    ],
)
def test_impossible_compressed_headers(header: MrcHeader, size: int, said: str) -> None:
    with pytest.raises(MrcFormatError, match=said):
        walk_chunks(header, size, FakeStore(bytes(size)).read_ranges)


def test_raw_table_of_whole_and_of_truncated_files() -> None:
    header = MrcHeader(shape=(5, 8, 10), mode=1, stored=np.dtype("<i2"), nsymbt=16)
    table = raw_table(header, 1040 + 5 * 160)
    assert table.offsets.tolist() == [1040, 1200, 1360, 1520, 1680]
    assert table.lengths.tolist() == [160] * 5
    for size, n in ((1040 + 799, 4), (1040, 0), (100, 0)):
        with pytest.raises(MrcFormatError, match=f"gives the first {n} frames") as caught:
            raw_table(header, size)
        assert (caught.value.frame, caught.value.byte) == (n, 1040 + 160 * n)
        assert len(raw_table(header, size, readable=True)) == n


def test_raw_table_asks_for_no_memory_a_lying_header_names() -> None:
    header = MrcHeader(shape=(2**31 - 1, 2**31 - 1, 2**31 - 1), mode=4, stored=np.dtype("<c8"))
    with pytest.raises(MrcFormatError, match="truncated"):
        raw_table(header, 4096)


HEADER = MrcHeader(shape=(2, 8, 8), mode=0, compressor=6)


@pytest.mark.parametrize(
    ("offsets", "lengths", "said"),
    [
        ([1024, 1124], [100, 50], None),
        ([1024], [100], "lists 1 frames"),
        ([1024, 1124], [100, 5000], "behind the end"),
        ([1024, 2**63], [100, 5], "behind the end"),
        ([1000, 1124], [124, 50], "first frame is at byte 1000"),
        ([1024, 1125], [100, 50], "do not follow"),
        ([1024, 1924], [900, 101], "ends at byte 2025"),
    ],
)
def test_tables_that_cannot_belong_to_the_file(offsets: list[int], lengths: list[int], said: str | None) -> None:
    table = FrameTable(np.array(offsets, np.uint64), np.array(lengths, np.uint64))
    fault = check_table(table, HEADER, 2024)
    assert fault is None if said is None else said in str(fault)
