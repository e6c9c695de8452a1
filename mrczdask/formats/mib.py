"""Header of a Merlin file (.mib): Medipix frames, each behind a text header of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.errors import MrcFormatError

MAGIC: Final = b"MQ1"
HEAD_GUESS: Final = 768
"""Bytes of the longest usual header: that of four chips."""
_KINDS: Final = {"U08": ">u1", "U16": ">u2", "U32": ">u4"}
RAW: Final = "R64"
_RAW_TYPES: Final = {1: ">u1", 6: ">u1", 12: ">u2"}
_WORD: Final = 8
"""Raw frames come in words of 64 bits whose pixels run backwards."""


@dataclass(frozen=True)
class MibHeader:
    """Bytes of the header, shape (y, x) and dtype of a frame; `raw_bits` is 0 for frames in their final order."""

    head_bytes: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    raw_bits: int = 0

    @property
    def pixel_bytes(self) -> int:
        y, x = self.shape
        return y * x // _WORD if self.raw_bits == 1 else y * x * self.dtype.itemsize

    @property
    def frame_bytes(self) -> int:
        return self.head_bytes + self.pixel_bytes

    def pixels(self, raw: bytes) -> NDArray[Any]:
        """(y, x) of the bytes of a frame."""
        if not self.raw_bits:
            return np.frombuffer(raw, self.dtype).reshape(self.shape)
        if self.raw_bits == 1:
            words = np.frombuffer(raw, np.uint8).reshape(-1, _WORD)
            return np.unpackbits(words[:, ::-1], bitorder="little").reshape(self.shape)
        per_word = _WORD // self.dtype.itemsize
        return np.frombuffer(raw, self.dtype).reshape(-1, per_word)[:, ::-1].reshape(self.shape)


def parse_mib(head: bytes) -> MibHeader:
    """Read the header of the first frame.

    Raises
    ------
    MrcFormatError
        This is no Merlin file, or one whose pixels are in an order that is not known.
    """
    if not head.startswith(MAGIC):
        raise MrcFormatError("the file does not begin with MQ1: this is no Merlin file")
    words = head.decode("latin-1").split(",")
    try:
        size, chips, columns, rows, kind = int(words[2]), int(words[3]), int(words[4]), int(words[5]), words[6]
        if min(size, columns, rows) <= 0:
            raise ValueError
    except (IndexError, ValueError):
        raise MrcFormatError("the header of the first frame does not say its size: it is corrupt") from None
    if kind in _KINDS:
        return MibHeader(size, (rows, columns), np.dtype(_KINDS[kind]))
    if kind != RAW or chips != 1:
        raise MrcFormatError(
            f"frames of {chips} chips and the kind {kind} are not read: let Merlin write U08, U16 or U32"
        )
    bits = _raw_bits(head)
    if bits not in _RAW_TYPES:
        raise MrcFormatError(f"raw frames of {bits} bits are not read: let Merlin write U32")
    return MibHeader(size, (rows, columns), np.dtype(_RAW_TYPES[bits]), bits)


def _raw_bits(head: bytes) -> int:
    """The counter depth of raw frames: behind the exposure in nanoseconds."""
    found = re.search(rb"MQ1A,[^,]*,\s*\d+ns,\s*(\d+)", head)
    return int(found[1]) if found else 0


def parse_hdr(text: str) -> tuple[int, int] | None:
    """Shape (scan_y, scan_x) of a scan that the .hdr file beside the frames tells, if it does."""
    said = dict(re.findall(r"^([^\t\n]+?):\t([^\n\r]*)", text, re.MULTILINE))
    try:
        y, x = int(said.get("ScanY", 0)), int(said.get("ScanX", 0))
        columns = int(said.get("Frames per Trigger (Number)", 0))
        total = int(said.get("Frames in Acquisition (Number)", 0))
    except ValueError:
        return None
    if x > 0 and y > 0:
        return y, x
    return (total // columns, columns) if columns > 1 and total and total % columns == 0 else None
