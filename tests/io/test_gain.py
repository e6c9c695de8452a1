from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import fsspec
import mrcfile
import numpy as np
import pytest
import tifffile
import xarray as xr

import mrczdask as md
from mrczdask.errors import MrcFormatError

# mrcfile 1.5 sets the dtype of an array, which numpy 2.5 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:Setting the dtype:DeprecationWarning")


def image(shape: tuple[int, int] = (12, 20)) -> np.ndarray:
    gain = np.random.default_rng(0).normal(1.0, 0.05, shape).astype(np.float32)
    gain[2, 3] = 0.0  # a defect
    return gain


def as_gain(values: np.ndarray, convention: str = "multiply", origin: str = "lower") -> xr.DataArray:
    return xr.DataArray(values, dims=("y", "x"), attrs={"convention": convention, "origin": origin})


def mrc(path: Path, values: np.ndarray) -> str:
    mrcfile.write(path, values)
    return str(path)


def tiff(path: Path, values: np.ndarray, **options: Any) -> str:
    tifffile.imwrite(path, values, photometric="minisblack", metadata=None, **options)
    return str(path)


def reciprocal(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0, 1 / np.where(values > 0, values, 1), 0).astype(np.float32)


# ---- reading


def test_mrc_of_mrcfile(tmp_path: Path) -> None:
    gain = md.open_gain(mrc(tmp_path / "gain.mrc", image()))
    assert (gain.dims, gain.dtype, gain.name) == (("y", "x"), np.float32, "gain")
    assert gain.attrs == {"convention": "multiply", "origin": "lower"}
    np.testing.assert_array_equal(gain, image())


@pytest.mark.parametrize("name", ["gain.tif", "gain.TIFF", "gain.gain"])
def test_tiff_of_tifffile(tmp_path: Path, name: str) -> None:
    gain = md.open_gain(tiff(tmp_path / name, image(), compression="lzw"))
    assert gain.attrs == {"convention": "multiply", "origin": "upper"}
    np.testing.assert_array_equal(gain, image())


def test_one_lazy_chunk_and_nothing_computed(tmp_path: Path, no_compute: None) -> None:
    for url in (
        mrc(tmp_path / "a.mrc", image()),
        tiff(tmp_path / "a.tif", image()),
        tiff(tmp_path / "a.gain", image()),
    ):
        gain = md.open_gain(url)
        assert isinstance(gain.data, da.Array)
        assert gain.data.npartitions == 1
        assert not gain.coords


def test_the_convention_may_be_said(tmp_path: Path) -> None:
    url = mrc(tmp_path / "gain.mrc", image())
    assert md.open_gain(url, convention="divide").attrs == {"convention": "divide", "origin": "lower"}
    # other gains of EER movies than .gain divide, and lie as the EER frames do
    assert md.open_gain(url, convention="eer").attrs == {"convention": "divide", "origin": "upper"}
    with pytest.raises(ValueError, match="convention='factor'"):
        md.open_gain(url, convention="factor")  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2"])
def test_integers_become_float32(tmp_path: Path, dtype: str) -> None:
    values = np.arange(240).reshape(12, 20).astype(dtype)
    for url in (tiff(tmp_path / "gain.tif", values), mrc(tmp_path / "gain.mrc", values.astype("i2"))):
        gain = md.open_gain(url)
        assert gain.dtype == np.float32
        np.testing.assert_array_equal(gain, values)


def test_remote(tmp_path: Path) -> None:
    url = tiff(tmp_path / "x.gain", image())
    fsspec.filesystem("memory").pipe("/gains/x.gain", Path(url).read_bytes())
    np.testing.assert_array_equal(md.open_gain("memory://gains/x.gain"), image())


@pytest.mark.parametrize(
    ("name", "match"),
    [("ref.dm4", "dm2mrc"), ("ref.DM3", "Gatan"), ("ref.raw", "without a header"), ("movie.eer", "a movie")],
)
def test_formats_that_are_not_read(tmp_path: Path, name: str, match: str) -> None:
    (tmp_path / name).write_bytes(bytes(2000))
    with pytest.raises(MrcFormatError, match=rf"{name}: .*{match}"):
        md.open_gain(tmp_path / name)
    if not name.endswith(".eer"):
        with pytest.raises(MrcFormatError, match="not written"):
            md.write_gain(image(), tmp_path / name)


def test_a_stack_is_refused(tmp_path: Path) -> None:
    url = tiff(tmp_path / "gain.tif", np.stack([image()] * 3))
    with pytest.raises(MrcFormatError, match=r"gain\.tif: .*'frame': 3.*average"):
        md.open_gain(url)


