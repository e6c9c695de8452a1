"""Replace outlier pixels by what their good neighbours in the same frame expect there."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit
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
_SPREAD: Final = PSF[[2, 1, 2, 0, 0], [1, 1, 0, 1, 0]]
_SPREAD32: Final = _SPREAD.astype(np.float32)
"""Its five values: beside, diagonal, two away, a knight's move, corner."""
_Blend = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]
_HARD: Final[_Blend] = (np.empty((0, 0), np.float32), np.empty((0, 0), np.float32), np.empty((0, 0), np.bool_))
_NO_PIXELS: Final = (
    np.empty(0, np.int64),
    np.empty(0, np.float32),
    np.zeros(1, np.int64),
    np.empty(0, np.int64),
    np.empty(0),
)
_HALF: Final = np.uint64(32)


class Plan(NamedTuple):
    """Pixels to fill, and for each the neighbours and the shares of them that make its fill; shares add up to 1.

    With weights, all other pixels are filled first: `weight` times the pixel and `scale` times the point spread over
    those that are not `bad`. These three (y, x) are empty without.
    """

    pixel: NDArray[np.int64]
    keep: NDArray[np.float32]
    start: NDArray[np.int64]
    neighbour: NDArray[np.int64]
    share: NDArray[np.float64]
    weight: NDArray[np.float32]
    scale: NDArray[np.float32]
    bad: NDArray[np.bool_]


def make_plan(bad: NDArray[np.bool_], weight: NDArray[np.float32] | None = None, *, listed: bool = False) -> Plan:
    """How to fill an image.

    Parameters
    ----------
    bad : (y, x) bool
        Outliers. One without another in its 5 x 5 neighbourhood is filled by the point spread over its neighbours, one
        of a cluster by the mean of the good pixels of the neighbourhood, which grows until there is one.
    weight : (y, x) float32, optional
        Share of its own value that a pixel keeps. Good pixels with a weight below 1 take the rest from the point
        spread. Default: 0 in outliers, 1 elsewhere.
    listed : bool
        List the neighbours of every pixel, as `fill_whole` needs; else not of the many that weights touch.
    """
    bad = np.ascontiguousarray(bad)
    if bad.all():
        return Plan(*_NO_PIXELS, *_HARD)
    if weight is None:
        return _listed(bad, np.flatnonzero(bad), np.zeros(bad.shape, np.float32), _HARD)
    if listed:
        return _listed(bad, np.flatnonzero(bad | (weight < 1)), weight, _HARD)
    weight, scale = _blended(bad, np.ascontiguousarray(weight, np.float32))
    pixel = _apart(bad, np.flatnonzero(bad | ((weight < 1) & (scale == 0))), scale.ravel())
    return _listed(bad, pixel, weight, (weight, scale, bad))


def _listed(bad: NDArray[np.bool_], pixel: NDArray[np.int64], weight: NDArray[np.float32], blend: _Blend) -> Plan:
    """The plan that lists the neighbours of some pixels."""
    own = weight.ravel()[pixel].astype(np.float32)
    start, neighbour, share = _neighbours(bad, pixel, PSF)
    own[np.diff(start) == 0] = 1
    return Plan(pixel, own, start, neighbour, share, *blend)


def _blended(bad: NDArray[np.bool_], weight: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights, and what the point spread over the good neighbours is multiplied by; 0 where there are none."""
    near = np.empty((1, *bad.shape), np.float32)
    _blend((~bad)[None], np.zeros_like(weight), np.ones_like(weight), np.zeros_like(bad), _SPREAD32, near)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(near[0] > 0, (1 - weight) / near[0], np.float32(0))
    return weight, np.ascontiguousarray(scale, np.float32)


@njit(nogil=True, cache=True)
def _apart(bad: NDArray[np.bool_], pixels: NDArray[np.int64], scale: NDArray[np.float32]) -> NDArray[np.int64]:
    """Of some pixels those of clusters, and those without a good pixel near."""
    out = np.empty_like(pixels)
    n = 0
    for pixel in pixels:
        if scale[pixel] == 0 or _in_cluster(bad, pixel // bad.shape[1], pixel % bad.shape[1]):
            out[n] = pixel
            n += 1
    return out[:n].copy()


@njit(nogil=True, cache=True)
def _blend(
    frames: Any,
    weight: NDArray[np.float32],
    scale: NDArray[np.float32],
    bad: NDArray[np.bool_],
    spread: Any,
    out: Any,
) -> None:
    """out = weight frame + scale (point spread over the good pixels); rows without branches, so that they vectorise."""
    ny, nx = bad.shape
    rows = np.empty((2 * REACH + 1, nx + 2 * REACH), out.dtype)  # good pixels of five rows, zeros around them
    for f in range(frames.shape[0]):
        rows[:] = 0
        for y in range(-REACH, ny):
            entering = rows[(y + REACH) % 5, REACH : nx + REACH]
            if y + REACH < ny:
                frame, out_of = frames[f, y + REACH], bad[y + REACH]
                for x in range(nx):
                    entering[x] = 0 if out_of[x] else frame[x]
            else:
                entering[:] = 0
            if y >= 0:
                _blend_row(
                    rows[(y - 2) % 5], rows[(y - 1) % 5], rows[y % 5], rows[(y + 1) % 5], rows[(y + 2) % 5],
                    frames[f, y], weight[y], scale[y], spread, out[f, y],
                )  # fmt: skip


@njit(nogil=True, cache=True)
def _blend_row(
    a: Any, b: Any, c: Any, d: Any, e: Any, frame: Any, weight: Any, scale: Any, spread: Any, out: Any
) -> None:
    side, diagonal, second, knight, corner = spread[0], spread[1], spread[2], spread[3], spread[4]
    for x in range(frame.size):
        out[x] = frame[x]
    for x in range(frame.size):
        near = side * ((b[x + 2] + d[x + 2]) + (c[x + 1] + c[x + 3]))
        near += diagonal * ((b[x + 1] + b[x + 3]) + (d[x + 1] + d[x + 3]))
        near += second * ((a[x + 2] + e[x + 2]) + (c[x] + c[x + 4]))
        near += knight * ((a[x + 1] + a[x + 3]) + (e[x + 1] + e[x + 3]) + (b[x] + b[x + 4]) + (d[x] + d[x + 4]))
        near += corner * ((a[x] + a[x + 4]) + (e[x] + e[x + 4]))
        kept = weight[x] * (out[x] if weight[x] > 0 else weight[x])  # a defect may hold a NaN
        out[x] = kept + scale[x] * near if scale[x] != 0 else kept


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
    if plan.weight.size:
        _blend(frames, plan.weight, plan.scale, plan.bad, _SPREAD.astype(out.dtype), out)
    else:
        target[...] = flat
    _fill(flat, *plan[:5], target)


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
    _fill_whole(flat, *plan[:5], np.uint64(key), np.asarray(numbers, np.int64), out.reshape(len(frames), -1))
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
