"""The eight ways in which an image can lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

ORIENTATIONS: Final[Mapping[str, tuple[int, bool]]] = {
    "as stored": (0, False),
    "rot90": (1, False),
    "rot180": (2, False),
    "rot270": (3, False),
    "flip y": (0, True),
    "flip y, rot90": (1, True),
    "flip y, rot180": (2, True),
    "flip y, rot270": (3, True),
}
"""Quarter turns from y to x as of numpy.rot90 (counter-clockwise where y points down), after a flip of y or without."""


def oriented(image: Any, orientation: str) -> Any:
    """The image (..., y, x) turned and flipped."""
    if orientation not in ORIENTATIONS:
        raise ValueError(f"orientation={orientation!r}: give one of {', '.join(map(repr, ORIENTATIONS))}")
    turns, flip = ORIENTATIONS[orientation]
    return np.rot90(image[..., ::-1, :] if flip else image, turns, axes=(-2, -1))
