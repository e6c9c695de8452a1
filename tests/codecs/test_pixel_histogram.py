"""PixelHistogram: round trips through every door, sizes against the entropy, and what is refused."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import mrczdask as md
from mrczdask.errors import CodecError
from tests.codecs.mutations import moving

DTYPES = ["uint8", "uint16", "int8", "int16", "uint32", "int32"]
codec = md.codecs.PixelHistogram()


def round_trip(array: np.ndarray, which: Any = codec) -> bytes:
    stream = which.encode_array(array)
    back = which.decode_array(stream)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    np.testing.assert_array_equal(back, array)
    assert len(stream) <= array.nbytes + 64
    return stream


def patterns(mean: float, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Counts whose means fall off from the centre of the last two axes."""
    y, x = np.mgrid[: shape[-2], : shape[-1]]
    r2 = (y / shape[-2] - 0.5) ** 2 + (x / shape[-1] - 0.5) ** 2
    return np.random.default_rng(seed).poisson(mean * np.exp(-20 * r2), shape)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mean", [0.05, 1.0, 30.0])
def test_stacks_of_every_type(dtype: str, mean: float) -> None:
    counts = patterns(mean, (40, 32, 32))
    array = (counts - 5).astype(dtype) if dtype.startswith("int") else counts.astype(dtype)
    assert len(round_trip(array)) < array.nbytes / 1.5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 5), (1, 1, 1), (7,), (9, 13), (5, 7, 9), (6, 3, 8, 8), (99,)])
def test_odd_shapes(dtype: str, shape: tuple[int, ...]) -> None:
    info = np.iinfo(dtype)
    rng = np.random.default_rng(0)
    for array in (
        rng.integers(info.min, info.max, shape, dtype, endpoint=True),
        rng.poisson(0.3, shape).astype(dtype),
        np.full(shape, info.max, dtype),
    ):
        round_trip(np.asarray(array))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_array(data: st.DataObject) -> None:
    dtype = np.dtype(data.draw(st.sampled_from(DTYPES)))
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=12))
    info = np.iinfo(dtype)
    low = data.draw(st.integers(info.min, info.max))
    high = data.draw(st.integers(low, info.max))
    round_trip(data.draw(hnp.arrays(dtype, shape, elements=st.integers(low, high))))


@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint32"])
def test_outliers_pedestals_masks_and_drift(dtype: str) -> None:
    """What does not fit a class: rare huge values, a far base, saturated pixels, rows unlike the sampled ones."""
    info = np.iinfo(dtype)
    rng = np.random.default_rng(0)
    array = (rng.poisson(2, (100, 48, 48)) + 900).astype(dtype)
    array[:, :4] = info.max
    array[rng.random(array.shape) < 1e-3] = info.min
    array[:, 30:34, 30:34] = rng.integers(0, 30_000, (100, 4, 4))
    assert len(round_trip(array)) < array.nbytes / 2
    drift = array.copy()
    drift[1::2] += np.array(50, dtype)
    round_trip(drift)


def test_sampling_does_not_lose_what_was_not_sampled() -> None:
    rng = np.random.default_rng(0)
    array = rng.poisson(0.1, (4096, 40, 40)).astype(np.uint16)  # 6.5 Mpixel: about one in six is counted
    array[1000] = rng.integers(0, 2**16, (40, 40))
    array[:, 3, 3] = np.arange(4096) * 16
    round_trip(array)


def test_noise_is_stored_with_at_most_64_bytes_more() -> None:
    for dtype in DTYPES:
        info = np.iinfo(dtype)
        noise = np.random.default_rng(0).integers(info.min, info.max, (16, 32, 32), dtype, endpoint=True)
        assert noise.nbytes < len(round_trip(noise)) <= noise.nbytes + 64


def test_equal_pixels_take_a_few_bytes() -> None:
    assert len(round_trip(np.full((1000, 64, 64), -7, np.int16))) < 32


@pytest.mark.parametrize("mean", [0.25, 1.0, 4.0])
def test_poisson_frames_reach_the_entropy(mean: float) -> None:
    entropy = {0.25: 0.8909, 1.0: 1.8825, 4.0: 3.0104}[mean]  # of the Poisson law, bits
    frames = np.random.default_rng(0).poisson(mean, (8, 512, 512)).astype(np.uint8)
    assert len(round_trip(frames)) * 8 / frames.size < 1.015 * entropy


@pytest.mark.parametrize(("electrons", "excess"), [(1e3, 0.06), (1e4, 0.06), (1e5, 0.12)])
def test_4dstem_reaches_the_entropy_of_the_true_means(electrons: float, excess: float) -> None:
    scan = md.simulate.stem((16, 32), electrons_per_pattern=electrons)
    counts, means = scan.counts.values, scan.means.values
    size = len(round_trip(counts)) * 8 / counts.size
    assert size < (1 + excess) * md.simulate.poisson_entropy(means).mean()
    peer = numcodecs.Blosc("zstd", 5, numcodecs.Blosc.BITSHUFFLE).encode(counts)
    assert len(peer) * 8 / counts.size > 1.3 * size


