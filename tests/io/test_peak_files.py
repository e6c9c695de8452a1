"""Peaks in files: what is written comes back, CrystFEL's layout field by field, other programs' files are read."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import mrczdask as md
from mrczdask.errors import MrcFormatError, MrczdaskError

h5py = pytest.importorskip("h5py")
pytest.importorskip("hdf5plugin")

SHAPE = (60, 70)
RESULT = "entry_1/result_1"


def frames_of(n: int = 5) -> xr.DataArray:
    frames = np.random.default_rng(3).poisson(5, (n, *SHAPE)).astype(np.uint16)
    for k in range(n):
        for spot in range(k):
            frames[k, 10 + 8 * spot, 12 + spot : 14 + spot] += 200
            frames[k, 11 + 8 * spot, 12 + spot : 14 + spot] += 150
    return xr.DataArray(frames, dims=("shot", "y", "x"))


def geometry() -> md.Geometry:
    mask = np.zeros(SHAPE, bool)
    mask[0, 0] = True
    return md.Geometry.flat(
        SHAPE, distance_m=0.1, pixel_size_m=75e-6, beam_center=(29.3, 36.1), wavelength_m=1e-10, mask=mask
    )


def peaks_of(frames: xr.DataArray | None = None) -> Any:
    frames = frames_of() if frames is None else frames
    lazy = frames.copy(data=da.from_array(frames.values, chunks=(2, *SHAPE)))
    return md.find_peaks(lazy, geometry(), bins=20, cutoff_peak=6)


@pytest.mark.parametrize("suffix", [".h5", ".zarr", ".parquet"])
@pytest.mark.parametrize("lazy", [True, False])
def test_a_written_table_comes_back(tmp_path: Path, suffix: str, lazy: bool) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    peaks = peaks_of().isel(shot=[4, 0, 2, 3])
    whole = peaks.compute()
    assert whole.n_peaks.values.tolist() == [4, 0, 2, 3]
    again = md.write_peaks(peaks if lazy else whole, tmp_path / f"run{suffix}").compute()
    xr.testing.assert_equal(again, whole[list(again.variables)])
    assert {str(name) for name in whole.variables} == {str(name) for name in again.variables}
    assert again.attrs["cutoff_peak"] == 6.0
    assert [p.name for p in tmp_path.iterdir()] == [f"run{suffix}"]


def test_the_layout_of_cxi_field_by_field(tmp_path: Path) -> None:
    frames = md.write_frames(frames_of(), tmp_path / "run.h5", geometry=geometry())
    whole = peaks_of(frames).compute()
    again = md.write_peaks(whole, tmp_path / "peaks.cxi", frames=frames, geometry=geometry()).compute()
    for name in ("y", "x", "intensity", "peak_ptr", "n_peaks"):
        np.testing.assert_array_equal(again[name], whole[name])
    np.testing.assert_allclose(again.sigma, whole.sigma, rtol=1e-6)
    with h5py.File(tmp_path / "peaks.cxi") as file:
        assert (file["cxi_version"][()], file["cxi_version"].dtype) == (160, np.int32)
        result = file[RESULT]
        assert (result["nPeaks"].dtype, result["nPeaks"][()].tolist()) == (np.int32, [0, 1, 2, 3, 4])
        for name in ("peakXPosRaw", "peakYPosRaw", "peakTotalIntensity", "peakSNR"):
            assert (result[name].shape, result[name].dtype, result[name].compression) == ((5, 4), np.float32, "gzip")
            assert not result[name][0].any()
        np.testing.assert_array_equal(result["peakXPosRaw"][4], whole.x[-4:])  # fast
        np.testing.assert_array_equal(result["peakYPosRaw"][4], whole.y[-4:])  # slow
        np.testing.assert_array_equal(file["entry_1/data_1/data"][()], frames_of().values)
        assert (result["peakXPosRaw"][1, 0], result["peakYPosRaw"][1, 0]) == pytest.approx((12.5, 10.43), abs=0.1)
        np.testing.assert_allclose(result["peakTotalIntensity"][1, 0], 700, rtol=0.1)
        np.testing.assert_allclose(result["peakSNR"][4], (whole.intensity / whole.sigma)[-4:], rtol=1e-6)
        detector = file["entry_1/instrument_1/detector_1"]
        sizes = [float(detector[name][()]) for name in ("distance", "x_pixel_size", "y_pixel_size")]
        assert sizes == [0.1, 75e-6, 75e-6]
        assert (detector["mask"].shape, detector["mask"].dtype, int(detector["mask"][()].sum())) == (
            SHAPE,
            np.uint32,
            1,
        )
        assert file["entry_1/instrument_1/beam_1/incident_wavelength"][()] == 1e-10
    geom = (tmp_path / "peaks.geom").read_text()
    assert "peak_list_type = cxi" in geom
    assert "data = /entry_1/data_1/data" in geom
    assert "peak_list = /entry_1/result_1" in geom
    assert "mask0_data = /entry_1/instrument_1/detector_1/mask\nmask0_goodbits = 0x0\nmask0_badbits = 0x1\n" in geom
    read = md.Geometry.from_geom(tmp_path / "peaks.geom")
    for unit in ("r_m", "q_A^-1"):
        np.testing.assert_allclose(read.radius(unit), geometry().radius(unit), rtol=1e-6)


CENTERS = np.array([[29.3, 36.1], [31.0, 36.1], [28.4, 30.2], [40.0, 36.5], [29.3, 41.7]])


def about_their_beams(frames: xr.DataArray) -> Any:
    lazy = frames.copy(data=da.from_array(frames.values, chunks=(2, *SHAPE)))
    return md.find_peaks(lazy, geometry(), beam_centers=CENTERS, bins=20, cutoff_peak=6)


@pytest.mark.parametrize("suffix", [".h5", ".zarr", ".parquet", ".cxi"])
def test_the_beam_of_each_shot_comes_back(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    hits = about_their_beams(frames_of()).isel(shot=[4, 0, 2])
    written = md.write_peaks(hits, tmp_path / f"run{suffix}")
    for again in (written.isel([1, 2]), md.write_peaks(written.compute(), tmp_path / f"again{suffix}").isel([1, 2])):
        found = np.stack([again.beam_center_y, again.beam_center_x], 1)
        np.testing.assert_array_equal(found, CENTERS[[0, 2]])


def lab_places(geom: str, shifts: Any, y: Any, x: Any) -> Any:
    """Metres from the beam in x and y, as CrystFEL places pixels: corner, a step each, and the shift of the frame."""
    said = dict(line.split(" = ") for line in geom.splitlines() if " = " in line)
    corner = [float(said[f"p0/corner_{axis}"]) for axis in "xy"]
    assert [said[f"p0/{key}"].split()[:2] for key in ("fs", "ss")] == [
        ["+1.000000000x", "+0.000000000y"],
        ["+0.000000000x", "+1.000000000y"],
    ]
    steps = np.stack([corner[0] + x + 0.5, corner[1] + y + 0.5]) / float(said["res"])
    for k, axis in enumerate("xy"):
        place, unit = said[f"detector_shift_{axis}"].split()
        assert unit == "mm"
        steps[k] += 1e-3 * shifts[place][()]
    return steps


def test_crystfel_is_told_the_beam_of_each_shot(tmp_path: Path) -> None:
    peaks = about_their_beams(frames_of()).isel(shot=[3, 1, 4])
    md.write_peaks(peaks, tmp_path / "run.cxi", geometry=geometry())
    table = peaks.compute()
    shot = np.repeat(np.arange(3), table.n_peaks)
    with h5py.File(tmp_path / "run.cxi") as file:
        shifts = {f"/entry_1/shots/det_shift_{axis}_mm": file[f"entry_1/shots/det_shift_{axis}_mm"][:] for axis in "xy"}
        assert file["entry_1/shots/det_shift_x_mm"].attrs["units"] == "mm"
    shifts = {name: values[shot] for name, values in shifts.items()}
    x, y = lab_places((tmp_path / "run.geom").read_text(), shifts, table.y.values, table.x.values)
    q = 4 * np.pi * np.sin(np.arctan2(np.hypot(x, y), 0.1) / 2)  # of 1 Angstrom
    np.testing.assert_allclose(q, table.radius, rtol=2e-4)
    md.write_peaks(peaks_of(), tmp_path / "still.cxi", geometry=geometry())
    assert "shift" not in (tmp_path / "still.geom").read_text()


def test_a_geom_file_whose_panels_are_a_grid_follows_the_beam(tmp_path: Path) -> None:
    lines = "clen = 0.1\nres = 13333.333\nwavelength = 1 A\nadu_per_photon = 7\ndetector_shift_y = -1.5 mm\n"
    for name, first, last in (("a", 0, 29), ("b", 40, 69)):
        span = f"{name}/min_ss = 0\n{name}/max_ss = 59\n{name}/min_fs = {first}\n{name}/max_fs = {last}\n"
        lines += f"{span}{name}/corner_x = {first - 36.1:.1f}\n{name}/corner_y = -9.3\n{name}/fs = +x\n{name}/ss = +y\n"
    (tmp_path / "det.geom").write_text(lines)
    panels = md.Geometry.from_geom(tmp_path / "det.geom")
    assert panels.beam_center == pytest.approx((29.3, 36.1))  # a shift of -20 pixels
    frames = frames_of()
    peaks = md.find_peaks(frames, panels, beam_centers=CENTERS, bins=20)
    wanted = md.find_peaks(frames, geometry(), beam_centers=CENTERS, bins=20, mask=panels.mask).compute()
    np.testing.assert_allclose(peaks.compute().radius, wanted.radius, rtol=1e-4)
    md.write_peaks(peaks, tmp_path / "run.cxi", geometry=panels)
    text = (tmp_path / "run.geom").read_text()
    assert "adu_per_photon = 7" in text
    assert text.count("detector_shift_y") == 1
    with h5py.File(tmp_path / "run.cxi") as file:
        np.testing.assert_allclose(file["entry_1/shots/det_shift_x_mm"], 0.075 * (36.1 - CENTERS[:, 1]), atol=1e-6)
        np.testing.assert_allclose(file["entry_1/shots/det_shift_y_mm"], 0.075 * (9.3 - CENTERS[:, 0]), atol=1e-6)
    (tmp_path / "apart.geom").write_text(lines.replace("b/corner_x = 3.9", "b/corner_x = 4.0"))
    with pytest.raises(MrczdaskError, match="is no flat detector across the beam"):
        md.write_peaks(peaks, tmp_path / "apart.cxi", geometry=md.Geometry.from_geom(tmp_path / "apart.geom"))
    assert not (tmp_path / "apart.cxi").exists()


def test_a_cxi_file_says_where_the_first_panel_stands(tmp_path: Path) -> None:
    lines = "clen = 0.1\nres = 10000\nwavelength = 1 A\n"
    for name, first, last in (("a", 0, 29), ("b", 40, 69)):
        span = f"{name}/min_ss = 0\n{name}/max_ss = 59\n{name}/min_fs = {first}\n{name}/max_fs = {last}\n"
        lines += f"{span}{name}/corner_x = {first - 35}\n{name}/corner_y = 31\n"
        lines += f"{name}/fs = +0.6x +0.8y\n{name}/ss = +0.8x -0.6y\n{name}/coffset = 0.004\n"
    (tmp_path / "det.geom").write_text(lines)
    panels = md.Geometry.from_geom(tmp_path / "det.geom")
    md.write_peaks(md.find_peaks(frames_of(), panels, bins=20), tmp_path / "run.cxi", geometry=panels)
    with h5py.File(tmp_path / "run.cxi") as file:
        where = file["entry_1/instrument_1/detector_1/geometry_1"]
        np.testing.assert_allclose(where["translation"], [-35e-4, 31e-4, 0.104], atol=1e-12)
        np.testing.assert_allclose(where["orientation"], [0.6, 0.8, 0, 0.8, -0.6, 0], atol=1e-9)


def test_centres_of_half_the_shots_are_refused(tmp_path: Path) -> None:
    md.write_peaks(about_their_beams(frames_of()), tmp_path / "run.h5")
    with h5py.File(tmp_path / "run.h5", "r+") as file:
        del file["entry_0000/peaks/beam_center_x"]
    with pytest.raises(MrcFormatError, match="beam_center_y and beam_center_x are not given for each of 5 shots"):
        md.open_peaks(tmp_path / "run.h5")


@pytest.mark.skipif(shutil.which("indexamajig") is None, reason="CrystFEL is not installed")
@pytest.mark.parametrize("find", [peaks_of, about_their_beams])
def test_crystfel_reads_the_peaks(tmp_path: Path, find: Any) -> None:
    frames = md.write_frames(frames_of(), tmp_path / "run.h5", geometry=geometry())
    whole = find(frames).compute()
    md.write_peaks(whole, tmp_path / "peaks.cxi", frames=frames, geometry=geometry())
    (tmp_path / "run.lst").write_text("peaks.cxi\n")
    options = ["--peaks=cxi", "--indexing=none", "--no-revalidate", "--min-peaks=0", "-j", "1"]
    command = ["indexamajig", "-i", "run.lst", "-g", "peaks.geom", "-o", "run.stream", *options]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    read = md.open_peaks(tmp_path / "run.stream").compute()
    np.testing.assert_array_equal(read.n_peaks, whole.n_peaks)
    for name in ("y", "x"):
        np.testing.assert_allclose(read[name], whole[name], atol=0.006)
    np.testing.assert_allclose(read.intensity, whole.intensity, rtol=1e-3)
    np.testing.assert_allclose(read.radius, whole.radius, rtol=5e-3)


@pytest.mark.real_data
def test_the_geometry_beside_a_cxi_file_is_the_one_crystfel_reads(data_dir: Path, tmp_path: Path) -> None:
    pyfai = pytest.importorskip("pyFAI")
    known = data_dir / "simulated/bragg_stills"
    poni = tmp_path / "tilted.poni"
    text = known.with_suffix(".poni").read_text()
    poni.write_text(text.replace("Rot1: 0", "Rot1: 0.02").replace("Rot2: 0", "Rot2: -0.03"))
    for name in (known.with_suffix(".poni"), poni):
        ours = md.Geometry.from_poni(name)
        md.write_peaks(md.open_peaks(known.parent / "bragg_stills_peaks.cxi"), tmp_path / "run.cxi", geometry=ours)
        read = md.Geometry.from_geom(tmp_path / "run.geom")
        np.testing.assert_allclose(read.radius("q_A^-1"), pyfai.load(str(name)).array_from_unit(unit="q_A^-1"), 1e-5)
    theirs = md.Geometry.from_geom(known.parent / "bragg_stills_cxi.geom")
    md.write_peaks(md.open_peaks(tmp_path / "run.cxi"), tmp_path / "again.cxi", geometry=theirs)
    np.testing.assert_array_equal(
        md.Geometry.from_geom(tmp_path / "again.geom").radius("q_A^-1"), theirs.radius("q_A^-1")
    )


@pytest.mark.real_data
def test_pyfais_files_are_read(data_dir: Path) -> None:
    cxi = md.open_peaks(data_dir / "simulated/bragg_stills_peaks.cxi").compute()
    nexus = md.open_peaks(data_dir / "simulated/bragg_stills_peaks_nexus.h5").compute()
    assert cxi.n_peaks.values.tolist() == [85, 9, 0, 82, 27, 0, 40, 36, 0, 34, 52, 0]
    for name in ("y", "x", "intensity", "peak_ptr"):
        np.testing.assert_array_equal(cxi[name], nexus[name])
    np.testing.assert_allclose(cxi.sigma, nexus.sigma, rtol=1e-5)


def test_some_shots_are_linked_as_a_virtual_dataset(tmp_path: Path) -> None:
    frames = md.write_frames(frames_of(), tmp_path / "run.h5", frames_per_file=2)
    hits = peaks_of(frames).isel(shot=[1, 2, 4])
    md.write_peaks(hits, tmp_path / "hits.cxi", frames=tmp_path / "run.h5")
    with h5py.File(tmp_path / "hits.cxi") as file:
        assert file["entry_1/data_1/data"].is_virtual
        np.testing.assert_array_equal(file["entry_1/data_1/data"][()], frames_of().values[[1, 2, 4]])
    linked = md.link_hits(frames, np.array([0, 1, 1, 0, 1], bool), tmp_path / "hits.h5")
    np.testing.assert_array_equal(linked.values, frames_of().values[[1, 2, 4]])
    with pytest.raises(MrczdaskError, match="no shot is a hit"):
        md.link_hits(frames, np.zeros(5, bool), tmp_path / "hits.h5")
    with pytest.raises(MrczdaskError, match="hit is of 2 shots, the files hold 5"):
        md.link_hits(frames, [True, False], tmp_path / "hits.h5")
    with pytest.raises(MrczdaskError, match="do not say their file"):
        md.link_hits(frames_of(), [True] * 5, tmp_path / "bad.h5")
    assert not (tmp_path / "bad.h5").exists()


def test_frames_of_other_files_are_copied_into_a_cxi_file(tmp_path: Path) -> None:
    fabio = pytest.importorskip("fabio")
    pixels = frames_of().values.astype(np.int32)
    pixels[:, 3, 4], pixels[:, 5, 6] = -1, -2
    for k, image in enumerate(pixels):
        header = {"_array_data.header_contents": "# Detector: PILATUS", "_array_data.header_convention": "PILATUS_1.2"}
        fabio.cbfimage.CbfImage(data=image, header=header).write(str(tmp_path / f"run_{k:05d}.cbf"))
    frames = md.open_frames(tmp_path / "run_*.cbf")
    for shots in (slice(None), [3, 1]):
        hits = peaks_of(frames).isel(shots)
        md.write_peaks(hits, tmp_path / "run.cxi", frames=frames, geometry=geometry())
        with h5py.File(tmp_path / "run.cxi") as file:
            stored = file["entry_1/data_1/data"]
            assert stored.dtype == np.int32
            assert stored.compression == "gzip"  # what CrystFEL reads without a plugin
            np.testing.assert_array_equal(stored[()], pixels[shots])
    assert "flag_lessthan = 0\n" in (tmp_path / "run.geom").read_text()
    read = md.open_peaks(tmp_path / "run.cxi")
    assert [Path(name).name for name in read.image.values] == ["run_00003.cbf", "run_00001.cbf"]
    assert read.event.values.tolist() == [0, 0]
    with pytest.raises(MrczdaskError, match="lack some of the 2 shots"):
        md.write_peaks(hits, tmp_path / "bad.cxi", frames=frames[:2])
    assert not (tmp_path / "bad.cxi").exists()


@pytest.mark.parametrize("name", ["run.cxi", "run.h5", "run.zarr", "run.parquet"])
def test_peaks_keep_the_files_of_their_frames(tmp_path: Path, name: str) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    for k in range(2):
        md.write_frames(frames_of()[2 * k : 2 * k + 2 + k], tmp_path / f"part{k}_master.h5")
    frames = md.open_frames(str(tmp_path / "part*_master.h5"))
    read = md.write_peaks(peaks_of(frames).isel([0, 3, 4]), tmp_path / name).compute()
    assert [Path(one).name for one in read.image.values] == ["part0_master.h5", "part1_master.h5", "part1_master.h5"]
    assert read.event.values.tolist() == [0, 1, 2]


def test_peaks_of_other_groups_are_found(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "om.h5", "w") as file:
        for place, x in (("data/peaks", 3.0), ("more/peaks", 4.0)):
            file[f"{place}/nPeaks"] = [1, 0]
            for table in ("peakXPosRaw", "peakYPosRaw", "peakTotalIntensity"):
                file[f"{place}/{table}"] = np.full((2, 4), x, np.float32)
            if place == "data/peaks":
                file.flush()
                assert md.open_peaks(tmp_path / "om.h5").compute().x.values.tolist() == [3.0]
    assert md.open_peaks(tmp_path / "om.h5", group="/more/peaks").compute().x.values.tolist() == [4.0]
    with pytest.raises(MrcFormatError, match="there are peaks in data/peaks, more/peaks: give one"):
        md.open_peaks(tmp_path / "om.h5")
    with pytest.raises(MrcFormatError, match="there is no group peaks"):
        md.open_peaks(tmp_path / "om.h5", group="peaks")


STREAM = """CrystFEL stream format 2.3
Generated by CrystFEL 0.12.0
----- Begin chunk -----
Image filename: run.cxi
Event: //0
indexed_by = none
num_peaks = 2
Peaks from peak search
  fs/px   ss/px (1/d)/nm^-1   Intensity  Panel
  12.50    10.50       1.25       350.0     p0
  30.25    40.75       2.50       120.5     p0
