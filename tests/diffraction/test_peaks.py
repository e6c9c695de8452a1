"""Peaks against pyFAI's and against truth, whatever the chunks, each frame read once."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

import mrczdask as md
from mrczdask.errors import MrczdaskError

SHAPE = (60, 70)
OPTIONS: dict[str, Any] = {"bins": 20, "unit": "pixel"}
DUMMY = 2**32 - 1


def frames_of(n: int = 6) -> NDArray[Any]:
    frames = np.random.default_rng(3).poisson(5, (n, *SHAPE)).astype(np.uint16)
    for k in range(n):
        frames[k, 20:22, 30:32] += 100 * k
        frames[k, 40:43, 10:13] += np.array([[9, 30, 9], [30, 90, 30], [9, 30, 9]], np.uint16)
    return frames


def geometry() -> md.Geometry:
    return md.Geometry.flat(SHAPE, beam_center=(29.3, 36.1))


def rows(table: xr.Dataset, shot: int) -> slice:
    return slice(*table.peak_ptr.values[shot : shot + 2].astype(int))


@pytest.fixture(scope="module")
def stills(data_dir: Path) -> tuple[NDArray[Any], xr.Dataset, Any]:
    h5py = pytest.importorskip("h5py")
    pytest.importorskip("hdf5plugin")
    pytest.importorskip("pyFAI")
    with h5py.File(data_dir / "simulated/bragg_stills.h5") as file:
        frames = file["/entry/data/data"][()]
        truth = {name: item[()] for name, item in file["truth"].items() if name != "background"}
    background = md.separate_background(
        frames,
        md.Geometry.from_poni(data_dir / "simulated/bragg_stills.poni"),
        bins=500,
        error_model="hybrid",
        noise=0.5,
        polarization=0.99,
        solid_angle=True,
        dummy=DUMMY,
    )
    return frames, background.compute(), truth


@pytest.mark.real_data
def test_peaks_are_those_of_pyfai(stills: Any, data_dir: Path) -> None:
    """Of its OpenCL kernel, which counts dummies for Chauvenet's number: a few rings are clipped otherwise."""
    h5py = pytest.importorskip("h5py")
    frames, background, _ = stills
    published: dict[str, Any] = {"gaps": "ignore", "centroid": "plain"}
    found = md.find_peaks(frames, background=background, cutoff_peak=5, **published).compute()
    with h5py.File(data_dir / "simulated/bragg_stills_peaks_nexus.h5") as file:
        theirs = {name: item[()] for name, item in file["entry_0000/peaks"].items()}
    np.testing.assert_array_equal(found.n_peaks, theirs["spots"].ravel())
    order = np.lexsort((theirs["index"], np.repeat(np.arange(12), np.diff(theirs["frame_ptr"]))))
    np.testing.assert_array_equal(found["index"], theirs["index"][order])
    for name, other in {"y": "pos1", "x": "pos2"}.items():
        np.testing.assert_allclose(found[name], theirs[other][order], atol=2e-3)
    for name, other, most in (("intensity", "intensity", 0.003), ("sigma_background", "sigma", 0.03)):
        off = np.abs(found[name] / theirs[other][order] - 1)
        assert float(np.median(off)) < 1e-5, name
        assert float(np.max(off)) < most, name


@pytest.mark.real_data
def test_peaks_are_the_spots_that_were_simulated(stills: Any) -> None:
    frames, background, truth = stills
    found = md.find_peaks(frames, background=background, cutoff_peak=5).compute()
    assert found.n_peaks.values[~truth["is_hit"]].tolist() == [0, 0, 0, 0]
    errors, strong = [], 0
    for k in range(len(frames)):
        spots = slice(*truth["frame_ptr"][k : k + 2])
        clear = truth["snr_px"][spots] > 8
        place = np.stack([truth["y"][spots], truth["x"][spots]], 1)[clear]
        ours = np.stack([found.y[rows(found, k)], found.x[rows(found, k)]], 1)
        strong += len(place)
        if len(ours) and len(place):
            offset = place[:, None] - ours
            nearest = np.hypot(*offset.transpose(2, 0, 1)).argmin(1)
            offset = offset[np.arange(len(place)), nearest]
            errors.append(offset[np.hypot(*offset.T) < 2])
    error = np.concatenate(errors)
    assert len(error) >= 0.87 * strong
    assert np.sqrt((error**2).sum(1).mean()) <= 0.165  # both axes; 0.131 is the bound that counting sets


