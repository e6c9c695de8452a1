"""One file, two formats: an MRCZ with its footer is a Zarr v3 shard."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import mrczdask as md
from tests.mrc_bytes import counts

ZARR_TYPES = {"i1": "int8", "u1": "int8", "i2": "int16", "u2": "uint16", "f4": "float32", "c8": "complex64"}


def describe(folder: Path, shape: tuple[int, ...], dtype: str) -> None:
    """The `zarr.json` by which Zarr reads `c/0/0/0`, another name of `movie.mrcz`, as the one shard of an array."""
    (folder / "c/0/0").mkdir(parents=True)
    os.link(folder / "movie.mrcz", folder / "c/0/0/0")
    inner = {"name": "blosc", "configuration": {"cname": "zstd", "clevel": 1, "shuffle": "bitshuffle", "blocksize": 0}}
    inner["configuration"]["typesize"] = np.dtype(dtype).itemsize  # type: ignore[index]
    as_bytes = {"name": "bytes", "configuration": {"endian": "little"}}
    sharding = {
        "chunk_shape": [1, *shape[1:]],
        "codecs": [as_bytes, inner],
        "index_codecs": [as_bytes, {"name": "crc32c"}],
        "index_location": "end",
    }
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": ZARR_TYPES[dtype],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shape)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": [0, 0] if dtype == "c8" else 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
    }
    (folder / "zarr.json").write_text(json.dumps(document))


@pytest.mark.parametrize("codec", ["zstd", "zlib", "lz4", "lz4hc", "blosclz"])
@pytest.mark.parametrize("dtype", list(ZARR_TYPES))
def test_zarr_reads_the_same_file(tmp_path: Path, dtype: str, codec: Any) -> None:
    frames = counts((6, 32, 20), dtype)
    path = tmp_path / "movie.mrcz"
    md.write_mrcz(frames, path, codec=codec)
    describe(tmp_path, frames.shape, dtype)
    array = zarr.open_array(tmp_path, mode="r")
    np.testing.assert_array_equal(array[:], frames)
    np.testing.assert_array_equal(array[4], frames[4])
    np.testing.assert_array_equal(md.open_movie(path).values, frames)


def test_frames_of_other_filters_and_an_append_stay_readable(tmp_path: Path) -> None:
    parts = [counts((3, 64, 40), "i2", seed=k) for k in range(3)]
    path = tmp_path / "movie.mrcz"
    md.write_mrcz(parts[0], path, codec="zstd", shuffle="none")
    md.write_mrcz(parts[1], path, codec="lz4", shuffle="byte", blocksize=512, append=True)
    md.write_mrcz(parts[2], path, codec="zlib", level=0, append=True)
    frames = np.concatenate(parts)
    describe(tmp_path, frames.shape, "i2")
    np.testing.assert_array_equal(zarr.open_array(tmp_path, mode="r")[:], frames)
    np.testing.assert_array_equal(md.open_movie(path).values, frames)


def test_one_frame_is_read_by_its_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.random.default_rng(0).integers(0, 999, (20, 64, 40)).astype("i2")
    path = tmp_path / "movie.mrcz"
    md.write_mrcz(frames, path)
    describe(tmp_path, frames.shape, "i2")
    index = md.frame_index(path)
    asked: list[Any] = []
    real = zarr.storage.LocalStore.get

    async def get(self: Any, key: str, prototype: Any, byte_range: Any = None) -> Any:
        asked.append((key, byte_range))
        return await real(self, key, prototype, byte_range)

    array = zarr.open_array(tmp_path, mode="r")
    monkeypatch.setattr(zarr.storage.LocalStore, "get", get)
    np.testing.assert_array_equal(array[7], frames[7])
    suffix, ranged = asked
    assert suffix[1].suffix == 16 * 20 + 4
    assert (ranged[1].start, ranged[1].end) == (int(index.offset[7]), int(index.offset[7] + index.length[7]))


def test_without_a_footer_it_is_no_shard(tmp_path: Path) -> None:
    frames = counts((3, 8, 10), "i2")
    path = tmp_path / "movie.mrcz"
    md.write_mrcz(frames, path, index=False)
    describe(tmp_path, frames.shape, "i2")
    with pytest.raises(ValueError, match="checksum"):
        zarr.open_array(tmp_path, mode="r")[:]
