from __future__ import annotations

import blosc2
import numcodecs.blosc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrczdask.errors import MrcFormatError
from mrczdask.formats.blosc_frame import (
    ChunkHeader,
    block_table_bytes,
    check_chunk_header,
    cut_blocks,
    parse_chunk_header,
)
from tests.mrc_bytes import blosc1, blosc2_chunks

DTYPES = ["u1", "i2", "f4", "c8"]
CODECS = ["blosclz", "lz4", "lz4hc", "zlib", "zstd"]
SHUFFLES = ["none", "byte", "bit"]
BLOCKS = [512, 4096, 20_000]
ROWS, NX = 48, 60


def frame(dtype: str) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.poisson(4.0, (ROWS, NX)).astype(dtype)


def unpack_cut(chunk: bytes, first: int, last: int) -> bytes | None:
    """The bytes [first, last) of the frame by its blocks alone, or None where it has to be unpacked whole."""
    cut = cut_blocks(chunk[: block_table_bytes(parse_chunk_header(chunk))], first, last)
    if cut is None:
        return None
    read = sum(end - start for start, end in cut.spans)
    assert read < len(chunk)
    buffer = cut.assemble([chunk[start:end] for start, end in cut.spans])
    out = numcodecs.blosc.decompress(buffer)
    assert len(out) == cut.nbytes
    return bytes(out)[cut.start : cut.start + last - first]


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_from_their_blocks_alone(dtype: str, codec: str, shuffle: str, block: int) -> None:
    pixels = frame(dtype)
    raw, line = pixels.tobytes(), NX * pixels.itemsize
    chunk = blosc1(codec, shuffle=shuffle, block=block)(raw, pixels.itemsize)
    cut = 0
    for first, last in ((0, 1), (0, 7), (5, 6), (20, 31), (47, 48), (40, 48), (1, 48)):
        part = unpack_cut(chunk, first * line, last * line)
        if part is not None:
            cut += 1
            assert part == raw[first * line : last * line], (first, last)
    header = parse_chunk_header(chunk)
    if not header.is_memcpy and header.nbytes > 3 * header.blocksize:
        assert cut >= 4


@settings(max_examples=60)
@given(
    codec=st.sampled_from(CODECS),
    shuffle=st.sampled_from(SHUFFLES),
    typesize=st.sampled_from([1, 2, 3, 4, 8, 16, 255]),
    block=st.integers(128, 9000),
    size=st.integers(1, 20_000),
    ends=st.tuples(st.integers(0, 20_000), st.integers(0, 20_000)),
    level=st.integers(1, 9),
)
def test_any_bytes_from_their_blocks_alone(
    codec: str, shuffle: str, typesize: int, block: int, size: int, ends: tuple[int, int], level: int
) -> None:
    rng = np.random.default_rng(size)
    raw = rng.poisson(3.0, size).astype(np.uint8).tobytes()
    first, last = sorted(min(end, size) for end in ends)
    if first == last:
        return
    chunk = blosc1(codec, shuffle=shuffle, block=block, level=level)(raw, typesize)
    part = unpack_cut(chunk, first, last)
    assert part is None or part == raw[first:last]


def test_blocks_in_any_order_in_the_file() -> None:
    raw = np.random.default_rng(2).poisson(2.0, 1 << 20).astype(np.uint8).tobytes()
    chunk = blosc1("zstd", block=1 << 14)(raw, 1)
    starts = np.frombuffer(chunk[16 : block_table_bytes(parse_chunk_header(chunk))], "<i4")
    backwards = shuffled_blocks(chunk, np.random.default_rng(0).permutation(len(starts)))
    assert bytes(numcodecs.blosc.decompress(backwards)) == raw
    for first in range(0, len(raw), 100_000):
        assert unpack_cut(backwards, first, first + 5000) == raw[first : first + 5000]


def shuffled_blocks(chunk: bytes, order: np.ndarray) -> bytes:
    """The same chunk with its blocks in another order in the file, as threads can leave them."""
    end = block_table_bytes(parse_chunk_header(chunk))
    starts = np.frombuffer(chunk[16:end], "<i4")
    ends = np.append(np.sort(starts)[1:], len(chunk))
    end_of = dict(zip(np.sort(starts).tolist(), ends.tolist(), strict=True))
    parts, new, position = [], np.zeros_like(starts), end
    for k in order:
        part = chunk[starts[k] : end_of[int(starts[k])]]
        new[k] = position
        parts.append(part)
        position += len(part)
    return chunk[:16] + new.tobytes() + b"".join(parts)


