"""Wiener shrinkage of an image, scale by scale, from two halves with independent noise."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

RINGS_PER_OCTAVE: Final = 2
"""Rings of spatial frequency: the finest holds 60 % of the modes, the coarsest a few."""


class Spectrum(NamedTuple):
    """Power a mode in each ring of frequency: of the signal, of the noise of the mean image, and the modes there."""

    signal: NDArray[np.float64]
    noise: NDArray[np.float64]
    modes: NDArray[np.int64]

    @property
    def kept(self) -> NDArray[np.float64]:
        """Wiener factors signal / (signal + noise)."""
        power = self.signal + self.noise
        return np.divide(self.signal, power, out=np.zeros_like(power), where=power > 0)

    def error(self, more: float = 1.0) -> float:
        """Mean square error a pixel of the shrunken image, were the data `more` times as many."""
        noise = self.noise / more
        power = self.signal + noise
        left = np.divide(self.signal * noise, power, out=np.zeros_like(power), where=power > 0)
        return float((left * self.modes).sum() / self.modes.sum())

    @property
    def variance(self) -> float:
        """Variance of the signal a pixel."""
        return float((self.signal * self.modes).sum() / self.modes.sum())

    @property
    def noise_variance(self) -> float:
        """Variance of the noise of a pixel of the mean image."""
        return float((self.noise * self.modes).sum() / self.modes.sum())


def shrink(
    first: NDArray[np.floating], second: NDArray[np.floating] | None, weight: float = 0.5, noise: float = 0.0
) -> tuple[NDArray[np.float64], Spectrum]:
    """Shrink weight * first + (1 - weight) * second towards 0.

    The signal of a ring is the mean product of the cosine transforms of the two halves, in which independent noise
    averages out; what else the mean image holds is noise. Without a second half the noise is white, of variance `noise`
    a pixel.

    Parameters
    ----------
    first, second : (y, x) float arrays
        Estimates of the same image, of mean about 0.
    weight : float
        Of the first half in the mean of both.
    noise : float
        Variance of white noise, where there is one image only.

    Returns
    -------
    image, spectrum
    """
    rings = _rings(first.shape)
    one = fft.dctn(np.asarray(first, np.float64), norm="ortho", overwrite_x=False)
    if second is None:
        mean, cross = one, one * one - noise
    else:
        two = fft.dctn(np.asarray(second, np.float64), norm="ortho")
        mean, cross = weight * one + (1 - weight) * two, one * two
    modes = np.bincount(rings.ravel())
    with np.errstate(invalid="ignore", divide="ignore"):
        power = np.nan_to_num(np.bincount(rings.ravel(), (mean * mean).ravel()) / modes)
        signal = np.nan_to_num(np.bincount(rings.ravel(), cross.ravel()) / modes)
    signal = np.clip(signal, 0, power)
    spectrum = Spectrum(signal, power - signal, modes)
    return fft.idctn(mean * spectrum.kept[rings], norm="ortho"), spectrum


def _rings(shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Ring of every mode of a cosine transform, by the logarithm of its frequency in cycles a pixel."""
    y, x = (np.arange(n) / (2 * n) for n in shape)
    lowest = 1 / (2 * max(shape))
    frequency = np.hypot(y[:, None], x)
    frequency[0, 0] = lowest
    return np.floor(RINGS_PER_OCTAVE * np.log2(frequency / lowest) + 1e-9).astype(np.int64)
