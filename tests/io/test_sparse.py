"""Sparse files: FabIO reads ours, we read pyFAI's and ImageD11's, damaged ones are refused."""

from __future__ import annotations

import pickle
import shutil
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


def test_what_frames_were_made_with_comes_back(tmp_path: Path) -> None:
    """Corrections and limits too, though the beam does not move; radii of sectors keep their unit, places have none."""
    made: dict[str, Any] = {
        "polarization": 0.95,
        "solid_angle": True,
        "radial_range": (3.0, 30.0),
        "dummy": 65535.0,
        "delta_dummy": 2.0,
    }
    found = md.write_sparse(sparse_of(sectors=2, **made), tmp_path / "run.h5")
    assert {name: found.attrs[name] for name in made} == made | {"radial_range": [3.0, 30.0]}
    assert {found[name].attrs["units"] for name in ("radius", "pixel_radius")} == {"pixel"}
    with h5py.File(tmp_path / "run.h5") as file:
        units = {
            name: file[f"{FRAMES}/{name}"].attrs["unit"] for name in ("radius", "mask", "bin_radius", "pixel_radius")
        }
    assert units == {"radius": "bin", "mask": "bin", "bin_radius": "pixel", "pixel_radius": "pixel"}


def test_indices_pack_as_well_in_zarr(tmp_path: Path) -> None:
    """Behind their bits transposed; not so they took twice the room."""
    md.write_sparse(sparse_of(), tmp_path / "run.zarr")
    pieces = (tmp_path / "run.zarr" / FRAMES / "index" / "c").iterdir()
    pixels = md.open_sparse(tmp_path / "run.zarr").compute().sizes["pixel"]
    assert sum(p.stat().st_size for p in pieces) < 2 * pixels


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
    with pytest.raises(MrcFormatError, match=r"run\.h5: frame 0 at byte [\d ]+: (the chunk ends early|the checksum)"):
        md.open_sparse(path).compute(scheduler="sync")


