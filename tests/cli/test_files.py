"""The commands about files: what they print, their exit status, their one-line errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mrczdask as md
from mrczdask.cli import BAD_USAGE, FAILED, OK, main


@pytest.fixture
def movie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    frames = md.simulate.poisson((6, 64, 48), mean=1.0, seed=1).assign_attrs(pixel_size_angstrom=1.06)
    md.write_mrcz(frames, "movie.mrcz", metadata={"session": "grid 7"})
    return tmp_path / "movie.mrcz"


def test_info_shows_shape_header_and_compression(movie: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "movie.mrcz"]) == OK
    shown = capsys.readouterr().out
    for piece in ("frame", "uint8", "zstd", "footer", "1.06", "grid 7"):
        assert piece in shown


def test_info_as_json(movie: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "movie.mrcz", "--json"]) == OK
    (about,) = json.loads(capsys.readouterr().out)
    assert (about["frame"], about["y"], about["x"], about["dtype"]) == (6, 64, 48, "uint8")
    assert about["bits per pixel"] == pytest.approx(8 * movie.stat().st_size / (6 * 64 * 48), abs=1e-3)


def test_info_goes_on_after_a_bad_file(movie: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.mrc").write_bytes(b"\x00" * 2000)
    assert main(["info", "bad.mrc", "movie.mrcz", "none.mrc"]) == FAILED
    printed = capsys.readouterr()
    assert "movie.mrcz" in printed.out
    assert [line.split(":")[0] for line in printed.err.splitlines()] == ["MrcFormatError", "none.mrc"]


@pytest.mark.parametrize("target", ["a.mrc", "a.zarr", "a.tif", "a.mrcz"])
def test_convert_keeps_the_pixels(movie: Path, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "movie.mrcz", target, "--json", "--quiet"]) == OK
    assert json.loads(capsys.readouterr().out)["shape"] == [6, 64, 48]
    assert main(["convert", target, "back.mrcz", "--quiet"]) == OK
    np.testing.assert_array_equal(md.open_movie("back.mrcz"), md.open_movie("movie.mrcz"))


def test_convert_shows_progress_on_standard_error(movie: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "movie.mrcz", "a.mrcz"]) == OK
    printed = capsys.readouterr()
    assert "a.mrcz" in printed.err
    assert printed.out.startswith("a.mrcz: 6 x 64 x 48 uint8")


def test_convert_of_a_truncated_file(movie: Path, capsys: pytest.CaptureFixture[str]) -> None:
    md.write_mrcz(md.open_movie("movie.mrcz"), "raw.mrc", codec=None)
    whole = Path("raw.mrc").read_bytes()
    Path("cut.mrc").write_bytes(whole[: len(whole) - 64 * 48])
    assert main(["convert", "cut.mrc", "a.mrcz", "--quiet"]) == FAILED
    error = capsys.readouterr().err
    assert error.startswith("MrcFormatError: ")
    assert "cut.mrc: frame 5 at byte" in error
    assert error.count("\n") == 1
    assert not Path("a.mrcz").exists()
    assert main(["convert", "cut.mrc", "a.mrcz", "--quiet", "--readable"]) == OK
    assert md.open_movie("a.mrcz").sizes["frame"] == 5


def test_index_footer_and_sidecar(movie: Path, capsys: pytest.CaptureFixture[str]) -> None:
    md.write_mrcz(md.open_movie("movie.mrcz"), "plain.mrcz", index=False)
    assert md.frame_index("plain.mrcz").attrs["source"] == "chunks"
    assert main(["index", "plain.mrcz", "--sidecar"]) == OK
    assert Path("plain.mrcz.index.json").exists()
    assert main(["index", "plain.mrcz", "--json"]) == OK
    assert md.frame_index("plain.mrcz").attrs["source"] == "footer"


def test_validate_sets_the_exit_status(movie: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "movie.mrcz"]) == OK
    Path("cut.mrcz").write_bytes(movie.read_bytes()[:3000])
    assert main(["validate", "movie.mrcz", "cut.mrcz", "--json"]) == FAILED
    out = capsys.readouterr().out
    reports = json.loads(out[out.index("[") :])
    assert [report["url"] for report in reports] == ["movie.mrcz", "cut.mrcz"]


@pytest.mark.parametrize("argv", [["convert"], ["bogus"], ["convert", "a", "b", "--level", "high"]])
def test_bad_usage(argv: list[str]) -> None:
    assert main(argv) == BAD_USAGE


def test_an_unknown_suffix_is_one_line(movie: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "movie.mrcz", "a.png", "--quiet"]) == FAILED
    assert capsys.readouterr().err.startswith("ValueError: a.png: the suffix names no format that is written")


def test_virtualize_shows_a_bar_and_goes_on(
    movie: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["virtualize", "movie.mrcz", "--to", "a.json"]
    assert main([*asked, "--resume", "--json"]) == OK
    printed = capsys.readouterr()
    assert json.loads(printed.out)["shape"] == [1, 6, 64, 48]
    assert printed.err == ""
    assert not Path("a.json.files").exists()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(asked) == OK
    assert "a.json" in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main([*asked, "--quiet"]) == OK
    assert capsys.readouterr().err == ""


def test_a_missing_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", str(tmp_path / "none.mrcz")]) == FAILED
    assert capsys.readouterr().err == f"{tmp_path / 'none.mrcz'}: there is no such file\n"


def test_convert_on_a_cluster(movie: Path) -> None:
    assert main(["convert", "movie.mrcz", "a.mrcz", "--quiet", "--scheduler", "local:1"]) == OK
    np.testing.assert_array_equal(md.open_movie("a.mrcz"), md.open_movie("movie.mrcz"))


def test_the_command_is_installed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mrczdask.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == md.__version__


def test_doctor_names_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == OK
    shown = capsys.readouterr().out
    assert "numba" in shown
    assert "kernels compiled" in shown


def test_options_of_eer_movies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.io.test_eer import SHAPE, camera_frames, write_eer

    for k, n in enumerate((201, 202)):
        write_eer(tmp_path / f"m{k}.eer", camera_frames(n, SHAPE, seed=k, rate=0.01), SHAPE)
    movie, session, out = str(tmp_path / "m0.eer"), f"{tmp_path}/*.eer", str(tmp_path / "out")
    for command in (["convert", movie, f"{out}.mrcz"], ["correct", session, "-o", f"{out}.zarr"]):
        assert main(command) == 1
        assert "201 camera frames" in capsys.readouterr().err
    assert main(["convert", movie, f"{out}.mrcz", "--frames-per-fraction", "50", "--upsampling", "2", "-q"]) == 0
    assert md.open_movie(f"{out}.mrcz").shape == (4, 2 * SHAPE[0], 2 * SHAPE[1])
    options = ["--frames-per-fraction", "100", "--koma", "0", "--order", "name", "--outliers", "none", "-q", "--json"]
    assert main(["correct", session, "-o", f"{out}.zarr", *options]) == 0
    capsys.readouterr()
    assert md.open_archive(f"{out}.zarr")["movies"].images.shape == (2, 2, *SHAPE)
    assert main(["gain", "estimate", session, "--lengths", "shortest", "--method", "means", "--json", "-q"]) == 0
    assert main(["convert", str(tmp_path / "m.mrc"), f"{out}.tif", "--upsampling", "2"]) == 1
