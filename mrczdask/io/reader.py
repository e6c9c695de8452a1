"""What every movie format gives to the lazy array: a picklable reader of frames and what is known about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class FrameReader(Protocol):
    """Reads frames of one movie. Picklable, holds no open file: a task opens, reads and closes.

    `shape` is (frame, y, x); `dtype` is the dtype in memory, in native byte order.
    """

    @property
    def url(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def read_into(self, out: NDArray[Any], frames: Sequence[int], rows: slice, cols: slice) -> None:
        """Fill `out` (len(frames), rows, cols) with the pixels. `rows` and `cols` have step 1 and lie inside."""
        ...


@dataclass(frozen=True)
class MovieFile:
    """An opened movie: its reader, and the coordinates, attributes and encoding of the DataArray made of it."""

    reader: FrameReader
    coords: Mapping[str, tuple[tuple[str, ...], Any]] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)
    encoding: Mapping[str, Any] = field(default_factory=dict)
    acquired: np.datetime64 | None = None
    """Time of acquisition, by which a session is ordered."""
    session: Mapping[str, Any] = field(default_factory=dict)
    """Values a session puts along `movie`: dose_rate, gain_reference."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.reader.shape
