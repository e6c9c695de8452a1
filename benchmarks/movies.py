"""Time normalisation of movies: the outlier pass, KOMA, and the memory of a whole session, against plain NumPy."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import dask
import dask.array as da
import numpy as np
import xarray as xr

import mrczdask as md
from benchmarks.common import Table, arguments, in_child, interleaved, report
from mrczdask.kernels.window import knock_out_windows
from mrczdask.movies.neighbours import neighbour_sums

THREADS = 2
RADII = (1, 4, 12, 25)
DIFFERENT = 25
"""Movies that are simulated to measure memory: what more there are changes nothing but their number."""
BARS = {"outliers": 4.0, "windows": 0.2, "koma": 3.0}


def main(argv: Sequence[str] | None = None) -> int:
    """Run all parts, or the one named by `--part`; each is a section of its own."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--part", choices=PARTS)
    chosen, rest = parser.parse_known_args(argv)
    options = arguments(__doc__, rest)
    for name in [chosen.part] if chosen.part else PARTS:
        title, tables = PARTS[name]
        with dask.config.set(scheduler="threads", num_workers=THREADS):
            report(f"movies-{name}", title, tables(options), options)
    return 0


def _outliers(options: argparse.Namespace) -> list[Table]:
    return [outlier_pass((6, 256, 256) if options.quick else (50, 4096, 4096), options.repeats)]


def _koma(options: argparse.Namespace) -> list[Table]:
    return [koma_pass((12, 4, 128, 128) if options.quick else (240, 40, 512, 512), options.repeats)]


def _radii(options: argparse.Namespace) -> list[Table]:
    return [radii((30, 2, 64, 64) if options.quick else (240, 4, 512, 512), options.repeats)]


def _memory(options: argparse.Namespace) -> list[Table]:
    return [memory((4, 64, 64), (4, 8)) if options.quick else memory((40, 1024, 1024), (25, 50, 100))]


PARTS: Final[dict[str, tuple[str, Callable[[argparse.Namespace], list[Table]]]]] = {
    "outliers": ("Normalisation of movies: outliers", _outliers),
    "koma": ("Normalisation of movies: KOMA", _koma),
    "radii": ("Normalisation of movies: KOMA by radius", _radii),
    "memory": ("Normalisation of movies: memory of a session", _memory),
}


def drain(images: xr.DataArray) -> None:
    """Compute every chunk and let it go: what a writer would be given."""
    dask.compute(*(dask.delayed(_seen)(block) for block in images.data.to_delayed().ravel()))


def _seen(block: np.ndarray) -> float:
    return float(block.flat[0])


def outlier_pass(shape: tuple[int, int, int], repeats: int) -> Table:
    """Sum, fit, fill to float32, chunk by chunk, of a stack in memory."""
    defects = md.simulate.Defects(hot_fraction=0.005)
    stack = md.simulate.movie(shape, dose=1.0, defects=defects, chunks={"frame": 2})[0].compute()
    chunked = stack.copy(data=da.from_array(stack.values, chunks=(2, -1, -1), name=False))

    def plain() -> None:
        stack.values.sum(0)
        stack.values.astype(np.float32)

    def ours(method: str) -> None:
        sums = md.sum_frames(chunked).compute()
        drain(md.fill_outliers(chunked, md.find_outliers(sums, method=method)))

    runs = {"NumPy sum and astype": plain, "fdr": lambda: ours("fdr"), "cdf": lambda: ours("cdf")}
    timings = interleaved(runs, repeats=repeats)
    size = " x ".join(map(str, shape))
    note = (
        f"{size} uint8 in memory, {THREADS} threads: sum of the frames, outliers of the sum, filled frames in float32. "
        f"NumPy on one thread, without outliers. Bar: {BARS['outliers']:g} times NumPy, 3 s."
    )
    table = Table("The outlier pass", ["method", "seconds", "times NumPy's time"], note)
    for name, seconds in timings.medians.items():
        table.add(name, seconds, 1 / timings.times_faster(name, than="NumPy sum and astype"))
    return table


