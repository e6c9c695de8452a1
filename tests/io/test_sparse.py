"""Sparse files: FabIO reads ours, we read pyFAI's and ImageD11's, damaged ones are refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest

import mrczdask as md
from mrczdask.errors import MrcFormatError, MrczdaskError, ResumeError
from mrczdask.io.ragged import Ragged
from tests.io.conftest import Bucket

h5py = pytest.importorskip("h5py")
pytest.importorskip("hdf5plugin")

FRAMES = "entry_0000/sparse_frames"


def sparse_of(bins_of: int = 20, **options: Any) -> Ragged:
    frames = np.random.default_rng(3).poisson(5, (5, 60, 70)).astype(np.uint16)
    frames[:, 20:22, 30:32] += 400
    geometry = md.Geometry.flat((60, 70), distance_m=100.0)
    lazy = da.from_array(frames, chunks=(2, 60, 70))
    return md.sparsify(lazy, geometry, bins=bins_of, unit="pixel", cutoff_pick=1.0, **options)


@pytest.mark.parametrize("suffix", [".h5", ".zarr"])
@pytest.mark.parametrize("lazy", [True, False])
def test_a_written_table_comes_back(tmp_path: Path, suffix: str, lazy: bool) -> None:
    sparse = sparse_of(solid_angle=True)
    whole = sparse.compute()
    again = md.write_sparse(sparse if lazy else whole, tmp_path / f"run{suffix}")
    found = again.compute()
    for name in ("frame_ptr", "index", "intensity", "background_avg", "background_std", "n_pixels", "radius"):
        np.testing.assert_array_equal(found[name], whole[name])
        assert found[name].dtype == whole[name].dtype
    np.testing.assert_array_equal(found.pixel_radius, whole.pixel_radius)
    assert found.attrs["cutoff_pick"] == 1.0
    assert [p.name for p in tmp_path.iterdir()] == [f"run{suffix}"]
    md.write_sparse(again.isel(slice(1, 3)), tmp_path / f"some{suffix}")
    assert len(md.open_sparse(tmp_path / f"some{suffix}")) == 2


@pytest.mark.real_data
def test_fabio_gives_the_same_frames_from_our_file_and_from_pyfais(data_dir: Path, tmp_path: Path) -> None:
    fabio = pytest.importorskip("fabio")
    theirs = data_dir / "simulated/bragg_stills_sparse_poisson.h5"
    sparse = md.open_sparse(theirs)
    assert len(sparse) == 12
    md.write_sparse(sparse.isel([0, 7]), tmp_path / "ours.h5")
    with fabio.open(str(theirs)) as original, fabio.open(str(tmp_path / "ours.h5")) as ours:
        assert ours.nframes == 2
        for k, shot in enumerate((0, 7)):
            np.testing.assert_array_equal(ours.getframe(k).data, original.getframe(shot).data)


@pytest.mark.real_data
def test_a_large_scan_of_imaged11_opens_at_once(data_dir: Path) -> None:
    path = data_dir / "real/diffraction/silicon_fullscan_strong_sparse.h5"
    start = time.perf_counter()
    sparse = md.open_sparse(path)
    assert time.perf_counter() - start < 5  # the target of one second is the benchmark's: this machine may be busy
    assert (len(sparse), sparse.attrs["shape"]) == (180500, [2162, 2068])
    table = sparse.isel(slice(1000, 1040)).compute()
    with h5py.File(path) as file:
        nnz = file["1.1/nnz"][:1040].astype(int)
        rows = slice(nnz[:1000].sum(), nnz.sum())
        index = file["1.1/row"][rows].astype(int) * 2068 + file["1.1/col"][rows]
        assert int(table.intensity.sum()) == int(file["1.1/intensity"][rows].sum())
    assert table.n_pixels.values.tolist() == nnz[1000:].tolist()
    assert sorted(table["index"].values.tolist()) == sorted(index.tolist())


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [("frame_ptr", 2, 0, "pointers"), ("frame_ptr", 5, 10**9, "pointers"), ("index", 0, 4200, "index 4200")],
)
def test_wild_pointers_are_refused(tmp_path: Path, name: str, place: int, value: int, message: str) -> None:
    md.write_sparse(sparse_of(), tmp_path / "run.h5")
    with h5py.File(tmp_path / "run.h5", "r+") as file:
        file[f"{FRAMES}/{name}"][place] = value
    with pytest.raises(MrcFormatError, match=message):
        md.open_sparse(tmp_path / "run.h5").compute(scheduler="sync")


def test_tables_of_other_lengths_are_refused(tmp_path: Path) -> None:
    """Short columns and tables, and chunks that do not unpack: never pixels of another frame."""
    path = tmp_path / "run.h5"
    for name, message in (("index", "pointers"), ("intensity", "pointers"), ("background_std", "are wanted")):
        md.write_sparse(sparse_of(), path)
        with h5py.File(path, "r+") as file:
            array = file[f"{FRAMES}/{name}"]
            array.resize(array.shape[0] - 2, axis=0)
        with pytest.raises(MrcFormatError, match=message):
            md.open_sparse(path)
    md.write_sparse(sparse_of(), path)
    with h5py.File(path) as file:
        spot = file[f"{FRAMES}/index"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[spot.byte_offset + 16 : spot.byte_offset + spot.size] = b"\xff" * (spot.size - 16)
    path.write_bytes(content)
    with pytest.raises(MrcFormatError, match=r"run\.h5: frame 0: the stored pixels do not unpack"):
        md.open_sparse(path).compute(scheduler="sync")


@pytest.mark.parametrize("suffix", [".h5", ".zarr"])
def test_sparse_files_are_read_from_an_object_store(tmp_path: Path, bucket: Bucket, suffix: str) -> None:
    path = tmp_path / f"run{suffix}"
    whole = md.write_sparse(sparse_of(), path).compute()
    for one in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
        bucket.put(str(one.relative_to(tmp_path)), one.read_bytes())
    found = md.open_sparse(f"{bucket.url}/run{suffix}", storage_options=bucket.options).compute(scheduler="threads")
    for name in ("frame_ptr", "index", "intensity", "background_avg"):
        np.testing.assert_array_equal(found[name], whole[name])


def test_sparse_files_are_written_to_an_object_store_and_gone_on_with(bucket: Bucket) -> None:
    table, seen = sparse_of(), list[int]()
    how: dict[str, Any] = {"resume": True, "storage_options": bucket.options}
    url = f"{bucket.url}/folder/run.zarr"
    with pytest.raises(KeyboardInterrupt):
        md.write_sparse(table, url, progress=stop_at(2), **how)
    assert {key.rpartition("/")[0] for key in keys_of(bucket)} == {"folder/run.zarr.blocks"}
    kept = sum(key.endswith(".npz") for key in keys_of(bucket))
    assert 0 < kept < len(table.chunks)
    found = md.write_sparse(table, url, progress=lambda done, *_: seen.append(done), **how).compute(scheduler="threads")
    assert seen[-1] == len(table.chunks)
    whole = table.compute()
    for name in ("frame_ptr", "index", "intensity", "background_avg"):
        np.testing.assert_array_equal(found[name], whole[name])
    assert all(key.startswith("folder/run.zarr/") for key in keys_of(bucket))
    bucket.journal.clear()
    md.write_sparse(table, url, **how)
    assert not bucket.journal.of("PUT")


def keys_of(bucket: Bucket) -> list[str]:
    return bucket.keys()


def stop_at(blocks: int) -> Callable[[int, int, str], None]:
    """Progress that ends the run after so many blocks."""

    def count(done: int, total: int, label: str) -> None:
        if done >= blocks:
            raise KeyboardInterrupt

    return count


def test_hdf5_is_not_written_to_an_object_store(bucket: Bucket) -> None:
    for name in ("run.h5", "run.nxs"):
        with pytest.raises(MrczdaskError, match=f"{name}: HDF5 files are written to disks only: give a name that ends"):
            md.write_sparse(sparse_of(), f"{bucket.url}/{name}", storage_options=bucket.options)
    assert bucket.keys() == []


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        md.open_sparse(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(MrcFormatError, match="no HDF5 file"):
        md.open_sparse(tmp_path / "text.h5")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(MrcFormatError, match="no sparse frames"):
        md.open_sparse(tmp_path / "empty.h5")


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    table = sparse_of().compute()
    with pytest.raises(MrczdaskError, match="ends in"):
        md.write_sparse(table, tmp_path / "run.dat")
    with pytest.raises(MrczdaskError, match="does not fit uint16"):
        md.write_sparse(table.assign_attrs(dummy=-1.0), tmp_path / "run.h5")
    with pytest.raises(MrczdaskError, match="lacks pixel_radius"):
        md.write_sparse(table.drop_vars("pixel_radius"), tmp_path / "run.h5")
    assert not list(tmp_path.iterdir())


def test_imaged11s_layout_keeps_the_pixels(tmp_path: Path) -> None:
    whole = sparse_of().compute()
    again = md.write_sparse(sparse_of(), tmp_path / "scan.h5", layout="imaged11")
    found = again.compute()
    for name in ("frame_ptr", "index", "intensity"):
        np.testing.assert_array_equal(found[name], whole[name])
    with h5py.File(tmp_path / "scan.h5") as file:
        scan = file["1.1"]
        assert dict(scan.attrs) == {"itype": "uint16", "nframes": 5, "shape0": 60, "shape1": 70}
        assert {name: scan[name].dtype.str for name in scan} == {
            "nnz": "<i8",
            "row": "<u2",
            "col": "<u2",
            "intensity": "<u2",
        }
    with pytest.raises(ValueError, match="pyfai, imaged11"):
        md.write_sparse(sparse_of(), tmp_path / "scan.h5", layout="cxi")


def test_the_detector_is_written_and_read(tmp_path: Path) -> None:
    geometry = md.Geometry.flat(
        (60, 70), distance_m=0.2, pixel_size_m=(75e-6, 80e-6), beam_center=(31.0, 33.5), wavelength_m=1.2e-10
    )
    found = md.write_sparse(sparse_of(), tmp_path / "run.h5", geometry=geometry)
    assert found.attrs["beam_center"] == [31.0, 33.5]
    assert found.attrs["pixel_size_m"] == [75e-6, 80e-6]
    assert found.attrs["distance_m"] == 0.2
    assert found.attrs["wavelength_m"] == pytest.approx(1.2e-10)
    assert found["radius"].attrs["units"] == "pixel"
    once_more = md.write_sparse(found, tmp_path / "again.h5")
    assert {k: v for k, v in once_more.attrs.items() if k != "dummy"} == {
        k: v for k, v in found.attrs.items() if k != "dummy"
    }


def test_groups_of_other_names_are_found_as_fabio_finds_them(tmp_path: Path) -> None:
    """LIMA names the entry of its default, and the frames in it."""
    whole = md.write_sparse(sparse_of(), tmp_path / "run.h5").compute()
    with h5py.File(tmp_path / "run.h5", "r+") as file:
        file.move("entry_0000", "entry_0007")
        file.move("entry_0007/sparse_frames", "entry_0007/instrument/jungfrau/data")
        file.attrs["default"] = "entry_0007"
        file.attrs["creator"] = "LIMA-1.9.19"
        file["entry_0007"].attrs["default"] = "instrument/jungfrau/data"
        del file["entry_0007"].attrs["pyFAI_sparse_frames"]
    found = md.open_sparse(tmp_path / "run.h5").compute()
    for name in ("frame_ptr", "index", "intensity", "background_avg"):
        np.testing.assert_array_equal(found[name], whole[name])


class _KilledError(Exception):
    pass


@pytest.mark.parametrize("suffix", [".h5", ".zarr"])
def test_a_run_that_was_killed_goes_on(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"run{suffix}"
    whole = md.write_sparse(sparse_of(), tmp_path / f"whole{suffix}").compute()

    def stop(done: int, total: int, label: str) -> None:
        if done == 2:
            raise _KilledError

    with pytest.raises(_KilledError):
        md.write_sparse(sparse_of(), path, resume=True, progress=stop)
    assert not path.exists()
    kept = tmp_path / f"run{suffix}.blocks"
    assert len(list(kept.glob("*.npz"))) in (1, 2)
    with pytest.raises(ResumeError, match="begun with other parameters: detector was"):
        md.write_sparse(sparse_of(bins_of=21), path, resume=True)
    seen: list[int] = []
    found = md.write_sparse(sparse_of(), path, resume=True, progress=lambda done, *_: seen.append(done))
    assert seen[0] == 0
    assert seen[-1] == 3
    assert not kept.exists()
    for name in whole.variables:
        np.testing.assert_array_equal(found.compute()[name], whole[name])
    before = path.stat().st_mtime_ns
    with dask.config.set(scheduler=lambda *_, **__: 1 / 0):
        md.write_sparse(sparse_of(), path, resume=True)
    assert path.stat().st_mtime_ns == before
