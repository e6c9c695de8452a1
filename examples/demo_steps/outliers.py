"""Hot and dead pixels found in the sums and filled from the good pixels of each frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import mrczdask as md


def run(out: Path) -> None:
    """Find the outliers of a simulated movie, fill them, and count hits and misses against the truth."""
    from matplotlib import pyplot as plt

    bad = md.simulate.Defects(hot_fraction=0.004, hot_clusters=0.1, dead_fraction=0.0005, dead_columns=1)
    ice = md.simulate.Specimen(ice_sd=0.03, particles=16, particle_diameter=50, particle_contrast=0.15)
    movie, truth = md.simulate.movie((30, 512, 512), dose=2.0, defects=bad, specimen=ice, seed=4)
    found = md.find_outliers(md.sum_frames(movie)).compute()
    hit = float((found.mask & truth.mask).sum())
    precision, recall = hit / float(found.mask.sum()), hit / float(truth.mask.sum())
    print(
        f"   {int(found.n_hot)} hot and {int(found.n_dead)} dead pixels: precision {precision:.2f}, recall {recall:.2f}"
    )
    assert precision > 0.8

    filled = md.fill_outliers(movie, found)
    before, after = (np.asarray(md.sum_frames(m)) for m in (movie, filled))
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.5), layout="constrained")
    for ax, image, title in zip(axes, (before, after), ("sum of the frames", "outliers filled"), strict=True):
        ax.imshow(image[:256, :256], cmap="gray", origin="lower", vmin=before.min(), vmax=np.percentile(before, 99.9))
        ax.set(title=title, xticks=[], yticks=[])
    figure.savefig(out / "outliers.png", dpi=90)
    plt.close(figure)
