from __future__ import annotations

import numcodecs.blosc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mrczdask.errors import MrcFormatError
from mrczdask.formats.blosc_frame import parse_chunk_header
from mrczdask.io.encode import WORTH, Encoding, Sums, choose_blosc, encode_block, encode_frame, frame_sums, pack_nibbles
from tests.mrc_bytes import counts, frame_bytes

DTYPES = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "f2", "f4"]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", DTYPES)
def test_statistics_of_every_dtype(dtype: str, order: str) -> None:
    pixels = counts((3, 8, 10), dtype if dtype != "?" else "u1").astype(np.dtype(dtype).newbyteorder(order))
    stats = frame_sums(pixels).statistics()
    truth = pixels.astype("f8")
    assert stats is not None
    expected = (truth.min(), truth.max(), truth.mean(), truth.std())
    assert (stats.minimum, stats.maximum, stats.mean, stats.rms) == pytest.approx(expected, rel=1e-12)


def test_statistics_leave_out_what_is_not_finite() -> None:
    stats = frame_sums(np.array([[1.0, np.nan], [3.0, np.inf]], "f4")).statistics()
    assert stats is not None
    assert (stats.minimum, stats.maximum, stats.mean, stats.rms) == (1.0, 3.0, 2.0, 1.0)
    assert frame_sums(np.full((2, 2), np.nan, "f4")).statistics() is None
    assert frame_sums(np.ones((2, 2), "c8")).statistics() is None


@given(st.lists(hnp.arrays("i2", st.tuples(st.just(1), st.integers(1, 5), st.integers(1, 5))), min_size=1, max_size=5))
def test_sums_add_up_in_any_split(blocks: list[np.ndarray]) -> None:
    total = Sums()
    for block in blocks:
        total.add(frame_sums(block))
    whole = frame_sums(np.concatenate([block.ravel() for block in blocks]))
    assert (total.low, total.high, total.total, total.n) == (whole.low, whole.high, whole.total, whole.n)
    assert total.squares == pytest.approx(whole.squares)


@given(hnp.arrays("u1", st.tuples(st.integers(1, 6), st.integers(1, 9)), elements=st.integers(0, 15)))
def test_nibbles(frame: np.ndarray) -> None:
    assert pack_nibbles(frame) == frame_bytes(frame, 101)


def test_nibbles_refuse_16() -> None:
    with pytest.raises(MrcFormatError, match="one is 16"):
        pack_nibbles(np.array([[3, 16]], "u1"))


@pytest.mark.parametrize("codec", ["blosclz", "lz4", "lz4hc", "zlib", "zstd"])
@pytest.mark.parametrize("shuffle", ["none", "byte", "bit"])
def test_a_frame_is_one_plain_blosc_buffer(codec: str, shuffle: str) -> None:
    frame = counts((64, 64), "i2")
    chunk = encode_frame(frame, Encoding(1, np.dtype("<i2"), codec, 3, shuffle, 4096))
    header = parse_chunk_header(chunk)
    assert (header.version, header.typesize, header.cbytes) == (2, 2, len(chunk))
    assert header.blocksize in (4096, 8192)  # Blosc multiplies it by the item size where it splits blocks
    np.testing.assert_array_equal(np.frombuffer(numcodecs.blosc.decompress(chunk), "<i2").reshape(64, 64), frame)


def test_blocks_in_pieces_are_put_together() -> None:
    block = counts((2, 6, 8), "i2")
    pieces = [[block[:, :4, :3], block[:, :4, 3:]], [block[:, 4:, :3], block[:, 4:, 3:]]]
    plan = Encoding(1, np.dtype("<i2"))
    assert encode_block(pieces, plan).frames == encode_block(block, plan).frames == [f.tobytes() for f in block]


@pytest.mark.parametrize("mean", [0.1, 4.0])
def test_filter_and_block_size_are_measured(mean: float) -> None:
    frames = [np.random.default_rng(k).poisson(mean, (512, 600)).astype("u1") for k in range(2)]
    plan = Encoding(0, np.dtype("i1"), "zstd", 1)
    chosen = choose_blosc(frames, plan, None, None)
    size = {
        (shuffle, block): sum(
            len(encode_frame(f, Encoding(0, np.dtype("i1"), "zstd", 1, shuffle, block))) for f in frames
        )
        for shuffle in ("none", "bit")
        for block in (64 << 10, 256 << 10)
    }
    assert size[chosen.shuffle, chosen.blocksize] <= WORTH * min(size.values())
    assert choose_blosc(frames, plan, "byte", 1234).shuffle == "byte"
    assert choose_blosc(frames, plan, "byte", 1234).blocksize == 1234


def test_tiny_frames_have_one_block() -> None:
    assert choose_blosc([counts((3, 5), "i2")], Encoding(1, np.dtype("<i2"), "lz4"), None, None).blocksize == 30
