"""Shared by all tests: where the test data are and that they are not missed, a scheduler that must not be called."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that is skipped for want of the test data where MRCZDASK_REQUIRE_DATA=1 says that they are there."""
    report = yield
    needs_data = item.get_closest_marker("real_data") or "data_dir" in getattr(item, "fixturenames", ())
    if report.skipped and needs_data and os.environ.get("MRCZDASK_REQUIRE_DATA") == "1":
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and MRCZDASK_REQUIRE_DATA=1 forbids it: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def golden() -> Path:
    """Small MRC and MRCZ files written by three releases of python-mrcz (synthetic, part of the repository)."""
    return HERE / "data" / "mrcz_golden"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the larger and the real test data, named by MRCZDASK_TEST_DATA."""
    folder = os.environ.get("MRCZDASK_TEST_DATA")
    if not folder:
        pytest.skip("set MRCZDASK_TEST_DATA to the folder of the test data")
    path = Path(folder).resolve()
    assert path.is_dir(), f"MRCZDASK_TEST_DATA={folder} is no folder"
    return path


@pytest.fixture
def no_compute() -> Iterator[None]:
    """Fail when anything is computed inside the test: for asserting that graphs are only built."""
    import dask

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a graph was computed while it was being built")

    with dask.config.set(scheduler=refuse):
        yield


@pytest.fixture(autouse=True)
def scheduler_is_left_as_it_was() -> Iterator[None]:
    """Fail the test that leaves a scheduler behind, not the ones after it."""
    yield
    import dask

    left = dask.config.get("scheduler", None)
    dask.config.config.pop("scheduler", None)
    assert left is None, f"the test left the scheduler {left!r} in Dask's configuration"
