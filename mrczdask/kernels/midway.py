"""Smooth midway equalisation (SME) of one frame: its rows, or columns, take the histogram of their neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels import histogram_match as match

MAX_CODES: Final = 256
"""Distinct integers that are matched by histograms; frames with more of them are sorted. A code is then one byte."""
_WIDEST: Final = 1 << 24
"""Range of integers for which a table of the values present is made; float32 holds all integers up to here."""
_FEW: Final = 64
"""Bytes below this are codes as they are: a table with gaps costs less than to close them."""
_SAMPLE: Final = 1 << 14
"""Pixels whose distribution spreads the buckets of the sort evenly."""
_BINS: Final = 1 << 12
"""Bins from values to buckets: at most 3 pixels of a line of 4096 share one of a normal distribution."""
_ROUNDING: Final = 1e-6
"""Relative, of a total variation summed in float32."""
_TAIL: Final = 1e-3
"""Part of the sample beyond each end of the bins, so that one hot pixel does not stretch them."""


@dataclass(frozen=True)
class Midway:
    """How a frame is equalised: the choices of Sorzano et al.

    Parameters
    ----------
    sigmas : tuple of float
        Widths of the Gaussian over neighbouring lines, in lines; of several the one of least total variation is taken.
    single_reference : bool
        One reference for all lines (eq. 3), or each line its own (eq. 2).
    upper : bool
        Equal pixels take the last of their ranks, as the published program does; else the mean over them.
    sequential : bool
        Columns, then the rows of the result; else the mean of both (eq. 6).
    """

    sigmas: tuple[float, ...] = (0.0,)
    single_reference: bool = True
    upper: bool = False
    sequential: bool = False


class Workspace:
    """Arrays kept from frame to frame: fresh memory costs as much as the work on it."""

    def __init__(self) -> None:
        self._kept: dict[str, NDArray[Any]] = {}

    def empty(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """An array of any content; what was kept under this name is overwritten."""
        kept = self._kept.get(name)
        if kept is None or kept.shape != shape or kept.dtype != dtype:
            kept = self._kept[name] = np.empty(shape, dtype)
        return kept

    def transposed(self, name: str, image: NDArray[Any]) -> NDArray[Any]:
        """A contiguous transposed copy."""
        out = self.empty(name, image.shape[::-1], image.dtype)
        match.transpose(image, out)
        return out


class _Matched(NamedTuple):
    """Equalised integer lines: table (line, code)."""

    codes: NDArray[np.uint8]
    table: NDArray[np.float32]
    sigma: float


def add_midway(
    frame: NDArray[Any], how: Midway, total: NDArray[np.floating], work: Workspace | None = None
) -> tuple[float, float]:
    """Add the equalised frame to `total`; return the sigma of the columns and of the rows.

    Integer frames of up to 256 distinct values are exact; others are rounded to float32 first: a relative error of
    6e-8, none for integers up to 2**24.
    """
    work = work or Workspace()
    codes, values = integer_codes(frame)
    if codes is not None:
        return _add_counted(codes, values, how, total, work)
    lines = np.ascontiguousarray(frame, np.float32)
    columns, sigma_x = _match_sorted(work.transposed("columns", lines), how, work)
    if how.sequential:
        return sigma_x, _add_rows_of(columns, how, total, work)
    match.add_half_transposed(columns, total)
    rows, sigma_y = _match_sorted(lines, how, work)
    rows *= np.float32(0.5)
    total += rows
    return sigma_x, sigma_y


def _add_counted(
    codes: NDArray[np.uint8], values: NDArray[np.float64], how: Midway, total: NDArray[np.floating], work: Workspace
) -> tuple[float, float]:
    columns = _match_counted(work.transposed("codes", codes), values, how)
    if how.sequential:
        image = work.empty("image", columns.codes.shape, np.float32)
        match.look_up(columns.codes, columns.table.reshape(-1), values.size, image)
        return columns.sigma, _add_rows_of(image, how, total, work)
    rows = _match_counted(codes, values, how)
    match.add_looked_up(codes, rows.table, columns.table, total)
    return columns.sigma, rows.sigma


def _add_rows_of(columns: NDArray[np.float32], how: Midway, total: NDArray[np.floating], work: Workspace) -> float:
    """Equalise the rows of an image of equalised columns and add it; the sigma."""
    image, sigma = _match_sorted(work.transposed("columns", columns), how, work)
    total += image
    return sigma


def equalised(frame: NDArray[Any], how: Midway | None = None) -> NDArray[np.float64]:
    """The equalised frame, as `add_midway` adds it."""
    total = np.zeros(frame.shape)
    add_midway(frame, how or Midway(), total)
    return total


def integer_codes(frame: NDArray[Any]) -> tuple[NDArray[np.uint8] | None, NDArray[np.float64]]:
    """Codes of an integer frame and the value of each, ascending; no codes where there are more than 256 values."""
    none = None, np.empty(0)
    if frame.dtype.kind not in "biu" or frame.size == 0:
        return none
    frame = frame.view(np.uint8) if frame.dtype.kind == "b" else frame
    low, high = int(frame.min()), int(frame.max())
    if frame.dtype == np.uint8 and high < _FEW:
        return np.ascontiguousarray(frame), np.arange(high + 1.0)
    if high - low >= _WIDEST:
        return none
    flat = np.ascontiguousarray(frame).reshape(-1)
    present = np.zeros(high - low + 1, np.bool_)
    match.values_present(flat, low, present)
    values = np.flatnonzero(present)
    if values.size > MAX_CODES:
        return none
    code_of = np.zeros(present.size, np.uint8)
    code_of[values] = np.arange(values.size)
    codes = np.empty(frame.shape, np.uint8)
    match.dense_codes(flat, low, code_of, codes.reshape(-1))
    return codes, (values + low).astype(np.float64)


def gaussian(sigma: float) -> NDArray[np.float64]:
    """Weights exp(-k**2 / (2 sigma**2)), |k| <= ceil(3 sigma)."""
    k = np.arange(-np.ceil(3 * sigma), np.ceil(3 * sigma) + 1)
    return np.exp(-0.5 * (k / sigma) ** 2) if sigma > 0 else np.ones(1)


def line_weights(n_lines: int, sigma: float) -> NDArray[np.float64]:
    """Weight of each line in the mean over lines of the smoothed lines: 1/n but near the borders."""
    g = gaussian(sigma)
    reach = g.size // 2
    norm = np.convolve(np.ones(n_lines), g)[reach : reach + n_lines]
    return np.convolve(1 / norm, g)[reach : reach + n_lines] / n_lines


def _lane_weights(n_lines: int, sigmas: tuple[float, ...]) -> NDArray[np.float64]:
    return np.stack([line_weights(n_lines, sigma) for sigma in sigmas], axis=1)


def _running_sums(references: NDArray[Any], axis: int) -> NDArray[np.float64]:
    """Sums of the references over the ranks before each."""
    shape = list(references.shape)
    shape[axis] += 1
    sums = np.zeros(shape)
    np.cumsum(references, axis=axis, out=sums[1:] if axis == 0 else sums[:, 1:])
    return sums


def _match_counted(codes: NDArray[np.uint8], values: NDArray[np.float64], how: Midway) -> _Matched:
    """Equalise integer lines by their histograms."""
    cumulative = match.cumulative_histograms(codes, values.size)
    tables = np.zeros((codes.shape[0] * values.size, _lanes(how)), np.float32)
    if how.single_reference:
        weights = _lane_weights(codes.shape[0], how.sigmas)
        sums = _running_sums(match.histogram_references(cumulative, values, weights), axis=0)
        match.histogram_tables(cumulative, sums, False, how.upper, tables[:, : len(how.sigmas)])
    else:
        ordered = match.sorted_lines_of(cumulative, values)
        for lane, sigma in enumerate(how.sigmas):
            sums = _running_sums(match.smooth_across_lines(ordered, gaussian(sigma)), axis=1)
            match.histogram_tables(cumulative, sums, True, how.upper, tables[:, lane : lane + 1])
    few = values.size**2 <= codes.shape[1]
    vary = match.joint_variation if few else match.total_variation
    lane = _flattest(how, lambda: vary(codes, tables, values.size))
    return _Matched(codes, tables[:, lane].reshape(-1, values.size), how.sigmas[lane])


def _lanes(how: Midway) -> int:
    n = len(how.sigmas)
    return 1 if n == 1 else -(-n // match.LANES) * match.LANES


def _flattest(how: Midway, variation: Any) -> int:
    """The lane of least total variation; the first of equals."""
    n, lane = len(how.sigmas), 0
    variations = variation()[:n] if n > 1 else [0.0]
    for other in range(1, n):
        if _is_less(variations[other], variations[lane]):
            lane = other
    return lane


def _is_less(variation: float, least: float) -> bool:
    """Less by more than the rounding, so that every way to count chooses the same sigma."""
    return variation < least * (1 - _ROUNDING)


def _match_sorted(lines: NDArray[np.float32], how: Midway, work: Workspace) -> tuple[NDArray[np.float32], float]:
    """Equalise lines by sorting them; the image (line, pixel) stands in the workspace."""
    n_lines, length = lines.shape
    ordered = work.empty("ordered", (1 if how.single_reference else n_lines, length), np.float32)
    codes, runs = work.empty("ranks", lines.shape, np.uint32), work.empty("runs", (lines.size // 64, 2), np.int32)
    buckets, weights = _buckets(lines), _lane_weights(n_lines, how.sigmas)
    n_runs, references = match.sort_lines(lines, buckets, weights, ordered, codes, runs)
    if n_runs > len(runs):
        runs = np.empty((n_runs, 2), np.int32)
        match.sort_lines(lines, buckets, weights, ordered, codes, runs)
    runs = runs[:n_runs]
    if how.single_reference:
        return _look_up_ranks(codes, references, runs, how, work)
    return _match_own(ordered, codes, runs, how, work)


def _look_up_ranks(
    codes: NDArray[np.uint32], references: NDArray[np.float64], runs: NDArray[np.int32], how: Midway, work: Workspace
) -> tuple[NDArray[np.float32], float]:
    (length, n), (first, end) = references.shape, runs.T
    tables = np.zeros((length + len(runs), _lanes(how)), np.float32)
    sums = _running_sums(references, axis=0)
    begin = end - 1 if how.upper else first
    tables[:length, :n] = references
    tables[length:, :n] = (sums[end] - sums[begin]) / (end - begin)[:, None]
    lane = _flattest(how, lambda: match.total_variation(codes, tables, 0))
    image = work.empty("image", codes.shape, np.float32)
    match.look_up(codes, np.ascontiguousarray(tables[:, lane]), 0, image)
    return image, how.sigmas[lane]


def _match_own(
    ordered: NDArray[np.float32], codes: NDArray[np.uint32], runs: NDArray[np.int32], how: Midway, work: Workspace
) -> tuple[NDArray[np.float32], float]:
    best, least = work.empty("image", codes.shape, np.float32), np.inf
    image = work.empty("trial", codes.shape, np.float32)
    chosen = how.sigmas[0]
    for sigma in how.sigmas:
        match.match_own(codes, match.smooth_across_lines(ordered, gaussian(sigma)), runs, how.upper, image)
        variation = match.image_variation(image)
        if _is_less(variation, least):
            least, chosen = variation, sigma
            best, image = image, best
    return best, chosen


def _buckets(lines: NDArray[np.float32]) -> tuple[NDArray[np.int32], float, float]:
    """Buckets that hold about one pixel of a line each, over bins of equal width from `low`."""
    step = max(lines.size // _SAMPLE, 1) | 1  # odd: no line is sampled alone
    sample = np.sort(lines.reshape(-1)[::step])
    tail = int(_TAIL * sample.size)
    low, high = float(sample[tail]), float(sample[-1 - tail])
    if not high > low:
        return np.zeros(1, np.int32), low, 0.0
    edges = np.linspace(low, high, _BINS, endpoint=False)
    below = np.searchsorted(sample, edges) / sample.size
    return (below * lines.shape[1]).astype(np.int32), low, _BINS / (high - low)
