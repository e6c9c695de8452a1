"""Bins about the beam of each shot, against a geometry moved there, and against NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

import mrczdask as md
from mrczdask.diffraction.beams import MovingBeam
from mrczdask.errors import MrczdaskError

SHAPE = (64, 64)
FACTS: dict[str, Any] = {"distance_m": 0.1, "pixel_size_m": 1e-3, "wavelength_m": 1e-10}
GEOMETRY = md.Geometry.flat(SHAPE, **FACTS)
SAME_SPAN = np.array([[35.0, 32.0], [29.0, 32.0], [32.0, 35.0], [32.0, 29.0], [35.0, 32.0]])
"""Beams from which the nearest and the farthest pixel are equally far: the bins are those of each alone."""
ANYWHERE = np.array([[30.3, 33.1], [25.7, 40.2], [70.0, -4.0], [31.0, 31.5], [36.2, 28.9]])


def frames(centers: np.ndarray = SAME_SPAN, mask: np.ndarray | None = None) -> np.ndarray:
    """A background that falls off about the beam of each shot, and peaks."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    rng = np.random.default_rng(5)
    level = [30 * np.exp(-np.hypot(y - cy, x - cx) / 20) + 0.5 for cy, cx in centers]
    images = rng.poisson(level).astype(np.uint16)
    for image in images:
        rows, columns = rng.integers(3, 61, (2, 8))
        image[rows, columns] += 200
        image[rows, columns + 1] += 120
        image[rows + 1, columns] += 100
    if mask is not None:
        images[:, mask] = 65535
    return images


OPTIONS: dict[str, Any] = {"bins": 24, "cutoff_clip": 2.0}
CORRECTED: dict[str, Any] = {
    "polarization": 0.9,
    "solid_angle": True,
    "flat": np.linspace(0.8, 1.2, 4096).reshape(SHAPE),
}


@pytest.mark.parametrize("unit", ["pixel", "q_A^-1", "2th_deg", "r_mm"])
def test_each_shot_is_that_of_a_moved_geometry(unit: Any) -> None:
    images, extra = frames(), CORRECTED if unit == "q_A^-1" else {}
    options = OPTIONS | {"unit": unit} | extra
    lazy = da.from_array(images, chunks=(2, *SHAPE))
    background = md.separate_background(lazy, GEOMETRY, beam_centers=SAME_SPAN, **options)
    sparse = md.sparsify(lazy, background=background)
    peaks = md.find_peaks(lazy, background=background)
    dense = md.densify(sparse, seed=3)
    background, table, found, dense = dask.compute(background, sparse, peaks, dense, scheduler="threads")
    averages = md.azimuthal_average(lazy, GEOMETRY, beam_centers=SAME_SPAN, bins=24, unit=unit, **extra).compute()
    assert table.n_pixels.min() > 8
    assert found.n_peaks.min() > 2
    for k, center in enumerate(SAME_SPAN):
        one = xr.DataArray(images[k : k + 1], {"shot": [k]}, ("shot", "y", "x"))
        geometry = GEOMETRY.moved(tuple(center))
        alone = md.separate_background(one, geometry, **options)
        np.testing.assert_array_equal(background.radius, alone.radius)
        for name in ("background_avg", "background_std", "n_used"):
            np.testing.assert_array_equal(background[name][k], alone[name][0], err_msg=name)
        picked = md.sparsify(one, background=alone)
        rows = slice(*table.frame_ptr.values[k : k + 2].astype(int))
        np.testing.assert_array_equal(table["index"][rows], picked.compute()["index"])
        np.testing.assert_array_equal(dense[k], md.densify(picked, seed=3)[0])
        theirs = md.find_peaks(one, background=alone).compute()
        rows = slice(*found.peak_ptr.values[k : k + 2].astype(int))
        for name in ("index", "y", "x", "intensity", "sigma", "radius", "n_pixels"):
            np.testing.assert_array_equal(found[name][rows], theirs[name], err_msg=name)
        average = md.azimuthal_average(one, geometry, bins=24, unit=unit, **extra)
        np.testing.assert_array_equal(averages.intensity[k], average.intensity[0])


@pytest.mark.parametrize("chunk", [1, 3, 5])
def test_common_bins_span_all_shots(chunk: int) -> None:
    mask = np.zeros(SHAPE, bool)
    mask[28:36, 26:38], mask[3, 7] = True, True
    images = frames(ANYWHERE, mask)
    lazy = da.from_array(images, chunks=(chunk, *SHAPE))
    found = md.azimuthal_average(lazy, GEOMETRY, beam_centers=ANYWHERE, bins=20, unit="pixel", mask=mask).compute()
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    radius = np.array([np.hypot(y - cy, x - cx) for cy, cx in ANYWHERE])
    low, high = radius[:, ~mask].min(), radius[:, ~mask].max() * (1 + 2.0**-23)
    np.testing.assert_allclose(found.radius, low + (np.arange(20) + 0.5) * (high - low) / 20, rtol=1e-6)
    for k in range(len(ANYWHERE)):
        number = np.floor((radius[k][~mask] - low) / ((high - low) / 20)).astype(int)
        n, total = np.bincount(number, minlength=20), np.bincount(number, images[k][~mask], 20)
        np.testing.assert_array_equal(found.n_used[k], n)
        np.testing.assert_allclose(found.intensity[k][n > 0], total[n > 0] / n[n > 0], rtol=1e-6)
        assert np.isnan(found.intensity[k][n == 0]).all()


