"""How well spots can be localised: maximum-likelihood fits and the Cramer-Rao bound they are judged by."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from mrczdask.simulate.readout import Readout

HALF: Final = 4
"""Fits see (2 * 4 + 1)**2 pixels around a spot: a Gaussian of sigma 1 has 1e-5 of its light outside."""
_ROUNDS: Final = 12

Floats = NDArray[np.float64]


def localise(images: Any, positions: Floats, readout: Readout, *, sigma: float = 1.0) -> Floats:
    """Fit position, brightness and background of spots by maximum likelihood.

    Parameters
    ----------
    images : array_like
        (frame, y, x), digital numbers.
    positions : numpy.ndarray
        (spot, 2) true centres (y, x); the fits start at the nearest pixels.
    readout : Readout
        The camera that took the images.
    sigma : float
        Standard deviation of a spot in pixels, known to the fit.

    Returns
    -------
    numpy.ndarray
        (frame, spot, 2), fitted centres in pixels.

    Notes
    -----
    Fisher scoring of the Poisson likelihood of (x - o) / g + s**2 with mean m + s**2: read noise is taken as the noise
    of s**2 more electrons.

    References
    ----------
    C. S. Smith et al., Nat. Methods 7 (2010) 373-375: the fit. F. Huang et al., Nat. Methods 10 (2013) 653-658: the
    read noise.

    Examples
    --------
    >>> import mrczdask as md
    >>> truth = md.simulate.localisation(20, (6, 6), photons=2000)
    >>> fits = md.simulate.localise(truth.images, truth.positions, truth.readout)
    >>> bool(abs(fits - truth.positions).mean() < 0.05)
    True
    """
    pixels = np.rint(positions).astype(int)
    window = np.arange(-HALF, HALF + 1)
    rows, columns = pixels[:, 0, None] + window, pixels[:, 1, None] + window
    cut = np.asarray(images)[:, rows[:, :, None], columns[:, None, :]].astype(float)
    extra = readout.read_noise**2
    seen = (cut - readout.offset) / readout.counts_per_electron + extra
    background = np.median(seen, axis=(-2, -1)) - extra
    light = np.maximum((seen - extra).sum(axis=(-2, -1)) - background * window.size**2, 1.0)
    theta = np.stack([np.zeros_like(light), np.zeros_like(light), light, np.maximum(background, 0.01)], axis=-1)
    for _ in range(_ROUNDS):
        mean, slopes = _model(theta, sigma)
        mean += extra
        score = np.einsum("...pij,...ij->...p", slopes, seen / mean - 1)
        theta += np.linalg.solve(_fisher(mean, slopes), score[..., None])[..., 0].clip(
            -light[..., None], light[..., None]
        )
        theta[..., :2] = theta[..., :2].clip(-2, 2)
        theta[..., 2:] = np.maximum(theta[..., 2:], 0.01)
    return theta[..., :2] + pixels


def cramer_rao_bound(
    positions: Floats, readout: Readout, *, photons: float, background: float, sigma: float = 1.0
) -> Floats:
    """Smallest standard deviation that unbiased estimates of a spot's centre can have.

    Parameters
    ----------
    positions : numpy.ndarray
        (spot, 2), centres (y, x) in pixels.
    readout : Readout
        The camera; its read noise counts as the noise of s**2 electrons a pixel.
    photons, background : float
        Electrons of a spot, and of the background in a pixel; both unknown to the estimate.
    sigma : float
        Standard deviation of a spot, pixels.

    Returns
    -------
    numpy.ndarray
        (spot, 2), pixels.

    Notes
    -----
    The root of the diagonal of the inverse of I_ij = sum over pixels of dm/da_i dm/da_j / (m + s**2).

    References
    ----------
    C. S. Smith et al., Nat. Methods 7 (2010) 373-375.

    Examples
    --------
    >>> import numpy as np
    >>> from mrczdask.simulate import Readout, cramer_rao_bound
    >>> bound = cramer_rao_bound(np.array([[8.0, 8.0]]), Readout(), photons=1e6, background=0.01)
    >>> (bound * 1e3).round(2).tolist()  # sqrt(sigma**2 + 1/12) / sqrt(photons)
    [[1.04, 1.04]]
    """
    offset = positions - np.rint(positions)
    theta = np.concatenate([offset, np.broadcast_to([photons, background], offset.shape)], axis=-1)
    mean, slopes = _model(theta, sigma)
    variance = np.linalg.inv(_fisher(mean + readout.read_noise**2, slopes))
    return np.sqrt(np.stack([variance[..., 0, 0], variance[..., 1, 1]], axis=-1))


def _model(theta: Floats, sigma: float) -> tuple[Floats, Floats]:
    """Means (..., y, x) and their derivatives (..., 4, y, x) for theta = (y, x, photons, background)."""
    edges = np.arange(-HALF, HALF + 2) - 0.5
    parts, slopes = [], []
    for axis in range(2):
        z = (edges - theta[..., axis, None]) / sigma
        parts.append(np.diff(erf(z / np.sqrt(2)), axis=-1) / 2)
        slopes.append(-np.diff(np.exp(-(z**2) / 2), axis=-1) / (sigma * np.sqrt(2 * np.pi)))
    y, x = parts[0][..., :, None], parts[1][..., None, :]
    light = theta[..., 2, None, None]
    derivatives = (light * slopes[0][..., :, None] * x, light * y * slopes[1][..., None, :], y * x, np.ones_like(y * x))
    return light * y * x + theta[..., 3, None, None], np.stack(derivatives, axis=-3)


def _fisher(mean: Floats, slopes: Floats) -> Floats:
    """Information matrix (..., 4, 4)."""
    flat = slopes.reshape(*slopes.shape[:-2], -1)
    return np.asarray((flat / mean.reshape(*mean.shape[:-2], 1, -1)) @ np.swapaxes(flat, -1, -2))
