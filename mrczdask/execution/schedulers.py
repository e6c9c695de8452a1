"""Which scheduler runs the work: this process's threads, a local cluster, or one that is already there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask


def current_client() -> Any | None:
    """The distributed client in force here, or None: asking does not import distributed."""
    if "distributed" not in sys.modules or dask.config.get("scheduler", None) in ("threads", "sync", "synchronous"):
        return None
    from distributed import get_client

    try:
        client = get_client()
    except ValueError:
        return None
    return client if client.status not in ("closing", "closed") else None


def n_threads() -> int:
    """Threads of the thread scheduler: Dask's `num_workers`, else the processors this process may use."""
    if dask.config.get("scheduler", None) in ("sync", "synchronous", "single-threaded"):
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
