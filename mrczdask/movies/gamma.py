"""The exponent of the gain reference: by the dose rate, or measured on a flat image."""

from __future__ import annotations

import warnings
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import uniform_filter
from scipy.optimize import minimize_scalar

from mrczdask.errors import MrczdaskWarning

A1, B1, A2, A3 = 0.12035633, -1.04171635, -0.03363192, 1.03902726
"""Fit of eq. 11 of [M] on a K2 Summit; the second "a1" printed there is a2."""
FITTED_RATES: Final = (0.25, 9.0)
"""Dose rates in electrons per pixel and second on which it was fitted."""
GAMMA_RANGE: Final = (-4.0, 6.0)
_BLOCK: Final = 8
"""Side of the blocks whose means are filtered, in pixels: the box mean is sampled at every eighth pixel."""


def gamma(dose_rate: ArrayLike) -> Any:
    """Exponent of the gain reference of a K2 at a dose rate.

    Parameters
    ----------
    dose_rate : float or array
        Electrons per pixel and second, above 0.

    Returns
    -------
    float or array
        gamma = a1 d**b1 + a2 d + a3.

    Raises
    ------
    ValueError
        A dose rate is not above 0.

    Warns
    -----
    MrczdaskWarning
        A dose rate is outside of 0.25 to 9 electrons per pixel and second, where nothing was measured.

    References
    ----------
    McLeod et al., MRCZ, eq. 11 and Fig. 9.

    Examples
    --------
    >>> import mrczdask as md
    >>> round(float(md.gamma(4.5)), 3)
    0.913
    """
    rates = np.asarray(dose_rate, float)
    if not (rates > 0).all():
        raise ValueError(f"dose_rate={dose_rate!r}: give electrons per pixel and second, above 0")
    if ((rates < FITTED_RATES[0]) | (rates > FITTED_RATES[1])).any():
        low, high = FITTED_RATES
        warnings.warn(
            f"a dose rate of {float(rates.max()):g} e/pixel/s: gamma was fitted on a K2 at {low:g} to {high:g} and is "
            "extrapolated; fit_gamma measures it",
            MrczdaskWarning,
            stacklevel=2,
        )
    exponent = A1 * rates**B1 + A2 * rates + A3
    return float(exponent) if exponent.ndim == 0 else exponent


def flattest_exponent(counts: NDArray[Any], factor: NDArray[Any], size: int) -> float:
    """The gamma in GAMMA_RANGE for which the filtered counts * factor**gamma vary least ([M], eq. 10)."""
    if min(counts.shape) < 2 * size:
        raise ValueError(f"fit_gamma: the image is {counts.shape}, smaller than two boxes of {size} pixels")
    if not counts.any():
        raise ValueError("fit_gamma: the image holds no electrons")
    log_gain = np.log(factor)
    if float(log_gain.std()) < 1e-6:
        raise ValueError("fit_gamma: the gain is constant, any exponent gives the same")
    found = minimize_scalar(_unevenness, args=(counts, log_gain, size), bounds=GAMMA_RANGE, method="bounded")
    return float(found.x)


def _unevenness(exponent: float, counts: NDArray[Any], log_gain: NDArray[Any], size: int) -> float:
    """std / mean of the filtered, corrected image."""
    corrected = counts * np.exp(np.float32(exponent) * log_gain)
    step = _BLOCK if size % _BLOCK == 0 else 1
    ny, nx = (n - n % step for n in corrected.shape)
    means = corrected[:ny, :nx].reshape(ny // step, step, nx // step, step).mean(axis=(1, 3), dtype=np.float64)
    box = size // step
    inside = slice(box // 2, -(box // 2) or None)
    filtered = uniform_filter(means, box)[inside, inside]
    return float(filtered.std() / filtered.mean())
