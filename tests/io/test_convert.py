"""Every way between the formats keeps pixels, dtype and what the header says."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile
import xarray as xr

import mrczdask as md
from mrczdask.io.convert import convert

# mrcfile 1.5 sets the dtype of arrays, which NumPy 2.5 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:Setting the dtype:DeprecationWarning")

SUFFIXES = (".mrc", ".mrcz", ".zarr", ".tif")


@pytest.fixture
def source(tmp_path: Path) -> xr.DataArray:
    movie = md.simulate.poisson((5, 40, 33), mean=2.0, seed=4)
    movie = movie.assign_coords(dose=("frame", np.arange(5.0))).assign_attrs(pixel_size_angstrom=1.06, voltage_kv=300.0)
    return md.write_mrcz(movie, tmp_path / "source.mrc", codec=None)


@pytest.mark.parametrize("first", SUFFIXES)
@pytest.mark.parametrize("second", SUFFIXES)
def test_two_conversions_and_back(source: xr.DataArray, tmp_path: Path, first: str, second: str) -> None:
    convert(str(tmp_path / "source.mrc"), str(tmp_path / f"one{first}"))
    convert(str(tmp_path / f"one{first}"), str(tmp_path / f"two{second}"))
    back = convert(str(tmp_path / f"two{second}"), str(tmp_path / "back.mrc"))
    assert back.dtype == source.dtype
    np.testing.assert_array_equal(back, source)
    np.testing.assert_array_equal(back.dose, source.dose)
    assert back.attrs["origin"] == "lower"
    assert back.attrs["pixel_size_angstrom"] == pytest.approx(1.06, rel=1e-4)


def test_tiff_shows_the_same_picture(source: xr.DataArray, tmp_path: Path) -> None:
    """MRC rows begin at the bottom, TIFF rows at the top: the rows of the file are turned over."""
    convert(str(tmp_path / "source.mrc"), str(tmp_path / "a.tif"))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), source.values[:, ::-1])
    convert(str(tmp_path / "a.tif"), str(tmp_path / "b.mrc"))
    np.testing.assert_array_equal(mrcfile.read(tmp_path / "b.mrc"), source.values)


def test_unknown_suffix_and_same_file_are_refused(source: xr.DataArray, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"names no format that is written; choose one of \.mrc"):
        convert(str(tmp_path / "source.mrc"), str(tmp_path / "a.png"))
    with pytest.raises(ValueError, match="same file"):
        convert(str(tmp_path / "source.mrc"), str(tmp_path / "source.mrc"))


def test_an_archive_with_two_movies_asks_for_the_group(source: xr.DataArray, tmp_path: Path) -> None:
    for group in ("a", "b"):
        md.write_archive(source, tmp_path / "two.zarr", group=group)
    with pytest.raises(md.errors.MrcFormatError, match="holds 2 arrays named 'images'"):
        convert(str(tmp_path / "two.zarr"), str(tmp_path / "a.mrc"))
