"""Replace pixels by the value that a reference histogram has at their rank, line by line.

A line is a row of a contiguous 2-D array. Every pixel gets a code, and a table says what a code becomes. Integer
frames take their values as codes and one table a line, from the line's histogram: exact, and nothing is sorted. Float
frames take their ranks as codes and one table for all lines, from a bucket sort of each line. Tables hold the outcomes
for up to `LANES` references side by side, so that one pass over the pixels judges them all.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit

LANES: Final = 8
"""References in one table: eight float32 fill a 256-bit register."""
_TILE: Final = 64
"""Edge of the squares of a transposition: both sides of a square stay in the first-level cache."""
_MOVES: Final = 16
"""Moves a pixel after which the insertion sort of a line gives up: a sort by comparison costs about as much."""


@njit(nogil=True, cache=True)
def transpose(image: NDArray[Any], out: NDArray[Any]) -> None:
    """Copy image.T into `out`, square by square."""
    ny, nx = image.shape
    square = np.empty((_TILE, _TILE + 1), image.dtype)  # lines of 2**k pixels would all meet in one cache set
    for y0 in range(0, ny, _TILE):
        height = min(_TILE, ny - y0)
        for x0 in range(0, nx, _TILE):
            width = min(_TILE, nx - x0)
            for y in range(height):
                for x in range(width):
                    square[y, x] = image[y0 + y, x0 + x]
            for x in range(width):
                for y in range(height):
                    out[x0 + x, y0 + y] = square[y, x]


@njit(nogil=True, cache=True)
def values_present(pixels: NDArray[np.integer], low: int, present: NDArray[np.bool_]) -> None:
    """Mark the values that occur: present[value - low]."""
    for k in range(pixels.size):
        present[np.int64(pixels[k]) - low] = True


@njit(nogil=True, cache=True)
def dense_codes(pixels: NDArray[np.integer], low: int, code_of: NDArray[np.uint8], codes: NDArray[np.uint8]) -> None:
    """Code of every pixel: code_of[value - low]."""
    for k in range(pixels.size):
        codes[k] = code_of[np.int64(pixels[k]) - low]


@njit(nogil=True, cache=True)
def cumulative_histograms(codes: NDArray[np.uint8], n_values: int) -> NDArray[np.int32]:
    """(line, value): how many pixels of the line have a code up to this one."""
    n_lines, length = codes.shape
    counts = np.zeros((n_lines, n_values), np.int32)
    even = np.empty(n_values, np.int32)
    for line in range(n_lines):
        row, odd = codes[line], counts[line]
        even[:] = 0
        for k in range(0, length - 1, 2):  # two counters: equal neighbours need not wait for each other
            even[row[k]] += 1
            odd[row[k + 1]] += 1
        if length % 2:
            even[row[length - 1]] += 1
        total = np.int32(0)
        for v in range(n_values):
            total += even[v] + odd[v]
            odd[v] = total
    return counts


@njit(nogil=True, cache=True)
def histogram_references(
    cumulative: NDArray[np.int32], values: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(rank, lane): weighted mean over the lines of their inverse cumulative histograms; weights (line, lane)."""
    n_lines, n_values = cumulative.shape
    lanes = weights.shape[1]
    length = cumulative[0, n_values - 1]
    steps = np.zeros((length + 1, lanes))
    for line in range(n_lines):
        for v in range(n_values - 1):
            at, step = cumulative[line, v], values[v + 1] - values[v]
            for s in range(lanes):
                steps[at, s] += weights[line, s] * step
    for s in range(lanes):
        total = values[0]
        for rank in range(length):
            total += steps[rank, s]
            steps[rank, s] = total
    return steps[:length]


@njit(nogil=True, cache=True)
def sorted_lines_of(cumulative: NDArray[np.int32], values: NDArray[np.float64]) -> NDArray[np.float32]:
    """(line, rank): the inverse cumulative histograms, written out."""
    n_lines, n_values = cumulative.shape
    out = np.empty((n_lines, cumulative[0, n_values - 1]), np.float32)
    for line in range(n_lines):
        first = 0
        for v in range(n_values):
            out[line, first : cumulative[line, v]] = values[v]
            first = cumulative[line, v]
    return out


@njit(nogil=True, cache=True)
def histogram_tables(
    cumulative: NDArray[np.int32], sums: NDArray[np.float64], own: bool, upper: bool, tables: NDArray[np.float32]
) -> None:
    """Outcomes (line * n_values + code, lane) from running sums of references (rank + 1, lane).

    With `own`, `sums` is (line, rank + 1) and there is one lane: each line has its own reference.
    """
    n_lines, n_values = cumulative.shape
    lanes = 1 if own else sums.shape[1]
    for line in range(n_lines):
        first = 0
        for v in range(n_values):
            end = cumulative[line, v]
            if end > first:
                begin = end - 1 if upper else first
                for s in range(lanes):
                    span = sums[line, end] - sums[line, begin] if own else sums[end, s] - sums[begin, s]
                    tables[line * n_values + v, s] = span / (end - begin)
            first = end


