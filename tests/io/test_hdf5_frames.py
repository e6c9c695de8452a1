"""Frames in HDF5: the same pixels as h5py gives, without its lock, and one-line errors for what is broken."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import mrczdask as md
from mrczdask.errors import MrcFormatError
from mrczdask.io.hdf5_reader import LibraryReader
from mrczdask.io.movie_array import movie_array
from tests.io.conftest import Bucket

h5py = pytest.importorskip("h5py")
hdf5plugin = pytest.importorskip("hdf5plugin")

SHAPE = (5, 33, 47)


def pixels(dtype: str = "uint16", seed: int = 1) -> NDArray[Any]:
    frames = np.random.default_rng(seed).poisson(0.7, SHAPE)
    frames[2, :9] = np.random.default_rng(2).integers(0, 2**15, (9, SHAPE[2]))  # does not pack
    return frames.astype(dtype)


def master(folder: Path, n_files: int = 2, **options: Any) -> Path:
    """An Eiger master file with its data files."""
    detector = {"beam_center_x": 20.5, "beam_center_y": 16.0, "x_pixel_size": 75e-6, "y_pixel_size": 75e-6}
    with h5py.File(folder / "run_master.h5", "w") as file:
        file.attrs["default"] = "entry"
        for k in range(n_files):
            name = f"run_data_{k + 1:06d}.h5"
            file[f"entry/data/data_{k + 1:06d}"] = h5py.ExternalLink(name, "/entry/data/data")
            with h5py.File(folder / name, "w") as data:
                data.create_dataset(
                    "entry/data/data", data=pixels("uint32", k), chunks=(1, *SHAPE[1:]), **options or BSLZ4
                )
        group = file.create_group("entry/instrument/detector")
        group.attrs["NX_class"] = "NXdetector"
        for name, value in detector.items():
            group[name] = value
        group["detector_distance"] = 120.0
        group["detector_distance"].attrs["units"] = "mm"
        group["bit_depth_image"] = 16
        group["pixel_mask"] = (np.arange(SHAPE[1] * SHAPE[2]).reshape(SHAPE[1:]) % 7 == 0).astype("u4") * 2
        file["entry/instrument/beam/incident_wavelength"] = 0.9686
    return folder / "run_master.h5"


BSLZ4 = dict(hdf5plugin.Bitshuffle(cname="lz4"))
PACKED: dict[str, dict[str, Any]] = {
    "nothing": {"chunks": (1, 33, 47)},
    "bitshuffle lz4": {"chunks": (1, 33, 47), **BSLZ4},
    "bitshuffle lz4, tiles": {"chunks": (2, 16, 13), **BSLZ4},
    "bitshuffle zstd": {"chunks": (1, 33, 47), **hdf5plugin.Bitshuffle(cname="zstd")},
    "small blocks": {"chunks": (3, 33, 47), **hdf5plugin.Bitshuffle(nelems=64, cname="lz4")},
    "lz4": {"chunks": (1, 33, 47), **hdf5plugin.LZ4()},
    "lz4, blocks": {"chunks": (2, 33, 47), **hdf5plugin.LZ4(nbytes=1000)},
    "gzip and shuffle": {"chunks": (1, 20, 20), "compression": "gzip", "shuffle": True},
    "zstd": {"chunks": (1, 33, 47), **hdf5plugin.Zstd()},
    "blosc": {"chunks": (1, 33, 47), **hdf5plugin.Blosc(cname="zstd", shuffle=2)},
    "checksums": {"chunks": (1, 33, 47), "fletcher32": True},
    "gzip and checksums": {"chunks": (2, 33, 47), "compression": "gzip", "fletcher32": True},
    "contiguous": {},
}
LIBRARY: dict[str, dict[str, Any]] = {
    "lzf": {"chunks": (1, 33, 47), "compression": "lzf"},
    "blosc2": {"chunks": (1, 33, 47), **hdf5plugin.Blosc2()},
}


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("dtype", ["uint8", ">u2", "float32", "int64"])
def test_pixels_are_unpacked_without_the_library(
    tmp_path: Path, packed: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = pixels(dtype)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("frames", data=frames, **PACKED[packed])
    lazy = md.open_frames(tmp_path / "a.h5", chunks={"shot": 2})
    monkeypatch.setattr(h5py, "File", None)
    assert lazy.dtype == frames.dtype.newbyteorder("=")
    np.testing.assert_array_equal(lazy, frames)
    np.testing.assert_array_equal(lazy[3:0:-1, 5:30:3, [40, 7]], frames[3:0:-1, 5:30:3][..., [40, 7]])


@pytest.mark.parametrize("packed", LIBRARY)
def test_other_filters_are_left_to_the_library(tmp_path: Path, packed: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("frames", data=pixels(), **LIBRARY[packed])
    lazy = pickle.loads(pickle.dumps(md.open_frames(tmp_path / "a.h5", chunks={"shot": 2})))
    np.testing.assert_array_equal(lazy[1:4, 3:20], pixels()[1:4, 3:20])


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_a_block_that_packs_to_its_own_size_is_unpacked(
    tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blosc would take it for one that is not packed."""
    rng = np.random.default_rng(0)
    frames = np.zeros((160, 8, 16), np.uint8)
    for k in range(160):  # a run of zeros behind so many random bytes packs to 128 bytes sooner or later
        frames[k].reshape(-1)[: 88 + k // 4] = rng.integers(0, 256, 88 + k // 4)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("frames", data=frames, chunks=(1, 8, 16), **hdf5plugin.Bitshuffle(nelems=128, cname=codec))
        sizes = [file["frames"].id.get_chunk_info(k).size for k in range(160)]
    assert 128 + 16 in sizes
    lazy = md.open_frames(tmp_path / "a.h5", chunks={"shot": 1})
    monkeypatch.setattr(h5py, "File", None)
    np.testing.assert_array_equal(lazy, frames)


def test_chunks_that_were_never_written_have_the_fill_value(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset("frames", SHAPE, "i2", chunks=(1, *SHAPE[1:]), fillvalue=-3, **BSLZ4)
        made[1] = 5
        file.create_dataset("late", SHAPE, "i2", fillvalue=-3)
    for name in ("frames", "late"):
        with h5py.File(tmp_path / "a.h5") as file:
            expected = file[name][()]
        np.testing.assert_array_equal(md.open_frames(tmp_path / "a.h5", dataset=name), expected)


@pytest.mark.usefixtures("no_compute")
def test_a_master_file_opens_lazily_with_what_it_says(tmp_path: Path) -> None:
    frames = md.open_frames(master(tmp_path))
    assert (frames.sizes, frames.dtype) == ({"shot": 10, "y": 33, "x": 47}, np.uint32)
    assert frames.attrs["beam_center"] == [16.0, 20.5]
    assert frames.attrs["distance_m"] == pytest.approx(0.12)
    assert frames.attrs["wavelength_m"] == pytest.approx(0.9686e-10)
    assert frames.attrs["dummy"] == 2**16 - 1
    assert frames.mask.dims == ("y", "x")
    assert movie_array(frames.data) is not None


def test_the_data_files_of_a_master_come_one_after_another(tmp_path: Path) -> None:
    frames = md.open_frames(master(tmp_path, 3), chunks={"shot": 4})
    whole = np.concatenate([pixels("uint32", k) for k in range(3)])
    np.testing.assert_array_equal(frames, whole)
    np.testing.assert_array_equal(frames[[11, 2, 6, 3]], whole[[11, 2, 6, 3]])
    assert int(frames.mask.sum()) == -(-33 * 47 // 7)
    one = md.open_frames(tmp_path / "run_master.h5", dataset="entry/data/data_000002")
    np.testing.assert_array_equal(one, whole[5:10])


def test_a_virtual_dataset_is_read_from_its_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    master(tmp_path)
    whole = np.concatenate([pixels("uint32", k) for k in (1, 0)])[1:]
    for name, flipped in (("plain", False), ("flipped", True)):
        layout = h5py.VirtualLayout((9, *SHAPE[1:]), "u4")
        sources = [h5py.VirtualSource(f"run_data_00000{k}.h5", "entry/data/data", SHAPE) for k in (2, 1)]
        layout[:4], layout[4:] = sources[0][1:], sources[1]
        if flipped:
            layout[0, :, :20] = sources[1][4, :, :20]
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_virtual_dataset("data", layout, fillvalue=7)
        frames = md.open_frames(tmp_path / f"{name}.h5")
        with h5py.File(tmp_path / f"{name}.h5") as file:
            expected = file["data"][()]
        if not flipped:
            np.testing.assert_array_equal(expected, whole)
            monkeypatch.setattr(LibraryReader, "read_into", None)
        np.testing.assert_array_equal(frames, expected)
        monkeypatch.undo()
    os.remove(tmp_path / "run_data_000001.h5")
    with pytest.raises(MrcFormatError, match=r"run_data_000001\.h5, which is missing"):
        md.open_frames(tmp_path / "plain.h5")


def test_a_missing_data_file_is_named(tmp_path: Path) -> None:
    path = master(tmp_path)
    os.remove(tmp_path / "run_data_000001.h5")
    with pytest.raises(
        MrcFormatError, match=r"run_master.h5: /entry/data/data_000001 is in .*_000001\.h5, which is mi"
    ):
        md.open_frames(path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = master(tmp_path)
    data = tmp_path / "run_data_000002.h5"
    frames = md.open_frames(path, chunks={"shot": 1})
    os.truncate(data, data.stat().st_size - 2000)
    with pytest.raises(MrcFormatError, match=r"run_data_000002\.h5: this is no HDF5 file, or a truncated one"):
        md.open_frames(path)
    with pytest.raises(MrcFormatError, match=r"run_data_000002\.h5: frame \d at byte .* truncated"):
        frames.compute(scheduler="sync")
    with pytest.raises(FileNotFoundError):
        md.open_frames(tmp_path / "none.h5")


@pytest.mark.parametrize("packed", ["bitshuffle lz4", "lz4", "gzip and shuffle", "zstd", "blosc"])
def test_a_corrupt_chunk_is_an_error(tmp_path: Path, packed: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("frames", data=pixels(), **PACKED[packed])
        spots = [(i.byte_offset, i.size) for i in map(file["frames"].id.get_chunk_info, range(5))]
    content = bytearray((tmp_path / "a.h5").read_bytes())
    offset, size = spots[2]
    content[offset : offset + size] = b"\x11" * size
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(MrcFormatError, match=r"a\.h5: frame \d at byte"):
        md.open_frames(tmp_path / "a.h5", chunks={"shot": 1}).compute(scheduler="sync")


def test_what_cannot_be_frames_is_said(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["one"], file["two"], file["text"] = pixels(), pixels(), "none"
        file["line"] = np.arange(5)
    with pytest.raises(MrcFormatError, match=r"several datasets could be frames: /one .* give dataset="):
        md.open_frames(tmp_path / "a.h5")
    with pytest.raises(MrcFormatError, match="no dataset three"):
        md.open_frames(tmp_path / "a.h5", dataset="three")
    with pytest.raises(MrcFormatError, match=r"/line is .* no frames"):
        md.open_frames(tmp_path / "a.h5", dataset="/line")
    np.testing.assert_array_equal(md.open_frames(tmp_path / "a.h5", dataset="/two"), pixels())


def test_a_scan_keeps_its_dims(tmp_path: Path) -> None:
    scan = np.random.default_rng(0).poisson(1.0, (4, 6, 10, 12)).astype(np.uint16)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("4DSTEM/data", data=scan, chunks=(1, 4, 10, 12), **BSLZ4)
    frames = md.open_frames(tmp_path / "a.h5", chunks={"scan_y": 2, "scan_x": 3})
    assert frames.dims == ("scan_y", "scan_x", "ky", "kx")
    np.testing.assert_array_equal(frames, scan)
    np.testing.assert_array_equal(frames[1:3, 5, 2:, ::2], scan[1:3, 5, 2:, ::2])


def test_masters_are_read_from_an_object_store(tmp_path: Path, bucket: Bucket) -> None:
    path = master(tmp_path)
    for one in tmp_path.iterdir():
        bucket.put(one.name, one.read_bytes())
    frames = md.open_frames(f"{bucket.url}/{path.name}", chunks={"shot": 1}, storage_options=bucket.options)
    bucket.journal.clear()
    np.testing.assert_array_equal(frames[6], pixels("uint32", 1)[1])
    (span,) = bucket.journal.ranges()
    assert span[1] - span[0] < SHAPE[1] * SHAPE[2] * 4


@pytest.mark.real_data
def test_real_eiger_files_and_simulated_stills_are_those_of_h5py(data_dir: Path) -> None:
    arina = md.open_frames(data_dir / "real/stem/test_00_master.h5")
    assert arina.sizes == {"shot": 16, "y": 192, "x": 192}
    with h5py.File(data_dir / "real/stem/test_00_data_000001.h5") as file:
        np.testing.assert_array_equal(arina, file["entry/data/data"][()])
    stills = md.open_frames(data_dir / "simulated/bragg_stills.h5", chunks={"shot": 1})
    with h5py.File(data_dir / "simulated/bragg_stills.h5") as file:
        np.testing.assert_array_equal(stills[[3, 7]], file["entry/data/data"][[3, 7]])
        np.testing.assert_array_equal(stills.mask, file["entry/instrument/detector/pixel_mask"][()] != 0)
    assert stills.attrs["distance_m"] == 0.12


def test_flipped_bytes_are_said_in_a_line(tmp_path: Path) -> None:
    """In what the library reads and in the chunks: the frames as they were, or one error that names the file."""
    path = master(tmp_path)
    expected = md.open_frames(path).values
    rng = np.random.default_rng(0)
    said: list[str] = []
    for broken in (path, tmp_path / "run_data_000001.h5"):
        content = broken.read_bytes()
        for _ in range(25):
            flipped = bytearray(content)
            flipped[int(rng.integers(len(content) if broken == path else 4096))] ^= int(rng.integers(1, 256))
            broken.write_bytes(flipped)
            try:
                assert md.open_frames(path).values.shape[1:] == expected.shape[1:]
            except (MrcFormatError, FileNotFoundError) as error:
                said.append(str(error))
        broken.write_bytes(content)
    assert len(said) > 3
    assert all("run_" in text and "\n" not in text for text in said)
