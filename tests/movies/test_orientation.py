"""The 16 hypotheses about a gain reference: the right one at few electrons, none where nothing can be known."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import mrczdask as md
from mrczdask.errors import MrczdaskWarning
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


def test_pixels_that_are_no_numbers_say_nothing() -> None:
    holed = TOTAL.astype(np.float64)
    holed.values[::37, ::11] = np.nan
    holed.values[3, 5], holed.values[200, 200] = np.inf, 1e300
    found = md.orient_gain(holed, undone("rot180"))
    assert (found.attrs["orientation"], found.attrs["decided"]) == ("rot180", True)
    want = md.orient_gain(TOTAL, undone("rot180"))
    np.testing.assert_allclose(found["z"].max(), want["z"].max(), rtol=0.05)


# --- the verbs that take a gain compare its turn by themselves ---


@pytest.fixture(scope="module")
def raw() -> tuple[xr.Dataset, np.ndarray]:
    response = md.simulate.Gain(pixel_sd=0.03, column_sd=0.01)
    session, truth = md.simulate.session(3, (3, 192, 192), dose=6, gain=response, seed=4)
    return session.compute(), truth.gain.values


@pytest.mark.parametrize("orientation", [*list(ORIENTATIONS)[1:], "reciprocal"])
def test_a_gain_that_lies_wrong_is_refused_and_named(
    raw: tuple[xr.Dataset, np.ndarray], orientation: str, tmp_path: Path
) -> None:
    session, gain = raw
    if orientation == "reciprocal":
        stored, named, remedy = 1 / gain, "as stored, divide", {"orientation": md.orient_gain(session.images, 1 / gain)}
    else:
        stored = next(s for n in ORIENTATIONS for s in [oriented(gain, n)] if (oriented(s, orientation) == gain).all())
        named, remedy = f"{orientation}, multiply", {"orientation": orientation}
    with pytest.raises(ValueError, match=f"the images fit the gain as {named}"):
        md.process_session(session, tmp_path / "a.zarr", gain=stored, koma=None)
    done = md.process_session(session, tmp_path / "a.zarr", gain=stored, koma=None, outliers=None, **remedy)
    np.testing.assert_allclose(done["movies"].images.values, session.images.values * gain, rtol=1e-5)
    alarms = md.gain_quality(session, stored).attrs["alarms"]
    assert any(f"the images fit the gain as {named}" in alarm for alarm in alarms)


def test_the_right_gain_and_one_that_says_nothing_are_taken(raw: tuple[xr.Dataset, np.ndarray], tmp_path: Path) -> None:
    session, gain = raw
    for name, given in (("right", gain), ("flat", np.ones_like(gain))):
        md.process_session(session, tmp_path / f"{name}.zarr", gain=given, koma=None)
        assert not [alarm for alarm in md.gain_quality(session, given).attrs["alarms"] if "turned" in alarm]


def test_who_insists_is_warned(raw: tuple[xr.Dataset, np.ndarray], tmp_path: Path) -> None:
    session, gain = raw
    turned = session.assign_attrs()
    turned["images"] = session.images.assign_attrs(rotation_flip=4)
    with pytest.warns(MrczdaskWarning, match=r"fit the gain as flip y, multiply.*RotationAndFlip 4"):
        md.process_session(turned, tmp_path / "a.zarr", gain=gain[::-1], orientation="as stored", koma=None)


def test_a_dark_reference_is_taken_off_before(raw: tuple[xr.Dataset, np.ndarray], tmp_path: Path) -> None:
    session, gain = raw
    dark = np.random.default_rng(0).integers(0, 60, gain.shape)
    dim = session.images.astype(np.int32) + dark.astype(np.int32)
    with pytest.raises(ValueError, match="fit the gain as rot180, multiply"):
        md.process_session(dim, tmp_path / "a.zarr", gain=gain[::-1, ::-1], dark=dark, koma=None)
