"""4D-STEM scans: statistics, and the same counts for any chunking."""

from __future__ import annotations

import numpy as np
import pytest

import mrczdask as md


def test_counts_are_poisson_around_the_means(no_compute: None) -> None:
    scan = md.simulate.stem((6, 8), (64, 64), electrons_per_pattern=5000)
    counts, means = (
        np.asarray(scan.counts.data[...].compute(scheduler="sync")),
        scan.means.data.compute(scheduler="sync"),
    )
    assert means.sum(axis=(2, 3)) == pytest.approx(5000)
    z = (counts - means) / np.sqrt(means)
    assert abs(z.mean()) < 4 / np.sqrt(z.size)
    assert z.var() == pytest.approx(1, abs=0.02)


def test_nothing_but_the_seed_and_the_place_decides() -> None:
    scan = md.simulate.stem((4, 5), (32, 24), electrons_per_pattern=3000, seed=3)
    whole = scan.counts.values
    other = md.simulate.stem((4, 5), (32, 24), electrons_per_pattern=3000, seed=3, chunks=(2, 3, 7, 24)).counts
    np.testing.assert_array_equal(other.values, whole)
    np.testing.assert_array_equal(
        scan.counts.isel(scan_y=2, scan_x=[1, 4], kx=slice(3, 9)).values, whole[2][[1, 4], :, 3:9]
    )
    assert (md.simulate.stem((4, 5), (32, 24), electrons_per_pattern=3000, seed=4).counts.values != whole).any()


def test_wrong_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="scan_y, scan_x"):
        md.simulate.stem((4,))
    with pytest.raises(ValueError, match="electrons_per_pattern"):
        md.simulate.stem((4, 4), electrons_per_pattern=-1)
    with pytest.raises(ValueError, match="counts are integers"):
        md.simulate.stem((4, 4), dtype="float32")
