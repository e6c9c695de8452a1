"""Geometries: a file of panels against the flat detector that its panels are cut from, and against pyFAI."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import dask
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import mrczdask as md
from mrczdask.errors import MrcFormatError, MrczdaskError, MrczdaskWarning

RES = 13333.333
CENTER = (31.0, 43.5)
HEAD = f"""; made for a test
wavelength = 1.3 A
clen = 0.120
res = {RES}
data = /entry/data/data
dim0 = %
dim1 = ss
dim2 = fs
rigid_group_all = left,right
bad_edge/min_fs = 0
bad_edge/max_fs = 2
bad_edge/min_ss = 0
bad_edge/max_ss = 59
bad_edge/panel = left
bad_beam/min_x = -3
bad_beam/max_x = 3
bad_beam/min_y = -4
bad_beam/max_y = 4
"""
# the left half as it is, the right half stored upside down below it
PANELS = f"""
left/min_fs = 0
left/max_fs = 39
left/min_ss = 0
left/max_ss = 59
left/corner_x = {-CENTER[1]}
left/corner_y = {-CENTER[0]}
left/fs = +1.0x +0.0y
left/ss = +0.0x +1.0y
right/min_fs = 0
right/max_fs = 39
right/min_ss = 60
right/max_ss = 119
right/corner_x = {80 - CENTER[1]}
right/corner_y = {60 - CENTER[0]}
right/fs = -x
right/ss = -1.0y
"""


def stored(flat: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([flat[:, :40], flat[::-1, :39:-1]])


@pytest.fixture
def panels(tmp_path: Path) -> md.Geometry:
    (tmp_path / "two.geom").write_text(HEAD + PANELS)
    return md.Geometry.from_geom(tmp_path / "two.geom")


def test_panels_are_where_the_file_puts_them(panels: md.Geometry) -> None:
    whole = md.Geometry.flat((60, 80), distance_m=0.12, pixel_size_m=1 / RES, beam_center=CENTER, wavelength_m=1.3e-10)
    assert panels.shape == (120, 40)
    for unit in ("q_A^-1", "2th_deg", "r_m", "pixel"):
        np.testing.assert_allclose(panels.radius(unit), stored(whole.radius(unit)), rtol=1e-12)
    np.testing.assert_allclose(panels.azimuth(), stored(whole.azimuth()), atol=1e-12)
    np.testing.assert_allclose(panels.correction(), stored(whole.correction()), rtol=1e-12)
    np.testing.assert_allclose(panels.correction(0.99, False), stored(whole.correction(0.99, False)), rtol=1e-12)
    assert panels.wavelength_m == pytest.approx(1.3e-10)
    y, x = np.mgrid[:60, :80] + 0.5
    beam = (np.abs(x - CENTER[1]) <= 3) & (np.abs(y - CENTER[0]) <= 4)
    np.testing.assert_array_equal(panels.mask, stored(beam | (x < 3)))
    assert panels.beam_center == pytest.approx((31.0, 43.5), abs=1e-9)


APART = """clen = 0.15
res = 10000
detector_shift_x = 1.5 mm
detector_shift_y = -0.25 mm
a/min_fs = 0
a/max_fs = 29
a/min_ss = 0
a/max_ss = 19
a/corner_x = -40.5
a/corner_y = 12.25
a/fs = +0.8x +0.6y
a/ss = -0.6x +0.8y +0.02z
b/min_fs = 0
b/max_fs = 29
b/min_ss = 25
b/max_ss = 44
b/corner_x = 7
b/corner_y = -3.125
b/fs = -0.996y +0.087z
b/ss = +1.0x
b/coffset = 0.0031
c/min_fs = 40
c/max_fs = 59
c/min_ss = 0
c/max_ss = 44
c/corner_x = 60
c/corner_y = 70
c/fs = -1.0x
c/ss = -y
c/clen = 0.2
c/res = 5000
"""


def by_the_file(text: str, panel: str, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, n) z, y and x as the manual of CrystFEL says: a corner, steps along fs and ss, clen + coffset, a shift."""
    lines = dict(line.split(" = ") for line in text.splitlines() if " = " in line and not line.startswith(";"))
    said = {**lines, **{key.partition("/")[2]: v for key, v in lines.items() if key.startswith(f"{panel}/")}}
    steps = np.zeros((2, 3))
    for k, key in enumerate(("ss", "fs")):
        for value, axis in re.findall(r"([+-]?[\d.]*)([xyz])", said[key]):
            steps[k, "zyx".index(axis)] = float(f"{value}1" if value in ("", "+", "-") else value)
    rows, columns = y - float(said["min_ss"]) + 0.5, x - float(said["min_fs"]) + 0.5
    pixels = np.outer(steps[0], rows) + np.outer(steps[1], columns)
    pixels += np.array([0.0, float(said["corner_y"]), float(said["corner_x"])])[:, None]
    shift = [1e-3 * float(said.get(f"detector_shift_{axis}", "0 mm").split()[0]) for axis in "yx"]
    clen = float(said["clen"]) + float(said.get("coffset", 0))
    return pixels / float(said["res"]) + np.array([[clen], *([value] for value in shift)])


