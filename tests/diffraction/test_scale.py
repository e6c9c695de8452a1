"""Memory of the workers does not grow with the frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from numpy.typing import NDArray

import mrczdask as md

SIDE = 64
CHUNK = 250
"""Shots: 2 MB of uint16 frames."""
GROWTH_MB = 40
"""6 000 further frames are 49 MB: kept, they would show."""


def _make(block_info: Any = None) -> NDArray[np.uint16]:
    n, _, _ = block_info[None]["chunk-shape"]
    place = block_info[None]["chunk-location"][0]
    return np.random.default_rng(place).poisson(2.0, (n, SIDE, SIDE)).astype(np.uint16)


def lazy_frames(n: int) -> da.Array:
    chunks = ((CHUNK,) * (n // CHUNK), SIDE, SIDE)
    return da.map_blocks(_make, chunks=chunks, dtype=np.uint16, meta=np.empty((0, 0, 0), np.uint16))


def _peak_mb() -> float:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(text.split("VmHWM:")[1].split()[0]) / 1e3


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read where Linux shows it")
def test_memory_of_workers_is_flat() -> None:
    from distributed import Client, LocalCluster

    geometry = md.Geometry.flat((SIDE, SIDE))
    peaks = []
    limits: dict[str, Any] = {"n_workers": 1, "threads_per_worker": 1, "memory_limit": "2GB"}
    with (
        LocalCluster(**limits, dashboard_address=":0", silence_logs=50) as cluster,
        Client(cluster) as client,
    ):
        for n in (2000, 8000):
            sparse = md.sparsify(lazy_frames(n), geometry, bins=20, unit="pixel")
            counts = sparse.header["n_pixels"].data
            assert counts.npartitions == n // CHUNK
            assert 0 < int(counts.sum().compute()) < 0.05 * n * SIDE**2
            peaks.append(max(client.run(_peak_mb).values()))
    assert peaks[1] - peaks[0] < GROWTH_MB, peaks
