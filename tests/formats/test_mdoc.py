from __future__ import annotations

import logging
import sys
from pathlib import Path

import mdocfile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrczdask.errors import MissingExtraError
from mrczdask.formats.mdoc import mdoc_names, parse_mdoc

FRAME_SET = """T = SerialEM: Krios Camera -> 0:Ceta 1:K3         08-Oct-21  07:38:24
Voltage = 300

[FrameSet = 0]
GainReference = CountRef_001.dm4
TiltAngle = 12.5
ExposureDose = 8.0
DoseRate = 4.97858
PixelSpacing = 0.83
ExposureTime = 2.0
CountsPerElectron = 1
RotationAndFlip = 7
DefectFile = defects_001.txt
SubFramePath = X:\\data\\movie_001.tif
NumSubFrames = 4
FrameDosesAndNumber = 1.5 2 2.5 2
PriorRecordDose = 10
DateTime = 08-Oct-21  07:39:08
"""

SERIES = """PixelSpacing = 5.4
Voltage = 200

[T = SerialEM: Digitized on Krios                       30-Nov-15  15:14:20    ]
[T =     Tilt axis angle = 85.3, binning = 4  spot = 8  camera = 2]

[ZValue = 0]
TiltAngle = 0.01
ExposureDose = 2.0
DateTime = 30-Nov-15  15:21:38
Binning = 4

[ZValue = 1]
TiltAngle = -3
ExposureDose = 2.5
DateTime = 30-Nov-15  15:23:38
Binning = 4

[ZValue = 2]
TiltAngle = 3
ExposureDose = 3.0
DateTime = 30-Nov-15  15:22:38
Binning = 4
"""


def test_movie() -> None:
    facts = parse_mdoc(FRAME_SET, 4)
    assert facts.notes == ()
    np.testing.assert_allclose(facts.per_frame["dose"], [11.5, 13, 15.5, 18])
    np.testing.assert_allclose(facts.per_frame["time"], [0, 0.5, 1, 1.5])
    np.testing.assert_array_equal(facts.per_frame["tilt"], 12.5)
    assert facts.attrs["voltage_kv"] == 300
    assert facts.attrs["pixel_size_angstrom"] == 0.83
    assert facts.attrs["counts_per_electron"] == 1
    assert facts.attrs["rotation_flip"] == 7
    assert facts.attrs["defect_file"] == "defects_001.txt"
    assert facts.attrs["sub_frame_path"] == "X:\\data\\movie_001.tif"
    assert facts.session == {"dose_rate": 4.97858, "gain_reference": "CountRef_001.dm4"}
    assert facts.acquired == np.datetime64("2021-10-08T07:39:08")


def test_dose_without_a_dose_of_each_frame_is_shared_out() -> None:
    text = FRAME_SET.replace("FrameDosesAndNumber", "Unknown").replace("PriorRecordDose", "AlsoUnknown")
    np.testing.assert_allclose(parse_mdoc(text, 4).per_frame["dose"], [2, 4, 6, 8])


def test_a_dose_for_other_frames_is_not_used() -> None:
    facts = parse_mdoc(FRAME_SET, 5)
    assert "dose" not in facts.per_frame
    assert len(facts.per_frame["tilt"]) == 5
    assert any("4 frames, the file has 5" in note for note in facts.notes)
    assert any("FrameDosesAndNumber" in note for note in facts.notes)


def test_a_dose_of_zero_is_no_dose() -> None:
    text = FRAME_SET.replace("1.5 2 2.5 2", "0 4").replace("ExposureDose = 8.0", "ExposureDose = 0")
    assert "dose" not in parse_mdoc(text, 4).per_frame


def test_series_accumulates_dose_in_time() -> None:
    facts = parse_mdoc(SERIES, 3)
    np.testing.assert_array_equal(facts.per_frame["tilt"], [0.01, -3, 3])
    np.testing.assert_array_equal(facts.per_frame["time"], [0, 120, 60])
    np.testing.assert_allclose(facts.per_frame["dose"], [2, 7.5, 5])
    assert facts.attrs == {
        "pixel_size_angstrom": 5.4,
        "voltage_kv": 200.0,
        "binning": 4.0,
        "tilt_axis_angle_deg": 85.3,
    }
    assert facts.acquired == np.datetime64("2015-11-30T15:21:38")