def test_positions_are_those_of_the_panel_that_holds_them(tmp_path: Path) -> None:
    (tmp_path / "apart.geom").write_text(APART)
    geometry = md.Geometry.from_geom(tmp_path / "apart.geom")
    rng = np.random.default_rng(0)
    spans = {"a": (0, 20, 0, 30), "b": (25, 45, 0, 30), "c": (0, 45, 40, 60)}
    places = {k: (rng.uniform(s[0], s[1], 50) - 0.5, rng.uniform(s[2], s[3], 50) - 0.5) for k, s in spans.items()}
    y, x = (np.concatenate([where[axis] for where in places.values()]) for axis in (0, 1))
    mixed = rng.permutation(y.size)
    found = np.empty((3, y.size))
    found[:, mixed] = geometry.positions(y[mixed], x[mixed])
    wanted = np.concatenate([by_the_file(APART, k, *where) for k, where in places.items()], axis=1)
    np.testing.assert_allclose(found, wanted, atol=1e-14)
    row, column = np.nonzero(~geometry.mask)
    assert row.size == 20 * 30 * 2 + 45 * 20
    _, down, right = geometry.positions(row, column)
    np.testing.assert_allclose(np.hypot(down, right), geometry.radius("r_m")[row, column], rtol=1e-12)
    sent = pickle.loads(pickle.dumps(geometry))
    np.testing.assert_array_equal(sent.positions(y, x), geometry.positions(y, x))
    elsewhere = md.Geometry.from_geom(tmp_path / "apart.geom", distance_m=0.3)
    np.testing.assert_allclose(elsewhere.positions([30], [5])[0] - geometry.positions([30], [5])[0], 0.15)
    assert geometry.positions([], []).shape == (3, 0)


@pytest.mark.parametrize(
    ("panel", "y", "x"), [("a", 21.9, 5), ("b", 22.1, 5), ("c", 10, 36), ("a", -3, 2.5), ("b", 50, 31), ("c", 70, 99)]
)
def test_places_of_no_panel_are_on_the_nearest_one(tmp_path: Path, panel: str, y: float, x: float) -> None:
    """As if it went on."""
    (tmp_path / "apart.geom").write_text(APART)
    found = md.Geometry.from_geom(tmp_path / "apart.geom").positions([y], [x])
    np.testing.assert_allclose(found, by_the_file(APART, panel, np.array([y]), np.array([x])), atol=1e-14)


def test_the_edge_between_two_panels_belongs_to_the_later_pixel(panels: md.Geometry) -> None:
    y = np.array([59.499, 59.5, np.nan])
    found = panels.positions(y, [0.0, 0.0, 0.0])
    for k, panel in enumerate(("left", "right")):
        wanted = by_the_file(HEAD + PANELS, panel, y[k : k + 1], np.zeros(1))
        np.testing.assert_allclose(found[:, k : k + 1], wanted, atol=1e-14)
    assert np.isnan(found[:, 2]).all()


def test_one_panel_across_the_beam_is_a_flat_detector(tmp_path: Path) -> None:
    left = PANELS[: PANELS.index("right")]
    (tmp_path / "one.geom").write_text(HEAD + left)
    flat = md.Geometry.flat((60, 40), distance_m=0.12, pixel_size_m=1 / RES, beam_center=CENTER)
    y, x = np.array([-0.5, -0.5, 0.5, 30.25, 59.5, -7]), np.array([-0.5, 0.5, -0.5, 12.125, 39.5, 80])
    found = md.Geometry.from_geom(tmp_path / "one.geom").positions(y, x)
    np.testing.assert_allclose(found, flat.positions(y, x), atol=1e-14)