End of peak list
----- End chunk -----
----- Begin chunk -----
Image filename: run.cxi
Event: //1
indexed_by = xgandalf-nolatt-cell
num_peaks = 0
Peaks from peak search
  fs/px   ss/px (1/d)/nm^-1   Intensity  Panel
End of peak list
--- Begin crystal
Reflections measured after indexing
   h    k    l          I   sigma(I)       peak background  fs/px  ss/px panel
   1    2    3     100.00      10.00      50.00      22.12  248.3  861.5 p0
End of reflections
--- End crystal
----- End chunk -----
"""


def test_streams_tell_peaks_and_what_was_indexed(tmp_path: Path) -> None:
    path = tmp_path / "run.stream"
    path.write_text(STREAM)
    found = md.open_peaks(path).compute()
    assert found.n_peaks.values.tolist() == [2, 0]
    assert found.indexed.values.tolist() == [False, True]
    assert (found["event"].values.tolist(), found.image.values.tolist()) == ([0, 1], ["run.cxi"] * 2)
    assert (found.x.values.tolist(), found.y.values.tolist()) == ([12, 29.75], [10, 40.25])
    np.testing.assert_allclose(found.radius, [2 * np.pi * 0.125, 2 * np.pi * 0.25], rtol=1e-6)
    path.write_text(STREAM[:400])
    with pytest.raises(MrcFormatError, match="truncated"):
        md.open_peaks(path)
    path.write_text(STREAM.replace("350.0", "none"))
    with pytest.raises(MrcFormatError, match=r"line 10: .* is no peak"):
        md.open_peaks(path)
    path.write_text("nothing")
    with pytest.raises(MrcFormatError, match="no CrystFEL stream"):
        md.open_peaks(path)


def test_damaged_and_other_files_are_refused(tmp_path: Path) -> None:
    whole = peaks_of().compute()
    with pytest.raises(MrczdaskError, match="ends in"):
        md.write_peaks(whole, tmp_path / "run.dat")
    with pytest.raises(MrczdaskError, match="lacks peak_ptr, y"):
        md.write_peaks(xr.Dataset(), tmp_path / "run.h5")
    assert not list(tmp_path.iterdir())
    md.write_peaks(whole, tmp_path / "run.cxi")
    with h5py.File(tmp_path / "run.cxi", "r+") as file:
        file[f"{RESULT}/nPeaks"][1] = 99
    with pytest.raises(MrcFormatError, match="up to 99, the tables hold 4"):
        md.open_peaks(tmp_path / "run.cxi").compute(scheduler="sync")
    md.write_peaks(whole, tmp_path / "run.h5")
    with h5py.File(tmp_path / "run.h5", "r+") as file:
        file["entry_0000/peaks/frame_ptr"][2] = 99
    with pytest.raises(MrcFormatError, match="do not rise"):
        md.open_peaks(tmp_path / "run.h5")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(MrcFormatError, match="there are no peaks"):
        md.open_peaks(tmp_path / "empty.h5")
    with pytest.raises(FileNotFoundError):
        md.open_peaks(tmp_path / "none.cxi")
