"""The study of lossy codecs holds what it claims."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def study() -> ModuleType:
    """examples/lossy_codecs.py."""
    specification = importlib.util.spec_from_file_location("lossy_codecs", ROOT / "examples" / "lossy_codecs.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules["lossy_codecs"] = module
    specification.loader.exec_module(module)
    return module


def test_localisation_at_one_step_of_noise(study: ModuleType) -> None:
    points = study.localisation_study(30, (0.0, 1.0, 4.0))
    for form in study.FORMS:
        lossless, one, four = (point for point in points if point.form == form)
        assert 1.0 < lossless.error < 1.1  # of the Cramer-Rao bound
        assert one.ratio > 1.7 * lossless.ratio
        assert one.error < 1.05 * lossless.error
        assert four.error > 1.2 * lossless.error  # the study can see a loss


def test_a_fixed_pattern_is_removed_from_stored_movies(study: ModuleType) -> None:
    lossless, one, two = study.knock_out_study(6, 6, (0.0, 1.0, 2.0))
    for point in (one, two):
        assert point.ratio > 2 * lossless.ratio
        assert point.after == pytest.approx(lossless.after, abs=0.004)
    assert lossless.after < 0.3 * lossless.before


def test_peaks_of_stored_stills_stay(study: ModuleType) -> None:
    lossless, one, four = study.peak_study(4, (0.0, 1.0, 4.0))
    assert lossless.found > 0.8
    assert one.ratio > 1.2 * lossless.ratio
    assert abs(one.found - lossless.found) < 0.02
    assert one.error < 1.05 * lossless.error
    assert lossless.false == one.false == 0
    assert four.error > 1.2 * lossless.error  # the study can see a loss
    assert four.false > 10
