"""PONI files read without pyFAI, against pyFAI."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mrczdask.formats.poni import _MODELS, flat_poni

TEXT = """# a comment: with a colon
poni_version: 2.1
Detector: {detector}
Detector_config: {config}
Distance: 0.1
Poni1: 0.02
Poni2: 0.03
Rot1: 0.0
Rot2: 0
Rot3: 0
Wavelength: 1e-10
"""


def text(detector: str = "Detector", config: str = '{"pixel1": 1e-4, "pixel2": 2e-4, "max_shape": [30, 40]}') -> str:
    return TEXT.format(detector=detector, config=config)


@pytest.mark.parametrize("name", sorted(_MODELS))
def test_known_detectors_are_those_of_pyfai(name: str) -> None:
    detectors = pytest.importorskip("pyFAI.detectors")
    theirs = next(
        kind() for said, kind in detectors.ALL_DETECTORS.items() if said.replace("_", "").replace("-", "") == name
    )
    ours = flat_poni(text(type(theirs).__name__, '{"orientation": 3}'))
    assert ours is not None
    assert ours.mask is not None
    assert ours.shape == theirs.shape
    assert ours.pixel_size_m == (theirs.pixel1, theirs.pixel2)
    np.testing.assert_array_equal(ours.mask, np.asarray(theirs.mask, bool))
    assert theirs.uniform_pixel
    assert theirs.IS_FLAT


def test_the_last_calibration_counts() -> None:
    found = flat_poni(text() + text().replace("Distance: 0.1", "Distance: 0.25").replace("Wavelength: 1e-10", ""))
    assert found is not None
    assert (found.distance_m, found.wavelength_m, found.shape) == (0.25, 1e-10, (30, 40))
    assert (found.poni_m, found.pixel_size_m, found.mask) == ((0.02, 0.03), (1e-4, 2e-4), None)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Rot1: 0.0", "Rot1: 0.001"),
        ("poni_version: 2.1", "poni_version: 1"),
        ("Detector: Detector", "Detector: Xpad_flat"),
        ("Wavelength", "Parallax: True\nWavelength"),
        ("Poni1: 0.02\n", ""),
        ('"pixel1": 1e-4', '"pixel1": 1e-4, "splineFile": "a"'),
        ('"pixel1": 1e-4', '"pixel1": 1e-4, "orientation": 2'),
        ("{", "["),
    ],
)
def test_the_rest_is_left_to_pyfai(old: str, new: str) -> None:
    assert old in text()
    assert flat_poni(text().replace(old, new)) is None


@pytest.mark.parametrize("config", ['{"pixel1": 1.5e-4}', '{"max_shape": [300, 200]}', '{"x_offset_file": "a"}'])
def test_a_known_detector_that_is_changed_is_left_to_pyfai(config: Any) -> None:
    assert flat_poni(text("Pilatus 1M", config)) is None
