"""Which pixels of frames are counts: what a file, a detector and a user say of special numbers, as one rule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.valid import FINITE, LARGEST, Bounds

Number = int | float
Interval = tuple[Number, Number]

# Attributes of frames, backgrounds and sparse frames.
UNDERLOAD: Final = "underload_value"
SATURATION: Final = "saturation_value"
DUMMY: Final = "dummy"
DELTA: Final = "delta_dummy"
INVALID: Final = "invalid_values"
PANELS: Final = "invalid_in_panels"
ATTRIBUTES: Final = (UNDERLOAD, SATURATION, DUMMY, DELTA, INVALID, PANELS)

_WIDE: Final = 4
"""Bytes of an integer from which on its highest numbers are no counts, whoever wrote them."""
_SPARED: Final = 2
"""Highest numbers of a dtype with which detectors mark pixels (DECTRIS: gaps, bad pixels)."""
_LEAST: Final = -(2**30)
"""No count of a wide signed dtype is as low: integrating detectors mark pixels with -2**31 and -2**30."""


@dataclass(frozen=True)
class Validity:
    """Counts are from `lowest` to `highest`, ends included, and in none of the `holes`; NaN and infinity never are.

    In the rows and columns of each of the `panels` its own rule holds too.
    """

    lowest: Number = -math.inf
    highest: Number = math.inf
    holes: tuple[Interval, ...] = ()
    panels: tuple[Panel, ...] = ()

    def merged(self, other: Validity) -> Validity:
        """What both take for a count."""
        return Validity(
            max(self.lowest, other.lowest),
            min(self.highest, other.highest),
            tuple(dict.fromkeys((*self.holes, *other.holes))),
            tuple(dict.fromkeys((*self.panels, *other.panels))),
        )

    def bounds(self, dtype: np.dtype[Any]) -> tuple[Bounds, list[Interval]]:
        """The rule of numbers of a dtype as float32, and the holes beyond the first; `panels` are left out.

        Integers that float32 cannot tell apart are no counts where one of them is none.
        """
        low, high = _rounded(self.lowest, self.highest, dtype, inward=True)
        holes: list[Interval] = []
        for first, last in sorted(_rounded(*hole, dtype, inward=False) for hole in self.holes):
            if last < low or first > high or last < first:
                continue
            if holes and first <= _next(holes[-1][1], dtype):
                holes[-1] = holes[-1][0], max(last, holes[-1][1])
            else:
                holes.append((first, last))
        if holes and holes[0][0] <= low:
            low = _next(holes.pop(0)[1], dtype)
        if holes and holes[-1][1] >= high:
            high = _next(holes.pop()[0], dtype, -1)
        hole = holes[0] if holes else FINITE[2:]
        return Bounds(*map(np.float32, (low, high, *hole))), holes[1:]

    def attrs(self, dummy: float = math.nan, delta: float = 0.0) -> dict[str, Any]:
        """As attributes of frames, which JSON can hold; `dummy` is what masked pixels have, NaN for none."""
        found: dict[str, Any] = {} if math.isnan(dummy) else {DUMMY: dummy}
        found |= {DELTA: delta} if delta else {}
        if math.isfinite(self.lowest):
            found[UNDERLOAD] = self.lowest
        if math.isfinite(self.highest):
            found[SATURATION] = self.highest
        if self.holes:
            found[INVALID] = [list(hole) for hole in self.holes]
        if self.panels:
            found[PANELS] = [[*panel.place, panel.rule.attrs()] for panel in self.panels]
        return found


@dataclass(frozen=True)
class Panel:
    """Rows and columns (first and behind the last of each) in which a rule holds."""

    place: tuple[int, int, int, int]
    rule: Validity


def validity_of(attrs: Mapping[str, Any]) -> Validity:
    """The rule that attributes of frames state, as readers and `Validity.attrs` write them."""
    lowest, highest = (_number(attrs.get(name), default) for name, default in _LIMITS)
    holes = [(first, last) for first, last in attrs.get(INVALID) or ()]
    dummy = attrs.get(DUMMY)
    if dummy is not None:
        holes += marks(dummy, attrs.get(DELTA) or 0.0)
    panels = [Panel((y0, y1, x0, x1), validity_of(said)) for y0, y1, x0, x1, said in attrs.get(PANELS) or ()]
    return Validity(lowest, highest, tuple(holes), tuple(panels))


_LIMITS: Final = ((UNDERLOAD, -math.inf), (SATURATION, math.inf))


def marks(dummy: Any, delta: Any = 0.0) -> list[Interval]:
    """The hole of numbers within `delta` of a dummy; none for NaN."""
    value, around = _number(dummy, math.nan), _number(delta, 0.0)
    if math.isnan(value):
        return []
    return [(value - around, value + around)]


def dtype_rule(dtype: np.dtype[Any]) -> Validity:
    """What no detector counts to, whatever wrote the frames: the ends of wide integers.

    Notes
    -----
    Of 32 and 64 bits: the two highest numbers, with which DECTRIS's detectors mark gaps and bad pixels and others
    saturated ones; of signed integers also what is at or below -2**30. 64 bits may hold the marks of 32.
    """
    if dtype.kind not in "iu" or dtype.itemsize < _WIDE:
        return Validity()
    holes = ((2**32 - _SPARED, 2**32 - 1),) if dtype.itemsize > _WIDE else ()
    lowest = _LEAST + 1 if dtype.kind == "i" else -math.inf
    return Validity(lowest, int(np.iinfo(dtype).max) - _SPARED, holes)


@dataclass(frozen=True)
class Marks:
    """Numbers within `delta` of `dummy`, which pyFAI takes for invalid pixels of a detector of this name."""

    detector: str
    dummy: float
    delta: float = 0.0

    def of(self, dtype: np.dtype[Any]) -> tuple[Number, float]:
        """The dummy of frames of a dtype, and how close to it pixels are invalid: below 0 it counts from the top."""
        value = _number(self.dummy, 0)
        if dtype.kind == "u" and value < 0:
            value += int(np.iinfo(dtype).max) + 1
        return value, self.delta


@dataclass(frozen=True)
class Judge:
    """A rule made ready for frames of one dtype and shape (y, x).

    Kernels compare with the `bounds`, those of what `plain` gives; `unsure` is the largest number of the dtype where no
    rule says what it is, else NaN.
    """

    rule: Validity
    shape: tuple[int, int]
    unsure: float
    bounds: Bounds
    is_plain: bool
    """Whether the bounds are all of the rule."""

    def plain(self, image: NDArray[Any]) -> NDArray[Any]:
        """The image as kernels take it: itself, or with NaN for what is no count where the bounds are not all."""
        if self.is_plain:
            return image
        good = self.counts_among(image.reshape(self.shape)).reshape(image.shape)
        return np.where(good, image, np.nan).astype(np.float32)

    def counts(self, image: NDArray[Any]) -> NDArray[np.bool_]:
        """Where what `plain` gave holds counts."""
        return _inside(image, self.bounds)

    def counts_among(self, frame: NDArray[Any]) -> NDArray[np.bool_]:
        """Where a frame (y, x) holds counts."""
        return counts_in(self.rule, frame)


def counts_in(rule: Validity, frame: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a frame (y, x) holds counts by a rule."""
    bounds, holes = rule.bounds(frame.dtype)
    good = _inside(frame, bounds)
    for hole in holes:
        good &= _inside(frame, Bounds(*FINITE[:2], *map(np.float32, hole)))
    for panel in rule.panels:
        y0, y1, x0, x1 = panel.place
        good[y0:y1, x0:x1] &= counts_in(panel.rule, frame[y0:y1, x0:x1])
    return good


