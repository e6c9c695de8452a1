"""Figures 10, 11 and 12 of Kieffer et al. on peak finding and the veto, redrawn on simulated stills.

    python examples/peaks_and_veto.py [--out FOLDER]

Writes figure10.png (the peaks of two finders over a frame), figure11.png (peaks by shell of resolution, and how many of
them are true), figure12.png (what a threshold saves and loses), scan.png (peak counts of a grid scan), counting.png
(electrons lost to coincidence), and run.cxi with the .geom file that CrystFEL reads.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from numpy.typing import NDArray

import mrczdask as md
from mrczdask.io.peak_table import PEAKS, peaks_table
from mrczdask.plotting.peaks import plot_peaks, plot_shells, plot_veto

SHAPE = (384, 384)
GRID = (8, 12)
GEOMETRY = md.Geometry.flat(SHAPE, distance_m=0.08, pixel_size_m=150e-6, beam_center=(190.2, 193.7), wavelength_m=1e-10)
BINS: dict[str, Any] = {"bins": 100, "unit": "q_A^-1"}
SPOTS = (5, 10, 15, 30, 45, 60, 75, 90)
"""Of the crystals of each row of the scan."""
INDEXABLE = 25
"""Spots that an indexing program needs, about."""


def stills() -> tuple[xr.DataArray, list[NDArray[np.float64]], NDArray[np.bool_]]:
    """A grid scan over crystals in solvent: frames, true spots (y, x, counts) of each, and which could be indexed."""
    center = GEOMETRY.beam_center
    rows = [
        md.simulate.stills(GRID[1], SHAPE, hit_rate=0.5, spots=n, strength=500, beam_center=center, seed=n)
        for n in SPOTS
    ]
    spots = [row.truth(shot) for row in rows for shot in range(GRID[1])]
    frames = xr.concat([row.frames for row in rows], "shot").assign_coords(shot=np.arange(len(spots)))
    strong = np.array([(one[:, 2] > 80).sum() for one in spots])
    likely = 1 / (1 + np.exp(-(strong - INDEXABLE) / 3))
    return frames, spots, (np.random.default_rng(1).random(strong.size) < likely) & (strong > 3)


def truth_table(spots: list[NDArray[np.float64]]) -> xr.Dataset:
    """The true spots as a list of peaks."""
    rows = np.concatenate(spots)
    columns: dict[str, Any] = {name: np.zeros(len(rows), dtype) for name, dtype in PEAKS.columns.items()}
    columns["y"], columns["x"], columns["intensity"] = rows.T.astype(np.float32)
    return peaks_table(np.array([len(one) for one in spots]), columns, {"shot": np.arange(len(spots))}, {})


def figure_10(frames: xr.DataArray, found: xr.Dataset, other: xr.Dataset) -> Any:
    """The frame of most peaks, and what two settings of the finder see in it."""
    best = int(found.n_peaks.values.argmax())
    figure, ax = plt.subplots(figsize=(6.5, 6.5), layout="constrained")
    tables = [md.open_peaks(path).isel(best).compute() for path in (found.attrs["file"], other.attrs["file"])]
    plot_peaks(frames[best], *tables, labels=("5 sd, 5 x 5, 3 connected", "4 sd, 3 x 3, 2 connected"), ax=ax)
    ax.set_title(f"shot {best}")
    return figure


def figure_11(found: xr.Dataset, other: xr.Dataset, spots: list[NDArray[np.float64]]) -> Any:
    """Peaks by shell, and how many of them are spots that were simulated."""
    truth = truth_table(spots)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained", sharey=True)
    shares = []
    for ax, table, title in zip(axes, (found, other), ("5 sd, 5 x 5", "4 sd, 3 x 3"), strict=True):
        compared = md.compare_peaks(table, truth, geometry=GEOMETRY, shells=np.linspace(0.3, 3.0, 10))
        plot_shells(compared, ax=ax)
        shares.append(float(compared.n_matched.sum() / compared.n_peaks.sum()))
        ax.set_title(f"{title}: {100 * shares[-1]:.1f} % are true")
    print(f"figure 11: true peaks {100 * shares[0]:.1f} % and {100 * shares[1]:.1f} %")
    assert shares[0] > 0.97
    return figure


def figure_12(found: xr.Dataset, indexed: NDArray[np.bool_]) -> Any:
    """Share of indexable frames among hits and blanks, and frames saved, against the threshold."""
    table = md.veto(found, min_peaks=20, indexed=indexed, scan_shape=GRID)
    figure, ax = plt.subplots(figsize=(6, 4.2), layout="constrained")
    plot_veto(table, ax=ax)
    saved, lost = (100 * float(table[name].sel(threshold=20)) for name in ("saved", "lost"))
    print(f"figure 12: 20 peaks or more save {saved:.0f} % of the frames and lose {lost:.1f} % of the indexable ones")
    assert saved > 50
    assert lost < 10
    scan, ax = plt.subplots(figsize=(6, 4), layout="constrained")
    shown = ax.imshow(table.peak_map, cmap="viridis")
    ax.set(title=f"peaks on the scan, hit rate {100 * float(table.hit_rate):.0f} %", xlabel="scan_x", ylabel="scan_y")
    scan.colorbar(shown, ax=ax)
    return figure, scan


def counting() -> Any:
    """Electrons that are lost because two lie together, against the dose of a frame."""
    doses = np.array([0.002, 0.005, 0.01, 0.02, 0.05, 0.1])
    kept = []
    for dose in doses:
        frames = md.simulate.electron_frames((2, 256, 256), float(dose), seed=7)
        true = sum(len(frames.truth(k)) for k in range(2))
        kept.append(float(md.count_electrons(frames.raw, threshold=18.0).sum()) / true)
    figure, ax = plt.subplots(figsize=(6, 4.2), layout="constrained")
    ax.semilogx(doses, 100 * (1 - np.array(kept)), "o-", label="simulated detector")
    ax.semilogx(doses, 100 * (1 - (1 - np.exp(-9 * doses)) / (9 * doses)), "k:", label="dead area of 9 pixels")
    ax.set(xlabel="electrons a pixel and frame", ylabel="electrons not counted (%)")
    ax.legend()
    print(f"counting: {100 * (1 - kept[2]):.1f} % of the electrons are lost at 0.01 a pixel and frame")
    assert kept[0] > 0.97 > kept[-1]
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("peaks_and_veto"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)

    images, spots, indexed = stills()
    frames = md.write_frames(images, out / "run_master.h5", geometry=GEOMETRY)
    background = md.separate_background(frames, GEOMETRY, **BINS)
    tables = []
    for name, options in {
        "run": {"cutoff_peak": 5},
        "eager": {"cutoff_peak": 4, "patch_size": 3, "connected": 2},
    }.items():
        peaks = md.find_peaks(frames, background=background, **options).compute()
        written = md.write_peaks(peaks, out / f"{name}.cxi", frames=frames, geometry=GEOMETRY)
        tables.append(peaks.assign_attrs(file=str(out / f"{name}.cxi")))
        print(f"{name}.cxi: {int(written.n_peaks.sum())} peaks in {len(written)} frames")
    found, other = tables
    figure_10(images, found, other).savefig(out / "figure10.png", dpi=100)
    figure_11(found, other, spots).savefig(out / "figure11.png", dpi=100)
    for name, figure in zip(("figure12", "scan"), figure_12(found, indexed), strict=True):
        figure.savefig(out / f"{name}.png", dpi=100)
    counting().savefig(out / "counting.png", dpi=100)

    hit = md.veto(found, min_peaks=20).hit.values
    hits = md.link_hits(frames, hit, out / "hits.h5")
    print(f"hits.h5 shows {hits.sizes['shot']} of {len(hit)} frames and copies none")
    assert (hits[0].values == images.values[np.flatnonzero(hit)[0]]).all()


if __name__ == "__main__":
    main()
