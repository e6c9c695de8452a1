"""Counts behind gain-normalised floats: n such that n * gain gives the float back, bit for bit."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit

FORMULAS: Final = ("n * (g * s)", "(n * g) * s", "n / g * s", "(n * s) / g")
"""How a program may have multiplied counts n by the gain g and a scale s, all in float32."""
NEAREST: Final = 0.02
"""Distance of counts / scale from a whole number, in counts, below which a hypothesis explains a pixel."""


def normalised(counts: NDArray[Any], gain: NDArray[np.float32], scale: float, formula: str) -> NDArray[np.float32]:
    """The floats of counts (..., y, x) by one of FORMULAS."""
    n, s = counts.astype(np.float32), np.float32(scale)
    if formula == "n * (g * s)":
        return n * (gain * s)
    if formula == "(n * g) * s":
        return (n * gain) * s
    if formula == "n / g * s":
        return (n / gain) * s
    if formula == "(n * s) / g":
        return (n * s) / gain
    raise ValueError(f"formula={formula!r}: give one of {', '.join(map(repr, FORMULAS))}")


def counts_of(values: NDArray[Any], gain: NDArray[np.float32], scale: float, formula: str) -> NDArray[np.float64]:
    """What the counts would be without rounding."""
    factor = gain.astype(np.float64)
    ratio = values / factor if "*" in formula.replace("* s", "") else values * factor
    return np.asarray(ratio / scale)


def whole_counts(
    values: NDArray[Any], gain: NDArray[np.float32], scale: float, formula: str, dtype: np.dtype[Any]
) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]:
    """Counts of floats (..., y, x); where the pixel is a whole number of them, and where to the last bit.

    What is none of the numbers of `dtype` becomes 0.
    """
    limits = np.iinfo(dtype)
    ratio = counts_of(values, gain, scale, formula)
    nearest = np.rint(ratio)
    whole = (np.abs(ratio - nearest) <= NEAREST) & (nearest >= limits.min) & (nearest <= limits.max)
    counts = np.where(whole, nearest, 0).astype(dtype)
    again = normalised(counts, gain, scale, formula)
    exact = whole & (again == values) & (np.signbit(again) == np.signbit(values))  # -0.0 == 0.0, and is other bits
    return counts, whole, exact


def count_frame(
    values: NDArray[Any],
    gain: NDArray[np.float32],
    bad: NDArray[np.bool_],
    scale: float,
    formula: str,
    counts: NDArray[Any],
) -> tuple[int, int]:
    """Fill `counts` (y, x), 0 where it is bad, as `whole_counts` does; how many good ones are not whole, and inexact.

    In one pass: the arrays that `whole_counts` makes on the way are many times as large as the frame.
    """
    limits = np.iinfo(counts.dtype)
    native = np.ascontiguousarray(values, np.float32 if values.itemsize <= 4 else np.float64)  # of halves, exactly
    found: tuple[int, int] = _count_frame(
        native, gain, bad, scale, np.float32(scale), FORMULAS.index(formula), limits.min, limits.max, counts
    )
    return found


@njit(nogil=True, cache=True, error_model="numpy")
def _count_frame(
    values: Any, gain: Any, bad: Any, scale: float, s: Any, formula: int, low: int, high: int, counts: Any
) -> tuple[int, int]:
    not_whole = inexact = 0
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            counts[y, x] = 0
            if bad[y, x]:
                continue
            value, g = values[y, x], gain[y, x]
            ratio = (np.float64(value) / g if formula < 2 else np.float64(value) * g) / scale
            nearest = np.rint(ratio)
            if not (abs(ratio - nearest) <= NEAREST and low <= nearest <= high):
                not_whole += 1
                continue
            counts[y, x] = nearest
            n = np.float32(counts[y, x])  # of -0.0 the count is 0
            if formula == 0:
                again = n * (g * s)
            elif formula == 1:
                again = (n * g) * s
            elif formula == 2:
                again = (n / g) * s
            else:
                again = (n * s) / g
            inexact += again != value or (value == 0 and math.copysign(1.0, value) != math.copysign(1.0, again))
    return not_whole, inexact


def find_scale(ratios: NDArray[np.float64]) -> float | None:
    """The spacing of a lattice through 0 on which the values lie, or None.

    The smallest gap between values that many pixels have is that between successive counts, or a multiple of it; of the
    gap and its fractions the largest is taken that explains nearly all values.
    """
    values = np.sort(ratios[np.isfinite(ratios) & (ratios != 0)])
    if len(values) < _LEAST_VALUES:
        return None
    rounding = 4e-6 * float(np.abs(values).max())
    edges = np.flatnonzero(np.diff(values, prepend=-np.inf, append=np.inf) > rounding)
    crowded = np.diff(edges) >= max(_CROWD * len(values), 3)  # values that a few pixels have say nothing
    places = np.concatenate([[0.0], values[edges[:-1]][crowded]])
    gaps = np.abs(np.diff(np.sort(places)))
    if len(places) < 2:
        return None
    for part in range(1, _LARGEST_PART + 1):
        scale = _refined(values, float(gaps.min()) / part)
        away = np.abs(values / scale - np.rint(values / scale))
        if scale > rounding and float((away < NEAREST).mean()) > _EXPLAINED:
            return scale
    return None


_LEAST_VALUES: Final = 64
_LARGEST_PART: Final = 6
_CROWD: Final = 2e-4
"""Share of the pixels that have the same value before it counts as one of the lattice."""
_EXPLAINED: Final = 0.98
"""Share of the values that are whole: a few pixels were filled or clipped by the program that made the floats."""


def _refined(values: NDArray[np.float64], scale: float) -> float:
    """Least squares over a growing range of counts: the error of the scale grows with the count."""
    for largest in (4, 16, 64, 1024, 65536):
        near = np.abs(values) < (largest + 0.5) * scale
        n = np.rint(values[near] / scale)
        if (n * n).sum() > 0:
            scale = float((values[near] * n).sum() / (n * n).sum())
    return scale
