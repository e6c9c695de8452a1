"""B3D: lossless round trips, bounds of the lossy forms, sizes against the entropy and JPEG-LS, what is refused."""

from __future__ import annotations

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

B3D = md.codecs.B3D
DTYPES = ["uint8", "uint16", "int8", "int16", "uint32", "int32"]
LOSSLESS = [B3D(), B3D(predictor="classic"), B3D(entropy="huffman"), B3D(predictor="classic", entropy="huffman")]
CAMERA = {"counts_per_electron": 2.1, "offset": 100.0, "read_noise": 1.6}
LOSSY = [
    B3D(quantisation=1.0, **CAMERA),
    B3D(quantisation=1.0, bound="stabilised", **CAMERA),
    B3D(quantisation=1.0, bound="stabilised", order="predict-first", **CAMERA),
]


def names(codecs: list[B3D]) -> list[str]:
    return [f"{c.predictor}-{c.entropy}-{c.bound}-{c.order}" for c in codecs]


def sigma(x: np.ndarray) -> np.ndarray:
    return 2.1 * np.sqrt(np.maximum((x.astype(float) - 100) / 2.1, 0) + 1.6**2)


def smooth(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    y, x = np.mgrid[: shape[-2], : shape[-1]]
    wave = 40 + 30 * np.sin(y / 9) * np.cos(x / 7)
    return (np.random.default_rng(seed).poisson(wave, shape) - (20 if dtype.startswith("i") else 0)).astype(dtype)


@pytest.mark.parametrize("codec", LOSSLESS, ids=names(LOSSLESS))
@pytest.mark.parametrize("dtype", DTYPES)
def test_images_of_every_type(codec: B3D, dtype: str) -> None:
    images = smooth((3, 40, 37), dtype)
    stream = codec.encode_array(images)
    back = codec.decode_array(stream)
    assert back.dtype == images.dtype
    np.testing.assert_array_equal(back, images)
    assert len(stream) < images.nbytes * 0.85


@pytest.mark.parametrize("codec", [LOSSLESS[0], LOSSLESS[3]], ids=["fitted-rans", "classic-huffman"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(), (0,), (1,), (3, 0, 5), (1, 1, 1), (300,), (9, 13), (2, 5, 7, 9), (99, 1), (3, 70, 2)]
)
def test_odd_shapes(codec: B3D, dtype: str, shape: tuple[int, ...]) -> None:
    info = np.iinfo(dtype)
    rng = np.random.default_rng(0)
    for array in (
        rng.integers(info.min, info.max, shape, dtype, endpoint=True),
        rng.poisson(0.3, shape).astype(dtype),
        np.full(shape, info.max, dtype),
    ):
        stream = codec.encode_array(array)
        np.testing.assert_array_equal(codec.decode_array(stream), array)
        assert len(stream) <= np.asarray(array).nbytes + 64


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_array(data: st.DataObject) -> None:
    dtype = np.dtype(data.draw(st.sampled_from(DTYPES)))
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=20))
    info = np.iinfo(dtype)
    low = data.draw(st.integers(info.min, info.max))
    high = data.draw(st.integers(low, info.max))
    array = data.draw(hnp.arrays(dtype, shape, elements=st.integers(low, high)))
    codec = data.draw(st.sampled_from(LOSSLESS))
    np.testing.assert_array_equal(codec.decode_array(codec.encode_array(array)), array)
    if dtype.itemsize < 3:
        back = LOSSY[0].decode_array(LOSSY[0].encode_array(array))
        assert (np.abs(back.astype(float) - array) <= sigma(array) / 2).all()


def every_code(dtype: str = "uint16") -> np.ndarray:
    """Every code of a type, in rows of random order, and beside its neighbours."""
    info = np.iinfo(dtype)
    codes = np.arange(info.min, info.max + 1).astype(dtype)
    shuffled = np.random.default_rng(0).permutation(codes)
    return np.stack([codes, shuffled]).reshape(2, -1, 64)


