"""Fixtures shared by all tests: where the test data are, and a scheduler that must not be called."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent


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
