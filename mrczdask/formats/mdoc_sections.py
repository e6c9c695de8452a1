"""Which section of an mdoc file is that of which frame.

SerialEM numbers sections as it numbers images, from 0. Other programs number from 1, and scripts that take views out
of a stack leave the numbers of the others as they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Section = Mapping[str, Any]


def along_frames(by_z: Mapping[int, Section], n_frames: int) -> tuple[list[Section], list[str]]:
    """The section of each frame, empty where it has none, and notes on what is not as SerialEM writes it.

    As many sections as frames are matched in the order of their numbers. Fewer are matched by their numbers where
    these can be counted in one way only. More are matched only where the file holds the first of them. Else no frame
    has a section: a wrong tilt angle is worse than none.
    """
    numbers = sorted(by_z)
    if not numbers:
        return [{}] * n_frames, []
    first, last, n = numbers[0], numbers[-1], len(numbers)
    if n == n_frames:
        exact = first == 0 and last == n - 1
        said = f"the sections of the mdoc file are numbered {first} to {last}: matched to the {n} frames in their order"
        return [by_z[z] for z in numbers], [] if exact else [said]
    if n > n_frames:
        if numbers == list(range(first, first + n)) and first in (0, 1):
            said = f"the mdoc file has {n} sections, the file {n_frames} frames: taken for the first of them"
            return [by_z[first + k] for k in range(n_frames)], [said]
        said = f"the mdoc file has {n} sections for {n_frames} frames: which are whose is not known, none is used"
        return [{}] * n_frames, [said]
    start = _start(first, last, n_frames)
    if start is None:
        said = (
            f"the mdoc file has {n} sections, numbered {first} to {last}, for {n_frames} frames: which are whose is "
            "not known, none is used"
        )
        return [{}] * n_frames, [said]
    missing = f"the mdoc file has no ZValue section for {n_frames - n} of {n_frames} frames"
    return [by_z.get(start + k, {}) for k in range(n_frames)], [missing]


def _start(first: int, last: int, n_frames: int) -> int | None:
    """The number of the first frame, 0 or 1, if only one of them can be."""
    from_zero, from_one = first >= 0 and last < n_frames, first >= 1 and last <= n_frames
    if from_zero == from_one:
        return None
    return 0 if from_zero else 1
