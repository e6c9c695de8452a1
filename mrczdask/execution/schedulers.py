"""Which scheduler runs the work: this process's threads, a local cluster, or one that is already there."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import dask

from mrczdask.errors import MrczdaskError, StoreError

_inherited: list[Any] = []
"""Clients of the process that this one was forked from."""


def _after_fork() -> None:
    with suppress(Exception):
        _inherited.extend(filter(None, [_client_in_force()]))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def current_client() -> Any | None:
    """The distributed client in force here, or None: asking does not import distributed.

    In a task of a worker it is None: what a task starts is done in its own thread. Tasks that wait for tasks hang
    when they hold all threads of the cluster.

    Raises
    ------
    MrczdaskError
        The client cannot be waited for: it is asynchronous, or of the process that this one was forked from.
    """
    if "distributed" not in sys.modules or dask.config.get("scheduler", None) in ("threads", "sync", "synchronous"):
        return None
    client = None if in_task() else _client_in_force()
    if client is None or client.status in ("closing", "closed"):
        return None
    if client.asynchronous:
        raise MrczdaskError(
            "the Dask client in force is asynchronous, and this verb waits for its results: call it by "
            "`await asyncio.to_thread(...)`, or make a Client without asynchronous=True"
        )
    if any(client is one for one in _inherited):
        raise MrczdaskError(
            "this process was forked from one with a Dask client, whose connection does not work here: start processes "
            'by "spawn", make a Client of its own, or set dask.config.set(scheduler="threads")'
        )
    return client


def client_to_scatter() -> Any | None:
    """The client to which large parameters are sent when a graph is built; None where they travel with the tasks."""
    try:
        return current_client()
    except MrczdaskError:
        return None


def check_workers_see(paths: Iterable[str]) -> None:
    """Raise where a worker of the cluster in force does not see local files or folders that it is to read or write.

    Raises
    ------
    StoreError
        Naming the hosts and the first path that they do not see.
    """
    client, wanted = current_client(), sorted(set(paths))
    if client is None or not wanted:
        return
    unseen: dict[str, set[str]] = {}
    for host, missing in client.run(_unseen, wanted).values():
        for path in missing[:1]:
            unseen.setdefault(path, set()).add(host)
    for path, hosts in sorted(unseen.items()):
        raise StoreError(
            f"{path}: workers on {', '.join(sorted(hosts))} do not see it: give a path on a file system that all of "
            "them share, or a url of an object store"
        )


def _unseen(paths: list[str]) -> tuple[str, list[str]]:
    return socket.gethostname(), [path for path in paths if not os.path.exists(path)]


def in_task() -> bool:
    """Whether this thread works on a task of a distributed worker."""
    if "distributed" not in sys.modules:
        return False
    from distributed import get_worker

    try:
        get_worker()
    except ValueError:
        return False
    return True


def _client_in_force() -> Any | None:
    if "distributed" not in sys.modules:
        return None
    from distributed import get_client

    try:
        return get_client()
    except ValueError:
        return None


def n_threads() -> int:
    """Threads of the thread scheduler: Dask's `num_workers`, else the processors this process may use; 1 in a task."""
    if in_task() or dask.config.get("scheduler", None) in ("sync", "synchronous", "single-threaded"):
        return 1
    workers = dask.config.get("num_workers", None)
    if workers:
        return int(workers)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def use_scheduler(spec: str | None) -> Iterator[Any | None]:
    """Run what is inside on a scheduler, and close it if it was started here.

    Parameters
    ----------
    spec : str or None
        "threads", "local:N" (N worker processes of one thread each on this machine), or the address of a running
        scheduler ("tcp://host:port"). None keeps what is in force.

    Raises
    ------
    ValueError
        `spec` is none of these.
    """
    if spec is None:
        yield current_client()
    elif spec == "threads":
        with dask.config.set(scheduler="threads"):
            yield None
    elif spec.startswith("local:") and spec[6:].isdigit() and int(spec[6:]):
        from distributed import Client, LocalCluster

        workers = int(spec[6:])
        with (
            LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0") as cluster,
            Client(cluster) as client,
        ):
            yield client
    elif "://" in spec:
        from distributed import Client

        with Client(spec) as client:
            yield client
    else:
        raise ValueError(f'scheduler {spec!r}: give "threads", "local:N" or an address such as "tcp://host:8786"')
