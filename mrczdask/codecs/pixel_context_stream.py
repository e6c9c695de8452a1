"""PixelHistogram with the pattern before as context: what fine scans of smooth samples gain by. docs/codecs.md."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.codecs.class_map import NAME, pack_map, read_map
from mrczdask.codecs.container import Bytes, Cutter, corrupt, varint
from mrczdask.kernels import pattern_context as kernels
from mrczdask.kernels import rans
from mrczdask.kernels.class_tables import TOKEN, read_classes, write_classes
from mrczdask.kernels.histogram_classes import optimal_cuts

MAX_TABLES: Final = 128
"""2 MB for the decoder: what is looked up stays in the cache of a core."""
_CLASSES: Final = 16
_LEVELS: Final = MAX_TABLES // _CLASSES
_LEAST_SHARE: Final = 0.01
"""Of the stream that must be expected to fall away before the chunk is coded twice."""
_SAMPLE: Final = 1 << 17


def may_pay(patterns: NDArray[Any], low: int, class_of: Bytes, bits: float) -> bool:
    """Counts follow those of the pattern before so much that 1 % of `bits` a pixel may be saved."""
    step = patterns.size // _SAMPLE + 1
    classes = int(class_of.max()) + 1
    return kernels.correlation_bits(patterns, low, class_of, classes, step) > _LEAST_SHARE * bits


def encode(patterns: NDArray[Any], low: int, class_of: Bytes) -> tuple[int, list[bytes], int, NDArray[np.uint16]]:
    """(tables, parts up to the extra bits, number of these, words and states as one array of 16 bits)."""
    classes = int(class_of.max()) + 1
    if classes > _CLASSES:  # neighbours in mean: levels take the place of the finest classes
        class_of, classes = (class_of.astype(np.int64) * _CLASSES // classes).astype(np.uint8), _CLASSES
    counts = kernels.transitions(patterns, low, class_of, classes)
    levels = [_levels(each) for each in counts]
    symbols, extra, n_bits = kernels.symbols_in_context(patterns, low, class_of, *_lookup(levels))
    n_tables = sum(1 + len(cuts) for _, cuts in levels)
    frequencies = np.stack(
        [rans.normalise(row) for row in np.bincount(symbols, minlength=n_tables << 8).reshape(n_tables, -1)]
    )
    states, words = kernels.encode_each(symbols, frequencies)
    return (
        n_tables,
        [_side(levels, frequencies, class_of), extra.astype("<u8", copy=False).tobytes()],
        n_bits,
        (np.concatenate([states.astype("<u4").view("<u2"), words.astype("<u2", copy=False)])),
    )


def _levels(counts: NDArray[np.int64]) -> tuple[int, NDArray[np.int64]]:
    """(level of the first pattern, first token of each further level) of a class's counts of (token before, token)."""
    seen = counts.sum(1)
    tokens = np.flatnonzero(seen)
    cuts = tokens[optimal_cuts(counts[tokens], seen[tokens], 1.0, _LEVELS, False)[1:]]
    usual = np.searchsorted(np.cumsum(seen), seen.sum() / 2)
    return int(np.searchsorted(cuts, usual, "right")), cuts


def _lookup(levels: list[tuple[int, NDArray[np.int64]]]) -> tuple[Bytes, Bytes]:
    """Table of (class, token before), and that of each class in the first pattern."""
    begin = np.cumsum([0, *(1 + len(cuts) for _, cuts in levels)])
    every = np.arange(rans.ALPHABET)
    table_of = [start + np.searchsorted(cuts, every, "right") for start, (_, cuts) in zip(begin, levels, strict=False)]
    first = [start + level for start, (level, _) in zip(begin, levels, strict=False)]
    return np.array(table_of, np.uint8), np.array(first, np.uint8)


def _side(levels: list[tuple[int, NDArray[np.int64]]], frequencies: NDArray[np.uint16], class_of: Bytes) -> bytes:
    """Tables, map of classes and levels."""
    nothing = np.zeros(len(frequencies), np.int64)
    tables = write_classes(nothing + TOKEN, nothing, frequencies).tobytes()
    numbers = [len(levels)]
    for level, cuts in levels:
        numbers += [len(cuts), level, *np.diff(cuts, prepend=0).tolist()]
    table, map_of_classes = pack_map(class_of)
    packed = b"".join(varint(n) for n in numbers)
    return b"".join(
        [varint(len(tables)), varint(len(table)), varint(len(packed)), tables, table, packed, map_of_classes]
    )


def decode(
    patterns: NDArray[Any],
    low: int,
    side: Bytes,
    n_tables: int,
    states: NDArray[np.uint32],
    words: NDArray[np.uint16],
    extra: NDArray[np.uint64],
    n_bits: int,
) -> None:
    """Fill patterns (rows, columns) from a stream; `words` and `extra` with the zeros that the kernel wants."""
    cut = Cutter(memoryview(side.data), NAME)
    n_bytes, n_map, n_levels = cut.varints(3)
    kinds, bases = np.empty((2, n_tables), np.int64)
    frequencies = np.empty((n_tables, rans.ALPHABET), np.uint16)
    if not read_classes(cut.take(n_bytes), kinds, bases, frequencies) or (kinds != TOKEN).any() or bases.any():
        raise corrupt(NAME, "its tables")
    packed = cut.take(n_map)
    levels = _read_levels(Cutter(memoryview(cut.take(n_levels).data), NAME), n_tables)
    class_of = read_map(cut, packed, patterns.shape[1], len(levels))
    table_of, first = _lookup(levels)
    table = rans.decoding_table(frequencies)
    if not kernels.decode_patterns(patterns, low, class_of, table_of, first, table, states, words, extra, n_bits):
        raise corrupt(NAME, "its symbols")


def _read_levels(cut: Cutter, n_tables: int) -> list[tuple[int, NDArray[np.int64]]]:
    """Levels of every class: they have `n_tables` in all."""
    (n_classes,) = cut.varints(1)
    left, levels = n_tables, []
    for _ in range(min(n_classes, n_tables)):
        n_cuts, level = cut.varints(2)
        cuts = np.cumsum(np.minimum(cut.varints(n_cuts), rans.ALPHABET), dtype=np.int64)
        left -= 1 + n_cuts
        if level > n_cuts or left < 0:
            break
        levels.append((level, cuts))
    cut.end()
    if left or not levels or len(levels) != n_classes:
        raise corrupt(NAME, "its levels")
    return levels
