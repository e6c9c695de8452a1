"""Defect lists: files made by hand, masks there and back, faults named by their line."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mrczdask.errors import MrcFormatError
from mrczdask.formats.defects import motioncor_text, parse_defects, serialem_text

SERIALEM = """# a comment
CameraSizeX 12
CameraSizeY 10
RotationAndFlip 3
WasScaled 0
K2Type 1
UsableArea 0 0 0 0
PartialBadColumn 2 2 3 5
PartialBadRow 7 1 4 6
BadPixels 0 0 11 9
BadColumns 8
BadRows 1
"""


def test_serialem() -> None:
    found = parse_defects(SERIALEM)
    expected = np.zeros((10, 12), bool)
    expected[3:6, 2:4] = expected[7, 4:7] = expected[:, 8] = expected[1] = True
    expected[0, 0] = expected[9, 11] = True
    np.testing.assert_array_equal(found.mask((10, 12)), expected)
    assert found.size == (10, 12)
    assert found.rotation_flip == 3


def test_super_resolution_scales() -> None:
    found = parse_defects(SERIALEM)
    physical = found.mask((10, 12))
    np.testing.assert_array_equal(found.mask((20, 24)), physical.repeat(2, 0).repeat(2, 1))
    with pytest.raises(MrcFormatError, match="a camera of 10 x 12 pixels, the images are 11 x 12"):
        found.mask((11, 12))


def test_pixels_of_a_scaled_list_are_two_by_two() -> None:
    found = parse_defects("CameraSizeX 8\nCameraSizeY 8\nWasScaled 1\nBadPixels 2 4\n")
    mask = found.mask((8, 8))
    assert mask.sum() == 4
    assert mask[4:6, 2:4].all()
    assert np.argwhere(found.mask((4, 4))).tolist() == [[2, 1]]


def test_motioncor() -> None:
    mask = parse_defects("3 1 2 4\n\n# more\n0 0 1 1\n").mask((6, 8))
    expected = np.zeros((6, 8), bool)
    expected[1:5, 3:5] = expected[0, 0] = True
    np.testing.assert_array_equal(mask, expected)


@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.booleans()), st.integers(0, 3))
def test_there_and_back(mask: np.ndarray, extra: int) -> None:
    mask = mask.copy()
    mask[:, : min(extra, mask.shape[1])] |= extra > 1
    for text in (serialem_text(mask), motioncor_text(mask)):
        np.testing.assert_array_equal(parse_defects(text).mask(mask.shape), mask)
        assert max(map(len, text.splitlines()), default=0) < 512


def test_whole_lines_are_written_as_such() -> None:
    mask = np.zeros((20, 30), bool)
    mask[:, 4], mask[3], mask[7:11, 9], mask[12, 20:24], mask[15, 15] = True, True, True, True, True
    text = serialem_text(mask)
    for line in (
        "BadColumns 4",
        "BadRows 3",
        "PartialBadColumn 9 1 7 10",
        "PartialBadRow 12 1 20 23",
        "BadPixels 15 15",
    ):
        assert line in text.splitlines()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3\n", "line 1: '1 2 3' is not x y width height"),
        ("1 2 0 4\n", "line 1"),
        ("1 2 3 4\n1 x 3 4\n", "line 2: '1 x 3 4' is not a list of whole numbers"),
        ("CameraSizeX 8\nBadPixels 1 2 3\n", "line 2: BadPixels has 3 numbers"),
        ("CameraSizeX 8\nPartialBadColumn 1 1 5 4\n", "line 2: PartialBadColumn needs four numbers"),
        ("CameraSizeX 8\nBadRows -4\n", "line 2: a place below 0"),
    ],
)
def test_faults_are_named(text: str, message: str) -> None:
    with pytest.raises(MrcFormatError, match=message):
        parse_defects(text)


def test_empty() -> None:
    assert not parse_defects("").mask((4, 4)).any()
    assert not parse_defects("# nothing\n").mask((4, 4)).any()