@pytest.mark.parametrize("name", ["run.h5", "run.zarr"])
def test_files_keep_the_centres(tmp_path: Path, name: str) -> None:
    images = frames(ANYWHERE)
    options = OPTIONS | CORRECTED | {"unit": "q_A^-1", "beam_centers": ANYWHERE}
    sparse = md.sparsify(da.from_array(images, chunks=(2, *SHAPE)), GEOMETRY, cutoff_pick=2.0, **options)
    dense = md.densify(sparse, seed=1).values
    written = md.write_sparse(sparse, tmp_path / name)
    np.testing.assert_array_equal(np.stack([written.beam_center_y, written.beam_center_x], 1), ANYWHERE)
    np.testing.assert_array_equal(md.densify(md.open_sparse(tmp_path / name, shots=3), seed=1), dense)
    np.testing.assert_array_equal(md.densify(written.isel(slice(1, 4)), seed=1), dense[1:4])
    ring = md.virtual_image(written, radial_range=(1.0, 2.0)).values
    table = sparse.compute()
    for k, center in enumerate(ANYWHERE):
        rows = slice(*table.frame_ptr.values[k : k + 2].astype(int))
        radius = GEOMETRY.moved(tuple(center)).radius("q_A^-1").reshape(-1)[table["index"].values[rows]]
        assert ring[k] == table["intensity"].values[rows][(radius >= 1) & (radius < 2)].sum()


def test_frames_are_as_much_background_as_their_own_beam_says() -> None:
    """About the wrong centre the background is wrong: what follows the beam keeps a few per cent, not a third."""
    centers = ANYWHERE[[0, 1, 3, 4]]
    images = frames(centers)
    options: dict[str, Any] = {"bins": 24, "unit": "pixel", "cutoffs": (1.5,), "sample": 4}
    followed = md.loss_budget(images, GEOMETRY, beam_centers=centers, **options)
    fixed = md.loss_budget(images, GEOMETRY.moved((45.0, 20.0)), **options)
    assert float(followed.kept_fraction[0]) < 0.1 < float(fixed.kept_fraction[0])
    shadowed = images.copy()
    shadowed[:, 40:44, 30:34] = 0
    bad = md.find_bad_pixels(np.tile(shadowed, (5, 1, 1)), GEOMETRY, beam_centers=np.tile(centers, (5, 1)), bins=24)
    assert bad.mask.values[41:43, 31:33].all()


def test_scans_have_centres_of_their_shape() -> None:
    scan = frames()[:4].reshape(2, 2, *SHAPE)
    found = md.separate_background(scan, GEOMETRY, beam_centers=SAME_SPAN[:4].reshape(2, 2, 2), bins=8)
    assert found.beam_center_y.values.tolist() == SAME_SPAN[:4, 0].tolist()
    assert found.background_avg.shape == (4, 8)
    # what is made of frames with such coordinates, but without centres, does not follow them
    dense = md.densify(md.sparsify(scan, background=found))
    assert dense.beam_center_x.values.tolist() == SAME_SPAN[:4, 1].tolist()
    again = md.separate_background(dense, GEOMETRY, bins=8)
    assert "beam_center_y" not in again.coords


@pytest.mark.parametrize("share", [0.0, 0.3, 0.98])
def test_the_span_needs_no_map_of_each_shot(share: float) -> None:
    rng = np.random.default_rng(0)
    bad = rng.random((40, 30)) < share
    bad[10:30, 8:20] = share > 0
    beam = MovingBeam(md.Geometry.flat((40, 30), pixel_size_m=(2.0, 0.5)), bad, "r_m", None, None, False)
    centers = rng.uniform(-10, 50, (60, 2))
    every = np.array([beam.binned_radius(center)[~bad] for center in centers])
    assert beam.span(centers) == (every.min(), every.max())
    for k in range(60):  # whatever was found in shots before
        assert beam.span(centers[k:]) == (every[k:].min(), every[k:].max())


@pytest.mark.usefixtures("no_compute")
def test_nothing_is_computed_at_once() -> None:
    lazy = da.ones((5, *SHAPE), chunks=(2, *SHAPE), dtype=np.uint16)
    background = md.separate_background(lazy, GEOMETRY, beam_centers=SAME_SPAN, bins=8)
    md.densify(md.sparsify(lazy, background=background))
    md.find_peaks(lazy, background=background)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    images = np.ones((2, *SHAPE), np.uint16)
    for wrong in (SAME_SPAN[:3], [[1.0, np.nan], [2.0, 2.0]], [3.0, 4.0], 7.0):
        with pytest.raises(MrczdaskError, match=r"finite \(y, x\) for each of 2 shots"):
            md.separate_background(images, GEOMETRY, beam_centers=wrong)
    with pytest.raises(MrczdaskError, match="lazy: compute them first"):
        md.separate_background(images, GEOMETRY, beam_centers=da.zeros((2, 2)))
    (tmp_path / "a.geom").write_text(
        "clen = 0.1\nres = 1000\nphoton_energy = 9000\na/min_fs = 0\na/max_fs = 63\na/min_ss = 0\na/max_ss = 63\n"
        "a/corner_x = -32\na/corner_y = -32\na/fs = +x\na/ss = +y +0.01z\n"
    )
    panels = md.Geometry.from_geom(tmp_path / "a.geom")
    with pytest.raises(MrczdaskError, match="is no flat detector across the beam"):
        md.azimuthal_average(images, panels, beam_centers=SAME_SPAN[:2])
