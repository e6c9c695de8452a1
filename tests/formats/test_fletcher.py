"""Fletcher's checksum: as HDF5 writes it, by its definition, and not blind to a flipped byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mrczdask.formats.fletcher import fletcher32, same_sums

h5py = pytest.importorskip("h5py")


@pytest.mark.parametrize("size", [1, 2, 7, 1000, 3_000_001])
def test_it_is_the_checksum_of_hdf5(tmp_path: Path, size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size).astype(np.uint8)
    data[: size // 3] = 255
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset("a", data=data, chunks=(size,), fletcher32=True)
        _, raw = made.id.read_direct_chunk((0,))
    content = np.frombuffer(raw[:-4], np.uint8)
    assert content.tobytes() == data.tobytes()
    assert same_sums(fletcher32(content), int.from_bytes(raw[-4:], "little"))


def test_a_flipped_byte_is_seen() -> None:
    data = np.random.default_rng(0).integers(0, 256, 999).astype(np.uint8)
    sums = fletcher32(data)
    for at in range(data.size):
        data[at] ^= 5
        assert not same_sums(fletcher32(data), sums)
        data[at] ^= 5
    assert fletcher32(np.empty(0, np.uint8)) == 0
    assert same_sums(0xFFFF0000, 0)
