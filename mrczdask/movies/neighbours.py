"""Sums of the movies around each movie, as a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from mrczdask.kernels.window import Lacking, Window, fixed, fixed_parts, knock_out_sums, unit_of

TASK_BYTES: Final = 256 << 20
"""Images that a task may hold; larger ones are cut into bands of rows."""


def neighbour_sums(
    sums: da.Array,
    windows: Sequence[Window],
    accepted: NDArray[np.bool_],
    *,
    mean: bool,
    bad: da.Array | None = None,
) -> da.Array:
    """For each movie the sum over its window, float64, or the mean, float32.

    `sums` (movie, y, x); `bad` of the same shape, the pixels of each that take no part, besides those that are no
    numbers: where some movies of a window lack a pixel the others are averaged. A task makes the windows of several
    movies that follow each other: it takes their sums and those around them once, and moves from window to window by
    adding and dropping one.
    """
    n, ny, nx = sums.shape
    size = max(window.stop - window.start for window in windows)
    group = max(min(size, n), 1)
    rows = int(np.clip(ny * TASK_BYTES // max((group + size) * 8 * ny * nx, 1), min(64, ny), ny))
    sums = sums.rechunk({1: rows, 2: -1})
    homes = [(chunk, k) for chunk, length in enumerate(sums.chunks[0]) for k in range(length)]
    dtype = np.dtype(np.float32 if mean else np.float64)
    places = np.flatnonzero(accepted).tolist()
    firsts = range(0, n, group)
    masks = None if bad is None else bad.rechunk(sums.chunks)
    name = f"neighbour-sums-{tokenize(sums, windows, places, mean, *([] if masks is None else [masks]))}"
    graph: dict[Any, Any] = {}
    for k, first in enumerate(firsts):
        wanted = list(windows[first : first + group])
        low, high = min(w.start for w in wanted), max(w.stop for w in wanted)
        moved = [Window(w.start - low, w.stop - low, w.own - low if w.own >= 0 else -1) for w in wanted]
        taken = [homes[place] for place in (places[low:high] or [first])]
        chunks_taken = sorted({chunk for chunk, _ in taken})
        inside = [(chunks_taken.index(chunk), offset) for chunk, offset in taken]
        for band in range(len(sums.chunks[1])):
            blocks = [(sums.name, chunk, band, 0) for chunk in chunks_taken]
            hidden = None if masks is None else [(masks.name, chunk, band, 0) for chunk in chunks_taken]
            graph[(name, k, band, 0)] = (_windows, blocks, hidden, inside, moved, mean)
    chunks = (tuple(min(group, n - first) for first in firsts), *sums.chunks[1:])
    needed: list[Any] = [sums] if masks is None else [sums, masks]
    layers = HighLevelGraph.from_collections(name, graph, dependencies=needed)
    whole = da.Array(layers, name, chunks, meta=np.empty((0, 0, 0), dtype))
    return whole.rechunk((1, -1, -1))


def _windows(
    blocks: list[NDArray[Any]],
    hidden: list[NDArray[np.bool_]] | None,
    inside: list[tuple[int, int]],
    windows: list[Window],
    mean: bool,
) -> NDArray[Any]:
    lacking: dict[int, Lacking | None] = {}

    def image(place: int) -> NDArray[np.int64]:
        block, offset = inside[place]
        pixels, bad = blocks[block][offset], None if hidden is None else hidden[block][offset]
        if place in lacking and bad is None:
            return fixed(pixels)
        whole, lacking[place] = fixed_parts(pixels, bad)
        return whole

    def lacks(place: int) -> Lacking | None:
        if place not in lacking:
            image(place)
        return lacking[place]

    return knock_out_sums(image, windows, unit_of(blocks[0].dtype), mean=mean, lacks=lacks)
