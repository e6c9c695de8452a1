"""Sectors: bins against the two-dimensional integration of pyFAI, the rest against a background of known truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from scipy import stats

import mrczdask as md
from mrczdask.diffraction.maps import pixel_maps
from mrczdask.errors import MrcFormatError
from mrczdask.kernels.places import filled, interpolate_image, levels

SHAPE, CENTER = (256, 240), (131.2, 118.7)
GEOMETRY = md.Geometry.flat(SHAPE, distance_m=0.1, pixel_size_m=1e-4, beam_center=CENTER)
OPTIONS: dict[str, Any] = {"bins": 40, "unit": "pixel", "error_model": "count", "noise": 0.0}
SECTORS = 16


def truth() -> np.ndarray:
    """Counts of a background twice as bright along x as along y."""
    y, x = np.indices(SHAPE) + 0.5
    radius, azimuth = np.hypot(y - CENTER[0], x - CENTER[1]), np.arctan2(y - CENTER[0], x - CENTER[1])
    return 20 * np.exp(-radius / 90) * (1 + np.cos(2 * azimuth) / 3)


def anisotropic(shots: int = 4) -> np.ndarray:
    return np.random.default_rng(11).poisson(truth(), (shots, *SHAPE)).astype(np.uint16)


@pytest.mark.parametrize("sectors", [3, 36])
def test_the_bins_are_those_of_pyfai_in_two_dimensions(sectors: int) -> None:
    integrator = pytest.importorskip("pyFAI.integrator.azimuthal").AzimuthalIntegrator(
        dist=0.1, poni1=CENTER[0] * 1e-4, poni2=CENTER[1] * 1e-4, pixel1=1e-4, pixel2=1e-4
    )
    frames = anisotropic(1)
    mask = np.random.default_rng(0).random(SHAPE) < 0.05
    found = integrator.integrate2d_ng(
        frames[0],
        50,
        sectors,
        unit="r_m",
        azimuth_range=(-180, 180),
        mask=mask,
        correctSolidAngle=False,
        error_model="poisson",
        method=("no", "csr", "cython"),
    )
    ours = md.azimuthal_average(frames, GEOMETRY, bins=50, unit="r_m", sectors=sectors, mask=mask)
    np.testing.assert_allclose(ours.radius, found.radial, rtol=1e-6)
    np.testing.assert_allclose(ours.sector, found.azimuthal, atol=1e-4)
    np.testing.assert_array_equal(ours.n_used[0], found.count)
    seen = found.count > 0
    np.testing.assert_array_equal(np.isfinite(ours.intensity[0]), seen)
    np.testing.assert_allclose(ours.intensity.values[0][seen], found.intensity[seen], rtol=2e-6)
    np.testing.assert_array_equal(ours.n_used.sum(), (~mask).sum())


def test_sectors_are_those_of_pixels_sorted_by_hand() -> None:
    frames = anisotropic(1)
    ours = md.azimuthal_average(frames, GEOMETRY, bins=30, unit="pixel", sectors=5)
    y, x = np.indices(SHAPE) + 0.5
    radius, azimuth = np.hypot(y - CENTER[0], x - CENTER[1]), np.arctan2(y - CENTER[0], x - CENTER[1])
    ring = np.minimum((radius - radius.min()) / (np.ptp(radius) * (1 + 2.0**-23)) * 30, 29.5).astype(int)
    sector = ((azimuth + np.pi) / (2 * np.pi) * 5).astype(int)
    mean = stats.binned_statistic_2d(
        sector.ravel(), ring.ravel(), frames[0].ravel(), "mean", [np.arange(6), np.arange(31)]
    ).statistic
    np.testing.assert_allclose(ours.intensity[0], mean, rtol=1e-5)


def level_of(background: xr.Dataset) -> np.ndarray:
    """The background of the first shot at every pixel."""
    table = levels(background.background_avg.values[0])
    return interpolate_image(table, pixel_maps(background).places()).reshape(SHAPE)


def test_an_anisotropic_background_is_followed() -> None:
    """One ring is wrong by a third; sectors by the flattening of cos(2 phi) within a sector and between centres."""
    exact = np.broadcast_to(truth(), (1, *SHAPE))
    errors = {}
    for sectors in (1, SECTORS):
        background = md.separate_background(exact, GEOMETRY, **OPTIONS, sectors=sectors)
        errors[sectors] = np.abs(level_of(background) / truth() - 1).mean()
    assert errors[1] > 0.2
    assert errors[SECTORS] < 0.015


def test_a_cutoff_keeps_what_it_keeps_of_a_round_background() -> None:
    """At two deviations; with one sector the bright side is kept by tens of per cent."""
    rng = np.random.default_rng(2)
    mask = GEOMETRY.radius("pixel") < 10
    round_truth = 100 * np.exp(-GEOMETRY.radius("pixel") / 90)

    def kept(level: np.ndarray, sectors: int) -> float:
        frames = rng.poisson(level, (4, *SHAPE))
        table = md.sparsify(frames, GEOMETRY, **OPTIONS, sectors=sectors, cutoff_pick=2.0, mask=mask).compute()
        return float(table.n_pixels.mean()) / int((~mask).sum())

    wanted = kept(round_truth, 1)
    assert kept(round_truth, SECTORS) == pytest.approx(wanted, rel=0.1)
    assert kept(5 * truth(), SECTORS) == pytest.approx(wanted, rel=0.1)
    assert kept(5 * truth(), 1) > 4 * wanted


def test_densified_frames_are_as_anisotropic_as_the_original(no_compute: None) -> None:
    frames = anisotropic(8)
    lazy = da.from_array(frames, chunks=(3, -1, -1))
    sparse = md.sparsify(lazy, GEOMETRY, **OPTIONS, sectors=SECTORS, cutoff_pick=4.0)
    dense = md.densify(sparse)
    with dask.config.set(scheduler="sync"):
        dense = dense.values
    azimuth = np.degrees(GEOMETRY.azimuth())
    for low in range(-180, 180, 30):
        part = (azimuth >= low) & (azimuth < low + 30)
        assert dense[:, part].mean() == pytest.approx(frames[:, part].mean(), rel=0.015)
        residual, wanted = ((images - truth())[:, part].var() for images in (dense, frames))
        assert residual == pytest.approx(wanted, rel=0.03)


def test_chunks_change_nothing() -> None:
    frames = anisotropic(5)
    tables = [
        md.sparsify(da.from_array(frames, chunks=(n, 100, -1)), GEOMETRY, **OPTIONS, sectors=4).compute()
        for n in (1, 4)
    ]
    xr.testing.assert_identical(*(table.drop_attrs() for table in tables))


def test_weak_peaks_are_found_on_the_dark_side_and_none_on_the_bright_one() -> None:
    frames, spots = anisotropic(6), []
    rng = np.random.default_rng(1)
    for shot, image in enumerate(frames):
        for _ in range(8):
            y = int(CENTER[0] + rng.choice([-1, 1]) * rng.integers(40, 110))
            x = int(CENTER[1] + rng.integers(-20, 20))
            image[y : y + 2, x : x + 2] += 12
            spots.append((1000 * shot, y + 0.5, x + 0.5))

    def found(sectors: int) -> tuple[int, int]:
        """(spots that are found, peaks that are none)."""
        table = md.find_peaks(frames, GEOMETRY, **OPTIONS, sectors=sectors, cutoff_peak=3.0).compute()
        shot = np.repeat(np.arange(len(frames)), table.n_peaks)
        peaks = np.stack([1000 * shot, table.y, table.x], axis=1)
        near = np.linalg.norm(peaks[:, None] - np.array(spots), axis=2) < 2
        return int(near.any(axis=0).sum()), int((~near.any(axis=1)).sum())

    (many, few_false), (few, many_false) = found(SECTORS), found(1)
    assert many >= 0.85 * len(spots) > 2 * few
    assert few_false <= 10 < 100 < many_false


@pytest.mark.parametrize("name", ["run.h5", "run.zarr"])
def test_a_written_table_comes_back(tmp_path: Path, name: str) -> None:
    frames = da.from_array(anisotropic(3), chunks=(2, -1, -1))
    sparse = md.sparsify(frames, GEOMETRY, **OPTIONS, sectors=6, cutoff_pick=3.0)
    again = md.write_sparse(sparse, tmp_path / name, resume=True)
    whole, found = sparse.compute(), again.compute()
    for part in ("index", "intensity", "frame_ptr", "radius", "sector", "pixel_radius", "pixel_azimuth"):
        np.testing.assert_array_equal(found[part], whole[part])
    assert found.background_avg.dims == ("shot", "sector", "radius")
    for shot in range(3):
        np.testing.assert_array_equal(found.background_avg[shot], filled(whole.background_avg.values[shot]))
    np.testing.assert_array_equal(md.densify(again), md.densify(sparse))
    archive = tmp_path / "archive.zarr"
    md.write_archive(again, archive, group="sparse")
    kept = md.open_archive(archive, "sparse")
    np.testing.assert_array_equal(md.densify(kept), md.densify(sparse))


def test_fabio_fills_each_sector_from_its_own_bins(tmp_path: Path) -> None:
    fabio = pytest.importorskip("fabio")
    frames = anisotropic(1).astype(np.int32)
    mask = np.zeros(SHAPE, bool)
    mask[30:35] = True
    sparse = md.sparsify(frames, GEOMETRY, **OPTIONS, sectors=6, cutoff_pick=5.0, mask=mask, dummy=-1).compute()
    md.write_sparse(sparse, tmp_path / "run.h5")
    with fabio.open(str(tmp_path / "run.h5")) as image:
        image.noisy = 0.0
        theirs = image._generate_data(0)
    places = pixel_maps(sparse).places()
    sector = np.minimum((sparse.pixel_azimuth.values.ravel() + 180) / 60, 5).astype(int)
    table = filled(sparse.background_avg.values[0])
    place = np.nan_to_num(np.clip(places.radial, 0, 39))
    wanted = np.array([np.interp(place, np.arange(40), row) for row in table])[sector, np.arange(sector.size)]
    wanted = np.where(mask.ravel(), -1, np.floor(wanted + 0.5))
    wanted[sparse["index"].values] = sparse["intensity"].values
    np.testing.assert_allclose(theirs, wanted.reshape(SHAPE), atol=1)  # FabIO rounds in its own way
    assert (theirs == wanted.reshape(SHAPE)).mean() > 0.999


def test_sectors_follow_the_beam_of_each_shot() -> None:
    centers = np.array([[130.0, 120.0], [128.7, 122.3], [133.1, 117.2]])
    frames = anisotropic(3)
    together = md.sparsify(frames, GEOMETRY, **OPTIONS, sectors=8, beam_centers=centers)
    dense = md.densify(together).values
    for k, center in enumerate(centers):
        azimuth = np.degrees(GEOMETRY.moved(tuple(center)).azimuth())
        y, x = np.indices(SHAPE) + 0.5
        np.testing.assert_allclose(azimuth, np.degrees(np.arctan2(y - center[0], x - center[1])), atol=1e-9)
        for s in range(8):
            part = (azimuth >= s * 45 - 180) & (azimuth < s * 45 - 135)
            assert dense[k][part].mean() == pytest.approx(frames[k][part].mean(), rel=0.03)
    alone = md.sparsify(frames[:1], GEOMETRY.moved(tuple(centers[0])), **OPTIONS, sectors=8).compute()
    same = md.sparsify(frames[:1], GEOMETRY, **OPTIONS, sectors=8, beam_centers=centers[:1]).compute()
    np.testing.assert_array_equal(alone["index"], same["index"])
    np.testing.assert_array_equal(alone.background_avg, same.background_avg)


def test_bad_input_is_named(tmp_path: Path) -> None:
    frames = anisotropic(1)
    with pytest.raises(ValueError, match="sectors=0"):
        md.separate_background(frames, GEOMETRY, sectors=0)
    path = tmp_path / "run.h5"
    md.write_sparse(md.sparsify(frames, GEOMETRY, **OPTIONS, sectors=4), path)
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "r+") as file:
        group = file["entry_0000/sparse_frames"]
        lost = group["pixel_azimuth"][()]
        del group["pixel_azimuth"]
    with pytest.raises(MrcFormatError, match="pixel_azimuth is lost"):
        md.open_sparse(path)
    with h5py.File(path, "r+") as file:
        file["entry_0000/sparse_frames/pixel_azimuth"] = lost[1:]
    with pytest.raises(MrcFormatError, match="pixel_azimuth is float32"):
        md.open_sparse(path)


@pytest.mark.parametrize("sectors", [1, 5])
def test_empty_sectors_and_masked_frames_are_survived(sectors: int, tmp_path: Path) -> None:
    """The beam beyond a corner: most sectors are empty."""
    geometry = md.Geometry.flat((40, 50), beam_center=(-3.0, -4.0))
    frames = np.random.default_rng(3).poisson(5.0, (2, 40, 50)).astype(np.uint16)
    frames[1] = 65535
    sparse = md.sparsify(frames, geometry, bins=8, unit="pixel", sectors=sectors, dummy=65535).compute()
    assert sparse.n_pixels.values[1] == 0 < sparse.n_pixels.values[0]
    dense = md.densify(sparse, background="mean")
    assert abs(float(dense[0].mean()) - 5) < 1
    assert (dense[1] == 65535).all()
    for name in ("run.h5", "run.zarr"):
        again = md.write_sparse(sparse, tmp_path / name)
        np.testing.assert_array_equal(md.densify(again, background="mean"), dense)
        np.testing.assert_array_equal(md.densify(again.isel([1])), dense[1:])
