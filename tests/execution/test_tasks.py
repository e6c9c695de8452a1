"""Verbs that are called in tasks, by asynchronous clients and in forked processes: they end, or say why not."""

import asyncio
import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mrczdask as md
from mrczdask.errors import MrczdaskError
from mrczdask.execution.schedulers import current_client, in_task, n_threads


def copied(url: str) -> tuple[int, ...]:
    return md.write_mrcz(md.open_movie(url), f"{url}.copy.mrcz").shape


def archived(url: str) -> tuple[int, ...]:
    return md.write_archive(md.open_movie(url), f"{url}.zarr", codec="zstd").shape


def summed(url: str) -> int:
    return int(md.sum_frames(md.open_movie(url)).sum())


def checked(url: str) -> bool:
    return md.validate(url).ok


def where(_: Any) -> tuple[bool, bool, int]:
    return in_task(), current_client() is None, n_threads()


@pytest.fixture
def movies(tmp_path: Path) -> list[str]:
    for k in range(4):
        md.write_mrcz(md.simulate.poisson((3, 32, 32), mean=1.0, seed=k), tmp_path / f"{k}.mrcz")
    return [str(tmp_path / f"{k}.mrcz") for k in range(4)]


@pytest.mark.parametrize("verb", [copied, archived, summed, checked])
def test_more_tasks_than_threads_end(client: Any, movies: list[str], verb: Any) -> None:
    futures = client.map(verb, movies, pure=False)
    assert client.gather(futures) == [verb(url) for url in movies]


def test_a_task_works_in_its_own_thread(client: Any) -> None:
    assert client.submit(where, 0).result() == (True, True, 1)
    assert not in_task()


def test_an_asynchronous_client_is_refused_by_name(tmp_path: Path) -> None:
    from distributed import Client, LocalCluster

    movie = md.simulate.poisson((3, 32, 32), mean=1.0, seed=0)

    async def call() -> Any:
        options: dict[str, Any] = {"asynchronous": True, "processes": False, "dashboard_address": ":0"}
        async with LocalCluster(n_workers=1, **options) as cluster, Client(cluster, asynchronous=True):
            for verb in (md.write_archive, md.write_mrcz):
                with pytest.raises(MrczdaskError, match=r"asynchronous.*asyncio\.to_thread"):
                    verb(movie, tmp_path / "a.mrcz.zarr" if verb is md.write_archive else tmp_path / "a.mrcz")
            return await asyncio.to_thread(md.write_archive, movie, tmp_path / "b.zarr", codec="zstd")

    np.testing.assert_array_equal(asyncio.run(call()).values, movie.values)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_is_told_that_the_client_is_not_its_own(client: Any, tmp_path: Path) -> None:
    assert current_client() is client
    answers = multiprocessing.get_context("fork").SimpleQueue()

    def child() -> None:
        try:
            current_client()
            answers.put("nothing")
        except MrczdaskError as error:
            answers.put(str(error))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert "forked" in answers.get()
