"""Resumable work: what was planned, which regions are done, and who works on which.

A store keeps its plan, and a mark for each region that is done, with a digest of what went into it. A region whose
inputs changed has another digest and is done again. Whoever works on a region holds its lock, which is free again when
its process is dead, or silent for a minute.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, Final, Protocol

import dask
import numpy as np
from dask.delayed import delayed
from numpy.typing import NDArray

from mrczdask.errors import ResumeError
from mrczdask.execution.progress import Progress, track
from mrczdask.execution.regions import run_regions

HEARTBEAT_S: Final = 15.0
SILENCE_S: Final = 60.0
"""A lock is renewed every 15 s and free after 60 s without it."""
BUSY_PAUSE_S: Final = 1.0
"""Time before regions that others work on are looked at again."""
_LISTED: Final = 3


class Journal(Protocol):
    """Small files of a store by name, as `io.journal` keeps them. Picklable."""

    def read(self, name: str) -> dict[str, Any] | None:
        """The content of a file, or None where there is none or it is torn."""
        ...

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a file, in place of an old one."""
        ...

    def create(self, name: str, content: Mapping[str, Any]) -> bool:
        """Write a file where there is none; False where there is one. Only one of many callers gets True."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        ...


def digest(*parts: Any) -> str:
    """A digest of numbers, names, arrays and containers of them; the same in every process."""
    found = hashlib.blake2b(digest_size=12)
    for part in parts:
        if isinstance(part, np.ndarray):
            found.update(f"{part.dtype}{part.shape}".encode())
            found.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
        else:
            found.update(json.dumps(part, sort_keys=True, default=str).encode())
        found.update(b"\0")
    return found.hexdigest()


def check_plan(stored: Mapping[str, Any], wanted: Mapping[str, Any], url: str) -> None:
    """Refuse to go on with a store that was begun in another way.

    Raises
    ------
    ResumeError
        Naming what differs.
    """
    differ = [name for name in sorted({*stored, *wanted}) if stored.get(name) != wanted.get(name)]
    if not differ:
        return
    listed = [f"{name} was {stored.get(name)!r} and is {wanted.get(name)!r}" for name in differ[:_LISTED]]
    more = f" and {len(differ) - _LISTED} more" if len(differ) > _LISTED else ""
    raise ResumeError(
        f"{url}: begun with other parameters: {'; '.join(listed)}{more}. resume=False (--no-resume) starts anew"
    )


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, and when it was last heard of."""

    host: str
    pid: int
    token: str
    heartbeat: float

    def is_gone(self, now: float) -> bool:
        """Whether its process is dead on this host, or silent for long."""
        if self.host == socket.gethostname() and not _is_alive(self.pid):
            return True
        return now - self.heartbeat > SILENCE_S


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return not _has_ended(pid)
    except ProcessLookupError:
        return False
    except OSError:  # not ours
        return True


def _has_ended(pid: int) -> bool:
    """Whether a process has ended that its parent has not looked at yet: it still has its number."""
    if sys.platform != "linux":
        return False
    handle = os.pidfd_open(pid)
    try:
        waiter = select.poll()
        waiter.register(handle, select.POLLIN)
        return bool(waiter.poll(0))
    finally:
        os.close(handle)


@contextmanager
def region_lock(journal: Journal, name: str) -> Iterator[bool]:
    """Hold the lock of a region while inside; gives False where another one holds it."""
    token = secrets.token_hex(8)

    def me() -> dict[str, Any]:
        return asdict(Holder(socket.gethostname(), os.getpid(), token, time.time()))

    held = _acquire(journal, name, me)
    if not held:
        yield False
        return
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(HEARTBEAT_S):
            journal.write(name, me())

    beat = threading.Thread(target=renew, daemon=True)
    beat.start()
    try:
        yield True
    finally:
        stop.set()
        beat.join()
        for lock in held:
            journal.remove(lock)


def _acquire(journal: Journal, name: str, me: Callable[[], dict[str, Any]]) -> list[str]:
    """The files that hold the lock, of which the lock itself is the first to be removed; none where it is taken."""
    if journal.create(name, me()):
        return [name]
    held = journal.read(name)
    if held is None:  # released in between
        return [name] if journal.create(name, me()) else []
    holder = Holder(**held)
    if not holder.is_gone(time.time()):
        return []
    heir = _acquire(journal, f"{name}.after-{holder.token}", me)  # of those who find it dead one goes on
    if heir:
        journal.write(name, me())
    return [name, *heir] if heir else []


@dataclass(frozen=True)
class Region:
    """A piece of work: its name, the digest of what goes into it, and work(*arguments), which writes its results.

    An argument may be a Dask collection, which is computed, but not a container of them.
    """

    name: str
    digest: str
    work: Callable[..., None]
    arguments: Sequence[Any]
    lost: bool = False
    """What it wrote is not all there any more, whatever its mark says."""


def is_done(journal: Journal, name: str, inputs: str) -> bool:
    """Whether a region was done with inputs of this digest."""
    mark = journal.read(f"{name}.done")
    return mark is not None and mark.get("digest") == inputs


def run_resumable(
    regions: Sequence[Region],
    journal: Journal,
    *,
    progress: Progress,
    label: str,
    inside: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> int:
    """Do the regions that are not done, each by one worker at a time; return how many were.

    Regions that another client works on are waited for, and taken over when it dies. Where there is anything to do, it
    is done inside the context that `inside` makes.
    """
    count = 0
    with track(progress, len(regions), label) as advance, ExitStack() as stack:
        waiting = []
        for region in regions:
            done = is_done(journal, region.name, region.digest)
            if done and region.lost:
                journal.remove(f"{region.name}.done")
            if done and not region.lost:
                advance()
            else:
                waiting.append(region)
        if waiting:
            stack.enter_context(inside())
        while waiting:
            run = delayed(_guarded, pure=False, traverse=False)
            tasks = ((r, run(r.name, r.digest, *map(_sealed, (journal, r.work, *r.arguments)))) for r in waiting)
            busy = []
            for region, finished in run_regions(tasks, ordered=False):
                if finished is None:
                    busy.append(region)
                else:
                    count += finished
                    advance()
            waiting = busy
            if waiting:
                time.sleep(BUSY_PAUSE_S)
    return count


class _Sealed:
    """An argument that Dask hands on without searching it for collections: of a Zarr array that takes milliseconds."""

    def __init__(self, content: Any):
        self.content = content


def _sealed(argument: Any) -> Any:
    return _Sealed(argument) if is_dataclass(argument) or isinstance(argument, dict | list | tuple) else argument


def _guarded(name: str, inputs: str, *sealed: Any) -> bool | None:
    """Do a region under its lock: True if it was done here, False if it was done meanwhile, None if it is taken."""
    journal, work, *arguments = (part.content if isinstance(part, _Sealed) else part for part in sealed)
    with region_lock(journal, f"{name}.lock") as mine:
        if not mine:
            return None
        if is_done(journal, name, inputs):
            return False
        journal.remove(f"{name}.done")
        work(*arguments)
        journal.write(f"{name}.done", {"digest": inputs, "at": time.time()})
        return True


def compute_here(array: Any) -> NDArray[Any]:
    """Compute a lazy array within the task that asks for it, without asking the scheduler for workers."""
    return np.asarray(dask.compute(array, scheduler="synchronous")[0])