@pytest.mark.real_data
def test_counts_on_real_stills(data_dir: Path) -> None:
    fabio = pytest.importorskip("fabio")
    pytest.importorskip("pyFAI")
    folder = data_dir / "real/diffraction"
    table = json.loads((folder / "thau_grid_pyfai.json").read_text())
    theirs = {row[0]: dict(zip(table["columns"], row, strict=True)) for row in table["rows"]}
    names = sorted(p.name.split(".")[0] for p in folder.glob("thau_3_2_*.cbf.bz2"))
    shape = (2527, 2463)
    stack = da.concatenate(
        [da.from_delayed(dask.delayed(fabio.open)(str(folder / f"{n}.cbf.bz2")).data, shape, np.int32)[None]
         for n in names]
    )  # fmt: skip
    options: dict[str, Any] = {"polarization": 0.99, "noise": 1.0, "error_model": "azimuthal"}
    geometry = md.Geometry.from_poni(folder / "thau_grid.poni")
    background = md.separate_background(stack, geometry, bins=800, dummy=-1.5, delta_dummy=0.5, **options)
    found = md.find_peaks(stack, background=background, cutoff_peak=5, gaps="ignore").compute()
    for name, count in zip(names, found.n_peaks.values.tolist(), strict=True):
        wanted = theirs[name.removeprefix("thau_")]["peaks_azimuthal"]
        assert abs(count - wanted) <= max(3, 0.01 * wanted), (name, count, wanted)
    blank = np.array([name.endswith(("16", "17")) for name in names])
    assert found.n_peaks.values[blank].max() <= 3
    assert found.n_peaks.values[~blank].min() >= 40


def test_chunks_and_selections_change_nothing(no_compute: None) -> None:
    frames = frames_of()
    one, other = (
        md.find_peaks(da.from_array(frames, chunks=c), geometry(), connected=1, **OPTIONS)
        for c in ((6, 60, 70), (4, 30, 35))
    )
    some = other.isel(shot=[5, 0, 1])
    with dask.config.set(scheduler="sync"):
        whole = one.compute()
        xr.testing.assert_identical(whole, other.compute())
        again = pickle.loads(pickle.dumps(some)).compute()
    np.testing.assert_array_equal(again.n_peaks, whole.n_peaks[[5, 0, 1]])
    np.testing.assert_array_equal(again.y[rows(again, 0)], whole.y[rows(whole, 5)])
    assert whole.peak_ptr.dtype == np.uint64
    assert "background_avg" not in whole
    assert json.loads(whole.attrs["provenance"])[-1]["operation"] == "find_peaks"


def test_each_frame_is_read_once() -> None:
    reads: list[int] = []

    def read(block_info: Any = None) -> NDArray[Any]:
        reads.append(block_info[None]["chunk-location"][0])
        return frames_of()[reads[-1]][None]

    frames = da.map_blocks(read, chunks=((1,) * 6, 60, 70), dtype=np.uint16, meta=np.empty((0, 0, 0), np.uint16))
    background = md.separate_background(frames, geometry(), **OPTIONS)
    peaks = md.find_peaks(frames, background=background)
    dask.compute(background, peaks, md.sparsify(frames, background=background))
    assert sorted(reads) == list(range(6))


