"""Peaks beside sparse frames: one pass, the layout of pyFAI, runs that were killed, peaks of other shots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

import mrczdask as md
from mrczdask.errors import MrczdaskError, ResumeError
from mrczdask.io.ragged import Ragged
from mrczdask.io.sparse_table import TABLES
from tests.io.conftest import Bucket

h5py = pytest.importorskip("h5py")
pytest.importorskip("hdf5plugin")


class _KilledError(Exception):
    pass


def frames_of(found: list[int] | None = None) -> da.Array:
    """Frames with spots; `found` is told each chunk of them that is read."""
    frames = np.random.default_rng(3).poisson(5, (5, 60, 70)).astype(np.uint16)
    for k in range(5):
        for spot in range(k % 4):
            frames[k, 10 + 9 * spot : 12 + 9 * spot, 12:14] += 200

    def read(block_info: Any = None) -> NDArray[Any]:
        (first, last), *_ = block_info[None]["array-location"]
        if found is not None:
            found.append(first)
        return frames[first:last]

    return da.map_blocks(read, chunks=((2, 2, 1), 60, 70), dtype=np.uint16, meta=np.empty((0, 0, 0), np.uint16))


def pair_of(found: list[int] | None = None, **options: Any) -> tuple[Ragged, Ragged]:
    """Sparse frames and their peaks about one background."""
    lazy, geometry = frames_of(found), md.Geometry.flat((60, 70), distance_m=100.0)
    background = md.separate_background(lazy, geometry, bins=20, unit="pixel")
    peaks = md.find_peaks(lazy, background=background, **{"cutoff_peak": 6, **options})
    return md.sparsify(lazy, background=background, cutoff_pick=1.0), peaks


@pytest.mark.parametrize("suffix", [".h5", ".zarr"])
@pytest.mark.parametrize("lazy", [True, False])
def test_peaks_of_the_same_pass_are_stored(tmp_path: Path, suffix: str, lazy: bool) -> None:
    found: list[int] = []
    sparse, peaks = pair_of()
    whole, spots = dask.compute(sparse, peaks)
    assert spots.n_peaks.values.tolist() == [0, 1, 2, 3, 0]
    sparse, peaks = pair_of(found)
    path = tmp_path / f"run{suffix}"
    again = md.write_sparse(sparse, path, peaks=peaks if lazy else spots)
    assert sorted(found) == [0, 2, 4]
    xr.testing.assert_equal(again.compute()[list(whole.data_vars)], whole[list(whole.data_vars)])
    read = md.open_peaks(path).compute()
    xr.testing.assert_equal(read, spots[list(read.variables)])
    assert {str(name) for name in read.variables} >= {"peak_ptr", "n_peaks", "y", "x", "intensity", "sigma", "index"}
    assert (read.attrs["cutoff_peak"], read.attrs["patch_size"]) == (6.0, 5)
    assert [p.name for p in tmp_path.iterdir()] == [f"run{suffix}"]


def test_peaks_beside_pixels_are_laid_out_as_pyfai_does(tmp_path: Path) -> None:
    """Both ways: FabIO finds ours, and our tables are those that pyFAI writes of the same peaks."""
    fabio = pytest.importorskip("fabio")
    pytest.importorskip("pyFAI")
    from pyFAI.containers import SparseFrame
    from pyFAI.io import sparse_frame
    from pyFAI.units import to_unit

    sparse, peaks = pair_of()
    whole, spots = dask.compute(sparse, peaks)
    md.write_sparse(whole, tmp_path / "ours.h5", peaks=spots)
    frames = []
    for k in range(5):
        pixels, rows = (slice(*map(int, ptr[k : k + 2])) for ptr in (whole.frame_ptr.values, spots.peak_ptr.values))
        frame = SparseFrame(whole["index"].values[pixels], whole["intensity"].values[pixels])
        fields = {"pos0": "y", "pos1": "x", "intensity": "intensity", "sigma": "sigma"}
        table = np.zeros(rows.stop - rows.start, [(name, np.float32) for name in fields])
        for name, column in fields.items():
            table[name] = spots[column].values[rows]
        frame._peaks, frame._mask, frame._radius = table, whole.pixel_radius.values, whole.radius.values
        frame._shape, frame._dtype, frame._dummy = whole.pixel_radius.shape, np.dtype(np.uint16), 0
        frame._unit = to_unit("r_mm")
        frame._background_avg, frame._background_std = (whole[name].values[k] for name in TABLES)
        frames.append(frame)
    sparse_frame.save_sparse(str(tmp_path / "theirs.h5"), frames)
    with h5py.File(tmp_path / "theirs.h5") as theirs, h5py.File(tmp_path / "ours.h5") as ours:
        place = "entry_0000/peaks"
        assert set(theirs[place]) == {"nPeaks", "peakTotalIntensity", "peakXPosRaw", "peakYPosRaw", "peakSNR"}
        assert theirs[place].attrs["signal"] == ours[place].attrs["signal"] == "nPeaks"
        for name, values in theirs[place].items():
            np.testing.assert_array_equal(ours[place][name][()], values[()])
            assert ours[place][name].dtype == values.dtype
    with fabio.open(str(tmp_path / "ours.h5")) as image:
        assert image.peaks == "/entry_0000/peaks"
        assert image.nframes == 5
    read = md.open_peaks(tmp_path / "theirs.h5").compute()
    for name in ("peak_ptr", "n_peaks", "y", "x", "intensity"):
        np.testing.assert_array_equal(read[name], spots[name])
    np.testing.assert_allclose(read.sigma, spots.sigma, rtol=1e-6)


@pytest.mark.parametrize("suffix", [".h5", ".zarr"])
def test_peaks_are_gone_on_with(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"run{suffix}"

    def stop(done: int, total: int, label: str) -> None:
        if done == 2:
            raise _KilledError

    found: list[int] = []
    sparse, peaks = pair_of(found)
    with pytest.raises(_KilledError):
        md.write_sparse(sparse, path, peaks=peaks, resume=True, progress=stop)
    kept = len(list(tmp_path.glob("run*.blocks/*.npz")))
    assert kept in (1, 2)
    for other, said in (
        (pair_of(cutoff_peak=7)[1], "cutoff_peak was 6"),
        (pair_of(counts_per_photon=2)[1], "peaks was"),
        (pair_of(mask=np.ones((60, 70), bool))[1], "peaks was"),
        (None, "patch_size was 5 and is None"),
    ):
        with pytest.raises(ResumeError, match=f"begun with other parameters.*{said}"):
            md.write_sparse(sparse, path, peaks=other, resume=True)
    found.clear()
    md.write_sparse(sparse, path, peaks=peaks, resume=True)
    assert len(found) == 3 - kept
    spots = pair_of()[1].compute()
    read = md.open_peaks(path).compute()
    xr.testing.assert_equal(read, spots[list(read.variables)])
    with dask.config.set(scheduler=lambda *_, **__: 1 / 0):
        md.write_sparse(sparse, path, peaks=peaks, resume=True)
    assert not list(tmp_path.glob("*.blocks"))


def test_peaks_of_other_shots_are_refused(tmp_path: Path) -> None:
    sparse, peaks = pair_of()
    for wrong, said in (
        (peaks.isel(slice(4)), "the peaks are of 4 shots, the sparse frames of 5 shots"),
        (peaks.isel([1, 0, 2, 3, 4]), "the peaks are of 5 shots, the sparse frames of other ones"),
        (sparse, "give what find_peaks returns"),
        (md.write_peaks(peaks, tmp_path / "peaks.zarr"), "the peaks are in blocks of other shots"),
    ):
        with pytest.raises(MrczdaskError, match=said):
            md.write_sparse(sparse, tmp_path / "run.h5", peaks=wrong)
    with pytest.raises(ValueError, match="has no place for peaks"):
        md.write_sparse(sparse, tmp_path / "run.h5", peaks=peaks, layout="imaged11")
    assert [p.name for p in tmp_path.iterdir()] == ["peaks.zarr"]


def test_peaks_go_to_an_object_store(bucket: Bucket) -> None:
    sparse, peaks = pair_of()
    url = f"{bucket.url}/run.zarr"
    md.write_sparse(sparse, url, peaks=peaks, storage_options=bucket.options)
    read = md.open_peaks(url, storage_options=bucket.options).compute(scheduler="threads")
    xr.testing.assert_equal(read, peaks.compute()[list(read.variables)])


def test_backgrounds_of_their_own_read_each_frame_once_too(tmp_path: Path) -> None:
    found: list[int] = []
    lazy, geometry = frames_of(found), md.Geometry.flat((60, 70), distance_m=100.0)
    options: dict[str, Any] = {"bins": 20, "unit": "pixel"}
    sparse, peaks = md.sparsify(lazy, geometry, **options), md.find_peaks(lazy, geometry, cutoff_peak=6, **options)
    md.write_sparse(sparse, tmp_path / "run.zarr", peaks=peaks)
    assert sorted(found) == [0, 2, 4]
    assert md.open_peaks(tmp_path / "run.zarr").n_peaks.values.tolist() == [0, 1, 2, 3, 0]
