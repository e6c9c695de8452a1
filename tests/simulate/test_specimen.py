"""Ice, particles and carbon film."""

from __future__ import annotations

import numpy as np
import pytest

import mrczdask as md
from mrczdask.simulate import Specimen


def test_ice_has_the_asked_contrast_and_is_another_in_each_movie() -> None:
    truth = md.simulate.session(20, (1, 200, 300), specimen=Specimen(ice_sd=0.05)).truth
    ice = truth.specimen.values
    assert abs(np.sqrt(((ice - 1) ** 2).mean()) - 0.05) < 0.005
    correlations = np.corrcoef(ice.reshape(20, -1))[np.triu_indices(20, 1)]
    assert np.abs(correlations).mean() < 0.5


def test_particles_cover_their_area() -> None:
    specimen = Specimen(particles=30, particle_diameter=20, particle_contrast=0.25)
    truth = md.simulate.session(10, (1, 300, 300), specimen=specimen).truth
    image = truth.specimen.values
    assert image.max() == 1
    assert (image.min((1, 2)) < 0.8).all()
    # the integral of exp(-(r / R)**4) over the plane is R**2 pi**1.5 / 2
    expected = 30 * 0.25 * 10**2 * np.pi**1.5 / 2 / 300**2
    assert abs((1 - image).mean() / expected - 1) < 0.1


def test_carbon_is_named_or_drawn() -> None:
    session, truth = md.simulate.session(300, (1, 64, 64), dose=5.0, specimen=Specimen(carbon=0.1))
    assert abs(truth.carbon.mean() - 0.1) < 0.05
    few = md.simulate.session(10, (1, 64, 64), specimen=Specimen(carbon=0.1)).truth.carbon
    assert np.array_equal(few, truth.carbon[:10])
    contrast = truth.specimen.std(("y", "x")).values
    assert (contrast[truth.carbon] > 0.05).all()
    assert not contrast[~truth.carbon].any()
    named = md.simulate.session(3, (1, 64, 64), specimen=Specimen(carbon=["movie_0001"])).truth.carbon
    assert named.values.tolist() == [False, True, False]
    one = md.simulate.session(3, (1, 64, 64), specimen=Specimen(carbon="movie_0002")).truth.carbon
    assert one.values.tolist() == [False, False, True]
    assert session.images.sizes["movie"] == 300


def test_film_absorbs_its_contrast_outside_of_a_hole() -> None:
    truth = md.simulate.session(40, (1, 256, 256), specimen=Specimen(carbon=1.0, carbon_contrast=0.4)).truth
    image = truth.specimen.values
    hole = image == 1
    assert (hole.mean((1, 2)) > 0.01).all()
    assert (hole.mean((1, 2)) < 0.99).all()
    film = image[image < 0.9]
    assert abs(np.median(film) - 0.6) < 0.02
    assert 0.03 < film.std() < 0.12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ice_sd": 0.6}, "Specimen: ice_sd=0.6"),
        ({"particles": -1}, "Specimen: particles=-1"),
        ({"particles": 1.5}, "Specimen: particles=1.5: give a whole number"),
        ({"particle_diameter": 0}, "Specimen: particle_diameter=0"),
        ({"particle_contrast": 1.1}, "Specimen: particle_contrast=1.1"),
        ({"carbon": 1.5}, "Specimen: carbon=1.5"),
    ],
)
def test_ranges(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Specimen(**options)  # type: ignore[arg-type]


def test_readout_ranges() -> None:
    for options, message in (
        ({"counts_per_electron": 0.0}, "Readout: counts_per_electron=0.0"),
        ({"read_noise": -1.0}, "Readout: read_noise=-1.0"),
        ({"offset": np.nan}, "Readout: offset=nan"),
    ):
        with pytest.raises(ValueError, match=message):
            md.simulate.Readout(**options)
