"""The tables and figures of the MRCZ paper ([M] 2.3) redone: compression by dose, threads, block size; Table 1."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import dask
import imagecodecs
import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from scipy.stats import poisson

import mrczdask as md
from benchmarks.common import IMAGES, Table, arguments, in_child, report
from mrczdask.execution.schedulers import n_threads
from mrczdask.io.encode import Encoding, encode_frame

DOSES = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 4.0)
"""Electrons per pixel and frame, as in Figure 2a."""
CODECS = (("lz4", 9), ("zlib", 1), ("zstd", 1), ("zstd", 5))
BLOCKS = (16, 64, 256, 1024, 4096)
INT8 = np.dtype("i1")


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(__doc__, argv)
    mpl.use("Agg")
    shape = (512, 512) if options.quick else (4096, 4096)
    movie = (3, 512, 500) if options.quick else (60, 3838, 3710)
    doses, threads, blocks = by_dose(shape), by_threads(shape, options.repeats), by_block(shape, options.repeats)
    whole = in_child(table_1, movie, 1 if options.quick else 3, keep_memory=True).value
    tables = [doses, threads, blocks, whole]
    pictures = {"mrcz_paper.png": "Bits per pixel by dose, speed by threads, and both by block size"}
    if not options.quick:
        draw(doses, threads, blocks, IMAGES / "mrcz_paper.png")
    return report("mrcz_paper", "The MRCZ paper's benchmarks", tables, options, pictures)


def entropy(mean: float) -> float:
    """Entropy of a Poisson distribution in bits: what no lossless code of independent pixels can beat."""
    p = poisson.pmf(np.arange(int(mean + 40 * np.sqrt(mean) + 40)), mean)
    return float(-(p[p > 0] * np.log2(p[p > 0])).sum())


def frame_of(shape: tuple[int, int], dose: float) -> np.ndarray[Any, Any]:
    return np.asarray(md.simulate.poisson((1, *shape), mean=dose, dtype="int8", seed=7))[0]


def bits(frame: np.ndarray[Any, Any], codec: str, level: int, shuffle: str, block: int) -> float:
    encoding = Encoding(0, INT8, codec, level, shuffle, block)
    return 8 * len(encode_frame(frame, encoding)) / frame.size


def by_dose(shape: tuple[int, int]) -> Table:
    names = [f"{codec}-{level} {shuffle}" for codec, level in CODECS for shuffle in ("bit", "none")]
    table = Table(
        f"Figure 2a: bits per pixel of {shape[0]} x {shape[1]} int8 Poisson frames, blocks of 1 MiB",
        ["e/pixel", "Poisson entropy", *names],
        note="`bit` is Blosc's bitshuffle, `none` no filter: with many electrons the filter costs more than it gains.",
    )
    for dose in DOSES:
        frame = frame_of(shape, dose)
        row = [bits(frame, codec, level, s, 1 << 20) for codec, level in CODECS for s in ("bit", "none")]
        table.add(dose, round(entropy(dose), 3), *(round(value, 3) for value in row))
    return table


def by_threads(shape: tuple[int, int], repeats: int) -> Table:
    """Compression rate of `write_mrcz` by the number of threads."""
    table = Table("Figure 2c: writing by threads, zstd level 1, 2 e/pixel", ["threads", "MB/s", "times one thread"])
    frames = np.repeat(frame_of(shape, 2.0)[None], 12, axis=0)
    movie = md.simulate.poisson(frames.shape, mean=2.0, dtype="int8", seed=8).persist()
    rates: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for threads in sorted({1, 2, n_threads(), 2 * n_threads()}):
            with dask.config.set(num_workers=threads):
                seconds = timed(
                    lambda: md.write_mrcz(movie, f"{folder}/m.mrcz", shuffle="bit", blocksize=1 << 18), repeats
                )
            rates[threads] = movie.nbytes / 1e6 / seconds
    for threads, rate in rates.items():
        table.add(threads, rate, rate / rates[1])
    return table


def by_block(shape: tuple[int, int], repeats: int) -> Table:
    table = Table(
        "Figure 2d: block size, zstd level 1 with bitshuffle, 2 e/pixel, one thread",
        ["block, KiB", "bits/pixel", "compress MB/s", "decompress MB/s"],
    )
    frame = frame_of(shape, 2.0)
    for block in BLOCKS:
        encoding = Encoding(0, INT8, "zstd", 1, "bit", block << 10)
        compress = in_thread(lambda encoding=encoding: timed(lambda: encode_frame(frame, encoding), repeats))
        raw = encode_frame(frame, encoding)
        decompress = in_thread(lambda raw=raw: timed(lambda: unpack_frame(raw, frame.nbytes), repeats))
        table.add(block, 8 * len(raw) / frame.size, frame.nbytes / 1e6 / compress, frame.nbytes / 1e6 / decompress)
    return table


def unpack_frame(raw: bytes, nbytes: int) -> None:
    import numcodecs.blosc

    numcodecs.blosc.decompress(raw, np.empty(nbytes, np.uint8))


def in_thread(call: Callable[[], float]) -> float:
    """Run in a thread of its own: Blosc uses its own threads only in the main one."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def timed(call: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def table_1(shape: tuple[int, int, int], repeats: int) -> Table:
    """Size, write and read time of a whole movie in every format of Table 1."""
    table = Table(
        f"Table 1: {shape[0]} x {shape[1]} x {shape[2]} Poisson movie, 1.5 e/pixel, {n_threads()} threads",
        ["format", "MB", "ratio", "write s", "read s"],
        note=(
            f"Medians of {repeats} for no codec, lz4 and zstd, the others once. Files stay in the page cache: the "
            "paper's disk of 300 MB/s is not in these times. JPEG 2000 is single-threaded."
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        raw = f"{folder}/raw.mrc"
        movie = md.write_mrcz(md.simulate.poisson(shape, mean=1.5, dtype="uint8", seed=9), raw, codec=None)
        movie = movie.persist()
        size = movie.nbytes / 1e6
        rows: list[tuple[str, Callable[[str], object], Callable[[str], object], int]] = [
            ("none, int8", lambda f: md.write_mrcz(movie, f, codec=None), read, repeats),
            ("none, 4-bit", lambda f: md.write_mrcz(movie, f, codec=None, mode=101), read, repeats),
        ]
        for codec, level in (*CODECS, ("lz4", 1), ("lz4hc", 9), ("blosclz", 9), ("zlib", 5)):
            times = repeats if codec in ("lz4", "zstd") else 1
            rows.append((f"blosc-{codec}-{level}", writer(movie, codec, level), read, times))
        rows += [(name, *tool(raw, command), 1) for name, command in TOOLS.items() if shutil.which(command[0])]
        rows.append(("JPEG 2000", lambda f: write_jpeg2000(movie.values, f), read_jpeg2000, 1))
        for name, write, load, times in rows:
            file = f"{folder}/one.mrcz"
            seconds = timed(lambda write=write, file=file: write(file), times)
            mb = os.path.getsize(file) / 1e6
            table.add(name, mb, mb / size, seconds, timed(lambda load=load, file=file: load(file), times))
    return table


TOOLS = {
    "pigz -1": ("pigz", "-1", "-c"),
    "lbzip2 -9": ("lbzip2", "-9", "-c"),
    "xz -6 -T0": ("xz", "-6", "-T0", "-c"),
}


def writer(movie: Any, codec: Any, level: int) -> Callable[[str], object]:
    return lambda file: md.write_mrcz(movie, file, codec=codec, level=level)


def read(file: str) -> object:
    return md.open_movie(file).compute()


def tool(raw: str, command: Sequence[str]) -> tuple[Callable[[str], object], Callable[[str], object]]:
    def run(arguments: Sequence[str], source: str, target: str) -> None:
        with open(source, "rb") as stdin, open(target, "wb") as stdout:
            subprocess.run(arguments, stdin=stdin, stdout=stdout, check=True)

    unpack = [command[0], "-d", "-c"]
    return lambda file: run(command, raw, file), lambda file: run(unpack, file, file + ".out")


def write_jpeg2000(frames: np.ndarray[Any, Any], file: str) -> None:
    with open(file, "wb") as out:
        for frame in frames:
            raw = imagecodecs.jpeg2k_encode(frame, reversible=True, level=0, numthreads=1)
            out.write(len(raw).to_bytes(8, "little") + raw)


def read_jpeg2000(file: str) -> None:
    with open(file, "rb") as source:
        while size := source.read(8):
            imagecodecs.jpeg2k_decode(source.read(int.from_bytes(size, "little")), numthreads=1)


def draw(doses: Table, threads: Table, blocks: Table, file: Path) -> None:
    """Figure 2 of [M]: a, c and d."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    table = np.array(doses.rows, float)
    left.plot(table[:, 0], table[:, 1], "k--", label="Poisson entropy")
    for column, name in enumerate(doses.columns[2:], 2):
        if name.endswith("bit"):
            left.plot(table[:, 0], table[:, column], "o-", label=name.removesuffix(" bit"))
    left.set(xscale="log", xlabel="dose (e/pixel/frame)", ylabel="bits per pixel", title="a  dose")
    left.legend(frameon=False)
    table = np.array([[cell.replace(",", "") for cell in row] for row in threads.rows], float)
    middle.plot(table[:, 0], table[:, 1], "o-")
    middle.set(xlabel="threads", ylabel="written MB/s", title="c  threads", ylim=(0, None))
    table = np.array([[cell.replace(",", "") for cell in row] for row in blocks.rows], float)
    right.plot(table[:, 0], table[:, 2], "o-", label="compress")
    right.plot(table[:, 0], table[:, 3], "s-", label="decompress")
    right.set(xscale="log", xlabel="block (KiB)", ylabel="MB/s, one thread", title="d  block size", ylim=(0, None))
    right.legend(frameon=False, loc="lower left")
    twin = right.twinx()
    twin.plot(table[:, 0], table[:, 1], "k--")
    twin.set_ylabel("bits per pixel (dashed)")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
