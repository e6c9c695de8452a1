"""Masks that HDF5 files hold for their frames: of one plane, of each frame, of each threshold or module."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.errors import MrcFormatError, MrczdaskWarning
from mrczdask.io.detector_values import fact, followed

_NAMES: Final = ("pixel_mask", "mask")
_KINDS: Final = "iub"
_GOOD_BITS: Final = 0x0800 | 0x2000 | 0x4000
"""Of the 16-bit masks of Cheetah's CXI files: artifact corrected, peak of the hit finder, background corrected."""
_CXI: Final = "cxi_version"


@dataclass(frozen=True)
class FileMask:
    """A mask in a file: pixels are bad where a bit of `bad_bits` is set; `lead` are the leading dims of the frames
    (0, 1, ...) that its own leading dims are, none where it is one plane."""

    dataset: Any
    bad_bits: int
    lead: tuple[int, ...]


def mask_of(detector: Any | None, group: Any, full: Sequence[int], shots: int, url: str) -> FileMask | None:
    """The mask of frames `full` (..., y, x), `shots` in all, of a detector, or of CXI beside them in their group.

    Raises
    ------
    MrcFormatError
        There is one that cannot be that of the frames.
    """
    found = None if detector is None else _of_detector(detector)
    is_cxi = hasattr(group, "keys") and (_CXI in group.file or group.name.rpartition("/")[2].startswith("data_"))
    if found is None and is_cxi:
        found = next((one for name in _NAMES if _is_image(one := followed(group, name))), None)
    return None if found is None else fitting_mask(found, full, shots, url, is_cxi=is_cxi)


def _of_detector(detector: Any) -> Any | None:
    """The dataset of a detector; one that a link does not find is told of."""
    for name in _NAMES:
        found = fact(detector, name)
        if _is_image(found):
            return found
        link: Any = None if found is not None else detector.get(name, getlink=True)
        if hasattr(link, "path"):
            where = f"{getattr(link, 'filename', '')} {link.path}".strip()
            warnings.warn(
                f"{detector.name}/{name} leads to {where}, which is not there: these pixels are not masked. "
                "Put it where it is expected, or give mask=",
                MrczdaskWarning,
                stacklevel=2,
            )
    return None


def fitting_mask(dataset: Any, full: Sequence[int], shots: int, url: str, *, is_cxi: bool = False) -> FileMask:
    """A dataset as the mask of frames `full` (..., y, x), `shots` in all."""
    plane, lead = tuple(full[-2:]), tuple(full[:-2])
    own = tuple(map(int, dataset.shape))
    bits = ~_GOOD_BITS if is_cxi and dataset.dtype == np.uint16 else -1
    problem = f"the mask {dataset.name} is {dataset.dtype} {own}: give mask= another dataset, or mask=False for none"
    if dataset.dtype.kind not in _KINDS or own[-2:] != plane:
        raise MrcFormatError(f"{problem}, of frames {plane}", url=url)
    first = own[:-2]
    if all(size == 1 for size in first):
        return FileMask(dataset, bits, ())
    if first == lead or (len(lead) == 1 and first == (shots,)):
        return FileMask(dataset, bits, tuple(range(len(lead))))
    if len(lead) > 1 and first == lead[1:]:
        return FileMask(dataset, bits, tuple(range(1, len(lead))))
    raise MrcFormatError(f"{problem}, of {' x '.join(map(str, lead or (shots,)))} frames", url=url)


def bad_pixels(values: NDArray[Any], bad_bits: int, good_bits: int = 0) -> NDArray[np.bool_]:
    """Where a mask says that a pixel is bad: a bad bit is set, or a good one is not."""
    bits = values.astype(np.int64)
    bad: NDArray[np.bool_] = (bits & bad_bits) != 0
    return bad | ((bits & good_bits) != good_bits) if good_bits else bad


def _is_image(found: Any) -> bool:
    return hasattr(found, "dtype") and getattr(found, "ndim", 0) >= 2
