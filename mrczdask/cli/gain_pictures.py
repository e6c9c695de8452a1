"""PNGs of the gain commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr

from mrczdask import schema
from mrczdask.errors import MissingExtraError
from mrczdask.plotting import draw_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS: Final = 200
HISTOGRAM: Final = (0.05, 99.95)
"""Percentiles between which a histogram runs."""
DPI: Final = 120


def new_figure(width: float, height: float) -> Figure:
    """A figure that no window and no global state knows."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("pictures need matplotlib: pip install 'mrczdask[plot]'") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def draw_gain(gain: xr.DataArray, mask: xr.DataArray, title: str, path: str) -> None:
    """A gain and its histogram."""
    figure = new_figure(11, 5)
    image, histogram = figure.subplots(1, 2)
    draw_image(gain.values, ax=image, origin=str(gain.attrs.get(schema.ORIGIN, "lower")), title=title)
    draw_histogram(histogram, gain.values[~mask.values], f"gain ({gain.attrs.get(schema.CONVENTION, '')})")
    figure.savefig(path, dpi=DPI)


def draw_histogram(ax: Axes, values: Any, label: str, **style: Any) -> None:
    """A histogram without its far tails."""
    low, high = np.percentile(values, HISTOGRAM)
    ax.hist(values, bins=BINS, range=(low, high) if high > low else None, histtype="step", density=True, **style)
    ax.set(xlabel=label, yticks=[])


def draw_report(report: xr.Dataset, path: str) -> None:
    """Residual gain, its histogram, its rows and columns."""
    figure = new_figure(11, 8)
    (image, histogram), lines = figure.subplots(2, 2)
    title = "residual gain: " + ("; ".join(report.attrs["alarms"]) or "no alarm")
    draw_image(report.residual.values, ax=image, origin=str(report.attrs.get(schema.ORIGIN, "lower")))
    figure.suptitle(title, wrap=True)
    draw_histogram(histogram, report.residual.values[~report["mask"].values], "residual gain")
    for value in (report.attrs["p2_5"], report.attrs["p97_5"]):
        histogram.axvline(value, color="gray", linestyle="--", linewidth=0.8)
    for ax, kind, dim in zip(lines, ("row", "column"), (schema.Y, schema.X), strict=True):
        place = np.arange(report.sizes[dim])
        profile, error = report[f"{kind}_gain"].values, report[f"{kind}_error"].values
        ax.errorbar(place, profile, error, linestyle="none", marker=".", markersize=2, elinewidth=0.5)
        broken = report[f"{kind}_broken"].values
        ax.plot(place[broken], np.nan_to_num(profile)[broken], "rx")
        ax.set(xlabel=kind, ylabel=f"{kind} gain")
    figure.savefig(path, dpi=DPI)


def draw_drift(drift: xr.Dataset, path: str) -> None:
    """Percentile curves of the residual gain over the session, and the cumulative sums."""
    figure = new_figure(9, 7)
    above, below = figure.subplots(2, 1, sharex=True)
    place = np.arange(drift.sizes[schema.MOVIE])
    for name, label in (("p97_5", "97.5 percentile"), ("p2_5", "2.5 percentile")):
        above.plot(place, drift[name].values, marker=".", label=label)
    above.set(ylabel="residual gain", title=str(drift.attrs["advice"]))
    above.legend()
    for part in drift["part"].values:
        below.plot(place, drift["cusum"].sel(part=part).values, label=str(part))
    below.axhline(drift.attrs["limit"], color="gray", linestyle="--", linewidth=0.8)
    below.set(xlabel="movie", ylabel="cumulative sum")
    below.legend()
    if drift.attrs["alarm"]:
        for ax in (above, below):
            ax.axvline(drift.attrs["changepoint"], color="red", linewidth=0.8)
    figure.savefig(path, dpi=DPI)
