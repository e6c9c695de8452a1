"""Zip files and icechunk sessions, compared with zarr, xarray and zipfile."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

import mrczdask as md
from mrczdask.errors import MrcFormatError, ResumeError, StoreError


@pytest.fixture
def movie() -> xr.DataArray:
    return md.simulate.poisson((4, 16, 16), mean=2.0, seed=0)


@pytest.mark.parametrize("inside", [True, False], ids=["with its folder", "root"])
@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zipped_archive_is_read(tmp_path: Path, movie: xr.DataArray, inside: bool, how: int) -> None:
    md.write_archive(movie, tmp_path / "a.zarr", group="movies", codec="zstd")
    base = tmp_path if inside else tmp_path / "a.zarr"
    with zipfile.ZipFile(tmp_path / "a.zip", "w", how) as file:
        for path in sorted((tmp_path / "a.zarr").rglob("*")):
            file.write(path, path.relative_to(base))
    opened = md.open_archive(tmp_path / "a.zip")
    np.testing.assert_array_equal(opened["movies"]["images"], movie)
    store = zarr.storage.ZipStore(tmp_path / "a.zip", mode="r")
    np.testing.assert_array_equal(md.open_archive(store, "movies").images, movie)  # type: ignore[union-attr]
    assert md.validate(tmp_path / "a.zip").ok


@pytest.mark.parametrize("given", ["path", "store"])
def test_a_zip_is_written_whole_with_each_name_once(
    tmp_path: Path, movie: xr.DataArray, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = "a.zip" if given == "path" else zarr.storage.ZipStore("a.zip", mode="w")
    written = md.write_archive(movie, place, group="movies", codec="zstd")
    np.testing.assert_array_equal(written, movie)
    with zipfile.ZipFile("a.zip") as file:
        names = file.namelist()
        assert file.testzip() is None
    assert len(names) == len(set(names))
    assert not any(".journal" in name or name.endswith(".lock") for name in names)
    assert os.listdir() == ["a.zip"]
    with zarr.storage.ZipStore("a.zip", mode="r") as store:
        read = xr.open_zarr(store, group="movies", consolidated=False)
        np.testing.assert_array_equal(read.images, movie)
        assert read.movie.item() == movie.movie.item()


def test_a_zip_that_is_there_is_kept_unless_asked(tmp_path: Path, movie: xr.DataArray) -> None:
    path = tmp_path / "a.zip"
    md.write_archive(movie, path, group="movies", codec="zstd")
    before = path.read_bytes()
    for options in ({}, {"resume": False}):
        with pytest.raises(ResumeError, match=r"holds movies, .*: a zip file is written whole"):
            md.write_archive(movie + 1, path, group="movies", codec="zstd", **options)  # type: ignore[arg-type]
    assert path.read_bytes() == before
    again = md.open_archive(path, "movies").images + 1  # type: ignore[union-attr]
    md.write_archive(again, path, group="movies", codec="zstd", resume=False, overwrite=True)
    np.testing.assert_array_equal(md.open_archive(path, "movies").images, movie + 1)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="a zip is written whole"):
        md.write_archive(movie, tmp_path / "b.zip", create_only=True)


def test_what_is_not_a_zip_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.zip").write_bytes(b"hello")
    with pytest.raises(MrcFormatError, match="not a whole zip file"):
        md.open_archive(tmp_path / "bad.zip")
    with pytest.raises(FileNotFoundError):
        md.open_archive(tmp_path / "none.zip")
    with pytest.raises(StoreError, match="read from a local disk"):
        md.open_archive("memory://a.zip")


def test_icechunk_sessions(tmp_path: Path, movie: xr.DataArray) -> None:
    icechunk = pytest.importorskip("icechunk")
    repo = icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "repo")))
    session = repo.writable_session("main")
    np.testing.assert_array_equal(md.write_archive(movie, session.store, group="movies", codec="zstd"), movie)
    session.commit("movies")
    kept = repo.readonly_session("main").store
    opened = md.open_archive(kept)
    np.testing.assert_array_equal(opened["movies"]["images"], movie)
    np.testing.assert_array_equal(xr.open_zarr(kept, group="movies", consolidated=False).images, movie)
    later = repo.writable_session("main")
    with pytest.raises(ResumeError, match="holds the array 'images'"):
        md.write_archive(movie + 1, later.store, group="movies", codec="zstd")
    md.write_archive(movie + 1, later.store, group="movies", codec="zstd", resume=False, overwrite=True)
    later.commit("more")
    np.testing.assert_array_equal(opened["movies"]["images"], movie)  # as it was at its moment
    now = md.open_archive(repo.readonly_session("main").store, "movies")
    np.testing.assert_array_equal(now.images, movie + 1)  # type: ignore[union-attr]
    with pytest.raises(StoreError, match="its session is read only"):
        md.write_archive(movie, kept, group="other", codec="zstd")


def test_xarray_cuts_labels_of_its_own_accord(tmp_path: Path, movie: xr.DataArray) -> None:
    urls = ["/data/größer.mrcz", "", "s3://bucket/b.mrcz"]
    session = xr.Dataset(
        {"images": (("movie", "frame", "y", "x"), np.stack([movie.values] * 3))},
        coords={"movie": ["a", "bb", "ccc"], "url": ("movie", urls), "gain_reference": ("movie", [""] * 3)},
    )
    md.write_archive(session, tmp_path / "a.zarr", codec="zstd")
    read = xr.open_dataset(tmp_path / "a.zarr", engine="zarr", group="movies", consolidated=False, chunks="auto")
    assert read.url.values.tolist() == urls
    assert zarr.open_group(tmp_path / "a.zarr", mode="r")["movies/url"][:].tolist() == urls  # type: ignore[index, union-attr]
    np.testing.assert_array_equal(read.images, session.images)
    assert md.open_archive(tmp_path / "a.zarr", "movies").gain_reference.values.tolist() == [""] * 3  # type: ignore[union-attr]


def test_a_run_that_was_killed_leaves_no_zip(
    tmp_path: Path, movie: xr.DataArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("mrczdask.io.zip_archive._files", _killed)
        with pytest.raises(KeyboardInterrupt):
            md.write_archive(movie, tmp_path / "a.zip", group="movies", codec="zstd")
    assert not (tmp_path / "a.zip").exists()
    md.write_archive(movie, tmp_path / "a.zip", group="movies", codec="zstd")
    np.testing.assert_array_equal(md.open_archive(tmp_path / "a.zip", "movies").images, movie)  # type: ignore[union-attr]


def _killed(_: str) -> None:
    raise KeyboardInterrupt
