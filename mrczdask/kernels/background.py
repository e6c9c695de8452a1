"""The pattern that neighbouring movies share, and how much of it to subtract."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit
from mrczdask.kernels.usable import LARGEST, unusable


class Moments(NamedTuple):
    """Mean and variance of the good pixels of an image."""

    mean: float
    variance: float


def moments(image: NDArray[Any], bad: NDArray[np.bool_] | None = None) -> Moments:
    """Mean and variance over the pixels of an image (y, x) that are not bad and are numbers; zeros for none."""
    found = _moments(image if bad is None else image[~bad])
    if image.dtype.kind == "f" and not _is_sane(found, image.size):
        odd = unusable(image)
        if odd is not None:
            found = _moments(image[~(odd if bad is None else odd | bad)])
    return found


def _moments(values: NDArray[Any]) -> Moments:
    if not values.size:
        return Moments(0.0, 0.0)
    with np.errstate(invalid="ignore", over="ignore"):  # told by the result
        mean = float(values.mean(dtype=np.float64))
        return Moments(mean, float(np.square(values - np.asarray(mean, np.float64)).mean(dtype=np.float64)))


def _is_sane(found: Moments, size: int) -> bool:
    """Whether no pixel can be NaN, infinite or beyond LARGEST: then it stood out of such a mean and variance."""
    half = LARGEST / 2
    return abs(found.mean) <= half and found.variance * size <= half * half


def wiener_share(reference: float, single: float, size: int) -> float:
    """beta: the share of the variance of a reference that is a pattern, not noise.

    Parameters
    ----------
    reference : float
        Variance over pixels of the mean of `size` images.
    single : float
        Mean variance over pixels of those images.
    size : int

    Notes
    -----
    beta = max(var(K) - between / n, 0) / var(K). `between`, the variance between the images (ddof 1, each less its own
    mean) averaged over pixels, is n / (n - 1) (single - var(K)).
    """
    if size < 2 or reference <= 0:
        return 0.0
    between = size / (size - 1) * max(single - reference, 0.0)
    return max(reference - between / size, 0.0) / reference


def pattern(reference: NDArray[Any], level: float, share: float) -> NDArray[np.float32] | None:
    """What is to be subtracted from a frame: share (reference - level), 0 where it is NaN; None for nothing."""
    if not share:
        return None
    found = ((reference - level) * share).astype(np.float32, copy=False)
    odd = np.isnan(found)
    return np.where(odd, np.float32(0), found) if odd.any() else found


def subtract(frames: NDArray[Any], background: NDArray[np.float32] | None, out: NDArray[Any]) -> None:
    """Fill `out` (n, y, x) with frames - background."""
    if background is None:
        out[...] = frames
    elif frames.size:
        _subtract(frames, background, out)


@njit(nogil=True, cache=True)
def _subtract(frames: Any, background: Any, out: Any) -> None:
    for f in range(frames.shape[0]):
        for y in range(frames.shape[1]):
            for x in range(frames.shape[2]):
                out[f, y, x] = np.float32(frames[f, y, x]) - background[y, x]
