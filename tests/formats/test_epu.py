from __future__ import annotations

import numpy as np
import pytest

from mrczdask.formats.epu import gain_stem, movie_stem, name_time, parse_epu

NAME = "FoilHole_900_Data_10_20241111_225630"


def xml(when: str = "2024-11-11T22:56:30.1234567+01:00", dose: str = "4.0E+21", extra: str = "") -> bytes:
    """As EPU writes it, with the prefixes and namespaces that change from version to version."""
    return (
        "\ufeff<?xml version='1.0' encoding='utf-8'?><MicroscopeImage xmlns='urn:x' xmlns:a='urn:y'><CustomData>"
        "<a:KeyValueOfstringanyType><a:Key>AppliedDefocus</a:Key><a:Value>-1E-06</a:Value></a:KeyValueOfstringanyType>"
        f"<a:KeyValueOfstringanyType><a:Key>Dose</a:Key><a:Value>{dose}</a:Value></a:KeyValueOfstringanyType>"
        "</CustomData><SpatialScale><pixelSize><x><numericValue>8.2E-11</numericValue></x><y><numericValue>8.2E-11"
        f"</numericValue></y></pixelSize></SpatialScale><microscopeData><acquisition><acquisitionDateTime>{when}"
        "</acquisitionDateTime><camera><ExposureTime>2</ExposureTime></camera></acquisition><gun><AccelerationVoltage>"
        f"300000</AccelerationVoltage></gun>{extra}</microscopeData></MicroscopeImage>"
    ).encode()


def test_what_the_microscope_was_set_to() -> None:
    facts = parse_epu(xml(), 4)
    assert facts.attrs == {"pixel_size_angstrom": 0.82, "voltage_kv": 300.0, "exposure_time_s": 2.0}
    assert facts.acquired == np.datetime64("2024-11-11T22:56:30.123456")
    assert facts.session == {"utc_offset": 60}
    np.testing.assert_allclose(facts.per_frame["dose"], [10, 20, 30, 40])
    np.testing.assert_allclose(facts.per_frame["time"], [0, 0.5, 1, 1.5])
    assert facts.notes == ()


@pytest.mark.parametrize(
    ("when", "offset"),
    [("2024-11-11T22:56:30-05:30", -330), ("2024-11-11T22:56:30Z", 0), ("2024-11-11T22:56:30", None)],
)
def test_zones(when: str, offset: int | None) -> None:
    facts = parse_epu(xml(when), 2)
    assert facts.session.get("utc_offset") == offset
    assert facts.acquired == np.datetime64("2024-11-11T22:56:30")


def test_absurd_and_broken_files() -> None:
    facts = parse_epu(xml("yesterday", dose="NaN"), 3)
    assert (facts.acquired, facts.session) == (None, {})
    assert "dose" not in facts.per_frame
    broken = parse_epu(xml()[:-30], 3)
    assert (broken.attrs, broken.acquired) == ({}, None)
    assert "cannot be read" in broken.notes[0]


def test_names() -> None:
    for ending in ("_fractions.tiff", "_Fractions.mrc", "_EER.eer", ".tif"):
        assert movie_stem(NAME + ending) == NAME
    assert movie_stem(NAME + ".xml") is None
    for ending in ("_gain.tiff", "_Gain.mrc", "_gain.gain"):
        assert gain_stem(NAME + ending) == NAME
    assert gain_stem("again.tiff") is None
    assert name_time(NAME + "_fractions.tiff") == np.datetime64("2024-11-11T22:56:30")
    assert name_time("FoilHole_1_Data_2_20249999_225630") is None
    assert name_time("movie_20241111_225630.tif") is None
