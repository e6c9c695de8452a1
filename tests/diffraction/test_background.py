"""The background of frames against pyFAI's, against the formula, and with bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

import mrczdask as md
from mrczdask.errors import MrczdaskError

DUMMY = 2**32 - 1
ALIKE = 1e-6
"""Relative, of averages and deviations."""


def frames_of(n: int = 6, shape: tuple[int, int] = (60, 70), mean: float = 5.0) -> NDArray[Any]:
    frames = np.random.default_rng(3).poisson(mean, (n, *shape)).astype(np.int32)
    frames[:, 20:22, 30:32] += 400
    return frames


def geometry_of(shape: tuple[int, int] = (60, 70)) -> md.Geometry:
    return md.Geometry.flat(shape, distance_m=0.1, pixel_size_m=75e-6, beam_center=(29.3, 36.1))


@pytest.mark.real_data
@pytest.mark.parametrize("model", ["poisson", "hybrid"])
def test_backgrounds_are_those_of_pyfai(data_dir: Path, model: Any) -> None:
    """Of its CSR engine, which counts no dummies, but for one ring in a hundred, which bright pixels spoil there."""
    pyfai = pytest.importorskip("pyFAI")
    h5py = pytest.importorskip("h5py")
    pytest.importorskip("hdf5plugin")
    with h5py.File(data_dir / "simulated/bragg_stills.h5") as file:
        frames = file["/entry/data/data"][:2]
    options: dict[str, Any] = {"bins": 500, "unit": "r_m", "error_model": model, "dummy": DUMMY}
    geometry = md.Geometry.from_poni(data_dir / "simulated/bragg_stills.poni")
    found = md.separate_background(frames, geometry, polarization=0.99, solid_angle=True, **options).compute()
    integrator = pyfai.load(str(data_dir / "simulated/bragg_stills.poni"))
    for k, frame in enumerate(frames):
        theirs = integrator.sigma_clip(
            frame,
            500,
            unit="r_m",
            error_model=model,
            dummy=DUMMY,
            thres=0,
            max_iter=5,
            polarization_factor=0.99,
            correctSolidAngle=True,
            method=("no", "csr", "cython"),
        )
        np.testing.assert_allclose(found.radius, theirs.radial, rtol=1e-6)
        full = theirs.count > 0
        assert full.mean() > 0.95
        assert np.isfinite(found.background_avg.values[k][full]).all()
        spoilt = found.n_used.values[k] != theirs.count
        assert spoilt.sum() <= (5 if model == "poisson" else 0)
        assert (found.n_used.values[k] >= theirs.count).all()
        for ours, other in ((found.background_avg, theirs.intensity), (found.background_std, theirs.std)):
            np.testing.assert_allclose(ours.values[k][full & ~spoilt], other[full & ~spoilt], rtol=ALIKE)


@pytest.mark.parametrize("model", ["poisson", "azimuthal"])
def test_averages_are_those_of_the_formula(model: Any) -> None:
    frames, geometry = frames_of(2), geometry_of()
    dark, flat = np.full((60, 70), 0.5, np.float32), np.linspace(0.5, 2, 4200, dtype=np.float32).reshape(60, 70)
    if model == "azimuthal":  # its one-pass form equals the formula for equal weights only
        flat[:] = 2
    found = md.azimuthal_average(frames, geometry, bins=9, unit="pixel", error_model=model, dark=dark, flat=flat)
    radius = geometry.radius("pixel")
    number = ((radius - radius.min()) / (radius.max() * (1 + 2**-23) - radius.min()) * 9).astype(int)
    for k in range(9):
        raw, w = frames[1][number == k].astype(float), flat[number == k].astype(float)
        mean = (raw - 0.5).sum() / w.sum()
        deviation = w * ((raw - 0.5) / w - mean)
        variance = np.maximum(raw, 1).sum() if model == "poisson" else (deviation**2).sum()
        assert found.intensity.values[1, k] == pytest.approx(mean, rel=1e-5)
        std = np.sqrt(variance / (w**2).sum())
        assert found["std"].values[1, k] == pytest.approx(std, rel=1e-5)


def test_peaks_are_clipped_and_the_mean_is_not_moved() -> None:
    found = md.separate_background(frames_of(mean=20.0), geometry_of(), bins=10, unit="pixel")
    np.testing.assert_allclose(found.background_avg, 20, rtol=0.08)
    assert int(found.n_used.sum()) < 6 * 60 * 70


def test_nothing_is_computed_and_chunks_change_nothing(no_compute: None) -> None:
    frames, geometry = frames_of(), geometry_of()
    lazy = [da.from_array(frames, chunks=c) for c in ((1, 60, 70), (4, 30, 35))]
    found = [md.separate_background(f, geometry, bins=20, unit="r_m", error_model="hybrid") for f in lazy]
    one, other = (f.compute(scheduler="sync") for f in found)
    xr.testing.assert_identical(one, other)
    assert one.sizes == {"shot": 6, "radius": 20, "y": 60, "x": 70}


def test_dummy_nan_and_masked_pixels_do_not_count() -> None:
    frames = np.full((1, 60, 70), 2, np.float32)
    frames[0, :10], frames[0, 10:20], frames[0, 20:30] = np.nan, -1, 99
    mask = np.zeros((60, 70), bool)
    mask[20:30] = True
    found = md.azimuthal_average(frames, geometry_of(), bins=5, unit="pixel", dummy=-1.5, delta_dummy=0.5, mask=mask)
    assert set(found.intensity.values.ravel().tolist()) == {2.0}
    assert int(found.n_used.sum()) == 30 * 70


def test_empty_bins_are_nan() -> None:
    frames = frames_of(1)
    frames[0][geometry_of().radius("pixel") > 30] = -9
    found = md.separate_background(frames, geometry_of(), bins=20, unit="pixel", dummy=-9)
    assert np.isnan(found.background_avg.values[0, -1])
    assert np.isfinite(found.background_avg.values[0, 0])


def test_scan_dims_become_shots() -> None:
    scan = xr.DataArray(frames_of().reshape(2, 3, 60, 70), dims=("scan_y", "scan_x", "ky", "kx"))
    flat = md.azimuthal_average(frames_of(), geometry_of(), bins=5, unit="pixel")
    np.testing.assert_array_equal(
        md.azimuthal_average(scan, geometry_of(), bins=5, unit="pixel").intensity, flat.intensity
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"error_model": "gauss"}, "error_model='gauss'"),
        ({"unit": "furlong"}, "unit 'furlong'"),
        ({"bins": 0}, "bins=0"),
        ({"bins": 10.0}, "bins=10.0"),
        ({"sectors": 2.5}, "sectors=2.5"),
        ({"sectors": "8"}, "sectors='8'"),
        ({"radial_range": 5}, "radial_range=5"),
        ({"radial_range": (5,)}, "radial_range="),
        ({"radial_range": (np.nan, 3)}, "radial_range="),
        ({"cycle": -1}, "cycle=-1"),
        ({"cycle": 2.5}, "cycle=2.5"),
        ({"noise": -1.0}, "noise=-1"),
        ({"noise": np.nan}, "noise=nan"),
        ({"cutoff_clip": np.nan}, "cutoff_clip=nan"),
        ({"polarization": 5}, "polarization=5"),
        ({"polarization": np.nan}, "polarization=nan"),
        ({"dummy": -1, "delta_dummy": -1}, "delta_dummy=-1"),
        ({"solid_angle": "yes"}, "solid_angle='yes'"),
        ({"mask": np.ones((60, 70), bool)}, "every pixel is masked"),
        ({"dark": np.zeros((3, 3))}, "dark has the shape"),
        ({"flat": np.ones((3, 3))}, "flat has the shape"),
        ({"unit": "q_A^-1"}, "wavelength"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises((MrczdaskError, ValueError), match=message) as error:
        md.separate_background(frames_of(1), geometry_of(), **({"unit": "pixel"} | options))
    assert "\n" not in str(error.value)


def test_frames_of_another_shape_are_refused() -> None:
    with pytest.raises(MrczdaskError, match=r"the frames are \(50, 70\)"):
        md.separate_background(frames_of(1, (50, 70)), geometry_of(), unit="pixel")
