"""Clipping of a bin from a start that a few wild pixels do not move, for bins in which the published start goes wrong.

One hot pixel raises the mean of its ring, and with it what the limits let through: a ring of 3 counts may lose all its
pixels but the brightest, or all. Here the pixels nearest to the median begin, and every cycle judges all pixels again.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit
from mrczdask.kernels.moments import HYBRID, chauvenet, moments, poisson_moments

NEAREST: Final = (0.8, 0.9)
"""Share of the pixels, nearest to the median, that begin: the second where the first are all alike."""
_LEAST_CUTOFF: Final = 2.5
"""Deviations: by less, as Chauvenet has it for a few pixels, the spread of what is kept shrinks to nothing."""
_MOST_CYCLES: Final = 20
_SAMPLE: Final = 32
"""Pixels that are looked at in every bin: all but a quarter lie below a mean that wild ones have raised."""
_SPREAD_OUT: Final = 4.0
"""Variance over the mean that no ring of counts has without wild pixels."""
_WILD: Final = 80.0
"""Deviations above the mean from which a pixel may not set what is background around it."""
FEW: Final = 16
"""Pixels below which Chauvenet's limits, 1.9 deviations and less, may leave none of a bin without a wild one."""

Found = tuple[float, float, int]
"""Of a bin: mean, deviation of one pixel, pixels left."""


@njit(nogil=True, cache=True)
def better(found: Found, other: Found, raised: bool, value: NDArray[np.float32], n: int) -> Found:
    """What the published clipping found in a bin of n valid pixels, unless it is not of the background.

    It is not where no pixel is left (a few alone stay uncounted: the criterion did not keep them), where it lies a
    deviation from what most pixels are, or where it lost some of these to a wild pixel that `raised` the mean.
    """
    mean, std, kept = found
    if kept == 0 or not np.isfinite(mean) or not np.isfinite(std):
        return other[0], other[1], other[2] if n >= FEW else 0
    if 2 * other[2] < n:
        return found
    if abs(mean - other[0]) > other[1] and abs(other[2] - kept) > 1:
        return other
    if raised and other[2] > kept and value[:n].max() > other[0] + _WILD * other[1]:
        return other
    return found


@njit(nogil=True, cache=True)
def lower_median(values: NDArray[np.float32]) -> np.float32:
    """The middle one of some values, of two the lower: it is always one of them."""
    middle = (values.size - 1) // 2
    return np.partition(values, middle)[middle]


@njit(nogil=True, cache=True)
def is_raised(value: NDArray[np.float32], n: int, mean: float, std: float) -> bool:
    """Whether the mean of the first n pixels may be one that no pixel has: few lie far above, all others below."""
    if not std * std > _SPREAD_OUT * abs(mean):
        return False
    step = max(n // _SAMPLE, 1)
    seen, below = 0, 0
    for k in range(0, n, step):
        seen += 1
        below += value[k] < mean
    return 4 * below > 3 * seen


@njit(nogil=True, cache=True)
def restarted(
    value: NDArray[np.float32],
    weight: NDArray[np.float32],
    variance: NDArray[np.float32],
    n: int,
    model: int,
    cutoff: float,
) -> tuple[float, float, int]:
    """Mean, deviation and number of the pixels of one bin that are kept: at least one of any."""
    if n == 0:
        return np.nan, np.nan, 0
    middle = lower_median(value[:n])
    distance = np.empty(n, np.float32)
    for k in range(n):
        distance[k] = abs(value[k] - middle)
    reach = np.float32(0.0)
    for share in NEAREST:
        if reach == 0:
            rank = int(share * (n - 1))
            reach = np.partition(distance, rank)[rank]
    near, norms, variances = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    arrays = value, weight, variance
    kept = _within(arrays, n, middle, reach, near, norms, variances)
    mean, std = moments(near, norms, variances, kept, model)
    for _ in range(_MOST_CYCLES):
        limit = np.float32(max(chauvenet(kept, cutoff), _LEAST_CUTOFF) * std)
        left = _within(arrays, n, np.float32(mean), limit, near, norms, variances)
        if left == 0:
            kept = _within(arrays, n, middle, reach, near, norms, variances)
            mean, std = moments(near, norms, variances, kept, model)
            break
        before, kept = mean, left
        mean, std = moments(near, norms, variances, kept, model)
        if mean == before:
            break
    if model == HYBRID:
        _, std = poisson_moments(near, norms, variances, kept)
    return mean, std, kept


@njit(nogil=True, cache=True)
def _within(
    arrays: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]],
    n: int,
    centre: np.float32,
    limit: np.float32,
    value: NDArray[np.float32],
    weight: NDArray[np.float32],
    variance: NDArray[np.float32],
) -> int:
    """Copy the pixels at most `limit` from the centre; how many there are."""
    values, weights, variances = arrays
    kept = 0
    for k in range(n):
        if abs(values[k] - centre) <= limit:
            value[kept], weight[kept], variance[kept] = values[k], weights[k], variances[k]
            kept += 1
    return kept
