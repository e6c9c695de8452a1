"""The figures and the table of Sorzano et al., Blind estimation of DED camera gain, redrawn on simulated detectors.

Writes figure1.png (gain, estimates, standard deviation), figure2.png (stability over a session), figure3.png (residual
gains that raise alarms) and table1.csv to the folder given by --out.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr

import mrczdask as md
from mrczdask.plotting import draw_image
from mrczdask.simulate import Defects, Gain, Readout, Specimen

DETECTORS = {
    "lines of 5 and 4 %": Gain(column_sd=0.05, row_sd=0.04, pixel_sd=0.02),
    "lines of 3 and 2 %": Gain(column_sd=0.03, row_sd=0.02, pixel_sd=0.02),
}
SHAPE = (10, 256, 256)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("blind_gain"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    mpl.use("Agg")

    figure_1(out / "figure1.png")
    table_1(out / "table1.csv")
    figure_2(out / "figure2.png")
    figure_3(out / "figure3.png")


def determination(found: Any, true: Any) -> float:
    """Squared correlation of two gain images, the R2 of the paper."""
    return float(np.corrcoef(np.ravel(found), np.ravel(true))[0, 1] ** 2)


def figure_1(path: Path) -> None:
    """True gain, its estimate by SME and by the hybrid, and the standard deviation of the pixels."""
    from matplotlib import pyplot as plt

    ice = Specimen(ice_sd=0.03, particles=25, particle_diameter=24, particle_contrast=0.1)
    figure, axes = plt.subplots(4, 2, figsize=(7.5, 14), layout="constrained")
    for column, (name, response) in zip(axes.T, DETECTORS.items(), strict=True):
        session, truth = md.simulate.session(12, SHAPE, dose=8, gain=response, specimen=ice, seed=1)
        images, true = session.images.compute(), truth.response.values
        draw_image(true, ax=column[0], title=f"true gain, {name}")
        forms: dict[str, dict[str, Any]] = {
            "SME": {"method": "sme", "iterations": 4},
            "hybrid": {"method": "hybrid"},
            "standard deviation": {"method": "deviation"},
        }
        for ax, (label, how) in zip(column[1:], forms.items(), strict=True):
            gain = md.estimate_gain(images, convention="divide", **how).gain.values
            draw_image(gain, ax=ax, title=f"{label}: R² = {determination(gain, true):.2f}")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def table_1(path: Path) -> None:
    """Range and deviation of the residual gain of well calibrated detectors."""
    hot = Defects(hot_fraction=2e-4, hot_excess=(2, 20))
    cameras: dict[str, dict[str, Any]] = {
        "counting, 10 x 40 e/pixel": {"dose": 40, "defects": hot},
        "integrating, 10 x 40 e/pixel": {"dose": 40, "readout": Readout(), "dtype": "float32"},
        "counting, 10 x 4 e/pixel": {"dose": 4, "defects": hot},
    }
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("camera (simulated)", "minimum", "2.5 %", "97.5 %", "maximum", "deviation"))
        for name, how in cameras.items():
            movie, truth = md.simulate.movie(SHAPE, gain=DETECTORS["lines of 3 and 2 %"], seed=2, **how)
            found = md.gain_quality(movie, truth.gain).attrs
            row = [found[key] for key in ("minimum", "p2_5", "p97_5", "maximum", "std")]
            table.writerow((name, *(f"{value:.4f}" for value in row)))
            print(f"{name:30s}", *(f"{value:8.4f}" for value in row))


def figure_2(path: Path) -> None:
    """Percentiles of the residual gain over a steady and a drifting session, and histograms of the second."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(3, 1, figsize=(7, 10), layout="constrained")
    gamma = np.concatenate([np.ones(14), 1 + 0.03 * np.arange(1, 23)])
    sessions = {"steady": 1.0, "drifting": gamma.tolist()}
    for ax, (name, steps) in zip(axes, sessions.items(), strict=False):
        response = Gain(column_sd=0.05, row_sd=0.03)
        session, truth = md.simulate.session(36, (1, 192, 192), dose=40, gain=response, gamma=steps, seed=4)
        drift = md.gain_drift(session, truth.gain)
        for percentile in ("p97_5", "p2_5"):
            ax.plot(drift[percentile].values, marker=".", label=percentile.replace("p", "").replace("_", ".") + " %")
        ax.set(xlabel="movie", ylabel="residual gain")
        ax.set_title(f"{name}: {drift.attrs['advice']}", fontsize=8)
        ax.legend()
    residuals = {k: residual(session, truth.gain, k) for k in (0, 18, 24, 30, 35)}
    for k, values in residuals.items():
        edge = k in (0, 35)
        axes[2].hist(values, bins=80, range=(0.85, 1.15), histtype="step", density=True, color="r" if edge else "b")
    axes[2].set(xlabel="residual gain", yticks=[], title="residual gain of movies 0 and 35 (red), 18, 24 and 30 (blue)")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def residual(session: xr.Dataset, gain: xr.DataArray, movie: int) -> Any:
    """Residual gain of one movie."""
    return md.gain_quality(session.isel(movie=movie), gain).residual.values.ravel()


def figure_3(path: Path) -> None:
    """Residual gains of a camera with broken lines, and of movies whose particles show."""
    from matplotlib import pyplot as plt

    strong = Specimen(particles=30, particle_diameter=24, particle_contrast=0.3)
    cases: dict[str, dict[str, Any]] = {
        "broken lines": {"defects": Defects(dead_rows=2, dead_columns=1)},
        "particles": {"specimen": strong},
    }
    figure, axes = plt.subplots(2, 1, figsize=(6, 11), layout="constrained")
    for ax, (name, how) in zip(axes, cases.items(), strict=True):
        movie, truth = md.simulate.movie(SHAPE, dose=8, gain=DETECTORS["lines of 3 and 2 %"], seed=3, **how)
        report = md.gain_quality(movie, truth.gain)
        said = [*report.attrs["alarms"], *(note for note in report.attrs["notes"] if "particles" in note)]
        shown = np.where(report["mask"], 0.8, report.residual) if name == "broken lines" else report.residual.values
        draw_image(shown, ax=ax)
        ax.set_title("\n".join(said), fontsize=9, wrap=True)
        print(f"{name}: {'; '.join(said)}")
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    main()
