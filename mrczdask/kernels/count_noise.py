"""The noise of counts: unit and dispersion of an image, and exact tail probabilities of a pixel beside others."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc

_PAIRS: Final = 1 << 18
"""Pairs of neighbours from which the dispersion is estimated."""
_LARGEST: Final = 20.0
"""Squared differences of pairs above this many times their mean are outliers: 1e-5 of normal ones."""
_ROUNDS: Final = 6
_START: Final = 0.8
"""Quantile of the squared differences at which the estimate starts: 1 to 2 for Poisson counts of any level."""
_EMPTY: Final = 0.2
"""Share of empty pixels above which single electrons tell the unit of an image that is not one of integers."""
_HOT: Final = 0.03
"""Share of the pairs of neighbours that may differ as no counts do: hot pixels."""
_POISSON: Final = (0.9, 1.1)


def pair_dispersion(image: NDArray[Any], out: NDArray[np.bool_]) -> tuple[float, NDArray[np.float64]]:
    """Variance over mean of the noise, whatever the level: E[(a - b)^2 / (a + b)] of neighbours, without outliers.

    For Poisson counts a and b of one level it is 1, given any a + b > 0. Also (a - b)^2 / (a + b) of each pair, or 0.
    """
    values, use = image.astype(np.float64), ~out
    a, b, both = values[:, :-1], values[:, 1:], use[:, :-1] & use[:, 1:]
    total = (a + b)[both]
    every = np.divide((a - b)[both] ** 2, total, out=np.zeros(total.shape), where=total > 0)
    square = every[total > 0]
    if not square.size:
        return 1.0, every
    found = float(np.quantile(square, _START))
    for _ in range(_ROUNDS):
        found = float(square[square <= _LARGEST * found].mean())
    return found, every


def unit_of_counts(image: NDArray[Any], out: NDArray[np.bool_]) -> float:
    """What one event adds to a pixel: 1 for counts, else what makes the variance of the image its mean."""
    step = max(image.size // _PAIRS, 1)
    sample, left = image[::step], out[::step]
    dispersion, squares = pair_dispersion(sample, left)
    if not dispersion > 0 or not squares.any():
        return 1.0
    if image.dtype.kind in "iub":
        unit = float(np.gcd.reduce(sample[~left], axis=None)) or 1.0
    else:
        filled = sample[(sample > 0) & ~left]
        if 1 - filled.size / max(int((~left).sum()), 1) < _EMPTY:
            return 1.0 if _POISSON[0] <= dispersion <= _POISSON[1] else dispersion
        low = np.quantile(filled, 0.05)
        unit = float(np.median(filled[filled < 1.5 * low]))
    few = np.count_nonzero(squares > _LARGEST * unit) <= _HOT * squares.size
    return unit if few and dispersion >= _POISSON[0] * unit else dispersion


def tile_dispersion(tiles: NDArray[np.float64], pixels: int) -> float:
    """Variance over mean in the middle one of the tiles; 1 where it does not differ from that of Poisson counts."""
    square, level, number = (part.ravel() for part in tiles)
    lit = level > 0
    if not lit.any():
        return 1.0
    mean = level[lit].sum() / number[lit].sum()
    order = np.argsort(square[lit] / level[lit])
    weight = np.cumsum(level[lit][order])
    found = float((square[lit] / level[lit])[order][np.searchsorted(weight, weight[-1] / 2)])
    error = np.sqrt((2 + 1 / mean) / pixels)
    least = np.sqrt((2 + 1 / mean) / number[lit].mean()) / 3  # the median of few tiles is not that sure
    return found if found > 1 + max(4 * error, min(least, 0.1)) else 1.0


def high_tail(counts: Any, total: Any, pixels: Any, dispersion: float) -> NDArray[np.float64]:
    """P(a pixel has this many counts or more), given the total of `pixels` others of the same level.

    Given the sum of all, the counts of the one are binomial: I_(1/(n + 1))(k, total + 1), exact for Poisson counts of
    any level. Over-dispersed ones are negative binomial.
    """
    shape, mean = _negative_binomial(np.asarray(total) + 1.0, pixels, dispersion)
    k = np.asarray(counts, float)
    return np.where(k > 0, betainc(np.maximum(k, 1e-9), shape, mean / (mean + shape)), 1.0)


def low_tail(counts: Any, total: Any, pixels: Any, dispersion: float) -> NDArray[np.float64]:
    """P(a pixel has this many counts or fewer), given the total of `pixels` others of the same level."""
    shape, mean = _negative_binomial(np.maximum(np.asarray(total, float), 1e-9), pixels, dispersion)
    return betainc(shape, np.maximum(np.asarray(counts, float), 0) + 1, shape / (mean + shape))


def _negative_binomial(total: Any, pixels: Any, dispersion: float) -> tuple[Any, Any]:
    """Shape and mean of the counts of a pixel: the uncertain level and the dispersion both widen them."""
    mean = total / pixels
    return 1 / (1 / total + (dispersion - 1) / mean), mean


def least_level(probability: float, dispersion: float) -> float:
    """Level at which an empty pixel is as improbable as this."""
    return -np.log(probability) * ((dispersion - 1) / np.log(dispersion) if dispersion > 1 else 1.0)
