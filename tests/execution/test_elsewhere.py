"""Workers that stand elsewhere: in another folder, or on a host that does not see the paths of the client."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mrczdask as md
from mrczdask.errors import StoreError


@pytest.fixture
def movie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    md.write_mrcz(md.simulate.poisson((3, 32, 32), mean=3.0, seed=0), "movie.mrcz")
    return "movie.mrcz"


@pytest.mark.slow
def test_relative_paths_mean_those_of_the_client(movie: str, tmp_path: Path) -> None:
    from distributed import Client, LocalCluster

    (tmp_path / "elsewhere").mkdir()
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster) as client:
        client.run(os.chdir, str(tmp_path / "elsewhere"))
        truth = md.simulate.poisson((3, 32, 32), mean=3.0, seed=0).values
        np.testing.assert_array_equal(md.open_movie(movie).compute().values, truth)
        written = md.write_archive(md.open_movie(movie), "a.zarr", codec="zstd")
        np.testing.assert_array_equal(written.compute().values, truth)
        np.testing.assert_array_equal(md.open_archive("a.zarr")["images"].compute().values, truth)
        done = md.process_session(md.open_session([movie]), "c.zarr", koma=None, outliers=None)
        np.testing.assert_array_equal(done["movies"].images.compute().values[0], truth)
    assert not [path for path in (tmp_path / "elsewhere").iterdir() if path.name != "dask-scratch-space"]


def _can_hide() -> bool:
    """Whether a process can be given a file system of its own."""
    if not shutil.which("unshare"):
        return False
    return subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


@pytest.fixture
def blind(tmp_path: Path) -> Iterator[Any]:
    """A client of a cluster whose one worker finds an empty folder where the test has its files."""
    if not _can_hide():
        pytest.skip("no file system of its own for a process here")
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=0, dashboard_address=":0") as cluster, Client(cluster) as client:
        start = f"mount -t tmpfs none {tmp_path} && exec {sys.executable} -m distributed.cli.dask_worker"
        options = f"{cluster.scheduler_address} --nthreads 1 --no-nanny --no-dashboard --local-directory /tmp"
        worker = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", f"{start} {options}"],
            cwd="/",
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(md.__file__).parents[1]), *sys.path])},
        )
        try:
            client.wait_for_workers(1, timeout=60)
            yield client
        finally:
            worker.terminate()
            worker.wait(30)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_worker_that_does_not_see_a_path_says_so(blind: Any, movie: str, tmp_path: Path) -> None:
    opened = md.open_movie(movie)
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"movie\.mrcz: workers on .* do not see it: .*share"):
        md.write_archive(opened, "memory://blind.zarr", codec="zstd")
    with pytest.raises(StoreError, match=r"a\.zarr: workers on .* do not see it"):
        md.write_archive(md.simulate.poisson((3, 32, 32), mean=3.0, seed=0), "a.zarr", codec="zstd")
    with pytest.raises(StoreError, match="do not see it"):
        md.process_session(md.open_session([movie]), "c.zarr", koma=None)
    with pytest.raises(FileNotFoundError, match="not seen from"):
        opened.compute()
    assert time.monotonic() - began < 60
    assert not (tmp_path / "a.zarr/images/c").exists()
