"""Sparse frames against pyFAI's, against the rule, and whatever the chunks."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from scipy import stats

import mrczdask as md
from mrczdask.errors import MrczdaskError

SHAPE = (60, 70)
DUMMY = 2**32 - 1
UNLIKE = 2e-4
"""Stored pixels that may differ from pyFAI's, away from empty bins."""


def frames_of(n: int = 6) -> NDArray[Any]:
    frames = np.random.default_rng(3).poisson(5, (n, *SHAPE)).astype(np.uint16)
    frames[:, 20:22, 30:32] += 400
    return frames


def geometry() -> md.Geometry:
    return md.Geometry.flat(SHAPE, beam_center=(29.3, 36.1))


OPTIONS: dict[str, Any] = {"bins": 20, "unit": "pixel"}


@pytest.mark.real_data
@pytest.mark.parametrize("model", ["poisson", "hybrid"])
def test_stored_pixels_are_those_of_pyfai(data_dir: Path, model: Any) -> None:
    pytest.importorskip("pyFAI")
    h5py = pytest.importorskip("h5py")
    pytest.importorskip("hdf5plugin")
    shots = 3
    with h5py.File(data_dir / "simulated/bragg_stills.h5") as file:
        frames = file["/entry/data/data"][:shots]
    sparse = md.sparsify(
        frames,
        md.Geometry.from_poni(data_dir / "simulated/bragg_stills.poni"),
        cutoff_pick=1.5,
        bins=500,
        unit="r_m",
        error_model=model,
        dummy=DUMMY,
        polarization=0.99,
        solid_angle=True,
        noise=0.5,
    ).compute()
    with h5py.File(data_dir / f"simulated/bragg_stills_sparse_{model}.h5") as file:
        group = file["entry_0000/sparse_frames"]
        theirs, index = group["frame_ptr"][: shots + 1].astype(int), group["index"][()]
        average = group["background_avg"][:shots]
    # empty bins hold a dummy there; others count dummies for Chauvenet's criterion, or a bright pixel has spoilt them
    alike = np.abs(sparse.background_avg.values - average) <= 1e-6 * average
    assert alike.mean() > 0.9
    near = np.convolve(~alike.all(axis=0), [1, 1, 1], "same") > 0
    place = np.searchsorted(sparse.radius.values, sparse.pixel_radius.values.ravel())
    compared = ~near[np.clip(place, 0, 499)] & ~near[np.clip(place - 1, 0, 499)]
    unlike = stored = 0
    for k in range(shots):
        ours = sparse["index"].values[slice(*sparse.frame_ptr.values[k : k + 2].astype(int))]
        assert (np.diff(ours.astype(int)) > 0).all()
        other = index[theirs[k] : theirs[k + 1]]
        different = np.setxor1d(ours, other)
        unlike += int(compared[different].sum())
        stored += other.size
        np.testing.assert_array_equal(
            frames[k].ravel()[ours], sparse.intensity.values[slice(*sparse.frame_ptr.values[k : k + 2].astype(int))]
        )
    assert unlike <= UNLIKE * stored


def test_kept_are_the_pixels_of_the_rule() -> None:
    found = md.sparsify(frames_of(), geometry(), cutoff_pick=2, **OPTIONS).compute()
    for k, frame in enumerate(frames_of()):
        maps = [np.interp(found.pixel_radius, found.radius, found[f"background_{n}"][k]) for n in ("avg", "std")]
        kept = frame - maps[0] > np.maximum(1, 2 * np.hypot(maps[1], 1))
        rows = slice(*found.frame_ptr.values[k : k + 2].astype(int))
        np.testing.assert_array_equal(np.flatnonzero(kept), found["index"].values[rows])
        np.testing.assert_array_equal(frame[kept], found["intensity"].values[rows])
    assert found.intensity.dtype == np.uint16
    assert found.frame_ptr.dtype == np.uint64


@pytest.mark.parametrize("cutoff", [1, 2, 3])
def test_the_kept_share_of_a_normal_background(cutoff: int) -> None:
    frames = np.random.default_rng(1).normal(1000, 30, (4, 500, 500)).astype(np.float32)
    flat = md.Geometry.flat((500, 500))
    found = md.sparsify(frames, flat, cutoff_pick=cutoff, bins=5, unit="pixel", error_model="azimuthal", noise=0.0)
    share = float(found.n_pixels.sum()) / frames.size
    assert share == pytest.approx(stats.norm.sf(cutoff), rel=0.05)


def test_chunks_and_selections_change_nothing(no_compute: None) -> None:
    frames = frames_of()
    one, other = (
        md.sparsify(da.from_array(frames, chunks=c), geometry(), cutoff_pick=1, **OPTIONS)
        for c in ((6, 60, 70), (4, 30, 35))
    )
    some = other.isel(shot=[5, 0, 1])
    assert (len(some), some.chunks) == (3, (1, 2))
    with dask.config.set(scheduler="sync"):
        whole = one.compute()
        xr.testing.assert_identical(whole, other.compute())
        again = pickle.loads(pickle.dumps(some)).compute()
        np.testing.assert_array_equal(again.n_pixels, whole.n_pixels[[5, 0, 1]])
        np.testing.assert_array_equal(again.background_avg, whole.background_avg[[5, 0, 1]])
        first = slice(*whole.frame_ptr.values[5:7].astype(int))
        np.testing.assert_array_equal(again["index"][: again.n_pixels[0].item()], whole["index"][first])
        assert other.isel(shot=slice(0, 0)).compute().sizes["pixel"] == 0


def test_range_mask_dummy_and_empty_frames_keep_nothing() -> None:
    frames = frames_of(3)
    frames[1] = 65535
    mask = np.zeros(SHAPE, bool)
    mask[:, 31] = True
    found = md.sparsify(frames, geometry(), mask=mask, dummy=65535, radial_range=(0, 12), cutoff_pick=10, **OPTIONS)
    table = found.compute()
    assert table.n_pixels.values.tolist() == [2, 0, 2]
    assert table["index"].values[:2].tolist() == [20 * 70 + 30, 21 * 70 + 30]
    assert np.isnan(table.background_avg[1]).all()


def test_dark_is_subtracted_from_what_is_stored() -> None:
    found = md.sparsify(frames_of(1), geometry(), dark=np.full(SHAPE, 0.5), cutoff_pick=20, **OPTIONS).compute()
    np.testing.assert_array_equal(found.intensity + 0.5, frames_of(1)[0].ravel()[found["index"]])


def test_bad_input_is_named() -> None:
    background = md.separate_background(frames_of(), geometry(), **OPTIONS)
    with pytest.raises(ValueError, match="geometry, bins given together"):
        md.sparsify(frames_of(), geometry(), background=background, bins=3)
    with pytest.raises(MrczdaskError, match="needs a geometry"):
        md.sparsify(frames_of())
    with pytest.raises(MrczdaskError, match=r"of frames \(6, 60, 70\), these are \(2, 60, 70\)"):
        md.sparsify(frames_of(2), background=background)
    with pytest.raises(MrczdaskError, match="lacks pixel_radius"):
        md.sparsify(frames_of(), background=background.drop_vars("pixel_radius"))
    for cutoff in (-1, np.nan):
        with pytest.raises(ValueError, match=f"cutoff_pick={cutoff}"):
            md.sparsify(frames_of(), geometry(), cutoff_pick=cutoff, **OPTIONS)
