"""Classes of pixels with similar means, so that a few histograms describe a whole stack of patterns.

The pixels are ordered by their mean over the patterns, put into fine bins of the square root of the mean (the noise of
counts is uniform in it), and the bins are cut into runs by dynamic programming: the cut with the fewest bits in all,
those of histograms and of the class map included, is exact for the bins given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.bits import token_of
from mrczdask.kernels.compiling import njit

MAX_CLASSES = 64
MAX_BINS = 256
TOKENS = 256
LEAST_GAIN = 0.01
"""Classes that save less than one per cent are not worth the time of going through them."""
_BITS_PER_ENTRY = 5.0  # a stored frequency: change of its length and four bits, measured 4 to 6
_BITS_PER_TABLE = 60.0  # kind, base and the frame of a table


@njit(nogil=True, cache=True)
def pixel_sums(values: NDArray[np.unsignedinteger], low: int) -> NDArray[np.uint64]:
    """Sum over the rows of values (rows, pixels) of value - low, modulo the range of their type."""
    rows, pixels = values.shape
    total = np.zeros(pixels, np.uint64)
    part = np.zeros(pixels, np.uint32)
    zero = values.dtype.type(low)
    narrow = values.itemsize < 4
    step = 1 << 15  # 2**15 values of 16 bits fit into 32
    for start in range(0, rows, step):
        for r in range(start, min(rows, start + step)):
            if narrow:
                for p in range(pixels):
                    part[p] += np.uint32(values.dtype.type(values[r, p] - zero))
            else:
                for p in range(pixels):
                    total[p] += np.uint64(values.dtype.type(values[r, p] - zero))
        for p in range(pixels):
            total[p] += part[p]
            part[p] = 0
    return total


@njit(nogil=True, cache=True)
def fine_bins(sums: NDArray[np.uint64], most: int) -> tuple[NDArray[np.uint8], int]:
    """Number of each pixel's bin in the square root of its sum, counted over the non-empty bins; at most `most`."""
    cells = 4096
    top = np.sqrt(float(sums.max()))
    scale = (cells - 1) / top if top > 0 else 0.0
    cell_of = np.empty(sums.size, np.uint16)
    population = np.zeros(cells, np.int64)
    for p in range(sums.size):
        cell_of[p] = int(np.sqrt(float(sums[p])) * scale)
        population[cell_of[p]] += 1
    bin_of_cell, n_bins = _merge_cells(population, most)
    out = np.empty(sums.size, np.uint8)
    for p in range(sums.size):
        out[p] = bin_of_cell[cell_of[p]]
    return out, n_bins


@njit(nogil=True, cache=True)
def _merge_cells(population: NDArray[np.int64], most: int) -> tuple[NDArray[np.uint8], int]:
    """Join neighbouring cells: a bin is as wide as it must be, and no bin of the crowd holds too many pixels."""
    occupied = np.sum(population > 0)
    width = population.size if occupied <= most else 2 * population.size // most
    crowd = 0 if occupied <= most else 2 * population.sum() // most
    bin_of_cell = np.zeros(population.size, np.uint8)
    number, held, begun = -1, 0, 0
    for c in range(population.size):
        if population[c] > 0 and (number < 0 or held > crowd or c - begun >= width or occupied <= most):
            number, held, begun = number + 1, 0, c
        held += population[c]
        bin_of_cell[c] = max(number, 0)
    return bin_of_cell, number + 1


@njit(nogil=True, cache=True)
def token_histograms(
    values: NDArray[np.unsignedinteger],
    low: int,
    group: NDArray[np.uint8],
    bases: NDArray[np.int64],
    step: int,
    as_tokens: bool,
) -> NDArray[np.int64]:
    """Count (group, symbol) over one row in `step`; a symbol is value - low - base of the group, or its token.

    Direct symbols above 255 are not counted.
    """
    rows, pixels = values.shape
    out: Any = np.zeros((2, bases.size, TOKENS), np.int64)  # two by turns: adding twice to one counter would wait
    zeros = np.empty(bases.size, values.dtype)
    for g in range(bases.size):
        zeros[g] = values.dtype.type(low + bases[g])
    for k in range((rows + step - 1) // step):
        r = min(k * step + (5 * k + step // 2) % step, rows - 1)  # not in step with anything periodic in the scan
        for p in range(pixels):
            g = group[p]
            offset = np.int64(values.dtype.type(values[r, p] - zeros[g]))
            if offset < 32 or (offset < 256 and not as_tokens):
                out[p & 1, g, offset] += 1
            elif as_tokens:
                out[p & 1, g, token_of(offset)[0]] += 1
    return out[0] + out[1]


@njit(nogil=True, cache=True)
def _xlog(n: float) -> float:
    return n * np.log2(n) if n > 0 else 0.0


@njit(nogil=True, cache=True)
def _cut_costs(
    histograms: NDArray[np.int64], population: NDArray[np.int64], scale: float, mapped: bool
) -> NDArray[np.float64]:
    """Bits of each run of bins [i, j] as one class: data, histogram, class map."""
    n = population.size
    pixels = population.sum()
    cost = np.full((n, n), np.inf)
    filled = np.empty((n, TOKENS), np.uint8)
    used = np.zeros(n, np.int64)
    for b in range(n):
        for s in range(TOKENS):
            if histograms[b, s]:
                filled[b, used[b]] = s
                used[b] += 1
    logs = np.empty(1 << 14)
    for k in range(logs.size):
        logs[k] = _xlog(float(k))
    merged = np.zeros(TOKENS, np.int64)
    for i in range(n):
        merged[:] = 0
        total, members, present, terms = 0, 0, 0, 0.0
        for j in range(i, n):
            members += population[j]
            for k in range(used[j]):
                s = filled[j, k]
                before = merged[s]
                after = before + histograms[j, s]
                merged[s] = after
                present += before == 0
                total += after - before
                terms += (logs[after] if after < logs.size else _xlog(float(after))) - (
                    logs[before] if before < logs.size else _xlog(float(before))
                )
            side = _BITS_PER_TABLE + _BITS_PER_ENTRY * present
            if mapped:
                side += members * np.log2(pixels / members)
            cost[i, j] = scale * (_xlog(float(total)) - terms) + side
    return cost


@njit(nogil=True, cache=True)
def optimal_cuts(
    histograms: NDArray[np.int64], population: NDArray[np.int64], scale: float, most: int, mapped: bool
) -> NDArray[np.int64]:
    """First bin of each class of the cheapest cut into at most `most` classes.

    Parameters
    ----------
    histograms : int64 (bins, 256)
        Symbol counts of the sampled pixels.
    population : int64 (bins,)
        Pixels in each bin, none empty.
    scale : float
        Pixels for one sampled pixel.
    most : int
    mapped : bool
        The class of each pixel has to be stored too.
    """
    cost = _cut_costs(histograms, population, scale, mapped)
    n = population.size
    extra = 0.0
    while True:
        best, start = np.zeros(n + 1), np.zeros(n + 1, np.int64)
        for j in range(n):
            best[j + 1] = np.inf
            for i in range(j + 1):
                candidate = best[i] + cost[i, j] + extra
                if candidate < best[j + 1]:
                    best[j + 1], start[j + 1] = candidate, i
        cuts = np.empty(n, np.int64)
        k, end = 0, n
        while end > 0:
            end = start[end]
            cuts[k] = end
            k += 1
        if mapped and best[n] > (1 - LEAST_GAIN) * cost[0, n - 1]:
            return np.zeros(1, np.int64)
        if k <= most:
            return cuts[:k][::-1].copy()
        extra = 2 * extra + 32.0
