"""Fluorescence images, fits and bounds, against their own truth and against formulas."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import poisson

import mrczdask as md
from mrczdask.simulate import Readout


def test_images_have_the_noise_of_the_camera(no_compute: None) -> None:
    camera = Readout(counts_per_electron=3.0, offset=50.0, read_noise=2.0)
    truth = md.simulate.localisation(40, (3, 3), photons=300, background=20, readout=camera)
    images = truth.images.data.compute(scheduler="sync").astype(float)
    z = (images - 50 - 3 * truth.means) / (3 * np.sqrt(truth.means + 4 + 1 / 108))
    assert abs(z.mean()) < 4 / np.sqrt(z.size)
    assert z.var() == pytest.approx(1, abs=0.02)
    assert truth.means.sum() == pytest.approx(9 * 300 + 20 * truth.means.size, rel=1e-6)


def test_chunks_and_crops_change_no_pixel() -> None:
    whole = md.simulate.fluorescence((4, 64, 48)).images.values
    cut = md.simulate.fluorescence((4, 64, 48), chunks=(1, 17, 48)).images
    np.testing.assert_array_equal(cut.values, whole)
    np.testing.assert_array_equal(cut.isel(frame=2, y=slice(9, 30), x=5).values, whole[2, 9:30, 5])


def test_spots_move_by_a_tenth_of_a_pixel() -> None:
    positions = md.simulate.localisation(1, (12, 12)).positions
    assert np.unique((positions % 1).round(6)).tolist() == pytest.approx(np.arange(10) / 10)


def test_fits_reach_the_bound_without_a_bias() -> None:
    truth = md.simulate.localisation(60, (10, 10), photons=1000, background=5)
    fits = md.simulate.localise(truth.images, truth.positions, truth.readout)
    bound = md.simulate.cramer_rao_bound(truth.positions, truth.readout, photons=1000, background=5)
    error = fits - truth.positions
    assert abs(error.mean()) < 4 * bound.mean() / np.sqrt(error.size)
    assert error.std() / bound.mean() == pytest.approx(1.0, abs=0.05)


def test_entropies_are_those_of_the_laws() -> None:
    means = np.array([0.0, 0.1, 3.0, 700.0])
    np.testing.assert_allclose(
        md.simulate.poisson_entropy(means), [0, *poisson.entropy(means[1:]) / np.log(2)], atol=1e-6
    )
    many = np.linspace(0, 50, 5000)
    np.testing.assert_allclose(
        md.simulate.poisson_entropy(many)[::500], md.simulate.poisson_entropy(many[::500]), atol=1e-3
    )
    # no read noise, one count an electron: the Poisson entropy; much read noise: that of a normal density
    plain = Readout(counts_per_electron=1.0)
    assert float(md.simulate.readout_entropy(4.0, plain)) == pytest.approx(3.0104, abs=1e-3)
    noisy = Readout(counts_per_electron=10.0, read_noise=3.0)
    expected = 0.5 * np.log2(2 * np.pi * np.e * 100 * (50 + 9))
    assert float(md.simulate.readout_entropy(50.0, noisy)) == pytest.approx(expected, abs=0.01)


def test_wrong_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="photons"):
        md.simulate.localisation(1, photons=-5)
    with pytest.raises(ValueError, match="bright"):
        md.simulate.fluorescence((1, 8, 8), dim=10, bright=5)