def test_a_panel_further_away_and_gaps(tmp_path: Path) -> None:
    text = HEAD + PANELS.replace("right/min_ss = 60", "right/min_ss = 70").replace("= 119", "= 129")
    (tmp_path / "a.geom").write_text(text + "right/coffset = 0.03\n")
    geometry = md.Geometry.from_geom(tmp_path / "a.geom")
    assert geometry.shape == (130, 40)
    assert geometry.mask[60:70].all()
    near = md.Geometry.flat((60, 80), distance_m=0.15, pixel_size_m=1 / RES, beam_center=CENTER)
    np.testing.assert_allclose(geometry.radius("2th_rad")[70:], stored(near.radius("2th_rad"))[60:], rtol=1e-12)
    assert np.isfinite(geometry.radius("q_A^-1")).all()
    frames = np.ones((2, 130, 40), np.uint16)
    averages = md.azimuthal_average(frames, geometry, bins=20)
    assert float(averages.n_used[0].sum()) == (~geometry.mask).sum()


def test_distance_and_wavelength_may_come_from_elsewhere(tmp_path: Path) -> None:
    text = (HEAD + PANELS).replace("wavelength = 1.3 A", "photon_energy = 9500 eV").replace("clen = 0.120", "clen = /d")
    (tmp_path / "a.geom").write_text(text)
    with pytest.raises(MrcFormatError, match=r"a\.geom: panel left has no distance: give distance_m="):
        md.Geometry.from_geom(tmp_path / "a.geom")
    geometry = md.Geometry.from_geom(tmp_path / "a.geom", distance_m=0.2)
    assert geometry.distance_m == pytest.approx(0.2)
    assert geometry.wavelength_m == pytest.approx(1.305097e-10, rel=1e-6)
    electrons = text.replace("photon_energy = 9500 eV", "electron_voltage = 200 kV")
    (tmp_path / "a.geom").write_text(electrons)
    slow = md.Geometry.from_geom(tmp_path / "a.geom", distance_m=0.2)
    assert slow.wavelength_m == pytest.approx(2.5079e-12, rel=1e-4)
    assert dask.tokenize.tokenize(slow) != dask.tokenize.tokenize(geometry)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (PANELS, "", "no panels"),
        ("left/fs = +1.0x +0.0y\n", "", "panel left lacks fs"),
        ("left/max_fs = 39", "left/max_fs = -1", "panel left spans"),
        ("left/fs = +1.0x +0.0y", "left/fs = x\nleft/dim3 = 2", "several layouts or places"),
        ("dim1 = ss\ndim2 = fs", "dim1 = fs\ndim2 = ss", "fast axis fs comes before ss"),
        ("clen = 0.120", "clen = 12 cm", "clen = 12 cm: the unit cm is not one of CrystFEL's"),
        ("clen = 0.120", "clen = 120mm", "put a blank"),
        ("clen = 0.120", "clen = nan", "give a finite number"),
        ("wavelength = 1.3 A", "wavelength = 0.13 nm", "the unit nm is not one of CrystFEL's"),
        ("wavelength = 1.3 A", "wavelength = 1.3", "wavelength = 1.3: the unit is missing"),
        ("wavelength = 1.3 A", "photon_energy = 9.5 KeV", "CrystFEL knows eV, keV, MeV"),
        ("wavelength = 1.3 A", "electron_voltage = 300", "the unit is missing"),
        ("wavelength = 1.3 A", "photon_energy = 0", "it must be above 0"),
        ("clen = 0.120", "clen = 0.1\ndetector_shift_x = 3 um", "the unit um"),
        ("clen = 0.120", "clen = 0.1\ncoffset = 3 mm", "coffset = 3 mm: give a number of metres"),
        ("right/min_ss = 60", "right/min_ss = 50", "lies on another"),
        ("left/corner_x = -43.5", "left/corner_x = east", "panel left: could not convert"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in HEAD + PANELS
    (tmp_path / "a.geom").write_text((HEAD + PANELS).replace(old, new))
    with pytest.raises(MrcFormatError, match=message):
        md.Geometry.from_geom(tmp_path / "a.geom")
    with pytest.raises(FileNotFoundError):
        md.Geometry.from_geom(tmp_path / "none.geom")


@pytest.mark.real_data
def test_crystfels_file_and_pyfais_are_the_same_detector(data_dir: Path) -> None:
    pytest.importorskip("pyFAI")
    ours = md.Geometry.from_geom(data_dir / "simulated/bragg_stills_cxi.geom")
    theirs = md.Geometry.from_poni(data_dir / "simulated/bragg_stills.poni")
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours.radius("q_A^-1"), theirs.radius("q_A^-1"), rtol=2e-6)
    np.testing.assert_allclose(ours.azimuth(), theirs.azimuth(), atol=1e-4)
    np.testing.assert_allclose(ours.correction(), theirs.correction(), rtol=1e-6)
    np.testing.assert_allclose(ours.correction(0.99, False), theirs.correction(0.99, False), rtol=1e-6)
    assert ours.beam_center == pytest.approx(theirs.beam_center, abs=1e-3)


