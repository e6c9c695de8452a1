"""Figures 1, 2 and 3 of Kieffer et al. on signal separation, redrawn on simulated stills, and the size by cutoff.

    python examples/sparse_diffraction.py [--out FOLDER]

Writes figure1.png (isotropic noise, and its deviation by two error models), figure2.png (a still with Bragg peaks, its
average before and after clipping, and two rings), figure3.png (share of the pixels that is kept) and compression.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from scipy import stats

import mrczdask as md

SHAPE = (512, 512)
BINS: dict[str, Any] = {"bins": 120, "unit": "r_mm"}
GEOMETRY = md.Geometry.flat(SHAPE, distance_m=0.1, pixel_size_m=75e-6, beam_center=(255.2, 256.7))
CUTOFFS = np.linspace(0.5, 4, 15)


def background(seed: int, frames: int = 1, level: float = 30.0) -> NDArray[np.int32]:
    """Isotropic Poisson noise: scattering that falls off, and the ring of a solvent."""
    radius = GEOMETRY.radius("r_mm")
    mean = 3 + level * (np.exp(-radius / 6) + 0.6 * np.exp(-(((radius - 10) / 2) ** 2)))
    return np.random.default_rng(seed).poisson(mean, (frames, *SHAPE)).astype(np.int32)


def still(seed: int, frames: int = 1) -> NDArray[np.int32]:
    """The same with Bragg peaks two pixels wide."""
    rng = np.random.default_rng(seed + 1)
    images = background(seed, frames)
    y, x = np.mgrid[-4:5, -4:5]
    spot = np.exp(-(y**2 + x**2) / 2)
    for image in images:
        for cy, cx in rng.integers(5, SHAPE[0] - 5, (300, 2)):
            image[cy - 4 : cy + 5, cx - 4 : cx + 5] += rng.poisson(rng.exponential(120) * spot).astype(np.int32)
    return images


def figure_1() -> Any:
    """A frame of noise alone; both models give the deviation that its mean says."""
    frame = background(1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    shown = left.imshow(frame[0], origin="lower", cmap="viridis", vmax=np.percentile(frame, 99.8))
    left.set(title="isotropic Poisson noise", xticks=[], yticks=[])
    figure.colorbar(shown, ax=left, label="counts")
    for model, style in (("poisson", "-"), ("azimuthal", ".")):
        average = md.azimuthal_average(frame, GEOMETRY, error_model=model, **BINS).compute()
        right.plot(average.radius, average["std"][0], style, label=model)
        if model == "azimuthal":
            right.plot(average.radius, np.sqrt(average.intensity[0]), "k:", label="square root of the average")
            usable = average.n_used[0] > 100
            worst = float(np.abs(average["std"][0] / np.sqrt(average.intensity[0]) - 1)[usable].max())
            print(f"figure 1: the spread of a ring and the root of its mean differ by {100 * worst:.0f} % at most")
            assert worst < 0.3
    right.set(xlabel="radius (mm)", ylabel="standard deviation of a pixel (counts)")
    right.legend()
    return figure


def figure_2() -> Any:
    """A still: clipping brings average and deviation back to those of the background, and rings to normal ones."""
    frame = still(2)
    before = md.azimuthal_average(frame, GEOMETRY, error_model="azimuthal", **BINS).compute()
    after = md.separate_background(frame, GEOMETRY, error_model="azimuthal", **BINS).compute()
    truth = md.azimuthal_average(background(2), GEOMETRY, error_model="azimuthal", **BINS).compute()
    figure, axes = plt.subplots(2, 2, figsize=(10, 8), layout="constrained")
    axes[0, 0].imshow(frame[0], origin="lower", cmap="viridis", vmax=np.percentile(frame, 99.8))
    axes[0, 0].set(title="a still", xticks=[], yticks=[])
    for color, label, average, std in (
        ("tab:red", "all pixels", before.intensity[0], before["std"][0]),
        ("tab:blue", "after clipping", after.background_avg[0], after.background_std[0]),
        ("k", "without peaks", truth.intensity[0], truth["std"][0]),
    ):
        line = ":" if color == "k" else "-"
        axes[0, 1].plot(before.radius, average, line, color=color, label=label)
        axes[0, 1].plot(before.radius, std, line, color=color, alpha=0.5)
    axes[0, 1].set(xlabel="radius (mm)", ylabel="average, and (pale) deviation", ylim=(0, 40))
    axes[0, 1].legend()
    for ax, number in zip(axes[1], (30, 75), strict=True):
        _ring(ax, frame[0], after, number)
    rings = truth.n_used[0].values > 100
    error = np.abs(after.background_avg[0].values / truth.intensity[0].values - 1)[rings].max()
    print(f"figure 2: the clipped average is within {100 * error:.1f} % of that without peaks")
    assert error < 0.08
    return figure


def _ring(ax: Any, frame: NDArray[Any], clipped: Any, number: int) -> None:
    """Histogram of one ring, and the normal law of its clipped average and deviation."""
    centres = clipped.radius.values
    pixels = frame[np.abs(clipped.pixel_radius.values - centres[number]) < (centres[1] - centres[0]) / 2]
    mean, std = float(clipped.background_avg[0, number]), float(clipped.background_std[0, number])
    counts = np.arange(0, int(mean + 12 * std))
    ax.bar(counts, np.bincount(pixels, minlength=counts.size)[: counts.size], width=1, color="0.7")
    ax.plot(counts, pixels.size * stats.norm.pdf(counts, mean, std), "b-", label=f"{mean:.1f} ± {std:.1f}")
    ax.set(yscale="log", ylim=(0.5, 0.6 * pixels.size / std), xlabel="counts", ylabel="pixels")
    ax.set_title(f"ring at {centres[number]:.1f} mm")
    ax.legend()


def figure_3() -> Any:
    """The share of a normal background that lies above the cutoff."""
    noise = np.random.default_rng(3).normal(1000, 30, (4, *SHAPE)).astype(np.float32)
    clipped = md.separate_background(noise, GEOMETRY, error_model="azimuthal", noise=0.0, **BINS).compute()
    kept = [float(md.sparsify(noise, background=clipped, cutoff_pick=c).compute().n_pixels.mean()) for c in CUTOFFS]
    share = np.array(kept) / noise[0].size
    figure, ax = plt.subplots(figsize=(6, 4.2), layout="constrained")
    ax.semilogy(CUTOFFS, stats.norm.sf(CUTOFFS), "k-", label="normal distribution")
    ax.semilogy(CUTOFFS, share, "o", label="kept by sparsify")
    for cutoff, wanted in ((1, 0.159), (2, 0.0228), (3, 0.00135)):
        found = float(np.exp(np.interp(cutoff, CUTOFFS, np.log(share))))
        print(f"figure 3: {100 * found:.3g} % of the pixels are kept at {cutoff} sd ({100 * wanted:.3g} % expected)")
        assert abs(found / wanted - 1) < 0.05
    ax.set(xlabel="cutoff (standard deviations)", ylabel="share of the pixels")
    ax.legend()
    return figure


def compression() -> Any:
    """Size by cutoff, against bitshuffle-LZ4, of stills with peaks and without."""
    figure, ax = plt.subplots(figsize=(6, 4.2), layout="constrained")
    for label, frames in (("with peaks", still(4, 3)), ("without", background(5, 3))):
        budget = md.loss_budget(frames, GEOMETRY, cutoffs=tuple(CUTOFFS), shells=3, **BINS)
        ax.semilogy(budget.cutoff, budget.ratio, "o-", label=label)
        ratio = float(budget.ratio.interp(cutoff=2))
        print(f"compression: {ratio:.1f} times smaller than bitshuffle-LZ4 at 2 sd, {label}")
    ax.set(xlabel="cutoff (standard deviations)", ylabel="times smaller than bitshuffle-LZ4")
    ax.legend()
    return figure


FIGURES = {"figure1": figure_1, "figure2": figure_2, "figure3": figure_3, "compression": compression}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("sparse_diffraction"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        figure = draw()
        figure.savefig(out / f"{name}.png", dpi=90)
        plt.close(figure)


if __name__ == "__main__":
    main()
