"""The 16 hypotheses about a gain reference: the right one at few electrons, none where nothing can be known."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import mrczdask as md
from mrczdask.kernels.orientation import ORIENTATIONS, oriented

SHAPE = (5, 384, 384)
RAW, TRUTH = md.simulate.movie(SHAPE, dose=1, gain=md.simulate.Gain(pixel_sd=0.015), seed=2)
TOTAL = md.sum_frames(RAW).compute()
GAIN = TRUTH.gain.values


def undone(orientation: str) -> np.ndarray:
    """The gain as a file holds it that `orientation` sets right."""
    return next(
        stored
        for name in ORIENTATIONS
        for stored in [oriented(GAIN, name)]
        if (oriented(stored, orientation) == GAIN).all()
    )


@pytest.mark.parametrize(("orientation", "convention"), list(product(ORIENTATIONS, ("multiply", "divide"))))
def test_found_at_five_electrons_a_pixel(orientation: str, convention: str) -> None:
    stored = undone(orientation)
    found = md.orient_gain(TOTAL, stored if convention == "multiply" else 1 / stored)
    assert (found.attrs["orientation"], found.attrs["convention"], found.attrs["decided"]) == (
        orientation,
        convention,
        True,
    )


def test_apply_takes_the_answer() -> None:
    stored = 1 / undone("flip y, rot90")
    corrected = md.apply_gain(TOTAL, stored, orientation=md.orient_gain(TOTAL, stored))
    np.testing.assert_allclose(corrected, TOTAL * GAIN, rtol=1e-5)


def test_super_resolution_gain_is_binned() -> None:
    finer = np.rot90(GAIN.repeat(2, axis=0).repeat(2, axis=1))
    found = md.orient_gain(TOTAL, finer)
    assert (found.attrs["orientation"], found.attrs["scale"]) == ("rot270", 2)
    np.testing.assert_allclose(md.apply_gain(TOTAL, finer, orientation=found), TOTAL * GAIN, rtol=1e-5)


def test_binned_gain_for_super_resolution_images() -> None:
    responses = (1 / GAIN).reshape(192, 2, 192, 2).mean(axis=(1, 3))
    coarse = (1 / responses).astype(np.float32)
    images = np.random.default_rng(0).poisson(20 / coarse.repeat(2, 0).repeat(2, 1))
    found = md.orient_gain(images, coarse)
    assert (found.attrs["orientation"], found.attrs["scale"], found.attrs["decided"]) == ("as stored", -2, True)


def test_nothing_is_decided_without_evidence() -> None:
    other = md.simulate.movie(SHAPE, dose=1, gain=md.simulate.Gain(pixel_sd=0.015), detector_seed=9)[1].gain.values
    for total, gain in ((md.apply_gain(TOTAL, GAIN), GAIN), (TOTAL, np.ones_like(GAIN)), (TOTAL, other)):
        found = md.orient_gain(total, gain)
        assert not found.attrs["decided"]
        assert "apply nothing" in found.attrs["verdict"]
        with pytest.raises(ValueError, match="undecided"):
            md.apply_gain(total, gain, orientation=found)


def test_hot_pixels_do_not_decide() -> None:
    total = TOTAL.copy()
    hot = np.random.default_rng(1).integers(0, 384, (2, 700))
    total.values[tuple(hot)] += 500
    assert md.orient_gain(total, undone("rot90")).attrs["orientation"] == "rot90"


def test_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="another detector"):
        md.orient_gain(TOTAL, GAIN[:-1])
