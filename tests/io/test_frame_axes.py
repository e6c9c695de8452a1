"""What the axes of frames in HDF5 mean, as the file says, and files that are opened together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import mrczdask as md
from mrczdask.errors import MrcFormatError, MrczdaskWarning

h5py = pytest.importorskip("h5py")
hdf5plugin = pytest.importorskip("hdf5plugin")

NY, NX = 10, 12


def counts(*lead: int, seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).poisson(3.0, (*lead, NY, NX)).astype("u2")


def nxmx(path: Path, frames: NDArray[Any], *, name: str = "data", **detector: Any) -> Path:
    with h5py.File(path, "w") as file:
        file[f"entry/data/{name}"] = frames
        file.attrs["default"], file["entry"].attrs["default"] = "entry", "data"
        file["entry/data"].attrs["signal"] = name
        group = file.create_group("entry/instrument/detector")
        group.attrs["NX_class"] = "NXdetector"
        for key, value in {"detector_distance": 0.1, **detector}.items():
            group[key] = value
    return path


@pytest.mark.usefixtures("no_compute")
def test_thresholds_are_an_axis_of_their_own_and_one_is_chosen(tmp_path: Path) -> None:
    frames = counts(4, 2)
    plain = md.open_frames(nxmx(tmp_path / "plain.h5", frames))
    assert plain.dims == ("shot", "threshold", "y", "x")
    assert plain.threshold.values.tolist() == [1, 2]
    named = nxmx(tmp_path / "named.h5", frames, name="data_000001")
    bad = np.zeros((2, NY, NX), "u4")
    bad[0, 3], bad[1, :, 4] = 1, 1
    with h5py.File(named, "a") as file:
        file["entry/data/channel"] = ["threshold_1", "difference"]
        file["entry/data"].attrs["axes"] = ["image_id", "channel", ".", "."]
        file["entry/data/data_000002"] = counts(3, 2, seed=1)
        for k, label in enumerate(("threshold_1", "difference")):
            file[f"entry/instrument/detector/{label}_channel/pixel_mask"] = bad[k]
    assert md.open_frames(named).threshold.values.tolist() == ["threshold_1", "difference"]
    assert md.open_frames(named).sizes["shot"] == 7
    with pytest.raises(MrcFormatError, match="there is no threshold 3, the file has: threshold_1, difference"):
        md.open_frames(named, threshold=3)


def test_the_images_of_a_threshold_are_those_of_h5py(tmp_path: Path) -> None:
    frames = counts(5, 3)
    path = nxmx(tmp_path / "a.h5", frames)
    np.testing.assert_array_equal(md.open_frames(path), frames)
    for k in range(3):
        chosen = md.open_frames(path, threshold=k + 1, chunks={"shot": 2})
        assert chosen.dims == ("shot", "y", "x")
        assert chosen.attrs["threshold"] == k + 1
        np.testing.assert_array_equal(chosen, frames[:, k])
    with pytest.raises(ValueError, match="FabIO files hold one threshold"):
        md.open_frames(tmp_path / "a.cbf", threshold=1)
    with pytest.warns(MrczdaskWarning, match="several thresholds are taken for shots"):
        found = md.find_peaks(md.open_frames(path), md.Geometry.flat((NY, NX)), bins=4, unit="pixel")
    assert found.header.sizes["shot"] == 15


def test_the_mask_is_that_of_the_threshold(tmp_path: Path) -> None:
    bad = counts(2, seed=3) > 4
    path = nxmx(tmp_path / "a.h5", counts(4, 2))
    with h5py.File(path, "a") as file:
        for k in (0, 1):
            file[f"entry/instrument/detector/threshold_{k + 1}_channel/pixel_mask"] = bad[k].astype("u4")
    for k in (0, 1):
        np.testing.assert_array_equal(md.open_frames(path, threshold=k + 1).mask, bad[k])


def test_modules_are_panels_that_lie_one_below_the_other(tmp_path: Path) -> None:
    frames = counts(4, 3)
    with h5py.File(tmp_path / "a.cxi", "w") as file:
        file["cxi_version"] = 150
        file["entry_1/data_1/data"] = frames
        file["entry_1/data_1/mask"] = np.zeros(frames.shape, "u4")
    opened = md.open_frames(tmp_path / "a.cxi")
    assert opened.dims == ("shot", "panel", "y", "x")
    np.testing.assert_array_equal(opened, frames)
    geometry = md.Geometry.flat((3 * NY, NX))
    stacked = frames.reshape(4, 3 * NY, NX)
    found, expected = (
        md.separate_background(one, geometry, bins=8, unit="pixel").compute() for one in (opened, stacked)
    )
    np.testing.assert_array_equal(found.background_avg, expected.background_avg)


LEADS = st.lists(st.integers(1, 3), min_size=1, max_size=4).map(tuple)


@settings(max_examples=30, deadline=None)
@given(lead=LEADS, where=st.sampled_from(["plain", "nxmx", "scan", "cxi"]))
def test_four_axes_are_a_scan_only_where_the_file_says_so(
    tmp_path_factory: Any, lead: tuple[int, ...], where: str
) -> None:
    path = tmp_path_factory.mktemp("axes") / "a.h5"
    frames = counts(*lead)
    names = {"plain": "frames", "scan": "4DSTEM_simulation/data", "cxi": "entry_1/data_1/data"}
    if where == "nxmx":
        nxmx(path, frames)
    else:
        with h5py.File(path, "w") as file:
            file[names[where]] = frames
    wide = [n for n in lead[1:] if n > 1]
    is_told = len(wide) < 2 if where in ("nxmx", "cxi") else not wide or (lead[0] == 1 and len(wide) == 1)
    if not (is_told or (where == "scan" and len(lead) == 2)):
        with pytest.raises(MrcFormatError, match="does not say what they are"):
            md.open_frames(path)
        return
    opened = md.open_frames(path)
    assert opened.dtype == frames.dtype
    assert ("scan_y" in opened.dims) == (where == "scan" and len(lead) == 2)
    assert ("threshold" in opened.dims) <= (where == "nxmx")
    assert ("panel" in opened.dims) <= (where == "cxi")
    np.testing.assert_array_equal(opened.values.reshape(frames.shape), frames)


def test_a_scan_that_no_file_tells_is_opened_by_its_shape(tmp_path: Path) -> None:
    frames = counts(3, 4)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = frames
    with pytest.raises(MrcFormatError, match=r"scan_shape=\(3, 4\)"):
        md.open_frames(tmp_path / "a.h5")
    opened = md.open_frames(tmp_path / "a.h5", scan_shape=(3, 4))
    assert opened.dims == ("scan_y", "scan_x", "ky", "kx")
    np.testing.assert_array_equal(opened, frames)
    with h5py.File(tmp_path / "velox.emd", "w") as file:
        file["Data/Image/0a/Data"] = counts(3)
    with pytest.raises(MrcFormatError, match="frames along the last axis"):
        md.open_frames(tmp_path / "velox.emd")


@pytest.mark.parametrize("name", ["a.emd", "a.hspy", "a.dat", "a.mrc", "a"])
def test_the_content_of_a_file_says_that_it_is_hdf5(tmp_path: Path, name: str) -> None:
    for block in (0, 512, 2048):
        with h5py.File(tmp_path / name, "w", userblock_size=block) as file:
            file["root/datacube/data"] = counts(2, 3)
            file["root/datacube/bf"] = np.ones((2, 3))
        opened = md.open_frames(tmp_path / name)
        assert opened.dims == ("scan_y", "scan_x", "ky", "kx")
        np.testing.assert_array_equal(opened, counts(2, 3))


def test_tables_of_peaks_and_sparse_frames_are_no_frames(tmp_path: Path) -> None:
    sparse = md.sparsify(counts(3), md.Geometry.flat((NY, NX)), bins=4, unit="pixel")
    md.write_sparse(sparse, tmp_path / "sparse.h5")
    with pytest.raises(MrcFormatError, match=r"no dataset holds frames.*md\.open_sparse reads"):
        md.open_frames(tmp_path / "sparse.h5")
    with h5py.File(tmp_path / "peaks.cxi", "w") as file:
        file["entry_1/result_1/nPeaks"] = np.arange(3)
        file["entry_1/result_1/peakXPosRaw"] = np.ones((3, 8))
    with pytest.raises(MrcFormatError, match=r"no dataset holds frames.*md\.open_peaks reads"):
        md.open_frames(tmp_path / "peaks.cxi")


def test_datasets_of_a_pattern_come_one_after_another(tmp_path: Path) -> None:
    frames = counts(12)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for k in range(12):
            file[f"tag-{k}/data"], file[f"tag-{k}/energy"] = frames[k], 9.0
    np.testing.assert_array_equal(md.open_frames(tmp_path / "a.h5", dataset="tag-*/data"), frames)
    np.testing.assert_array_equal(md.open_frames(tmp_path / "a.h5", dataset="/tag-[12]/data"), frames[[1, 2]])
    with pytest.raises(MrcFormatError, match="there is no dataset run-"):
        md.open_frames(tmp_path / "a.h5", dataset="run-*/data")


def test_of_a_pattern_each_frame_is_read_once(tmp_path: Path) -> None:
    frames = counts(7)
    array = xr.DataArray(frames, dims=("shot", "y", "x"))
    geometry = md.Geometry.flat((NY, NX), distance_m=0.2, pixel_size_m=75e-6)
    md.write_frames(array, tmp_path / "run_master.h5", frames_per_file=3, geometry=geometry)
    layout = h5py.VirtualLayout(frames.shape, "u2")
    for k in range(3):
        part = h5py.VirtualSource(
            f"run_data_00000{k + 1}.h5", "entry/data/data", (len(frames[3 * k : 3 * k + 3]), NY, NX)
        )
        layout[3 * k : 3 * k + 3] = part
    with h5py.File(tmp_path / "run_vds.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    opened = md.open_frames(str(tmp_path / "run_*.h5"))
    np.testing.assert_array_equal(opened, frames)
    assert opened.attrs["distance_m"] == 0.2
    hits = [md.link_hits(opened, np.arange(7) % 2 == k, tmp_path / f"hits_{k}.h5") for k in (0, 1)]
    both = md.open_frames(str(tmp_path / "hits_*.h5"))
    np.testing.assert_array_equal(both, np.concatenate([one.values for one in hits]))
    md.link_hits(opened, np.arange(7) < 2, tmp_path / "few.h5")
    md.link_hits(opened, np.arange(7) < 4, tmp_path / "more.h5")
    np.testing.assert_array_equal(md.open_frames([tmp_path / "more.h5", tmp_path / "few.h5"]), frames[:4])
    md.link_hits(opened, (np.arange(7) > 2) & (np.arange(7) < 6), tmp_path / "other.h5")
    with pytest.raises(MrcFormatError, match="1 of its frames are in other files too"):
        md.open_frames([tmp_path / "more.h5", tmp_path / "other.h5"])


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ({"detector_distance": 0.2}, "distance_m is 0.1, and 0.2 in"),
        ({"beam_center_x": 5.0}, "beam_center is"),
        ({"pixel_mask": (counts() > 3).astype("u4")}, "the masks of the files differ"),
        ({"bit_depth_image": 12}, "is .*, and .* in"),
    ],
)
def test_masters_that_differ_are_not_joined(tmp_path: Path, said: dict[str, Any], what: str) -> None:
    usual = {"beam_center_x": 4.0, "beam_center_y": 4.0, "pixel_mask": np.zeros((NY, NX), "u4"), "bit_depth_image": 16}
    nxmx(tmp_path / "a.h5", counts(2), **usual)
    nxmx(tmp_path / "b.h5", counts(3, seed=1), **usual)
    whole = np.concatenate([counts(2), counts(3, seed=1)])
    np.testing.assert_array_equal(md.open_frames([tmp_path / "a.h5", tmp_path / "b.h5"]), whole)
    nxmx(tmp_path / "b.h5", counts(3, seed=1), **(usual | said))
    with pytest.raises(MrcFormatError, match=f"{what}.*open them one by one"):
        md.open_frames([tmp_path / "a.h5", tmp_path / "b.h5"])


def test_masters_of_several_thresholds_are_joined_shot_by_shot(tmp_path: Path) -> None:
    paths = [nxmx(tmp_path / f"{k}.h5", counts(2 + k, 2, seed=k)) for k in (0, 1)]
    joined = md.open_frames(paths)
    assert joined.dims == ("shot", "threshold", "y", "x")
    np.testing.assert_array_equal(joined, np.concatenate([counts(2, 2), counts(3, 2, seed=1)]))


def test_the_frames_before_a_run_was_stopped_are_opened(tmp_path: Path) -> None:
    frames = counts(5)
    md.write_frames(xr.DataArray(frames, dims=("shot", "y", "x")), tmp_path / "run_master.h5", frames_per_file=2)
    (tmp_path / "run_data_000003.h5").unlink()
    with pytest.warns(MrczdaskWarning, match=r"1 of 3 data files are missing.*000003.* only the 4 frames before"):
        np.testing.assert_array_equal(md.open_frames(tmp_path / "run_master.h5"), frames[:4])
    (tmp_path / "run_data_000001.h5").unlink()
    with pytest.raises(MrcFormatError, match=r"data_000001 is in .*, which is missing"):
        md.open_frames(tmp_path / "run_master.h5")
