"""Checks of parameters: one line that names the parameter, the fault and the range."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike

DTYPES: Final = ("uint8", "int8", "uint16", "int16", "float32")


def check_range(owner: str, values: Mapping[str, Any], low: float, high: float = math.inf) -> None:
    """Refuse what is no finite number from low to high."""
    for name, value in values.items():
        if not (isinstance(value, int | float | np.number) and math.isfinite(value) and low <= value <= high):
            raise ValueError(f"{owner}: {name}={value}: give a number from {low:g} to {high:g}")


def check_count(owner: str, values: Mapping[str, Any]) -> None:
    """Refuse what is no whole number, 0 or more."""
    for name, value in values.items():
        if not isinstance(value, int | np.integer) or value < 0:
            raise ValueError(f"{owner}: {name}={value}: give a whole number, 0 or more")


def checked_shape(shape: Sequence[int], kinds: Mapping[int, str]) -> tuple[int, ...]:
    """The shape as integers, or an error that says what is wanted."""
    sizes = tuple(int(n) for n in shape)
    if len(sizes) not in kinds or min(sizes) < 1:
        raise ValueError(f"shape={tuple(shape)}: give {' or '.join(kinds.values())}, all at least 1")
    return sizes


def checked_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """One of DTYPES."""
    kind = np.dtype(dtype)
    if kind.name not in DTYPES:
        raise ValueError(f"dtype={kind.name}: a simulated movie is one of {', '.join(DTYPES)}")
    return kind


def check_fits(name: str, value: float, dtype: np.dtype[Any]) -> None:
    """Refuse a mean above the largest value of the dtype; single counts above it are clipped."""
    if dtype.kind in "iu" and value > np.iinfo(dtype).max:
        raise ValueError(
            f"{name}={value:g} is above {np.iinfo(dtype).max}, all that {dtype} holds: choose a wider dtype"
        )
