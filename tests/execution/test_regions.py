from __future__ import annotations

import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import dask
import dask.array as da
import numpy as np
import pytest
from dask.delayed import delayed

import mrczdask as md
from mrczdask.execution.regions import REGIONS_PER_THREAD, run_regions
from tests.mrc_bytes import blosc1, counts, mrc_bytes


class Result:
    """Something that weak references can point to."""

    alive: ClassVar[weakref.WeakSet[Result]] = weakref.WeakSet()

    def __init__(self, value: int):
        self.value = value
        Result.alive.add(self)


def tasks_of(n: int, work: Any = Result) -> Iterator[tuple[int, Any]]:
    make = delayed(work, pure=False)
    return ((k, make(k)) for k in range(n))


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("window", [1, 2, 5])
def test_at_most_window_results_are_alive(window: int, ordered: bool) -> None:
    most = 0
    seen = []
    with dask.config.set(num_workers=2):
        for k, result in run_regions(tasks_of(20), window=window, ordered=ordered):
            time.sleep(0.002)  # the threads run ahead as far as they may
            most = max(most, len(Result.alive))
            seen.append((k, result.value))
            del result
    assert most <= window
    assert sorted(seen) == [(k, k) for k in range(20)]
    assert seen == sorted(seen) or not ordered


def test_tasks_are_taken_lazily() -> None:
    taken = []

    def tasks() -> Iterator[tuple[int, Any]]:
        for k in range(20):
            taken.append(k)
            yield k, delayed(k)

    run = run_regions(tasks(), window=3)
    assert taken == []
    next(run)
    assert len(taken) == 3
    run.close()  # type: ignore[attr-defined]
    assert len(taken) == 3


def test_default_window_is_two_a_thread() -> None:
    with dask.config.set(num_workers=3):
        started: list[int] = []
        run = run_regions(tasks_of(50, started.append))
        next(run)
        time.sleep(0.05)
        assert len(started) <= 3 * REGIONS_PER_THREAD
        run.close()  # type: ignore[attr-defined]
        assert len(started) <= 3 * REGIONS_PER_THREAD


def test_in_order_although_the_first_is_slowest() -> None:
    def work(k: int) -> int:
        time.sleep(0.1 if k == 0 else 0)
        return k

    with dask.config.set(num_workers=2):
        assert [k for k, _ in run_regions(tasks_of(6, work), window=4)] == list(range(6))
        completed = [k for k, _ in run_regions(tasks_of(6, work), window=4, ordered=False)]
    assert sorted(completed) == list(range(6))
    assert completed[0] != 0


@pytest.mark.parametrize("scheduler", ["threads", "sync"])
def test_schedulers_of_dask(scheduler: str) -> None:
    names: set[str] = set()

    def work(k: int) -> int:
        names.add(threading.current_thread().name)
        time.sleep(0.01)
        return k

    with dask.config.set(scheduler=scheduler, num_workers=2):
        list(run_regions(tasks_of(8, work)))
    assert len(names) == (1 if scheduler == "sync" else 2)


def test_no_regions() -> None:
    assert list(run_regions([])) == []


@pytest.mark.parametrize("ordered", [True, False])
def test_the_first_error_ends_the_run(ordered: bool) -> None:
    ran: list[int] = []

    def work(k: int) -> int:
        ran.append(k)
        if k == 3:
            raise ValueError("pixel 7 is on fire")
        return k

    with dask.config.set(num_workers=2), pytest.raises(ValueError, match="pixel 7 is on fire"):
        for _ in run_regions(tasks_of(100, work), window=4, ordered=ordered):
            pass
    n = len(ran)
    assert n <= 3 + 2 * 4
    time.sleep(0.05)
    assert len(ran) == n


def test_leaving_the_loop_leaves_no_thread() -> None:
    for _ in run_regions(tasks_of(50), window=4):
        break
    gc.collect()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mrczdask")]


