"""Find Bragg peaks and count electrons: seconds against pyFAI's peakfinder, in memory and from the command line.

Frames are those of `benchmarks.diffraction`. The rows of pyFAI need pyopencl with a device (PoCL makes one of the
processor); without it they are left out, and said to be.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
from numpy.typing import NDArray

import mrczdask as md
from benchmarks.common import Table, Timings, arguments, interleaved, report
from benchmarks.diffraction import (
    DETECTOR,
    DUMMY,
    NOISE,
    POLARIZATION,
    SHAPE,
    THREADS,
    _has_opencl,
    _write_inputs,
    pyfai_finder,
)

CUTOFF, PATCH, CONNECTED, BINS = 5.0, 5, 3, 800
BARS = {"peakfinder": 10, "program": 20}
MOST_ADDED, MOST_MS, SCALING, ELECTRON_MPX = 20, 35, 1.7, 200
DOSES = (0.01, 0.05)
PEER_FRAMES = 1
"""In memory: pyFAI's peakfinder takes some 9 s a frame on PoCL."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run all tables."""
    options = arguments(__doc__, argv)
    os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))
    with tempfile.TemporaryDirectory() as folder:
        poni, raw = Path(folder) / "detector.poni", Path(folder) / "run_master.h5"
        frames = _write_inputs(poni, raw, 2 if options.quick else 20)
        tables = [against_pyfai(poni, raw, frames, options), cost(poni, frames, options.repeats)]
    tables.append(electrons(512 if options.quick else 4096, options.repeats))
    return report("peaks", "Peak finding and electron counting", tables, options)


def lazy_peaks(poni: Path, frames: NDArray[Any]) -> tuple[Any, Any]:
    """Background and peaks of the frames, one a chunk; nothing computed."""
    lazy = da.from_array(frames, chunks=(1, *SHAPE), name=False)
    background = md.separate_background(
        lazy,
        md.Geometry.from_poni(poni),
        bins=BINS,
        unit="r_m",
        dummy=DUMMY,
        polarization=POLARIZATION,
        solid_angle=True,
        noise=NOISE,
    )
    rule: dict[str, Any] = {"patch_size": PATCH, "connected": CONNECTED, "gaps": "ignore", "centroid": "plain"}
    peaks = md.find_peaks(lazy, background=background, cutoff_peak=CUTOFF, **rule)
    return background, peaks


def against_pyfai(poni: Path, raw: Path, frames: NDArray[Any], options: argparse.Namespace) -> Table:
    """Frames in memory, and the programs end to end; pyFAI's take minutes and are left out with --quick."""
    compared = _has_opencl() and not options.quick
    n = len(frames)
    table = Table(
        f"Peaks in {n} frames of an {DETECTOR}, {THREADS} threads",
        ["task", "program", "ms a frame", "times faster", "asked"],
        f"uint32, {BINS} bins, Poisson errors, polarization and solid angle, peaks above {CUTOFF:g} sd. Programs in "
        "processes of their own, start included. Medians of interleaved rounds; as pyFAI's take seconds a frame, "
        f"{PEER_FRAMES} frame in memory, and one run of the programs.",
    )
    _, peaks = lazy_peaks(poni, frames)
    with dask.config.set(scheduler="threads", num_workers=THREADS):
        ours = {"mrczdask": peaks.compute}
        if compared:
            theirs = pyfai_peakfinder(poni, frames[:PEER_FRAMES])
            count, other = int(peaks.compute().n_peaks[:PEER_FRAMES].sum()), theirs()
            table.note += f" Peaks found in the same: {count}, pyFAI {other}."
            ours["pyFAI OpenCL (PoCL)"] = theirs
        else:
            table.note += " Rows of OpenCL are missing: pyopencl or a device was not there."
        add(table, "peakfinder", interleaved(ours, repeats=min(options.repeats, 3)), n, PEER_FRAMES)
    if compared:
        add(table, "program", programs(poni, raw), n, n)
    return table


def add(table: Table, task: str, timings: Timings, n: int, n_peer: int) -> None:
    """Rows of a task, of n frames and of those of the other program."""
    for name, seconds in timings.medians.items():
        ours = name == "mrczdask"
        ratio = None if ours else timings.times_faster("mrczdask", than=name) * n / n_peer
        table.add(task, name, 1e3 * seconds / (n if ours else n_peer), ratio, None if ours else f">= {BARS[task]}")


