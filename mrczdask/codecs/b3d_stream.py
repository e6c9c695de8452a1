"""The body of a B3D stream: from an array to bytes and back. docs/codecs.md specifies it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.codecs.container import (
    Cutter,
    Header,
    as_written,
    describe,
    masked_by_largest,
    restore_simple,
    seal,
    simple,
    varint,
)
from mrczdask.errors import CodecError
from mrczdask.kernels import huffman, prediction, prediction_decoder, rans
from mrczdask.kernels import prediction_model as models
from mrczdask.kernels.bits import unzigzag, write_varints, zigzag
from mrczdask.kernels.noise_levels import (
    UNIT_BITS,
    Inverse,
    Noise,
    inverse_of,
    quantised_residuals,
    restore,
    stabilised_levels,
    strict_levels,
)

MAGIC: Final = b"MB3D"
NAME: Final = "mrczdask.b3d"
_LOSSLESS, _LEVELS, _PREDICTED = 0, 1, 2
_FEWEST_PIXELS: Final = 64


@dataclass(frozen=True)
class Choices:
    """How to code, apart from the noise."""

    fitted: bool
    entropy: int
    strict: bool
    quantise_first: bool


def encode(array: Any, frame: tuple[int, int] | None, choices: Choices, noise: Noise | None) -> bytes:
    """Encode an array; `frame` is (height, width) of its images (None: the last two axes)."""
    pixels, header = describe(array)
    height, width = _frame_of(pixels, frame)
    plain = simple(MAGIC, pixels, header)
    if plain is not None:
        return plain
    if noise is not None and pixels.itemsize > 2:
        raise CodecError(
            f"{NAME}: within the noise only 8 and 16 bits are coded, not {pixels.dtype}: convert the array"
        )
    rows = pixels.reshape(-1, width)
    if noise is None:
        turn = int(masked_by_largest(rows))
        parts = _lossless(rows + rows.dtype.type(turn), height, choices, varint(turn))
        form = _LOSSLESS
    elif choices.quantise_first:
        parts = _levels(rows, height, choices, noise)
        form = _LEVELS
    else:
        parts = _predicted(rows, height, choices, noise)
        form = _PREDICTED
    head = b"".join(varint(n) for n in (form, choices.entropy, height, width))
    out = seal(MAGIC, header, head, *parts)
    if len(out) <= pixels.nbytes:
        return out
    plain = simple(MAGIC, pixels, header, stored=True)
    assert plain is not None
    return plain


def _frame_of(pixels: NDArray[Any], frame: tuple[int, int] | None) -> tuple[int, int]:
    """Height and width of the images in a chunk."""
    if frame is None:
        frame = (pixels.shape[-2] if pixels.ndim > 1 else 1, pixels.shape[-1] if pixels.ndim else 1)
    if pixels.size and pixels.size % (frame[0] * frame[1]):
        raise CodecError(
            f"{NAME}: a chunk of {pixels.shape} is not a whole number of frames of {frame}: "
            "give the frame_shape that the chunks hold"
        )
    return frame


def _lossless(rows: NDArray[Any], height: int, choices: Choices, before: bytes) -> list[bytes]:
    """Predict and code rows of integers."""
    low, high, bits = int(rows.min()), int(rows.max()), 8 * rows.itemsize
    make = models.fitted if choices.fitted else None
    model = make(rows, height, low, high, bits) if make else models.classic(low, high, bits)
    starts = models.contexts(rows, height, model)
    before, n_tables = before + _pack_model(model, starts), len(starts) + 1
    if choices.entropy == prediction.HUFFMAN:
        parts = _huffman(*prediction.residuals(rows, height, model, models.lookup_of(starts)), n_tables)
    else:
        parts = _rans(*prediction.residual_symbols(rows, height, model, models.lookup_of(starts)), rows.shape, n_tables)
    return [before, *parts]


def _levels(rows: NDArray[Any], height: int, choices: Choices, noise: Noise) -> list[bytes]:
    """Replace codes by levels, then predict levels."""
    level_of, codes = (strict_levels if choices.strict else stabilised_levels)(noise, rows.dtype)
    levels = level_of[rows.astype(np.int64) - int(np.iinfo(rows.dtype).min)]
    low, high = int(levels.min()), int(levels.max())
    used = codes[low : high + 1]
    table = np.concatenate([[len(used), zigzag(int(used[0]))], np.diff(used)])
    return _lossless(levels - np.uint16(low), height, choices, write_varints(table).tobytes())


def _predicted(rows: NDArray[Any], height: int, choices: Choices, noise: Noise) -> list[bytes]:
    """Predict stabilised values from decoded neighbours, then quantise the residuals."""
    info = np.iinfo(rows.dtype)
    inverse = inverse_of(noise, rows.dtype)
    if not inverse.is_safe or inverse.top >= 2**30:
        raise CodecError(f"{NAME}: this noise overflows 64-bit integers: choose a larger quantisation")
    table = np.rint(noise.stabilised(np.arange(info.min, info.max + 1)) * (1 << UNIT_BITS)).astype(np.int32)
    units = table[rows.astype(np.int64) - info.min]
    low, high = int(units.min()), int(units.max())
    model = models.fitted(units, height, low, high, 32) if choices.fitted else models.classic(low, high, 32)
    model[prediction.STEP] = 1 << UNIT_BITS
    starts = models.contexts(units, height, model)
    folded, contexts = quantised_residuals(units, height, model, models.lookup_of(starts))
    numbers = (inverse.scale, inverse.shift, zigzag(inverse.constant), inverse.top)
    before, n_tables = b"".join(varint(n) for n in numbers) + _pack_model(model, starts), len(starts) + 1
    if choices.entropy == prediction.HUFFMAN:
        return [before, *_huffman(folded, contexts, n_tables)]
    return [before, *_rans(*prediction.symbols_of(folded, contexts), rows.shape, n_tables)]


def _pack_model(model: NDArray[np.int64], starts: NDArray[np.int64]) -> bytes:
    """Weights, range and contexts as variable-length integers."""
    w = [int(n) for n in model]
    signed = [zigzag(n) for n in (*w[prediction.W0 : prediction.BIAS + 1], w[prediction.LOW], w[prediction.HIGH])]
    shifts = [w[prediction.SHIFT], w[prediction.CONTEXT_SHIFT], len(starts)]
    return b"".join(varint(n) for n in (*signed, *shifts, *np.diff(starts, prepend=0).tolist()))


def _huffman(folded: NDArray[np.uint32], contexts: NDArray[np.uint8], n_tables: int) -> list[bytes]:
    """Tables, codes and extra bits of residuals."""
    tokens, counts = prediction.tokenise(folded, contexts)
    side, position = _side(n_tables), 0
    lengths = np.stack([huffman.code_lengths(each) for each in counts])
    for table, each in zip(lengths[:n_tables], counts, strict=False):
        position = huffman.write_lengths(table, int(each.argmax()), side, position)
    extra, n_bits = huffman.encode_tokens(tokens, contexts, folded, lengths, prediction.FIRST_RUN)
    return _joined(side[: (position + 7) // 8], extra, n_bits, np.empty(0, np.uint32), np.empty(0, np.uint16))


def _rans(
    symbols: NDArray[np.uint16],
    counts: NDArray[np.int64],
    extra: NDArray[np.uint64],
    n_bits: int,
    shape: tuple[int, ...],
    n_tables: int,
) -> list[bytes]:
    """Tables, extra bits, states and words of symbols, which are lost."""
    side, position = _side(n_tables), 0
    frequencies = np.stack([rans.normalise(each) for each in counts])
    for table in frequencies[:n_tables]:
        position = rans.write_table(table, side, position)
    states, words = prediction.encode_lanes(symbols, frequencies, *shape)
    return _joined(side[: (position + 7) // 8], extra, n_bits, states, words)


def _side(n_tables: int) -> NDArray[np.uint8]:
    """Room for tables."""
    return np.zeros(n_tables * rans.TABLE_BITS // 8 + 8, np.uint8)


def _joined(
    side: NDArray[np.uint8],
    extra: NDArray[np.uint64],
    n_bits: int,
    states: NDArray[np.uint32],
    words: NDArray[np.uint16],
) -> list[bytes]:
    """What follows the model, with its lengths."""
    return [
        b"".join(varint(int(n)) for n in (side.size, n_bits, words.size)),
        side.tobytes(),
        extra.astype("<u8", copy=False).tobytes(),
        states.astype("<u4", copy=False).tobytes(),
        words.astype("<u2", copy=False).tobytes(),
    ]


def decode_body(header: Header, body: memoryview) -> NDArray[Any]:
    """Decode an opened stream into the shape, type and memory order that were encoded."""
    pixels = restore_simple(header, body, NAME)
    return as_written(_decoded(header, body) if pixels is None else pixels, header)


def _decoded(header: Header, body: memoryview) -> NDArray[Any]:
    """Pixels of a coded body, C order."""
    cut = Cutter(body, NAME)
    form, entropy, height, width = cut.varints(4)
    if form > _PREDICTED or entropy > prediction.HUFFMAN or not height or not width or header.size % (height * width):
        raise cut.corrupt("its layout")
    shape = (header.size // width, width)
    if form == _LOSSLESS:
        (turn,) = cut.varints(1)
        rows = _decode_rows(cut, header.dtype, shape, height, entropy, 1)
        if turn > 1:
            raise cut.corrupt("its layout")
        rows -= header.dtype.type(turn)
        return rows.reshape(header.shape)
    if header.dtype.itemsize > 2:
        raise cut.corrupt("its layout")
    info = np.iinfo(header.dtype)
    if form == _LEVELS:
        n_levels, first = cut.varints(2)
        if not 1 <= n_levels <= 65536:
            raise cut.corrupt("its levels")
        codes = np.cumsum([unzigzag(first), *cut.varints(n_levels - 1)])
        if codes.min() < info.min or codes.max() > info.max:
            raise cut.corrupt("its levels")
        levels = _decode_rows(cut, np.dtype(np.uint16), shape, height, entropy, 1)
        if int(levels.max()) >= n_levels:
            raise cut.corrupt("its levels")
        return codes.astype(header.dtype)[levels].reshape(header.shape)
    scale, shift, constant, top = cut.varints(4)
    inverse = Inverse(scale, shift, unzigzag(constant), top)
    if not inverse.is_safe:
        raise cut.corrupt("its transform")
    units = _decode_rows(cut, np.dtype(np.int32), shape, height, entropy, 1 << UNIT_BITS)
    out = np.empty(header.shape, header.dtype)
    restore(units.reshape(-1), scale, shift, inverse.constant, top, info.min, info.max, out.reshape(-1))
    return out


def _decode_rows(
    cut: Cutter, dtype: np.dtype[Any], shape: tuple[int, int], height: int, entropy: int, step: int
) -> NDArray[Any]:
    """Undo `_lossless` and `_predicted` up to what was predicted."""
    model, lookup, n_tables = _read_model(cut, dtype, step)
    n_side, n_bits, n_words = cut.varints(3)
    table = _read_tables(cut, cut.take(n_side), n_tables, entropy)
    extra = np.append(cut.take((n_bits + 63) // 64 * 8), np.zeros(prediction_decoder.MARGIN, np.uint8))
    states: NDArray[np.uint32] = cut.take(rans.LANES if entropy == prediction.RANS else 0, "u4")
    words = np.append(cut.take(n_words, "u2"), np.zeros(rans.LANES, np.uint16))
    cut.end()
    rows = np.empty(shape, dtype)
    if entropy != prediction.RANS:
        states = np.zeros(rans.LANES, np.uint32)
    if not prediction_decoder.decode_pixels(rows, height, model, lookup, table, entropy, states, words, extra, n_bits):
        raise cut.corrupt("its residuals")
    return rows


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