def test_on_done_comes_before_its_result() -> None:
    said: list[str] = []
    for k, _ in run_regions(tasks_of(3), on_done=lambda: said.append("done")):
        said.append(f"got {k}")
    assert said == ["done", "got 0", "done", "got 1", "done", "got 2"]


def test_a_region_may_be_an_array() -> None:
    array = da.arange(12, chunks=3)
    parts = [part for _, part in run_regions((k, array.blocks[k]) for k in range(4))]
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(12))


@pytest.mark.parametrize("ordered", [True, False])
def test_on_a_cluster(client: Any, ordered: bool) -> None:
    most = 0

    def work(k: int) -> int:
        return k * k

    seen = {}
    for k, result in run_regions(tasks_of(20, work), window=3, ordered=ordered):
        tasks = client.cluster.scheduler.tasks
        most = max(most, len(tasks))
        seen[k] = result
    assert seen == {k: k * k for k in range(20)}
    assert most <= 3
    assert list(seen) == sorted(seen) or not ordered


def test_an_error_on_a_cluster_cancels_the_rest(client: Any) -> None:
    def work(k: int) -> int:
        if k == 2:
            raise ValueError("pixel 7 is on fire")
        time.sleep(0.02)
        return k

    with pytest.raises(ValueError, match="pixel 7 is on fire"):
        list(run_regions(tasks_of(100, work), window=4))
    deadline = time.time() + 5
    while client.cluster.scheduler.tasks and time.time() < deadline:
        time.sleep(0.02)
    assert not client.cluster.scheduler.tasks


def test_a_scheduler_that_is_named_wins_over_the_client(client: Any) -> None:
    with dask.config.set(scheduler="threads"):
        names = [name for _, name in run_regions(tasks_of(4, lambda _: threading.current_thread().name))]
    assert all(name.startswith("mrczdask") for name in names)


def session_file(folder: Path, n: int = 12) -> tuple[Path, np.ndarray]:
    frames = counts((n, 64, 64), "i2")
    (folder / "a.mrcz").write_bytes(mrc_bytes(frames, 1, chunk=blosc1(), compressor=6, labels=(b"MRCZ0.6.0",)))
    return folder / "a.mrcz", frames


def test_writing_and_checking_on_a_cluster_of_threads(client: Any, tmp_path: Path) -> None:
    path, frames = session_file(tmp_path)
    movie = md.open_movie(path, chunks={"frame": 2})
    stored = md.write_mrcz(movie + np.int16(1), tmp_path / "b.mrcz", codec="lz4")
    np.testing.assert_array_equal(stored.values, frames + 1)
    np.testing.assert_array_equal(md.sum_frames(movie).values, frames.sum(axis=0))
    assert md.validate(tmp_path / "b.mrcz").ok


def test_writing_on_a_cluster_of_processes(tmp_path: Path) -> None:
    from distributed import Client, LocalCluster

    path, frames = session_file(tmp_path)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        Client(cluster),
    ):
        movie = md.open_movie(path, chunks={"frame": 2})
        workers = {pid for _, pid in run_regions((k, delayed(os.getpid, pure=False)()) for k in range(8))}
        assert os.getpid() not in workers
        stored = md.write_mrcz(movie, tmp_path / "b.mrcz", codec="lz4")
        np.testing.assert_array_equal(stored.values, frames)
        path.write_bytes(b"gone")
        with pytest.raises(md.errors.MrcFormatError, match=r"a\.mrcz: frame \d+ at byte .*open it again"):
            movie.compute()


@pytest.mark.slow
def test_a_killed_worker_costs_nothing_but_time(tmp_path: Path) -> None:
    from distributed import Client, LocalCluster

    victim = tmp_path / "victim"

    def work(k: int) -> int:
        if k == 5 and not victim.exists():
            victim.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
        return k

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        Client(cluster),
    ):
        seen = [result for _, result in run_regions(tasks_of(20, work), window=4)]
    assert victim.exists()
    assert seen == list(range(20))
