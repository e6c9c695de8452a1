"""Every truncation, mutated streams, and the decoders under numba's bounds checks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mrczdask.codecs import B3D, PixelHistogram
from mrczdask.errors import CodecError
from tests.codecs.mutations import decode, mutations, sealed, valid_streams

MOST_BYTES = 1 << 20
MOST_KERNELS = {"PixelHistogram": ("1", "15"), "B3D": ("6", "9")}
"""Streams of one dtype, uint16: compiling the kernels again takes most of the time. `make fuzz` has all streams."""
STREAMS = valid_streams()
NAMES = [f"{type(codec).__name__}-{number}" for number, (codec, _) in enumerate(STREAMS)]


@pytest.mark.parametrize(("codec", "stream"), STREAMS, ids=NAMES)
def test_every_truncation_is_refused(codec: PixelHistogram | B3D, stream: bytes) -> None:
    for size in range(len(stream)):
        with pytest.raises(CodecError):
            codec.decode_array(stream[:size])
        with pytest.raises(CodecError):
            codec.decode_array(sealed(bytearray(stream[:size])))


@pytest.mark.parametrize(("codec", "stream"), STREAMS, ids=NAMES)
def test_any_changed_bit_is_seen(codec: PixelHistogram | B3D, stream: bytes) -> None:
    for bit in np.random.default_rng(0).integers(0, 8 * len(stream), 200):
        changed = bytearray(stream)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CodecError):
            codec.decode_array(bytes(changed))


@pytest.mark.parametrize(("codec", "stream"), STREAMS, ids=NAMES)
def test_mutations_with_a_right_checksum_are_refused_or_decode(codec: PixelHistogram | B3D, stream: bytes) -> None:
    outcomes = {decode(codec, mutant, MOST_BYTES) for mutant in mutations(stream, 300, np.random.default_rng(0))}
    assert "refused" in outcomes


def test_a_huge_shape_takes_no_memory() -> None:
    stream = bytearray(PixelHistogram().encode_array(np.zeros((4, 4), np.uint8)))
    stream[13:15] = bytes([0xFF, 0xFF, 0xFF, 0xFF, 0x7F]) * 2  # 2**35 - 1 squared pixels
    with pytest.raises(CodecError, match="more than 2147483647 bytes"):
        PixelHistogram().decode_array(sealed(stream))


@pytest.mark.slow
@pytest.mark.parametrize("codec", MOST_KERNELS)
def test_no_access_outside_arrays(codec: str, tmp_path: Path) -> None:
    """The fuzzer and the encoders in a process whose kernels check every index."""
    script = Path(__file__).parents[1] / "fuzz" / "fuzz_codecs.py"
    checked = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_OPT": "0", "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, str(script), "--count", "300", "--only", *MOST_KERNELS[codec]]
    done = subprocess.run(command, env=checked, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