def test_the_beam_of_a_flat_detector_can_be_moved(panels: md.Geometry) -> None:
    there = md.Geometry.flat((20, 20), beam_center=(9.0, 8.0), wavelength_m=1e-10)
    moved = md.Geometry.flat((20, 20), wavelength_m=1e-10).moved((9.0, 8.0))
    np.testing.assert_array_equal(there.radius(), moved.radius())
    assert dask.tokenize.tokenize(there) == dask.tokenize.tokenize(moved)
    np.testing.assert_array_equal(there.azimuth(), moved.azimuth())
    with pytest.raises(MrczdaskError, match="no flat detector"):
        panels.moved((1.0, 2.0))


def test_the_azimuth_turns_from_x_to_y_in_metres() -> None:
    geometry = md.Geometry.flat((5, 7), pixel_size_m=(2e-4, 1e-4), beam_center=(2.5, 3.0))
    y, x = np.mgrid[:5, :7] + 0.5
    wanted = np.degrees(np.angle((x - 3.0) * 1e-4 + 1j * (y - 2.5) * 2e-4))
    found = geometry.azimuth()
    assert found.dtype == np.float64
    np.testing.assert_allclose(np.degrees(found), np.where(wanted == 180, -180, wanted), atol=1e-12)
    assert found[2, 0] == -np.pi  # left of the beam, in its row
    assert found[2, -1] == 0.0
    assert found[4, 3] == pytest.approx(np.arctan2(4e-4, 0.5e-4))


PONI = """# made for a test
poni_version: 2.1
Detector: {detector}
Detector_config: {config}
Distance: 0.1234567
Poni1: 0.0217
Poni2: 0.0193
Rot1: {tilt}
Rot2: {tilt}
Rot3: {tilt}
Wavelength: 1.03e-10
"""
EVEN = '{"pixel1": 7.5e-05, "pixel2": 8.6e-05, "max_shape": [300, 280], "orientation": %d}'


@pytest.mark.parametrize(
    ("detector", "config", "tilt", "plain"),
    [
        ("Detector", EVEN % 3, 0.0, True),
        ("Detector", EVEN % 2, 0.0, False),
        ("Detector", EVEN % 3, 0.01, False),
        ("Xpad_flat", "{}", 0.0, False),
    ],
)
def test_the_maps_of_an_even_detector_are_those_of_pyfai(
    tmp_path: Path, detector: str, config: str, tilt: float, plain: bool
) -> None:
    pyfai = pytest.importorskip("pyFAI")
    path = tmp_path / "detector.poni"
    path.write_text(PONI.format(detector=detector, config=config, tilt=tilt), encoding="utf-8")
    ours, theirs = md.Geometry.from_poni(path), pyfai.load(str(path))
    assert ours.maps.is_flat is plain
    if plain:
        assert ours.moved(ours.beam_center).beam_center == ours.beam_center
    else:
        with pytest.raises(MrczdaskError, match="no flat detector"):
            ours.moved(ours.beam_center)
    sent = pickle.loads(pickle.dumps(ours))
    np.testing.assert_array_equal(sent.radius("r_m"), ours.radius("r_m"))
    assert dask.tokenize.tokenize(sent) == dask.tokenize.tokenize(ours)
    np.testing.assert_allclose(ours.correction(), theirs.solidAngleArray(ours.shape), rtol=1e-6)
    np.testing.assert_allclose(ours.correction(0.9, False), theirs.polarization(ours.shape, 0.9), rtol=1e-6)
    np.testing.assert_allclose(ours.azimuth(), theirs.center_array(ours.shape, "chi_rad"), atol=1e-12)
    for unit in ("q_A^-1", "2th_deg", "r_m"):
        wanted = theirs.array_from_unit(ours.shape, "center", unit, scale=True)
        np.testing.assert_allclose(ours.radius(unit), wanted, rtol=1e-12)