def pyfai_peakfinder(poni: Path, frames: NDArray[Any]) -> Callable[[], int]:
    """What its program does with each frame, without reading and writing."""
    finder, how = pyfai_finder(poni, BINS)

    def run() -> int:
        found = 0
        for frame in frames:
            found += len(finder.peakfinder(frame, cutoff_peak=CUTOFF, patch_size=PATCH, connected=CONNECTED, **how))
        return found

    return run


def programs(poni: Path, raw: Path) -> Timings:
    """Both programs in processes of their own, start included."""
    shared = ["--cutoff-peak", CUTOFF, "--noise", NOISE, "--bins", BINS, "--unit", "r_m", "--dummy", DUMMY]
    theirs = [Path(sys.executable).parent / "peakfinder", "-p", poni, "-P", POLARIZATION, "-A", *shared]
    theirs += ["--patch-size", PATCH, "--connected", CONNECTED, "-o", raw.with_name("theirs.cxi"), raw]
    ours = [sys.executable, "-m", "mrczdask.cli", "peaks", raw, "-p", poni, "-o", raw.with_name("ours.cxi"), *shared]
    ours += ["--polarization", POLARIZATION, "--solid-angle", "--gaps", "ignore", "--centroid", "plain", "--quiet"]

    def run(command: list[Any]) -> Callable[[], object]:
        return lambda: subprocess.run([str(part) for part in command], check=True, capture_output=True)

    def clean() -> None:
        for name in ("ours.cxi", "theirs.cxi"):
            raw.with_name(name).unlink(missing_ok=True)

    run(ours)()  # compiles; pyFAI's kernels were compiled in memory
    return interleaved({"mrczdask": run(ours), "peakfinder": run(theirs)}, repeats=1, warmups=0, before=clean)


def cost(poni: Path, frames: NDArray[Any], repeats: int) -> Table:
    """What finding peaks adds to separating the background, and what a second thread brings."""
    background, peaks = lazy_peaks(poni, frames)
    tables = background[["background_avg", "background_std"]]
    n = len(frames)

    def on(threads: int, *work: Any) -> Callable[[], object]:
        def run() -> None:
            with dask.config.set(scheduler="threads", num_workers=threads):
                dask.compute(*work)

        return run

    runs = {
        "background, 1 thread": on(1, tables),
        "background and peaks, 1 thread": on(1, tables, peaks),
        "background and peaks, 2 threads": on(2, tables, peaks),
    }
    timings = interleaved(runs, repeats=repeats)
    one, both, two = runs
    added = 100 * (1 / timings.times_faster(both, than=one) - 1)
    scaling = timings.times_faster(two, than=both)
    table = Table(
        "Cost of a frame",
        ["run", "ms a frame", "against the row above", "asked"],
        "Peaks: added to the background, %. Two threads: times the throughput of one.",
    )
    seconds = timings.medians
    table.add(one, 1e3 * seconds[one] / n, None, None)
    table.add(both, 1e3 * seconds[both] / n, f"+{added:.0f} %", f"<= {MOST_MS} ms, <= +{MOST_ADDED} %")
    table.add(two, 1e3 * seconds[two] / n, f"{scaling:.2f} x", f">= {SCALING} x")
    return table


def electrons(size: int, repeats: int) -> Table:
    """Raw frames of a counting camera in memory, one thread."""
    table = Table(
        "Electron counting, one thread",
        ["electrons a pixel", "method", "Mpx/s", "asked"],
        f"{size} x {size} int16; an electron spreads over some 3 x 3 pixels.",
    )
    for dose in DOSES:
        raw = md.simulate.electron_frames((1, size, size), dose, seed=1).raw.values.astype(np.int16)

        def counted(method: Any, raw: NDArray[Any] = raw) -> Callable[[], object]:
            return lambda: md.count_electrons(raw, threshold=18.0, method=method)

        runs = {method: counted(method) for method in ("pixel", "centroid")}
        for name, seconds in interleaved(runs, repeats=repeats).medians.items():
            table.add(dose, name, raw.size / seconds / 1e6, f">= {ELECTRON_MPX}")
    return table


if __name__ == "__main__":
    sys.exit(main())