def koma_pass(shape: tuple[int, ...], repeats: int) -> Table:
    """Windows, and the whole of KOMA, over movies in files."""
    folder = Path(tempfile.mkdtemp())
    try:
        session = _written(shape, folder)
        sums = md.write_archive(md.sum_frames(session), folder / "run.zarr", group="derived/sums")

        def koma() -> None:
            shutil.rmtree(folder / "again.zarr", ignore_errors=True)
            stored = md.write_archive(md.sum_frames(session), folder / "again.zarr", group="derived/sums")
            drain(md.koma(session, sums=stored, radius=12).images)

        runs = {
            "read and sum": lambda: md.sum_frames(session).compute(),
            "windows": lambda: drain(windows(sums, 12)),
            "all of KOMA": koma,
        }
        timings = interleaved(runs, repeats=repeats)
    finally:
        shutil.rmtree(folder)
    note = (
        f"{' x '.join(map(str, shape))} uint8 in MRCZ files, {THREADS} threads, radius 12. Windows: the reference "
        "of each movie from stored sums. All of KOMA: sum and store, windows, read again and correct every frame in "
        f"float32. Bars: windows {BARS['windows']:g}, all {BARS['koma']:g} times reading and summing."
    )
    table = Table("KOMA of a session", ["pass", "seconds", "times reading and summing"], note)
    for name, seconds in timings.medians.items():
        table.add(name, seconds, 1 / timings.times_faster(name, than="read and sum"))
    return table


def windows(sums: xr.DataArray, radius: int) -> xr.DataArray:
    """The reference of every movie, lazy."""
    everyone = np.ones(sums.sizes["movie"], bool)
    found = neighbour_sums(sums.data, knock_out_windows(2 * radius, everyone), everyone, mean=True)
    return sums.copy(data=found)


def _written(shape: tuple[int, ...], folder: Path) -> xr.Dataset:
    session = md.simulate.session(shape[0], shape[1:], dose=2, pattern=md.simulate.Pattern(pixel_sd=0.1))[0]
    for k in range(shape[0]):
        md.write_mrcz(session.images.isel(movie=k), _movie(folder, k))
    return md.open_session(folder / "movie_*.mrcz", order="name")


def _movie(folder: Path, k: int) -> Path:
    return folder / f"movie_{k:04d}.mrcz"


def radii(shape: tuple[int, ...], repeats: int) -> Table:
    """Cost of the windows for several radii and numbers of movies."""
    table = Table(
        "KOMA: windows by radius and number of movies",
        ["movies", "radius", "seconds", "milliseconds a movie"],
        f"Sums of {shape[2]} x {shape[3]} in memory, {THREADS} threads.",
    )
    sums = md.sum_frames(md.simulate.session(shape[0], shape[1:], dose=2)[0]).compute()
    for count in (shape[0] // 2, shape[0]):
        part = sums.isel(movie=slice(count))
        stored = part.copy(data=da.from_array(part.values, chunks=(1, -1, -1), name=False))
        runs = {str(r): partial(_drain_windows, stored, r) for r in RADII if 2 * r < count}
        for name, seconds in interleaved(runs, repeats=repeats).medians.items():
            table.add(count, int(name), seconds, 1000 * seconds / count)
    return table


def _drain_windows(sums: xr.DataArray, radius: int) -> None:
    drain(windows(sums, radius))


def memory(shape: tuple[int, int, int], counts: Sequence[int]) -> Table:
    """Peak memory of process_session on two workers, by number of movies."""
    table = Table(
        "Memory of process_session",
        ["movies", "seconds", "peak of a worker, MB", "spilled, MB"],
        f"{' x '.join(map(str, shape))} uint8 a movie in MRCZ files, two workers of one thread and 1 GB each, koma=12. "
        f"The peak includes the libraries, about 350 MB. {DIFFERENT} movies differ, the others are links to them.",
    )
    folder = Path(tempfile.mkdtemp())
    try:
        _written((min(max(counts), DIFFERENT), *shape), folder)
        for count in counts:
            for k in range(DIFFERENT, count):
                _movie(folder, k).unlink(missing_ok=True)
                os.link(_movie(folder, k % DIFFERENT), _movie(folder, k))
            run = in_child(_session_memory, [str(_movie(folder, k)) for k in range(count)], str(folder))
            table.add(count, run.value["seconds"], run.value["peak"], run.value["spilled"])
    finally:
        shutil.rmtree(folder)
    return table


def _session_memory(movies: list[str], folder: str) -> dict[str, float]:
    from distributed import Client, LocalCluster

    session = md.open_session(movies, order="name")
    out = Path(folder, "corrected.zarr")
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, memory_limit="1GB", dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        start = time.perf_counter()
        md.process_session(session, out, koma=12)
        seconds = time.perf_counter() - start
        found = client.run(_worker_memory)
    shutil.rmtree(out)
    return {"seconds": seconds} | {name: max(one[name] for one in found.values()) for name in ("peak", "spilled")}


def _worker_memory(dask_worker: Any = None) -> dict[str, float]:
    from benchmarks.common import peak_mb

    spilled = getattr(dask_worker.data, "spilled_total", None)
    return {"peak": peak_mb(), "spilled": 0.0 if spilled is None else spilled.disk / 1e6}


if __name__ == "__main__":
    sys.exit(main())
