"""Geometries: a file of panels against the flat detector that its panels are cut from, and against pyFAI."""

from __future__ import annotations

import pickle
from pathlib import Path

import dask
import numpy as np
import pytest
from numpy.typing import NDArray

import mrczdask as md
from mrczdask.errors import MrcFormatError, MrczdaskError

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
        ("dim0 = %", "dim3 = 2", "layers of their own"),
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
        wanted = theirs.array_from_unit(ours.shape, "center", unit, scale=False)
        np.testing.assert_allclose(ours.radius(unit), wanted, rtol=1e-12)
