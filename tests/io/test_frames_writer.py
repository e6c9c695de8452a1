"""Dense frames as an Eiger writes them: h5py and FabIO read them, killed runs go on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

import mrczdask as md
from mrczdask.errors import MrczdaskError, ResumeError

h5py = pytest.importorskip("h5py")
pytest.importorskip("hdf5plugin")

FRAMES = np.random.default_rng(2).poisson(3.0, (7, 31, 45)).astype(np.uint32)


def lazy(chunk: int = 2, pixels: object = FRAMES) -> xr.DataArray:
    return xr.DataArray(da.from_array(pixels, chunks=(chunk, 20, 45)), dims=("shot", "y", "x"))


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_other_programs_read_the_frames(tmp_path: Path, chunk: int) -> None:
    fabio = pytest.importorskip("fabio")
    found = md.write_frames(lazy(chunk), tmp_path / "run_master.h5", frames_per_file=4)
    np.testing.assert_array_equal(found, FRAMES)
    assert sorted(os.listdir(tmp_path)) == ["run_data_000001.h5", "run_data_000002.h5", "run_master.h5"]
    with h5py.File(tmp_path / "run_master.h5") as file:
        assert file["entry/definition"][()] == b"NXmx"
        np.testing.assert_array_equal(file["entry/data/data_000002"][()], FRAMES[4:])
        assert file["entry/data/data_000002"].chunks == (1, 31, 45)
    with fabio.open(str(tmp_path / "run_master.h5")) as image:
        assert image.nframes == 7
        np.testing.assert_array_equal(image.getframe(5).data, FRAMES[5])


def test_what_is_known_of_the_detector_is_kept(tmp_path: Path) -> None:
    mask = np.zeros((31, 45), bool)
    mask[3, 4] = True
    geometry = md.Geometry.flat(
        (31, 45), distance_m=0.3, pixel_size_m=75e-6, beam_center=(15.0, 20.0), wavelength_m=1e-10, mask=mask
    )
    frames = lazy().assign_coords(mask=(("y", "x"), np.roll(mask, 5)))
    found = md.write_frames(frames, tmp_path / "run.h5", geometry=geometry)
    np.testing.assert_array_equal(found.mask, mask | np.roll(mask, 5))
    assert found.attrs["beam_center"] == [15.0, 20.0]
    assert (found.attrs["distance_m"], found.attrs["dummy"]) == (0.3, 2**32 - 1)
    assert found.attrs["wavelength_m"] == pytest.approx(1e-10)
    again = md.write_frames(found, tmp_path / "again.h5", mask=mask)
    np.testing.assert_array_equal(again.mask, mask)
    assert again.attrs == found.attrs


def test_beam_centres_of_the_shots_are_kept(tmp_path: Path) -> None:
    """Densified frames are averaged about the same beams as the recorded ones."""
    centers = np.array([[30.2, 33.1], [28.7, 36.4], [35.0, 31.0]])
    geometry = md.Geometry.flat((60, 70), distance_m=0.1, pixel_size_m=75e-6)
    frames = np.random.default_rng(1).poisson(5.0, (3, 60, 70)).astype(np.uint16)
    sparse = md.sparsify(frames, geometry, bins=8, unit="pixel", beam_centers=centers)
    found = md.write_frames(md.densify(sparse), tmp_path / "run_master.h5", geometry=geometry)
    kept = np.stack([found.beam_center_y, found.beam_center_x], axis=1)
    np.testing.assert_array_equal(kept, centers)
    assert found.attrs["beam_center"] == list(geometry.beam_center)
    assert (
        "beam_center_y"
        not in md.write_frames(found.drop_vars(["beam_center_y", "beam_center_x"]), tmp_path / "a.h5").coords
    )


def test_a_killed_run_keeps_its_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "run_master.h5"

    def stop(done: int, total: int, label: str) -> None:
        assert total == 4
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        md.write_frames(lazy(2), path, frames_per_file=4, resume=True, progress=stop)
    assert os.listdir(tmp_path) == ["run_data_000001.h5"]
    with pytest.raises(ResumeError, match=r"run_data_000001\.h5: begun with other parameters: frames was"):
        md.write_frames(lazy(2, FRAMES + 1), path, frames_per_file=4, resume=True)
    before = os.stat(tmp_path / "run_data_000001.h5").st_mtime_ns
    found = md.write_frames(lazy(2), path, frames_per_file=4, resume=True)
    assert os.stat(tmp_path / "run_data_000001.h5").st_mtime_ns == before
    np.testing.assert_array_equal(found, FRAMES)
    with dask.config.set(scheduler=lambda *_, **__: 1 / 0):
        md.write_frames(lazy(2), path, frames_per_file=4, resume=True)


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MrczdaskError, match="ends in"):
        md.write_frames(lazy(), tmp_path / "run.cbf")
    with pytest.raises(MrczdaskError, match="give numbers of"):
        md.write_frames(lazy().rename(shot="frame"), tmp_path / "run.h5")
    with pytest.raises(MrczdaskError, match=r"mask has the shape \(3, 3\)"):
        md.write_frames(lazy(), tmp_path / "run.h5", mask=np.ones((3, 3)))
    with pytest.raises(MrczdaskError, match="a ndarray is no DataArray"):
        md.write_frames(FRAMES, tmp_path / "run.h5")  # type: ignore[arg-type]
    with pytest.raises(MrczdaskError, match=r"there is no folder .*missing: make it first$"):
        md.write_frames(lazy(), tmp_path / "missing/run.h5")
    assert not os.listdir(tmp_path)


def placed(file: Any, name: str, pixels: float = 1.0) -> NDArray[Any]:
    """Where NeXus says that a point along an axis is: the value times the vector and the offset, up the chain."""
    axis = file[name]
    on = axis.attrs["depends_on"]
    own = np.asarray(axis.attrs["offset"]) + pixels * axis[()] * np.asarray(axis.attrs["vector"])
    return own if on == "." else own + placed(file, on)


def test_a_master_has_what_neggia_and_nxmx_ask_for(tmp_path: Path) -> None:
    geometry = md.Geometry.flat(
        (20, 24), distance_m=0.2, pixel_size_m=(75e-6, 80e-6), beam_center=(7.5, 11.25), wavelength_m=1e-10
    )
    frames = xr.DataArray(np.ones((5, 20, 24), np.uint16), dims=("shot", "y", "x"))
    frames = frames.assign_attrs(sensor_material="CdTe", sensor_thickness_m=750e-6)
    bad = np.zeros((20, 24), bool)
    bad[3] = True
    for mask in (None, bad):
        again = md.write_frames(frames, tmp_path / "run_master.h5", geometry=geometry, mask=mask, frames_per_file=2)
        assert again.attrs["sensor_material"] == "CdTe"
        assert again.attrs["sensor_thickness_m"] == 750e-6
        with h5py.File(tmp_path / "run_master.h5") as file:
            detector = file["entry/instrument/detector"]
            assert detector["detectorSpecific/nimages"][()] == 5
            assert detector["detectorSpecific/ntrigger"][()] == 1
            stored = detector["detectorSpecific/pixel_mask"]
            assert stored.dtype == np.uint32
            np.testing.assert_array_equal(stored, np.zeros((20, 24)) if mask is None else bad)
            assert {detector[f"{axis}_pixel_size"].dtype.kind for axis in "xy"} == {"f"}
            assert all(name.startswith("data_") and len(name) == 11 for name in file["entry/data"])
            module = detector["module"]
            assert (module["data_size"][()] == (20, 24)).all()
            along = [
                placed(file, f"{module.name}/{axis}_pixel_direction", n) for axis, n in (("slow", 7.5), ("fast", 11.25))
            ]
            corner = placed(file, f"{module.name}/module_offset")
            beam = along[0] + along[1] - corner
            np.testing.assert_allclose(beam, [0, 0, 0.2], atol=1e-12)
            assert along[1][0] < corner[0]  # x points left, y up
            assert along[0][1] < corner[1]


def test_no_module_is_written_for_a_detector_that_is_tilted(tmp_path: Path) -> None:
    said = "Distance: 0.1\nPoni1: 0.001\nPoni2: 0.001\nRot1: 0.2\nRot2: 0\nRot3: 0\nWavelength: 1e-10\n"
    config = '{"pixel1": 1e-4, "pixel2": 1e-4, "max_shape": [20, 24]}'
    (tmp_path / "a.poni").write_text(f"poni_version: 2\nDetector: Detector\nDetector_config: {config}\n{said}")
    frames = xr.DataArray(np.ones((1, 20, 24), np.uint16), dims=("shot", "y", "x"))
    md.write_frames(frames, tmp_path / "run.h5", geometry=md.Geometry.from_poni(tmp_path / "a.poni"))
    with h5py.File(tmp_path / "run.h5") as file:
        assert "module" not in file["entry/instrument/detector"]
