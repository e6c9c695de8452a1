"""The body of a B3D stream: from bytes to pixels. docs/codecs.md specifies it."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mrczdask.codecs.container import Cutter, Header, as_written, corrupt, restore_simple
from mrczdask.kernels import huffman, prediction, prediction_decoder, rans
from mrczdask.kernels import prediction_model as models
from mrczdask.kernels.bits import unzigzag
from mrczdask.kernels.noise_levels import UNIT_BITS, Inverse, dithered, restore

MAGIC: Final = b"MB3D"
NAME: Final = "mrczdask.b3d"
NEWEST: Final = 2
"""Version of the streams with dithered levels; all others are of version 1."""
LOSSLESS, LEVELS, PREDICTED, DITHERED = 0, 1, 2, 3
_LONG: Final = 9
"""Bytes of a variable-length integer below 2**63: the numbers of the transform need them."""


def decode_body(header: Header, body: memoryview) -> NDArray[Any]:
    """Decode an opened stream into the shape, type and memory order that were encoded."""
    pixels = restore_simple(header, body, NAME)
    return as_written(_decoded(header, body) if pixels is None else pixels, header)


class _Rows(NamedTuple):
    """Rows still coded: dtype of what is predicted, model, context lookup, decoding tables and the coded parts."""

    dtype: np.dtype[Any]
    model: NDArray[np.int64]
    lookup: NDArray[np.uint8]
    table: NDArray[np.uint32]
    states: NDArray[np.uint32]
    words: NDArray[np.uint16]
    extra: NDArray[np.uint8]
    n_bits: int


class _Body(NamedTuple):
    """All of a coded body; of turn, codes with parts and seed, and transform those that its form has."""

    form: int
    entropy: int
    height: int
    width: int
    turn: int
    codes: NDArray[np.int64]
    parts: NDArray[np.uint8]
    seed: int
    inverse: Inverse
    rows: _Rows


def parse(header: Header, body: memoryview) -> _Body:
    """Read and check everything but the pixels."""
    cut = Cutter(body, NAME)
    form, entropy, height, width = cut.varints(4)
    newest = DITHERED if header.version >= NEWEST else PREDICTED
    if form > newest or entropy > prediction.HUFFMAN or not height or not width or header.size % (height * width):
        raise cut.corrupt("its layout")
    if form != LOSSLESS and header.dtype.itemsize > 2:
        raise cut.corrupt("its layout")
    turn, seed, step, dtype = 0, 0, 1, header.dtype
    codes, parts, inverse = np.zeros(1, np.int64), np.zeros(1, np.uint8), Inverse(0, 0, 0, 0)
    if form == LOSSLESS:
        (turn,) = cut.varints(1)
        if turn > 1:
            raise cut.corrupt("its layout")
    elif form == PREDICTED:
        scale, shift, constant, top = cut.varints(4, _LONG)
        inverse, step, dtype = Inverse(scale, shift, unzigzag(constant), top), 1 << UNIT_BITS, np.dtype(np.int32)
        if not inverse.is_safe:
            raise cut.corrupt("its transform")
    else:
        dtype = np.dtype(np.uint16)
        codes, parts, seed = _read_levels(cut, header.dtype, form)
    return _Body(form, entropy, height, width, turn, codes, parts, seed, inverse, _read_rows(cut, dtype, entropy, step))


def _read_levels(cut: Cutter, dtype: np.dtype[Any], form: int) -> tuple[NDArray[np.int64], NDArray[np.uint8], int]:
    """Codes of the levels, and what dithers them."""
    n_levels, first = cut.varints(2)
    if not 1 <= n_levels <= 65536:
        raise cut.corrupt("its levels")
    steps = [unzigzag(first), *cut.varints(n_levels - 1)]
    parts, seed = np.zeros(n_levels, np.uint8), 0
    if form == DITHERED:
        parts = cut.take(n_levels)
        (seed,) = cut.varints(1)
    info = np.iinfo(dtype)
    if max(map(abs, steps)) >> 16 or seed >> 32:
        raise cut.corrupt("its levels")
    codes = np.cumsum(steps, dtype=np.int64)
    if codes.min() < info.min or (codes + (parts > 0)).max() > info.max:
        raise cut.corrupt("its levels")
    return codes, parts, seed


def _decoded(header: Header, stream: memoryview) -> NDArray[Any]:
    """Pixels of a coded body, C order."""
    body = parse(header, stream)
    rows = _decode_rows(body, (header.size // body.width, body.width))
    if body.form == LOSSLESS:
        rows -= header.dtype.type(body.turn)
        return rows.reshape(header.shape)
    out, info = np.empty(header.shape, header.dtype), np.iinfo(header.dtype)
    if body.form == PREDICTED:
        kept = body.inverse
        restore(rows.reshape(-1), kept.scale, kept.shift, kept.constant, kept.top, info.min, info.max, out.reshape(-1))
        return out
    if int(rows.max()) >= len(body.codes):
        raise corrupt(NAME, "its levels")
    if body.form == LEVELS:
        return body.codes.astype(header.dtype)[rows].reshape(header.shape)
    dithered(rows.reshape(-1), body.codes, body.parts, body.seed, out.reshape(-1))
    return out


def _decode_rows(body: _Body, shape: tuple[int, int]) -> NDArray[Any]:
    """Undo `_lossless` and `_predicted` up to what was predicted."""
    _, entropy, height, *_ = body
    coded = body.rows
    rows, tables = np.empty(shape, coded.dtype), (coded.model, coded.lookup, coded.table)
    streams: Any = (coded.states, coded.words, coded.extra, coded.n_bits)
    if not prediction_decoder.decode_pixels(rows, height, *tables, entropy, *streams):
        raise corrupt(NAME, "its residuals")
    return rows


def _read_rows(cut: Cutter, dtype: np.dtype[Any], entropy: int, step: int) -> _Rows:
    """Model, tables and coded parts, to the end."""
    model, lookup, n_tables = _read_model(cut, dtype, step)
    n_side, n_bits, n_words = cut.varints(3)
    table = _read_tables(cut, cut.take(n_side), n_tables, entropy)
    extra = np.append(cut.take((n_bits + 63) // 64 * 8), np.zeros(prediction_decoder.MARGIN, np.uint8))
    states: NDArray[np.uint32] = cut.take(rans.LANES if entropy == prediction.RANS else 0, "u4")
    words = np.append(cut.take(n_words, "u2"), np.zeros(rans.LANES, np.uint16))
    cut.end()
    if entropy != prediction.RANS:
        states = np.zeros(rans.LANES, np.uint32)
    return _Rows(dtype, model, lookup, table, states, words, extra, n_bits)


def _read_model(cut: Cutter, dtype: np.dtype[Any], step: int) -> tuple[NDArray[np.int64], NDArray[np.uint8], int]:
    """Model, context lookup and number of tables."""
    signed = [unzigzag(n) for n in cut.varints(7)]
    shift, context_shift, n_starts = cut.varints(3)
    info = np.iinfo(dtype)
    *weights, bias, low, high = signed
    safe = max(abs(w) for w in weights) <= models.MAX_WEIGHT and abs(bias) < 2**48 and shift <= prediction.WEIGHT_BITS
    if not safe or not info.min <= low <= high <= info.max or context_shift > 32 or n_starts >= prediction.CONTEXTS:
        raise cut.corrupt("its predictor")
    starts = np.cumsum(cut.varints(n_starts), dtype=np.int64)
    if (high - low) >> context_shift >= prediction.LOOKUP or (starts > prediction.LOOKUP).any():
        raise cut.corrupt("its contexts")
    model = np.array([*weights, bias, shift, low, high, step, 8 * dtype.itemsize, context_shift], np.int64)
    return model, models.lookup_of(starts), n_starts + 1


def _read_tables(cut: Cutter, side: NDArray[np.uint8], n_tables: int, entropy: int) -> NDArray[np.uint32]:
    """Decoding tables of the contexts."""
    position = 0
    if entropy == prediction.RANS:
        frequencies = np.empty((n_tables, rans.ALPHABET), np.uint16)
        for each in frequencies:
            position = rans.read_table(side, position, each)
            if position < 0:
                raise cut.corrupt("its tables")
        return rans.decoding_table(frequencies)
    entries = np.empty((n_tables, rans.SCALE), np.uint32)
    lengths = np.empty(rans.ALPHABET, np.uint8)
    for entry in entries:
        only, position = huffman.read_lengths(side, position, lengths)
        if position < 0:
            raise cut.corrupt("its tables")
        huffman.decoding_entries(lengths, only, entry)
    return entries.reshape(-1)
