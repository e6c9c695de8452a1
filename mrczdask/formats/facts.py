"""What a header or a sidecar says about a movie, under the names of the data model, and checks that it is credible."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrczdask import schema

KV_PER_V: Final = 1e-3
ANGSTROM_PER_M: Final = 1e10

CREDIBLE: Final[Mapping[str, tuple[float, float]]] = {
    schema.VOLTAGE: (1.0, 3_500.0),  # the highest-voltage microscopes reach 3.5 MV
    schema.PIXEL_SIZE: (1e-3, 1e6),
    schema.COUNTS_PER_ELECTRON: (1e-6, 1e6),
    schema.SPHERICAL_ABERRATION: (1e-6, 1e3),
    schema.DOSE: (0.0, 1e6),
    schema.DOSE_RATE: (0.0, 1e6),
    schema.TILT: (-360.0, 360.0),
    schema.TIME: (0.0, 1e8),
}
"""Range outside of which a value is taken for noise, by name."""

SQUARE: Final = 1e-4
"""Pixels whose sides differ by less, relatively, are square."""
YEARS: Final = range(1970, 2200)
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_SERIALEM_DATE: Final = re.compile(r"(\d{1,4})-([A-Za-z]{3})-(\d{1,4})\s+(\d{1,2}):(\d{2}):(\d{2})")
_OLD_CENTURY: Final = 70
"""A year of two digits from here on is of the last century."""


@dataclass(frozen=True)
class Facts:
    """What a file says beside its pixels.

    Attributes
    ----------
    per_frame : dict of str to numpy.ndarray
        Coordinates along `frame`, float64, one value a frame; NaN where one frame does not say it.
    attrs : dict
        Attributes of the pixels.
    metadata : dict or None
        The JSON document of an MRCZ file.
    acquired : numpy.datetime64 or None
        Time of acquisition, by the clock of the microscope.
    session : dict
        Values that a session puts along `movie`.
    notes : tuple of str
        What could not be read, and why: a sentence each.
    """

    per_frame: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] | None = None
    acquired: np.datetime64 | None = None
    session: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def merged(first: Facts, then: Facts) -> Facts:
    """What two files say: the first one, and the other where the first is silent."""
    return Facts(
        {**then.per_frame, **first.per_frame},
        {**then.attrs, **first.attrs},
        first.metadata if first.metadata is not None else then.metadata,
        first.acquired if first.acquired is not None else then.acquired,
        {**then.session, **first.session},
        (*first.notes, *then.notes),
    )


def credible(name: str, value: Any) -> float | None:
    """`value` as a float, or None if it is no finite number in the range of `name`."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    low, high = CREDIBLE.get(name, (-math.inf, math.inf))
    return number if math.isfinite(number) and low <= number <= high else None


def credible_along(name: str, values: ArrayLike) -> NDArray[np.float64] | None:
    """One value a frame, NaN for those that cannot be; None if no frame has one."""
    array = np.asarray(values, np.float64)
    low, high = CREDIBLE.get(name, (-math.inf, math.inf))
    with np.errstate(invalid="ignore"):
        good = np.isfinite(array) & (array >= low) & (array <= high)
    return np.where(good, array, np.nan) if good.any() else None


def accumulated_dose(
    per_image: ArrayLike, prior: ArrayLike | None = None, order: Sequence[int] | None = None
) -> NDArray[np.float64] | None:
    """Dose the specimen had received at the end of each image, in e/angstrom^2.

    Parameters
    ----------
    per_image : array_like of float, (n,)
        Dose of each image alone.
    prior : array_like of float, (n,), optional
        Dose received before each image, where the writer kept it: then nothing is summed here.
    order : sequence of int, optional
        The images in order of time. Default: the order of the file.

    Returns
    -------
    numpy.ndarray or None
        None where a dose is missing, negative or absurd, or none is above zero: microscopes without a calibrated
        dose write 0.
    """
    dose = credible_along(schema.DOSE, per_image)
    if dose is None or np.isnan(dose).any() or not dose.any():
        return None
    if prior is not None:
        before = credible_along(schema.DOSE, prior)
        if before is not None and not np.isnan(before).any():
            return before + dose
    places = np.arange(len(dose)) if order is None else np.asarray(order)
    total = np.empty_like(dose)
    total[places] = np.cumsum(dose[places])
    return total


def pixel_size_attrs(x_m: Any, y_m: Any) -> dict[str, Any]:
    """Pixel size in angstrom from metres: one number where the pixel is square, else [x, y]; empty if not credible."""
    x = None if x_m is None else credible(schema.PIXEL_SIZE, float(f"{float(x_m) * ANGSTROM_PER_M:.9g}"))
    y = x if y_m is None else credible(schema.PIXEL_SIZE, float(f"{float(y_m) * ANGSTROM_PER_M:.9g}"))
    if x is None or y is None:
        return {}
    return {schema.PIXEL_SIZE: x if abs(x - y) <= SQUARE * x else [x, y]}


def parse_time(value: Any) -> np.datetime64 | None:
    """Time of acquisition from ISO 8601, SerialEM's `08-Oct-21  07:47:29` or seconds since 1970.

    The clock as written is kept, without its time zone, which `utc_offset` tells: mdoc files do not know theirs.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _from_epoch(float(value))
    if not isinstance(value, str):
        return None
    match = _SERIALEM_DATE.search(value)
    try:
        moment = _serialem_moment(match) if match else datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    return datetime64(moment)


def utc_offset(value: Any) -> int | None:
    """Minutes by which the clock of an ISO 8601 time is ahead of UTC; None where it does not say its zone."""
    try:
        zone = datetime.fromisoformat(value.strip()).utcoffset() if isinstance(value, str) else None
    except ValueError:
        return None
    return None if zone is None else round(zone.total_seconds() / 60)


def datetime64(moment: datetime) -> np.datetime64 | None:
    """The moment by its own clock, to the microsecond; None outside of the years that can be."""
    return np.datetime64(moment.replace(tzinfo=None), "us") if moment.year in YEARS else None


def _from_epoch(seconds: float) -> np.datetime64 | None:
    day_s = 86_400
    if not (day_s <= seconds < 7e9):  # 1970 to 2191: smaller numbers are durations, not dates
        return None
    return np.datetime64(0, "us") + np.timedelta64(round(seconds * 1e6), "us")


def _serialem_moment(match: re.Match[str]) -> datetime:
    """Day-month-year in old files, year-month-day since SerialEM 4."""
    first, month, last, *clock = match.groups()
    day, year = (last, first) if len(first) == 4 else (first, last)
    century = 0 if len(year) == 4 else 1900 if int(year) >= _OLD_CENTURY else 2000
    hour, minute, second = (int(part) for part in clock)
    return datetime(century + int(year), _MONTHS.index(month.lower()) + 1, int(day), hour, minute, second)
