"""Reading and writing movies, against python-mrcz in the same run on the same number of threads."""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask
import mrcz
import numpy as np
import psutil

import mrczdask as md
from benchmarks.common import Table, arguments, in_child, interleaved, report
from mrczdask.execution.schedulers import n_threads

K2 = (3838, 3710)
DOSE = 2.0
"""Electrons per pixel and frame of the movie: what [M], section 2.2, calls typical ("< 4")."""


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(__doc__, argv)
    frames, shape = (4, (512, 500)) if options.quick else (60, K2)
    movies, big = (20, 64) if options.quick else (1000, 240)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        frame = (1024, 1024) if options.quick else (4096, 4096)
        tables = [
            in_child(read_and_write, (frames, *shape), place, options.repeats, keep_memory=True).value,
            in_child(parts_of_a_frame, place, frame, options.repeats, keep_memory=True).value,
            many_movies(place, movies),
            memory(place, big),
        ]
    return report("io", "Reading and writing movies", tables, options)


def read_and_write(shape: tuple[int, int, int], place: Path, repeats: int) -> Table:
    """Whole movies both ways, and one frame of one."""
    pixels = np.asarray(md.simulate.poisson(shape, mean=DOSE, dtype="int8", seed=1))
    threads = n_threads()
    ours, theirs = str(place / "ours.mrcz"), str(place / "theirs.mrcz")
    movie = md.write_mrcz(pixels, str(place / "raw.mrc"), codec=None).persist()

    def write_theirs(name: str = theirs) -> None:
        mrcz.writeMRC(pixels, name, compressor="zstd", clevel=1, n_threads=threads)

    same = {"shuffle": "bit", "blocksize": 65536}
    writes = interleaved(
        {
            "mrczdask, filter and block measured": lambda: md.write_mrcz(movie, ours),
            "mrczdask, python-mrcz's filter and block": lambda: md.write_mrcz(movie, str(place / "same.mrcz"), **same),
            "python-mrcz 0.6": write_theirs,
            "python-mrcz 0.6, then fsync": lambda: synced(write_theirs, theirs),
        },
        repeats=repeats,
        before=lambda: [written.unlink() for written in place.glob("*.mrcz")],
    )
    md.write_mrcz(movie, ours)
    write_theirs()
    sizes = {name: 8 * os.path.getsize(ours if "measured" in name else theirs) / pixels.size for name in writes.medians}
    chosen = np.random.default_rng(0).integers(len(pixels), size=1000).tolist()
    table = Table(
        f"{' x '.join(map(str, pixels.shape))} int8, {DOSE:g} e/pixel, zstd level 1, {threads} threads",
        ["what", "program", "seconds", "times python-mrcz", "bits/pixel"],
        note="Medians; the ratio is the median over rounds. Files stay in the page cache, freed memory in the process.",
    )
    for name, seconds in writes.medians.items():
        table.add("write", name, seconds, writes.times_faster(name, than="python-mrcz 0.6"), sizes[name])
    for title, file in (("read, our file", ours), ("read, its file", theirs)):
        reads = interleaved(
            {
                "mrczdask, em.load()": lambda file=file: md.open_movie(file).em.load(),
                "mrczdask, compute()": lambda file=file: md.open_movie(file).compute(),
                "python-mrcz 0.6": lambda file=file: mrcz.readMRC(file, n_threads=threads),
            },
            repeats=repeats,
        )
        for name, seconds in reads.medians.items():
            table.add(title, name, seconds, reads.times_faster(name, than="python-mrcz 0.6"), "-")
    single = interleaved(
        {
            "mrczdask": lambda: md.open_movie(ours).isel(frame=chosen.pop()).compute(),
            "python-mrcz 0.6": lambda: mrcz.readMRC(ours, n_threads=threads)[0][chosen.pop()],
        },
        repeats=repeats,
    )
    for name, seconds in single.medians.items():
        table.add("one random frame", name, seconds, single.times_faster(name, than="python-mrcz 0.6"), "-")
    return table


def synced(write: Callable[[], object], file: str) -> None:
    """Write and wait for the disk, as `write_mrcz` does before it gives a file its name."""
    write()
    with open(file, "rb") as written:
        os.fsync(written.fileno())


def parts_of_a_frame(place: Path, shape: tuple[int, int], repeats: int) -> Table:
    """512 rows of a frame against the frame."""
    file = str(place / "4k.mrcz")
    md.write_mrcz(md.simulate.poisson((8, *shape), mean=DOSE, seed=2), file)
    rows = shape[0] // 8
    table = Table(
        f"{rows} rows of a {shape[0]} x {shape[1]} frame",
        ["opened", "the frame, ms", f"{rows} rows, ms", "times faster"],
        note="Scheduling one task through Dask and xarray costs 2 to 3 ms, whatever it reads.",
    )
    for name, chunks in (("lazy without Dask, chunks=None", None), ("as Dask array", "auto")):
        movie = md.open_movie(file, chunks=chunks)
        runs = {
            "frame": lambda movie=movie: movie.isel(frame=5).compute(),
            "rows": lambda movie=movie: movie.isel(frame=5, y=slice(rows, 2 * rows)).compute(),
        }
        with ThreadPoolExecutor(1) as pool:  # in the main thread Blosc would bring threads of its own
            timings = pool.submit(interleaved, runs, repeats=5 * repeats).result()
        milliseconds = [1e3 * timings.medians[what] for what in ("frame", "rows")]
        table.add(name, *milliseconds, timings.times_faster("rows", than="frame"))
    return table


def many_movies(place: Path, n: int) -> Table:
    """Opening a session of n movies of 40 frames from their footers, and the graph of its sums."""
    folder = place / "session"
    folder.mkdir()
    first = folder / "movie_0.mrcz"
    md.write_mrcz(md.simulate.poisson((40, 128, 128), mean=1.0, seed=3), first)
    for k in range(1, n):
        (folder / f"movie_{k}.mrcz").write_bytes(first.read_bytes())
    run = in_child(open_session, str(folder / "*.mrcz"))
    seconds, growth, tasks, pickled = run.value
    table = Table(f"A session of {n} movies x 40 frames, opened from footers", ["what", "measured", "bar"])
    table.add("open, seconds", seconds, "< 5")
    table.add("growth of memory, MB", growth, "< 200")
    table.add("tasks a movie in the graph of the sums", tasks / n, "<= 3")
    table.add("pickled graph, MB", pickled / 1e6, "< 10")
    return table


def open_session(pattern: str) -> tuple[float, float, int, int]:
    md.open_session(pattern, order="name").close()  # imports
    process = psutil.Process()
    before, start = process.memory_info().rss, time.perf_counter()
    session = md.open_session(pattern, order="name")
    seconds, growth = time.perf_counter() - start, (process.memory_info().rss - before) / 1e6
    sums = md.sum_frames(session)
    graph = dict(dask.optimize(sums.data)[0].dask)
    return seconds, growth, len(graph), len(pickle.dumps(sums.data))


def memory(place: Path, frames: int) -> Table:
    """Peak memory while a large movie is written from a graph."""
    run = in_child(write_large, str(place / "large.mrcz"), frames)
    table = Table("Writing a large movie from a graph", ["what", "measured", "bar"])
    table.add("movie, MB", frames * 4096 * 4096 / 1e6, "-")
    table.add("peak memory of the process, MB", run.peak_mb, "< 1000")
    table.add("seconds, simulation included", run.seconds, "-")
    return table


def write_large(file: str, frames: int) -> None:
    md.write_mrcz(md.simulate.poisson((frames, 4096, 4096), mean=1.0, seed=4), file)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