def test_scans_become_shots() -> None:
    scan = xr.DataArray(frames_of().reshape(2, 3, *SHAPE), dims=("scan_y", "scan_x", "ky", "kx"))
    found = md.find_peaks(scan, geometry(), cutoff_peak=5, **OPTIONS).compute()
    assert found.n_peaks.values.tolist() == [1, 2, 2, 2, 2, 2]
    assert found.attrs["shape"] == [60, 70]


def test_ranges_rings_and_masks() -> None:
    def count(**options: Any) -> list[int]:
        table = md.find_peaks(frames_of(), geometry(), cutoff_peak=5, **OPTIONS, **options).compute()
        return table.n_peaks.values.tolist()

    radii = md.find_peaks(frames_of(), geometry(), cutoff_peak=5, **OPTIONS).compute().radius.values[-2:]
    np.testing.assert_allclose(radii, [np.hypot(21 - 29.3, 31 - 36.1), np.hypot(41.5 - 29.3, 11.5 - 36.1)], rtol=0.05)
    assert count() == [1, 2, 2, 2, 2, 2]
    assert count(radial_range=(0, 20)) == [0, 1, 1, 1, 1, 1]
    assert count(exclude=[(5, 15)]) == [1] * 6
    hot = np.zeros(SHAPE, bool)
    hot[38:45, 8:15] = True
    assert count(mask=hot) == [0, 1, 1, 1, 1, 1]
    assert count(max_pixels=4) == [0, 1, 1, 1, 1, 1]
    assert md.ice_rings(unit="q_nm^-1")[2][0] == pytest.approx(20 * np.pi / 3.44 - 0.01)


def test_shots_without_and_with_very_many_peaks() -> None:
    frames = np.full((3, 1000, 1000), 1, np.uint16)
    frames[1, ::3, ::3] = 40
    flat = md.Geometry.flat((1000, 1000))
    options: dict[str, Any] = {"bins": 10, "unit": "pixel", "patch_size": 3, "connected": 1, "cutoff_clip": 3}
    found = md.find_peaks(frames, flat, cutoff_peak=2, **options).compute()
    assert found.n_peaks.values.tolist() == [0, 332 * 332, 0]  # of 334 * 334, those on the border are void
    np.testing.assert_array_equal(np.diff(found["index"].astype(int)) > 0, True)


def test_frames_that_are_nan_or_dummy_have_none() -> None:
    frames = frames_of(3).astype(np.float32)
    frames[1] = np.nan
    found = md.find_peaks(frames, geometry(), cutoff_peak=5, **OPTIONS).compute()
    assert found.n_peaks.values.tolist() == [1, 0, 2]
    assert md.find_peaks(frames[:0], geometry(), **OPTIONS).compute().sizes["peak"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 4}, "an odd number"),
        ({"patch_size": 3.0}, "patch_size=3.0"),
        ({"connected": 26}, "connected=26: give a whole number, 1 to 25"),
        ({"max_pixels": 2.5}, "max_pixels=2.5"),
        ({"counts_per_photon": np.nan}, "counts_per_photon=nan"),
        ({"exclude": [(1,)]}, r"exclude=\(1,\): give two numbers"),
        ({"cutoff_peak": np.nan}, "cutoff_peak=nan"),
        ({"gaps": "none"}, "gaps='none'"),
        ({"border": "none"}, "border='none'"),
        ({"centroid": "none"}, "centroid='none': give one of weighted, plain"),
        ({"patch_size": 61}, r"larger than a frame, \(60, 70\)"),
        ({"mask": np.zeros((2, 2))}, r"mask has the shape \(2, 2\)"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, MrczdaskError), match=message):
        md.find_peaks(frames_of(), geometry(), **OPTIONS, **({"connected": 1} | options))
    with pytest.raises(MrczdaskError, match="find_peaks needs a geometry"):
        md.find_peaks(frames_of())
    with pytest.raises(ValueError, match="known in"):
        md.ice_rings(unit="2th_deg")
