"""Defect lists as text: SerialEM's keyword file, and the four columns of MotionCor.

SerialEM (the camera's rows run from the top):

    CameraSizeX 3838            PartialBadColumn first_column width first_row last_row
    CameraSizeY 3710            PartialBadRow first_row height first_column last_column
    RotationAndFlip 0           BadPixels x y x y ...
    WasScaled 1                 BadColumns x x ...        BadRows y y ...

With WasScaled 1 (2) the coordinates are those of a finer camera, and a bad pixel is 2 x 2 (4 x 4) of them. MotionCor:
one rectangle a line, x y width height; rows count as those of the images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.errors import MrcFormatError

WHOLE: Final = -1
"""Width or height of a rectangle that spans the image."""
_LEAST_RUN: Final = 3
"""Bad pixels in line from which they are written as a part of a column or row."""
_PER_LINE: Final = 10
"""SerialEM reads at most 512 characters and 50 numbers of a line."""
_SCALED_PIXEL: Final = {-1: 1, 0: 1, 1: 2, 2: 4}

Rectangle = tuple[int, int, int, int]
"""x, y, width, height."""


@dataclass(frozen=True)
class DefectList:
    """Bad rectangles, the size of the camera (y, x) in the same pixels, and how SerialEM says these lie."""

    rectangles: tuple[Rectangle, ...]
    size: tuple[int, int] | None = None
    rotation_flip: int = 0

    def mask(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """(y, x) bool, row 0 that of the list; a finer or coarser image than the camera scales the rectangles."""
        ny, nx = self.size or size
        out = np.zeros((ny, nx), bool)
        for x, y, width, height in self.rectangles:
            out[y : None if height == WHOLE else y + height, x : None if width == WHOLE else x + width] = True
        if (ny, nx) == size:
            return out
        if size[0] % ny == 0 and size[1] % nx == 0 and size[0] // ny == size[1] // nx:
            scale = size[0] // ny
            return out.repeat(scale, axis=0).repeat(scale, axis=1)
        if ny % size[0] == 0 and nx % size[1] == 0 and ny // size[0] == nx // size[1]:
            scale = ny // size[0]
            binned = out.reshape(size[0], scale, size[1], scale).any(axis=(1, 3))
            return np.asarray(binned)
        raise MrcFormatError(f"the defects are of a camera of {ny} x {nx} pixels, the images are {size[0]} x {size[1]}")


def parse_defects(text: str) -> DefectList:
    """Read a defect list of either kind, told apart by its first word.

    Raises
    ------
    MrcFormatError
        A line is not of the format; it is named by its number.
    """
    lines = [(n, line.split()) for n, line in enumerate(text.splitlines(), 1)]
    lines = [(n, words) for n, words in lines if words and not words[0].startswith("#")]
    if not lines:
        return DefectList(())
    is_keyword = lines[0][1][0][0].isalpha()
    return _parse_serialem(lines) if is_keyword else DefectList(tuple(_parse_motioncor(lines)))


def turn_of_list(data: bytes) -> int | None:
    """RotationAndFlip of a list of SerialEM, 0 where the camera reads its pixels so; None where it is not said."""
    lines = (line.split() for line in data.decode("latin-1").splitlines())
    kept = [words for words in lines if words and not words[0].startswith("#")]
    if not kept or not kept[0][0][0].isalpha():
        return None
    said = [words[1] for words in kept if words[0] == "RotationAndFlip" and len(words) > 1]
    return int(said[-1]) if said and said[-1].isdecimal() else None


def _numbers(n: int, words: Iterable[str]) -> list[int]:
    try:
        values = [int(word) for word in words]
    except ValueError:
        raise MrcFormatError(f"line {n}: {' '.join(words)!r} is not a list of whole numbers") from None
    return values


def _parse_motioncor(lines: list[tuple[int, list[str]]]) -> Iterator[Rectangle]:
    for n, words in lines:
        values = _numbers(n, words)
        if len(values) != 4 or min(values[:2]) < 0 or min(values[2:]) < 1:
            raise MrcFormatError(f"line {n}: {' '.join(words)!r} is not x y width height")
        yield values[0], values[1], values[2], values[3]


def _parse_serialem(lines: list[tuple[int, list[str]]]) -> DefectList:
    single: dict[str, int] = {}
    found: list[Rectangle] = []
    pixels: list[tuple[int, int]] = []
    for n, (keyword, *words) in lines:
        values = _numbers(n, words) if keyword in _SINGLE | _LISTS else []
        if keyword in _LISTS and any(value < 0 for value in values):
            raise MrcFormatError(f"line {n}: a place below 0")
        if keyword in _SINGLE and values:
            single[keyword] = values[0]
        elif keyword in ("PartialBadColumn", "PartialBadRow"):
            found.append(_partial(n, keyword, values))
        elif keyword == "BadPixels":
            if len(values) % 2:
                raise MrcFormatError(f"line {n}: BadPixels has {len(values)} numbers, x and y are pairs")
            pixels += zip(values[::2], values[1::2], strict=True)
        elif keyword == "BadColumns":
            found += [(x, 0, 1, WHOLE) for x in values]
        elif keyword == "BadRows":
            found += [(0, y, WHOLE, 1) for y in values]
    side = _SCALED_PIXEL.get(single.get("WasScaled", 0), 1)
    found += [(x, y, side, side) for x, y in pixels]
    size = (single["CameraSizeY"], single["CameraSizeX"]) if {"CameraSizeX", "CameraSizeY"} <= set(single) else None
    return DefectList(tuple(found), size, single.get("RotationAndFlip", 0))


_SINGLE: Final = {"CameraSizeX", "CameraSizeY", "RotationAndFlip", "WasScaled"}
_LISTS: Final = {"PartialBadColumn", "PartialBadRow", "BadPixels", "BadColumns", "BadRows"}


def _partial(n: int, keyword: str, values: list[int]) -> Rectangle:
    if len(values) < 4 or values[1] < 1 or values[3] < values[2]:
        raise MrcFormatError(f"line {n}: {keyword} needs four numbers: place, width, first, last")
    place, width, first, last = values[:4]
    length = last - first + 1
    return (place, first, width, length) if keyword == "PartialBadColumn" else (first, place, length, width)


def split_mask(mask: NDArray[np.bool_]) -> list[Rectangle]:
    """A mask (y, x) as whole columns, whole rows, runs down columns, runs along rows, and pixels."""
    columns, rows = (np.flatnonzero(mask.all(axis=axis)).tolist() for axis in (0, 1))
    found: list[Rectangle] = [(x, 0, 1, WHOLE) for x in columns] + [(0, y, WHOLE, 1) for y in rows]
    left = mask.copy()
    left[:, columns], left[rows] = False, False
    for x, start, stop in _runs(left.T):
        if stop - start >= _LEAST_RUN:
            found.append((x, start, 1, stop - start))
            left[start:stop, x] = False
    return found + [(start, y, stop - start, 1) for y, start, stop in _runs(left)]


def _runs(lines: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """(line, start, stop) of each run."""
    edges = np.diff(np.pad(lines, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    line, start = np.nonzero(edges == 1)
    stop = np.nonzero(edges == -1)[1]
    return list(zip(line.tolist(), start.tolist(), stop.tolist(), strict=True))


def motioncor_text(mask: NDArray[np.bool_]) -> str:
    """The mask (y, x) as rectangles, one a line."""
    ny, nx = mask.shape
    rectangles = [(x, y, nx if w == WHOLE else w, ny if h == WHOLE else h) for x, y, w, h in split_mask(mask)]
    return "".join(f"{x} {y} {w} {h}\n" for x, y, w, h in rectangles)


def serialem_text(mask: NDArray[np.bool_], rotation_flip: int | None = None) -> str:
    """The mask (y, x), row 0 the top one, as a file of SerialEM, with how the mask is turned where that is known."""
    lines = [f"CameraSizeX {mask.shape[1]}", f"CameraSizeY {mask.shape[0]}", "WasScaled 0"]
    lines += [] if rotation_flip is None else [f"RotationAndFlip {rotation_flip}"]
    columns, rows, pixels = [], [], []
    for x, y, width, height in split_mask(mask):
        if height == WHOLE:
            columns.append(f"{x}")
        elif width == WHOLE:
            rows.append(f"{y}")
        elif height > 1:
            lines.append(f"PartialBadColumn {x} {width} {y} {y + height - 1}")
        elif width >= _LEAST_RUN:
            lines.append(f"PartialBadRow {y} {height} {x} {x + width - 1}")
        else:
            pixels += [f"{x + k} {y}" for k in range(width)]
    for keyword, words in (("BadPixels", pixels), ("BadColumns", columns), ("BadRows", rows)):
        lines += [" ".join((keyword, *words[k : k + _PER_LINE])) for k in range(0, len(words), _PER_LINE)]
    return "\n".join(lines) + "\n"