def test_series_with_the_dose_before_each_image() -> None:
    text = SERIES
    for z, prior in enumerate([100.0, 110.0, 120.0]):
        text = text.replace(f"[ZValue = {z}]", f"[ZValue = {z}]\nPriorRecordDose = {prior}")
    np.testing.assert_allclose(parse_mdoc(text, 3).per_frame["dose"], [102, 112.5, 123])


def test_series_with_a_section_missing() -> None:
    facts = parse_mdoc(SERIES, 4)
    np.testing.assert_array_equal(facts.per_frame["tilt"], [0.01, -3, 3, np.nan])
    assert set(facts.per_frame) == {"tilt"}
    assert "1 of 4 frames" in facts.notes[0]


def test_one_section_that_describes_all_frames_is_a_movie() -> None:
    text = FRAME_SET.replace("[FrameSet = 0]", "[ZValue = 0]")
    np.testing.assert_allclose(parse_mdoc(text, 4).per_frame["dose"], [11.5, 13, 15.5, 18])


def test_a_tilt_series_in_one_movie_says_that_the_angles_are_not_known() -> None:
    text = FRAME_SET + "".join(
        f"\n[ZValue = {k}]\nTiltAngle = {k - 1}\nFrameTSStartEndFrames = {20 * k} {20 * k + 10}\n" for k in range(3)
    )
    facts = parse_mdoc(text, 4)
    assert facts.attrs["frame_tilt_angles_deg"] == [-1.0, 0.0, 1.0]
    assert set(facts.per_frame) == {"dose"}
    assert any("tilt angle" in note for note in facts.notes)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("TiltAngle = twelve", "TiltAngle = 12.5"),
        ("PixelSpacing = 0.8.3", "PixelSpacing = 0.83"),
        ("FrameDosesAndNumber = a b", "FrameDosesAndNumber = 1.5 2 2.5 2"),
        ("StagePosition = 1", "GainReference = CountRef_001.dm4"),
        ("NumSubFrames = 4.5.6", "NumSubFrames = 4"),
        ("Title = a = b", "Voltage = 300"),
    ],
)
def test_one_wrong_value_does_not_hide_the_others(wrong: str, right: str) -> None:
    facts = parse_mdoc(FRAME_SET.replace(right, wrong), 4)
    assert facts.attrs["rotation_flip"] == 7
    assert facts.acquired == np.datetime64("2021-10-08T07:39:08")
    if not wrong.startswith("Title"):
        assert any(wrong.split(" = ")[0] in note for note in facts.notes)


def test_absurd_numbers_are_left_out() -> None:
    text = FRAME_SET.replace("= 300", "= 1e30").replace("= 0.83", "= nan").replace("= 12.5", "= inf")
    facts = parse_mdoc(text, 4)
    assert not {"voltage_kv", "pixel_size_angstrom"} & set(facts.attrs)
    assert "tilt" not in facts.per_frame


def test_bytes_that_are_no_utf8_and_other_line_ends() -> None:
    text = (
        FRAME_SET.replace("CountRef_001", "Verstärkung_µ")
        .replace("\n", "\r\n")
        .replace("[FrameSet = 0]", "[FrameSet=0]")
    )
    facts = parse_mdoc(text.encode("latin-1"), 4)
    assert facts.session["gain_reference"] == "Verstärkung_µ.dm4"
    assert parse_mdoc(b"\xef\xbb\xbf" + FRAME_SET.encode(), 4).attrs["voltage_kv"] == 300


def test_no_section() -> None:
    facts = parse_mdoc("Voltage = 300\n", 4)
    assert facts.attrs == {"voltage_kv": 300.0}
    assert "no FrameSet" in facts.notes[0]
    assert parse_mdoc("", 1).attrs == {}