def test_scan_frame_and_flat_chunks_are_the_same_stack() -> None:
    scan = patterns(0.5, (8, 8, 32, 32)).astype(np.uint16)
    sizes = {len(round_trip(scan)), len(round_trip(scan.reshape(64, 32, 32)))}
    flat = md.codecs.PixelHistogram(pattern_shape=(32, 32))
    sizes.add(len(round_trip(scan.reshape(-1), flat)))
    assert max(sizes) - min(sizes) < 8  # the shape's bytes
    assert len(round_trip(scan.reshape(-1))) > 1.1 * max(sizes)


def test_memory_and_byte_order_are_kept() -> None:
    scan = patterns(0.5, (16, 24, 20)).astype(">u2")
    for array in (scan, np.asfortranarray(scan), np.asfortranarray(scan.astype("<u2")), scan[::2, ::-1, 3:]):
        back = codec.decode_array(codec.encode_array(array))
        assert back.dtype == array.dtype
        assert back.flags.f_contiguous == array.flags.f_contiguous
        np.testing.assert_array_equal(back, array)


def form_of(stream: bytes) -> int:
    """0 flat, 1 patterns, 2 patterns in context: the first number after the header of three short axes."""
    return stream[16]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32"])
def test_counts_that_follow_the_pattern_before_take_fewer_bits(dtype: str) -> None:
    """The same patterns in another order have the same histograms and no context."""
    rng = np.random.default_rng(0)
    counts = np.minimum(moving(rng, 127), 127)
    array = (counts - 5).astype(dtype) if dtype.startswith("int") else counts.astype(dtype)
    stream, shuffled = round_trip(array), round_trip(rng.permutation(array))
    assert (form_of(stream), form_of(shuffled)) == (2, 1)
    assert len(stream) < 0.97 * len(shuffled)


def test_context_with_jumps() -> None:
    """Far from everything that was counted before, and back."""
    array = moving(np.random.default_rng(0), 127).astype(np.uint32)
    array[50, 3, 3] = 2**32 - 5
    array[60, 3, 4:6] = 700
    array[:, 3, 6] = np.arange(127) * 7
    assert form_of(round_trip(array)) == 2


# --- Zarr ---------------------------------------------------------------------------------------------------------


def write_v3(store: Any, data: np.ndarray, which: Any = codec, **options: Any) -> zarr.Array:
    options = {"chunks": (8, 16, 16), **options}
    return zarr.create_array(store, data=data, serializer=which, compressors=None, **options)


def test_zarr_v3(tmp_path: Path) -> None:
    data = patterns(1.0, (20, 33, 18)).astype(np.uint16)  # no multiple of the chunks
    written = write_v3(tmp_path / "a.zarr", data)
    assert (
        json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())["codecs"][0]["name"] == "mrczdask.pixel_histogram"
    )
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a.zarr")[:], data)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a.zarr")[3, 4:9], data[3, 4:9])
    written[5:7] = 9
    assert (zarr.open_array(tmp_path / "a.zarr")[5:7] == 9).all()


@pytest.mark.parametrize("order", ["C", "F"])
def test_zarr_v3_shards_and_memory_order(order: str) -> None:
    data = patterns(1.0, (16, 32, 32)).astype(np.int16)
    array = write_v3({}, data, shards=(16, 32, 32), config={"order": order})
    np.testing.assert_array_equal(array[:], data)
    assert write_v3({}, data, md.codecs.PixelHistogram((16, 16)))[:].sum() == data.sum()


def test_sync_and_async_give_the_same_bytes() -> None:
    from zarr.core.array_spec import ArrayConfig, ArraySpec
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.dtype import UInt16

    data = patterns(1.0, (8, 16, 16)).astype(np.uint16)
    prototype = default_buffer_prototype()
    spec = ArraySpec(data.shape, UInt16(), np.uint16(0), ArrayConfig("C", write_empty_chunks=True), prototype)
    chunk = prototype.nd_buffer.from_ndarray_like(data)
    sync = codec._encode_sync(chunk, spec)
    asynchronous = asyncio.run(codec._encode_single(chunk, spec))
    assert sync.to_bytes() == asynchronous.to_bytes()
    np.testing.assert_array_equal(codec._decode_sync(sync, spec).as_numpy_array(), data)
    np.testing.assert_array_equal(asyncio.run(codec._decode_single(sync, spec)).as_numpy_array(), data)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<u2", ">u2", "|u1"])
def test_zarr_v2(order: str, dtype: str) -> None:
    data = patterns(1.0, (20, 33, 18)).astype(dtype)
    store: dict[str, Any] = {}
    options: dict[str, Any] = {"zarr_format": 2, "chunks": (8, 16, 16), "order": order}
    zarr.create_array(store, data=data, compressors=codec.numcodec(), **options)
    np.testing.assert_array_equal(zarr.open_array(store)[:], data)


def test_zarr_v2_after_a_filter_that_flattens() -> None:
    data = patterns(1.0, (16, 32, 32)).astype(np.int16)
    which = md.codecs.PixelHistogram(pattern_shape=(16, 16)).numcodec()
    store: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numcodecs' own filters warn about their place in the format
        delta = numcodecs.Delta("<i2")
        zarr.create_array(store, data=data, zarr_format=2, chunks=(8, 16, 16), filters=[delta], compressors=which)
        np.testing.assert_array_equal(zarr.open_array(store)[:], data)


