"""The command correct: what it writes, its table, its exit status; the numbers are those of `process_session`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import xarray as xr

import mrczdask as md
from mrczdask.cli import BAD_USAGE, FAILED, OK, main
from mrczdask.errors import MrczdaskWarning
from mrczdask.simulate import Defects, Gain, Pattern, Specimen

FILM = "movie_3"
COMMAND = ["correct", "movie_*.mrcz", "--gain", "gain.mrc", "--koma", "2", "--order", "name"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven raw movies, one of them of carbon film, and the references of their detector."""
    path = tmp_path_factory.mktemp("session")
    session, truth = md.simulate.session(
        7,
        (4, 96, 128),
        dose=6,
        gain=Gain(pixel_sd=0.03),
        pattern=Pattern(pixel_sd=0.3),
        defects=Defects(hot_fraction=0.01),
        specimen=Specimen(ice_sd=0.01, carbon=["movie_0003"]),
    )
    for k in range(7):
        md.write_mrcz(session.images.isel(movie=k), path / f"movie_{k}.mrcz")
    md.write_gain(truth.gain.compute(), path / "gain.mrc")
    md.write_gain(truth.gain.compute()[::-1], path / "flipped.mrc")
    md.write_mrcz(xr.DataArray(np.full((2, 96, 128), 1, np.uint8), dims=("frame", "y", "x")), path / "dark.mrcz")
    known = np.zeros((96, 128), np.uint8)
    known[5, 7] = 1
    md.write_mrcz(xr.DataArray(known[None], dims=("frame", "y", "x")), path / "defects.mrc")
    for k in range(2):
        md.write_mrcz(xr.DataArray(session.images.values[k], dims=("frame", "y", "x")), path / f"bare_{k}.mrcz")
    return path


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "corrected.zarr")


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def session() -> xr.Dataset:
    return md.open_session("movie_*.mrcz", order="name")


def test_table_and_bars(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "-o", url]) == OK
    said = capsys.readouterr()
    for label in ("1/3 sums and outliers", "2/3 windows", "3/3 correction"):
        assert label in said.err
    lines = said.out.splitlines()
    assert " ".join(lines[0].split()) == "movie hot dead thresholds (sd) R before R after expected floor"
    report = md.open_archive(url, "derived/sums").report
    for k, line in enumerate(lines[1:8]):
        name, hot, dead, _, bright, before, after, floor, *left_out = line.split()
        assert name == f"movie_{k}"
        assert int(hot) == report.sel(movie=name, number="n_hot")
        assert int(dead) == report.sel(movie=name, number="n_dead")
        assert 3 < float(bright) < 4.5
        assert float(before) > float(after)
        assert float(floor) == pytest.approx(1 / 17, abs=1e-4)
        assert left_out == (["left", "out"] if name == FILM else [])
    assert said.out.splitlines()[-1] == f"left out of the averages: {FILM}"


def test_json_is_what_the_archive_holds(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*COMMAND, "-o", url, "--json", "--quiet", "--scheduler", "threads", "--outliers", "cdf"]
    assert main([*command, "--method", "plain", "--dtype", "float16", "--gamma", "0.9", "--exclude", "none"]) == OK
    about = printed(capsys)
    assert about["shape"] == [7, 4, 96, 128]
    assert about["dtype"] == "float16"
    assert about["excluded"] == []
    done = md.open_archive(url, "movies")
    after = [row["correlation_after"] for row in about["movies"]]
    np.testing.assert_array_equal(after, done.correlation_after)
    options: dict[str, Any] = {"gain": md.open_gain("gain.mrc"), "gamma": 0.9, "outliers": "cdf", "koma": 2}
    expected = md.process_session(session(), f"{url}2", **options, method="plain", dtype="float16", exclude=None)
    np.testing.assert_array_equal(done.images, expected["movies"].images)


