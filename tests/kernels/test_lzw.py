from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrczdask.kernels.lzw import CORRUPT, lzw_decode, lzw_unpack


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 255, 4000, 100_000])
def test_against_imagecodecs(dtype: str, size: int) -> None:
    raw = np.random.default_rng(size).poisson(1.5, size).astype(dtype).tobytes()
    packed = imagecodecs.lzw_encode(raw)
    assert lzw_unpack(packed, len(raw)).tobytes() == raw


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=3000) | st.binary(min_size=1, max_size=3).map(lambda part: part * 5000))
def test_any_bytes_come_back(raw: bytes) -> None:
    assert lzw_unpack(imagecodecs.lzw_encode(raw), len(raw)).tobytes() == raw


def test_the_code_that_is_just_being_made() -> None:
    # TIFF 6.0, section 13: a a a a a a is 97, 258 (aa), 259 (aaa), written while 259 is still being made
    codes = [256, 97, 258, 259, 257]
    bits = "".join(format(code, "09b") for code in codes)
    packed = int(bits.ljust(48, "0"), 2).to_bytes(6, "big")
    assert lzw_unpack(packed, 6).tobytes() == b"aaaaaa"


def test_only_the_bytes_wanted_are_written() -> None:
    raw = bytes(range(256)) * 20
    packed = imagecodecs.lzw_encode(raw)
    assert lzw_unpack(packed, 100).tobytes() == raw[:100]
    with pytest.raises(ValueError, match="ends after 5120 of 5121"):
        lzw_unpack(packed, len(raw) + 1)
    with pytest.raises(ValueError, match="ends after"):
        lzw_unpack(packed[: len(packed) // 2], len(raw))


@pytest.mark.parametrize("codes", [[256, 258], [256, 97, 300], [256, 97, 98, 256, 260], [400]])
def test_codes_without_a_meaning(codes: list[int]) -> None:
    bits = "".join(format(code, "09b") for code in codes).ljust(72, "0")
    packed = int(bits, 2).to_bytes(9, "big")
    with pytest.raises(ValueError, match="no meaning"):
        lzw_unpack(packed, 100)


def test_nothing_outside_of_the_output_is_touched() -> None:
    """The same streams as they are found in damaged files, on which one imagecodecs ends the process."""
    rng = np.random.default_rng(1)
    whole = np.frombuffer(imagecodecs.lzw_encode(rng.poisson(1, 3000).astype("u1").tobytes()), np.uint8)
    guarded = np.zeros(300, np.uint8)
    corrupt = 0
    for _ in range(20_000):
        packed = whole.copy()
        packed[rng.integers(0, len(packed), 4)] = rng.integers(0, 256, 4)
        size = int(rng.integers(0, 100))
        guarded[:100], guarded[100 + size :] = 7, 7
        count = lzw_decode(packed, guarded[100 : 100 + size])
        corrupt += count == CORRUPT
        assert count == CORRUPT or 0 <= count <= size
        assert (guarded[:100] == 7).all()
        assert (guarded[100 + size :] == 7).all()
    assert corrupt > 100


def test_empty() -> None:
    nothing = np.empty(0, np.uint8)
    assert lzw_decode(nothing, nothing) == 0
    assert lzw_decode(nothing, np.empty(5, np.uint8)) == 0
