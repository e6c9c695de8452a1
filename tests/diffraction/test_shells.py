"""Shells and budgets about the beam of each shot, against geometries moved there and against NumPy."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

import mrczdask as md
from mrczdask.diffraction.runs import within_run

SHAPE = (48, 64)
GEOMETRY = md.Geometry.flat(SHAPE)
SAME_SPAN = np.array([[27.0, 32.0], [21.0, 32.0], [27.0, 32.0]])
"""Beams from which the nearest and the farthest pixel are equally far: the shells are those of each alone."""
ANYWHERE = np.array([[20.3, 33.1], [60.0, -4.0], [15.7, 40.2]])
OPTIONS: dict[str, Any] = {"bins": 16, "unit": "pixel"}


def frames(centers: NDArray[Any]) -> NDArray[Any]:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    rng = np.random.default_rng(5)
    images = rng.poisson([30 * np.exp(-np.hypot(y - cy, x - cx) / 20) + 2 for cy, cx in centers]).astype(np.uint16)
    for image in images:
        rows, columns = rng.integers(3, 45, (2, 12))
        image[rows, columns] += 200
    return images


def test_a_budget_counts_signal_in_shells_about_the_beam() -> None:
    images = frames(SAME_SPAN)
    options: dict[str, Any] = OPTIONS | {"cutoffs": (2.0, 30.0), "shells": 4}
    found = md.loss_budget(images, GEOMETRY, beam_centers=SAME_SPAN, sample=1, **options)
    alone = md.loss_budget(images[:1], GEOMETRY.moved((27.0, 32.0)), **options)
    elsewhere = md.loss_budget(images[:1], GEOMETRY, **options)
    assert float(found.kept_signal[0].min()) > 0.7
    xr.testing.assert_allclose(found, alone, rtol=1e-6)
    assert not np.allclose(found.kept_signal, elsewhere.kept_signal)


def test_a_budget_has_the_bins_of_the_whole_run() -> None:
    lazy = da.from_array(frames(ANYWHERE), chunks=(2, *SHAPE))
    found = md.loss_budget(lazy, GEOMETRY, beam_centers=ANYWHERE, sample=1, cutoffs=(1.0,), **OPTIONS)
    sparse = md.sparsify(lazy, GEOMETRY, beam_centers=ANYWHERE, cutoff_pick=1.0, **OPTIONS)
    assert round(float(found.kept_fraction[0]) * lazy[0].size) == int(sparse.n_pixels[0].compute())


def test_densified_frames_are_compared_about_their_beams() -> None:
    images = frames(ANYWHERE).astype(np.int32)
    lazy = da.from_array(images, chunks=(2, *SHAPE))
    sparse = md.sparsify(lazy, GEOMETRY, beam_centers=ANYWHERE, **OPTIONS)
    report = md.compare_background(lazy, images + 1, sparse, shells=3)
    table = sparse.compute()
    free = np.ones(images.shape, bool)
    free.reshape(len(images), -1)[np.repeat(np.arange(3), table.n_pixels), table["index"]] = False
    radius = np.array([GEOMETRY.moved(tuple(center)).radius("pixel") for center in ANYWHERE])
    np.testing.assert_allclose([report.radius_low[0], report.radius_high[-1]], [radius.min(), radius.max()], rtol=1e-6)
    for k in range(3):
        inside = free & (radius >= report.radius_low.values[k]) & (radius <= report.radius_high.values[k])
        assert int(report.n_pixels[k]) == inside.sum() > 100
        for name, function in (("mean", np.mean), ("variance", np.var), ("maximum", np.max)):
            wanted = [function(images[inside]), function(images[inside] + 1)]
            np.testing.assert_allclose(report[name][:, k], wanted, rtol=1e-6)


def test_the_other_shots_of_a_run_are_never_made(no_compute: None) -> None:
    images = xr.DataArray(da.ones((2, *SHAPE), chunks=(1, *SHAPE)), dims=("shot", "y", "x"), attrs={"dummy": 7.0})
    centers = np.random.default_rng(0).uniform(0, 60, (100_000, 2))
    whole, order = within_run(images, centers, np.array([5, 3]))
    assert (whole.shape, whole.data.chunks[0], whole.attrs) == ((100_000, *SHAPE), (1, 1, 99_998), {"dummy": 7.0})
    np.testing.assert_array_equal(order[:3], centers[[5, 3, 0]])
    np.testing.assert_array_equal(np.sort(order, axis=0), np.sort(centers, axis=0))
