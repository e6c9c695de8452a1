"""Run numbered cases in forked processes: one that crashes, hangs or eats memory is named, and the rest still run."""

from __future__ import annotations

import mmap
import os
import resource
import signal
import struct
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

SLOW_SECONDS = 10.0
MEMORY_BYTES = 512 << 20
"""Address space a case may ask for on top of what the process has."""
_POLL_SECONDS = 0.02
_STATE = struct.Struct("<q")

Case = Callable[[int], str]
"""Runs one case and names its outcome; whatever it raises is a failure."""


@dataclass
class Tally:
    """Outcomes by name, and the cases that failed: (number, why)."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)


@dataclass
class _Child:
    """A process at work on the cases [next, last); the shared page holds the number of the one it is at."""

    pid: int
    last: int
    page: mmap.mmap
    pipe: int
    at: int
    since: float


def run_forked(case: Case, numbers: range, processes: int, report: Callable[[int], None] | None = None) -> Tally:
    """Run `case` for every number."""
    tally = Tally()
    todo = _parts(numbers, processes)
    children: list[_Child] = []
    done = 0
    while todo or children:
        while todo and len(children) < processes:
            children.append(_fork(case, todo.pop()))
        time.sleep(_POLL_SECONDS)
        for child in list(children):
            if not _ended(child, tally, todo):
                continue
            children.remove(child)
        total = sum(tally.outcomes.values())
        if report is not None and total // 5000 > done:
            done = total // 5000
            report(total)
    return tally


def _parts(numbers: range, processes: int) -> list[range]:
    """Pieces of a few hundred cases: what a crash costs to repeat is small, and so is the cost of a fork."""
    size = max(min(500, -(-len(numbers) // processes)), 1)
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def _fork(case: Case, numbers: range) -> _Child:
    page = mmap.mmap(-1, _STATE.size)
    page[:] = _STATE.pack(numbers.start)
    read, write = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _work(case, numbers, page, write)
    os.close(write)
    os.set_blocking(read, False)
    return _Child(pid, numbers.stop, page, read, numbers.start, time.monotonic())


def _work(case: Case, numbers: range, page: mmap.mmap, pipe: int) -> None:
    """The child: one line a case, then the end of the process without any clean-up."""
    status = 1
    try:
        limit = _address_space() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for number in numbers:
            page[:] = _STATE.pack(number)
            try:
                line = f"+{case(number)}"
            except BaseException as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                line = f"-{number} {type(error).__name__}: {error} ({where.filename}:{where.lineno})"
            os.write(pipe, (line.replace("\n", " ")[:2000] + "\n").encode())
        status = 0
    finally:
        os._exit(status)


def _address_space() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[0]) * resource.getpagesize()


def _ended(child: _Child, tally: Tally, todo: list[range]) -> bool:
    """Read what the child said; when it is gone, count how it went and put back what it left."""
    pid, status = os.waitpid(child.pid, os.WNOHANG)
    _read(child, tally)
    (at,) = _STATE.unpack(child.page[:])
    if at != child.at:
        child.at, child.since = at, time.monotonic()
    if pid == 0:
        if time.monotonic() - child.since < SLOW_SECONDS:
            return False
        os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)
        _read(child, tally)
        tally.failures.append((at, f"took more than {SLOW_SECONDS:.0f} s"))
    elif status != 0:
        why = f"signal {signal.Signals(os.WTERMSIG(status)).name}" if os.WIFSIGNALED(status) else f"status {status}"
        tally.failures.append((at, f"ended its process with {why}"))
    os.close(child.pipe)
    if pid == 0 or status != 0:
        tally.outcomes["failed"] += 1
        todo.append(range(at + 1, child.last))
    return True


def _read(child: _Child, tally: Tally) -> None:
    said = b""
    while True:
        try:
            piece = os.read(child.pipe, 1 << 16)
        except BlockingIOError:
            break
        if not piece:
            break
        said += piece
    child_rest = getattr(child, "rest", b"") + said
    *lines, rest = child_rest.split(b"\n")
    child.rest = rest  # type: ignore[attr-defined]
    for line in lines:
        text = line.decode(errors="replace")
        if text.startswith("+"):
            tally.outcomes[text[1:]] += 1
        else:
            number, why = text[1:].split(" ", 1)
            tally.outcomes["failed"] += 1
            tally.failures.append((int(number), why))
