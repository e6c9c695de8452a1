"""The body of a PixelHistogram stream: from an array to bytes and back. docs/codecs.md specifies it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.codecs import pixel_context_stream as context
from mrczdask.codecs.class_map import NAME, pack_map, read_map
from mrczdask.codecs.container import (
    Bytes,
    Cutter,
    Header,
    as_written,
    corrupt,
    describe,
    masked_by_largest,
    open_stream,
    restore_simple,
    seal,
    simple,
    varint,
)
from mrczdask.errors import CodecError
from mrczdask.kernels import rans
from mrczdask.kernels.bits import DIRECT_BITS, read_varints, token_bases, write_varints
from mrczdask.kernels.class_tables import choose_kind, complete_table, read_classes, write_classes
from mrczdask.kernels.histogram_classes import (
    MAX_BINS,
    MAX_CLASSES,
    fine_bins,
    optimal_cuts,
    pixel_sums,
    token_histograms,
)
from mrczdask.kernels.pixel_symbols import apply_patches, order_by_class, pixels_of, runs_of, symbolise

MAGIC: Final = b"MPXH"
_FLAT, _PATTERNS, _IN_CONTEXT = 0, 1, 2
_SAMPLE: Final = 1 << 20
"""Pixels counted for the histograms of a chunk; more change the size by less than 0.1 %."""
_GLANCE: Final = 1 << 14
_FEWEST_PATTERNS: Final = 4
_WIDE: Final = 1 << 17
"""Wider patterns are first looked at through every eighth pixel or fewer: most movies need one class."""
_BLOCK_BYTES: Final = 1 << 18
"""Rows are coded in blocks that stay in the second-level cache while the classes are gone through."""
_FIELDS: Final = 10


@dataclass(frozen=True)
class Model:
    """The classes of a chunk; an empty `class_of` means one class of all pixels."""

    class_of: NDArray[np.uint8]
    members: NDArray[np.int64]
    kinds: NDArray[np.int64]
    bases: NDArray[np.int64]
    stored: NDArray[np.uint16]
    """Frequencies of single pixels or tokens, as written."""
    joint: NDArray[np.uint16]
    """Frequencies of symbols."""


def encode(array: Any, pattern_size: int | None) -> bytes:
    """Encode an array; `pattern_size` pixels are one pattern (None: the last two axes)."""
    pixels, header = describe(array)
    if pattern_size is None:
        pattern_size = math.prod(pixels.shape[-2:]) if pixels.ndim > 1 else pixels.size
    if pixels.size and pixels.size % pattern_size:
        raise CodecError(
            f"{NAME}: a chunk of {pixels.shape} is not a whole number of patterns of {pattern_size} pixels: "
            "give the pattern_shape that the chunks hold"
        )
    plain = simple(MAGIC, pixels, header)
    if plain is not None:
        return plain
    body = _coded(pixels, pattern_size)
    out = seal(MAGIC, header, *body) if body is not None else b""
    if not out or len(out) > pixels.nbytes:
        plain = simple(MAGIC, pixels, header, stored=True)
        assert plain is not None
        return plain
    return out


def _coded(pixels: NDArray[Any], pattern_size: int) -> list[bytes] | None:
    """Body of a coded stream; None when the chunk is better stored."""
    low = _origin(pixels.reshape(-1)) % (1 << 8 * pixels.itemsize)
    values = pixels.reshape(-1).view(f"u{pixels.itemsize}")
    patterns = values.reshape(-1, pattern_size)
    for sample in (_SAMPLE, values.size):
        model = _fit(patterns, low, sample)
        stack, tail = _stack(values, patterns, model)
        block = _block_rows(stack)
        order = order_by_class(model.class_of, model.members)
        members = model.members if order.size else np.array([stack.shape[1]])
        rows = len(patterns) if order.size else len(stack)
        parts = symbolise(stack, rows, low, block, order, members, model.kinds, model.bases, model.joint)
        if parts[0]:
            break
    ok, symbols, extra, n_bits, patches = parts
    if not ok:
        return None
    runs = runs_of(rows, block, model.kinds, members)
    states, words = rans.encode_runs(symbols, runs, model.joint)
    side, patch_bytes = _side_information(model), _pack_patches(patches)
    form = _PATTERNS if order.size else _FLAT
    n = (len(model.kinds), len(side), len(patches), len(patch_bytes), n_bits, words.size)
    body = [
        b"".join(varint(int(field)) for field in (form, pattern_size, block, low, *n)),
        side,
        tail.astype(tail.dtype.newbyteorder("<")).tobytes(),
        patch_bytes,
        extra.astype("<u8", copy=False).tobytes(),
        states.astype("<u4", copy=False).tobytes(),
        words.astype("<u2", copy=False).tobytes(),
    ]
    nbytes = sum(map(len, body))
    if not order.size or not context.may_pay(patterns, low, model.class_of, 8 * nbytes / values.size):
        return body
    other = _in_context(patterns, low, model.class_of)
    return other if sum(map(len, other)) < nbytes else body


def _in_context(patterns: NDArray[Any], low: int, class_of: Bytes) -> list[bytes]:
    """Body of a stream whose tables follow from the pattern before."""
    n_tables, (side, extra), n_bits, coded = context.encode(patterns, low, class_of)
    fields = (_IN_CONTEXT, patterns.shape[1], 4, low, n_tables, len(side), 0, 0, n_bits, coded.size - 2 * rans.LANES)
    return [b"".join(varint(int(field)) for field in fields), side, extra, coded.tobytes()]


def _origin(pixels: NDArray[Any]) -> int:
    """What offsets are counted from: the smallest pixel, or the foot of the crowd where outliers are far below it.

    Where the largest number of the type marks masked pixels it becomes offset 0, and a count of n offset n + 1.
    """
    if masked_by_largest(pixels):
        return -1
    lowest = int(pixels.min())
    foot, middle = (int(q) for q in np.quantile(pixels[:: pixels.size // _GLANCE + 1], (0.01, 0.5), method="lower"))
    return max(lowest, 2 * foot - middle - 8) if foot > lowest + 32 else lowest


def _stack(values: NDArray[Any], patterns: NDArray[Any], model: Model) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rows to code, a multiple of four, and the last pixels that do not fill one."""
    if not model.class_of.size:
        whole = values.size // 4 * 4
        return values[:whole].reshape(4, -1), values[whole:]
    missing = -len(patterns) % 4  # repeated patterns fill the last group; the decoder drops them
    stack = np.concatenate([patterns, patterns[:1].repeat(missing, 0)]) if missing else patterns
    return stack, values[:0]


