"""An archive that is not where it was, or not whole, is an error in every verb, never zeros."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import xarray as xr
import zarr

import mrczdask as md
from mrczdask.errors import MissingShardError

READERS: dict[str, Callable[[xr.DataArray], Any]] = {
    "values": lambda images: images.values,
    "one frame": lambda images: images[1, 2].values,
    "sums": lambda images: md.sum_frames(images).values,
    "em.load": lambda images: images.em.load().values,
    "outliers": lambda images: md.find_outliers(md.sum_frames(images)).mask.values,
    "correlation": lambda images: md.frame_correlation(images).values,
    "write_mrcz": lambda images: md.write_mrcz(images[0], "again.mrcz").values,
    "write_archive": lambda images: md.write_archive(images, "again.zarr", codec="zstd").values,
}
"""What people do with movies of an archive."""


def session(n: int = 3) -> xr.Dataset:
    pixels = np.stack([md.simulate.poisson((4, 32, 40), mean=3.0, seed=k).values for k in range(n)])
    images = xr.DataArray(pixels, dims=("movie", "frame", "y", "x")).chunk({"movie": 1})
    return xr.Dataset({"images": images}, {"movie": [f"m{k}" for k in range(n)]})


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    md.write_archive(session(), tmp_path / "a.zarr", codec="zstd")
    return tmp_path / "a.zarr"


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("fate", ["renamed", "emptied"])
def test_an_archive_that_went_away_is_an_error(archive: Path, read: Any, fate: str) -> None:
    images = md.open_archive(archive, "movies").images
    if fate == "renamed":
        archive.rename(archive.with_name("b.zarr"))
    else:
        shutil.rmtree(archive)
        archive.mkdir()
    with pytest.raises(OSError, match=r"a\.zarr: the array movies/images is not there any more"):
        read(images)


def test_a_relative_path_means_the_folder_in_which_it_was_opened(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = md.open_archive("a.zarr", "movies").images
    truth = session().images.values
    (archive.parent / "elsewhere").mkdir()
    monkeypatch.chdir(archive.parent / "elsewhere")
    np.testing.assert_array_equal(images.values, truth)


def test_an_object_store_that_was_emptied_is_an_error() -> None:
    md.write_archive(session(), "memory://gone.zarr", codec="zstd")
    images = md.open_archive("memory://gone.zarr", "movies").images
    fsspec.filesystem("memory").rm("/gone.zarr", recursive=True)
    with pytest.raises(MissingShardError, match="not there any more"):
        images.values  # noqa: B018


def test_a_lost_shard_is_named_without_the_hidden_files(archive: Path) -> None:
    shutil.copytree(archive, "plain.zarr", ignore=lambda _, names: [name for name in names if name.startswith(".")])
    os.unlink("plain.zarr/movies/images/c/1/0/0/0")
    images = md.open_archive("plain.zarr", "movies").images
    assert images[0].values.any()
    with pytest.raises(MissingShardError, match=r"plain\.zarr: .*this shard is missing \(movie 1\): .*write_archive"):
        images[1].values  # noqa: B018
    report = md.validate("plain.zarr")
    assert not report.ok
    assert report.codes == ("shard-missing",)


def test_a_lost_label_is_an_error_at_opening(archive: Path) -> None:
    os.unlink(archive / "movies/movie/c/0")
    with pytest.raises(MissingShardError, match="movies/movie"):
        md.open_archive(archive, "movies")


def test_labels_that_equal_the_fill_value_are_stored(tmp_path: Path) -> None:
    empty = session().assign_coords(dose=("movie", np.zeros(3)), good=("movie", np.zeros(3, bool)))
    md.write_archive(empty, tmp_path / "a.zarr", codec="zstd")
    assert (tmp_path / "a.zarr/movies/dose/c/0").exists()
    assert md.validate(tmp_path / "a.zarr").findings == ()
    assert "missing_chunks" not in md.open_archive(tmp_path / "a.zarr", "movies").dose.attrs


def test_chunks_that_other_programs_left_out_are_the_fill_value(tmp_path: Path) -> None:
    array = zarr.create_array(
        tmp_path / "o.zarr",
        name="images",
        shape=(4, 8, 8),
        chunks=(1, 8, 8),
        dtype="u1",
        fill_value=7,
        dimension_names=("frame", "y", "x"),
    )
    array[2] = 1
    opened = md.open_archive(tmp_path / "o.zarr").images
    assert [int(frame.mean()) for frame in opened.values] == [7, 7, 1, 7]
    shutil.rmtree(tmp_path / "o.zarr")
    with pytest.raises(MissingShardError, match="not there any more"):
        opened[0].values  # noqa: B018


def _spoil(folder: Path, draw: random.Random) -> None:
    """One thing that happens to archives: a file or folder lost, emptied or swapped."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    one, other = draw.sample(files, 2)
    match draw.randrange(6):
        case 0:
            one.unlink()
        case 1:
            one.write_bytes(b"")
        case 2:
            shutil.rmtree(one.parent)
        case 3:
            content = one.read_bytes()
            one.write_bytes(other.read_bytes())
            other.write_bytes(content)
        case 4:
            for hidden in folder.rglob(".journal"):
                shutil.rmtree(hidden)
            if one.exists():
                one.unlink()
        case _:
            folder.rename(folder.with_name("away.zarr"))


@pytest.mark.slow
def test_no_fault_reads_as_zeros(tmp_path: Path) -> None:
    """The movies hold no zero, so a zero can only come from pixels that are not there."""
    draw, whole, folder = random.Random(1), tmp_path / "whole.zarr", tmp_path / "a.zarr"
    images = session().images + 1
    md.write_archive(images.to_dataset(), whole, codec="zstd", frames_per_shard=2)
    silent = []
    for case in range(CASES):
        for left in tmp_path.iterdir():
            if left != whole:
                shutil.rmtree(left)
        shutil.copytree(whole, folder)
        state, opened = draw.getstate(), None
        try:
            if case % 2:
                opened = md.open_archive(folder, "movies").images
            _spoil(folder, draw)
            opened = md.open_archive(folder, "movies").images if opened is None else opened
            if (opened.values == 0).any():
                silent.append(state)
        except Exception:  # of whatever class: it was told
            continue
    assert not silent


CASES = int(os.environ.get("MRCZDASK_ARCHIVE_FAULTS", "150"))
"""Injected faults; 2000 were run."""
