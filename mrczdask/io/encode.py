"""Frames to the bytes of an MRC or MRCZ file: what a worker does with one region of a movie."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numcodecs.blosc
import numpy as np
from numpy.typing import NDArray

from mrczdask.errors import MrcFormatError
from mrczdask.execution.schedulers import n_threads
from mrczdask.formats.mrc import Statistics
from mrczdask.formats.mrc_fields import PACKED4
from mrczdask.kernels.statistics import byte_statistics, float_statistics, integer_statistics

SHUFFLES: Final = {"none": 0, "byte": 1, "bit": 2}
"""Blosc filters by name."""
BLOCK_SIZES: Final = (64 << 10, 256 << 10, 1 << 20)
"""Tried when the block size is to be measured: L1, L2 and the size at which [M] saw the ratio saturate."""
WORTH: Final = 1.01
"""Of encodings within 1 % of the smallest the one with the smallest blocks is taken: rows are read faster from it."""


@dataclass(frozen=True)
class Encoding:
    """How frames become bytes. `codec` None: not compressed."""

    mode: int
    stored: np.dtype[Any]
    codec: str | None = None
    level: int = 1
    shuffle: str = "bit"
    blocksize: int = 0
    narrowed: bool = False
    """Pixels of 64 bits are stored in 32: each is compared."""


class NotExactError(MrcFormatError):
    """A pixel of 64 bits that the 32 bits of the file do not hold."""


@dataclass
class Sums:
    """Running statistics of the pixels of a movie."""

    low: float = np.inf
    high: float = -np.inf
    total: float = 0.0
    squares: float = 0.0
    n: int = 0

    def add(self, other: Sums) -> None:
        """Take in the statistics of further pixels."""
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.total += other.total
        self.squares += other.squares
        self.n += other.n

    def statistics(self) -> Statistics | None:
        """The values of the MRC header; None where no pixel was finite or real."""
        if not self.n or not np.isfinite([self.low, self.high]).all():
            return None
        mean = self.total / self.n
        variance = max(self.squares / self.n - mean * mean, 0.0)
        return Statistics(self.low, self.high, mean, float(np.sqrt(variance)))


@dataclass(frozen=True)
class EncodedFrames:
    """The bytes of some frames in order, and their statistics."""

    frames: list[bytes] = field(repr=False)
    sums: Sums = field(default_factory=Sums)


def encode_block(block: Any, encoding: Encoding) -> EncodedFrames:
    """Encode a block (frame, y, x): an array, or a nested list [row of blocks][block] of the pieces of its frames."""
    pixels = np.block(block) if isinstance(block, list) else np.asarray(block)
    sums = frame_sums(pixels)
    return EncodedFrames([encode_frame(frame, encoding) for frame in pixels], sums)


def frame_sums(pixels: NDArray[Any]) -> Sums:
    """Statistics of the pixels; complex pixels have none."""
    if pixels.dtype.kind == "c":
        return Sums(n=pixels.size)
    flat = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("=")).reshape(-1)
    if flat.dtype.kind == "b":
        flat = flat.view(np.uint8)
    if flat.dtype == np.float16:
        flat = flat.astype(np.float32)
    if flat.dtype.kind == "f":
        return Sums(*float_statistics(flat))
    low, high, total, squares = (byte_statistics if flat.dtype.itemsize == 1 else integer_statistics)(flat)
    return Sums(float(low), float(high), float(total), squares, flat.size)


def encode_frame(frame: NDArray[Any], encoding: Encoding) -> bytes:
    """The bytes of one frame as they stand in the file."""
    if encoding.mode == PACKED4:
        return pack_nibbles(frame)
    if encoding.narrowed:
        _check_exact(frame, encoding.stored)
    pixels = np.ascontiguousarray(frame, dtype=encoding.stored)
    if encoding.codec is None:
        return pixels.tobytes()
    raw = pixels.reshape(-1).view(np.uint8)
    shuffle, typesize = SHUFFLES[encoding.shuffle], encoding.stored.itemsize
    codec, level, blocksize = encoding.codec, encoding.level, encoding.blocksize
    out: bytes = numcodecs.blosc.compress(raw, codec.encode(), level, shuffle, blocksize, typesize)
    return out


def _check_exact(frame: NDArray[Any], stored: np.dtype[Any]) -> None:
    if frame.dtype.kind == "f":
        with np.errstate(over="ignore"):
            exact = (frame.astype(stored) == frame) | np.isnan(frame)
    else:
        low, high = (-(2**24), 2**24) if stored.kind == "f" else (np.iinfo(stored).min, np.iinfo(stored).max)
        exact = (frame >= low) & (frame <= high)
    if not exact.all():
        raise NotExactError(
            f"a pixel of {frame.dtype}, {frame[~exact][0]}, does not fit {stored.name} to the last digit: round "
            'them with .astype("float32") first'
        )


def pack_nibbles(frame: NDArray[Any]) -> bytes:
    """Two pixels of 0..15 a byte, low nibble first, odd lines padded with 0 (mode 101).

    Raises
    ------
    MrcFormatError
        A pixel is above 15.
    """
    if frame.size and frame.max() > 15:
        raise MrcFormatError(f"mode 101 holds pixels of 0..15, one is {frame.max()}: use mode 0 or 6")
    lines = np.zeros((frame.shape[0], (frame.shape[1] + 1) // 2), np.uint8)
    lines[:, :] = frame[:, 0::2]
    lines[:, : frame.shape[1] // 2] |= (frame[:, 1::2] << 4).astype(np.uint8)
    return lines.tobytes()


def _strip(frame: NDArray[Any]) -> NDArray[Any]:
    """Enough lines of a frame to tell encodings apart, from its middle: one of the largest blocks."""
    rows = -(-max(BLOCK_SIZES) // max(frame.shape[1] * frame.dtype.itemsize, 1))
    first = max((frame.shape[0] - rows) // 2, 0)
    return frame[first : first + rows]


def choose_blosc(
    frames: Sequence[NDArray[Any]], encoding: Encoding, shuffle: str | None, blocksize: int | None
) -> Encoding:
    """The filter, then the block size, that make some frames of the movie smallest; what is given is kept."""
    frames = [_strip(frame) for frame in frames]
    shuffles = [shuffle] if shuffle else ["none", "bit"] if encoding.stored.itemsize == 1 else list(SHUFFLES)
    largest = frames[0].size * encoding.stored.itemsize
    blocks = [blocksize] if blocksize else [size for size in BLOCK_SIZES if size <= largest] or [largest]
    filtered = _smallest(frames, [replace(encoding, shuffle=name, blocksize=blocks[-1]) for name in shuffles])
    return _smallest(frames, [replace(filtered, blocksize=size) for size in blocks])


def _smallest(frames: Sequence[NDArray[Any]], tried: Sequence[Encoding]) -> Encoding:
    """The encoding of fewest bytes; of nearly equal ones the first."""
    if len(tried) == 1:
        return tried[0]
    with ThreadPoolExecutor(n_threads()) as pool:
        sizes = pool.map(lambda pair: len(encode_frame(*pair)), itertools.product(frames, tried))
    totals = np.fromiter(sizes, np.int64).reshape(len(frames), len(tried)).sum(axis=0)
    return tried[int(np.argmax(totals <= WORTH * totals.min()))]