def test_mdocfile_is_quiet_here_and_only_here(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    with caplog.at_level(logging.WARNING, logger="mdocfile"):
        parse_mdoc(FRAME_SET, 4)
        assert not caplog.records
        (tmp_path / "a.mdoc").write_text(FRAME_SET)
        mdocfile.read(tmp_path / "a.mdoc")
        assert caplog.records


def test_names() -> None:
    assert mdoc_names("s3://b/x.y/movie.tif") == ("s3://b/x.y/movie.tif.mdoc", "s3://b/x.y/movie.mdoc")
    assert mdoc_names("movie.mrc") == ("movie.mrc.mdoc", "movie.mdoc")


def test_without_mdocfile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mdocfile.data_models", None)
    with pytest.raises(MissingExtraError, match=r"mrczdask\[em\]"):
        parse_mdoc(FRAME_SET, 4)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "n_frames"), [("tilt_series", 41), ("montage_section", 62), ("montage_section_multiple", 90)]
)
def test_real_series_against_mdocfile(data_dir: Path, name: str, n_frames: int) -> None:
    path = data_dir / "real" / "mrc" / f"{name}.mdoc"
    table = mdocfile.read(path)
    table = table[table["ZValue"].notna()]
    assert len(table) == n_frames
    facts = parse_mdoc(path.read_bytes(), n_frames)
    assert facts.notes == ()
    np.testing.assert_array_equal(facts.per_frame["tilt"], table["TiltAngle"].to_numpy(float))
    assert facts.attrs["pixel_size_angstrom"] == float(table["PixelSpacing"].iloc[0])
    assert "dose" not in facts.per_frame  # ExposureDose = 0 throughout: not calibrated


@pytest.mark.real_data
def test_real_frame_sets(data_dir: Path) -> None:
    folder = data_dir / "real" / "mrc"
    single = parse_mdoc((folder / "frame_set_single.mdoc").read_bytes(), 12)
    assert single.notes == ()
    np.testing.assert_allclose(single.per_frame["dose"], 0.63824 * np.arange(1, 13))
    assert single.per_frame["dose"][-1] == pytest.approx(7.65892, rel=1e-3)  # its ExposureDose
    assert single.session["gain_reference"].endswith(".dm4")
    many = parse_mdoc((folder / "frame_set_multiple.mdoc").read_bytes(), 243)
    assert many.attrs["frame_tilt_angles_deg"] == [33.0] * 20
    # the dose of the frames agrees with what the sections of the tilts say was received at the end
    assert many.per_frame["dose"][-1] == pytest.approx(145.817 + 7.66184, rel=0.02)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), n_frames=st.integers(1, 6))
def test_any_text_gives_facts(data: st.DataObject, n_frames: int) -> None:
    lines = (FRAME_SET + SERIES).splitlines()
    for _ in range(data.draw(st.integers(0, 6))):
        k = data.draw(st.integers(0, len(lines) - 1))
        key = lines[k].split("=")[0]
        lines[k] = data.draw(st.just(f"{key}= ") | st.text(max_size=12).map(lambda value, key=key: f"{key}= {value}"))
    facts = parse_mdoc("\n".join(lines), n_frames)
    assert all(values.shape == (n_frames,) and not np.isinf(values).any() for values in facts.per_frame.values())


@pytest.mark.parametrize(
    "path", ["/data/x/frames_1.tif", "\\\\10.0.0.1\\Frames\\t_1.tiff", "X:\\frames\\a b.tif", "frames/a=b.tif", "a.tif"]
)
def test_paths_are_kept_as_they_stand(path: str) -> None:
    text = f"[FrameSet = 0]\nSubFramePath = {path}\nGainReference = {path}\nDefectFile = {path}\nNumSubFrames = 2\n"
    facts = parse_mdoc(text, 2)
    assert facts.attrs == {"sub_frame_path": path, "defect_file": path}
    assert facts.session == {"gain_reference": path}


@pytest.mark.parametrize(
    "bracket", ["[T =     Tilt axis angle = 84.8, binning = 1  spot = 5]", "T = Tilt axis angle = 84.8"]
)
def test_the_tilt_axis_is_that_of_the_title(bracket: str) -> None:
    series = "".join(f"[ZValue = {z}]\nTiltAngle = {z}\nRotationAngle = 174.78\n\n" for z in range(3))
    facts = parse_mdoc(f"PixelSpacing = 1.5\n\n[T = SerialEM: somewhere]\n\n{bracket}\n\n{series}", 3)
    assert (facts.attrs["tilt_axis_angle_deg"], facts.attrs["rotation_angle_deg"]) == (84.8, 174.78)
    assert "tilt_axis_angle_deg" not in parse_mdoc(series, 3).attrs
