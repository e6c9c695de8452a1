from __future__ import annotations

import sys
from typing import Any

import dask
import pytest

from mrczdask.execution.schedulers import current_client, n_threads, use_scheduler


def test_threads_asked_for_win() -> None:
    with dask.config.set(num_workers=7):
        assert n_threads() == 7
        with dask.config.set(scheduler="sync"):
            assert n_threads() == 1
    assert n_threads() >= 1


def test_without_distributed_there_is_no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "distributed", raising=False)
    assert current_client() is None
    assert "distributed" not in sys.modules


def test_client_in_force(client: Any) -> None:
    assert current_client() is client
    with use_scheduler(None) as used:
        assert used is client
    with use_scheduler("threads") as used:
        assert used is None
        assert current_client() is None
    assert current_client() is client


def test_a_client_that_is_gone_is_none(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "status", "closed")
    found = current_client()
    monkeypatch.undo()
    assert found is None


def test_address(client: Any) -> None:
    address = client.scheduler.address
    with use_scheduler(address) as other:
        assert other.submit(sum, [1, 2]).result() == 3
        assert other is not client


def test_local_cluster_is_closed() -> None:
    with use_scheduler("local:1") as started:
        assert started.submit(sum, [1, 2]).result() == 3
        assert sum(started.nthreads().values()) == 1
    assert started.status == "closed"


@pytest.mark.parametrize("spec", ["", "local", "local:", "local:0", "local:x", "processes", "tcp//x"])
def test_other_names_are_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="local:N"), use_scheduler(spec):
        pass
