"""Archives: writing against the codec, reading against zarr-python, kills and faults survived, virtual archives."""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import dask
import dask.array as da
import numcodecs.blosc
import numpy as np
import xarray as xr
import zarr

import mrczdask as md
from benchmarks.common import ROOT, Table, Timings, arguments, in_child, interleaved, report
from benchmarks.faulty_proxy import FaultyProxy
from mrczdask.io.virtual import write_table
from mrczdask.io.virtual_table import Codecs, VirtualTable

THREADS: Final = 2
BARS: Final = {"write": 0.8, "read": 1.0, "open": 2.0, "requests": 3, "memory": 100.0, "references": 10.0}
KILLS: Final = 20
FAULTS: Final = 0.05
FRAME: Final = (3072, 3456)
"""uint8 frames of 10.6 MB: 100 000 of them are 1.06 TB."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run all; `--quick` in small."""
    options = arguments(__doc__, argv)
    quick, repeats = options.quick, options.repeats
    shape = (4, 4, 512, 512) if quick else (16, 20, 1024, 1024)
    with dask.config.set(num_workers=THREADS):
        tables = [
            speed(shape, repeats),
            interrupted(2 if quick else KILLS),
            virtual(1_000 if quick else 100_000),
        ]
    return report("archive", "Zarr archives and references", tables, options)


def speed(shape: tuple[int, ...], repeats: int) -> Table:
    """Write and read a session; the peers do the same work without this package."""
    writing, reading = in_child(write_and_read, shape, repeats, keep_memory=True).value
    note = (
        f"{' x '.join(map(str, shape))} uint16 counts, Blosc-zstd 1 with bit shuffle, {THREADS} threads, one movie a "
        f"shard. Bars: writing {BARS['write']:g} times the codec alone, reading {BARS['read']:g} times zarr-python. "
        "Dask copies the chunks that it has read into one array; `.em.load()` reads them straight into it."
    )
    table = Table("Speed", ["program", "MB/s", "times the peer"], note)
    nbytes = math.prod(shape) * 2
    for timings, peer in ((writing, "codec alone"), (reading, "zarr-python")):
        for name, seconds in timings.medians.items():
            table.add(name, nbytes / 1e6 / seconds, timings.times_faster(name, than=peer))
    return table


def write_and_read(shape: tuple[int, ...], repeats: int) -> tuple[Timings, Timings]:
    """Timings of writing and of reading, of whose pixels every one is compared."""
    counts = np.random.default_rng(0).poisson(1.0, shape).astype(np.uint16)
    session = xr.DataArray(da.from_array(counts, chunks=(1, *shape[1:])), dims=("movie", "frame", "y", "x"))
    session = session.rename("images")
    folder = Path(tempfile.mkdtemp())
    target = str(folder / "s.zarr")
    try:
        with dask.config.set(num_workers=THREADS):
            writing = interleaved(
                {
                    "write_archive": lambda: md.write_archive(
                        session, target, group="movies", codec="zstd", resume=False
                    ),
                    "codec alone": lambda: encode(counts),
                },
                repeats=repeats,
            )
            array = zarr.open_array(target, path="movies/images", mode="r")
            stored = md.open_archive(target)["movies"]["images"]
            runs: dict[str, Callable[[], Any]] = {
                "open_archive, .compute()": lambda: stored.data.compute(),
                "open_archive, .em.load()": lambda: stored.em.load(),
                "zarr-python": lambda: array[:],
            }
            reading = interleaved(runs, repeats=repeats)
            for run in runs.values():
                assert np.array_equal(np.asarray(run()), counts)
    finally:
        shutil.rmtree(folder)
    return writing, reading


def encode(counts: np.ndarray[Any, np.dtype[np.uint16]]) -> int:
    """Compress every frame on two threads and keep nothing."""

    def one(movie: Any) -> int:
        return sum(len(numcodecs.blosc.compress(f.reshape(-1).view("u1"), b"zstd", 1, 2, 0, 2)) for f in movie)

    with ThreadPoolExecutor(THREADS) as pool:
        return sum(pool.map(one, counts))


WRITER: Final = """
import sys
import dask
import mrczdask as md
from benchmarks.archive import slow_session
with dask.config.set(num_workers=2):
    print("begun", flush=True)
    md.write_archive(slow_session(), sys.argv[1], codec="zstd")
"""


def slow(block: Any) -> Any:
    """Take as long as reading a shard from a far store."""
    time.sleep(0.05)
    return block + 1


def slow_session() -> xr.Dataset:
    """40 shards, a second of work on two threads."""
    frames = np.random.default_rng(0).integers(0, 99, (40, 4, 128, 128)).astype("i2")
    lazy = da.from_array(frames, chunks=(1, 4, 128, 128)).map_blocks(slow, dtype="i2")
    return xr.Dataset({"images": (("movie", "frame", "y", "x"), lazy)}, {"movie": [f"m{k}" for k in range(40)]})


