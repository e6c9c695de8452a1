"""Pictures of peaks: over a frame, by shell of resolution, and the veto."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from mrczdask.errors import MissingExtraError
from mrczdask.io.validity import counts_in, dtype_rule, validity_of


def plot_peaks(frame: Any, *tables: xr.Dataset, labels: tuple[str, ...] = (), ax: Any = None) -> Any:
    """A frame (y, x) and the peaks of one or more finders over it; returns the axes.

    Raises
    ------
    MissingExtraError
        Matplotlib is not installed.
    """
    ax = ax if ax is not None else _axes(1)[1][0]
    image = np.asarray(frame, np.float64)
    mask = np.asarray(frame.coords["mask"]) if isinstance(frame, xr.DataArray) and "mask" in frame.coords else False
    attrs = frame.attrs if isinstance(frame, xr.DataArray) else {}
    raw = np.asarray(frame)
    mask = np.asarray(mask) | ~counts_in(validity_of(attrs).merged(dtype_rule(raw.dtype)), raw)
    known = image[np.isfinite(image) & ~mask & (image >= 0)]
    top = np.quantile(known[known < known.max()] if (known < known.max()).any() else known, 0.999) if known.size else 1
    ax.imshow(np.where(mask, np.nan, image), cmap="gray_r", vmin=0, vmax=max(top, 1), interpolation="nearest")
    styles = (("o", "C3", 40), ("s", "C0", 80), ("D", "C2", 120))
    for k, table in enumerate(tables):
        marker, colour, size = styles[k % len(styles)]
        label = f"{labels[k] if k < len(labels) else 'peaks'}: {table.sizes['peak']}"
        ax.scatter(table.x, table.y, size, marker=marker, facecolors="none", edgecolors=colour, lw=0.8, label=label)
    if tables:
        ax.legend(loc="upper right", fontsize=8)
    ax.set(xticks=[], yticks=[])
    return ax


def plot_shells(compared: xr.Dataset, *, ax: Any = None, unit: str = "q_A^-1") -> Any:
    """Peaks and confirmed peaks by shell, as `compare_peaks` counts them; returns the axes."""
    ax = ax if ax is not None else _axes(1)[1][0]
    edges = compared.shell_edges.values
    for name, label, colour in (("n_peaks", "peaks", "C0"), ("n_matched", "confirmed by the reference", "C1")):
        ax.stairs(compared[name].values, edges, label=label, color=colour, fill=name == "n_matched", alpha=0.8)
    ax.stairs(compared.n_reference.values, edges, label="reference", color="k", ls=":")
    ax.set(xlabel=f"radius ({unit})", ylabel="peaks in a shell")
    ax.legend(fontsize=8)
    return ax


def plot_veto(table: xr.Dataset, *, ax: Any = None) -> Any:
    """What every threshold saves, and with an indexing result which share of hits and blanks was indexed."""
    ax = ax if ax is not None else _axes(1)[1][0]
    ax.step(table.threshold, 100 * table.saved, where="post", label="frames saved", color="k")
    names = {
        "indexed_of_hits": "indexed among hits",
        "indexed_of_blanks": "indexed among blanks",
        "lost": "indexed lost",
    }
    for k, (name, label) in enumerate(names.items()):
        if name in table:
            ax.step(table.threshold, 100 * table[name], where="post", label=label, color=f"C{k}")
    if "min_peaks" in table.attrs:
        ax.axvline(table.attrs["min_peaks"], color="0.6", ls="--", lw=1)
    ax.set(xlabel="least number of peaks of a hit", ylabel="%", ylim=(-2, 102))
    ax.legend(fontsize=8)
    return ax


def plot_run(frame: Any, peaks: xr.Dataset, table: xr.Dataset) -> Any:
    """The frame of most peaks, the peaks of every shot, and the sweep of the threshold; returns the figure."""
    figure, axes = _axes(3)
    plot_peaks(frame, peaks, ax=axes[0])
    axes[1].plot(table.shot, table.n_peaks, ".", ms=4)
    axes[1].axhline(table.attrs["min_peaks"], color="0.6", ls="--", lw=1)
    axes[1].set(xlabel="shot", ylabel="peaks", title=f"hit rate {100 * float(table.hit_rate):.1f} %")
    plot_veto(table, ax=axes[2])
    return figure


def _axes(n: int) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("pictures need matplotlib: pip install 'mrczdask[plot]'") from None
    figure = Figure(figsize=(5 * n, 4.6), layout="constrained")
    return figure, [figure.add_subplot(1, n, k + 1) for k in range(n)]
