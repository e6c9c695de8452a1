"""Bytes of a frame to pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def unpack_lines(raw: NDArray[np.uint8], nx: int) -> NDArray[np.uint8]:
    """Unpack 4-bit pixels, low nibble first: (..., (nx + 1) // 2) bytes to (..., nx) pixels of 0..15."""
    out = np.empty((*raw.shape[:-1], 2 * raw.shape[-1]), np.uint8)
    np.bitwise_and(raw, 15, out=out[..., 0::2])
    np.right_shift(raw, 4, out=out[..., 1::2])
    return out[..., :nx]


def pixels(raw: Any, stored: np.dtype[Any], rows: int, nx: int) -> NDArray[Any]:
    """View unpacked bytes as (rows, nx, ...) pixels of the dtype on disk."""
    return np.frombuffer(raw, dtype=stored.base).reshape(rows, nx, *stored.shape)
