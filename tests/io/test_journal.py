"""Small files of a store: whole or not there, created by one of many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mrczdask.io.journal import StoreJournal


@pytest.fixture(params=["local", "memory"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreJournal]:
    if request.param == "local":
        yield StoreJournal(str(tmp_path / "run.zarr" / ".journal"))
        return
    import fsspec

    yield StoreJournal("memory://journal-test")
    fsspec.filesystem("memory").rm("/journal-test", recursive=True)


def test_files(journal: StoreJournal) -> None:
    assert journal.read("a/b.json") is None
    journal.write("a/b.json", {"x": 1})
    journal.write("a/b.json", {"x": [2, "y"]})
    assert journal.read("a/b.json") == {"x": [2, "y"]}
    assert not journal.create("a/b.json", {"x": 3})
    assert journal.read("a/b.json") == {"x": [2, "y"]}
    journal.remove("a/b.json")
    journal.remove("a/b.json")
    assert journal.read("a/b.json") is None
    assert journal.create("a/b.json", {"x": 3})


def test_torn_files_are_not_there(tmp_path: Path) -> None:
    journal = StoreJournal(str(tmp_path))
    (tmp_path / "torn").write_text('{"x": ')
    (tmp_path / "odd").write_text("[1]")
    assert journal.read("torn") is None
    assert journal.read("odd") is None
    journal.write("kept", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "odd", "torn"]
