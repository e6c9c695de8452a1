"""The suffix decides the format before any work, in every writer; rows stand as the format has them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import tifffile
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import mrczdask as md
from mrczdask.errors import MrcFormatError, MrczdaskError
from mrczdask.io.suffixes import ARCHIVE_SUFFIXES, FORMATS, check_archive, format_of, suffix_of

pytestmark = pytest.mark.filterwarnings("ignore:Setting the dtype:DeprecationWarning")  # mrcfile with NumPy 2.5

COUNTS = np.random.default_rng(3).poisson(3, (3, 12, 10)).astype(np.uint8)
KNOWN = [suffix for suffixes in FORMATS.values() for suffix in suffixes]


class Untouched:
    """Pixels that must not be asked for."""

    shape, dtype, ndim = COUNTS.shape, COUNTS.dtype, 3

    def __getitem__(self, key: Any) -> Any:
        raise AssertionError("the name was to be refused first")


def untouched() -> xr.DataArray:
    import dask.array as da

    lazy = da.from_array(Untouched(), chunks=(1, 12, 10), name=False, meta=np.empty((0, 0, 0), "u1"))
    return xr.DataArray(lazy, dims=("frame", "y", "x"), name="images")


WRITERS: dict[str, Callable[[str], Any]] = {
    "write_mrcz": lambda url: md.write_mrcz(untouched(), url),
    "write_archive": lambda url: md.write_archive(untouched(), url),
    "process_session": lambda url: md.process_session(untouched().expand_dims("movie"), url, koma=None),
    "write_gain": lambda url: md.write_gain(untouched()[0], url),
}


@pytest.mark.parametrize("suffix", [".h5", ".foo", ".tar", ".zip", ".mrc.gz", ".cxi", ".npy", ".em"])
@pytest.mark.parametrize("verb", WRITERS)
def test_other_suffixes_are_refused_before_a_pixel_is_read(tmp_path: Path, verb: str, suffix: str) -> None:
    if (verb, suffix) == ("write_archive", ".zip"):
        return  # an archive in one file
    with pytest.raises((MrczdaskError, ValueError)) as caught:
        WRITERS[verb](str(tmp_path / f"a{suffix}"))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".mrc", ".tif", ".h5", ".mrcz"])
@pytest.mark.parametrize("verb", ["write_archive", "process_session"])
def test_no_archive_has_the_name_of_a_file(tmp_path: Path, verb: str, suffix: str) -> None:
    with pytest.raises(MrcFormatError, match=r"a Zarr archive is a folder named \.zarr"):
        WRITERS[verb](str(tmp_path / f"c{suffix}"))


@given(name=st.from_regex(r"[a-z0-9_.-]{1,8}(\.[a-zA-Z0-9]{1,6})?", fullmatch=True))
@settings(max_examples=200, deadline=None)
def test_a_name_is_a_file_or_an_archive_never_both(name: str) -> None:
    def taken(check: Callable[[], Any]) -> bool:
        try:
            check()
        except ValueError:
            return False
        return True

    as_file = taken(lambda: format_of(name, ("mrc", "mrcz", "tiff", "gain", "hdf5")))
    as_archive = taken(lambda: check_archive(name))
    assert not (as_file and as_archive)
    assert as_file == (suffix_of(name) in set(KNOWN) - set(ARCHIVE_SUFFIXES))


@pytest.mark.parametrize("name", ["run", "run.zarr", "run.ZARR/", "2026.12.01", "s3://bucket/v1.2/run"])
def test_folders_may_have_dates_and_versions(name: str) -> None:
    check_archive(name)


@pytest.mark.parametrize("suffix", FORMATS["mrc"])
def test_mrc_is_plain_and_read_by_mrcfile(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    md.write_mrcz(COUNTS, path)
    with mrcfile.open(path, permissive=True) as file:
        np.testing.assert_array_equal(file.data, COUNTS)
    with pytest.raises(MrcFormatError, match=r"an MRC file is not compressed: name it \.mrcz"):
        md.write_mrcz(COUNTS, path, codec="zstd")


@pytest.mark.parametrize("suffix", FORMATS["tiff"])
def test_tif_is_tiff(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    stored = md.write_mrcz(COUNTS, path, metadata={"grid": 7})
    np.testing.assert_array_equal(tifffile.imread(path), COUNTS)
    np.testing.assert_array_equal(stored, COUNTS)
    assert json.loads(stored.attrs["metadata"])["grid"] == 7
    with pytest.raises(MrcFormatError, match=r"leave them out, or name it \.mrcz"):
        md.write_mrcz(COUNTS, path, codec="zstd")


@pytest.mark.parametrize("level", [-1, 10, 99])
def test_levels_are_refused_in_one_line(tmp_path: Path, level: int) -> None:
    with pytest.raises(ValueError, match=f"level={level}: give 0 to 9"):
        md.write_mrcz(COUNTS, tmp_path / "a.mrcz", level=level)


def tiff_movie(path: Path) -> xr.DataArray:
    """A movie whose highest row comes first, of a picture that is brighter on top."""
    rows = np.linspace(9, 1, 12)[:, None]
    pixels = np.random.default_rng(0).poisson(rows, (3, 12, 10)).astype(np.uint8)
    tifffile.imwrite(path, pixels, photometric="minisblack", resolution=(1e8 / 1.5, 1e8 / 1.5), resolutionunit=3)
    return md.open_movie(path)


@pytest.mark.parametrize("suffix", [".mrc", ".mrcz"])
def test_python_and_the_command_turn_rows_alike(tmp_path: Path, suffix: str) -> None:
    from mrczdask.io.convert import convert

    movie = tiff_movie(tmp_path / "a.tif")
    by_verb = md.write_mrcz(movie, tmp_path / f"verb{suffix}")
    by_command = convert(str(tmp_path / "a.tif"), str(tmp_path / f"command{suffix}"))
    for stored in (by_verb, by_command):
        assert stored.attrs["origin"] == "lower"
        np.testing.assert_array_equal(stored, movie.values[:, ::-1])
    if suffix == ".mrc":
        with mrcfile.open(tmp_path / "verb.mrc", permissive=True) as file:
            np.testing.assert_array_equal(file.data[:, ::-1], tifffile.imread(tmp_path / "a.tif"))
    back = md.write_mrcz(by_verb, tmp_path / "back.tif")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "back.tif"), tifffile.imread(tmp_path / "a.tif"))
    assert back.attrs["origin"] == "upper"


@pytest.mark.parametrize("append", [False, True])
def test_an_appended_movie_is_turned_too(tmp_path: Path, append: bool) -> None:
    movie = tiff_movie(tmp_path / "a.tif")
    md.write_mrcz(movie[:2], tmp_path / "a.mrcz")
    stored = md.write_mrcz(movie[2:], tmp_path / "a.mrcz", append=append)
    np.testing.assert_array_equal(stored[-1], movie.values[-1, ::-1])


def images_of(data: Any) -> dict[str, xr.DataArray]:
    nodes = (
        data.subtree
        if isinstance(data, xr.DataTree)
        else [data if isinstance(data, xr.Dataset) else data.to_dataset(name="x")]
    )
    found = {}
    for node in nodes:
        names = [*node.data_vars, *(["mask"] if "mask" in node.coords else [])]
        found |= {str(name): node[name] for name in names if {"y", "x"} <= set(node[name].dims)}
    return found


def test_every_image_of_every_verb_knows_its_first_row(tmp_path: Path) -> None:
    for k in range(3):
        tiff_movie(tmp_path / f"movie_{k}.tif")
    session = md.open_session(str(tmp_path / "movie_*.tif"), order="name")
    gain = np.ones((12, 10), np.float32)
    gain[3, 4] = 0
    sums = md.sum_frames(session).compute()
    corrected = md.apply_gain(session, gain)
    outliers = md.find_outliers(md.apply_gain(sums, gain)).compute()
    made = {
        "sums": sums,
        "corrected": corrected,
        "outliers": outliers,
        "filled": md.fill_outliers(corrected, outliers),
        "koma": md.koma(session, sums=sums, radius=1),
        "gain": md.estimate_gain(session, method="means"),
        "quality": md.gain_quality(session),
        "session": md.process_session(session, tmp_path / "a.zarr", gain=gain, koma=1, outliers="cdf"),
    }
    for verb, data in made.items():
        for name, image in images_of(data).items():
            assert image.attrs.get("origin") == "upper", (verb, name)
            assert image.attrs.get("pixel_size_angstrom") == pytest.approx(1.5), (verb, name)
    mask = outliers.mask[0]
    mask[2, 5] = True
    for name in ("d.txt", "d.tif", "d.mrc"):
        md.write_defects(mask, tmp_path / name)
        np.testing.assert_array_equal(md.open_defects(tmp_path / name, like=session), mask)
    with mrcfile.open(tmp_path / "d.mrc", permissive=True) as file:
        np.testing.assert_array_equal(np.squeeze(file.data)[::-1] != 0, mask)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "d.tif") != 0, mask)
    md.write_mrcz(sums[0], tmp_path / "sum.mrc")
    with mrcfile.open(tmp_path / "sum.mrc", permissive=True) as file:
        assert file.data.dtype == np.float32
        np.testing.assert_array_equal(np.squeeze(file.data)[::-1], sums[0])
    residual = made["quality"].residual
    md.write_mrcz(residual, tmp_path / "residual.mrc")
    with mrcfile.open(tmp_path / "residual.mrc", permissive=True) as file:
        np.testing.assert_array_equal(np.squeeze(file.data)[::-1], residual)


@given(
    largest=st.sampled_from([0, 5, 2**24 - 1, 2**24, 2**24 + 1, 2**31 - 1, 2**31, 2**53 + 1]),
    sign=st.sampled_from([1, -1]),
    codec=st.sampled_from(["none", "zstd"]),
)
@settings(max_examples=20, deadline=None)
def test_integers_of_64_bits_are_exact_or_refused(
    tmp_path_factory: pytest.TempPathFactory, largest: int, sign: int, codec: Any
) -> None:
    path = tmp_path_factory.mktemp("sums") / "a.mrcz"
    total = np.arange(12).reshape(3, 4).astype(np.int64)
    total[1, 1] = sign * largest
    if largest > 2**31 - (sign > 0):
        with pytest.raises(MrcFormatError, match=r'does not fit int32 to the last digit: .*astype\("float32"\)'):
            md.write_mrcz(total, path, codec=codec)
        assert not path.exists()
        return
    stored = md.write_mrcz(total, path, codec=codec)
    np.testing.assert_array_equal(stored[0], total)
    assert stored.dtype == (np.float32 if largest <= 2**24 else np.int32)


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, 1e30, 0.1, 1e300])
def test_floats_of_64_bits_are_exact_or_refused(tmp_path: Path, value: float) -> None:
    total = np.full((3, 4), 1.25)
    total[1, 2] = value
    if value in (1e30, 0.1, 1e300):
        with pytest.raises(MrcFormatError, match="does not fit float32 to the last digit"):
            md.write_mrcz(total, tmp_path / "a.mrc")
        assert list(tmp_path.iterdir()) == []
        return
    md.write_mrcz(total, tmp_path / "a.mrc")
    with mrcfile.open(tmp_path / "a.mrc", permissive=True) as file:
        np.testing.assert_array_equal(np.squeeze(file.data), total)
