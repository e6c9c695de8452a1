"""The veto against counts done by hand, in blocks and at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import mrczdask as md
from mrczdask.diffraction.veto import hit_rate
from mrczdask.errors import MrczdaskError
from mrczdask.io.peak_table import PEAKS, peaks_table
from mrczdask.io.ragged import split

COUNTS = np.array([0, 30, 5, 21, 19, 20])


def table() -> xr.Dataset:
    n = int(COUNTS.sum())
    columns = {name: np.ones(n, dtype) for name, dtype in PEAKS.columns.items()}
    columns["intensity"] = np.arange(n, dtype=np.float32)
    columns["sigma"][:] = 2
    columns["radius"][:] = 3
    return peaks_table(COUNTS, columns, {"shot": np.arange(6)}, {"radius_unit": "q_A^-1"})


def test_hits_statistics_and_the_sweep() -> None:
    found = md.veto(table(), min_peaks=20, thresholds=[0, 5, 20, 100])
    xr.testing.assert_identical(found, md.veto(split(table(), PEAKS, 2), min_peaks=20, thresholds=[0, 5, 20, 100]))
    assert found.hit.values.tolist() == [False, True, False, True, False, True]
    assert found.n_peaks.values.tolist() == COUNTS.tolist()
    assert found.n_hits.values.tolist() == [6, 5, 3, 0]
    np.testing.assert_allclose(found.saved, [0, 1 / 6, 0.5, 1])
    assert float(found.hit_rate) == 0.5
    assert found.total_intensity.values[:2].tolist() == [0, sum(range(30))]
    np.testing.assert_allclose(found.median_snr[1:3], [14.5 / 2, 32 / 2])
    np.testing.assert_allclose(found.resolution_angstrom[1:], 2 * np.pi / 3, rtol=1e-6)
    assert md.veto(table(), min_peaks=5, max_peaks=20).hit.values.tolist() == [False, False, True, False, True, True]


def test_the_interval_of_the_hit_rate_is_wilsons() -> None:
    stats = pytest.importorskip("scipy.stats")
    wanted = stats.binomtest(7, 40).proportion_ci(method="wilson")
    np.testing.assert_allclose(hit_rate(7, 40), (7 / 40, wanted.low, wanted.high))
    assert np.isnan(hit_rate(0, 0)).all()


def test_what_indexing_says_of_a_threshold(tmp_path: Path) -> None:
    known = np.array([False, True, True, True, False, False])
    found = md.veto(table(), thresholds=[20, 100], indexed=known)
    np.testing.assert_allclose(found.indexed_of_hits, [2 / 3, np.nan])
    np.testing.assert_allclose(found.indexed_of_blanks, [1 / 3, 0.5])
    np.testing.assert_allclose(found.lost, [1 / 3, 1])
    lines = ["CrystFEL stream format 2.3"]
    for event in (5, 3, 2, 1):
        by = "xgandalf" if known[event] else "none"
        lines += ["----- Begin chunk -----", f"Event: //{event}", f"indexed_by = {by}", "----- End chunk -----"]
    (tmp_path / "run.stream").write_text("\n".join(lines))
    stream = md.open_peaks(tmp_path / "run.stream")
    np.testing.assert_array_equal(md.veto(table(), indexed=stream).indexed, known)
    (tmp_path / "run.stream").write_text("\n".join(lines).replace("//5", "//7"))
    with pytest.raises(MrczdaskError, match="event 7, which is none of the 6"):
        md.veto(table(), indexed=md.open_peaks(tmp_path / "run.stream"))


def test_the_map_of_a_scan() -> None:
    assert md.veto(table(), scan_shape=(2, 3)).peak_map.values.tolist() == [[0, 30, 5], [21, 19, 20]]
    assert md.veto(table(), scan_shape=(2, 3), snake=True).peak_map.values.tolist() == [[0, 30, 5], [20, 19, 21]]
    with pytest.raises(MrczdaskError, match=r"a scan of \(2, 2\) has 4 shots, not 6"):
        md.veto(table(), scan_shape=(2, 2))


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="max_peaks=3"):
        md.veto(table(), max_peaks=3)
    with pytest.raises(ValueError, match="not negative"):
        md.veto(table(), thresholds=[-1])
    with pytest.raises(MrczdaskError, match="of 2 shots"):
        md.veto(table(), indexed=[True, False])


def test_hits_are_a_lazy_view_and_an_archive(tmp_path: Path) -> None:
    pixels = np.arange(6 * 16, dtype=np.uint16).reshape(6, 4, 4)
    frames = xr.DataArray(pixels, {"shot": np.arange(6)}, ("shot", "y", "x"), name="images").chunk(shot=2)
    hits = frames.isel(shot=md.veto(table()).hit.values)
    assert hits.chunks is not None
    assert hits.shot.values.tolist() == [1, 3, 5]
    stored = md.write_archive(hits, tmp_path / "hits.zarr")
    np.testing.assert_array_equal(stored.images if isinstance(stored, xr.Dataset) else stored, pixels[[1, 3, 5]])
