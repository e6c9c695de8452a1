"""Frames that arrive while they are searched: peaks follow, a killed run goes on, a file that shrinks is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

import mrczdask as md
from mrczdask.errors import MrczdaskError, ResumeError

h5py = pytest.importorskip("h5py")
pytest.importorskip("hdf5plugin")

SHAPE = (64, 64)
OPTIONS: dict[str, Any] = {"bins": 16, "unit": "pixel", "min_peaks": 2, "block": 3, "settle_s": 0.0}


def frames_of(n: int) -> NDArray[Any]:
    frames = np.full((n, *SHAPE), 3, np.uint16)
    for k in range(n):
        for spot in range(k % 4):
            frames[k, 10 + 10 * spot : 12 + 10 * spot, 20:22] = 500
    return frames


def flat() -> md.Geometry:
    return md.Geometry.flat(SHAPE)


def grow_hdf5(path: Path, frames: NDArray[Any]) -> None:
    with h5py.File(path, "a") as file:
        if "entry/data/data" not in file:
            file.create_dataset("entry/data/data", (0, *SHAPE), np.uint16, chunks=(1, *SHAPE), maxshape=(None, *SHAPE))
        data = file["entry/data/data"]
        n = data.shape[0]
        data.resize(n + len(frames), axis=0)
        data[n:] = frames


def grow_zarr(path: Path, frames: NDArray[Any]) -> None:
    if path.exists():
        array = zarr.open_array(path, mode="r+")
        array.append(frames)
    else:
        zarr.create_array(path, data=frames, chunks=(1, *SHAPE), dimension_names=("shot", "y", "x"))


def grow_folder(path: Path, frames: NDArray[Any]) -> None:
    path.mkdir(exist_ok=True)
    n = len(list(path.iterdir()))
    for k, frame in enumerate(frames):
        md.write_mrcz(frame[None], path / f"frame_{n + k}.mrc")


CENTERS = np.random.default_rng(8).uniform(20, 44, (10, 2))
COLUMNS = ("n_peaks", "peak_ptr", "y", "x", "intensity", "sigma", "radius", "index", "shot")


@pytest.mark.parametrize(("name", "grow"), [("run.h5", grow_hdf5), ("run.zarr", grow_zarr), ("run", grow_folder)])
def test_peaks_follow_the_frames(tmp_path: Path, name: str, grow: Any) -> None:
    frames = frames_of(10)
    watch = md.PeakWatch(tmp_path / name, flat(), tmp_path / "live.zarr", **OPTIONS)
    if name != "run":
        assert list(watch.update()) == []
    grow(tmp_path / name, frames[:4])
    states = list(watch.update())
    assert [(s.shots, s.hits) for s in states] == [(3, 1), (4, 2)]
    assert list(watch.update()) == []
    grow(tmp_path / name, frames[4:6])
    assert watch.state.rate == 0.5
    assert [s.shots for s in watch.update()] == [6]
    again = md.PeakWatch(tmp_path / name, flat(), tmp_path / "live.zarr", **OPTIONS)
    assert (again.state.shots, again.state.hits) == (6, 2)
    grow(tmp_path / name, frames[6:])
    assert [s.shots for s in again.follow(poll_s=0.01, idle_s=0.05)] == [9, 10]
    found = again.peaks().compute()
    whole = md.find_peaks(frames, flat(), bins=16, unit="pixel").compute()
    for column in COLUMNS:
        np.testing.assert_array_equal(found[column], whole[column])


def wandering() -> NDArray[Any]:
    """A background that falls off about the beam of each shot: in bins about another place much of it is peak."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    level = [50 * np.exp(-np.hypot(y - cy, x - cx) / 6) + 1 for cy, cx in CENTERS]
    return np.asarray(np.random.default_rng(1).poisson(level) + frames_of(10), np.uint16)


def test_bins_follow_the_beam_of_each_shot_as_in_the_whole_run(tmp_path: Path) -> None:
    frames, options = wandering(), OPTIONS | {"beam_centers": CENTERS, "cutoff_peak": 5.0}
    grow_hdf5(tmp_path / "run.h5", frames[:4])
    watch = md.PeakWatch(tmp_path / "run.h5", flat(), tmp_path / "live.zarr", **options)
    assert [s.shots for s in watch.update()] == [3, 4]
    again = md.PeakWatch(tmp_path / "run.h5", flat(), tmp_path / "live.zarr", **options)
    grow_hdf5(tmp_path / "run.h5", frames[4:])
    assert [s.shots for s in again.update()] == [7, 10]
    found = again.peaks().compute()
    whole = md.find_peaks(frames, flat(), beam_centers=CENTERS, bins=16, unit="pixel", cutoff_peak=5.0).compute()
    for column in (*COLUMNS, "beam_center_y", "beam_center_x"):
        np.testing.assert_array_equal(found[column], whole[column])
    fixed = md.find_peaks(frames, flat(), bins=16, unit="pixel", cutoff_peak=5.0).compute()
    assert int((whole.n_peaks != fixed.n_peaks).sum()) > 2


