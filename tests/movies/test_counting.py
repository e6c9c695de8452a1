"""Electrons that were simulated are counted, where they were."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from scipy.spatial import cKDTree

import mrczdask as md
from mrczdask.errors import MrczdaskError

THRESHOLD = 18.0


@pytest.mark.parametrize("dose", [0.01, 0.05])
def test_isolated_electrons_are_found_where_they_are(dose: float) -> None:
    frames = md.simulate.electron_frames((4, 256, 256), dose, seed=3)
    events = md.count_electrons(frames.raw, threshold=THRESHOLD, method="centroid", output="events").compute()
    isolated = found = false = total = 0
    errors = []
    for k in range(4):
        truth = frames.truth(k)
        rows = slice(*events.event_ptr.values[k : k + 2].astype(int))
        ours = np.stack([events.y.values[rows], events.x.values[rows]], axis=1)
        tree = cKDTree(truth)
        inside = ((truth > 1) & (truth < 254)).all(axis=1)
        alone = inside & (tree.query(truth, k=2)[0][:, 1] > 4)
        apart, nearest = cKDTree(ours).query(truth[alone])
        isolated += int(alone.sum())
        found += int((apart < 1.5).sum())
        errors.append((ours[nearest] - truth[alone])[apart < 1.5])
        false += int((tree.query(ours)[0] > 2).sum())
        total += len(ours)
    assert found >= 0.98 * isolated
    assert false <= 0.01 * total
    assert np.sqrt((np.concatenate(errors) ** 2).mean()) <= 0.2


def test_coincidences_are_lost_as_the_area_of_a_maximum_says() -> None:
    lost = []
    for dose in (0.01, 0.04):
        frames = md.simulate.electron_frames((2, 256, 256), dose, seed=5)
        counted = int(md.count_electrons(frames.raw, threshold=THRESHOLD).sum())
        lost.append(1 - counted / sum(len(frames.truth(k)) for k in range(2)))
    assert 0.01 < lost[0] < 0.08
    assert lost[1] == pytest.approx(4 * lost[0], rel=0.5)


def test_superresolution_puts_electrons_into_the_right_quarter() -> None:
    frames = md.simulate.electron_frames((1, 128, 128), 0.005, read_noise=0.5, seed=2)
    counted = md.count_electrons(frames.raw, threshold=THRESHOLD, method="centroid", superres=2)
    assert counted.shape == (1, 256, 256)
    assert counted.dtype == np.uint8
    right = 0
    for y, x in frames.truth(0):
        i, j = int((y + 0.5) * 2), int((x + 0.5) * 2)
        right += bool(counted[0, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].any())
    assert right >= 0.95 * len(frames.truth(0))
    exact = sum(int(counted[0, int((y + 0.5) * 2), int((x + 0.5) * 2)]) for y, x in frames.truth(0))
    assert exact >= 0.7 * len(frames.truth(0))  # by the brightest pixel alone it would be a quarter


def test_arrays_of_every_kind_and_chunks_give_the_same(no_compute: None) -> None:
    with dask.config.set(scheduler="sync"):
        raw = md.simulate.electron_frames((3, 40, 50), 0.02, seed=1).raw.compute()
    lazy = raw.copy(data=da.from_array(raw.values, chunks=(2, 20, 25)))
    options: dict[str, Any] = {"threshold": THRESHOLD, "method": "centroid", "superres": 2}
    counted, events = md.count_electrons(lazy, **options), md.count_electrons(lazy, output="events", **options)
    whole = md.count_electrons(raw.values, **options)
    assert isinstance(md.count_electrons(lazy.data, **options), da.Array)
    with dask.config.set(scheduler="sync"):
        np.testing.assert_array_equal(counted.compute(), whole)
        assert events.compute().n_events.values.tolist() == whole.sum((1, 2)).tolist()
    assert counted.attrs["counts_per_electron"] == 1
    session = md.count_electrons(raw.values[None], **options)
    np.testing.assert_array_equal(session[0], whole)


def test_ties_darks_and_full_pixels() -> None:
    raw = np.zeros((1, 9, 9), np.uint16)
    raw[0, 4, 4:6] = 50
    raw[0, 0, 0] = 7
    assert md.count_electrons(raw, threshold=50).sum() == 1
    dark = np.full((9, 9), 10.0)
    assert md.count_electrons(raw, threshold=50, dark=dark).sum() == 0
    assert md.count_electrons(raw, threshold=40, dark=dark)[0, 4, 4] == 1
    crowd = np.zeros((1, 30, 30), np.float32)
    crowd[0, ::2, ::2] = 90  # more than room was made for
    assert md.count_electrons(crowd, threshold=50).sum() == 225
    assert md.count_electrons(np.full((1, 9, 9), np.nan, np.float32), threshold=1).sum() == 0
    assert md.count_electrons(np.empty((0, 9, 9), np.float32), threshold=1).shape == (0, 9, 9)


def test_bad_input_is_named() -> None:
    raw = xr.DataArray(np.zeros((1, 4, 4), np.uint8), dims=("frame", "y", "x"))
    with pytest.raises(ValueError, match="method='mean'"):
        md.count_electrons(raw, threshold=1, method="mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="superres=2"):
        md.count_electrons(raw, threshold=1, superres=2)
    with pytest.raises(ValueError, match="threshold=0"):
        md.count_electrons(raw, threshold=0)
    with pytest.raises(MrczdaskError, match=r"dark has the shape \(2, 2\)"):
        md.count_electrons(raw, threshold=1, dark=np.zeros((2, 2)))
    with pytest.raises(MrczdaskError, match="complex"):
        md.count_electrons(np.zeros((1, 4, 4), complex), threshold=1)
