"""Sparse frames and peaks in archives: the same table back, block by block, whatever interrupts its writing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import mrczdask as md
from mrczdask.errors import MrcFormatError, ResumeError
from mrczdask.io import ragged_archive
from mrczdask.io.ragged import Ragged, split
from mrczdask.io.ragged_archive import STATE
from mrczdask.io.sparse_table import sparse_layout
from tests.io.conftest import Bucket

COLUMNS = ("frame_ptr", "index", "intensity", "n_pixels", "background_avg", "shot", "radius", "pixel_radius")


def table_of(counts: list[int], *, shots: int = 2, seed: int = 0, bad: bool = False) -> Ragged:
    """Sparse frames of 6 x 7 pixels with so many stored pixels each."""
    rng = np.random.default_rng(seed)
    n = len(counts)
    index = np.concatenate([np.sort(rng.choice(42, count, replace=False)) for count in counts] or [np.empty(0)])
    table = xr.Dataset(
        {
            "frame_ptr": ("shot_edge", np.cumsum([0, *counts]).astype("u8")),
            "n_pixels": ("shot", np.array(counts, "i8")),
            "index": ("pixel", index.astype("u4") + 40 * bad),
            "intensity": ("pixel", rng.integers(1, 99, index.size).astype("u2")),
            "background_avg": (("shot", "radius"), rng.random((n, 5)).astype("f4")),
        },
        {"shot": np.arange(n) + 3, "radius": np.arange(5.0), "pixel_radius": (("y", "x"), rng.random((6, 7)))},
        {"shape": [6, 7], "dummy": 0.0, "noise": 1.5, "error_model": "poisson"},
    )
    return split(table, sparse_layout(np.dtype("u2")), shots)


def same(found: xr.Dataset, wanted: xr.Dataset) -> None:
    for name in COLUMNS:
        np.testing.assert_array_equal(found[name], wanted[name])
        assert found[name].dtype == wanted[name].dtype, name
    assert {name: found.attrs[name] for name in wanted.attrs} == wanted.attrs


@pytest.mark.parametrize("counts", [[3, 0, 5, 1, 0], [0, 0, 0], [42]])
def test_sparse_frames_come_back(tmp_path: Path, counts: list[int]) -> None:
    table = table_of(counts)
    whole = table.compute()
    stored = md.write_archive(table, tmp_path / "s.zarr")
    assert isinstance(stored, Ragged)
    assert stored.chunks == table.chunks
    same(stored.compute(), whole)
    named = md.open_archive(tmp_path / "s.zarr", "sparse")
    assert isinstance(named, Ragged)
    same(named.isel(slice(0, 2)).compute(), table.isel(slice(0, 2)).compute())
    tree = md.open_archive(tmp_path / "s.zarr")
    same(tree["sparse"].to_dataset(), whole)
    again = md.write_archive(whole, tmp_path / "again.zarr", group="derived/sparse")
    assert isinstance(again, xr.Dataset)
    same(again, whole)
    assert md.validate(tmp_path / "s.zarr").findings == ()


def test_what_verbs_give_goes_in_and_serves_verbs(tmp_path: Path) -> None:
    frames = np.random.default_rng(3).poisson(5, (6, 60, 70)).astype(np.uint16)
    frames[:, 20:22, 30:32] += 400
    lazy = xr.DataArray(frames, dims=("shot", "y", "x")).chunk(shot=2)
    geometry = md.Geometry.flat((60, 70), distance_m=100.0)
    sparse = md.sparsify(lazy, geometry, bins=20, unit="pixel", cutoff_pick=1.0)
    peaks = md.find_peaks(lazy, geometry, bins=20, unit="pixel")
    stored = md.write_archive(sparse, tmp_path / "s.zarr")
    np.testing.assert_array_equal(md.densify(stored), md.densify(sparse))
    found = md.write_archive(peaks, tmp_path / "s.zarr").compute()
    wanted = peaks.compute()
    for name in ("n_peaks", "peak_ptr", "y", "x", "intensity", "sigma", "n_pixels", "index"):
        np.testing.assert_array_equal(found[name], wanted[name])
    assert set(md.open_archive(tmp_path / "s.zarr").children) == {"sparse", "peaks"}
    assert md.write_peaks(found, tmp_path / "p.h5").n_peaks.values.tolist() == wanted.n_peaks.values.tolist()


class _KilledError(Exception):
    pass


def stop_at(block: int) -> Callable[..., None]:
    def progress(done: int, total: int, label: str) -> None:
        if done == block:
            raise _KilledError

    return progress


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_run_that_was_killed_goes_on(tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of([3, 4, 5, 1, 0, 7, 2])
    with pytest.raises(_KilledError):
        md.write_archive(table, tmp_path / "s.zarr", progress=stop_at(stop))
    with pytest.raises(MrcFormatError, match=r"s\.zarr/sparse: \d of 4 blocks are written: .*resume=True"):
        md.open_archive(tmp_path / "s.zarr", "sparse")
    root = zarr.open_group(str(tmp_path / "s.zarr/sparse"), mode="r+")
    root["index"].resize((root["index"].shape[0] + 2,))  # type: ignore[union-attr]  # as of a kill between two columns
    asked: list[int] = []
    real = ragged_archive.run_regions

    def counted(tasks: Any, **options: Any) -> Any:
        tasks = list(tasks)
        asked.append(len(tasks))
        return real(tasks, **options)

    monkeypatch.setattr(ragged_archive, "run_regions", counted)
    for _ in range(2):
        same(md.write_archive(table, tmp_path / "s.zarr").compute(), table.compute())
    assert asked == [4 - stop + 1]


def test_other_tables_and_foreign_groups_are_refused(tmp_path: Path) -> None:
    table = table_of([3, 4, 5])
    md.write_archive(table, tmp_path / "s.zarr")
    with pytest.raises(ResumeError, match="input was"):
        md.write_archive(table_of([3, 4, 5], seed=1), tmp_path / "s.zarr")
    other = table_of([1, 1], seed=1)
    same(md.write_archive(other, tmp_path / "s.zarr", resume=False).compute(), other.compute())
    zarr.create_array(str(tmp_path / "t.zarr"), name="sparse/index", data=np.ones(3, "u4"))
    with pytest.raises(ResumeError, match="holds the array 'index' and no plan"):
        md.write_archive(table, tmp_path / "t.zarr")
    with pytest.raises(ValueError, match="one process writes a ragged table"):
        md.write_archive(table, tmp_path / "u.zarr", create_only=True)


def test_damage_is_told(tmp_path: Path) -> None:
    md.write_archive(table_of([3, 4], bad=True), tmp_path / "s.zarr")
    with pytest.raises(MrcFormatError, match=r"index \d\d, a frame has 42 pixels"):
        md.open_archive(tmp_path / "s.zarr", "sparse").compute()
    root = zarr.open_group(str(tmp_path / "s.zarr/sparse"), mode="r+")
    root["frame_ptr"][1] = 99  # type: ignore[index]
    with pytest.raises(MrcFormatError, match="pointers of the shots do not rise from 0 to 7"):
        md.open_archive(tmp_path / "s.zarr", "sparse")
    shards = tmp_path / "s.zarr/sparse/frame_ptr/.journal" / STATE
    assert shards.exists()
    del root["index"]
    with pytest.raises(MrcFormatError, match="a part of it is lost"):
        md.open_archive(tmp_path / "s.zarr", "sparse")


def test_tables_in_object_stores(bucket: Bucket) -> None:
    table = table_of([3, 4, 5, 1, 0, 7, 2])
    url = f"{bucket.url}/s.zarr"
    with pytest.raises(_KilledError):
        md.write_archive(table, url, progress=stop_at(2), storage_options=bucket.options)
    stored = md.write_archive(table, url, storage_options=bucket.options)
    same(stored.compute(scheduler="threads"), table.compute())
    store = zarr.storage.MemoryStore()
    same(md.write_archive(table, store).compute(), table.compute())