def test_rows_are_read_past_the_hdf5_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns in chunks that frames do not end at, a background in tiles: the library is not asked in tasks."""
    path = tmp_path / "run.h5"
    whole = md.write_sparse(sparse_of(), path).compute()
    with h5py.File(path, "r+") as file:
        group = file[FRAMES]
        for name, chunk in {"index": (7,), "intensity": (7,), "background_avg": (2, 9)}.items():
            values = group[name][()]
            del group[name]
            group.create_dataset(name, data=values, chunks=chunk, compression="gzip")
    sparse = pickle.loads(pickle.dumps(md.open_sparse(path, shots=2)))
    monkeypatch.setattr(h5py, "File", None)
    found = sparse.compute(scheduler="sync")
    for name in ("index", "intensity", "background_avg", "background_std"):
        np.testing.assert_array_equal(found[name], whole[name])
    assert sparse.isel([3]).compute(scheduler="sync")["index"].size == whole.n_pixels[3]


def test_flipped_bytes_never_kill_and_are_said_in_a_line(tmp_path: Path) -> None:
    """The HDF5 library dies of some of them where it unpacks bitshuffle; a checksum finds the rest."""
    path = tmp_path / "run.h5"
    whole = md.write_sparse(sparse_of(sectors=2), path).compute()
    with h5py.File(path) as file:
        spots = [file[f"{FRAMES}/{name}"].id.get_chunk_info(0) for name in ("index", "intensity", "mask")]
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for k in range(60):
        spot, flipped = spots[k % 3], bytearray(content)
        at = spot.byte_offset + int(rng.integers(spot.size))
        flipped[at] ^= int(rng.integers(1, 256))
        path.write_bytes(flipped)
        with pytest.raises(MrcFormatError, match=r"run\.h5.*byte \d+") as said:
            md.open_sparse(path).compute(scheduler="sync")
        assert "\n" not in str(said.value)
    path.write_bytes(content)
    np.testing.assert_array_equal(md.open_sparse(path).compute()["index"], whole["index"])


SIZE = 60 * 70
WRONG: dict[str, tuple[str, Any, str]] = {
    "column of pointers": ("frame_ptr", np.zeros((6, 1), np.uint64), "frame_ptr is uint64 (6, 1), (n) integers"),
    "text for pointers": ("frame_ptr", np.array("x", "S1"), "frame_ptr is |S1 ()"),
    "column of indices": ("index", np.zeros((9, 1), np.uint32), "index is uint32 (9, 1)"),
    "column of counts": ("intensity", np.zeros((9, 1), np.uint16), "intensity is uint16 (9, 1)"),
    "complex counts": ("intensity", np.zeros(9, np.complex64), "intensity is complex64 (9,), (n) numbers"),
    "float16": ("intensity", np.zeros(9, np.float16), "intensity is float16"),
    "a line for a mask": ("mask", np.zeros(SIZE, np.float32), "mask is float32 (4200,), (n, n) numbers"),
    "a cube for a mask": ("mask", np.zeros((60, 70, 1), np.float32), "mask is float32 (60, 70, 1)"),
    "a radius without end": ("mask", np.full((60, 70), np.inf, np.float32), "mask has radii without end"),
    "one radius": ("radius", np.float32(3), "radius is float32 ()"),
    "falling radii": ("radius", np.arange(40, dtype=np.float32)[::-1], "the numbers of radius do not rise"),
    "radii of none": ("radius", np.full(40, np.nan, np.float32), "the numbers of radius do not rise"),
    "three dummies": ("dummy", np.zeros(3), "dummy is float64 (3,), a number"),
    "a small normalization": ("normalization", np.ones((3, 3)), "normalization is float64 (3, 3), (60, 70) numbers"),
    "no x of the beam": ("beam_center_y", np.ones(5), "there is beam_center_y, the other coordinate"),
    "a table of sectors": ("sector", np.zeros((2, 1)), "sector is float64 (2, 1)"),
    "a table of bins": ("bin_radius", np.zeros((20, 1)), "bin_radius is float64 (20, 1)"),
    "a small map": ("pixel_azimuth", np.zeros((3, 3)), "pixel_azimuth is float64 (3, 3)"),
    "a map of nothing": ("pixel_radius", np.full((60, 70), np.nan), "pixel_radius has no numbers at pixels"),
    "azimuths that cannot be": ("pixel_azimuth", np.full((60, 70), 1e9), "pixel_azimuth is up to 1e+09 degrees"),
}


def test_datasets_that_cannot_be_are_refused_in_one_line(tmp_path: Path) -> None:
    md.write_sparse(sparse_of(sectors=2), tmp_path / "good.h5")
    path = tmp_path / "run.h5"
    for name, value, message in WRONG.values():
        shutil.copy(tmp_path / "good.h5", path)
        with h5py.File(path, "r+") as file:
            group = file[FRAMES]
            if name in group:
                del group[name]
            group[name] = value
        with pytest.raises(MrcFormatError) as said:
            md.open_sparse(path)
        assert str(said.value).startswith(f"{path}: {FRAMES}: {message}")
        assert "\n" not in str(said.value)
    shutil.copy(tmp_path / "good.h5", path)
    with h5py.File(path, "r+") as file:
        file[f"{FRAMES}/beam_center_y"] = file[f"{FRAMES}/beam_center_x"] = np.array([1, 2, np.nan, 4, 5.0])
    with pytest.raises(MrcFormatError, match="beam_center_y is no number in shot 2"):
        md.open_sparse(path)
    shutil.copy(tmp_path / "good.h5", path)
    for name in ("sector", "bin_radius", "pixel_radius", "pixel_azimuth"):
        with h5py.File(path, "r+") as file:
            del file[f"{FRAMES}/{name}"]
        with pytest.raises(MrcFormatError, match=f"the background has sectors, but .*{name}.* is lost"):
            md.open_sparse(path)
    for text, wrong in (
        ('{"sparsify": {"noise": "x"}}', "noise"),
        ('{"geometry": {"pixel_size_m": 1}}', "pixel_size_m"),
    ):
        shutil.copy(tmp_path / "good.h5", path)
        with h5py.File(path, "r+") as file:
            note = file["entry_0000/sparsify/configuration"]
            del note["data"]
            note["data"] = text
        with pytest.raises(MrcFormatError, match=f"configuration: {wrong} is"):
            md.open_sparse(path)


def test_a_pixel_that_is_stored_twice_is_refused(tmp_path: Path) -> None:
    md.write_sparse(sparse_of(), tmp_path / "run.h5")
    with h5py.File(tmp_path / "run.h5", "r+") as file:
        first = int(file[f"{FRAMES}/frame_ptr"][2])
        index = file[f"{FRAMES}/index"]
        index[first], index[first + 1] = index[first + 1], index[first]
    with pytest.raises(MrcFormatError, match=r"run\.h5: frame 2: the indices do not rise"):
        md.open_sparse(tmp_path / "run.h5", shots=1).compute(scheduler="sync")
    with h5py.File(tmp_path / "run.h5", "r+") as file:
        file.attrs["creator"] = "pyFAI 2026.1"  # whose indices are in no order
        in_order = md.open_sparse(tmp_path / "run.h5").compute(scheduler="sync")["index"][first : first + 2]
        index = file[f"{FRAMES}/index"]
        index[first] = index[first + 1]
    assert in_order[0] < in_order[1]
    with pytest.raises(MrcFormatError, match=r"run\.h5: frame 2: a pixel is stored twice"):
        md.open_sparse(tmp_path / "run.h5").compute(scheduler="sync")


def test_a_zarr_folder_that_lost_a_piece_is_refused(tmp_path: Path) -> None:
    """Zarr gives zeros for a chunk that is not there: never so here, were all its numbers zeros."""
    whole = md.write_sparse(sparse_of(), tmp_path / "run.zarr").compute()
    for broken in sorted(p for p in (tmp_path / "run.zarr" / FRAMES).rglob("*") if p.is_file()):
        content = broken.read_bytes()
        for left in (None, content[: len(content) // 2], b"\x00" * len(content)):
            broken.unlink(missing_ok=True)
            if left is not None:
                broken.write_bytes(left)
            name = broken.relative_to(tmp_path / "run.zarr" / FRAMES).parts[0]
            if name == "dummy" and left is None and broken.name == "zarr.json":
                continue  # frames of pyFAI without masked pixels have none
            with pytest.raises(MrcFormatError, match=r"run\.zarr.*") as said:
                md.open_sparse(tmp_path / "run.zarr").compute(scheduler="sync")
            assert "\n" not in str(said.value)
        broken.write_bytes(content)
    np.testing.assert_array_equal(md.open_sparse(tmp_path / "run.zarr").compute()["index"], whole["index"])
    (tmp_path / "run.zarr/zarr.json").unlink()
    with pytest.raises(MrcFormatError, match=r"run\.zarr: this folder is no Zarr group"):
        md.open_sparse(tmp_path / "run.zarr")


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


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MrczdaskError, match=r"there is no folder .*missing: make it first$"):
        md.write_sparse(sparse_of(), tmp_path / "missing/run.h5")


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
    with pytest.raises(ValueError, match=r"run\.dat: the suffix names no format .* one of \.h5, "):
        md.write_sparse(table, tmp_path / "run.dat")
    with pytest.raises(MrczdaskError, match=r"run\.h5: the dummy -1 does not fit uint16"):
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


def test_all_scans_of_imaged11_are_opened_and_one_is_chosen(tmp_path: Path) -> None:
    whole = sparse_of().compute()
    names = ("1.1", "2.1", "10.1")
    for name in names:
        md.write_sparse(sparse_of(), tmp_path / f"{name}.h5", layout="imaged11")
    with h5py.File(tmp_path / "all.h5", "w") as file:
        for name in names:
            file[name] = h5py.ExternalLink(f"{name}.h5", "1.1")
    all_of_them = md.open_sparse(tmp_path / "all.h5", shots=2)
    assert all_of_them["scan"].values.tolist() == [name for name in names for _ in range(5)]
    found = all_of_them.compute()
    assert found["shot"].values.tolist() == list(range(15))
    np.testing.assert_array_equal(found["intensity"], np.tile(whole["intensity"], 3))
    np.testing.assert_array_equal(found["index"], np.tile(whole["index"], 3))
    one = md.open_sparse(tmp_path / "all.h5", scan="10.1").compute()
    np.testing.assert_array_equal(one["intensity"], whole["intensity"])
    with pytest.raises(MrcFormatError, match=r"no scan 3\.1, only 1\.1, 2\.1, 10\.1"):
        md.open_sparse(tmp_path / "all.h5", scan="3.1")
    with h5py.File(tmp_path / "10.1.h5", "a") as file:
        file["1.1"].attrs["shape0"] = 61
    with pytest.raises(MrcFormatError, match="choose one with scan="):
        md.open_sparse(tmp_path / "all.h5")
    md.write_sparse(sparse_of(), tmp_path / "pyfai.h5")
    with pytest.raises(MrcFormatError, match=r"no scan 1\.1: the frames are in"):
        md.open_sparse(tmp_path / "pyfai.h5", scan="1.1")


def test_columns_of_other_files_are_read_from_them(tmp_path: Path) -> None:
    """At the places of one file there are other bytes in the other; a source that is missing reads as zeros."""
    whole = md.write_sparse(sparse_of(), tmp_path / "scan.h5", layout="imaged11").compute()
    with h5py.File(tmp_path / "scan.h5") as source, h5py.File(tmp_path / "seen.h5", "w") as file:
        file["padding"] = np.arange(9000, dtype="u4")
        group = file.create_group("1.1")
        group.attrs.update(source["1.1"].attrs)
        group["nnz"] = source["1.1/nnz"][()]
        for name in ("row", "intensity"):
            group[name] = h5py.ExternalLink("scan.h5", f"/1.1/{name}")
        layout = h5py.VirtualLayout(source["1.1/col"].shape, "u2")
        layout[:] = h5py.VirtualSource("scan.h5", "1.1/col", source["1.1/col"].shape)
        group.create_virtual_dataset("col", layout)
    found = md.open_sparse(tmp_path / "seen.h5").compute()
    for name in ("frame_ptr", "index", "intensity"):
        np.testing.assert_array_equal(found[name], whole[name])
    (tmp_path / "scan.h5").rename(tmp_path / "gone.h5")
    with h5py.File(tmp_path / "seen.h5", "a") as file:
        for name in ("row", "intensity"):
            del file["1.1"][name]
            file["1.1"][name] = h5py.ExternalLink("gone.h5", f"/1.1/{name}")
    with pytest.raises(MrcFormatError, match=r"scan\.h5, which is missing"):
        md.open_sparse(tmp_path / "seen.h5")


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
