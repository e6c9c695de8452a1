"""What every benchmark shares: tables, interleaved timing, memory of a child process, and the machine's name.

A benchmark is a module `benchmarks/NAME.py` with `main(argv) -> int`, run as `python -m benchmarks.NAME`. It takes the
options of `arguments`, prints its tables and keeps them with `report`, which replaces the section NAME of
docs/benchmarks.md and leaves the others as they are:

    def main(argv: Sequence[str] | None = None) -> int:
        options = arguments(__doc__, argv)
        frames = 4 if options.quick else 60
        timings = interleaved({"mrczdask": ours, "python-mrcz": peer}, repeats=options.repeats)
        table = Table("Read of a whole movie", ["program", "seconds", "times python-mrcz"])
        for name, seconds in timings.medians.items():
            table.add(name, seconds, timings.times_faster(name, than="python-mrcz"))
        return report("io", "Reading and writing movies", [table], options)

    if __name__ == "__main__":
        sys.exit(main())

`--quick` takes seconds, proves that the benchmark runs and is never kept: its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import importlib.metadata
import multiprocessing
import os
import platform
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "benchmarks.md"
IMAGES = ROOT / "docs" / "images"
NAMED_PACKAGES = ("mrczdask", "numpy", "dask", "zarr", "numcodecs", "numba", "blosc2")


def arguments(description: str | None, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse `--quick`, `--repeats N` and `--document FILE`, the same for every benchmark."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small inputs, a few seconds, nothing kept")
    parser.add_argument("--repeats", type=int, default=None, help="timed rounds (5; 1 with --quick)")
    parser.add_argument("--document", type=Path, default=DOCUMENT, help="where the tables are kept")
    options = parser.parse_args(argv)
    if options.repeats is None:
        options.repeats = 1 if options.quick else 5
    return options


@dataclass
class Table:
    """Rows under named columns; `note` says how they were measured and what they mean."""

    title: str
    columns: Sequence[str]
    note: str = ""
    rows: list[list[str]] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        """Append a row; floats keep three significant digits."""
        if len(cells) != len(self.columns):
            raise ValueError(f"{self.title}: {len(cells)} cells for the columns {list(self.columns)}")
        self.rows.append([format_cell(cell) for cell in cells])

    def markdown(self) -> str:
        """Return the table as GitHub markdown: numbers to the right, columns padded, so that it reads as text too."""
        lines = [[str(column) for column in self.columns], *self.rows]
        widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(self.columns))]
        numeric = [
            all(re.fullmatch(r"[-+]?[\d.,]+(e[-+]\d+)?|-|", row[i]) for row in self.rows) for i in range(len(widths))
        ]
        numeric[0] = False

        def line(cells: Sequence[str]) -> str:
            padded = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(cells, widths, numeric, strict=True)]
            return "| " + " | ".join(padded) + " |"

        rule = ["-" * (w - 1) + ":" if n else "-" * w for w, n in zip(widths, numeric, strict=True)]
        body = "\n".join([line(lines[0]), line(rule), *(line(row) for row in self.rows)])
        return "\n\n".join(part for part in (f"### {self.title}", self.note, body) if part)


def format_cell(value: object) -> str:
    """Write a number to three significant digits, a boolean as yes or no, None as a dash."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("|", "\\|")


@dataclass(frozen=True)
class Timings:
    """Seconds of each callable in each round; rounds are aligned."""

    seconds: Mapping[str, Sequence[float]]

    @property
    def medians(self) -> dict[str, float]:
        """Median seconds by name."""
        return {name: statistics.median(times) for name, times in self.seconds.items()}

    def times_faster(self, name: str, *, than: str) -> float:
        """Return the median over rounds of seconds(than) / seconds(name): above 1, `name` is the faster one.

        A ratio within a round is free of what slows the whole machine down for a while.
        """
        return statistics.median(b / a for a, b in zip(self.seconds[name], self.seconds[than], strict=True))


