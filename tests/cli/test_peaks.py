"""The command peaks as a person runs it, interrupted and gone on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import mrczdask as md
from mrczdask.cli import main

h5py = pytest.importorskip("h5py")
pytest.importorskip("hdf5plugin")

SHAPE = (64, 64)


@pytest.fixture
def run(tmp_path: Path) -> list[str]:
    frames = np.full((6, *SHAPE), 3, np.uint16)
    for k in range(6):
        for spot in range(k % 4):
            frames[k, 10 + 10 * spot : 12 + 10 * spot, 20:22] = 500
    geometry = md.Geometry.flat(SHAPE, distance_m=0.1, pixel_size_m=75e-6, wavelength_m=1e-10)
    md.write_frames(xr.DataArray(frames, dims=("shot", "y", "x")), tmp_path / "run_master.h5", geometry=geometry)
    (tmp_path / "det.poni").write_text(
        'poni_version: 2\nDetector: Detector\nDetector_config: {"pixel1": 7.5e-05, "pixel2": 7.5e-05, '
        '"max_shape": [64, 64], "orientation": 3}\nDistance: 0.1\nPoni1: 0.0024\nPoni2: 0.0024\nRot1: 0\nRot2: 0\n'
        "Rot3: 0\nWavelength: 1e-10\n"
    )
    names = [str(tmp_path / name) for name in ("run_master.h5", "det.poni", "run.cxi")]
    return ["peaks", names[0], "-p", names[1], "-o", names[2], "--min-peaks", "2", "--bins", "16"]


def test_peaks_hits_and_a_picture(run: list[str], tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("pyFAI")
    pytest.importorskip("matplotlib")
    assert main([*run, "--plot", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["n_peaks"] == [0, 1, 2, 3, 0, 1]
    assert (said["frames"], said["hits"], said["peaks"]) == (6, 2, 7)
    assert said["hit_rate"] == pytest.approx(1 / 3)
    assert {p.name for p in tmp_path.iterdir()} >= {"run.cxi", "run.geom", "run.png"}
    assert not list(tmp_path.glob("*.part.zarr"))
    with h5py.File(tmp_path / "run.cxi") as file:
        assert file["entry_1/data_1/data"].shape == (6, *SHAPE)
    assert main([*run, "--quiet", "--scheduler", "threads"]) == 0
    assert "2 hits of 2 peaks or more: 33.3 %" in capsys.readouterr().out


def test_options_of_the_peaks_reach_the_library(
    run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    pytest.importorskip("pyFAI")
    from mrczdask.diffraction import live

    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(live, "find_peaks", lambda *of, **how: (seen.append(how), md.find_peaks(*of, **how))[1])
    command = [*run, "--quiet", "--json", "--unit", "q_nm^-1", "--ice", "--exclude", "0.1", "0.2"]
    command += ["--exclude", "0.7", "0.8", "--cutoff-peak", "6", "--patch-size", "7", "--connected", "2"]
    command += ["--max-pixels", "9", "--border", "keep", "--gaps", "void", "--centroid", "plain"]
    assert main([*command, "--counts-per-photon", "2"]) == 0
    said = json.loads(capsys.readouterr().out)
    rings = [(0.1, 0.2), (0.7, 0.8), *md.ice_rings(0.2, unit="q_nm^-1")]
    options = {"exclude": rings, "cutoff_peak": 6.0, "patch_size": 7, "connected": 2, "max_pixels": 9, "gaps": "void"}
    options |= {"border": "keep", "centroid": "plain", "counts_per_photon": 2.0}
    assert {name: seen[0][name] for name in options} == options
    frames, geometry = md.open_frames(tmp_path / "run_master.h5"), md.Geometry.from_poni(tmp_path / "det.poni")
    found = md.open_peaks(tmp_path / "run.cxi").compute()
    whole = md.find_peaks(frames, geometry, bins=16, unit="q_nm^-1", **options).compute()
    np.testing.assert_array_equal(found.y, whole.y)
    assert said["n_peaks"] == whole.n_peaks.values.tolist()
    assert said["n_peaks"] == [0, 1, 1, 2, 0, 1]


def test_an_interrupted_run_is_gone_on_with(run: list[str], tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    pytest.importorskip("pyFAI")
    from mrczdask.io.peak_store import PeakStore

    append, sizes = PeakStore.append, []

    def interrupted(self: PeakStore, block: xr.Dataset) -> None:
        if len(sizes) == 2:
            raise KeyboardInterrupt
        sizes.append(block.sizes["shot"])
        append(self, block)

    monkeypatch.setattr(PeakStore, "append", interrupted)
    assert main([*run, "--block", "2", "--quiet"]) == 1
    assert not (tmp_path / "run.cxi").exists()
    monkeypatch.setattr(
        PeakStore, "append", lambda self, block: (sizes.append(block.sizes["shot"]), append(self, block))
    )
    assert main([*run, "--block", "2", "--quiet", "--cutoff-peak", "6"]) == 1
    assert "begun with other parameters" in capsys.readouterr().err
    assert main([*run, "--block", "2", "--quiet", "--json"]) == 0
    assert sizes == [2, 2, 2]
    assert json.loads(capsys.readouterr().out)["n_peaks"] == [0, 1, 2, 3, 0, 1]


def test_bins_and_crystfel_follow_the_beam(run: list[str], tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("pyFAI")
    centers = 32 + np.random.default_rng(3).uniform(-8, 8, (6, 2))
    np.save(tmp_path / "centers.npy", centers)
    command = [*run, "--beam-centers", str(tmp_path / "centers.npy"), "--quiet", "--json", "--block", "4"]
    assert main(command) == 0
    found = md.open_peaks(tmp_path / "run.cxi").compute()
    assert json.loads(capsys.readouterr().out)["n_peaks"] == found.n_peaks.values.tolist()
    np.testing.assert_array_equal(np.stack([found.beam_center_y, found.beam_center_x], 1), centers)
    frames = md.open_frames(tmp_path / "run_master.h5")
    geometry = md.Geometry.from_poni(tmp_path / "det.poni")
    whole = md.find_peaks(frames, geometry, beam_centers=centers, bins=16, cutoff_peak=5.0).compute()
    for name in ("n_peaks", "y", "x"):
        np.testing.assert_array_equal(found[name], whole[name])
    with h5py.File(tmp_path / "run.cxi") as file:
        np.testing.assert_allclose(file["entry_1/shots/det_shift_x_mm"], 0.075 * (32 - centers[:, 1]))
    assert "detector_shift_x = /entry_1/shots/det_shift_x_mm mm" in (tmp_path / "run.geom").read_text()
    again = md.find_peaks(frames, md.Geometry.from_geom(tmp_path / "run.geom"), beam_centers=centers, bins=16)
    assert again.compute().n_peaks.values.sum() == whole.n_peaks.values.sum()


def test_centres_of_other_frames_are_refused(run: list[str], tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("pyFAI")
    path = tmp_path / "centers.npy"
    command = [*run, "--beam-centers", str(path), "--quiet"]
    for wrong, said in ((np.full((5, 2), 30.0), "for each of 6 shots"), (np.full((6, 3), 30.0), "for each of 6 shots")):
        np.save(path, wrong)
        assert main(command) == 1
        assert said in capsys.readouterr().err
    np.save(path, np.full((5, 2), 30.0))
    assert main([*command, "--live", "2"]) == 1
    assert "there is no beam centre of shot 5" in capsys.readouterr().err
    path.write_text("30 30")
    assert main(command) == 1
    assert "this is no .npy file of numbers" in capsys.readouterr().err
    assert not (tmp_path / "run.cxi").exists()


def test_frames_that_are_not_there_fail_in_a_line(run: list[str], capsys: Any) -> None:
    pytest.importorskip("pyFAI")
    assert main([run[0], "missing.h5", *run[2:], "--quiet"]) == 1
    assert "missing.h5" in capsys.readouterr().err
    assert main(["peaks"]) == 2


def cbf_run(folder: Path, n: int = 3) -> np.ndarray[Any, Any]:
    fabio = pytest.importorskip("fabio")
    pixels = np.full((n, *SHAPE), 3, np.int32)
    for k, image in enumerate(pixels):
        image[10 : 12 + k, 20:22] = 500
        fabio.cbfimage.CbfImage(data=image).write(str(folder / f"im_{k}.cbf"))
    return pixels


def test_patterns_and_folders_of_files_of_one_frame(run: list[str], tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("matplotlib")
    folder = tmp_path / "live"
    folder.mkdir()
    pixels = cbf_run(folder)
    for k, (source, more) in enumerate(
        [(str(folder / "*.cbf"), []), (str(folder), ["--live", "1"]), (str(folder / "im_*.cbf"), ["--live", "1"])]
    ):
        out = tmp_path / f"out{k}.cxi"
        command = ["peaks", source, "-p", run[3], "-o", str(out), "--min-peaks", "1", "--bins", "16", "-q", "--plot"]
        assert main([*command, *more, "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["n_peaks"] == [1, 1, 1]
        assert Path(said["picture"]).exists()
        with h5py.File(out) as file:
            np.testing.assert_array_equal(file["entry_1/data_1/data"][()], pixels)
        assert [Path(name).name for name in md.open_peaks(out).image.values] == ["im_0.cbf", "im_1.cbf", "im_2.cbf"]


def test_names_are_looked_at_before_any_frame(run: list[str], tmp_path: Path, capsys: Any) -> None:
    for name, message in (("w.txt", ".parquet or .zarr"), ("none/w.cxi", "there is no folder")):
        assert main([*run[:5], str(tmp_path / name), *run[6:], "-q"]) == 1
        assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.part.zarr"))
    assert main(["peaks", str(tmp_path / "none*.cbf"), *run[2:], "-q"]) == 1
    assert "no file matches" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.part.zarr"))


def test_the_dataset_and_the_distance_of_a_geom_file(run: list[str], tmp_path: Path, capsys: Any) -> None:
    frames = md.open_frames(tmp_path / "run_master.h5").values
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["a/data"], file["b/data"] = frames, frames[::-1]
        file["clen"], file["energy"] = -400.0, 9000.0
    (tmp_path / "run.geom").write_text(
        "clen = /clen\ncoffset = 0.5\nphoton_energy = /energy\nres = 13333.3\np/min_fs = 0\np/max_fs = 63\n"
        "p/min_ss = 0\np/max_ss = 63\np/corner_x = -32\np/corner_y = -32\np/fs = x\np/ss = y\n"
    )
    for geometry in (run[3], str(tmp_path / "run.geom")):
        command = ["peaks", str(tmp_path / "other.h5"), "-p", geometry, "-o", str(tmp_path / "o.cxi"), "-q", "--json"]
        assert main([*command, "--dataset", "/b/data", "--bins", "16"]) == 0
        assert json.loads(capsys.readouterr().out)["n_peaks"] == [1, 0, 3, 2, 1, 0]
        with h5py.File(tmp_path / "o.cxi") as file:
            np.testing.assert_array_equal(file["entry_1/data_1/data"][()], frames[::-1])
            assert file["entry_1/instrument_1/detector_1/distance"][()] == pytest.approx(0.1)
    with h5py.File(tmp_path / "o.cxi") as file:
        assert file["entry_1/instrument_1/beam_1/incident_wavelength"][()] == pytest.approx(1.3776e-10, rel=1e-4)


def test_masks_of_each_frame_and_masks_that_are_not_there(run: list[str], tmp_path: Path, capsys: Any) -> None:
    frames = md.open_frames(tmp_path / "run_master.h5").values
    bad = np.zeros(frames.shape, np.uint16)
    bad[3, 9:13, 19:23] = 1  # one of the three peaks of the fourth frame
    with h5py.File(tmp_path / "run.cxi", "w") as file:
        file["entry_1/data_1/data"], file["entry_1/data_1/mask"] = frames, bad
    command = ["peaks", str(tmp_path / "run.cxi"), "-p", run[3], "-o", str(tmp_path / "o.h5"), "-q", "--json"]
    command += ["--dataset", "/entry_1/data_1/data", "--bins", "16"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["n_peaks"] == [0, 1, 2, 2, 0, 1]
    (tmp_path / "run.geom").write_text(
        "clen = 0.1\nphoton_energy = 9000\nres = 13333.3\nmask = /none\nmask_good = 0\nmask_bad = 1\np/min_fs = 0\n"
        "p/max_fs = 63\np/min_ss = 0\np/max_ss = 63\np/corner_x = -32\np/corner_y = -32\np/fs = x\np/ss = y\n"
    )
    with pytest.warns(md.errors.MrczdaskWarning, match="no such mask"):
        geometry = md.Geometry.from_geom(tmp_path / "run.geom", frames=tmp_path / "run_master.h5")
    assert not geometry.mask.any()
