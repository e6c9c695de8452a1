from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mrczdask.formats.mdoc import parse_mdoc
from mrczdask.formats.mdoc_sections import along_frames


def tilts(numbers: list[int], n_frames: int) -> tuple[list[Any], tuple[str, ...]]:
    """The angles along the frames of a series whose section z has the angle 3 z."""
    text = "PixelSpacing = 1.5\n\n" + "".join(f"[ZValue = {z}]\nTiltAngle = {3 * z}\n\n" for z in numbers)
    facts = parse_mdoc(text, n_frames)
    return facts.per_frame.get("tilt", np.full(n_frames, np.nan)).tolist(), facts.notes


def test_numbered_from_one_with_gaps_and_out_of_order() -> None:
    assert tilts([0, 1, 2], 3) == ([0, 3, 6], ())
    for numbers in ([1, 2, 3], [0, 2, 7], [7, 0, 2]):
        angles, notes = tilts(numbers, 3)
        assert angles == [3 * z for z in sorted(numbers)]
        assert "matched to the 3 frames in their order" in notes[0]


def test_fewer_and_more_sections_than_frames() -> None:
    angles, notes = tilts([0, 2], 4)
    np.testing.assert_array_equal(angles, [0, np.nan, 6, np.nan])
    assert "2 of 4 frames" in notes[0]
    np.testing.assert_array_equal(tilts([1, 4], 4)[0], [3, np.nan, np.nan, 12])
    for numbers, n_frames in (([1, 2], 3), ([2, 9], 4), ([0, 1, 3], 2)):  # two ways to count them, or none
        angles, notes = tilts(numbers, n_frames)
        assert np.isnan(angles).all()
        assert "is not known" in notes[0] or "is not" in notes[0]
    angles, notes = tilts([0, 1, 2], 2)  # still written, or read as far as it goes
    assert angles == [0, 3]
    assert "taken for the first of them" in notes[0]


@settings(max_examples=200, deadline=None)
@given(numbers=st.sets(st.integers(-2, 12), min_size=0, max_size=10), n_frames=st.integers(1, 10))
def test_no_frame_has_the_section_of_another(numbers: set[int], n_frames: int) -> None:
    by_z = {z: {"z": z} for z in numbers}
    along, notes = along_frames(by_z, n_frames)
    found = [section["z"] for section in along if section]
    assert len(along) == n_frames
    assert found == sorted(set(found))  # in order, none twice
    if len(numbers) == n_frames:
        assert found == sorted(numbers)
    elif found:
        places = [k for k, section in enumerate(along) if section]
        assert len({z - k for z, k in zip(found, places, strict=True)}) == 1  # all shifted alike, by 0 or 1
        assert found[0] - places[0] in (0, 1)
    if numbers and (found != list(range(n_frames))):
        assert notes