def test_centres_of_other_shots_are_refused(tmp_path: Path) -> None:
    grow_hdf5(tmp_path / "run.h5", frames_of(4))
    options = OPTIONS | {"beam_centers": CENTERS[:5]}
    watch = md.PeakWatch(tmp_path / "run.h5", flat(), tmp_path / "live.zarr", **options)
    assert [s.shots for s in watch.update()] == [3, 4]
    for other in (None, CENTERS[:6], CENTERS[1:6]):
        with pytest.raises(ResumeError, match="beam_centers was"):
            md.PeakWatch(tmp_path / "run.h5", flat(), tmp_path / "live.zarr", **(options | {"beam_centers": other}))
    grow_hdf5(tmp_path / "run.h5", frames_of(2))
    with pytest.raises(MrczdaskError, match="no beam centre of shot 5: beam_centers are of 5 shots"):
        list(watch.update())
    with pytest.raises(MrczdaskError, match=r"finite \(y, x\) for each of 2 shots"):
        md.PeakWatch(tmp_path / "run.h5", flat(), tmp_path / "new.zarr", beam_centers=[[1.0, np.inf], [2.0, 2.0]])
    assert not (tmp_path / "new.zarr").exists()


def test_half_a_block_of_a_killed_run_does_not_count(tmp_path: Path) -> None:
    grow_hdf5(tmp_path / "run.h5", frames_of(4))
    list(md.PeakWatch(tmp_path / "run.h5", flat(), tmp_path / "live.zarr", **OPTIONS).update())
    peaks = zarr.open_group(tmp_path / "live.zarr", mode="r+")["entry_0000/peaks"]
    peaks["pos1"].resize((100,))
    peaks["frame_ptr"].resize((9,))
    assert md.open_peaks(tmp_path / "live.zarr").compute().n_peaks.values.tolist() == [0, 1, 2, 3]
    grow_hdf5(tmp_path / "run.h5", frames_of(6)[4:])
    watch = md.PeakWatch(tmp_path / "run.h5", flat(), tmp_path / "live.zarr", **OPTIONS)
    assert [s.shots for s in watch.update()] == [6]
    assert watch.peaks().compute().n_peaks.values.tolist() == [0, 1, 2, 3, 0, 1]


def test_frames_are_read_when_they_have_settled(tmp_path: Path) -> None:
    grow_hdf5(tmp_path / "run.h5", frames_of(2))
    options = OPTIONS | {"settle_s": 60.0}
    watch = md.PeakWatch(tmp_path / "run.h5", flat(), tmp_path / "live.zarr", **options)
    assert list(watch.update()) == []
    grow_folder(tmp_path / "folder", frames_of(2))
    assert list(md.PeakWatch(tmp_path / "folder", flat(), tmp_path / "other.zarr", **options).update()) == []


def test_a_file_with_a_writer_is_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "run.h5", "w", libver="latest") as file:
        data = file.create_dataset("data", (0, *SHAPE), np.uint16, chunks=(1, *SHAPE), maxshape=(None, *SHAPE))
        file.swmr_mode = True
        watch = md.PeakWatch(tmp_path / "run.h5", flat(), tmp_path / "live.zarr", dataset="data", **OPTIONS)
        for n in (2, 4):
            data.resize(n, axis=0)
            data[:] = frames_of(n)
            data.flush()
            assert [s.shots for s in watch.update()] == [n]


def test_other_runs_and_files_that_shrink_are_refused(tmp_path: Path) -> None:
    grow_hdf5(tmp_path / "run.h5", frames_of(4))
    watch = md.PeakWatch(tmp_path / "run.h5", flat(), tmp_path / "live.zarr", **OPTIONS)
    list(watch.update())
    with pytest.raises(ResumeError, match="options was"):
        md.PeakWatch(tmp_path / "run.h5", flat(), tmp_path / "live.zarr", **OPTIONS, cutoff_peak=9)
    with h5py.File(tmp_path / "run.h5", "r+") as file:
        file["entry/data/data"].resize(3, axis=0)
    with pytest.raises(MrczdaskError, match="holds 3 frames, 4 were there before"):
        list(watch.update())
    with pytest.raises(ValueError, match="block=0"):
        md.PeakWatch(tmp_path / "run.h5", flat(), tmp_path / "live.zarr", **(OPTIONS | {"block": 0}))
