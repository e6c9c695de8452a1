"""Figures 5, 7c, 9, 10, 11 and 12 of McLeod et al., MRCZ, redrawn on simulated detectors.

Writes figure05.png (outliers of the cumulative histogram), figure07c.png (correlated noise before and after the outlier
filter), figure09.png (gamma of the gain), figure10.png (a vacuum image with and without it), figure11.png (how long the
pattern of the electronics lives) and figure12.png (KOMA by radius) to the folder given by --out.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from scipy.ndimage import gaussian_filter
from scipy.optimize import curve_fit
from scipy.special import expit

import mrczdask as md
from mrczdask.plotting import STYLE, draw_image
from mrczdask.simulate import Defects, Gain, Pattern

RATES = (0.25, 0.5, 1.0, 2.0, 3.0, 4.5, 6.0, 7.5, 9.0)
RADII = (1, 2, 4, 6, 8, 12, 16, 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("normalisation"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    mpl.use("Agg")
    plt.style.use(STYLE)
    for number, draw in FIGURES.items():
        figure = draw()
        figure.savefig(out / f"figure{number}.png", dpi=110)
        plt.close(figure)


def figure_5() -> Any:
    """The cumulative histogram of a sum, its fat tails, the straight lines through them, and the weights."""
    bad = Defects(hot_fraction=0.005, dead_fraction=5e-4)
    movie, _ = md.simulate.movie((40, 512, 512), dose=5, defects=bad)
    found = md.find_outliers(md.sum_frames(movie), method="cdf").compute()
    x, residual = found.deviation, found.residual
    dark, hot = float(found.threshold_dark), float(found.threshold_hot)
    figure, (above, below) = plt.subplots(2, 1, figsize=(6.5, 6.5), sharex=True, layout="constrained")
    above.plot(x, x, "--", label="normal distribution")
    above.plot(x, x - residual, "C2", label="sum of the movie")
    above.set(ylabel="cumulative histogram (σ)", xlim=(-8, 8), ylim=(-5, 5))
    below.plot(x, residual, "C1", label="residual")
    weight = expit(6 * (x - 0.95 * dark)) * expit(-6 * (x - 0.95 * hot))
    below.plot(x, weight, "C5", label="weight of the pixel")
    for threshold, side in ((dark, -1), (hot, 1)):
        fitted = (side * x > 0) & (side * residual > 0.5)
        slope = np.polyfit(x[fitted], residual[fitted], 1)[0]
        ends = np.array([threshold, 8 * side])
        below.plot(ends, slope * (ends - threshold), "k--", linewidth=1)
        below.plot(threshold, 0, "ko", markersize=4)
        below.annotate(
            f"{threshold:.2f} σ",
            (threshold, 0),
            (0, -14 * side),
            textcoords="offset points",
            ha="center",
            va="top" if side > 0 else "bottom",
        )
    below.set(xlabel="intensity (σ)", ylabel="residual (σ), weight", ylim=(-5, 5))
    for ax in (above, below):
        ax.legend(loc="upper left")
    print(f"figure 5: thresholds {dark:.2f} and {hot:.2f} σ; {int(found.n_hot)} hot, {int(found.n_dead)} dead pixels")
    return figure


def figure_7c() -> Any:
    """Correlation between the frames of each movie, before and after outliers are filled, and without any."""
    growing = Defects(hot_fraction=0.004, hot_births=1e-4, hot_lifetime=np.inf)
    session, truth = md.simulate.session(32, (10, 256, 256), dose=4, defects=growing, pattern=Pattern(pixel_sd=0.05))
    images = session.images.compute()
    filled = md.fill_outliers(images, md.find_outliers(md.sum_frames(images)))
    figure, ax = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
    dose = 40 * np.arange(1, 33)
    kinds = {"with outliers": images, "outliers filled": filled, "the same movies without": truth.clean.compute()}
    for (label, movies), colour in zip(kinds.items(), ("C1", "C0", "k"), strict=True):
        r = md.frame_correlation(movies)
        ax.plot(
            dose, 100 * r, ":" if colour == "k" else ".-", color=colour, label=f"{label}: {100 * float(r.mean()):.2f} %"
        )
        print(f"figure 7c: {label:24s} R = {float(r.mean()):.4f}")
    ax.axhline(0, color="0.8", linewidth=0.6, zorder=0)
    ax.set(xlabel="dose since the detector was annealed (e/pixel)", ylabel="correlation between frames (%)")
    ax.legend(loc="center right")
    return figure


def figure_9() -> Any:
    """The exponent that flattens vacuum images best, by dose rate, and eq. 11."""
    etched = Gain(smooth_sd=0.05, pixel_sd=0.02)
    found = []
    for rate in RATES:
        flat, truth = md.simulate.movie((4, 512, 512), dose=50, dose_rate=rate, gain=etched, gamma=md.gamma)
        found.append(md.fit_gamma(flat, truth.gain))
    figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
    line = np.linspace(RATES[0], RATES[-1], 200)
    ax.plot(line, md.gamma(line), "C2", label="gamma(dose_rate), eq. 11")
    ax.plot(RATES, found, "kx", label="fit_gamma of simulated vacuum images")
    ax.set(xlabel="dose rate (e/pixel/s)", ylabel="exponent γ of the gain")
    ax.legend()
    worst = float(np.abs(np.array(found) - md.gamma(np.array(RATES))).max())
    print(f"figure 9: largest difference {worst:.4f}")
    assert worst < 0.01
    return figure


def figure_10() -> Any:
    """A vacuum image at 7 e/pixel/s with the plain gain and with the gain to the power gamma."""
    etched, lines = Gain(smooth_sd=0.05, pixel_sd=0.02), Pattern(row_sd=1.0)
    flat, truth = md.simulate.movie((4, 512, 512), dose=100, dose_rate=7, gain=etched, gamma=md.gamma, pattern=lines)
    total = md.sum_frames(flat).compute()
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
    for ax, exponent in zip(axes, (1.0, float(md.gamma(7.0))), strict=True):
        image = gaussian_filter(md.apply_gain(total, truth.gain, gamma=exponent).values, 4)
        percent = 100 * (image / image.mean() - 1)
        shown = ax.imshow(percent, cmap="gray", origin="lower", vmin=-2, vmax=2)
        ax.set(title=f"γ = {exponent:.2f}: standard deviation {percent.std():.2f} %", xticks=[], yticks=[])
        print(f"figure 10: gamma {exponent:.2f}: standard deviation {percent.std():.2f} %")
    figure.colorbar(shown, ax=axes, label="deviation from the mean (%)", shrink=0.9)
    return figure


def figure_11() -> Any:
    """Correlation of each sum with the first, by dose, and a power law."""
    pattern = Pattern(pixel_sd=8, stable=0.35, lifetime=4000.0, decay=1.0)
    session, _ = md.simulate.session(80, (1, 512, 512), dose=630, dose_rate=7, pattern=pattern, dtype="uint16")
    sums = md.sum_frames(session.images).compute()
    flat = sums.values.reshape(len(sums), -1).astype(np.float32)
    flat = (flat - flat.mean(axis=1, keepdims=True)) / flat.std(axis=1, keepdims=True)
    r = flat[1:] @ flat[0] / flat.shape[1]
    dose = 630.0 * np.arange(1, len(flat))

    def law(d: Any, a: float, b: float, c: float) -> Any:
        return a * (d / 1000) ** -b + c

    (a, b, c), _ = curve_fit(law, dose, r, p0=(0.03, 0.3, 0.03), bounds=([0, 0.05, 0], [1, 2, 1]))
    chosen = md.koma_radius(sums)
    figure, ax = plt.subplots(figsize=(6.5, 4), layout="constrained")
    share = pattern.pixel_sd**2 / (pattern.pixel_sd**2 + 630)
    ax.plot(dose, share * np.array([pattern.correlation(d) for d in dose]), "k:", label="simulated pattern")
    ax.plot(dose, r, "C0.", label="sums of movies against the first")
    ax.plot(dose, law(dose, a, b, c), "C3", label=f"fit: {a:.3f} (d/1000)$^{{-{b:.2f}}}$ + {c:.3f}")
    ax.axvline(4000, color="0.7", linewidth=0.6, zorder=0)
    ax.annotate("lifetime of the pattern", (4000, 0), (4, 4), textcoords="offset points", color="0.4")
    ax.set(xlabel="dose since the first movie (e/pixel)", ylabel="correlation", ylim=0, xlim=0)
    ax.legend()
    print(f"figure 11: {a:.3f} (d/1000)^-{b:.2f} + {c:.3f}; radius chosen for KOMA {chosen.attrs['radius']}")
    return figure


def figure_12() -> Any:
    """Correlation between frames after KOMA by radius, without and with the outlier filter, and what is seen of it."""
    hot, lines = Defects(hot_fraction=0.005), Pattern(column_sd=0.12, row_sd=0.06, pixel_sd=0.1)
    session, _ = md.simulate.session(41, (10, 160, 160), dose=2, defects=hot, pattern=lines)
    images = session.images.compute()
    sums = md.sum_frames(images)

    def filled(method: Any) -> Any:
        found = md.find_outliers(sums, method=method)
        return [md.fill_outliers(part, found) for part in (images, sums)]

    def left(parts: Any, radius: int, method: Any = "plain") -> float:
        some = parts[0].isel(movie=slice(None, None, 4))
        return float(md.frame_correlation(md.koma(some, sums=parts[1], radius=radius, method=method)).mean())

    raw, fdr, cdf = [images, sums], filled("fdr"), filled("cdf")
    figure, panels = plt.subplot_mosaic("ab;cd", figsize=(9, 8), layout="constrained", height_ratios=(3, 4))
    floor = [1 / (20 * radius + 1) for radius in RADII]
    curves: dict[str, tuple[str, Any, Any, str]] = {
        "KOMA": ("a", raw, "plain", "C1o-"),
        "Wiener KOMA": ("a", raw, "wiener", "C0s-"),
        "outliers, KOMA": ("b", fdr, "plain", "C1o-"),
        "outliers, Wiener KOMA": ("b", fdr, "wiener", "C0s-"),
        "published thresholds, KOMA": ("b", cdf, "plain", "C5^-"),
    }
    for label, (panel, parts, method, line) in curves.items():
        r = [left(parts, radius, method) for radius in RADII]
        panels[panel].plot(RADII, 100 * np.array(r), line, markersize=4, label=label)
        print(f"figure 12: {label:28s} radius 1 {r[0]:.4f}, 12 {r[5]:.4f}, 20 {r[-1]:.4f}")
    for panel, parts in (("a", raw), ("b", fdr)):
        before = 100 * float(md.frame_correlation(parts[0]).mean())
        panels[panel].axhline(before, color="0.6", linewidth=0.8, label=f"without KOMA: {before:.1f} %")
        panels[panel].plot(RADII, 100 * np.array(floor), "k:", label="law of white noise, 1/(2aF + 1)")
        panels[panel].set(xscale="log", xticks=RADII, xticklabels=RADII, xlabel="radius a (movies)", ylim=(-1, 6))
        panels[panel].minorticks_off()
        panels[panel].axhline(0, color="0.8", linewidth=0.6, zorder=0)
        panels[panel].legend()
    panels["a"].set(ylabel="correlation between frames (%)", title="KOMA alone")
    panels["b"].set(title="after the outlier filter")
    corrected = md.koma(fdr[0].isel(movie=20), sums=fdr[1], radius=12).sum("frame")
    shown = {"c": (sums[20], "a sum of frames"), "d": (corrected, "after outlier filter and KOMA, a = 12")}
    for panel, (image, title) in shown.items():
        draw_image(image.values, ax=panels[panel], title=title)
    return figure


FIGURES = {"05": figure_5, "07c": figure_7c, "09": figure_9, "10": figure_10, "11": figure_11, "12": figure_12}

if __name__ == "__main__":
    main()
