"""Outlier pixels of the sum of a movie, at a false discovery rate: counts that their neighbours do not explain."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from mrczdask.kernels.count_noise import high_tail, least_level, low_tail, tile_dispersion, unit_of_counts
from mrczdask.kernels.dead_areas import Areas, empty_areas
from mrczdask.kernels.local_level import (
    HIGH,
    LEAST_PIXELS,
    LOW,
    NEAR,
    RADIUS,
    TILE,
    WIDE_RADIUS,
    extremes,
    parabolas,
    screen,
    surroundings,
    tile_caps,
)

GOOD: Final = 0
HOT: Final = 1
DEAD: Final = 2
BINS: Final = 512
"""Bins of a histogram that is reported."""

_SUSPECT: Final = 4.0
"""Standard deviations from which a pixel has no say in the level of its neighbours."""
_GATES: Final = (3.0, 1.5)
"""Standard deviations from which tail probabilities are worked out; the second where the first cuts off discoveries."""
_WIDEST: Final = 16.0
"""Deviations that the reported histogram spans."""
_DIM: Final = 1.0
"""Events per pixel below which levels are of wide boxes."""
_UNEVEN: Final = 2.5
"""Standard errors by which the dispersion in a box is that of an edge or a slope, not of counts of one level."""

Image = NDArray[Any]


@dataclass(frozen=True)
class Outliers:
    """What was found in one image.

    `kind` (y, x) uint8: GOOD, HOT, DEAD; `weight` (y, x) float32, or None: 0 in the outliers, 1 elsewhere.
    Thresholds in standard deviations, NaN for none. `edges`, `counts`, `residual` (BINS): right edges of the bins in
    standard deviations, pixels in them, and model less observed cumulative histogram, in standard deviations.
    `dispersion`: variance over mean of the noise. `judged`: share of the pixels where a dead one would be told.
    `unlit`: pixels in empty areas that were left alone.
    """

    kind: NDArray[np.uint8]
    weight: NDArray[np.float32] | None
    threshold_hot: float
    threshold_dark: float
    mu: float
    sigma: float
    edges: NDArray[Any]
    counts: NDArray[Any]
    residual: NDArray[Any]
    dispersion: float = 1.0
    judged: float = 1.0
    unlit: int = 0


@dataclass(frozen=True)
class Levels:
    """An image in events, what is known of its pixels, and the spread of its noise."""

    counts: NDArray[np.float32]
    out: NDArray[np.bool_]
    suspect: NDArray[np.uint8]
    radius: int
    unit: float
    areas: Areas | None
    dispersion: float = 1.0
    tiles: NDArray[np.float64] = field(default_factory=lambda: np.zeros((3, 0, 0)))

    def again(self, caps: NDArray[np.float32]) -> Levels:
        """The same without the pixels that stand out of their neighbours."""
        suspect, tiles, _ = self._screened(_SUSPECT, caps, 0)
        return replace(self, suspect=suspect, tiles=tiles)

    def screened(self, spread: float) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Flags where a pixel is further from its level than by so many standard deviations; the histogram of all."""
        flags, _, histogram = self._screened(spread, _no_caps(self.counts), BINS + 2)
        return flags, histogram

    def _screened(self, spread: float, caps: NDArray[np.float32], bins: int) -> tuple[NDArray[Any], ...]:
        histogram = np.zeros(bins, np.int64)
        parts = self.counts, self.out, self.suspect, caps, self.radius, spread, self.dispersion
        flags, tiles = screen(*parts, histogram, _WIDEST)
        if self.areas is not None:
            flags[self.areas.unlit] = np.where(flags[self.areas.unlit] == LOW, 0, flags[self.areas.unlit])
        return flags, tiles, histogram

    def tails(self, flags: NDArray[np.uint8], side: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Places of the pixels flagged on one side, and the probability of their counts or more extreme ones.

        Where the box is uneven, of the level of a parabola; where that does not describe it either, the pixel must
        stand out of the highest (lowest) quarter of its neighbours as well.
        """
        low, places = side == LOW, np.flatnonzero(flags == side)
        parts = self.counts, self.out, self.suspect
        total, number, used, square = surroundings(*parts, places, self.radius, low).T
        tail = high_tail if side == HIGH else low_tail
        k = np.rint(self.counts.ravel()[places])
        p = tail(k, total, np.maximum(number, 1), self.dispersion)
        p[number < LEAST_PIXELS] = 1
        level = np.maximum(total / np.maximum(number, 1), 1e-9)
        limit = self.dispersion * level * (1 + _UNEVEN * np.sqrt((2 + 1 / level) / np.maximum(used, 1)))
        uneven = np.flatnonzero(square > limit * np.maximum(used - 1, 1))
        bent, middle, share = parabolas(*parts, places[uneven], self.radius, low).T
        p[uneven] = tail(k[uneven], middle / share, 1 / share, self.dispersion)
        broken = uneven[bent > limit[uneven] * np.maximum(used[uneven] - 6, 1)]
        for radius in (NEAR, self.radius):
            edge, pixels = extremes(*parts, places[broken], radius, low).T
            p[broken] = np.maximum(p[broken], tail(k[broken], edge, np.maximum(pixels, 1), self.dispersion))
        return places, p


def local_levels(image: Image, bad: NDArray[np.bool_] | None = None) -> Levels:
    """The image in events, its dead areas, its suspected pixels and its dispersion, each without the others."""
    known = np.zeros(image.shape, bool) if bad is None else np.asarray(bad, bool)
    unit = unit_of_counts(image, known)
    counts = np.asarray(image if unit == 1 else image / unit, np.float32)
    areas = empty_areas(counts, known)
    out = known if areas is None else known | areas.dead
    mean = float(counts.mean(where=~out, dtype=np.float64)) if not out.all() else 0.0
    levels = Levels(counts, out, np.zeros(image.shape, np.uint8), RADIUS if mean >= _DIM else WIDE_RADIUS, unit, areas)
    levels = levels.again(tile_caps(counts, out))
    for _ in range(2):
        levels = replace(levels, dispersion=tile_dispersion(levels.tiles, image.size)).again(_no_caps(counts))
        if levels.dispersion == 1:
            break
    return levels


def _no_caps(counts: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.full(tuple(-(-n // TILE) for n in counts.shape), np.inf, np.float32)


def strong(levels: Levels, deviations: float) -> NDArray[np.uint8]:
    """HOT and DEAD where a count is as improbable as so many standard deviations of a normal one."""
    kind = np.zeros(levels.counts.shape, np.uint8)
    flags, limit = levels.screened(_GATES[0])[0], float(ndtr(-deviations))
    for side, name in ((HIGH, HOT), (LOW, DEAD)):
        places, p = levels.tails(flags, side)
        kind.ravel()[places[p < limit]] = name
    return kind


def discovery_limit(p: NDArray[np.floating], n: int, q: float) -> float:
    """Largest of the probabilities with n p / (number of them that are not larger) <= q, 0 where there is none.

    Benjamini and Hochberg, J. R. Statist. Soc. B 57 (1995) 289-300. `p`: the smallest ones of n.
    """
    ordered = np.sort(p)
    passed = np.flatnonzero(n * ordered <= q * np.arange(1, len(ordered) + 1))
    return float(ordered[passed[-1]]) if len(passed) else 0.0


def find_by_fdr(electrons: Image, q: float, bad: NDArray[np.bool_] | None = None) -> Outliers:
    """Outliers at a false discovery rate q in each tail; pixels in `bad` are not counted."""
    levels = local_levels(electrons, bad)
    n = int(levels.out.size - np.count_nonzero(levels.out))
    flags, histogram = levels.screened(_GATES[0])
    found = [_discoveries(levels, flags, side, n, q) for side in (HIGH, LOW)]
    if max(limit for limit, _ in found) > ndtr(-_GATES[0]) / 2:  # the gate may have cut off some
        flags, _ = levels.screened(_GATES[1])
        found = [_discoveries(levels, flags, side, n, q) for side in (HIGH, LOW)]
    kind, unlit = np.zeros(electrons.shape, np.uint8), 0
    for name, (_, places) in zip((HOT, DEAD), found, strict=True):
        kind.ravel()[places] = name
    if levels.areas is not None:
        kind[levels.areas.dead] = DEAD
        unlit = int(np.count_nonzero(levels.areas.unlit))
    hot, dark = (-float(ndtri(limit)) if limit else np.nan for limit, _ in found)
    edges = np.linspace(-_WIDEST, _WIDEST, BINS + 1)[1:]
    residual = residual_of(np.cumsum(histogram)[1:-1] / max(n, 1), edges, n)
    judged = _judged(levels, q * max(found[1][1].size, 1) / max(n, 1))
    dispersion, shown = levels.unit * levels.dispersion, histogram[1:-1].astype(float)
    return Outliers(kind, None, hot, -dark, 0.0, 1.0, edges, shown, residual, dispersion, judged, unlit)


def _discoveries(
    levels: Levels, flags: NDArray[np.uint8], side: int, n: int, q: float
) -> tuple[float, NDArray[np.int64]]:
    """Probability down to which pixels of one side are outliers, and their places."""
    places, p = levels.tails(flags, side)
    limit = discovery_limit(p, n, q)
    return limit, places[p <= limit]


def _judged(levels: Levels, limit: float) -> float:
    """Share of the pixels in tiles where an empty one is less probable than the limit."""
    level, number = levels.tiles[1].ravel(), levels.tiles[2].ravel()
    enough = level >= least_level(limit, levels.dispersion) * np.maximum(number, 1)
    return float(number[enough].sum() / max(number.sum(), 1))


def residual_of(cdf: NDArray[Any], x: NDArray[Any], n: int) -> NDArray[Any]:
    """r = x - z where the cumulative histogram is neither empty nor full, else NaN ([M], eqs. 2 to 4)."""
    ends = (cdf <= 0.5 / max(n, 1)) | (cdf >= 1 - 0.5 / max(n, 1))
    return np.asarray(x - ndtri(np.where(ends, np.nan, cdf)))
