"""Functions of whole frames in a graph: they get the frames themselves."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from mrczdask.execution.blocks import whole_blocks

FRAMES = np.arange(24.0).reshape(2, 3, 4)
SEEN: list[NDArray[Any]] = []


def frame(block_info: Any = None) -> NDArray[Any]:
    return FRAMES[block_info[None]["chunk-location"][0]][None]


@whole_blocks
def brightest(frames: NDArray[Any], offset: NDArray[Any], scale: int) -> NDArray[Any]:
    SEEN.append(frames)
    return scale * frames.max((1, 2)) + offset


def test_frames_are_not_copied() -> None:
    lazy = da.map_blocks(frame, chunks=((1, 1), 3, 4), dtype=float, meta=np.empty((0, 0, 0)))
    offset = da.from_array(np.array([1.0, 2.0]), chunks=1)
    how: dict[str, Any] = {"dtype": float, "meta": np.empty(0)}
    out = da.blockwise(brightest, "s", lazy, "syx", offset, "s", scale=10, **how)
    assert out.compute(scheduler="sync").tolist() == [111.0, 232.0]
    assert [np.shares_memory(seen, FRAMES) for seen in SEEN] == [True, True]