def test_complex_pixels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MrcFormatError, match="complex64 pixels"):
        md.open_gain(mrc(tmp_path / "gain.mrc", image().astype(np.complex64)))


def test_corrupt(tmp_path: Path) -> None:
    url = tiff(tmp_path / "gain.gain", image())
    Path(url).write_bytes(Path(url).read_bytes()[:300])
    with pytest.raises(MrcFormatError, match=r"gain\.gain"):
        md.open_gain(url)
    with pytest.raises(FileNotFoundError):
        md.open_gain(tmp_path / "none.gain")


# ---- writing


@pytest.mark.parametrize("name", ["g.mrc", "g.mrcz", "g.tif", "g.tiff", "g.gain"])
@pytest.mark.parametrize("convention", ["multiply", "divide"])
@pytest.mark.parametrize("origin", ["lower", "upper"])
def test_round_trip(tmp_path: Path, name: str, convention: str, origin: str) -> None:
    gain = as_gain(image(), convention, origin)
    stored = md.write_gain(gain, tmp_path / name, convention=convention)  # type: ignore[arg-type]
    natural = "lower" if name.startswith("g.mrc") else "upper"
    assert stored.attrs == {"convention": convention, "origin": natural}
    np.testing.assert_array_equal(stored, image() if origin == natural else image()[::-1])


def test_other_programs_read_the_image_the_right_way_up(tmp_path: Path) -> None:
    """MRC rows run from the bottom up, TIFF rows from the top down; both multiply."""
    gain = as_gain(image(), origin="upper")
    md.write_gain(gain, tmp_path / "g.mrc")
    md.write_gain(gain, tmp_path / "g.tif")
    md.write_gain(gain, tmp_path / "g.gain")
    np.testing.assert_array_equal(mrcfile.read(tmp_path / "g.mrc").squeeze(), image()[::-1])
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "g.tif"), image())
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "g.gain"), image())


def test_a_divisor_becomes_a_factor(tmp_path: Path) -> None:
    values = image()
    values[5, 6], values[7, 8] = -1.0, np.inf
    stored = md.write_gain(as_gain(values, "divide"), tmp_path / "g.mrc")
    want = np.where(np.isfinite(values), reciprocal(values), 0)
    np.testing.assert_allclose(stored, want, rtol=1e-6)
    assert want[2, 3] == want[5, 6] == want[7, 8] == 0
    assert stored.attrs["convention"] == "multiply"


def test_the_gain_that_other_programs_divide_eer_frames_by(tmp_path: Path) -> None:
    gain = as_gain(image(), "multiply", "upper")
    stored = md.write_gain(gain, tmp_path / "g.mrc", convention="eer")
    assert stored.attrs == {"convention": "divide", "origin": "upper"}
    np.testing.assert_allclose(mrcfile.read(tmp_path / "g.mrc").squeeze(), reciprocal(image()), rtol=1e-6)
    # the same gain as a factor, from the file
    again = md.write_gain(stored, tmp_path / "g.gain")
    np.testing.assert_allclose(tifffile.imread(tmp_path / "g.gain"), image(), rtol=1e-6)
    assert again.attrs == {"convention": "multiply", "origin": "upper"}
    with pytest.raises(ValueError, match="MRC"):
        md.write_gain(gain, tmp_path / "g.tif", convention="eer")


def test_numpy_takes_the_conventions_of_the_format(tmp_path: Path) -> None:
    assert md.write_gain(image(), tmp_path / "g.mrc").attrs == {"convention": "multiply", "origin": "lower"}
    stored = md.write_gain(image().astype(np.float64), tmp_path / "g.tif")
    assert stored.attrs == {"convention": "multiply", "origin": "upper"}
    np.testing.assert_array_equal(stored, image())


def test_what_is_no_gain(tmp_path: Path) -> None:
    for bad in (image()[None], image().astype(complex), np.zeros((0, 4)), np.array([["a"]])):
        with pytest.raises(MrcFormatError, match=r"one \(y, x\) image"):
            md.write_gain(bad, tmp_path / "g.mrc")
    with pytest.raises(ValueError, match="the attribute convention"):
        md.write_gain(as_gain(image(), "eer"), tmp_path / "g.mrc")
    assert not list(tmp_path.iterdir())


def test_lazy_gains_are_written(tmp_path: Path) -> None:
    lazy = as_gain(image()).chunk({"y": 5})
    np.testing.assert_array_equal(md.write_gain(lazy, tmp_path / "g.mrc"), image())
