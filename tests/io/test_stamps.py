"""Files and folders written again in place, with as many bytes in the same places, are others to Dask."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr

import mrczdask as md
from mrczdask.io.stamps import file_stamps, folder_stamp
from tests.io.conftest import Bucket

FRAMES = np.random.default_rng(0).poisson(3, (4, 24, 24)).astype(np.uint16)
CLOCK: Iterator[int] = count(1)


def write(path: Path, content: bytes) -> None:
    """Write a file, at another time than all before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(next(CLOCK), next(CLOCK)))


def test_folders_on_a_disk(tmp_path: Path) -> None:
    stamps = []
    for name, content in (("a", b"1"), ("b/c/d", b"2"), ("b/c/d", b"3")):
        write(tmp_path / name, content)
        stamps.append(folder_stamp(str(tmp_path)))
        assert folder_stamp(f"file://{tmp_path}") == stamps[-1]
    assert len(set(stamps)) == 3


def test_folders_in_stores(bucket: Bucket) -> None:
    stamps = []
    for name, content in (("a", b"1"), ("b/c/d", b"2"), ("b/c/d", b"3")):
        bucket.put(f"run.zarr/{name}", content)
        stamps.append(folder_stamp(f"{bucket.url}/run.zarr", bucket.options))
        assert folder_stamp(f"{bucket.url}/run.zarr", bucket.options) == stamps[-1]
    assert len(set(stamps)) == 3
    urls = [f"{bucket.url}/run.zarr/{name}" for name in ("a", "b/c/d")]
    assert len(set(file_stamps(urls, bucket.options))) == 2


def test_a_store_that_lists_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "find", refuse)
    assert folder_stamp("memory://run.zarr") == folder_stamp("memory://other.zarr")


def bright(add: int) -> np.ndarray:
    """Frames with a peak."""
    frames = FRAMES.copy()
    frames[:, 5:7, 5:7] = 900 + add
    return frames


def table(add: int) -> Any:
    """Sparse frames whose stored pixels are the same ones of each frame, of other intensities."""
    return md.sparsify(bright(add), md.Geometry.flat((24, 24)), bins=8, unit="pixel", cutoff_pick=50.0)


def test_sparse_frames_in_a_store(bucket: Bucket) -> None:
    url, how = f"{bucket.url}/run.zarr", {"storage_options": bucket.options}
    names, pointers = [], []
    for add in (0, 1):
        md.write_sparse(table(add), url, resume=False, **how)
        found = [md.open_sparse(url, **how) for _ in range(2)]
        assert found[0].block_layer.name == found[1].block_layer.name
        names.append(found[0].block_layer.name)
        pointers.append(found[0].compute(scheduler="threads").frame_ptr.values)
    np.testing.assert_array_equal(*pointers)
    assert names[0] != names[1]


@pytest.mark.parametrize("opened", [md.open_sparse, md.open_peaks], ids=["sparse", "peaks"])
def test_arrays_of_a_folder_that_another_program_changes(tmp_path: Path, opened: Callable[[Path], Any]) -> None:
    path = tmp_path / "run.zarr"
    if opened is md.open_sparse:
        md.write_sparse(table(0), path)
        place = "entry_0000/sparse_frames/intensity"
    else:
        md.write_peaks(md.find_peaks(bright(0), md.Geometry.flat((24, 24)), bins=8, unit="pixel"), path)
        place = "entry_0000/peaks/intensity"
    first = opened(path)
    assert opened(path).block_layer.name == first.block_layer.name
    chunk = path / place / "c/0"
    content = chunk.read_bytes()
    array: Any = zarr.open_array(str(path / place), mode="r+")
    array[:] = array[:] + 1
    assert len(chunk.read_bytes()) > 0
    assert chunk.read_bytes() != content
    assert opened(path).block_layer.name != first.block_layer.name


@pytest.mark.parametrize("suffix", [".tif", ".mrc.gz"])
def test_movies_written_again(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"movie{suffix}"
    names = []
    for add in (0, 1):
        if suffix == ".tif":
            tifffile = pytest.importorskip("tifffile")
            tifffile.imwrite(path, FRAMES + np.uint16(add), photometric="minisblack")
        else:
            import gzip

            plain = tmp_path / "movie.mrc"
            md.write_mrcz(FRAMES + np.uint16(add), plain, codec="none")
            path.write_bytes(gzip.compress(plain.read_bytes()))
        os.utime(path, ns=(next(CLOCK), next(CLOCK)))
        names += [md.open_movie(path).data.name for _ in range(2)]
    assert names[0] == names[1]
    assert names[2] == names[3] != names[0]
