"""The commands about gain references: what they print and write, their exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import mrczdask as md
from mrczdask.cli import BAD_USAGE, FAILED, OK, main
from mrczdask.simulate import Gain

PNG = b"\x89PNG\r\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight raw movies of a detector and its gain reference; its columns change after the sixth."""
    path = tmp_path_factory.mktemp("session")
    session, truth = md.simulate.session(
        9, (2, 96, 128), dose=20, gain=Gain(column_sd=0.08, pixel_sd=0.02), gamma=[1.0] * 5 + [1.6] * 4
    )
    for k in range(9):
        md.write_mrcz(session.images.isel(movie=k), path / f"movie_{k}.mrcz")
    md.write_gain(truth.gain.compute(), path / "gain.mrc")
    np.save(path / "gain.npy", truth.gain.values)
    return path


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_estimate_writes_the_gain_and_its_picture(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["gain", "estimate", "movie_[0-4].mrcz", "--out", "found.mrc", "--picture", "gain.png"]
    assert main([*command, "--json", "--quiet"]) == OK
    about = printed(capsys)
    assert about["method"] == "hybrid"
    assert about["n_movies"] == 5
    assert about["expected_r2"] > 0.8
    true = np.load("gain.npy")
    found = md.open_gain("found.mrc")
    assert found.attrs["convention"] == "multiply"
    assert np.corrcoef(found.values.ravel(), true.ravel())[0, 1] > 0.9
    assert Path("gain.png").read_bytes().startswith(PNG)


def test_estimate_by_sme_from_single_frames(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["gain", "estimate", "movie_0.mrcz", "--method", "sme", "--iterations", "2", "--sum-to", "0", "--quiet"]
    assert main(command) == OK
    shown = " ".join(capsys.readouterr().out.split())
    assert "2 iterations recover 0.75" in shown
    assert "below 40 ties of counts mislead it" in shown


def test_check_tells_a_good_gain_from_none(capsys: pytest.CaptureFixture[str]) -> None:
    good = ["gain", "check", "movie_[0-4].mrcz", "--gain", "gain.mrc", "--fail-on-alarm", "--quiet", "--json"]
    assert main([*good, "--picture", "check.png"]) == OK
    assert printed(capsys)["alarms"] == []
    assert Path("check.png").read_bytes().startswith(PNG)
    raw = ["gain", "check", "movie_0.mrcz", "--quiet"]
    assert main(raw) == OK
    assert "is above" in capsys.readouterr().out
    assert main([*raw, "--fail-on-alarm"]) == FAILED


def test_thresholds_of_a_camera_are_written_and_used(capsys: pytest.CaptureFixture[str]) -> None:
    calibrate = ["gain", "check", "movie_[0-4].mrcz", "--gain", "gain.mrc", "--calibrate", "camera.json", "--quiet"]
    assert main(calibrate) == OK
    limits = json.loads(Path("camera.json").read_text())
    assert set(limits) == {"std", "percentile_ratio", "max_ratio", "std_all"}
    capsys.readouterr()
    check = ["gain", "check", "movie_7.mrcz", "--gain", "gain.mrc", "--thresholds", "camera.json"]
    assert main([*check, "--fail-on-alarm", "--quiet", "--json"]) == FAILED
    assert printed(capsys)["thresholds"] == limits


def test_drift_names_the_movie(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["gain", "drift", "movie_*.mrcz", "--gain", "gain.mrc", "--reference-movies", "4", "--order", "name"]
    command += ["--quiet", "--json", "--picture", "drift.png"]
    assert main(command) == OK
    about = printed(capsys)
    assert not about["alarm"]  # three steps are too few for the limit
    assert [row["movie"] for row in about["movies"]] == [f"movie_{k}" for k in range(9)]
    assert about["movies"][8]["p97_5"] > about["movies"][0]["p97_5"]
    assert Path("drift.png").read_bytes().startswith(PNG)


def test_drift_fails_on_an_alarm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gamma = [1.0] * 6 + [1.6] * 6
    session, _ = md.simulate.session(12, (1, 64, 96), dose=40, gain=Gain(column_sd=0.08), gamma=gamma)
    for k in range(12):
        md.write_mrcz(session.images.isel(movie=k), tmp_path / f"m_{k}.mrcz")
    files = [str(tmp_path / "m_*.mrcz"), "--order", "name", "--reference-movies", "4", "--quiet"]
    assert main(["gain", "drift", *files, "--picture", str(tmp_path / "a.png")]) == OK
    assert "re-acquire the gain reference from movie m_6" in capsys.readouterr().out
    assert main(["gain", "drift", *files, "--fail-on-alarm"]) == FAILED


def test_orient_finds_the_turn_and_writes_the_gain_as_it_fits(capsys: pytest.CaptureFixture[str]) -> None:
    md.write_gain(np.load("gain.npy")[::-1].copy(), "flipped.mrc")
    command = ["gain", "orient", "movie_*.mrcz", "--gain", "flipped.mrc", "--out", "fits.mrc", "--json"]
    assert main(command) == OK
    about = printed(capsys)
    assert about["decided"]
    assert about["convention"] == "multiply"
    assert about["z"] > about["second_z"] + 5
    np.testing.assert_allclose(md.open_gain("fits.mrc").values, np.load("gain.npy"), rtol=1e-6)
    md.write_gain(np.ones((96, 128), np.float32), "flat.mrc")
    assert main(["gain", "orient", "movie_0.mrcz", "--gain", "flat.mrc", "--fail-on-alarm"]) == FAILED


@pytest.mark.parametrize("turn", ["flip y, rot180", "find"])
def test_check_and_drift_of_frames_that_the_camera_turned(turn: str, capsys: pytest.CaptureFixture[str]) -> None:
    response = Gain(column_sd=0.1, row_sd=0.05, pixel_sd=0.05)
    session, truth = md.simulate.session(6, (2, 96, 128), dose=20, gain=response)
    for k in range(6):
        pixels = session.images.values[k, :, :, ::-1]
        tifffile.imwrite(f"turned_{k}.tif", pixels, photometric="minisblack", description="SerialEMCCD: . r/f 4")
    tifffile.imwrite("camera.tif", truth.gain.values.astype("f4"), photometric="minisblack")
    files = ["turned_*.tif", "--gain", "camera.tif", "--gain-convention", "multiply", "--quiet", "--json"]
    assert main(["gain", "check", *files]) == FAILED
    assert '--orientation "flip y, rot180"' in capsys.readouterr().err
    assert main(["gain", "check", *files, "--orientation", turn, "--fail-on-alarm"]) == OK
    assert printed(capsys)["alarms"] == []
    assert main(["gain", "check", *files, "--orientation", "as stored", "--fail-on-alarm"]) == FAILED
    drift = ["gain", "drift", *files, "--reference-movies", "4", "--order", "name"]
    assert main(drift) == FAILED
    assert main([*drift, "--orientation", "up"]) == FAILED
    assert "orientation='up': give one of" in capsys.readouterr().err
    assert main([*drift, "--orientation", turn]) == OK
    assert printed(capsys)["alarm"] is False


def test_errors_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gain", "estimate", "none.mrc", "--quiet"]) == FAILED
    assert "there is no such file" in capsys.readouterr().err
    md.write_gain(np.ones((4, 4), np.float32), "small.mrc")
    assert main(["gain", "check", "movie_0.mrcz", "--gain", "small.mrc", "--quiet"]) == FAILED
    error = capsys.readouterr().err
    assert "the gain is (4, 4), the movies are (96, 128)" in error
    assert error.count("\n") == 1
    assert main(["gain", "estimate", "movie_0.mrcz", "--method", "best"]) == BAD_USAGE