def judge(rule: Validity, dtype: np.dtype[Any], shape: tuple[int, int], *, is_known: bool = False) -> Judge:
    """Make a rule ready; `is_known` where a user said which numbers are counts."""
    bounds, holes = rule.bounds(dtype)
    is_narrow = dtype.kind in "iu" and dtype.itemsize < _WIDE
    top = float(np.iinfo(dtype).max) if is_narrow and not is_known else np.nan
    is_plain = not holes and not rule.panels
    return Judge(rule, shape, top if bounds.high >= top else np.nan, bounds if is_plain else FINITE, is_plain)


def _inside(image: NDArray[Any], bounds: Bounds) -> NDArray[np.bool_]:
    with np.errstate(over="ignore"):
        pixels = image.astype(np.float32, copy=False)
    good = (pixels >= bounds.low) & (pixels <= bounds.high)
    return np.asarray(good & ((pixels < bounds.hole_low) | (pixels > bounds.hole_high)))


def _number(value: Any, default: float) -> Number:
    """A number of an attribute: integers stay what they are."""
    if value is None:
        return default
    found = np.asarray(value).reshape(-1)[0].item()
    return found if isinstance(found, int) else int(found) if float(found).is_integer() else float(found)


def _rounded(first: Number, last: Number, dtype: np.dtype[Any], *, inward: bool) -> Interval:
    """The ends of an interval as float32: those between which, or beyond which, no other integer of the dtype comes."""
    if dtype.kind != "f":
        least, most = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        first = least if first <= least else first if first == math.inf else math.ceil(first)
        last = most if last >= most else last if last == -math.inf else math.floor(last)
        if last < first:
            return math.inf, -math.inf
        if inward and first > least and _single(first - 1) == _single(first):
            first = _next(_single(first), np.dtype(np.float32))
        if inward and last < most and _single(last + 1) == _single(last):
            last = _next(_single(last), np.dtype(np.float32), -1)
    low, high = _single(first), _single(last)
    return (max(low, -float(LARGEST)), min(high, float(LARGEST))) if inward else (low, high)


def _single(number: Number) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(number))


def _next(number: Number, dtype: np.dtype[Any], step: int = 1) -> float:
    """The next number of a dtype that float32 can tell from it, or the one before."""
    if dtype.kind != "f" and _single(number + step) != number:
        return _single(number + step)
    return float(np.nextafter(np.float32(number), np.float32(step * math.inf)))