@njit(nogil=True, cache=True)
def sort_lines(
    lines: NDArray[np.float32],
    buckets: tuple[NDArray[np.int32], float, float],
    weights: NDArray[np.float64],
    ordered: NDArray[np.float32],
    codes: NDArray[np.uint32],
    runs: NDArray[np.int32],
) -> tuple[int, NDArray[np.float64]]:
    """Sort each line: the number of runs of equal values, and references (rank, lane), weighted sums over the lines.

    Weights are (line, lane); `buckets` (bucket_of, low, bins_per_unit). The bin of a pixel, floor((value - low) *
    bins_per_unit) limited to the bins there are, names its bucket, and buckets rise with the value. They only make
    the sort fast: the order is exact for any of them. `ordered` (line, rank) takes the sorted values; with one line it
    is scratch. The code of a pixel that is alone with its value is its rank, else line length + number of its run;
    `runs` (run, 2) takes their ranks, first and end. Runs beyond its size are counted and not kept: call again with
    more room.
    """
    n_lines, length = lines.shape
    lanes = weights.shape[1]
    inner = weights[n_lines // 2]  # away from the borders all lines weigh the same: they are summed once for all lanes
    common, references = np.zeros(length), np.zeros((length, lanes))
    packed, own = np.empty(length, np.uint64), np.empty(length, np.int32)
    counts = np.empty(buckets[0][-1] + 1, np.int32)
    n_runs = 0
    for line in range(n_lines):
        _bucket_sort(lines[line], buckets, own, counts, packed)
        row, row_codes = ordered[line % ordered.shape[0]], codes[line]
        for rank in range(length):
            row[rank] = lines[line, packed[rank] & 0xFFFFFFFF]
            common[rank] += row[rank]
        for s in range(lanes):
            extra = weights[line, s] - inner[s]
            if extra != 0.0:
                for rank in range(length):
                    references[rank, s] += extra * row[rank]
        n_runs = _number_ranks(row, packed, row_codes, runs, n_runs)
    for rank in range(length):
        for s in range(lanes):
            references[rank, s] += inner[s] * common[rank]
    return n_runs, references


@njit(nogil=True, cache=True)
def _number_ranks(
    row: NDArray[np.float32],
    packed: NDArray[np.uint64],
    codes: NDArray[np.uint32],
    runs: NDArray[np.int32],
    n_runs: int,
) -> int:
    """Codes of a sorted line; the number of runs so far."""
    length, first = row.size, 0
    while first < length:
        end = first + 1
        while end < length and row[end] == row[first]:
            end += 1
        if end == first + 1:
            codes[packed[first] & 0xFFFFFFFF] = first
        else:
            for rank in range(first, end):
                codes[packed[rank] & 0xFFFFFFFF] = length + n_runs
            if n_runs < runs.shape[0]:
                runs[n_runs, 0], runs[n_runs, 1] = first, end
            n_runs += 1
        first = end
    return n_runs


@njit(nogil=True, cache=True)
def _bucket_sort(
    line: NDArray[np.float32],
    buckets: tuple[NDArray[np.int32], float, float],
    own: NDArray[np.int32],
    counts: NDArray[np.int32],
    packed: NDArray[np.uint64],
) -> None:
    """Fill `packed` in ascending order: an order-preserving key of the value in the high half, its place in the low."""
    bucket_of, low, bins_per_unit = buckets
    last = np.float64(bucket_of.size - 1)
    counts[:] = 0
    for k in range(line.size):
        bucket = bucket_of[int(min(max((line[k] - low) * bins_per_unit, 0.0), last))]
        own[k] = bucket
        counts[bucket] += 1
    place = np.int32(0)
    for bucket in range(counts.size):
        n = counts[bucket]
        counts[bucket] = place
        place += n
    bits = line.view(np.uint32)
    for k in range(line.size):
        raw = bits[k]
        key = raw ^ (np.uint32(0xFFFFFFFF) if raw >> np.uint32(31) else np.uint32(0x80000000))
        packed[counts[own[k]]] = (np.uint64(key) << np.uint64(32)) | np.uint64(k)
        counts[own[k]] += 1
    _insertion_sort(packed)


@njit(nogil=True, cache=True)
def _insertion_sort(packed: NDArray[np.uint64]) -> None:
    """Sort what is nearly sorted; by comparison where it is not."""
    moves_left = _MOVES * packed.size
    for k in range(1, packed.size):
        item, place = packed[k], k
        while place > 0 and packed[place - 1] > item:
            packed[place] = packed[place - 1]
            place -= 1
        packed[place] = item
        moves_left -= k - place
        if moves_left < 0:
            packed.sort()
            return


@njit(nogil=True, cache=True)
def smooth_across_lines(ordered: NDArray[np.float32], kernel: NDArray[np.float64]) -> NDArray[np.float32]:
    """Weighted mean, rank by rank, of a line and its neighbours that exist."""
    n_lines, length = ordered.shape
    reach = kernel.size // 2
    out = np.empty((n_lines, length), np.float32)
    total = np.empty(length)
    for line in range(n_lines):
        total[:] = 0.0
        norm = 0.0
        for other in range(max(line - reach, 0), min(line + reach + 1, n_lines)):
            weight = kernel[other - line + reach]
            norm += weight
            for rank in range(length):
                total[rank] += weight * ordered[other, rank]
        for rank in range(length):
            out[line, rank] = total[rank] / norm
    return out


@njit(nogil=True, cache=True)
def match_own(
    codes: NDArray[np.uint32],
    references: NDArray[np.float32],
    runs: NDArray[np.int32],
    upper: bool,
    out: NDArray[np.float32],
) -> None:
    """Outcomes where each line has its own reference (line, rank); codes and runs as `sort_lines` gives them."""
    n_lines, length = codes.shape
    for line in range(n_lines):
        for k in range(length):
            code = np.int64(codes[line, k])
            if code < length:
                out[line, k] = references[line, code]
            else:
                stop = runs[code - length, 1]
                start = stop - 1 if upper else runs[code - length, 0]
                total = 0.0
                for rank in range(start, stop):
                    total += references[line, rank]
                out[line, k] = total / (stop - start)


@njit(nogil=True, cache=True)
def total_variation(
    codes: NDArray[np.unsignedinteger], tables: NDArray[np.float32], stride: int
) -> NDArray[np.float64]:
    """(lane): sum of |outcome - outcome in the line before|; the entry of a pixel is line * stride + code."""
    n_lines, length = codes.shape
    lanes = tables.shape[1]
    total = np.zeros(lanes)
    part = np.empty(lanes, np.float32)
    for line in range(1, n_lines):
        here, before = line * stride, (line - 1) * stride
        for k0 in range(0, length, _TILE):  # short float32 sums, collected in float64
            part[:] = 0
            for k in range(k0, min(k0 + _TILE, length)):
                a, b = here + np.int64(codes[line, k]), before + np.int64(codes[line - 1, k])
                for s in range(lanes):
                    part[s] += abs(tables[a, s] - tables[b, s])
            for s in range(lanes):
                total[s] += part[s]
    return total


@njit(nogil=True, cache=True)
def joint_variation(codes: NDArray[np.uint8], tables: NDArray[np.float32], n_values: int) -> NDArray[np.float64]:
    """`total_variation` of few values, from the joint histogram of each line and the one before."""
    n_lines, length = codes.shape
    lanes = tables.shape[1]
    total = np.zeros(lanes)
    joint = np.empty((n_values, n_values), np.int32)
    for line in range(1, n_lines):
        here, before = line * n_values, (line - 1) * n_values
        joint[:] = 0
        row, previous = codes[line], codes[line - 1]
        for k in range(length):
            joint[previous[k], row[k]] += 1
        for a in range(n_values):
            for b in range(n_values):
                n = joint[a, b]
                if n:
                    for s in range(lanes):
                        total[s] += n * np.float64(abs(tables[here + b, s] - tables[before + a, s]))
    return total


@njit(nogil=True, cache=True)
def image_variation(lines: NDArray[np.float32]) -> float:
    """Sum of |value - value in the line before|."""
    total = 0.0
    for line in range(1, lines.shape[0]):
        for k in range(lines.shape[1]):
            total += abs(lines[line, k] - lines[line - 1, k])
    return total


@njit(nogil=True, cache=True)
def look_up(
    codes: NDArray[np.unsignedinteger], table: NDArray[np.float32], stride: int, out: NDArray[np.float32]
) -> None:
    """Outcomes of one lane."""
    for line in range(codes.shape[0]):
        base = line * stride
        for k in range(codes.shape[1]):
            out[line, k] = table[base + np.int64(codes[line, k])]


@njit(nogil=True, cache=True)
def add_looked_up(
    codes: NDArray[np.uint8], rows: NDArray[np.float32], columns: NDArray[np.float32], total: NDArray[np.floating]
) -> None:
    """Add the mean of the row and the column outcome of every pixel; tables (line, code)."""
    for y in range(codes.shape[0]):
        row = rows[y]
        for x in range(codes.shape[1]):
            code = codes[y, x]
            total[y, x] += np.float32(0.5) * (row[code] + columns[x, code])


@njit(nogil=True, cache=True)
def add_half_transposed(values: NDArray[np.float32], total: NDArray[np.floating]) -> None:
    """Add values.T / 2, square by square."""
    ny, nx = total.shape
    square = np.empty((_TILE, _TILE + 1), np.float32)
    for y0 in range(0, ny, _TILE):
        height = min(_TILE, ny - y0)
        for x0 in range(0, nx, _TILE):
            width = min(_TILE, nx - x0)
            for x in range(width):
                for y in range(height):
                    square[x, y] = values[x0 + x, y0 + y]
            for y in range(height):
                for x in range(width):
                    total[y0 + y, x0 + x] += np.float32(0.5) * square[x, y]