FLAT = """poni_version: 2.1
Detector: Detector
Detector_config: {"pixel1": 1e-4, "pixel2": 1e-4, "max_shape": [40, 50], "orientation": 3}
Distance: 0.05
Poni1: 0.002
Poni2: 0.0025
Rot1: 0
Rot2: 0
Rot3: 0
Wavelength: 1e-10
"""


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (FLAT, "", "does not say Distance"),
        (FLAT, "hello world\nfoo", "does not say Distance"),
        (FLAT, "\x00\udcff\x89HDF", "does not say Distance"),
        ("Rot2: 0\n", "", "does not say Rot2"),
        ("0.05", "nan", "Distance is 'nan'"),
        ("0.05", "-0.05", "distance is -0.05 m: it must be above 0"),
        ("Rot1: 0", "Rot1: inf", "Rot1 is 'inf'"),
        ('"pixel2": 1e-4', '"pixel2": -1e-4', "pixel size is 0.0001 x -0.0001 m"),
        ("1e-10", "0", "wavelength is 0.0 m"),
        ("[40, 50]", "[-40, 50]", "shape"),
        ('"pixel1": 1e-4', '"pixel1": null', "size of a pixel"),
        ("[40, 50]", "[40]", "shape"),
        ("[40, 50]", '"abc"', "shape"),
        ("Detector: Detector", "Detector: Nonesuch9M", "unknown"),
        ('{"pixel1"', '"pixel1"', "no PONI file"),
        ("Detector: Detector\n", "", "no PONI file"),
    ],
)
def test_poni_files_that_are_none_are_named_in_one_line(
    old: str, new: str, fault: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyFAI")
    path = tmp_path / "wrong.poni"
    path.write_text(FLAT.replace(old, new), encoding="utf-8", errors="surrogateescape")
    with pytest.raises(MrczdaskError, match=f"{path}: .*{fault}") as error:
        md.Geometry.from_poni(path, shape=(40, 50))
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""


METRES = {"": 1.0, "m": 1.0, "mm": 1e-3}
OF_BEAM = {
    "wavelength": {"m": 1.0, "A": 1e-10},
    "photon_energy": {"": 1.0, "eV": 1.0, "keV": 1e3, "MeV": 1e6},
    "electron_voltage": {"V": 1.0, "kV": 1e3},
}
"""Units that crystfel_geometry(5) names."""
UNITS = sorted({unit for units in OF_BEAM.values() for unit in units} | {*METRES, "cm", "um", "nm", "ev", "MM", "inch"})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    clen=st.sampled_from(UNITS),
    key=st.sampled_from(sorted(OF_BEAM)),
    unit=st.sampled_from(UNITS),
    shift=st.sampled_from(UNITS),
    number=st.floats(0.5, 99),
)
def test_units_are_those_of_crystfel_or_refused(
    tmp_path: Path, clen: str, key: str, unit: str, shift: str, number: float
) -> None:
    said = HEAD.replace("clen = 0.120", f"clen = {number!r} {clen}\ndetector_shift_y = {number!r} {shift}")
    (tmp_path / "a.geom").write_text(said.replace("wavelength = 1.3 A", f"{key} = {number!r} {unit}") + PANELS)
    if clen not in METRES or shift not in METRES or unit not in OF_BEAM[key]:
        with pytest.raises(MrcFormatError, match="CrystFEL knows"):
            md.Geometry.from_geom(tmp_path / "a.geom")
        return
    geometry = md.Geometry.from_geom(tmp_path / "a.geom")
    value = number * OF_BEAM[key][unit]
    h, c, e, mass = 6.62607015e-34, 299792458.0, 1.602176634e-19, 9.1093837015e-31
    if key == "photon_energy":
        value = h * c / (e * value)
    elif key == "electron_voltage":
        momentum = np.sqrt(2 * mass * e * value * (1 + e * value / (2 * mass * c**2)))
        value = h / momentum
    assert geometry.wavelength_m == pytest.approx(value, rel=1e-7)
    assert geometry.distance_m == pytest.approx(number * METRES[clen])
    y = geometry.positions([-0.5], [-0.5])[1, 0]
    assert y == pytest.approx(number * METRES[shift] - CENTER[0] / RES)


