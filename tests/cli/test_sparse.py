"""The commands sparsify and densify: what they write, print and refuse."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import mrczdask as md
from mrczdask.cli import BAD_USAGE, FAILED, OK, main

pytest.importorskip("h5py")
pytest.importorskip("hdf5plugin")

SHAPE = (60, 70)
GEOMETRY = md.Geometry.flat(SHAPE, distance_m=0.1, pixel_size_m=75e-6, beam_center=(29.3, 36.1), wavelength_m=1e-10)
QUIET = ["--bins", "20", "--quiet"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> xr.DataArray:
    """Frames in a master file of an Eiger, with a dead pixel."""
    monkeypatch.chdir(tmp_path)
    frames = np.random.default_rng(3).poisson(5, (9, *SHAPE)).astype(np.uint32)
    frames[:, 20:22, 30:32] += 400
    bad = np.zeros(SHAPE, bool)
    bad[7, 8] = True
    frames[:, bad] = 2**32 - 1
    found = xr.DataArray(frames, dims=("shot", "y", "x"))
    return md.write_frames(found, "run_master.h5", geometry=GEOMETRY, mask=bad, frames_per_file=4)


def test_frames_go_and_come_back(run: xr.DataArray, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sparsify", "run_master.h5", "-o", "run_sparse.h5", "--cutoff-pick", "1", "--json", *QUIET]) == OK
    about = json.loads(capsys.readouterr().out)
    assert (about["frames"], about["cutoff_pick"]) == (9, 1.0)
    assert about["bytes"] == os.path.getsize("run_sparse.h5")
    found = md.open_sparse("run_sparse.h5").compute()
    options = {"bins": 20, "dummy": 2**32 - 1, "mask": run.mask.values}
    expected = md.sparsify(run, GEOMETRY, cutoff_pick=1.0, **options).compute()
    np.testing.assert_array_equal(found["index"], expected["index"])
    np.testing.assert_array_equal(found.background_avg, expected.background_avg)
    assert found.attrs["distance_m"] == 0.1
    assert main(["densify", "run_sparse.h5", "-o", "dense.h5", "--seed", "3", "--quiet"]) == OK
    assert capsys.readouterr().out.startswith("dense.h5: 9 x 60 x 70 uint32, ")
    dense = md.open_frames("dense.h5")
    np.testing.assert_array_equal(dense, md.densify(expected, seed=3))
    assert dense.mask.values.nonzero() == ([7], [8])
    assert main(["densify", "run_sparse.h5", "-o", "dense.zarr", "--seed", "3", "--quiet"]) == OK
    np.testing.assert_array_equal(md.open_frames("dense.zarr"), dense)


def test_bins_follow_the_beam_and_files_go_to_urls(run: xr.DataArray, capsys: pytest.CaptureFixture[str]) -> None:
    centers = np.array(GEOMETRY.beam_center) + np.random.default_rng(1).normal(0, 4, (9, 2))
    np.save("centers.npy", centers)
    command = ["sparsify", "run_master.h5", "--cutoff-pick", "1", "--beam-centers", "centers.npy", "--json", *QUIET]
    assert main([*command, "-o", "memory://folder/run.zarr"]) == OK
    assert json.loads(capsys.readouterr().out)["bytes"] > 1000
    found = md.open_sparse("memory://folder/run.zarr").compute()
    options = {"bins": 20, "dummy": 2**32 - 1, "mask": run.mask.values, "beam_centers": centers}
    expected = md.sparsify(run, GEOMETRY, cutoff_pick=1.0, **options).compute()
    np.testing.assert_array_equal(found["index"], expected["index"])
    np.testing.assert_array_equal(found.beam_center_x, centers[:, 1])
    Path("centers.npy").write_text("1 2")
    assert main([*command, "-o", "run.zarr"]) == FAILED
    assert "centers.npy: this is no .npy file" in capsys.readouterr().err


def test_options_of_the_background_are_those_of_the_library(
    run: xr.DataArray, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(5)
    images = {"dark": rng.uniform(0, 0.5, SHAPE), "flat": rng.uniform(0.9, 1.1, SHAPE)}
    images["mask"] = rng.random(SHAPE) < 0.05
    for name, image in images.items():
        np.save(f"{name}.npy", image)
    md.write_mrcz(images["dark"].astype(np.float32)[None], "dark.mrc")
    command = ["sparsify", "run_master.h5", "-o", "run_sparse.h5", "--cutoff-pick", "1", *QUIET]
    given = ["--sectors", "5", "--error-model", "hybrid", "--cutoff-clip", "2.5", "--cycle", "3", "--noise", "0.5"]
    given += ["--polarization", "0.9", "--solid-angle", "--radial-range", "0.1", "4", "--unit", "q_nm^-1"]
    assert main([*command, *given, "--dark", "dark.mrc", "--flat", "flat.npy", "--mask", "mask.npy"]) == OK
    images["dark"] = images["dark"].astype(np.float32)
    options = {"error_model": "hybrid", "cutoff_clip": 2.5, "cycle": 3, "noise": 0.5, "polarization": 0.9, "sectors": 5}
    options |= {"solid_angle": True, "radial_range": (0.1, 4.0), "unit": "q_nm^-1", "bins": 20, **images}
    found = md.open_sparse("run_sparse.h5").compute()
    expected = md.sparsify(run, GEOMETRY, cutoff_pick=1.0, **options).compute()
    np.testing.assert_array_equal(found["index"], expected["index"])
    np.testing.assert_array_equal(found["intensity"], expected["intensity"])
    assert found.sizes["sector"] == 5
    np.save("dark.npy", images["dark"][1:])
    assert main([*command, "--dark", "dark.npy"]) == FAILED
    assert "dark.npy: the dark has the shape (59, 70), the frames (60, 70)" in capsys.readouterr().err


def test_the_budget_is_shown_before_a_file_is_written(run: xr.DataArray, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sparsify", "run_master.h5", "--budget", "--sample", "3", *QUIET]) == OK
    shown = capsys.readouterr().out
    for piece in ("3 frames of", "q_A^-1", "a frame", "1.25"):
        assert piece in shown
    assert not Path("run_sparse.h5").exists()
    command = ["sparsify", "run_master.h5", "-o", "run_sparse.h5", "--target-ratio", "4", *QUIET]
    assert main([*command, "--json"]) == OK
    about = json.loads(capsys.readouterr().out)
    cutoffs, ratios = about["budget"]["cutoff"], about["budget"]["ratio"]
    assert cutoffs[np.searchsorted(ratios, 4) - 1] <= about["cutoff_pick"] <= cutoffs[np.searchsorted(ratios, 4)]
    assert md.open_sparse("run_sparse.h5").attrs["cutoff_pick"] == pytest.approx(about["cutoff_pick"])
    assert main([*command[:-4], "1000000", *QUIET]) == FAILED
    assert "is not reached" in capsys.readouterr().err


def test_the_budget_is_that_of_the_cutoffs_and_the_signal_asked_for(
    run: xr.DataArray, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sparsify", "run_master.h5", "--budget", "--sample", "2", "--json", *QUIET]
    assert main([*command, "--cutoffs", "1", "2.5", "--signal-cutoff", "3"]) == OK
    found = json.loads(capsys.readouterr().out)["budget"]
    options = {"bins": 20, "dummy": 2**32 - 1, "mask": run.mask.values, "sample": 2, "shells": 4, "cutoffs": (1, 2.5)}
    expected = md.loss_budget(run, GEOMETRY, signal_cutoff=3.0, **options)
    assert found["cutoff"] == [1.0, 2.5]
    signal = np.array(found["kept_signal"], float)
    np.testing.assert_allclose(signal, expected.kept_signal, rtol=1e-6)
    assert not np.allclose(signal, md.loss_budget(run, GEOMETRY, **options).kept_signal, equal_nan=True)
    assert main([*command, "--cutoffs", "2", "1"]) == FAILED
    assert "give rising cutoffs" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["run_sparse.h5", "run_sparse.zarr"])
def test_peaks_are_written_beside_the_pixels(run: xr.DataArray, capsys: pytest.CaptureFixture[str], out: str) -> None:
    command = ["sparsify", "run_master.h5", "-o", out, "--cutoff-pick", "1", "--json", *QUIET]
    given = ["--cutoff-peak", "6", "--patch-size", "7", "--connected", "2", "--counts-per-photon", "2"]
    assert main([*command, "--peaks", *given, "--resume"]) == OK
    about = json.loads(capsys.readouterr().out)
    background = md.separate_background(run, GEOMETRY, bins=20, dummy=2**32 - 1, mask=run.mask.values)
    options = {"cutoff_peak": 6.0, "patch_size": 7, "connected": 2, "counts_per_photon": 2.0}
    expected = md.find_peaks(run, background=background, **options).compute()
    found = md.open_peaks(out).compute()
    assert about["peaks"] == expected.sizes["peak"] == 9
    for name in ("n_peaks", "y", "x", "intensity", "sigma"):
        np.testing.assert_array_equal(found[name], expected[name])
    pixels = md.sparsify(run, background=background, cutoff_pick=1.0).compute()
    np.testing.assert_array_equal(md.open_sparse(out).compute()["index"], pixels["index"])
    assert main([*command, *given]) == FAILED
    assert "options of the peaks are given, but no --peaks" in capsys.readouterr().err
    assert main([*command, "--peaks", "--layout", "imaged11"]) == FAILED
    assert "has no place for peaks" in capsys.readouterr().err


def test_masks_geometries_and_layouts(run: xr.DataArray, capsys: pytest.CaptureFixture[str]) -> None:
    Path("flat.geom").write_text(
        "wavelength = 1 A\nres = 13333.333\nclen = 0.1\np0/min_fs = 0\np0/max_fs = 69\np0/min_ss = 0\np0/max_ss = 59\n"
        "p0/corner_x = -36.1\np0/corner_y = -29.3\np0/fs = x\np0/ss = y\n"
    )
    mask = np.zeros(SHAPE)
    mask[20:22, 30:32] = 1
    np.save("mask.npy", mask)
    command = ["sparsify", "run_master.h5", "-o", "scan.h5", "--geom", "flat.geom", "--layout", "imaged11", *QUIET]
    assert main([*command, "--mask", "mask.npy", "--cutoff-pick", "8", "--resume"]) == OK
    assert capsys.readouterr().out.startswith("scan.h5: 9 frames, ")
    assert int(md.open_sparse("scan.h5").compute().n_pixels.sum()) == 0
    assert main([*command, "--cutoff-pick", "8"]) == OK
    assert int(md.open_sparse("scan.h5").compute().n_pixels.sum()) == 9 * 4
    np.save("mask.npy", mask[1:])
    assert main([*command, "--mask", "mask.npy"]) == FAILED
    assert "mask.npy: the mask has the shape (59, 70)" in capsys.readouterr().err


def test_what_is_missing_is_said(run: xr.DataArray, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sparsify", "run_master.h5"]) == FAILED
    assert "give --out FILE" in capsys.readouterr().err
    assert main(["sparsify", "run_data_000001.h5", "--budget"]) == FAILED
    assert "do not say their distance_m, pixel_size_m, beam_center" in capsys.readouterr().err
    os.remove("run_data_000001.h5")
    assert main(["sparsify", "run_master.h5", "-o", "a.h5"]) == FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("MissingLinkError: ")
    assert "run_master.h5: /entry/data/data_000001 is in " in line
    assert "run_data_000001.h5, which is missing" in line
    assert main(["densify", "run_master.h5", "-o", "b.h5"]) == FAILED
    assert "no sparse frames" in capsys.readouterr().err
    assert main(["densify", "run_master.h5"]) == BAD_USAGE
    assert not list(Path().glob("[ab].h5*"))
