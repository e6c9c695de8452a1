"""The class of each pixel of a pattern, as PixelHistogram writes it. docs/codecs.md specifies it."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.codecs.container import Bytes, Cutter, corrupt
from mrczdask.kernels import rans
from mrczdask.kernels.class_tables import DIRECT, read_classes, write_classes

NAME: Final = "mrczdask.pixel_histogram"


def pack_map(class_of: Bytes) -> tuple[bytes, bytes]:
    """Table of the classes' numbers, and states and words of one number a pixel."""
    table = rans.normalise(np.bincount(class_of, minlength=rans.ALPHABET))
    states, words = rans.encode_runs(class_of, np.array([[0, class_of.size]]), table[None])
    packed = write_classes(np.array([DIRECT]), np.zeros(1, np.int64), table[None])
    return packed.tobytes(), states.astype("<u4").tobytes() + words.astype("<u2").tobytes()


def read_map(cut: Cutter, packed: Bytes, columns: int, n_classes: int) -> Bytes:
    """Class of each of the `columns` from what is left; none is `n_classes` or more."""
    kinds, bases = np.empty((2, 1), np.int64)
    table = np.empty((1, rans.ALPHABET), np.uint16)
    class_of = np.empty(columns, np.uint8)
    if not read_classes(packed, kinds, bases, table) or table[0, n_classes:].any():
        raise corrupt(NAME, "its map of classes")
    states = cut.take(rans.LANES, "u4")
    words: NDArray[np.uint16] = np.append(cut.take(cut.left.size // 2, "u2"), np.zeros(rans.LANES, np.uint16))
    whole = np.array([[0, columns]])
    if cut.left.size or not rans.decode_runs(states, words, whole, rans.decoding_table(table), class_of):
        raise corrupt(NAME, "its map of classes")
    return class_of