def interrupted(kills: int) -> Table:
    """kill -9 at random moments, each followed by a resume; and a store that fails now and then."""
    from benchmarks.archive import slow_session  # not of `__main__`: its name is part of what a region is made of

    folder = Path(tempfile.mkdtemp())
    pauses = np.random.default_rng(1).uniform(0.0, 1.1, kills)
    wanted = md.write_archive(slow_session(), folder / "whole.zarr", codec="zstd")
    equal, cut = 0, 0
    try:
        for k, pause in enumerate(pauses):
            target = folder / f"{k}.zarr"
            command = [sys.executable, "-c", WRITER, str(target)]
            writer = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(pause)
            cut += writer.poll() is None
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            writer.stdout.close()
            stored = md.write_archive(slow_session(), target, codec="zstd")
            equal += stored.identical(wanted) and _same_bytes(target, folder / "whole.zarr")
        faulty, faults = through_faults(wanted)
    finally:
        shutil.rmtree(folder)
    table = Table(
        "Interruptions", ["what", "times", "archives equal to the whole one"], "Pixels, labels and bytes of shards."
    )
    table.add("kill -9 at a random moment, then resume", int(cut), int(equal))
    table.add(f"requests to S3 that failed ({FAULTS:.0%} of all)", faults, int(faulty))
    return table


def _same_bytes(one: Path, other: Path) -> bool:
    names = {p.relative_to(one) for p in one.rglob("*") if p.is_file() and "/c/" in str(p)}
    theirs = {p.relative_to(other) for p in other.rglob("*") if p.is_file() and "/c/" in str(p)}
    return names == theirs and all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def through_faults(wanted: xr.Dataset) -> tuple[bool, int]:
    """Write to and read from an S3 server on this machine through a line that fails now and then."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}
        boto3.client("s3", endpoint_url=endpoint, **keys).create_bucket(Bucket="archive")
        with FaultyProxy(endpoint, share=FAULTS, seed=3) as proxy:
            options = {"key": "testing", "secret": "testing", "endpoint_url": proxy.url}
            options |= {"client_kwargs": {"region_name": "us-east-1"}}
            stored = md.write_archive(wanted, "s3://archive/s.zarr", storage_options=options)
            same = bool(np.array_equal(stored["images"], wanted["images"]))
            return same, sum(count for kind, count in proxy.counts.items() if kind != "none")
    finally:
        server.stop()


def generated(n: int, folder: Path) -> VirtualTable:
    """The index of `n` frames of movies that are not there, but for the frames that are read: sparse files."""
    per_movie = min(n, 1_000)
    movies = n // per_movie
    rng = np.random.default_rng(0)
    chunk = numcodecs.blosc.compress(rng.poisson(0.5, FRAME).astype("u1"), b"zstd", 1, 2, 0, 1)
    lengths = np.full((movies, per_movie), len(chunk), np.uint64) + rng.integers(0, 9_999, (movies, per_movie), "u8")
    offsets = np.concatenate([np.zeros((movies, 1), "u8"), np.cumsum(lengths, axis=1)[:, :-1]], axis=1) + np.uint64(
        1024
    )
    for k in range(movies):
        with open(folder / f"movie_{k:04d}.mrcz", "wb") as file:
            file.truncate(int(offsets[k, -1] + lengths[k, -1]))
            file.seek(int(offsets[k, per_movie // 2]))
            file.write(chunk)
    return VirtualTable(
        shape=(movies, per_movie, *FRAME),
        chunk=(1, 1, *FRAME),
        stored=np.dtype("u1"),
        codecs=Codecs("blosc"),
        urls=tuple(f"file://{folder}/movie_{k:04d}.mrcz" for k in range(movies)),
        offsets=offsets[..., None, None],
        lengths=lengths[..., None, None],
        coords=xr.Dataset(coords={"movie": [f"movie_{k:04d}" for k in range(movies)], "frame": np.arange(per_movie)}),
    )


def virtual(n: int) -> Table:
    """Open references to `n` frames and read one, in a process of its own."""
    note = (
        f"{n} frames of {FRAME[0]} x {FRAME[1]} uint8, generated index. Bars: open {BARS['open']:g} s, one frame "
        f"{BARS['requests']} requests, {BARS['memory']:g} MB above the imports, references {BARS['references']:g} MB."
    )
    columns = ["references", "MB on disk", "write, s", "open, s", "one frame, s", "requests of a frame", "memory, MB"]
    table = Table("References to 1 TB" if n == 100_000 else f"References to {n} frames", columns, note)
    folder = Path(tempfile.mkdtemp())
    try:
        index = generated(n, folder)
        for suffix in (".json", ".parquet", ".icechunk"):
            target = str(folder / f"s{suffix}")
            begin = time.perf_counter()
            write_table(index, target, suffix, None)
            written = time.perf_counter() - begin
            child = in_child(open_and_read, target, index.shape[1] // 2)
            opened, read, requests = child.value
            table.add(suffix, _size(target) / 1e6, written, opened, read, requests, child.growth_mb)
    finally:
        shutil.rmtree(folder)
    return table


def _size(path: str) -> int:
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(path) for name in names)


def open_and_read(target: str, frame: int) -> tuple[float, float, int | None]:
    """Seconds to open and to read a frame, and how many files were opened or read for it."""
    asked: list[str] = []
    sys.addaudithook(lambda event, args: asked.append(str(args[0])) if event == "open" else None)
    begin = time.perf_counter()
    cube = md.open_archive(target)
    opened = time.perf_counter() - begin
    assert isinstance(cube, xr.Dataset)
    asked.clear()
    begin = time.perf_counter()
    image = cube["images"][3 % cube.sizes["movie"], frame].values
    read = time.perf_counter() - begin
    assert image.any()
    folder = os.path.dirname(target)
    requests = len([path for path in asked if path.startswith(folder)])
    return opened, read, requests if not target.endswith(".icechunk") else None


if __name__ == "__main__":
    sys.exit(main())
