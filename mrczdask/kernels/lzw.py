"""LZW as TIFF has it: most significant bit first, codes of 9 to 12 bits that grow one code early."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.compiling import njit

CLEAR: Final = 256
END: Final = 257
FIRST_FREE: Final = 258
FIRST_WIDTH: Final = 9
LAST_WIDTH: Final = 12
CORRUPT: Final = -1


@njit(nogil=True, cache=True)
def lzw_decode(packed: NDArray[np.uint8], out: NDArray[np.uint8]) -> int:
    """Decode a strip into `out`.

    Parameters
    ----------
    packed : ndarray of uint8, (n,)
        The compressed bytes. They may end without the end code.
    out : ndarray of uint8, (m,)
        Filled from its start; what the stream holds beyond `m` bytes is dropped.

    Returns
    -------
    int
        Bytes written, or `CORRUPT` where a code has no meaning. Nothing outside of `packed` and `out` is touched,
        whatever the bytes.

    Notes
    -----
    A table entry is the string of the code before, and the first byte after it: both lie side by side in `out`. An
    entry is therefore a place and a length, and no chain of prefixes is followed.

    References
    ----------
    TIFF 6.0, section 13.
    """
    starts = np.empty(1 << LAST_WIDTH, np.int64)
    lengths = np.empty(1 << LAST_WIDTH, np.int64)
    size = out.size
    done = 0
    before = 0
    before_length = 0
    free = FIRST_FREE
    width = FIRST_WIDTH
    bits = np.uint64(0)
    held = 0
    place = 0
    while done < size:
        while held < width and place < packed.size:
            bits = (bits << np.uint64(8)) | np.uint64(packed[place])
            held += 8
            place += 1
        if held < width:
            break
        held -= width
        code = np.int64((bits >> np.uint64(held)) & np.uint64((1 << width) - 1))
        if code == END:
            break
        if code == CLEAR:
            free, width, before_length = FIRST_FREE, FIRST_WIDTH, 0
            continue
        if code < CLEAR:
            length = 1
            out[done] = code
        else:
            if code > free or before_length == 0 or (code == free and free >= 1 << LAST_WIDTH):
                return CORRUPT
            # the code that is just being made repeats the string before it and its own first byte
            start = before if code == free else starts[code]
            length = before_length + 1 if code == free else lengths[code]
            for k in range(min(length, size - done)):
                out[done + k] = out[start + k]
        if before_length and free < 1 << LAST_WIDTH:
            starts[free] = before
            lengths[free] = before_length + 1
            free += 1
            if free == (1 << width) - 1 and width < LAST_WIDTH:
                width += 1
        before, before_length = done, length
        done += length
    return min(done, size)


def lzw_unpack(packed: Any, size: int) -> NDArray[np.uint8]:
    """The first `size` bytes of a strip; an error if it holds fewer or is corrupt."""
    out = np.empty(size, np.uint8)
    count = lzw_decode(np.frombuffer(packed, np.uint8), out)
    if count == CORRUPT:
        raise ValueError("an LZW code has no meaning")
    if count < size:
        raise ValueError(f"the LZW stream ends after {count} of {size} bytes")
    return out
