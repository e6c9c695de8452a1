"""Plans, digests, locks and resumable regions, against a journal in memory and one in a folder."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest

from mrczdask.errors import ResumeError
from mrczdask.execution import resume
from mrczdask.execution.resume import Region, check_plan, digest, region_lock, run_resumable
from mrczdask.io.journal import StoreJournal


@pytest.fixture
def journal(tmp_path: Path) -> StoreJournal:
    return StoreJournal(str(tmp_path / "journal"))


def test_digests_tell_contents_apart() -> None:
    a = np.arange(6, dtype=np.float32)
    assert digest(a) == digest(a.copy()) == digest(a[::-1][::-1])
    others = [digest(a.astype(float)), digest(a.reshape(2, 3)), digest(a + 1), digest(), digest(a, 1), digest([1], 2)]
    assert len({digest(a), *others}) == 7


def test_a_differing_plan_is_named() -> None:
    check_plan({"koma": 12}, {"koma": 12}, "run.zarr")
    with pytest.raises(
        ResumeError, match=r"run\.zarr: begun with other parameters: koma was 12 and is 6.*resume=False"
    ):
        check_plan({"koma": 12, "dtype": "float32"}, {"koma": 6, "dtype": "float32"}, "run.zarr")


def append(path: str, text: str) -> None:
    with open(path, "a") as file:
        file.write(text)


def regions(path: Path, digests: list[str]) -> list[Region]:
    return [Region(f"r/{k}", d, append, (str(path), f"{k}")) for k, d in enumerate(digests)]


def test_regions_are_done_once_and_again_where_their_inputs_changed(journal: StoreJournal, tmp_path: Path) -> None:
    out, seen = tmp_path / "out", []
    options: dict[str, Any] = {"progress": lambda *args: seen.append(args), "label": "try"}
    assert run_resumable(regions(out, ["a", "b", "c"]), journal, **options) == 3
    assert sorted(out.read_text()) == ["0", "1", "2"]
    assert seen[-1] == (3, 3, "try")
    assert run_resumable(regions(out, ["a", "B", "c"]), journal, **options) == 1
    assert out.read_text()[3:] == "1"


def test_a_failed_region_is_not_done(journal: StoreJournal, tmp_path: Path) -> None:
    bad = Region("r/0", "a", append, (str(tmp_path / "no" / "folder"), "x"))
    with pytest.raises(FileNotFoundError):
        run_resumable([bad], journal, progress=None, label="")
    assert journal.read("r/0.done") is None
    assert journal.read("r/0.lock") is None


def test_one_of_many_gets_a_lock(journal: StoreJournal) -> None:
    barrier = Barrier(8)

    def attempt(_: int) -> bool:
        barrier.wait()
        with region_lock(journal, "r/0.lock") as mine:
            barrier.wait()
            return mine

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(8))) == 1
    with region_lock(journal, "r/0.lock") as mine:
        assert mine


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("host", "pid", "age", "free"),
    [
        (None, None, 0.0, True),  # dead here
        (None, os.getpid(), 0.0, False),  # alive here
        ("elsewhere", 1, 10.0, False),  # heard of lately
        ("elsewhere", 1, 61.0, True),  # silent for a minute
        (None, os.getpid(), 61.0, True),
    ],
    ids=["dead here", "alive here", "heard of lately", "silent elsewhere", "silent here"],
)
def test_whose_lock_is_free(journal: StoreJournal, host: str | None, pid: int | None, age: float, free: bool) -> None:
    holder = {
        "host": host or socket.gethostname(),
        "pid": pid or dead_pid(),
        "token": "x",
        "heartbeat": time.time() - age,
    }
    assert journal.create("r/0.lock", holder)
    with region_lock(journal, "r/0.lock") as mine:
        assert mine == free
    assert (journal.read("r/0.lock") is None) == free


def test_a_dead_lock_is_taken_over_by_one(journal: StoreJournal) -> None:
    barrier = Barrier(6)
    journal.create("r/0.lock", {"host": socket.gethostname(), "pid": dead_pid(), "token": "x", "heartbeat": 0.0})

    def attempt(_: int) -> bool:
        barrier.wait()
        with region_lock(journal, "r/0.lock") as mine:
            barrier.wait()
            return mine

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(attempt, range(6))) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel of Linux")
def test_the_lock_of_a_killed_child_is_free_at_once(journal: StoreJournal) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    holder = {"host": socket.gethostname(), "pid": child.pid, "token": "x", "heartbeat": time.time()}
    journal.create("r/0.lock", holder)
    with region_lock(journal, "r/0.lock") as mine:
        assert not mine
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and not looked at: it still has its number
    with region_lock(journal, "r/0.lock") as mine:
        assert mine
    child.wait()
    for name in ("r/0.lock", "r/0.lock.after-x"):
        assert journal.read(name) is None


def test_regions_of_others_are_waited_for(
    journal: StoreJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "token": "x", "heartbeat": time.time()}
    journal.create("r/1.lock", holder)

    def release(_: float) -> None:
        journal.remove("r/1.lock")

    monkeypatch.setattr(resume.time, "sleep", release)
    assert run_resumable(regions(out, ["a", "b"]), journal, progress=None, label="") == 2
    assert out.read_text() == "01"


def test_heartbeats_renew_the_lock(journal: StoreJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "HEARTBEAT_S", 0.02)
    with region_lock(journal, "r/0.lock"):
        first = journal.read("r/0.lock")
        time.sleep(0.2)
        second = journal.read("r/0.lock")
    assert first is not None
    assert second is not None
    assert second["heartbeat"] > first["heartbeat"]
    assert second["token"] == first["token"]
