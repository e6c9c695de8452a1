"""Bins and geometry against pyFAI's, for a flat detector that both describe, and against the formulas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mrczdask as md
from mrczdask.diffraction.bins import radial_bins

SHAPE = (200, 230)
PIXEL, DISTANCE, WAVELENGTH = 75e-6, 0.05, 1.2e-10
CENTER = (91.3, 120.6)
UNITS = ["q_A^-1", "q_nm^-1", "2th_deg", "r_m", "r_mm"]


def flat(**more: Any) -> md.Geometry:
    return md.Geometry.flat(
        SHAPE, distance_m=DISTANCE, pixel_size_m=PIXEL, beam_center=CENTER, wavelength_m=WAVELENGTH, **more
    )


def integrator() -> Any:
    pytest.importorskip("pyFAI")
    from pyFAI.detectors import Detector
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator

    detector = Detector(PIXEL, PIXEL, max_shape=SHAPE)
    return AzimuthalIntegrator(DISTANCE, CENTER[0] * PIXEL, CENTER[1] * PIXEL, detector=detector, wavelength=WAVELENGTH)


@pytest.mark.parametrize("unit", UNITS)
def test_a_flat_detector_is_that_of_pyfai(unit: Any) -> None:
    theirs = integrator()
    expected = theirs.array_from_unit(SHAPE, "center", unit, scale=True)
    np.testing.assert_allclose(flat().radius(unit), expected, rtol=2e-6)
    np.testing.assert_allclose(flat().correction(), theirs.solidAngleArray(SHAPE), rtol=2e-6)
    for factor in (0.99, 0.0, -0.5):
        np.testing.assert_allclose(flat().correction(factor, False), theirs.polarization(SHAPE, factor), rtol=2e-6)


@pytest.mark.parametrize("unit", ["q_A^-1", "r_m"])
def test_averages_are_those_of_pyfai(unit: Any, tmp_path: Path) -> None:
    theirs = integrator()
    theirs.save(str(tmp_path / "flat.poni"))
    geometry = md.Geometry.from_poni(tmp_path / "flat.poni")
    frame = np.random.default_rng(1).poisson(30, SHAPE).astype(np.int32)
    mask = np.zeros(SHAPE, bool)
    mask[60:64] = True
    ours = md.azimuthal_average(
        frame, geometry, bins=70, unit=unit, mask=mask, polarization=0.95, solid_angle=True
    ).compute()
    how: dict[str, Any] = {"polarization_factor": 0.95, "error_model": "poisson", "mask": mask, "unit": unit}
    found = theirs.integrate1d_ng(frame, 70, method=("no", "csr", "cython"), **how)
    np.testing.assert_array_equal(ours.n_used[0], found.count)
    np.testing.assert_allclose(ours.radius, found.radial, rtol=1e-6)
    np.testing.assert_allclose(ours.intensity[0], found.intensity, rtol=2e-6)
    np.testing.assert_allclose(ours["std"][0], found.std, rtol=2e-6)


def test_bins_hold_every_pixel_once_and_in_order() -> None:
    mask = np.random.default_rng(0).random(SHAPE) < 0.1
    bins = radial_bins(flat(), bins=40, unit="pixel", mask=mask, dark=np.arange(200 * 230).reshape(SHAPE))
    radius = flat().radius("pixel")
    good = ~mask
    low, high = radius[good].min(), radius[good].max() * (1 + 2.0**-23)
    number = np.floor((radius - low) / ((high - low) / 40)).astype(int)
    np.testing.assert_array_equal(np.diff(bins.order.edges), np.bincount(number[good], minlength=40))
    pixels = np.argsort(np.where(mask, 99, number).reshape(-1), kind="stable")[: good.sum()]
    slots = bins.order.slots
    np.testing.assert_array_equal(slots[pixels], np.arange(good.sum()))
    assert (slots[mask.reshape(-1)] == good.sum()).all()
    np.testing.assert_array_equal(np.isnan(bins.pixel_radius), mask)
    np.testing.assert_array_equal(bins.order.dark, np.arange(radius.size, dtype=np.float32)[pixels])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"bins": 0}, "bins=0"), ({"unit": "mile"}, "unit 'mile'"), ({"radial_range": (3, 2)}, "radial_range")],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        radial_bins(flat(), **options)
