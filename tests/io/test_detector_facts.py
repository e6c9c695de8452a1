"""Facts of the detector that holds the frames, in the unit that a file says, and what a given geometry changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mrczdask as md
from mrczdask.cli import main
from mrczdask.errors import MrczdaskWarning

h5py = pytest.importorskip("h5py")
pytest.importorskip("hdf5plugin")

SHAPE = (20, 30)
METRES = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6}


def detector(group: Any, distance: float, center: tuple[float, float], seed: int, *, kind: str = "NXdetector") -> None:
    group.attrs["NX_class"] = kind
    group["data"] = np.random.default_rng(seed).poisson(3, (2, *SHAPE)).astype(np.uint32)
    values = {"detector_distance": distance, "beam_center_y": center[0], "beam_center_x": center[1]}
    for name, value in {**values, "x_pixel_size": 2e-4, "y_pixel_size": 1e-4}.items():
        group[name] = value
    group["pixel_mask"] = (np.arange(SHAPE[0] * SHAPE[1]) == seed).reshape(SHAPE).astype(np.uint32)


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """SAXS and WAXS in one file, with a monitor, and plots that link to them."""
    with h5py.File(tmp_path / "two.nxs", "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        detector(entry.create_group("instrument/saxs"), 4.0, (3, 4), 7)
        detector(entry.create_group("instrument/waxs"), 0.2, (-5, 6), 8)
        entry["instrument/monitor/data"] = np.arange(2.0)
        entry["instrument/monitor"].attrs["NX_class"] = "NXdetector"
        entry["plot/counts"] = h5py.SoftLink("/entry/instrument/waxs/data")
        entry["waxs/data"] = np.zeros((2, *SHAPE), np.uint32)
        entry["copies/data"] = np.zeros((2, *SHAPE), np.uint32)
    return tmp_path / "two.nxs"


@pytest.mark.parametrize(
    ("dataset", "distance", "center", "bad"),
    [
        ("entry/instrument/saxs/data", 4.0, [3, 4], 7),
        ("entry/instrument/waxs/data", 0.2, [-5, 6], 8),
        ("entry/plot/counts", 0.2, [-5, 6], 8),
        ("entry/waxs/data", 0.2, [-5, 6], 8),
    ],
)
def test_facts_are_those_of_the_detector_of_the_dataset(
    two: Path, dataset: str, distance: float, center: list[float], bad: int
) -> None:
    frames = md.open_frames(two, dataset=dataset)
    assert frames.attrs["distance_m"] == distance
    assert frames.attrs["beam_center"] == center
    assert np.flatnonzero(frames.mask.values).tolist() == [bad]


def test_frames_of_no_detector_take_the_facts_of_none(two: Path) -> None:
    with pytest.warns(MrczdaskWarning, match="may be of /entry/instrument/saxs, /entry/instrument/waxs"):
        frames = md.open_frames(two, dataset="entry/copies/data")
    assert not {"distance_m", "beam_center"} & set(frames.attrs)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    center=st.tuples(st.floats(-50, 50), st.floats(-50, 50)).filter(any),
    units=st.tuples(st.sampled_from([*METRES, "pixel", "pixels", ""]), st.sampled_from([*METRES, "pixel", ""])),
    unit=st.sampled_from(sorted(METRES)),
    each=st.booleans(),
)
def test_centres_and_lengths_are_in_their_units(
    tmp_path: Path, center: tuple[float, float], units: tuple[str, str], unit: str, each: bool
) -> None:
    sizes = (1e-4, 2e-4)
    with h5py.File(tmp_path / "run.h5", "w") as file:
        file["entry/data/data_000001"] = np.zeros((3, *SHAPE), np.uint32)
        group = file.create_group("entry/instrument/detector")
        for axis, value, said, size in zip("yx", center, units, sizes, strict=True):
            group[f"beam_center_{axis}"] = value * size / METRES[said] if said in METRES else value
            group[f"beam_center_{axis}"].attrs["units"] = said
            group[f"{axis}_pixel_size"] = size / METRES[unit]
            group[f"{axis}_pixel_size"].attrs["units"] = unit
        distance = 0.15 / METRES[unit]
        group["detector_distance"] = np.full(3, distance) if each else distance
        group["detector_distance"].attrs["units"] = unit
    attrs = md.open_frames(tmp_path / "run.h5").attrs
    np.testing.assert_allclose(attrs["beam_center"], center, rtol=1e-12)
    np.testing.assert_allclose(attrs["pixel_size_m"], sizes, rtol=1e-12)
    assert attrs["distance_m"] == pytest.approx(0.15, rel=1e-12)


def test_units_that_are_not_known_say_nothing(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "run.h5", "w") as file:
        file["entry/data/data_000001"] = np.zeros((3, *SHAPE), np.uint32)
        group = file.create_group("entry/instrument/detector")
        for name in ("beam_center_x", "beam_center_y"):
            group[name] = 3.0
            group[name].attrs["units"] = "furlong"
        group["detector_distance"] = [0.1, 0.2, 0.1]
    assert not {"beam_center", "distance_m"} & set(md.open_frames(tmp_path / "run.h5").attrs)


def test_a_given_geometry_counts_before_what_the_frames_say(tmp_path: Path) -> None:
    known = {"distance_m": 0.2, "pixel_size_m": [1e-4, 1e-4], "beam_center": [9.0, 9.0], "wavelength_m": 2e-10}
    frames = xr.DataArray(np.full((2, *SHAPE), 3, np.uint16), dims=("shot", "y", "x"), attrs=known)
    frames = md.write_frames(frames, tmp_path / "run_master.h5")
    assert frames.attrs["distance_m"] == 0.2
    refined = md.Geometry.flat(
        SHAPE, distance_m=0.19, pixel_size_m=(1e-4, 1.1e-4), beam_center=(8.5, 9.25), wavelength_m=1.9e-10
    )
    wanted = {"distance_m": 0.19, "pixel_size_m": [1e-4, 1.1e-4], "beam_center": [8.5, 9.25], "wavelength_m": 1.9e-10}

    def told(table: Any) -> dict[str, Any]:
        return {name: np.asarray(table.attrs[name]).tolist() for name in wanted}

    sparse = md.sparsify(frames, refined, bins=8)
    peaks = md.find_peaks(frames, refined, bins=8)
    written = md.write_sparse(sparse, tmp_path / "sparse.h5")
    dense = md.write_frames(md.densify(written), tmp_path / "dense.h5")
    again = md.write_frames(frames, tmp_path / "again.h5", geometry=refined)
    averages = md.azimuthal_average(frames, refined, bins=8)
    centered = md.center_frames(frames, [(8.5, 9.25)] * 2, refined)
    for found in (sparse, peaks, written, averages, centered, md.write_peaks(peaks, tmp_path / "peaks.nxs")):
        assert told(found) == wanted
    for found in (dense, again):  # the wavelength goes through angstrom
        np.testing.assert_allclose(*([np.hstack(list(one.values())) for one in (told(found), wanted)]), rtol=1e-12)
    no_wavelength = md.Geometry.flat(SHAPE, distance_m=0.19, pixel_size_m=1e-4)
    assert md.find_peaks(frames, no_wavelength, bins=8, unit="r_mm").attrs["wavelength_m"] == pytest.approx(2e-10)
    in_pixels = md.find_peaks(frames, md.Geometry.flat(SHAPE, beam_center=(7.0, 8.0)), bins=8, unit="pixel").attrs
    assert (in_pixels["distance_m"], in_pixels["beam_center"]) == (0.2, [7.0, 8.0])


def test_the_command_takes_a_refined_geom_file(tmp_path: Path) -> None:
    known = {"distance_m": 0.2, "pixel_size_m": [1e-4, 1e-4], "beam_center": [9.0, 9.0], "wavelength_m": 2e-10}
    frames = xr.DataArray(np.full((2, *SHAPE), 3, np.uint16), dims=("shot", "y", "x"), attrs=known)
    md.write_frames(frames, tmp_path / "run_master.h5")
    panel = "res = 1e4\np/min_fs = 0\np/max_fs = 29\np/min_ss = 0\np/max_ss = 17\np/corner_x = -9\np/corner_y = -9\n"
    for text, distance, wavelength in (
        ("clen = 0.19\nphoton_energy = 9 keV\n", 0.19, 1.3776e-10),
        ("coffset = 0.01\n", 0.21, 2e-10),  # what the file does not say is what the frames say
    ):
        (tmp_path / "a.geom").write_text(text + panel + "p/fs = x\np/ss = y\n")
        command = ["sparsify", str(tmp_path / "run_master.h5"), "--geom", str(tmp_path / "a.geom"), "-q"]
        assert main([*command, "-o", str(tmp_path / "s.h5"), "--bins", "8"]) == 0
        attrs = md.open_sparse(tmp_path / "s.h5").attrs
        assert attrs["distance_m"] == pytest.approx(distance)
        assert attrs["wavelength_m"] == pytest.approx(wavelength, rel=1e-4)
