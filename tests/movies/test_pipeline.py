"""`process_session`: the numbers of the verbs, and the same bits however often it was interrupted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import mrczdask as md
from mrczdask.errors import MissingShardError, ResumeError

MOVIES, SHAPE = 9, (6, 72, 80)
OPTIONS: dict[str, Any] = {"koma": 2}
LABELS = ("1/3 sums and outliers", "2/3 windows", "3/3 correction")


def simulated(n: int = MOVIES, seed: int = 0) -> tuple[xr.Dataset, xr.Dataset]:
    return md.simulate.session(
        n,
        SHAPE,
        dose=5,
        seed=seed,
        pattern=md.simulate.Pattern(pixel_sd=0.3),
        defects=md.simulate.Defects(hot_fraction=0.01),
        gain=md.simulate.Gain(pixel_sd=0.03),
    )


GAIN = simulated()[1].gain.compute()
GAIN[4, 5] = 0


def write(folder: Path, session: xr.Dataset) -> None:
    for k in range(session.sizes["movie"]):
        md.write_mrcz(session.images.isel(movie=k), folder / f"movie_{k}.mrcz")


def opened(folder: Path) -> xr.Dataset:
    return md.open_session(folder / "movie_*.mrcz", order="name")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("session")
    write(folder, simulated()[0])
    return folder


@pytest.fixture(scope="module")
def whole(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of a run without interruptions."""
    url = tmp_path_factory.mktemp("whole") / "corrected.zarr"
    md.process_session(opened(files), url, gain=GAIN, **OPTIONS)
    return url


def chunks(url: Path) -> dict[str, bytes]:
    """Every file of an archive but its journal."""
    files = [path for path in url.rglob("*") if path.is_file() and ".journal" not in path.parts]
    return {str(path.relative_to(url)): path.read_bytes() for path in files}


def assert_same(url: Path, whole: Path) -> None:
    found, expected = chunks(url), chunks(whole)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


@pytest.mark.parametrize(
    ("outliers", "method", "koma"),
    [("fdr", "wiener", 2), ("cdf", "plain", 20), ("fdr", "wiener", None), (None, "plain", 3)],
)
def test_the_numbers_are_those_of_the_verbs(
    files: Path, tmp_path: Path, outliers: str | None, method: str, koma: int | None
) -> None:
    session = opened(files)
    done = md.process_session(
        session, tmp_path / "out.zarr", gain=GAIN, gamma=0.9, outliers=outliers, koma=koma, method=method
    )
    sums = md.sum_frames(session).compute()

    def gained(images: Any) -> Any:
        return md.apply_gain(images, GAIN, gamma=0.9)

    if outliers is None:
        found = xr.Dataset({"mask": xr.zeros_like(sums, dtype=bool)})
    else:
        found = md.find_outliers(gained(sums), method=outliers).compute()

    def corrected(images: Any) -> Any:
        return md.fill_outliers(gained(images), found)

    expected = corrected(session)
    if koma:
        expected = md.koma(expected, sums=corrected(sums), radius=koma, method=method)
    images = expected.images.compute()
    np.testing.assert_array_equal(done["derived/sums"].sums, sums)
    np.testing.assert_array_equal(done["movies"].images, images)
    np.testing.assert_allclose(done["movies"].correlation_after, md.frame_correlation(images), rtol=1e-9)
    before = done["derived/sums"].report.sel(number="correlation_before")
    np.testing.assert_allclose(before, md.frame_correlation(session), rtol=1e-9)
    assert "process_session" in done["movies"].images.attrs["history"]


def test_stored_parts_can_be_used_by_the_verbs(files: Path, whole: Path) -> None:
    """Nothing of them warns: they are stored, and their names match."""
    stored = md.open_archive(whole, "derived/sums")
    filled = md.fill_outliers(opened(files), stored.defect_kind > 0)
    assert filled.images.isel(movie=3).compute().dtype == np.float32


def test_a_second_run_does_nothing(files: Path, whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    md.process_session(opened(files), whole, gain=GAIN, **OPTIONS)
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()} == before


CHILD = textwrap.dedent("""
    import os, sys
    import mrczdask as md
    folder, url, gain, label, after = sys.argv[1:]

    def progress(done, total, now):
        if now == label and done == int(after):
            os._exit(9)

    session = md.open_session(folder + "/movie_*.mrcz", order="name")
    md.process_session(session, url, gain=md.open_gain(gain), koma=2, progress=progress)
""")


