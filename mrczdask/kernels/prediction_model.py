"""Which weights and which contexts predict an image best: fitted by the encoder, stored in the stream."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.bits import token_of
from mrczdask.kernels.compiling import njit
from mrczdask.kernels.histogram_classes import TOKENS, optimal_cuts
from mrczdask.kernels.prediction import (
    BIAS,
    BITS,
    CONTEXT_SHIFT,
    CONTEXTS,
    HIGH,
    LOOKUP,
    LOW,
    SHIFT,
    STEP,
    W0,
    WEIGHT_BITS,
    Weights,
)

_SAMPLE: Final = 1 << 14
"""Pixels that weights and contexts are fitted to: errors of five numbers cost 2.5 / 2**14 nats a pixel."""
_FINE: Final = 64
_GROUPS: Final = 16
MAX_WEIGHT: Final = 1 << (WEIGHT_BITS + 3)


def classic(low: int, high: int, bits: int) -> Weights:
    """The published predictor, (W + N) >> 1."""
    model = np.zeros(11, np.int64)
    model[:6] = 1, 1, 0, 0, 0, 1
    model[LOW], model[HIGH], model[STEP], model[BITS] = low, high, 1, bits
    model[CONTEXT_SHIFT] = max(int(high - low).bit_length() - LOOKUP.bit_length() + 1, 0)
    return model


def fitted(pixels: NDArray[Any], height: int, low: int, high: int, bits: int) -> Weights:
    """Least-squares weights of the four neighbours of pixels (rows, width).

    Solved twice: the second time each pixel has the inverse of the variance that the first residuals show at its
    intensity, as counts are noisier where they are many.
    """
    model = classic(low, high, bits)
    sample = _sampled_rows(pixels.shape, height)
    if not sample.size or pixels.shape[1] < 3:
        return model
    if sample.size * (pixels.shape[1] - 2) < 64:
        return model
    origin = float(pixels[sample].mean())
    weights: Any = np.ones((sample.size, pixels.shape[1]))
    solution: Any = np.zeros(5)
    for final in (False, True):
        left, right = _normal_equations(pixels, sample, origin, weights)
        solution = np.linalg.lstsq(left, right, rcond=1e-12)[0]
        if not final:
            weights = _inverse_variance(*_fit_of(pixels, sample, origin, solution))
    scaled = np.rint(solution[:4] * (1 << WEIGHT_BITS))
    if not np.all(np.abs(scaled) < MAX_WEIGHT):
        return model
    model[W0 : W0 + 4], model[SHIFT] = scaled.astype(np.int64), WEIGHT_BITS
    bias = (origin * (1 - solution[:4].sum()) + solution[4]) * (1 << WEIGHT_BITS) + (1 << (WEIGHT_BITS - 1))
    model[BIAS] = int(np.rint(bias))
    return model


def _sampled_rows(shape: tuple[int, ...], height: int) -> NDArray[np.int64]:
    """Rows that have one above them in their image, spread over the stack."""
    rows = np.arange(shape[0])
    rows = rows[rows % height > 0]
    step = max(rows.size * shape[1] // _SAMPLE, 1)
    return rows[step // 2 :: step]


@njit(nogil=True, cache=True)
def _neighbours(pixels: NDArray[Any], r: int, c: int, origin: float, out: NDArray[np.float64]) -> None:
    """W, N, NW, NE less the origin, and 1."""
    out[0], out[1] = pixels[r, c - 1] - origin, pixels[r - 1, c] - origin
    out[2], out[3], out[4] = pixels[r - 1, c - 1] - origin, pixels[r - 1, c + 1] - origin, 1.0


@njit(nogil=True, cache=True)
def _normal_equations(
    pixels: NDArray[Any], rows: NDArray[np.int64], origin: float, weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Matrix and right side of the weighted least squares over the inner pixels of some rows."""
    left, right, near = np.zeros((5, 5)), np.zeros(5), np.empty(5)
    for k in range(rows.size):
        for c in range(1, pixels.shape[1] - 1):
            _neighbours(pixels, rows[k], c, origin, near)
            for a in range(5):
                weighted = weights[k, c] * near[a]
                right[a] += weighted * (pixels[rows[k], c] - origin)
                for b in range(5):
                    left[a, b] += weighted * near[b]
    return left, right


