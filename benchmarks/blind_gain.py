"""Blind gain estimation: speed against sorting with NumPy, and what the estimators reach on simulated detectors."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import dask
import numpy as np
from numpy.typing import NDArray

import mrczdask as md
from benchmarks import sme_numpy
from benchmarks.common import Table, arguments, interleaved, report
from mrczdask.kernels.midway import Midway, equalised
from mrczdask.simulate import Gain, Specimen

SIGMAS = tuple(float(s) for s in np.arange(0, 3.01, 0.5))
THREADS = 2
PAPER = "Sorzano et al.: 40 frames of 4k x 4k take 3 minutes on a GPU, 30 minutes on a CPU (their machines)."


def speed(options: argparse.Namespace) -> Table:
    """One SME iteration with the search for sigma over a whole movie, and NumPy's sorts of one frame."""
    frames, size = (4, 256) if options.quick else (40, 4096)
    movie = md.simulate.poisson((frames, size, size), mean=2.0, seed=0).compute().values
    table = Table(
        f"One SME iteration, {size} x {size} uint8 of 2 e/pixel, {THREADS} threads, sum_to=None",
        ("form", "frames", "seconds", "seconds a frame", "times faster", "CPU seconds a frame"),
        "Sorting: NumPy's argsort of every row and every column of a frame, and what it takes to put the mean "
        f"histogram in place, for one sigma, or for {len(SIGMAS)} of which the one of least total variation is taken; "
        f"times faster than the same task by sorting. {PAPER}",
    )

    def sme(n: int, sigma: float | None = None) -> Any:
        with dask.config.set(num_workers=THREADS):
            return md.estimate_gain(movie[:n], method="sme", sum_to=None, sigma=sigma)

    few = max(frames // 5, 1)
    runs = {
        "mrczdask, sigma searched": lambda: sme(frames),
        "mrczdask, sigma searched, fewer frames": lambda: sme(few),
        "mrczdask, sigma=1": lambda: sme(frames, 1.0),
        "NumPy sorts, sigma searched": lambda: sorted_frame(movie[0], SIGMAS),
        "NumPy sorts, sigma=1": lambda: sorted_frame(movie[0], (1.0,)),
    }
    times = interleaved(runs, repeats=min(options.repeats, 2)).medians
    counts = dict(zip(runs, (frames, few, frames, 1, 1), strict=True))
    for name, seconds in times.items():
        peer = "NumPy sorts, sigma=1" if "sigma=1" in name else "NumPy sorts, sigma searched"
        begin = time.process_time()
        runs[name]()
        busy = (time.process_time() - begin) / counts[name]
        table.add(name, counts[name], seconds, seconds / counts[name], times[peer] * counts[name] / seconds, busy)
    return table


def sorted_frame(frame: NDArray[Any], sigmas: tuple[float, ...] = (0.0,)) -> NDArray[np.float64]:
    """A frame equalised by NumPy's argsort along both axes."""
    return (sme_numpy.equalised_by_argsort(frame, 0, sigmas) + sme_numpy.equalised_by_argsort(frame, 1, sigmas)) / 2


def float_speed(options: argparse.Namespace) -> Table:
    """Float frames, one thread, against NumPy's sorts; equal results."""
    size = 256 if options.quick else 4096
    frame = np.random.default_rng(0).normal(60, 8, (size, size)).astype(np.float32)
    runs = {
        "mrczdask, one thread": lambda: equalised(frame, Midway()),
        "NumPy sorts": lambda: sorted_frame(frame),
    }
    table = Table(
        f"A float32 frame of {size} x {size} equalised",
        ("form", "seconds", "times faster than sorting", "rms relative difference", "largest"),
        "One thread each. Equal pixels take the mean over their ranks here, and any of them with NumPy.",
    )
    want = sorted_frame(frame)
    times = interleaved(runs, repeats=min(options.repeats, 2))
    for name, seconds in times.medians.items():
        difference = np.abs(runs[name]() / want - 1)
        rms = float(np.sqrt(np.mean(difference**2)))
        table.add(name, seconds, times.times_faster(name, than="NumPy sorts"), rms, float(difference.max()))
    return table


def lines_reached(options: argparse.Namespace) -> Table:
    """Slopes and R2 of SME on rows and columns."""
    size = 128 if options.quick else 512
    table = Table(
        f"SME: columns 3 %, rows 2 %, one simulated movie of 20 frames of {size} x {size}",
        ("e/pixel a frame", "form", "images ranked", "column slope", "row slope", "R2"),
        "Slope: of the means of estimated lines over true ones. Simulated.",
    )
    forms: dict[str, dict[str, Any]] = {
        "1 iteration": {},
        "10 iterations": {"iterations": 10},
        "1 sequential pass": {"sequential": True},
        "10 iterations, upper, no sums (as published)": {"iterations": 10, "ties": "upper", "sum_to": None},
    }
    for dose in (60, 2):
        movie, truth = md.simulate.movie((20, size, size), dose=dose, gain=Gain(column_sd=0.03, row_sd=0.02), seed=1)
        frames, true = movie.compute(), normalised(truth.response.values)
        for name, how in forms.items():
            found = md.estimate_gain(frames, method="sme", convention="divide", **how)
            ranked = round(20 * dose / found.attrs["electrons_per_image"])
            gain = found.gain.values
            table.add(dose, name, ranked, slope(gain, true, 0), slope(gain, true, 1), r2(gain, true))
    return table


def pixels_reached(options: argparse.Namespace) -> Table:
    """R2 of the estimators against the number of movies."""
    size = 128 if options.quick else 256
    counts = (1, 10, 30) if options.quick else (1, 2, 10, 30, 100, 300)
    response = Gain(column_sd=0.03, row_sd=0.02, pixel_sd=0.02, smooth_sd=0.045)
    session, truth = md.simulate.session(max(counts), (1, size, size), dose=40, gain=response, seed=3)
    images, true = session.images.compute(), normalised(truth.response.values)
    table = Table(
        f"Pixel-level gain: columns 3 %, rows 2 %, smooth 4.5 %, pixels 2 %; movies of 40 e/pixel, {size} x {size}",
        ("movies", "pixel mean", "means", "hybrid", "R2 it expects", "movies more until 0.95", "error / uncertainty"),
        "R2 of the gain. The last column is the standard deviation of (estimate - truth) / uncertainty. Simulated.",
    )
    for n in counts:
        some = images.isel(movie=slice(0, n))
        mean = normalised(some.values.sum(axis=(0, 1), dtype=float))
        lines = md.estimate_gain(some, method="means", convention="divide")
        found = md.estimate_gain(some, convention="divide")
        pull = float(((found.gain - true) / found.uncertainty).std())
        reached = [r2(gain, true) for gain in (mean, lines.gain.values, found.gain.values)]
        table.add(n, *reached, found.attrs["expected_r2"], found.attrs["movies_to_r2_95"], pull)
    return table


def robustness(options: argparse.Namespace) -> Table:
    """Carbon movies, alarms, drift."""
    size = 128 if options.quick else 512
    lines = Gain(column_sd=0.03, row_sd=0.02)
    carbon = Specimen(carbon=("movie_0003", "movie_0011"), ice_sd=0.02)
    session, truth = md.simulate.session(20, (1, size, size), dose=40, gain=lines, specimen=carbon, seed=6)
    columns = truth.response.values.mean(axis=0)
    found = md.estimate_gain(session, method="means", convention="divide").gain.values.mean(axis=0)
    table = Table(f"Robustness, {size} x {size}", ("case", "found"), "Simulated; published thresholds.")
    table.add("correlation of columns, 2 of 20 movies with carbon", float(np.corrcoef(found, columns)[0, 1]))
    hot = md.simulate.Defects(hot_fraction=0.001, hot_excess=(14, 14))
    cases: dict[str, tuple[dict[str, Any], bool]] = {
        "alarms, corrected movie of 20 x 2 e/pixel": ({"gain": lines}, True),
        "alarms, 8 % of residual columns": ({"gain": Gain(column_sd=0.08)}, False),
        "alarms, 0.1 % of hot pixels of 8 x": ({"gain": lines, "defects": hot}, True),
    }
    for name, (how, corrected) in cases.items():
        movie, truth = md.simulate.movie((20, size, size), dose=2, seed=2, **how)
        quality = md.gain_quality(movie, truth.gain if corrected else None)
        table.add(name, "; ".join(quality.attrs["alarms"]) or "none")
    gamma = [1.0] * 22 + [1.25] * 12
    for name, steps in (("drift, none", 1.0), ("drift, columns change by 1 % from movie 23 of 34 on", gamma)):
        session, truth = md.simulate.session(34, (1, 256, 256), dose=40, gain=Gain(column_sd=0.04), gamma=steps)
        table.add(name, md.gain_drift(session, truth.gain).attrs["advice"])
    return table


def normalised(gain: NDArray[Any]) -> NDArray[np.float64]:
    """A gain of mean 1."""
    return np.asarray(gain / gain.mean(), dtype=np.float64)


def slope(found: NDArray[Any], true: NDArray[Any], axis: int) -> float:
    """Slope of the means of lines over the true ones."""
    return float(np.polyfit(true.mean(axis=axis), found.mean(axis=axis), 1)[0])


def r2(found: NDArray[Any], true: NDArray[Any]) -> float:
    """Coefficient of determination."""
    return float(1 - ((found - true) ** 2).mean() / ((true - true.mean()) ** 2).mean())


def main(argv: list[str] | None = None) -> int:
    """Run all tables."""
    options = arguments(__doc__, argv)
    tables = [speed, float_speed, lines_reached, pixels_reached, robustness]
    return report("blind_gain", "Blind gain estimation", [table(options) for table in tables], options)


if __name__ == "__main__":
    sys.exit(main())