def interleaved(
    runs: Mapping[str, Callable[[], object]],
    *,
    repeats: int = 5,
    warmups: int = 1,
    before: Callable[[], object] | None = None,
) -> Timings:
    """Time callables by turns: A B, B A, A B, ...; `before` runs untimed ahead of each (to delete an output, say)."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_number in range(-warmups, repeats):
        for name in list(runs) if round_number % 2 == 0 else reversed(list(runs)):
            elapsed = _timed(runs[name], before)
            if round_number >= 0:
                seconds[name].append(elapsed)
    return Timings(seconds)


def _timed(run: Callable[[], object], before: Callable[[], object] | None) -> float:
    if before is not None:
        before()
    gc.collect()
    start = time.perf_counter()
    result = run()
    elapsed = time.perf_counter() - start
    del result
    return elapsed


@dataclass(frozen=True)
class ChildRun:
    """What a function did in a process of its own; memory in MB (10**6 bytes)."""

    value: Any
    seconds: float
    peak_mb: float
    growth_mb: float


KEEP_MEMORY = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
"""glibc keeps freed memory in the process. A virtual machine hands freed pages back to its host and takes seconds for a
gigabyte of them when they are touched anew: that would be timed, not the programs."""


def in_child(function: Callable[..., Any], *args: Any, keep_memory: bool = False) -> ChildRun:
    """Run a module-level function in a fresh process; `growth_mb` is the peak above what the imports took.

    `keep_memory` is for timings of large arrays; see `KEEP_MEMORY`.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, function, args))
    with mock.patch.dict(os.environ):
        for name, value in KEEP_MEMORY.items():
            if keep_memory:
                os.environ[name] = value
            else:
                os.environ.pop(name, None)
        process.start()
    sender.close()
    try:
        outcome = receiver.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"{function.__name__} ended with exit status {process.exitcode}") from None
    process.join()
    if isinstance(outcome, BaseException):
        raise outcome
    return ChildRun(*outcome)


def _child(sender: Connection, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    before = peak_mb()
    start = time.perf_counter()
    try:
        value = function(*args)
    except BaseException as error:  # the parent raises it again
        sender.send(error)
        return
    elapsed = time.perf_counter() - start
    after = peak_mb()
    sender.send((value, elapsed, after, after - before))


def peak_mb() -> float:
    """Return the peak resident memory of this process so far, in MB (10**6 bytes).

    On Linux from VmHWM: `ru_maxrss` of a child starts at its parent's peak.
    """
    status = Path("/proc/self/status")
    if status.exists():
        kilobytes = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if kilobytes:
            return int(kilobytes[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def machine() -> str:
    """Return one line: processor, usable cores, memory, system, Python, versions of what decides the speed."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in NAMED_PACKAGES)
    python = f"Python {platform.python_version()}"
    return f"{_processor()}, {cores} cores, {memory:.0f} GiB; {platform.system()}; {python}; {versions}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return model[1].strip() if model else platform.processor() or platform.machine()


def report(
    name: str,
    title: str,
    tables: Sequence[Table],
    options: argparse.Namespace,
    pictures: Mapping[str, str] | None = None,
) -> int:
    """Print the tables and, unless `--quick`, keep them as section `name` of the document; return exit status 0.

    `pictures` maps file names in docs/images to their captions.
    """
    images = [f"![{caption}](images/{file})" for file, caption in (pictures or {}).items()]
    parts = [f"## {title}", _measured(), *(table.markdown() for table in tables), *images]
    text = "\n\n".join(parts)
    print(text)
    if not options.quick:
        write_section(options.document, name, text)
    return 0


def _measured() -> str:
    return f"`python -m {_module()}`, {datetime.date.today().isoformat()}: {machine()}."


def _module() -> str:
    specification = getattr(sys.modules["__main__"], "__spec__", None)
    return specification.name if specification else Path(sys.argv[0]).name


def write_section(document: Path, name: str, text: str) -> None:
    """Put `text` between the marks of section `name`, in place of what stood there, or at the end of the document."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    old = document.read_text(encoding="utf-8") if document.exists() else ""
    section = f"{begin}\n{text}\n{end}"
    before, mark, rest = old.partition(begin)
    if mark:
        _, closed, after = rest.partition(end)
        if not closed:
            raise ValueError(f"{document}: the section {name} is opened and not closed: restore the line {end}")
        new = before + section + after
    else:
        new = f"{old.rstrip()}\n\n{section}\n".lstrip()
    document.write_text(new, encoding="utf-8")
