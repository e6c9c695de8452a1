"""Read 100 000 mutated MRC and MRCZ files: python tests/fuzz/fuzz_mrc.py [--count N] [--seed N] [--one K].

Each is opened, unpacked whole and in part, and validated. It must give pixels or a MrcFormatError: any other exception
or warning, a crash, more than ten seconds or half a gigabyte is a failure, and is reported with the number by which
`--one` repeats it. Cases run in forked processes, so a crash ends one of them and not the run.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import mrczdask as md
from mrczdask.errors import MrcFormatError, MrczdaskWarning
from mrczdask.io.encode import frame_sums
from mrczdask.io.movie import open_file
from tests.fuzz.forks import run_forked
from tests.fuzz.mrc_mutations import Mutant, Seed, corpus, mutate

THROUGH_DASK = 20
"""One case of so many goes through `open_movie` and Dask, the others through the reader beneath."""


def run(seeds: list[Seed], seed: int, folder: str, number: int) -> str:
    """One case: "refused" or "read"."""
    rng = np.random.default_rng([seed, number])
    mutant = mutate(seeds, rng)
    url = _write(mutant, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", MrczdaskWarning)
        md.validate(url)
        try:
            _read(url, number, rng)
        except MrcFormatError as error:
            str(error)
            return "refused"
    return "read"


def _write(mutant: Mutant, folder: str) -> str:
    url = os.path.join(folder, f"{os.getpid()}{mutant.suffix}")
    with open(url, "wb") as file:
        file.write(mutant.raw)
    beside = f"{url}.index.json"
    if mutant.sidecar is not None:
        stat = os.stat(url)
        stamp = b'"file": {"size": %d, "mtime_ns": %d}' % (stat.st_size, stat.st_mtime_ns)
        size = b'"file": {"size": %d}' % len(mutant.raw)
        with open(beside, "wb") as file:
            file.write(mutant.sidecar.replace(size, stamp))
    elif os.path.exists(beside):
        os.unlink(beside)
    return url


def _read(url: str, number: int, rng: np.random.Generator) -> None:
    truncated = ("error", "readable")[number % 2]
    if number % THROUGH_DASK == 0:
        md.open_movie(url, truncated=truncated).compute(scheduler="synchronous")  # type: ignore[arg-type]
        return
    reader = open_file(url, truncated=truncated).reader
    n, ny, nx = reader.shape[:3]
    whole = np.empty(reader.shape, reader.dtype)
    reader.read_into(whole, range(n), slice(0, ny), slice(0, nx))
    start = int(rng.integers(ny))
    rows, frame = slice(start, int(rng.integers(start, ny)) + 1), int(rng.integers(n))
    part = np.empty((1, rows.stop - rows.start, *reader.shape[2:]), reader.dtype)
    reader.read_into(part, [frame], rows, slice(0, nx))
    if part[0].tobytes() != whole[frame, rows].tobytes():
        raise AssertionError("rows read alone are not those of the frame")


def main(argv: list[str] | None = None) -> int:
    """Run the cases; exit status 1 when one did worse than being refused."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one", type=int, help="run this case alone, in this process")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args(argv)
    seeds = corpus()
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        case = partial(run, seeds, options.seed, folder)
        if options.one is not None:
            print(f"case {options.one}: {case(options.one)}")
            return 0
        for dtype in ("i1", "u1", "i2", "u2", "i4", "u4", "f4"):  # compiled once, before the processes part
            frame_sums(np.zeros(4, dtype))
        start = time.monotonic()
        tally = run_forked(case, range(options.count), options.processes, _say)
        took = time.monotonic() - start
    for number, why in sorted(tally.failures):
        print(f"case {number} of seed {options.seed}: {why}")
    total = sum(tally.outcomes.values())
    print(f"{total} mutated files in {took:.0f} s: {dict(tally.outcomes)}")
    return 1 if tally.failures or total != options.count else 0


def _say(done: int) -> None:
    print(f"{done} ...", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
