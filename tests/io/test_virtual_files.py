"""Many files are indexed once each: a run that was killed goes on, and gives what one without interruption does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

import mrczdask as md
from mrczdask.errors import MrcFormatError
from mrczdask.io import virtual_files
from mrczdask.io.virtual_files import IndexedFile, index_file
from tests.io.conftest import Bucket

FILES = 6
CODEC = {"mrc": None, "mrcz": "zstd"}
TIMES = np.datetime64("2020-02-03T10:00:00", "ns") + np.arange(FILES)[::-1] * np.timedelta64(1, "m")


def movie(k: int) -> xr.DataArray:
    """A movie that says much of itself."""
    found = md.simulate.poisson((3, 12, 10), mean=1.0, seed=k).compute()
    coords = {"acquired": TIMES[k], "dose": ("frame", [0.5, 1.0, 1.5 + k]), "dose_rate": 1.5 + k}
    return found.assign_coords(coords).assign_attrs(pixel_size_angstrom=1.25, voltage_kv=300.0)


@pytest.fixture(params=["mrcz", "mrc", "h5"])
def pattern(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    for k in range(FILES):
        if request.param == "h5":
            with h5py.File(tmp_path / f"m{k}.h5", "w") as file:
                file.create_dataset("entry/data/data", data=movie(k).values, chunks=(2, 12, 10), compression="gzip")
        else:
            md.write_mrcz(
                movie(k), tmp_path / f"m{k}.{request.param}", codec=None if request.param == "mrc" else "zstd"
            )
    return str(tmp_path / f"m*.{request.param}")


@pytest.fixture
def indexed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are looked into."""
    seen: list[str] = []
    real = index_file

    def counted(url: str, options: Any) -> IndexedFile:
        seen.append(Path(url).name)
        return real(url, options)

    monkeypatch.setattr(virtual_files, "index_file", counted)
    return seen


def stop_at(files: int) -> Any:
    def progress(done: int, total: int, label: str) -> None:
        assert (total, label) == (FILES, "s.json")
        if done == files:
            raise KeyboardInterrupt

    return progress


def test_what_is_kept_comes_back(pattern: str) -> None:
    for k in (0, FILES - 1):
        one = index_file(pattern.replace("*", str(k)), None)
        again = IndexedFile.of_columns(one.columns())
        for name, value in vars(one).items():
            if name == "coords":
                assert {key: dims for key, (dims, _) in value.items()} == {k: d for k, (d, _) in again.coords.items()}
                for key, (_, values) in value.items():
                    np.testing.assert_array_equal(again.coords[key][1], values)
            else:
                np.testing.assert_equal(getattr(again, name), value)


def test_a_run_that_was_stopped_goes_on(tmp_path: Path, pattern: str, indexed: list[str]) -> None:
    target, folder = tmp_path / "s.json", tmp_path / "s.json.files"
    with pytest.raises(KeyboardInterrupt):
        md.virtualize(pattern, target, resume=True, progress=stop_at(3))
    kept = len(list(folder.glob("*.npz")))
    assert kept >= 3
    assert not target.exists()
    before, seen = len(indexed), list[int]()
    cube = md.virtualize(pattern, target, resume=True, progress=lambda done, *_: seen.append(done))
    assert len(indexed) - before == FILES - kept
    assert seen == list(range(FILES + 1))
    assert not folder.exists()
    whole = md.virtualize(pattern, tmp_path / "whole.json")
    xr.testing.assert_identical(cube.compute(), whole.compute())
    if not pattern.endswith("h5"):
        assert cube.acquired.values.tolist() == sorted(TIMES.tolist())
        np.testing.assert_array_equal(cube.images[0], movie(FILES - 1))
        assert cube.images.attrs["pixel_size_angstrom"] == 1.25


def test_files_that_changed_and_new_ones_are_indexed(tmp_path: Path, indexed: list[str]) -> None:
    for k in range(3):
        md.write_mrcz(movie(k), tmp_path / f"m{k}.mrcz")
    (tmp_path / "m3.mrcz").write_bytes(b"no movie")
    pattern, target = str(tmp_path / "m*.mrcz"), tmp_path / "s.json"
    with pytest.raises(MrcFormatError, match=r"1 movies cannot be opened: .*m3\.mrcz"):
        md.virtualize(pattern, target, resume=True)
    md.write_mrcz(movie(4).astype("u1"), tmp_path / "m1.mrcz", codec="zlib")
    for k in (3, 4):
        md.write_mrcz(movie(k), tmp_path / f"m{k}.mrcz")
    indexed.clear()
    cube = md.virtualize(pattern, target, resume=True, order="name")
    assert sorted(indexed) == ["m1.mrcz", "m3.mrcz", "m4.mrcz"]
    np.testing.assert_array_equal(cube.images[1], movie(4))


KILLED = """
import os, signal, sys
import mrczdask as md

def progress(done, total, label):
    if done == 2:
        os.kill(os.getpid(), signal.SIGKILL)

md.virtualize(sys.argv[1], sys.argv[2], resume=True, progress=progress)
"""


def test_a_process_that_was_killed(tmp_path: Path, indexed: list[str]) -> None:
    for k in range(FILES):
        md.write_mrcz(movie(k), tmp_path / f"m{k}.mrcz")
    where = [str(tmp_path / "m*.mrcz"), str(tmp_path / "s.json")]
    done = subprocess.run([sys.executable, "-c", KILLED, *where], check=False)
    assert done.returncode == -9
    cube = md.virtualize(*where, resume=True)
    assert len(indexed) <= FILES - 2
    np.testing.assert_array_equal(cube.images, [movie(k) for k in range(FILES)][::-1])


def test_files_and_index_in_a_store(bucket: Bucket, indexed: list[str]) -> None:
    for module in ("icechunk", "virtualizarr"):
        pytest.importorskip(module)
    how: dict[str, Any] = {"resume": True, "storage_options": bucket.options}
    for k in range(FILES):
        md.write_mrcz(movie(k), f"{bucket.url}/in/m{k}.mrcz", storage_options=bucket.options)
    where = f"{bucket.url}/in/m*.mrcz", f"{bucket.url}/s.icechunk"

    def stop(done: int, *_: Any) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        md.virtualize(*where, progress=stop, **how)
    kept = sum(key.endswith(".npz") for key in keys(bucket))
    before = len(indexed)
    cube = md.virtualize(*where, **how)
    assert 4 <= kept == FILES - (len(indexed) - before)
    assert not any(".files/" in key for key in keys(bucket))
    np.testing.assert_array_equal(cube.images, [movie(k) for k in range(FILES)][::-1])


def keys(bucket: Bucket) -> list[str]:
    return bucket.keys()
