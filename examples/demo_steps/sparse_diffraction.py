"""Stills made sparse, written as pyFAI does, read and made dense again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import mrczdask as md

SHAPE = (1024, 1024)


def run(out: Path) -> None:
    """Simulate stills, keep what stands out of the background, and compare frames made from the file with them."""
    from matplotlib import pyplot as plt

    geometry = md.Geometry.flat(SHAPE, distance_m=0.1, pixel_size_m=75e-6, wavelength_m=1e-10)
    radius = geometry.radius("r_mm")
    rng = np.random.default_rng(6)
    frames = rng.poisson(1 + 8 * np.exp(-radius / 12), (4, *SHAPE)).astype(np.uint16)
    for frame in frames:
        for y, x in rng.integers(2, SHAPE[0] - 2, (400, 2)):
            frame[y - 1 : y + 2, x - 1 : x + 2] += rng.poisson(rng.exponential(60), (3, 3)).astype(np.uint16)
    path = out / "stills_sparse.h5"
    sparse = md.write_sparse(md.sparsify(frames, geometry, cutoff_pick=2.5), path, geometry=geometry)
    dense = md.densify(sparse, seed=1).compute().values
    stored = int(sparse.header["n_pixels"].sum())
    print(f"   {100 * stored / frames.size:.2f} % of the pixels kept in {path.name}")
    print(f"   mean {frames.mean():.3f} -> {dense.mean():.3f}, variance {frames.var():.2f} -> {dense.var():.2f}")
    assert abs(dense.mean() / frames.mean() - 1) < 0.01
    assert abs(dense.var() / frames.var() - 1) < 0.02

    figure, axes = plt.subplots(1, 2, figsize=(9, 4.5), layout="constrained")
    for ax, image, title in zip(axes, (frames[0], dense[0]), ("recorded", "from the sparse file"), strict=True):
        ax.imshow(image, origin="lower", vmax=40)
        ax.set(title=title, xticks=[], yticks=[])
    figure.savefig(out / "sparse_diffraction.png", dpi=90)
    plt.close(figure)
