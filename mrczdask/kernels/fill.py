"""Replace outlier pixels by what their good neighbours in the same frame expect there."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mrczdask.kernels.philox import block, open_unit

REACH: Final = 2
"""Half the side of the 5 x 5 neighbourhood."""
PSF: Final = np.array(
    [
        [0.007, 0.020, 0.030, 0.020, 0.007],
        [0.020, 0.084, 0.173, 0.084, 0.020],
        [0.030, 0.173, 0.000, 0.173, 0.030],
        [0.020, 0.084, 0.173, 0.084, 0.020],
        [0.007, 0.020, 0.030, 0.020, 0.007],
    ]
)
"""Point spread of a K2 over the neighbours of a pixel ([M], table 1); its sum is 1.336, so weights are normalised."""
_HALF: Final = np.uint64(32)


class Plan(NamedTuple):
    """Pixels to fill, and for each the neighbours and the shares of them that make its fill; shares add up to 1."""

    pixel: NDArray[np.int64]
    keep: NDArray[np.float32]
    start: NDArray[np.int64]
    neighbour: NDArray[np.int64]
    share: NDArray[np.float64]


def make_plan(bad: NDArray[np.bool_], weight: NDArray[np.float32] | None = None) -> Plan:
    """How to fill an image.

    Parameters
    ----------
    bad : (y, x) bool
        Outliers. One without another in its 5 x 5 neighbourhood is filled by the point spread over its neighbours, one
        of a cluster by the mean of the good pixels of the neighbourhood, which grows until there is one.
    weight : (y, x) float32, optional
        Share of its own value that a pixel keeps. Good pixels with a weight below 1 take the rest from the point
        spread. Default: 0 in outliers, 1 elsewhere.
    """
    bad = np.ascontiguousarray(bad)
    touched = bad if weight is None else bad | (weight < 1)
    pixel = np.flatnonzero(touched)
    own = np.zeros(len(pixel), np.float32) if weight is None else weight.ravel()[pixel].astype(np.float32)
    if bad.all():
        return Plan(pixel[:0], own[:0], np.zeros(1, np.int64), pixel[:0], np.empty(0))
    start, neighbour, share = _neighbours(bad, pixel, PSF)
    own[np.diff(start) == 0] = 1
    return Plan(pixel, own, start, neighbour, share)


@njit(nogil=True, cache=True)
def _neighbours(
    bad: NDArray[np.bool_], pixels: NDArray[np.int64], psf: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    ny, nx = bad.shape
    start = np.zeros(pixels.size + 1, np.int64)
    neighbour = np.empty(25 * pixels.size + 64, np.int64)
    share = np.empty(neighbour.size)
    n = 0
    for k in range(pixels.size):
        y, x = pixels[k] // nx, pixels[k] % nx
        spread = not _in_cluster(bad, y, x)
        first, reach, total = n, REACH, 0.0
        while n == first and reach < ny + nx:  # a lone good pixel has no neighbour
            for v in range(max(y - reach, 0), min(y + reach + 1, ny)):
                for u in range(max(x - reach, 0), min(x + reach + 1, nx)):
                    if bad[v, u] or (v == y and u == x):
                        continue
                    part = psf[v - y + REACH, u - x + REACH] if spread else 1.0
                    if n == neighbour.size:
                        neighbour, share = np.append(neighbour, neighbour), np.append(share, share)
                    neighbour[n], share[n] = v * nx + u, part
                    total += part
                    n += 1
            spread = False
            reach += 1
        for i in range(first, n):
            share[i] /= total
        start[k + 1] = n
    return start, neighbour[:n].copy(), share[:n].copy()


@njit(nogil=True, cache=True)
def _in_cluster(bad: NDArray[np.bool_], y: Any, x: Any) -> bool:
    """Whether an outlier has another one around; a good pixel is in no cluster."""
    if not bad[y, x]:
        return False
    for v in range(max(y - REACH, 0), min(y + REACH + 1, bad.shape[0])):
        for u in range(max(x - REACH, 0), min(x + REACH + 1, bad.shape[1])):
            if bad[v, u] and (v != y or u != x):
                return True
    return False


def fill(frames: NDArray[Any], plan: Plan, out: NDArray[Any]) -> None:
    """Fill frames (n, y, x) into `out`, a float array of their shape: keep own + (1 - keep) fill."""
    if not frames.size:
        return
    flat, target = frames.reshape(len(frames), -1), out.reshape(len(frames), -1)
    target[...] = flat
    _fill(flat, *plan, target)


@njit(nogil=True, cache=True)
def _fill(
    frames: Any,
    pixel: NDArray[np.int64],
    keep: NDArray[np.float32],
    start: NDArray[np.int64],
    neighbour: NDArray[np.int64],
    share: NDArray[np.float64],
    out: Any,
) -> None:
    for f in range(frames.shape[0]):
        frame, target = frames[f], out[f]
        for k in range(pixel.size):
            expected = 0.0
            for i in range(start[k], start[k + 1]):
                expected += share[i] * np.float64(frame[neighbour[i]])
            own = np.float64(keep[k])
            kept = own * np.float64(frame[pixel[k]]) if own > 0 else 0.0  # a defect may hold a NaN
            target[pixel[k]] = kept + (1.0 - own) * expected


def fill_whole(frames: NDArray[Any], plan: Plan, key: int, numbers: NDArray[np.int64]) -> NDArray[Any]:
    """Fill frames (n, y, x) by the value of one good neighbour each, drawn by its share: integers stay integers.

    The draw is a function of (key, number of the frame, pixel), so no order of work changes it.
    """
    out = frames.copy()
    if not out.size:
        return out
    flat = frames.reshape(len(frames), -1)
    _fill_whole(flat, *plan, np.uint64(key), np.asarray(numbers, np.int64), out.reshape(len(frames), -1))
    return out


@njit(nogil=True, cache=True)
def _fill_whole(
    frames: Any,
    pixel: NDArray[np.int64],
    keep: NDArray[np.float32],
    start: NDArray[np.int64],
    neighbour: NDArray[np.int64],
    share: NDArray[np.float64],
    key: np.uint64,
    numbers: NDArray[np.int64],
    out: Any,
) -> None:
    k0, k1 = np.uint32(key), np.uint32(key >> _HALF)
    for f in range(frames.shape[0]):
        frame, target = frames[f], out[f]
        number = np.uint64(numbers[f])
        for k in range(pixel.size):
            place = np.uint64(pixel[k])
            words = block(
                np.uint32(place), np.uint32(place >> _HALF), np.uint32(number), np.uint32(number >> _HALF), k0, k1
            )
            if open_unit(words[0], words[1]) < keep[k]:
                continue
            left = open_unit(words[2], words[3])
            chosen = start[k + 1] - 1
            for i in range(start[k], start[k + 1]):
                left -= share[i]
                if left <= 0.0:
                    chosen = i
                    break
            target[pixel[k]] = frame[neighbour[chosen]]
