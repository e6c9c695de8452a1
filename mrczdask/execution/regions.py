"""Regions: the unit in which every writer and estimator works, on threads or on a cluster.

A region is one Dask object computed whole. At most `window` of them are alive at any moment, submitted or waiting
to be taken, so memory stays bounded however large the array is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_threads
from typing import Any, Protocol, TypeVar

import dask

from mrczdask.execution.schedulers import current_client, n_threads

R = TypeVar("R")

REGIONS_PER_THREAD = 2
"""One in work and one waiting for its turn keep every thread busy."""
RETRIES = 2
"""Times a cluster tries a region again whose worker failed."""


class _Pool(Protocol):
    """Where regions run: `submit` gives a future, `first_done` waits for any of them."""

    threads: int

    def submit(self, task: Any) -> Any: ...

    def first_done(self, futures: list[Any]) -> Any: ...

    def close(self, pending: Iterable[Any]) -> None: ...


def run_regions(
    tasks: Iterable[tuple[R, Any]],
    *,
    window: int | None = None,
    ordered: bool = True,
    on_done: Callable[[], None] | None = None,
) -> Iterator[tuple[R, Any]]:
    """Compute regions and yield (region, result), with a bounded number of them alive.

    Parameters
    ----------
    tasks : iterable of (region, dask object)
        `region` is whatever names it; the object is a Delayed or a Dask array. Taken lazily.
    window : int, optional
        Most regions alive. Default: two a thread, of this process or of the cluster.
    ordered : bool
        Yield in the order of `tasks`, or as they complete.
    on_done : callable, optional
        Called after each region is computed, before it is yielded.

    Yields
    ------
    region, result

    Notes
    -----
    With a distributed client in force the regions run there, else on a pool of threads in which each region runs
    on one thread. The first error ends the run: nothing more is submitted, what is under way is cancelled.
    """
    client = current_client()
    pool: _Pool = _ThreadPool() if client is None else _ClusterPool(client)
    limit = max(window or REGIONS_PER_THREAD * pool.threads, 1)
    alive: deque[tuple[R, Any]] = deque()
    waiting = iter(tasks)
    try:
        while True:
            while len(alive) < limit and (task := next(waiting, None)) is not None:
                alive.append((task[0], pool.submit(task[1])))
            if not alive:
                return
            place = 0 if ordered else _position(pool.first_done([future for _, future in alive]), alive)
            region, future = alive[place]
            result = future.result()
            del alive[place], future
            if on_done is not None:
                on_done()
            yield region, result
            del result
    finally:
        pool.close([future for _, future in alive])


def _position(wanted: Any, alive: Iterable[tuple[Any, Any]]) -> int:
    return next(place for place, (_, future) in enumerate(alive) if future is wanted)


class _ThreadPool:
    def __init__(self) -> None:
        self.threads = n_threads()
        self._executor = ThreadPoolExecutor(self.threads, thread_name_prefix="mrczdask")

    def submit(self, task: Any) -> Future[Any]:
        return self._executor.submit(_compute, task)

    def first_done(self, futures: list[Future[Any]]) -> Future[Any]:
        return next(iter(wait_threads(futures, return_when=FIRST_COMPLETED).done))

    def close(self, pending: Iterable[Future[Any]]) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)


def _compute(task: Any) -> Any:
    return dask.compute(task, scheduler=dask.get)[0]  # by name, it would import distributed to look for a client


class _ClusterPool:
    def __init__(self, client: Any) -> None:
        self._client = client
        self.threads = max(sum(client.nthreads().values()), 1)

    def submit(self, task: Any) -> Any:
        return self._client.compute(task, retries=RETRIES)

    def first_done(self, futures: list[Any]) -> Any:
        from distributed import wait

        return next(iter(wait(futures, return_when=FIRST_COMPLETED).done))

    def close(self, pending: Iterable[Any]) -> None:
        self._client.cancel(list(pending))
