"""The entropy of pixels with known means: what no lossless codec of independent pixels can go below."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln, ndtr

from mrczdask.simulate.readout import Readout


def poisson_entropy(mean: ArrayLike) -> NDArray[np.float64]:
    """Entropy of Poisson counts, in bits.

    Parameters
    ----------
    mean : array_like
        Expected counts, 0 or more.

    Returns
    -------
    numpy.ndarray
        float64, of the shape of `mean`; within 1e-4 bits for means up to 1000.

    Notes
    -----
    H(m) = -sum_k p_k log2 p_k with p_k = m^k exp(-m) / k!. Many means are interpolated in sqrt(m).

    Examples
    --------
    >>> from mrczdask.simulate import poisson_entropy
    >>> poisson_entropy([0.1, 1.0, 4.0]).round(4).tolist()
    [0.4814, 1.8825, 3.0104]
    """
    return _over(mean, _counted, 2048)


def readout_entropy(mean: ArrayLike, readout: Readout) -> NDArray[np.float64]:
    """Entropy of what an integrating detector stores, rounded to integers, in bits.

    Parameters
    ----------
    mean : array_like
        Expected electrons, 0 or more.
    readout : Readout
        Counts per electron, offset and read noise.

    Returns
    -------
    numpy.ndarray
        float64, of the shape of `mean`; clipping is left out.

    Notes
    -----
    p(x) = sum_k Poisson(k; m) (Phi((x + 1/2 - g k - o) / g s) - Phi((x - 1/2 - g k - o) / g s)).

    Examples
    --------
    >>> from mrczdask.simulate import Readout, readout_entropy
    >>> float(readout_entropy(100.0, Readout(counts_per_electron=2.0, offset=100.0, read_noise=1.0)).round(2))
    6.38
    """
    return _over(mean, lambda m: _read(m, readout), 256)


def _over(mean: ArrayLike, entropy: Callable[[float], float], nodes: int) -> NDArray[np.float64]:
    """Exact for few means, interpolated in the square root of many."""
    means = np.asarray(mean, float)
    if means.size <= nodes:
        return np.array([entropy(m) for m in means.ravel()]).reshape(means.shape)
    top = np.sqrt(means.max())
    roots = top * np.linspace(0, 1, nodes) ** 1.5  # closer where the entropy bends: near zero
    return np.interp(np.sqrt(means), roots, [entropy(root**2) for root in roots])


def _log_poisson(mean: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Counts that matter and the logarithm of their probabilities."""
    reach = 12 * np.sqrt(mean) + 30
    k = np.arange(max(0, int(mean - reach)), int(mean + reach))
    return k, (k * np.log(mean) - mean - gammaln(k + 1) if mean > 0 else np.where(k == 0, 0.0, -np.inf))


def _counted(mean: float) -> float:
    """Entropy of the counts themselves."""
    log_p = _log_poisson(mean)[1]
    log_p = log_p[log_p > -np.inf]
    return float(-(np.exp(log_p) * log_p).sum() / np.log(2))


def _read(mean: float, readout: Readout) -> float:
    """Entropy of the rounded charge."""
    k, log_p = _log_poisson(mean)
    gain, noise = readout.counts_per_electron, readout.counts_per_electron * readout.read_noise
    reach = int(8 * noise + 1)
    codes = np.arange(int(gain * k[0]) - reach, int(gain * k[-1]) + reach + 2) - 0.5
    charge = gain * k + readout.offset % 1
    below = ndtr((codes[:, None] - charge) / noise) if noise else (codes[:, None] >= charge).astype(float)
    p = np.diff(below, axis=0) @ np.exp(log_p)
    p = p[p > 0]
    return float(-(p * np.log2(p)).sum())
