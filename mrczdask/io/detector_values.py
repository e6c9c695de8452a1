"""Which numbers of HDF5 frames are counts, and how many make a photon: what the file says of it."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from mrczdask.errors import MrcFormatError
from mrczdask.formats.miniheader import PILATUS_MARKS, is_dectris
from mrczdask.io.validity import DELTA, DUMMY, SATURATION, UNDERLOAD

PLACES: Final = ("", "detectorSpecific", "detector_information")
"""Where the facts of a detector are in its group: NeXus, DECTRIS's own, LIMA2's."""
SCALE: Final = "data_scaling_factor"
OFFSET: Final = "data_offset"
_GAINS: Final = ("adus_per_photon", "adu_per_photon")
_DEPTHS: Final = ("bit_depth_image", "bit_depth_readout")
_NAMES: Final = ("description", "local_name", "model", "type")
_NARROW: Final = 8
"""Bits of integers that are marks of a detector only where the file tells of one: bytes are also pictures."""


def followed(group: Any, name: str) -> Any | None:
    """What a name in a group leads to, if anything.

    In an object store the library would look for what an external link leads to in the same file.
    """
    link = group.get(name, getlink=True)
    if hasattr(link, "filename") and group.file.driver == "fileobj":
        return None
    try:
        return group.get(name)
    except (KeyError, RuntimeError, OSError):  # links in a ring, or a file that is missing
        return None


def fact(detector: Any, name: str) -> Any:
    """A dataset of a detector, wherever it is in its group; None where there is none."""
    for place in PLACES:
        group = followed(detector, place) if place else detector
        found = followed(group, name) if hasattr(group, "keys") else None
        if found is not None and hasattr(found, "shape"):
            return found
    return None


def value_attrs(detector: Any | None, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Attributes that say which numbers are counts; `detector` is a group or None.

    Bounds are those of the file, the marks of unsigned frames the two highest numbers of their depth, those of signed
    ones what lies below the bounds, or -1 and -2 of a detector of DECTRIS.
    """
    attrs: dict[str, Any] = {}
    low, high = (None, None) if detector is None else (_one(detector, name) for name in (UNDERLOAD, SATURATION))
    if low is not None and (dtype.kind != "u" or low > 0):
        attrs[UNDERLOAD] = low
    if high is not None and high > 0 and (low is None or high > low):
        attrs[SATURATION] = high
    gain = None if detector is None else next((g for name in _GAINS if (g := _one(detector, name))), None)
    if gain is not None and gain > 0:
        attrs["counts_per_photon"] = float(gain)
    return attrs | _marks(detector, dtype, attrs)


def _marks(detector: Any | None, dtype: np.dtype[Any], bounds: dict[str, Any]) -> dict[str, Any]:
    said = None if detector is None else _one(detector, DUMMY)
    if said is not None:  # as pyFAI writes detectors
        return {DUMMY: said, DELTA: _one(detector, DELTA) or 0.0}
    if dtype.kind == "u":
        depths = [] if detector is None else [_one(detector, name) for name in _DEPTHS]
        own = 8 * dtype.itemsize
        bits = next((int(depth) for depth in depths if depth and depth > 0), own)
        if detector is None and own == _NARROW:
            return {}
        return {DUMMY: 2 ** min(bits, own) - 1, DELTA: 1.0}
    if dtype.kind != "i" or detector is None:
        return {}
    if UNDERLOAD in bounds:
        below = math.ceil(bounds[UNDERLOAD]) - 1
        return {DUMMY: below} if np.iinfo(dtype).min <= below <= np.iinfo(dtype).max else {}
    texts = [str(np.asarray(found[()]).astype(str)) for name in _NAMES if _is_text(found := fact(detector, name))]
    return dict(PILATUS_MARKS) if is_dectris(detector.name, *texts) else {}


def scaling_attrs(group: Any, signal: str, detector: Any | None, url: str) -> dict[str, Any]:
    """What makes counts of the numbers stored, (number + offset) * factor, where the file says it.

    Raises
    ------
    MrcFormatError
        There is a factor for each pixel or frame, or one that is no number.
    """
    attrs: dict[str, Any] = {}
    for key, plain, nothing in ((SCALE, "scaling_factor", 1.0), (OFFSET, "offset", 0.0)):
        names = (f"{signal}_{plain}", key, plain)
        found = [group.get(name) for name in names] + ([] if detector is None else [detector.get(key)])
        said = next((one for one in found if getattr(one, "dtype", None) is not None), None)
        if said is None:
            continue
        value = np.asarray(said[()])
        if value.size != 1 or value.dtype.kind not in "iuf" or not np.isfinite(value).all():
            raise MrcFormatError(f"{said.name} is {value.dtype} {value.shape}: one finite number is read", url=url)
        if float(value.flat[0]) != nothing:
            attrs[key] = float(value.flat[0])
    if attrs.get(SCALE) == 0:
        raise MrcFormatError(f"{SCALE} is 0: every frame would be empty", url=url)
    return attrs


def _is_text(found: Any) -> bool:
    return found is not None and found.shape in ((), (1,)) and found.dtype.kind in "SUO"


def _one(detector: Any, name: str) -> int | float | None:
    """A finite number of a detector: None where there is none, or one for each of several."""
    found = fact(detector, name)
    if found is None or found.size != 1 or found.dtype.kind not in "iuf":
        return None
    value = np.asarray(found[()]).reshape(-1)[0].item()
    return value if math.isfinite(value) else None