def test_zarr_v2_as_a_filter() -> None:
    data = patterns(1.0, (16, 32, 32)).astype(np.int16)
    array = zarr.create_array(
        {}, data=data, zarr_format=2, chunks=(8, 16, 16), filters=[codec.numcodec()], compressors=None
    )
    np.testing.assert_array_equal(array[:], data)


def test_numcodecs_by_id_and_into_a_buffer() -> None:
    which = numcodecs.get_codec({"id": "mrczdask.pixel_histogram", "pattern_shape": [16, 16]})
    assert which.get_config() == {"id": "mrczdask.pixel_histogram", "pattern_shape": [16, 16]}
    assert which == md.codecs.PixelHistogram((16, 16)).numcodec()
    data = patterns(1.0, (8, 16, 16)).astype(np.uint16)
    out = np.empty_like(data)
    which.decode(which.encode(data), out=out)
    np.testing.assert_array_equal(out, data)
    with pytest.raises(CodecError, match="not 100 bytes"):
        which.decode(which.encode(data), out=np.empty(100, np.uint8))


READ_BY_NAME = """
import sys, numpy, zarr, numcodecs
assert "mrczdask" not in sys.modules
print(int(zarr.open_array(sys.argv[1])[:].sum()), int(zarr.open_array(sys.argv[2])[:].sum()))
"""


def test_read_by_name_without_an_import(tmp_path: Path) -> None:
    data = patterns(1.0, (16, 32, 32)).astype(np.uint16)
    write_v3(tmp_path / "v3", data)
    v2 = {"zarr_format": 2, "chunks": (8, 16, 16), "compressors": codec.numcodec()}
    zarr.create_array(tmp_path / "v2", data=data, **v2)
    command = [sys.executable, "-c", READ_BY_NAME, str(tmp_path / "v3"), str(tmp_path / "v2")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.split() == [str(data.sum())] * 2


WITHOUT_THE_PACKAGE = """
import sys, zarr, zarr.registry, numcodecs.registry
inside = vars(zarr.registry)
for name in ("mrczdask.pixel_histogram", "mrczdask.b3d"):
    assert numcodecs.registry.entries.pop(name)
    del inside.get("_codec_registries", inside.get("__codec_registries"))[name]
for path in sys.argv[1:]:
    try:
        zarr.open_array(path)[:]
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_the_error_without_the_package_names_it(tmp_path: Path) -> None:
    data = patterns(1.0, (16, 32, 32)).astype(np.uint16)
    write_v3(tmp_path / "v3", data)
    zarr.create_array(tmp_path / "v2", data=data, zarr_format=2, chunks=(8, 16, 16), compressors=codec.numcodec())
    command = [sys.executable, "-c", WITHOUT_THE_PACKAGE, str(tmp_path / "v3"), str(tmp_path / "v2")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(said) >= 2
    assert sum("mrczdask.pixel_histogram" in line for line in said) == 2, said


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "uint64", "complex64", "bool"])
def test_other_types_are_refused(dtype: str) -> None:
    with pytest.raises(CodecError, match="uint8, uint16"):
        codec.encode_array(np.zeros((4, 4), dtype))
    with pytest.raises(CodecError, match="takes uint8"):
        zarr.create_array({}, shape=(4, 4), chunks=(4, 4), dtype=dtype, serializer=codec, compressors=None)


def test_wrong_pattern_shapes_are_refused() -> None:
    with pytest.raises(CodecError, match="not a whole number"):
        md.codecs.PixelHistogram((7, 7)).encode_array(np.zeros((4, 8, 8), np.uint8))
    for shape in ((), (0, 4), (-1,)):
        with pytest.raises(CodecError, match="no shape of a pattern"):
            md.codecs.PixelHistogram(shape)


def test_a_chunk_of_another_array_is_refused() -> None:
    store: dict[str, Any] = {}
    write_v3(store, patterns(1.0, (8, 16, 16)).astype(np.uint16))
    key = next(key for key in store if key.startswith("c/"))
    for other in (np.zeros((8, 16, 8), np.uint16), np.zeros((8, 16, 16), np.int16)):
        from zarr.core.buffer import cpu

        store[key] = cpu.Buffer.from_bytes(codec.encode_array(other))
        with pytest.raises(CodecError, match="another array"):
            zarr.open_array(store)[:]


def test_what_a_stream_is_not() -> None:
    stream = codec.encode_array(patterns(1.0, (8, 16, 16)).astype(np.uint16))
    for wrong, said in ((b"", "are not its stream"), (b"PK" + stream[2:], "not its stream"), (stream[:-1], "checksum")):
        with pytest.raises(CodecError, match=said):
            codec.decode_array(wrong)
    newer = bytearray(stream)
    newer[4] = 2
    with pytest.raises(CodecError, match="newer than 1: update mrczdask"):
        codec.decode_array(bytes(newer))