@njit(nogil=True, cache=True)
def _fit_of(
    pixels: NDArray[Any], rows: NDArray[np.int64], origin: float, solution: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Prediction and squared residual of the pixels of some rows; 0 in the outer columns."""
    predictions, squares = np.zeros((rows.size, pixels.shape[1])), np.zeros((rows.size, pixels.shape[1]))
    near = np.empty(5)
    for k in range(rows.size):
        for c in range(1, pixels.shape[1] - 1):
            _neighbours(pixels, rows[k], c, origin, near)
            predictions[k, c] = (near * solution).sum()
            squares[k, c] = (pixels[rows[k], c] - origin - predictions[k, c]) ** 2
    return predictions, squares


def _inverse_variance(predictions: NDArray[np.float64], squares: NDArray[np.float64]) -> NDArray[np.float64]:
    """One over the mean square residual among the pixels of like prediction, in sixteen groups of one size."""
    inner = np.s_[:, 1:-1]
    edges = np.quantile(predictions[inner], np.linspace(0, 1, _GROUPS + 1)[1:-1])
    group = np.searchsorted(edges, predictions)
    count = np.bincount(group[inner].ravel(), minlength=_GROUPS)
    mean = np.bincount(group[inner].ravel(), squares[inner].ravel(), minlength=_GROUPS) / np.maximum(count, 1)
    floor = max(1e-3 * float(squares[inner].mean()), 1e-12)
    return np.asarray(1 / np.maximum(mean, floor)[group])


def contexts(pixels: NDArray[Any], height: int, model: Weights) -> NDArray[np.int64]:
    """Lookup cells at which a new context begins, without the first: at most fifteen, rising."""
    sample = _sampled_rows(pixels.shape, height)
    if not sample.size:
        return np.empty(0, np.int64)
    cells, tokens = _sampled(pixels, sample, model)
    edges = np.unique(np.quantile(cells, np.linspace(0, 1, _FINE + 1)[1:-1], method="lower"))
    group = np.searchsorted(edges, cells, "right")
    histograms = np.bincount(group * TOKENS + tokens, minlength=(edges.size + 1) * TOKENS).reshape(-1, TOKENS)
    occupied = histograms.sum(1) > 0
    starts = np.concatenate([[0], edges])[occupied]
    histograms = histograms[occupied]
    cuts = optimal_cuts(histograms, histograms.sum(1), pixels.size / cells.size, CONTEXTS, False)
    return starts[cuts[1:]].astype(np.int64)


@njit(nogil=True, cache=True)
def _sampled(
    pixels: NDArray[Any], rows: NDArray[np.int64], model: Weights
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(lookup cell, token) of every inner pixel of some rows."""
    width = pixels.shape[1]
    cells, tokens = np.zeros(rows.size * width, np.int64), np.zeros(rows.size * width, np.int64)
    mask = (np.int64(1) << model[BITS]) - 1
    at = 0
    for r in rows:
        for c in range(width):
            north = np.int64(pixels[r - 1, c])
            west = np.int64(pixels[r, c - 1]) if c else north
            north_west = np.int64(pixels[r - 1, c - 1]) if c else north
            north_east = np.int64(pixels[r - 1, c + 1]) if c + 1 < width else north
            total = model[0] * west + model[1] * north + model[2] * north_west + model[3] * north_east + model[4]
            p = min(max(total >> model[5], model[6]), model[7])
            residual = (np.int64(pixels[r, c]) - p + model[8] // 2) // model[8]
            wrapped = residual & mask
            negative = wrapped >> (model[9] - 1)
            cells[at] = (p - model[6]) >> model[10]
            tokens[at] = token_of(((wrapped << 1) ^ -negative) & mask)[0]
            at += 1
    return cells, tokens


def lookup_of(starts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Context of each of the 4096 cells."""
    return np.searchsorted(starts, np.arange(LOOKUP), "right").astype(np.uint8)