def test_references_and_no_koma(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["correct", "movie_[0-2].mrcz", "-o", url, "--order", "name", "--json", "--quiet", "--koma", "0"]
    command += ["--dark", "dark.mrcz", "--defects", "defects.mrc", "--dose-rate", "2", "--outliers", "none"]
    assert main([*command, "--gain", "flipped.mrc", "--orientation", "flip y"]) == OK
    rows = printed(capsys)["movies"]
    assert [(row["hot"], row["dead"], row["threshold_hot"], row["correlation_floor"]) for row in rows] == [
        (0, 1, None, 0.0)
    ] * 3
    dark, known = np.ones((96, 128)), np.zeros((96, 128), bool)
    known[5, 7] = True
    options: dict[str, Any] = {"gain": md.open_gain("gain.mrc"), "dose_rate": 2, "outliers": None, "koma": None}
    few = session().isel(movie=slice(3))
    expected = md.process_session(few, f"{url}2", dark=dark, mask=known, **options)
    np.testing.assert_array_equal(md.open_archive(url, "movies").images, expected["movies"].images)


def test_the_turn_of_the_gain_is_found(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["correct", "movie_[0-3].mrcz", "-o", url, "--order", "name", "--koma", "1", "--quiet", "--json"]
    assert main([*command, "--gain", "flipped.mrc", "--orientation", "find", "--exclude", FILM]) == OK
    assert printed(capsys)["excluded"] == [FILM]
    sums = md.open_archive(url, "derived/sums")
    expected = md.apply_gain(sums.sums, md.open_gain("gain.mrc"))
    good = sums.defect_kind == 0
    np.testing.assert_allclose(sums.corrected.where(good, 0), expected.where(good, 0), rtol=1e-6)


def test_resumed_or_begun_anew(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["correct", "movie_[0-2].mrcz", "--order", "name", "-o", url, "--quiet"]
    assert main([*command, "--koma", "1"]) == OK
    stamps = {path: path.stat().st_mtime_ns for path in Path(url).rglob("c/*")}
    assert main([*command, "--koma", "1"]) == OK
    assert {path: path.stat().st_mtime_ns for path in Path(url).rglob("c/*")} == stamps
    capsys.readouterr()
    assert main([*command, "--koma", "0"]) == FAILED
    error = capsys.readouterr().err
    assert "koma was 1 and is None" in error
    assert "--no-resume" in error
    assert main([*command, "--koma", "0", "--no-resume"]) == OK


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gain", "none.mrc"], "there is no such file"),
        (["--gain", "small.mrc"], "the gain is 5 x 5"),
        (["bare_0.mrcz", "bare_1.mrcz", "--dose-rate", "recorded"], "do not tell their dose rate"),
        (["--exclude", "movie_99"], "movie_99, which is not among the movies"),
        (["--scheduler", "local:none"], 'give "threads"'),
        (["--koma", "-1"], "radius of 1 or more"),
    ],
    ids=["no file", "wrong size", "no dose rate", "unknown name", "unknown scheduler", "bad radius"],
)
def test_errors_are_one_line(url: str, capsys: pytest.CaptureFixture[str], options: list[str], message: str) -> None:
    md.write_gain(np.ones((5, 5), np.float32), "small.mrc")
    files = [] if options[0].startswith("bare") else ["movie_[0-2].mrcz"]
    assert main(["correct", *files, *options, "--order", "name", "-o", url, "--quiet"]) == FAILED
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    Path("small.mrc").unlink()


@pytest.mark.parametrize(
    "wrong", [[], ["-o", "x.zarr", "--outliers", "sigma"], ["-o", "x.zarr", "--koma", "many"]], ids=str
)
def test_bad_usage(wrong: list[str]) -> None:
    assert main(["correct", "movie_0.mrcz", *wrong]) == BAD_USAGE


def test_movies_that_do_not_fit(url: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = folder / "odd.mrcz"
    md.write_mrcz(md.simulate.poisson((4, 32, 32), mean=1.0), odd)
    command = ["correct", "movie_[0-2].mrcz", "odd.mrcz", "--order", "given", "-o", url, "--quiet", "--koma", "1"]
    assert main(command) == FAILED
    assert "odd.mrcz" in capsys.readouterr().err
    with pytest.warns(md.errors.MrczdaskWarning, match=r"odd\.mrcz"):
        assert main([*command, "--skip-unfit"]) == FAILED
    assert "left out: odd.mrcz" in capsys.readouterr().err
    odd.unlink()


@pytest.mark.parametrize("damaged", [[1], [0, 3]])
def test_movies_that_are_damaged_are_left_out_and_named(
    tmp_path: Path, damaged: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    import tifffile

    rng = np.random.default_rng(1)
    for k in range(6):
        path = tmp_path / f"movie_{k}.tif"
        frames = rng.poisson(2, (8, 64, 64)).astype("u1")
        options = {"photometric": "minisblack", "metadata": None, "compression": "deflate", "rowsperstrip": 16}
        tifffile.imwrite(path, frames, **options)
        if k in damaged:
            with tifffile.TiffFile(path) as file:
                at = file.pages[5].dataoffsets[2]
            raw = bytearray(path.read_bytes())
            raw[at + 10 : at + 14] = b"\xff\xfe\xff\xfe"
            path.write_bytes(raw)
    command = ["correct", f"{tmp_path}/*.tif", "--order", "name", "--koma", "1", "--quiet", "-o"]
    assert main([*command, f"{tmp_path}/a.zarr"]) == FAILED
    assert "strip 2" in capsys.readouterr().err
    assert main([*command, f"{tmp_path}/b.zarr", "--skip-unfit"]) == FAILED
    said = capsys.readouterr()
    left_out = [line for line in said.err.splitlines() if line.startswith("left out: ")]
    assert len(left_out) == len(damaged)
    assert all(f"movie_{k}.tif: frame 5" in line for k, line in zip(damaged, left_out, strict=True))
    good = [k for k in range(6) if k not in damaged]
    done = md.open_archive(f"{tmp_path}/b.zarr")["movies"]
    assert done.movie.values.tolist() == [f"movie_{k}" for k in good]
    paths = [f"{tmp_path}/movie_{k}.tif" for k in good]
    assert main(["correct", *paths, *command[2:], f"{tmp_path}/c.zarr"]) == OK
    want = md.open_archive(f"{tmp_path}/c.zarr")["movies"]
    np.testing.assert_array_equal(done.images.values, want.images.values)


def damage(file: Path, frame: int) -> None:
    """Spoil the bytes of a strip of a TIFF."""
    with tifffile.TiffFile(file) as tif:
        place = tif.pages[frame].dataoffsets[1]  # type: ignore[union-attr]
    raw = bytearray(file.read_bytes())
    raw[place + 10 : place + 14] = b"\xff\xfe\xff\xfe"
    file.write_bytes(bytes(raw))


def test_a_movie_that_breaks_while_it_is_read_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / f"t_{k}.tif" for k in range(5)]
    rng = np.random.default_rng(0)
    for file in files:
        frames = rng.poisson(3, (4, 64, 64)).astype(np.uint8)
        tifffile.imwrite(file, frames, photometric="minisblack", compression="deflate", rowsperstrip=16)
    whole = files[1].read_bytes()
    for place in (1, 3):
        damage(files[place], 2)
    url, options = str(tmp_path / "a.zarr"), ["--koma", "1", "--order", "given", "--quiet", "--outliers", "none"]
    command = ["correct", *map(str, files), "-o", url, *options]
    assert main(command) == FAILED
    assert "t_1.tif: frame 2" in capsys.readouterr().err
    for _ in range(2):  # the second time they are known
        assert main([*command, "--skip-unfit", "--json"]) == FAILED
        said = printed(capsys)
        assert [row["movie"] for row in said["movies"]] == ["t_0", "t_2", "t_4"]
        assert [line.split("t_")[-1][:5] for line in said["left_out"]] == ["1.tif", "3.tif"]
    few = ["correct", *(str(files[k]) for k in (0, 2, 4)), "-o", f"{url[:-5]}_few.zarr", *options]
    assert main(few) == OK
    capsys.readouterr()
    stored, wanted = (md.open_archive(place)["movies"].images for place in (url, few[few.index("-o") + 1]))
    np.testing.assert_array_equal(stored, wanted)
    files[1].write_bytes(whole)
    assert main([*command, "--skip-unfit", "--json"]) == FAILED
    assert [row["movie"] for row in printed(capsys)["movies"]] == ["t_0", "t_1", "t_2", "t_4"]


def test_movies_that_do_not_open_or_fit_are_left_out_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for k in range(5):
        md.write_mrcz(rng.poisson(3, (4, 24, 32 - 8 * (k == 3))).astype(np.uint8), tmp_path / f"m_{k}.mrc")
    (tmp_path / "m_1.mrc").write_bytes((tmp_path / "m_1.mrc").read_bytes()[:1500])
    command = ["correct", str(tmp_path / "m_*.mrc"), "-o", str(tmp_path / "a.zarr"), "--koma", "1", "--order", "name"]
    with pytest.warns(MrczdaskWarning, match=r"m_1\.mrc: |do not have the shape"):
        assert main([*command, "--quiet", "--skip-unfit", "--json"]) == FAILED
    told = capsys.readouterr()
    said = json.loads(told.out)
    assert [row["movie"] for row in said["movies"]] == ["m_0", "m_2", "m_4"]
    assert [line.split(":")[0][-7:] for line in said["left_out"]] == ["m_1.mrc", "m_3.mrc"]
    assert told.err.count("left out: ") == 2


@pytest.mark.parametrize("name", ["c.mrc", "c.h5", "c.tif", "z.tar"])
def test_archives_do_not_take_names_of_files(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["correct", "none_*.mrcz", "-o", name, "--quiet"]) == FAILED
    assert f"{name}: a Zarr archive is a folder named .zarr" in capsys.readouterr().err
    assert not Path(name).exists()


def test_pixels_that_are_no_numbers_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k in range(3):
        frames = np.random.default_rng(k).poisson(20, (3, 32, 32)).astype(np.float32)
        if k == 1:
            frames[2, 5, 6] = np.nan
        md.write_mrcz(frames, tmp_path / f"f_{k}.mrc")
    command = ["correct", str(tmp_path / "f_*.mrc"), "-o", str(tmp_path / "f.zarr"), "--koma", "1", "--order", "name"]
    with pytest.warns(MrczdaskWarning, match=r"f_1 \(1 pixels, such as frame 2, y 5, x 6\)"):
        assert main([*command, "--quiet"]) == OK
    assert "f_1: 1 pixels are no numbers, such as frame 2, y 5, x 6" in capsys.readouterr().out
    with pytest.warns(MrczdaskWarning):
        assert main([*command, "--quiet", "--json"]) == OK
    rows = printed(capsys)["movies"]
    assert rows[1]["unusable"] == {"pixels": 1, "frame": 2, "y": 5, "x": 6}
    assert rows[0]["unusable"]["pixels"] == 0
