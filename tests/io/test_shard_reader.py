"""Shards decoded here give what Zarr's own reader gives, by no more requests; damage is told by file and chunk."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec

import mrczdask as md
from mrczdask.codecs import B3D, PixelHistogram
from mrczdask.errors import MrcFormatError
from mrczdask.io.shard_reader import ShardArray, stored_array

ZSTD = BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")
PACKED: dict[str, dict[str, Any]] = {
    "zstd": {"compressors": (ZSTD, Crc32cCodec())},
    "zstd, unchecked": {"compressors": ZSTD},
    "none": {"compressors": (Crc32cCodec(),)},
    "none, unchecked": {"compressors": None},
    "pixel_histogram": {"serializer": PixelHistogram(), "compressors": None},
    "b3d": {"serializer": B3D(), "compressors": None},
}


class Counting(zarr.storage.MemoryStore):
    """Keeps the keys of the chunks that are asked for."""

    asked: list[str]

    async def get(self, key: str, *given: Any, **options: Any) -> Any:
        if "/c/" in key:
            Counting.asked.append(key)
        return await super().get(key, *given, **options)


def stored(store: Any, pixels: np.ndarray, **options: Any) -> zarr.Array[Any]:
    """An array `images`, as any program may write it."""
    zarr.open_group(store, mode="w")
    dims = [f"dim_{k}" for k in range(pixels.ndim)]
    array = zarr.create_array(
        store, name="images", shape=pixels.shape, dtype=pixels.dtype, dimension_names=dims, **options
    )
    array[...] = pixels
    return array


def opened(store: Any) -> xr.DataArray:
    ds = md.open_archive(store, "")
    assert isinstance(ds, xr.Dataset)
    return ds["images"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_same_as_zarr_reads(tmp_path: Path, data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
    inner = tuple(data.draw(st.integers(-(-n // 3), 4)) for n in shape)
    shards = tuple(data.draw(st.integers(1, 3)) * n for n in inner) if data.draw(st.booleans()) else None
    packed = data.draw(st.sampled_from(sorted(PACKED)))
    dtype = data.draw(st.sampled_from(["u1", "i2", "u4"] + ["?", "f4", "c8", "i8"] * (packed[0] in "zn")))
    pixels = np.random.default_rng(sum(shape)).integers(0, 3, shape).astype(dtype)
    store = data.draw(st.sampled_from([str(tmp_path / "a.zarr"), zarr.storage.MemoryStore()]))
    fill = data.draw(st.sampled_from([0, 1]))
    array = stored(store, pixels, chunks=inner, shards=shards, fill_value=fill, **PACKED[packed])
    key = tuple(
        data.draw(st.slices(n).filter(lambda s: s.step is None or s.step > 0) | st.integers(-n, n - 1)) for n in shape
    )
    images = opened(store)
    assert isinstance(stored_array(images.data), ShardArray)
    wanted = array[...]
    np.testing.assert_array_equal(wanted, pixels)
    np.testing.assert_array_equal(images.values, wanted)
    np.testing.assert_array_equal(images[key].values, wanted[key])
    assert images[key].values.dtype == pixels.dtype
    np.testing.assert_array_equal(images.em.load().values, wanted)


def test_what_was_not_written_is_the_fill_value(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 6), "i2")
    pixels[0, 1] = pixels[3] = 9
    for store in (str(tmp_path / "a.zarr"), zarr.storage.MemoryStore()):
        array = stored(store, pixels, chunks=(1, 2, 3), shards=(2, 4, 6), fill_value=7, compressors=ZSTD)
        array[1] = 7
        array[2:] = 7  # a shard, and chunks in another, of nothing but the fill value are not stored
        np.testing.assert_array_equal(opened(store), array[...])
        np.testing.assert_array_equal(opened(store)[1:3], array[1:3])
        assert opened(store)[2:].values.tolist() == np.full((2, 4, 6), 7).tolist()


def test_the_requests_to_a_store() -> None:
    pixels = np.arange(2 * 8 * 6 * 5, dtype="i4").reshape(16, 6, 5)
    store = Counting()
    Counting.asked = []
    stored(store, pixels, chunks=(1, 6, 5), shards=(8, 6, 5), **PACKED["zstd"])
    images = opened(store)
    for part, requests in ((slice(5, 6), 2), (slice(0, 8), 1), (slice(0, 16), 2), (slice(7, 9), 4)):
        Counting.asked = []
        np.testing.assert_array_equal(images[part], pixels[part])
        assert len(Counting.asked) == requests, part


def test_codecs_of_others_and_lists_of_places_are_left_to_zarr(tmp_path: Path) -> None:
    pixels = np.arange(6 * 4 * 5, dtype="u2").reshape(6, 4, 5)
    for name, options in {
        "gzip": {"compressors": GzipCodec(level=1)},
        "big": {"serializer": zarr.codecs.BytesCodec(endian="big"), "compressors": None},
        "turned": {"filters": zarr.codecs.TransposeCodec(order=(2, 0, 1)), "compressors": None},
    }.items():
        stored(str(tmp_path / name), pixels, chunks=(1, 4, 5), shards=(3, 4, 5), **options)
        images = opened(str(tmp_path / name))
        assert stored_array(images.data) is None, name
        np.testing.assert_array_equal(images, pixels)
    stored(str(tmp_path / "scaled"), pixels, chunks=(1, 4, 5), shards=(3, 4, 5)).attrs["scale_factor"] = 0.5
    np.testing.assert_array_equal(opened(str(tmp_path / "scaled")), pixels * 0.5)
    stored(str(tmp_path / "a"), pixels, chunks=(1, 4, 5), shards=(3, 4, 5), **PACKED["zstd"])
    images = opened(str(tmp_path / "a"))
    np.testing.assert_array_equal(images[[4, 0, 5]], pixels[[4, 0, 5]])
    np.testing.assert_array_equal(images[::-2, 1], pixels[::-2, 1])
    places = xr.DataArray([3, 1], dims="point")
    np.testing.assert_array_equal(images.isel(dim_1=places, dim_2=places), pixels[:, [3, 1], [3, 1]])
    again = pickle.loads(pickle.dumps(images))
    np.testing.assert_array_equal(again, pixels)


@pytest.mark.parametrize("packed", sorted(set(PACKED) - {"none, unchecked"}))
def test_damage_is_told_by_file_and_chunk(tmp_path: Path, packed: str) -> None:
    pixels = np.random.default_rng(0).poisson(2, (4, 40, 50)).astype("u2")
    stored(str(tmp_path / "a.zarr"), pixels, chunks=(1, 40, 50), shards=(2, 40, 50), **PACKED[packed])
    file = tmp_path / "a.zarr/images/c/1/0/0"
    whole = file.read_bytes()
    table = np.frombuffer(whole[-36:-4], "<u8").reshape(2, 2)
    raw = bytearray(whole)
    raw[int(table[1, 0]) + 12] ^= 0x55  # cbytes in a Blosc header, the checksum in those of our codecs
    file.write_bytes(raw)
    np.testing.assert_array_equal(opened(tmp_path / "a.zarr")[:3], pixels[:3])
    with pytest.raises(MrcFormatError, match=r"a\.zarr: images/c/1/0/0: chunk \(1, 0, 0\): .*corrupt") as caught:
        opened(tmp_path / "a.zarr").compute()
    assert "\n" not in str(caught.value)
    file.write_bytes(whole[:-7])
    with pytest.raises(MrcFormatError, match=r"c/1/0/0: the checksum of the index is wrong: .*truncated"):
        opened(tmp_path / "a.zarr")[3].compute()


def test_an_index_that_lies_takes_no_memory(tmp_path: Path) -> None:
    pixels = np.ones((2, 8, 8), "u2")
    stored(str(tmp_path / "a.zarr"), pixels, chunks=(1, 8, 8), shards=(2, 8, 8), compressors=None)
    file = tmp_path / "a.zarr/images/c/0/0/0"
    from mrczdask.formats.frame_index import pack_footer
    from mrczdask.formats.mrcz import FrameTable

    for lengths, said in (([1 << 60, 128], "more than 2 GiB"), ([1 << 20, 128], "truncated"), ([64, 64], "64 bytes")):
        table = FrameTable(np.array([0, 128], np.uint64), np.array(lengths, np.uint64))
        file.write_bytes(bytes(256) + pack_footer(table))
        with pytest.raises(MrcFormatError, match=said):
            opened(tmp_path / "a.zarr").compute()
