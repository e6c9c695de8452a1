"""Options in their ranges, or errors that name them: NaN is in none."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np


def whole_number(name: str, value: Any, least: int, most: int | None = None) -> int:
    """An integer from `least` to `most`; floats and texts are none."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        above = "or more" if most is None else f"to {most}"
        raise ValueError(f"{name}={value!r}: give a whole number, {least} {above}")
    return number


def number(name: str, value: Any, least: float = 0.0, most: float = np.inf) -> float:
    """A float from `least` to `most`."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = np.nan
    if not least <= found <= most:
        above = "or more" if most == np.inf else f"to {most:g}"
        raise ValueError(f"{name}={value}: give {least:g} {above}")
    return found


def flag(name: str, value: Any) -> bool:
    """True or False, and nothing that only counts as one."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name}={value!r}: give True or False")
    return bool(value)


def span(name: str, value: Any) -> tuple[float, float]:
    """Two numbers, the first below the second."""
    try:
        low, high = map(float, value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}={value!r}: give two numbers") from None
    if not low < high:
        raise ValueError(f"{name}={value}: the first must be below the second")
    return low, high
