"""The body of a B3D stream: from an array to bytes. docs/codecs.md specifies it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from mrczdask.codecs.b3d_reader import DITHERED, LEVELS, LOSSLESS, MAGIC, NAME, NEWEST, PREDICTED, parse
from mrczdask.codecs.container import describe, masked_by_largest, open_stream, seal, simple, varint
from mrczdask.errors import CodecError
from mrczdask.kernels import huffman, prediction, rans
from mrczdask.kernels import prediction_model as models
from mrczdask.kernels.bits import write_varints, zigzag
from mrczdask.kernels.noise_levels import (
    UNIT_BITS,
    Inverse,
    Noise,
    balanced_levels,
    inverse_of,
    quantised_residuals,
    stabilised_levels,
    strict_levels,
)

_COARSE_SCALE: Final = 16
"""Least scale of a transform: rounded down, it makes the step finer by 3 % at most."""
_EXACT: Final = 2.0**53
"""Whole numbers above this are not all floats."""


@dataclass(frozen=True)
class Choices:
    """How to code, apart from the noise."""

    fitted: bool
    entropy: int
    strict: bool
    quantise_first: bool
    dither: bool


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
        form = LOSSLESS
    elif choices.quantise_first:
        form = DITHERED if choices.strict and choices.dither else LEVELS
        parts = _levels(rows, height, choices, noise)
    else:
        parts = _predicted(rows, height, choices, noise)
        form = PREDICTED
    head = b"".join(varint(n) for n in (form, choices.entropy, height, width))
    out = seal(MAGIC, replace(header, version=NEWEST) if form == DITHERED else header, head, *parts)
    _prove(out)
    if len(out) <= pixels.nbytes:
        return out
    plain = simple(MAGIC, pixels, header, stored=True)
    assert plain is not None
    return plain


def _prove(stream: bytes) -> None:
    """Read all of a stream but its residuals: what cannot be read back is never handed out."""
    try:
        header, body = open_stream(MAGIC, NAME, stream, NEWEST)
        parse(header, body)
    except CodecError as error:
        raise CodecError(
            f"{NAME}: the stream made of these settings cannot be read back ({error}): report it"
        ) from None


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
    lookup = models.lookup_of(starts)
    if choices.entropy == prediction.HUFFMAN:
        folded, contexts = prediction.residuals(rows, height, model, lookup)
        return [before, *_huffman(folded, contexts, n_tables)]
    symbols, counts, extra, n_bits = prediction.residual_symbols(rows, height, model, lookup)
    return [before, *_rans(symbols, counts, extra, n_bits, rows.shape, n_tables)]


def _levels(rows: NDArray[Any], height: int, choices: Choices, noise: Noise) -> list[bytes]:
    """Replace codes by levels, then predict levels."""
    info, after = np.iinfo(rows.dtype), b""
    if not choices.strict and not noise.stabilised(np.array([info.max]))[0] < _EXACT:
        raise CodecError(
            f"{NAME}: quantisation={noise.quantisation:g} is too fine to be told from 0, which is lossless"
        )
    if choices.strict and choices.dither:
        level_of, codes, parts = balanced_levels(noise, rows.dtype)
    else:
        level_of, codes = (strict_levels if choices.strict else stabilised_levels)(noise, rows.dtype)
        parts = None
    levels = level_of[rows.astype(np.int64) - int(info.min)]
    low, high = int(levels.min()), int(levels.max())
    used = codes[low : high + 1]
    table = np.concatenate([[len(used), zigzag(int(used[0]))], np.diff(used)])
    if parts is not None:
        after = parts[low : high + 1].tobytes() + varint(_seed_of(rows))
    return _lossless(levels - np.uint16(low), height, choices, write_varints(table).tobytes() + after)


def _seed_of(rows: NDArray[Any]) -> int:
    """A number that follows from the pixels: the same for the same chunk, another for the next."""
    little = np.ascontiguousarray(rows, rows.dtype.newbyteorder("<"))
    return int(google_crc32c.value(little.tobytes()))


def _predicted(rows: NDArray[Any], height: int, choices: Choices, noise: Noise) -> list[bytes]:
    """Predict stabilised values from decoded neighbours, then quantise the residuals."""
    info = np.iinfo(rows.dtype)
    inverse, values = inverse_of(noise, rows.dtype)
    _check_transform(inverse, noise)
    units = np.rint(values).astype(np.int32)[rows.astype(np.int64) - info.min]
    low, high = int(units.min()), int(units.max())
    model = models.fitted(units, height, low, high, 32) if choices.fitted else models.classic(low, high, 32)
    model[prediction.STEP] = 1 << UNIT_BITS
    starts = models.contexts(units, height, model)
    folded, contexts = quantised_residuals(units, height, model, models.lookup_of(starts))
    numbers = (inverse.scale, inverse.shift, zigzag(inverse.constant), inverse.top)
    before, n_tables = b"".join(varint(n) for n in numbers) + _pack_model(model, starts), len(starts) + 1
    if choices.entropy == prediction.HUFFMAN:
        return [before, *_huffman(folded, contexts, n_tables)]
    symbols, counts, extra, n_bits = prediction.symbols_of(folded, contexts)
    return [before, *_rans(symbols, counts, extra, n_bits, rows.shape, n_tables)]


def _check_transform(inverse: Inverse, noise: Noise) -> None:
    """Raise CodecError where the transform does not fit the integers of the stream."""
    if inverse.scale < _COARSE_SCALE or inverse.top >= 2**30:
        raise CodecError(
            f"{NAME}: quantisation={noise.quantisation:g} is too fine to predict first: choose a larger one, or "
            'order="quantise-first"'
        )
    if not inverse.is_safe:
        raise CodecError(
            f"{NAME}: an offset of {noise.offset:g} or a read noise of {noise.read_noise:g} electrons is out of the "
            'range of 2**18 codes in which predict-first works: choose order="quantise-first"'
        )


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
