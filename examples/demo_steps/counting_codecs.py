"""Counting data and camera images in Zarr, smaller than general codecs make them, proved equal or within the noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec

import mrczdask as md

CAMERA = {"counts_per_electron": 2.1, "offset": 100.0, "read_noise": 1.6}


def run(out: Path) -> None:
    """Write the same pixels with each codec, read them back and compare."""
    counted = md.simulate.poisson((32, 512, 512), mean=1.0, seed=5).values
    cells = md.simulate.fluorescence((4, 512, 512)).images.values
    bars = {
        "counted, zstd-5": stored(counted, out / "counted_zstd.zarr", compressors=BloscCodec(cname="zstd", clevel=5)),
        "counted, PixelHistogram": stored(counted, out / "counted.zarr", serializer=md.codecs.PixelHistogram()),
        "cells, zstd-5": stored(cells, out / "cells_zstd.zarr", compressors=BloscCodec(cname="zstd", clevel=5)),
        "cells, B3D lossless": stored(cells, out / "cells.zarr", serializer=md.codecs.B3D()),
    }
    lossy = md.codecs.B3D(quantisation=1.0, **CAMERA)
    bars["cells, B3D within the noise"] = stored(cells, out / "cells_lossy.zarr", serializer=lossy, exact=False)
    entropy = md.simulate.poisson_entropy(1.0)
    print(f"   Poisson entropy of the counted frames: {entropy:.3f} bits/pixel")
    draw(bars, out / "codecs.png")


def stored(pixels: np.ndarray[Any, Any], path: Path, *, exact: bool = True, **codec: Any) -> float:
    """Bits per pixel on disk; raises where what is read is not what was written."""
    chunks = (min(len(pixels), 16), *pixels.shape[1:])
    codec.setdefault("compressors", None)
    array = zarr.create_array(str(path), shape=pixels.shape, chunks=chunks, dtype=pixels.dtype, overwrite=True, **codec)
    array[:] = pixels
    read = np.asarray(array[:])
    proof = "equal" if exact else within_the_noise(pixels, read)
    assert not exact or np.array_equal(read, pixels), f"{path}: pixels differ"
    bits = 8 * sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / pixels.size
    print(f"   {path.name:20} {bits:6.3f} bits/pixel   {proof}")
    return bits


def within_the_noise(pixels: np.ndarray[Any, Any], read: np.ndarray[Any, Any]) -> str:
    """The largest error in units of the noise; the codec promises half a standard deviation at q = 1."""
    g, o, s = CAMERA["counts_per_electron"], CAMERA["offset"], CAMERA["read_noise"]
    sigma = g * np.sqrt(np.maximum((pixels - o) / g, 0) + s**2)
    worst = float((np.abs(read.astype(float) - pixels) / sigma).max())
    assert worst <= 0.5, f"the error is {worst} sigma"
    return f"largest error {worst:.3f} sigma"


def draw(bars: dict[str, float], file: Path) -> None:
    from matplotlib import pyplot as plt

    figure, ax = plt.subplots(figsize=(7, 2.8), layout="constrained")
    ax.barh(list(bars), list(bars.values()), color=["#bbbbbb", "#4477aa", "#bbbbbb", "#4477aa", "#66ccee"])
    ax.invert_yaxis()
    ax.set_xlabel("bits per pixel on disk")
    figure.savefig(file, dpi=90)
    plt.close(figure)