def test_what_stands_in_the_data_files_is_read(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    pytest.importorskip("hdf5plugin")
    text = HEAD.replace("clen = 0.120", "clen = /LCLS/detector_1/EncoderValue\ncoffset = 0.58")
    text = text.replace("wavelength = 1.3 A", "photon_energy = /LCLS/photon_energy_eV")
    (tmp_path / "a.geom").write_text(text + PANELS)
    energies = np.array([9500.0, 9501.0, 9499.0, np.nan])
    with h5py.File(tmp_path / "run.h5", "w") as file:
        file["entry/data/data"] = np.zeros((4, 120, 40), np.uint16)
        file["LCLS/detector_1/EncoderValue"] = np.full(4, -460.0)  # of no unit: millimetres, says crystfel_geometry(5)
        file["LCLS/photon_energy_eV"] = energies
    for frames in (tmp_path / "run.h5", md.open_frames(tmp_path / "run.h5")):
        geometry = md.Geometry.from_geom(tmp_path / "a.geom", frames=frames)
        assert geometry.distance_m == pytest.approx(0.12)
        assert geometry.wavelength_m == pytest.approx(1.30509e-10, rel=1e-5)
    given = md.Geometry.from_geom(tmp_path / "a.geom", distance_m=-0.4, wavelength_m=2e-10)
    assert (given.distance_m, given.wavelength_m) == (pytest.approx(0.18), 2e-10)
    (tmp_path / "a.geom").write_text(text.replace("EncoderValue", "EncoderValue m") + PANELS)
    assert md.Geometry.from_geom(tmp_path / "a.geom", frames=tmp_path / "run.h5").distance_m == pytest.approx(-459.42)
    with h5py.File(tmp_path / "run.h5", "r+") as file:
        file["LCLS/photon_energy_eV"][0] = 9600
    with pytest.warns(MrczdaskWarning, match="goes from 9499 to 9600"):
        md.Geometry.from_geom(tmp_path / "a.geom", frames=tmp_path / "run.h5")
    for place, message in (("/LCLS/none", "has no number there"), ("/%/clen", "one for each event")):
        (tmp_path / "a.geom").write_text(text.replace("/LCLS/detector_1/EncoderValue", place) + PANELS)
        with pytest.raises(MrcFormatError, match=message):
            md.Geometry.from_geom(tmp_path / "a.geom", frames=tmp_path / "run.h5")


def test_frames_that_are_larger_than_the_panels(tmp_path: Path, panels: md.Geometry) -> None:
    larger = panels.framed((125, 47))
    assert larger.shape == (125, 47)
    assert larger.mask[120:].all()
    assert larger.mask[:, 40:].all()
    np.testing.assert_array_equal(larger.mask[:120, :40], panels.mask)
    np.testing.assert_array_equal(larger.radius("r_mm")[:120, :40], panels.radius("r_mm"))
    again = md.Geometry.from_geom(tmp_path / "two.geom", shape=(125, 47))
    np.testing.assert_array_equal(again.mask, larger.mask)
    frames = np.full((1, 125, 47), 3, np.uint16)
    frames[:, 120:], frames[:, :, 40:] = 900, 900
    background = md.separate_background(frames, panels, bins=8, unit="pixel").compute()
    assert (background.background_avg == 3).all()
    for shape in ((119, 40), (120, 39)):
        with pytest.raises(MrcFormatError, match="the panels need 120 x 40 pixels"):
            panels.framed(shape)


def test_panels_in_planes_lie_one_below_the_other(tmp_path: Path, panels: md.Geometry) -> None:
    layered = PANELS.replace("right/min_ss = 60", "right/min_ss = 0").replace("right/max_ss = 119", "right/max_ss = 59")
    layered = layered.replace("left/min_fs", "left/dim1 = 0\nleft/min_fs").replace(
        "right/fs", "right/dim1 = 1\nright/fs"
    )
    head = HEAD.replace("dim1 = ss\ndim2 = fs", "dim2 = ss\ndim3 = fs")
    (tmp_path / "planes.geom").write_text(head + layered)
    geometry = md.Geometry.from_geom(tmp_path / "planes.geom")
    assert geometry.shape == panels.shape
    np.testing.assert_array_equal(geometry.mask, panels.mask)
    np.testing.assert_array_equal(geometry.radius("q_A^-1"), panels.radius("q_A^-1"))
    y, x = np.mgrid[:120, :40].reshape(2, -1)
    np.testing.assert_array_equal(geometry.positions(y, x), panels.positions(y, x))
    taller = geometry.framed((130, 40))  # planes of 65 rows
    np.testing.assert_array_equal(taller.radius("r_m")[65:125], panels.radius("r_m")[60:])
    assert taller.mask[60:65].all()
    with pytest.raises(MrcFormatError, match="need 2 planes of 60 x 40 pixels"):
        geometry.framed((180, 40))  # three planes of 60 rows, or two of 90
    later = layered.replace("dim1 = 1", "dim1 = 2")
    (tmp_path / "planes.geom").write_text(head + later)
    gap = md.Geometry.from_geom(tmp_path / "planes.geom")
    assert gap.mask[60:120].all()
    wider = gap.framed((180, 44))
    np.testing.assert_array_equal(wider.radius("r_m")[120:, :40], panels.radius("r_m")[60:])
    (tmp_path / "one.geom").write_text(HEAD.replace("dim1 = ss\ndim2 = fs", "dim1 = 3\ndim2 = ss\ndim3 = fs") + PANELS)
    np.testing.assert_array_equal(md.Geometry.from_geom(tmp_path / "one.geom").mask, panels.mask)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    orientation=st.sampled_from([1, 2, 3, 4]),
    sized=st.booleans(),
    place=st.tuples(st.floats(0.05, 0.95), st.floats(0.05, 0.95)),
    tilts=st.tuples(st.floats(-0.02, 0.02), st.floats(-0.02, 0.02), st.floats(-3, 3)) | st.just((0.0, 0.0, 0.0)),
)
def test_the_beam_of_a_poni_is_where_its_pixels_are_nearest(
    tmp_path: Path, orientation: int, sized: bool, place: tuple[float, float], tilts: tuple[float, float, float]
) -> None:
    pyfai = pytest.importorskip("pyFAI")
    shape, sizes, distance = (40, 60), (1e-3, 2e-3), 0.1
    config: dict[str, object] = {"pixel1": sizes[0], "pixel2": sizes[1], "max_shape": shape, "orientation": orientation}
    poni = [place[k] * shape[k] * sizes[k] for k in (0, 1)]
    numbers = {"Distance": distance, "Poni1": poni[0], "Poni2": poni[1], "Wavelength": 1e-10}
    numbers |= {f"Rot{k + 1}": angle for k, angle in enumerate(tilts)}
    text = "".join(f"{name}: {value!r}\n" for name, value in numbers.items())
    start = f"poni_version: 2.1\nDetector: Detector\nDetector_config: {json.dumps(config)}\n"
    (tmp_path / "whole.poni").write_text(start + text)
    theirs = pyfai.load(str(tmp_path / "whole.poni"))
    if not sized:  # the same, the frames say the shape
        del config["max_shape"]
        start = f"poni_version: 2.1\nDetector: Detector\nDetector_config: {json.dumps(config)}\n"
    (tmp_path / "a.poni").write_text(start + text)
    ours = md.Geometry.from_poni(tmp_path / "a.poni", shape=shape)
    z, y, x = theirs.calc_pos_zyx()
    np.testing.assert_allclose(ours.radius("2th_rad"), np.arctan2(np.hypot(y, x), z), atol=2e-6)  # theirs are float32
    # positions of pixels are linear in row and column: where both are 0 is the beam
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    terms = np.stack([rows.ravel(), columns.ravel(), np.ones(rows.size)], axis=1)
    slope, *_ = np.linalg.lstsq(terms, np.stack([y.ravel(), x.ravel()], axis=1), rcond=None)
    expected = np.linalg.solve(slope[:2].T, -slope[2])
    np.testing.assert_allclose(ours.beam_center, expected, atol=1e-3)