def test_memcpy_and_version_5_are_unpacked_whole() -> None:
    noise = np.random.default_rng(3).integers(0, 256, 50_000, np.uint8).tobytes()
    stored = blosc1("lz4", block=4096)(noise, 1)
    assert parse_chunk_header(stored).is_memcpy
    assert cut_blocks(stored, 0, 100) is None
    modern = blosc2_chunks("zstd", block=4096)(frame("i2").tobytes() * 10, 2)
    assert parse_chunk_header(modern).version == 5
    assert cut_blocks(modern, 0, 100) is None


@pytest.mark.parametrize(
    "table",
    [
        lambda chunk: chunk[:16] + b"\x00" * 4 + chunk[20:],  # a block inside the header
        lambda chunk: chunk[:16] + chunk[20:24] + chunk[20:],  # two blocks at one place
        lambda chunk: chunk[:16] + b"\xff\xff\xff\x7f" + chunk[20:],  # a block behind the chunk
        lambda chunk: chunk[:16] + b"\xff\xff\xff\xff" + chunk[20:],  # a block before the chunk
        lambda chunk: chunk[:8] + b"\x01\x00\x00\x00" + chunk[12:],  # a table larger than what was read
        lambda chunk: chunk[:8] + b"\x00\x00\x00\x00" + chunk[12:],  # blocks of no bytes
    ],
)
def test_lying_block_tables_are_not_believed(table) -> None:  # type: ignore[no-untyped-def]
    chunk = blosc1("zstd", block=512)(frame("i2").tobytes(), 2)
    head = chunk[: block_table_bytes(parse_chunk_header(chunk))]
    assert cut_blocks(head, 0, 100) is not None
    assert cut_blocks(table(head), 0, 100) is None


@pytest.mark.parametrize("codec", CODECS)
def test_header_names_codec_and_filter(codec: str) -> None:
    raw = np.arange(4000, dtype="u2").tobytes()
    for shuffle, said in (("none", "none"), ("byte", "shuffle"), ("bit", "bitshuffle")):
        header = parse_chunk_header(blosc1(codec, shuffle=shuffle)(raw, 2))
        assert (header.codec, header.filter) == (codec.removesuffix("hc"), said)
        assert (header.version, header.typesize, header.nbytes) == (2, 2, len(raw))
        modern = parse_chunk_header(blosc2_chunks(codec, shuffle=shuffle)(raw, 2))
        assert (modern.version, modern.extended, modern.filter) == (5, True, "extended")
        assert modern.codec == codec.removesuffix("hc")


def test_special_and_stored_chunks_of_version_5() -> None:
    zeros = parse_chunk_header(blosc2_chunks()(bytes(100_000), 1))
    assert (zeros.nbytes, zeros.cbytes) == (100_000, 32)
    noise = np.random.default_rng(0).integers(0, 256, 1000, np.uint8).tobytes()
    stored = parse_chunk_header(blosc2_chunks("lz4")(noise, 1))
    assert stored.is_memcpy
    assert stored.cbytes == 1000 + 32


GOOD = ChunkHeader(version=2, flags=0, typesize=1, nbytes=100, blocksize=100, cbytes=60)


def test_a_good_chunk_passes() -> None:
    check_chunk_header(GOOD, nbytes=100, room=60, frame=0, byte=1024)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 0}, "no Blosc chunk"),
        ({"version": 123}, "no Blosc chunk"),
        ({"nbytes": 99}, "unpacks to 99 bytes, a frame has 100"),
        ({"cbytes": 0}, "header alone has 16"),
        ({"cbytes": 15}, "header alone has 16"),
        ({"cbytes": 61}, "truncated"),
    ],
)
def test_lying_chunks_are_refused(change: dict[str, int], said: str) -> None:
    chunk = ChunkHeader(**{**GOOD.__dict__, **change})
    with pytest.raises(MrcFormatError, match=said) as caught:
        check_chunk_header(chunk, nbytes=100, room=60, frame=3, byte=2048)
    assert (caught.value.frame, caught.value.byte) == (3, 2048)


def test_blosc2_reads_version_2_the_same() -> None:
    raw = frame("i2").tobytes()
    assert blosc2.decompress(blosc1("zstd", block=512)(raw, 2)) == raw