def _block_rows(stack: NDArray[Any]) -> int:
    rows = _BLOCK_BYTES // max(stack.shape[1] * stack.itemsize, 1)
    return min(max(rows // 4 * 4, 4), stack.shape[0])


def _fit(patterns: NDArray[Any], low: int, sample: int) -> Model:
    """Find the classes of pixels, and kind, base and table of each."""
    n, size = patterns.shape
    step = max(n * size // sample, 1)
    if n >= _FEWEST_PATTERNS and (
        size < _WIDE or len(_cut(patterns[:, :: size // _WIDE * 8 + 1].copy(), low, 1)[0]) > 1
    ):
        cuts, groups, histograms = _cut(patterns, low, step)
        if len(cuts) > 1:
            class_of_bin = (np.searchsorted(cuts, np.arange(len(histograms)), "right") - 1).astype(np.uint8)
            class_of = class_of_bin[groups]
            return _tables(patterns, low, class_of, np.add.reduceat(histograms, cuts), step)
    flat = patterns.reshape(-1)
    width = max(min(flat.size // 64, 4096), 1)
    rows = flat[: flat.size // width * width].reshape(-1, width)
    tokens = token_histograms(rows, low, np.zeros(width, np.uint8), np.zeros(1, np.int64), step, True)
    return _tables(rows, low, np.zeros(0, np.uint8), tokens, step)


def _cut(patterns: NDArray[Any], low: int, step: int) -> tuple[NDArray[np.int64], Bytes, NDArray[np.int64]]:
    """First fine bin of each class, fine bin of each pixel, histograms of the fine bins."""
    groups, n_bins = fine_bins(pixel_sums(patterns, low), MAX_BINS)
    histograms = token_histograms(patterns, low, groups, np.zeros(n_bins, np.int64), step, True)
    population = np.bincount(groups, minlength=n_bins)
    cuts = optimal_cuts(histograms, population, patterns.size / histograms.sum(), MAX_CLASSES, True)
    return cuts, groups, histograms


def _tables(rows: NDArray[Any], low: int, class_of: Bytes, tokens: NDArray[np.int64], step: int) -> Model:
    """Kind, base and table of given classes from their token counts above `low`."""
    n = len(tokens)
    groups = class_of if class_of.size else np.zeros(rows.shape[1], np.uint8)
    bases = _lowest_offsets(tokens)
    if bases.any():
        tokens = token_histograms(rows, low, groups, bases, step, True)
    direct = tokens
    if tokens[:, 1 << DIRECT_BITS :].any():
        direct = token_histograms(rows, low, groups, bases, step, False)
    kinds = np.empty(n, np.int64)
    stored, joint = np.empty((2, n, rans.ALPHABET), np.uint16)
    for c in range(n):
        kinds[c], stored[c], _ = choose_kind(direct[c], tokens[c])
        complete_table(stored[c], kinds[c], joint[c])
    members = np.bincount(class_of, minlength=n) if class_of.size else np.array([rows.shape[1]])
    return Model(class_of, members, kinds, bases, stored, joint)


def _lowest_offsets(tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """Smallest offset that at most one pixel in 10 000 of each class is below."""
    cumulative = np.cumsum(tokens, axis=1)
    first = np.argmax(cumulative > 1e-4 * cumulative[:, -1:], axis=1)
    return token_bases()[0].astype(np.int64)[first]


def _side_information(model: Model) -> bytes:
    """Kinds, bases and tables of the classes, and the map of classes."""
    bits = write_classes(model.kinds, model.bases, model.stored)
    if not model.class_of.size:
        return bits.tobytes()
    table, map_of_classes = pack_map(model.class_of)
    return b"".join([varint(len(bits)), varint(len(table)), bits.tobytes(), table, map_of_classes])


def _pack_patches(patches: NDArray[np.int64]) -> bytes:
    """Distances from patch to patch, each followed by its offset."""
    pairs = patches[np.argsort(patches[:, 0])]
    pairs[1:, 0] -= pairs[:-1, 0].copy()
    return write_varints(pairs.reshape(-1)).tobytes()


def open_body(stream: Any) -> tuple[Header, memoryview]:
    """Check a stream; return its header and body. No memory is taken for its pixels."""
    return open_stream(MAGIC, NAME, stream)


def decode_body(header: Header, body: memoryview) -> NDArray[Any]:
    """Decode an opened stream into the shape, type and memory order that were encoded."""
    pixels = restore_simple(header, body, NAME)
    return as_written(_decoded(header, body) if pixels is None else pixels, header)


def _decoded(header: Header, body: memoryview) -> NDArray[Any]:
    """Pixels of a coded body, C order."""
    cut = Cutter(body, NAME)
    form, size, block, low, n_classes, n_side, n_patches, n_patch_bytes, n_bits, n_words = cut.varints(_FIELDS)
    dtype = np.dtype(f"u{header.dtype.itemsize}")
    n_patterns = header.size // size if size and header.size % size == 0 else 0
    if (
        form > _IN_CONTEXT
        or n_patterns < (1 if form == _FLAT else _FEWEST_PATTERNS)
        or not 1 <= n_classes <= (context.MAX_TABLES if form == _IN_CONTEXT else MAX_CLASSES)
        or low >> 8 * dtype.itemsize
    ):
        raise corrupt(NAME, "its layout")
    if form == _FLAT:
        rows, padded, columns, n_tail = 4, 4, header.size // 4, header.size % 4
    else:
        rows, padded, columns, n_tail = n_patterns, -(-n_patterns // 4) * 4, size, 0
    if block % 4 or not 4 <= block <= padded or (form == _FLAT and n_classes > 1):
        raise corrupt(NAME, "its blocks")
    side = cut.take(n_side)
    tail = cut.take(n_tail, dtype.str)
    patches, at = read_varints(cut.take(n_patch_bytes), 0, 2 * n_patches)
    if at != n_patch_bytes:
        raise corrupt(NAME, "its patches")
    extra = np.append(cut.take((n_bits + 63) // 64, "u8"), np.zeros(2, np.uint64))
    states = cut.take(rans.LANES, "u4")
    words = np.append(cut.take(n_words, "u2"), np.zeros(rans.LANES, np.uint16))
    cut.end()
    values = np.empty(padded * columns + n_tail, dtype)
    values[padded * columns :] = tail
    flat = values[: padded * columns]
    if form == _IN_CONTEXT:
        if n_patches:
            raise corrupt(NAME, "its patches")
        context.decode(flat.reshape(padded, columns)[:rows], low, side, n_classes, states, words, extra, n_bits)
        return values[: header.size].view(header.dtype).reshape(header.shape)
    classes = _read_side(side, n_classes, columns, form)
    _fill(flat.reshape(padded, columns), rows, low, block, classes, states, words, extra, n_bits)
    if not apply_patches(flat, low, columns, classes.class_of, classes.bases, patches.reshape(-1, 2)):
        raise corrupt(NAME, "its patches")
    return values[: header.size].view(header.dtype).reshape(header.shape)


def _fill(
    stack: NDArray[Any],
    rows: int,
    low: int,
    block: int,
    classes: Model,
    states: NDArray[Any],
    words: NDArray[Any],
    extra: NDArray[Any],
    n_bits: int,
) -> None:
    """Decode the symbols into rows of pixels."""
    runs = runs_of(rows, block, classes.kinds, classes.members)
    symbols = np.empty(int(runs[:, 1].sum()), np.uint8)
    if not rans.decode_runs(states, words, runs, rans.decoding_table(classes.joint), symbols):
        raise corrupt(NAME, "its symbols")
    order = order_by_class(classes.class_of, classes.members)
    members, kinds, bases = classes.members, classes.kinds, classes.bases
    if not pixels_of(symbols, stack, rows, low, block, order, members, kinds, bases, extra, n_bits):
        raise corrupt(NAME, "its extra bits")


def _read_side(side: Bytes, n_classes: int, columns: int, form: int) -> Model:
    """Classes and their map."""
    kinds, bases = np.empty((2, n_classes), np.int64)
    joint = np.empty((n_classes, rans.ALPHABET), np.uint16)
    class_of = np.zeros(0, np.uint8)
    bits, members = side, np.array([columns])
    if form == _PATTERNS:
        cut = Cutter(memoryview(side.data), NAME)
        n_bits, n_table = cut.varints(2)
        bits = cut.take(n_bits)
        class_of = read_map(cut, cut.take(n_table), columns, n_classes)
        members = np.bincount(class_of, minlength=n_classes)
    if not read_classes(bits, kinds, bases, joint):
        raise corrupt(NAME, "its tables")
    return Model(class_of, members, kinds, bases, joint, joint)