@pytest.mark.slow
def test_a_killed_client_is_resumed(files: Path, whole: Path, tmp_path: Path) -> None:
    """One archive, whose client is killed in each of the passes, one after the other."""
    url, gain = tmp_path / "corrected.zarr", tmp_path / "gain.mrc"
    md.write_gain(GAIN, gain)
    for label, after in zip(LABELS, (4, 1, 4), strict=True):
        command = [sys.executable, "-c", CHILD, str(files), str(url), str(gain), label, str(after)]
        assert subprocess.run(command, check=False).returncode == 9
    (url / "movies" / "images" / "c" / "0.5f.partial").write_bytes(b"of a chunk that Zarr was writing")
    done: list[tuple[int, int, str]] = []
    md.process_session(opened(files), url, gain=GAIN, progress=lambda *args: done.append(args), **OPTIONS)
    assert_same(url, whole)
    assert done.index((9, 9, LABELS[0])) < 11  # nothing of the first pass was done again


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as cluster:
        yield cluster


@pytest.mark.slow
@pytest.mark.parametrize("label", LABELS)
def test_a_killed_worker_changes_nothing(files: Path, whole: Path, tmp_path: Path, cluster: Any, label: str) -> None:
    from distributed import Client

    killed: list[int] = []

    def progress(done: int, total: int, now: str) -> None:
        if now == label and done == 1 and not killed:
            killed.append(next(iter(client.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)

    url = tmp_path / "corrected.zarr"
    with Client(cluster) as client:
        client.wait_for_workers(2, timeout=30)
        md.process_session(opened(files), url, gain=GAIN, progress=progress, **OPTIONS)
    assert killed
    assert_same(url, whole)


def counts(url: Path) -> dict[str, int]:
    """When each region was done last, by name."""
    marks = (url / "movies" / "images" / ".journal").rglob("*.done")
    return {"/".join(mark.parts[-2:]): mark.stat().st_mtime_ns for mark in marks}


def stored_names(url: Path) -> set[str]:
    """What Dask calls the images of the archive."""
    tree = md.open_archive(url)
    places = ("derived/sums/corrected", "derived/windows/reference", "movies/images")
    return {tree[place].data.name for place in places}


def redone(url: Path, before: dict[str, int]) -> set[str]:
    return {name.removesuffix(".done") for name, at in counts(url).items() if before.get(name) != at}


@pytest.fixture
def copy(files: Path, whole: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A session and its archive that a test may change; the files keep their times."""
    shutil.copytree(files, tmp_path / "session", copy_function=shutil.copy2)
    url = tmp_path / "corrected.zarr"
    md.process_session(opened(tmp_path / "session"), url, gain=GAIN, **OPTIONS)
    return tmp_path / "session", url


def test_a_changed_movie_and_those_around_it_are_done_again(copy: tuple[Path, Path], tmp_path: Path) -> None:
    folder, url = copy
    before, names = counts(url), stored_names(url)
    md.process_session(opened(folder), url, gain=GAIN, **OPTIONS)
    assert stored_names(url) == names
    one, other = (simulated(seed=seed)[0].images.isel(movie=6) for seed in (0, 3))
    md.write_mrcz(one.copy(data=other.data), folder / "movie_6.mrcz")
    md.process_session(opened(folder), url, gain=GAIN, **OPTIONS)
    again = redone(url, before)
    assert {name for name in again if name.startswith("sums/")} == {"sums/6"}
    assert {name for name in again if name.startswith("movies/")} == {f"movies/{k}" for k in (4, 5, 6, 7, 8)}
    assert not stored_names(url) & names
    fresh = tmp_path / "fresh.zarr"
    md.process_session(opened(folder), fresh, gain=GAIN, **OPTIONS)
    assert_same(url, fresh)


def test_added_movies_are_taken_in(copy: tuple[Path, Path], tmp_path: Path) -> None:
    folder, url = copy
    before = counts(url)
    shutil.copy2(folder / "movie_2.mrcz", folder / "movie_9.mrcz")
    done = md.process_session(opened(folder), url, gain=GAIN, **OPTIONS)
    assert done["movies"].images.sizes["movie"] == 10
    assert done["movies"].movie.values.tolist()[-1] == "movie_9"
    again = redone(url, before)
    assert {name for name in again if name.startswith("sums/")} == {"sums/9"}
    assert "movies/0" not in again
    fresh = md.process_session(opened(folder), tmp_path / "fresh.zarr", gain=GAIN, **OPTIONS)
    for group in ("movies", "derived/sums", "derived/windows"):
        xr.testing.assert_identical(done[group].to_dataset().compute(), fresh[group].to_dataset().compute())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"koma": 3}, "koma was 2 and is 3"),
        ({"outliers": "cdf"}, "outliers was 'fdr' and is 'cdf'"),
        ({"gain": GAIN * 2}, "gain was"),
        ({"dtype": "float16"}, "dtype was 'float32' and is 'float16'"),
    ],
)
def test_other_parameters_are_named(files: Path, whole: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ResumeError, match=message):
        md.process_session(opened(files), whole, **{"gain": GAIN, **OPTIONS, **changed})


def test_other_data_are_not_replaced(files: Path, tmp_path: Path) -> None:
    (tmp_path / "out.zarr").mkdir()
    (tmp_path / "out.zarr" / "mine").write_text("x")
    with pytest.raises(ResumeError, match="holds mine and is not an archive: give another url"):
        md.process_session(opened(files), tmp_path / "out.zarr")


def test_begin_anew(files: Path, tmp_path: Path) -> None:
    few = opened(files).isel(movie=slice(3), frame=slice(2))
    md.process_session(few, tmp_path / "out.zarr", koma=1)
    done = md.process_session(few, tmp_path / "out.zarr", koma=None, dtype="float16", resume=False)
    assert done["movies"].images.dtype == np.float16
    assert sorted(done.groups) == ["/", "/derived", "/derived/sums", "/movies"]
    assert md.validate(tmp_path / "out.zarr").findings == ()


def test_the_archive_of_the_raw_movies_takes_in_the_corrected_ones(files: Path, tmp_path: Path) -> None:
    few, url = opened(files).isel(movie=slice(3), frame=slice(2)), tmp_path / "all.zarr"
    raw = md.write_archive(few, url, group="raw", codec="zstd")
    done = md.process_session(raw, url, koma=1)
    alone = md.process_session(few, tmp_path / "alone.zarr", koma=1)
    xr.testing.assert_equal(done["movies"].images.compute(), alone["movies"].images.compute())
    np.testing.assert_array_equal(done["raw"].images, few.images)


def test_raw_movies_are_replaced_only_when_the_corrected_are_whole(files: Path, tmp_path: Path) -> None:
    few, url = opened(files).isel(movie=slice(3), frame=slice(2)), tmp_path / "all.zarr"
    raw = md.write_archive(few, url, codec="zstd")
    for resume in (True, False):
        with pytest.raises(ResumeError, match="holds the groups movies, which process_session did not write"):
            md.process_session(raw, url, koma=1, resume=resume)
    alone = md.process_session(few, tmp_path / "alone.zarr", koma=1)
    done = md.process_session(raw, url, koma=1, resume=False, overwrite=True)
    xr.testing.assert_equal(done["movies"].images.compute(), alone["movies"].images.compute())
    again = md.process_session(done["movies"].to_dataset(), url, koma=None, outliers=None, resume=False)
    xr.testing.assert_equal(again["movies"].images.compute(), done["movies"].images.compute())


@pytest.mark.parametrize("lost", ["movies/images", "derived/sums/corrected", "derived/windows/reference"])
def test_lost_shards_are_errors_and_made_again(files: Path, tmp_path: Path, lost: str) -> None:
    few, url = opened(files).isel(movie=slice(3), frame=slice(2)), tmp_path / "out.zarr"
    before = md.process_session(few, url, koma=1)["movies"].images.values
    shard = sorted(path for path in (url / lost / "c").rglob("*") if path.is_file())[-1]
    whole = shard.read_bytes()
    shard.unlink()
    report = md.validate(url)
    assert not report.ok
    assert report.codes == ("shard-missing",)
    with pytest.raises(MissingShardError, match=r"shard is missing"):
        md.open_archive(url, lost.rpartition("/")[0])[lost.rpartition("/")[2]].values  # noqa: B018
    after = md.process_session(few, url, koma=1)["movies"].images.values
    np.testing.assert_array_equal(after, before)
    assert shard.read_bytes() == whole
    assert md.validate(url).findings == ()


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"gain": np.ones((5, 5))}, "another detector"),
        ({}, {"dark": np.ones((5, 5))}, r"the dark is \(5, 5\)"),
        ({}, {"mask": np.ones((5, 5), bool)}, r"the mask is \(5, 5\)"),
        ({}, {"koma": 0}, "radius of 1 or more"),
        ({}, {"method": "median"}, "plain"),
        ({}, {"outliers": "sigma"}, "fdr"),
        ({}, {"dtype": "int8"}, "float32"),
        ({}, {"gamma": [1.0, 2.0]}, "one for 9 movies"),
        ({}, {"gamma": 1.0, "dose_rate": 2.0}, "not both"),
        ({"movie": slice(1)}, {}, "there is one"),
        ({"movie": 0}, {}, "give"),
    ],
)
@pytest.mark.usefixtures("no_compute")
def test_bad_input_is_refused_before_any_pixel_is_read(
    files: Path, tmp_path: Path, change: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        md.process_session(opened(files).isel(change), tmp_path / "out.zarr", **options)
    assert not (tmp_path / "out.zarr").exists()


def test_empty_and_short_movies(tmp_path: Path) -> None:
    session = md.simulate.session(3, (1, 40, 40), dose=2)[0] * 0
    done = md.process_session(session, tmp_path / "out.zarr", koma=12)
    assert not done["movies"].images.values.any()
    assert np.isnan(done["movies"].correlation_after).all()


def test_excluded_movies(files: Path, tmp_path: Path) -> None:
    done = md.process_session(opened(files), tmp_path / "out.zarr", koma=2, outliers=None, exclude=["movie_3"])
    sums = md.sum_frames(opened(files)).compute()
    expected = md.koma(opened(files), sums=sums, radius=2, exclude=["movie_3"])
    np.testing.assert_allclose(done["movies"].images, expected.images, atol=1e-5)
    with pytest.raises(ValueError, match="movie_77"):
        md.process_session(opened(files), tmp_path / "other.zarr", exclude=["movie_77"])


def test_high_contrast_is_found_left_out_and_named(tmp_path: Path) -> None:
    film = md.simulate.Specimen(ice_sd=0.02, carbon=["movie_0004"])
    session = md.simulate.session(9, (4, 160, 160), dose=5, specimen=film)[0].compute()
    done = md.process_session(session, tmp_path / "out.zarr", koma=2, outliers=None, method="plain")
    windows = done["derived/windows"]
    assert windows.movie.values[windows.excluded.values].tolist() == ["movie_0004"]
    np.testing.assert_allclose(windows.correlation_floor, 1 / 17)
    alone = session.drop_sel(movie="movie_0004")
    expected = md.koma(alone, sums=md.sum_frames(alone), radius=2, method="plain")
    np.testing.assert_allclose(done["movies"].images.sel(movie=alone.movie), expected.images, atol=1e-5)


def test_images_that_are_not_cut_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bands of rows of large images do not divide them: the last one is lower."""
    session = md.simulate.session(4, (3, 50, 41), dose=3)[0].compute()
    whole = md.process_session(session, tmp_path / "whole.zarr", koma=1)
    monkeypatch.setattr("mrczdask.movies.pipeline_store.BAND_BYTES", 7 * 41 * 8 * (2 + 2 + 16))
    cut = md.process_session(session, tmp_path / "cut.zarr", koma=1)
    assert len(list((tmp_path / "cut.zarr").rglob("windows/*.done"))) == 8
    assert len(list((tmp_path / "whole.zarr").rglob("windows/*.done"))) == 4
    for group in ("movies", "derived/sums", "derived/windows"):
        xr.testing.assert_identical(
            cut[group].to_dataset().compute().drop_attrs(), whole[group].to_dataset().compute().drop_attrs()
        )


def marks(url: Path) -> dict[str, int]:
    """When each region was marked as done."""
    return {str(path): path.stat().st_mtime_ns for path in url.rglob("*.done")}


def test_an_archive_of_an_earlier_version_is_not_gone_on_with(files: Path, tmp_path: Path) -> None:
    few, url = opened(files).isel(movie=slice(3)), tmp_path / "out.zarr"
    md.process_session(few, url, koma=1)
    plan = url / "movies" / "images" / ".journal" / "plan.json"
    plan.write_text(json.dumps({**json.loads(plan.read_text()), "format": 1}))
    with pytest.raises(ResumeError, match="made by another version, which found other outliers: give another place"):
        md.process_session(few, url, koma=1)


def test_attributes_are_put_in_where_they_lack(files: Path, tmp_path: Path) -> None:
    few, url = opened(files).isel(movie=slice(3)), tmp_path / "out.zarr"
    few.images.attrs["origin"] = "upper"
    md.process_session(few, url, koma=1, outliers=None)
    assert "unusable" not in md.open_archive(url)["derived/sums"]
    array = zarr.open_array(str(url), path="derived/sums/corrected", mode="r+")
    array.attrs.put({name: value for name, value in array.attrs.items() if name != "origin"})
    before = marks(url)
    done = md.process_session(few, url, koma=1, outliers=None)
    assert marks(url) == before
    assert done["derived/sums"].corrected.attrs["origin"] == "upper"