@pytest.mark.parametrize("q", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("entropy", ["rans", "huffman"])
def test_strict_bound_for_every_code(q: float, entropy: str) -> None:
    codec = B3D(quantisation=q, entropy=entropy, **CAMERA)
    for dtype in ("uint16", "int16", "uint8"):
        codes = every_code(dtype)
        back = codec.decode_array(codec.encode_array(codes))
        assert back.dtype == codes.dtype
        assert (np.abs(back.astype(float) - codes) <= q * sigma(codes) / 2).all()


@pytest.mark.parametrize("codec", LOSSY[1:], ids=names(LOSSY[1:]))
def test_stabilised_bound_for_every_code(codec: B3D) -> None:
    codes = every_code()
    error = np.abs(codec.decode_array(codec.encode_array(codes)).astype(float) - codes)
    # half a step, its curvature, rounding, and the units of 1 / 1024 step in which values are predicted
    half = 0.5005 if codec.order == "predict-first" else 0.5
    bound = sigma(codes) * half + 2.1 * half**2 / 4 + 0.5 + 1e-6
    assert (error <= bound)[codes >= 100].all()
    assert error[codes >= 100].max() > 0.45 * sigma(codes).max()


@pytest.mark.parametrize("codec", LOSSY, ids=names(LOSSY))
def test_within_noise_is_smaller_and_adds_little_noise(codec: B3D) -> None:
    truth = md.simulate.localisation(8, (16, 16), photons=500, background=10)
    images = truth.images.values
    lossless, lossy = B3D().encode_array(images), codec.encode_array(images)
    assert len(lossless) > 1.7 * len(lossy)
    back = codec.decode_array(lossy).astype(float)
    mean = truth.means * 2.1 + 100
    added = ((back - mean) ** 2).mean() / ((images - mean) ** 2).mean() - 1
    assert added < 1.15 / 12  # q^2 / 12 of the variance, and rounding


def test_fluorescence_reaches_the_entropy_and_beats_jpeg() -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    cells = md.simulate.fluorescence((2, 512, 512))
    images = cells.images.values
    size = len(B3D().encode_array(images)) * 8 / images.size
    assert size < 1.04 * md.simulate.readout_entropy(cells.means, cells.readout).mean()
    assert size < sum(len(imagecodecs.jpegls_encode(image)) for image in images) * 8 / images.size
    assert size < sum(len(imagecodecs.jpegxl_encode(i, lossless=True, effort=7)) for i in images) * 8 / images.size


@pytest.mark.parametrize("codec", [B3D(), md.codecs.PixelHistogram()], ids=["b3d", "pixel-histogram"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
def test_masked_pixels_cost_little(codec: Any, dtype: str) -> None:
    counts = np.random.default_rng(0).poisson(2, (6, 128, 128)).astype(dtype)
    masked = counts.copy()
    masked[:, 40:50] = masked[:, :, 90:93] = np.iinfo(dtype).max
    stream = codec.encode_array(masked)
    np.testing.assert_array_equal(codec.decode_array(stream), masked)
    assert len(stream) < 1.15 * len(codec.encode_array(counts))  # where they are takes 0.47 bits a pixel at most


def test_huffman_costs_what_it_should() -> None:
    images = md.simulate.fluorescence((2, 256, 256)).images.values
    rans, huffman = (len(B3D(entropy=entropy).encode_array(images)) for entropy in ("rans", "huffman"))
    assert 1.0 < huffman / rans < 1.06


def test_zero_runs_make_blank_images_small() -> None:
    blank = np.zeros((4, 256, 256), np.uint16)
    blank[:, 100, 100] = 1000
    assert len(B3D(entropy="huffman").encode_array(blank)) < blank.size / 50 / 8 * 2
    assert len(B3D().encode_array(blank)) < 4000


def test_memory_and_byte_order_are_kept() -> None:
    images = smooth((3, 24, 20), "uint16").astype(">u2")
    for array in (images, np.asfortranarray(images), images[::2, ::-1, 3:]):
        back = B3D().decode_array(B3D().encode_array(array))
        assert (back.dtype, back.flags.f_contiguous) == (array.dtype, array.flags.f_contiguous)
        np.testing.assert_array_equal(back, array)


# --- Zarr ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [LOSSLESS[0], LOSSY[2]], ids=["lossless", "predict-first"])
def test_zarr_v3_keeps_the_settings(codec: B3D) -> None:
    images = smooth((5, 33, 29), "uint16") + np.uint16(100)
    store: dict[str, Any] = {}
    zarr.create_array(store, data=images, chunks=(2, 16, 29), serializer=codec, compressors=None)
    opened = zarr.open_array(store)
    assert opened.metadata.codecs[0] == codec
    back = opened[:].astype(float)
    assert (np.abs(back - images) <= (sigma(images) * 0.51 + 1 if codec.quantisation else 0)).all()


@pytest.mark.parametrize("order", ["C", "F"])
def test_zarr_v2(order: str) -> None:
    images = smooth((5, 33, 29), "int16")
    codec = B3D(frame_shape=(16, 29)).numcodec()
    store: dict[str, Any] = {}
    options: dict[str, Any] = {"zarr_format": 2, "chunks": (2, 16, 29), "order": order}
    zarr.create_array(store, data=images, compressors=codec, **options)
    np.testing.assert_array_equal(zarr.open_array(store)[:], images)


def test_numcodecs_by_id() -> None:
    settings = {"id": "mrczdask.b3d", "quantisation": 1.0, "counts_per_electron": 2.1, "bound": "stabilised"}
    codec = numcodecs.get_codec(settings)
    assert codec.get_config() == settings
    images = smooth((2, 32, 32), "uint16")
    flat = numcodecs.get_codec({"id": "mrczdask.b3d", "frame_shape": [32, 32]})
    assert len(flat.encode(images.ravel())) < len(numcodecs.get_codec({"id": "mrczdask.b3d"}).encode(images.ravel()))
    np.testing.assert_array_equal(flat.decode(flat.encode(images.ravel())), images.ravel())


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"quantisation": -1}, "from 0 to 64"),
        ({"quantisation": float("nan")}, "from 0 to 64"),
        ({"counts_per_electron": 0}, "counts_per_electron=0"),
        ({"read_noise": "1"}, "read_noise='1'"),
        ({"bound": "loose"}, "strict, stabilised"),
        ({"entropy": "arithmetic"}, "rans, huffman"),
        ({"order": "predict-first"}, "strict bound needs"),
        ({"frame_shape": (8,)}, "height and width"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(CodecError, match=said):
        B3D(**settings)


def test_wrong_arrays_are_refused() -> None:
    with pytest.raises(CodecError, match="8 and 16 bits"):
        LOSSY[0].encode_array(np.arange(100, dtype=np.uint32))
    with pytest.raises(CodecError, match="takes uint8, uint16, int8, int16, not uint32"):
        zarr.create_array({}, shape=(8, 8), chunks=(8, 8), dtype="uint32", serializer=LOSSY[0], compressors=None)
    with pytest.raises(CodecError, match="not a whole number of frames"):
        B3D(frame_shape=(7, 7)).encode_array(np.zeros((8, 8), np.uint8))
    with pytest.raises(CodecError, match="not its stream"):
        B3D().decode_array(md.codecs.PixelHistogram().encode_array(smooth((2, 32, 32), "uint16")))
